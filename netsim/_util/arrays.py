"""Arrays of whole numbers."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
"""Whole numbers: ranks, bytes, picoseconds."""


def repeats(numbers: IntArray) -> bool:
    """Return whether a number, at least 0, occurs more than once."""
    return bool((np.bincount(numbers) > 1).any())
