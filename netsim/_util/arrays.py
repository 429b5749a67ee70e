"""Names for the types of arrays."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IntArray: TypeAlias = npt.NDArray[np.int64]
"""Whole numbers: ranks, bytes, picoseconds."""
