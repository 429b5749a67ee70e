"""What Hypothesis draws for the laws."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

GRID = 2.0**-10
"""Sums of a few thousand multiples of this below 2**8 are exact in float32."""


@st.composite
def gradients(draw: st.DrawFn, largest_p: int = 9, largest_d: int = 40) -> np.ndarray:
    """(P, d) float32 on a dyadic grid: independent, correlated, tied, sparse, or cancelling each other."""
    ranks, size = draw(st.integers(1, largest_p)), draw(st.integers(1, largest_d))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["independent", "correlated", "tied", "sparse", "cancelling"]))
    drawn = random.integers(-(2**10), 2**10, (ranks, size))
    if kind == "correlated":
        drawn = drawn // 16 + random.integers(-(2**10), 2**10, size)
    elif kind == "tied":
        drawn = random.choice([-64, 0, 64], (ranks, size))
    elif kind == "sparse":
        drawn *= random.random((ranks, size)) < 0.2
    elif kind == "cancelling":
        drawn[1::2] = -drawn[: len(drawn[1::2]) * 2 : 2]
    return (drawn * GRID).astype(np.float32)


def small_worlds() -> Any:
    """Numbers of workers, powers of two and others."""
    return st.integers(1, 17)
