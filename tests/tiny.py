"""A workload of 83 parameters, for tests of everything but learning: ``--workload tests.tiny:tiny``."""

from __future__ import annotations

import torch
from torch import nn

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
