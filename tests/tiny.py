"""Small workloads: ``tests.tiny:tiny`` of 83 parameters, and ``tests.tiny:digits`` for tests of learning."""

from __future__ import annotations

import torch
from torch import nn

from netsim.training.workloads.data import DATA
from netsim.training.workloads.data.load import load
from netsim.training.workloads.fully_connected import FullyConnected
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.workload import Workload


def tiny(seed: int) -> Workload:
    """Return three classes of points in six dimensions, and a network of 6·8 + 8 + 8·3 + 3 parameters."""
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.arange(120) % 3
    centres = 2 * torch.randn(3, 6, generator=drawn)
    samples = Samples(centres[labels] + torch.randn(120, 6, generator=drawn), labels)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return Workload("tiny", model, samples, samples)


def digits(seed: int) -> Workload:
    """Return handwritten digits, and a network of 64·32 + 32 + 32·10 + 10 = 2,410 parameters that learns them."""
    data = load("digits", DATA["digits"].shape, seed, None)
    return Workload("digits", FullyConnected(64, 32, 10), data.training, data.test)
