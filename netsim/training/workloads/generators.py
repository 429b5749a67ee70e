"""The global random generators of Python, NumPy and torch, which a user's own code may draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from netsim.training.workloads.digests import hashed


def digests(device: str) -> dict[str, str]:
    """Return a digest of each generator's state, by its name in words."""
    found = {
        "torch's global random generator": hashed(torch.get_rng_state()),
        "NumPy's global random generator": hashed(np.random.get_state()),
        "Python's random module": hashed(random.getstate()),
    }
    if device.startswith("cuda"):
        found["torch's random generator of the GPU"] = hashed(torch.cuda.get_rng_state(device))
    return found


@contextmanager
def kept() -> Iterator[None]:
    """Restore the states of the generators after this."""
    ours, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have the generators start from `seed` within this, and restore their states after it."""
    with kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        yield
