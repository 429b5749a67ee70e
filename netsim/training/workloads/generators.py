"""The global random generators of Python, NumPy and torch, from which user code may draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from netsim.training.workloads.digests import hashed


def digests(device: str) -> dict[str, str]:
    """Return a digest of the state of each generator, by a name for error messages."""
    states = {
        "torch's global random generator": hashed(torch.get_rng_state()),
        "NumPy's global random generator": hashed(np.random.get_state()),
        "Python's random module": hashed(random.getstate()),
    }
    if device.startswith("cuda"):
        states["torch's random generator of the GPU"] = hashed(torch.cuda.get_rng_state(device))
    return states


@contextmanager
def kept() -> Iterator[None]:
    """Restore the states of the generators at the end of the block."""
    ours, theirs = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(theirs)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators inside the block, and restore their states at its end."""
    with kept():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed % 2**63)
        yield
