"""Handwritten digits, which ship with scikit-learn, and a network large enough that messages matter."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from netsim.workloads.workload import Workload

TEST_FRACTION = 0.2
HIDDEN = 1024


def digits_mlp(seed: int) -> Workload:
    """Return 8×8 digits (1,437 for training) and a 64-1024-1024-10 network of 1,126,410 parameters."""
    digits = load_digits()
    order = np.random.default_rng((seed, 3)).permutation(len(digits.target))
    training = order[round(TEST_FRACTION * len(order)) :]
    model = nn.Sequential(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))
    return Workload(
        "digits-mlp",
        model,
        inputs=torch.from_numpy(digits.data[training].astype(np.float32) / 16),
        labels=torch.from_numpy(digits.target[training].astype(np.int64)),
    )
