"""Accumulation and exact selection in several vectors at once by a kernel in Triton, where there are CUDA and Triton.

One pass over memory adds gradients to residuals and finds candidates, among which the compiled kernels select, as
:mod:`algorithms.rows` has them do with torch's operators. That module serves where this one does not: without Triton,
in short vectors, within tensors, and in rows whose candidates were too few or too many.

Before the kernel is used on a GPU, it selects from small vectors whose result is known. If Triton fails there, or if
bits differ, a warning is logged once, and torch's operators select for the rest of the process.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from algorithms import kernels
from algorithms.rows import among, as_tensors, complete
from algorithms.selection import SAMPLE, Selector, sampled_rank
from netsim._util.random_streams import Stream, generator
from netsim.training.sgd import Scaled, scaled

if TYPE_CHECKING:
    import torch

    from netsim.comm.payload import Dense

MOST = 2**31 - 2**12
"""Greatest length of a vector: positions in it, up to the end of its last block, are counted in int32."""

_lock = threading.Lock()
_agrees: dict[str | None, bool] = {}
"""Whether the kernel was right on a device, by its name, once it was tried there."""


def is_fused(residuals: Sequence[torch.Tensor], vectors: Sequence[Dense | Scaled], selector: Selector) -> bool:
    """Return whether :func:`accumulate_and_take` accepts these vectors, and is right on their device."""
    import torch

    size = residuals[0].numel()
    if selector.blocks or not 0 < _room(size, selector.k) <= size // 8 or size > MOST:
        return False
    values = [*residuals, *(scaled(vector)[0] for vector in vectors)]
    if not all(each.dtype == torch.float32 and each.is_contiguous() for each in values):
        return False
    return is_right_on(residuals[0].device)


def _room(size: int, k: int) -> int:
    """Return the most candidates of a row: twice those that are expected, or more; 0 where guessing does not pay."""
    stride, rank = sampled_rank(size, k)
    return rank and (2 * rank + 8) * stride


def is_right_on(device: torch.device) -> bool:
    """Return whether Triton and CUDA are installed, and the kernel selects on a device as the compiled kernels do."""
    import torch

    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    with _lock:
        if (name := str(device)) not in _agrees:
            _agrees[name] = _check(device)
        return _agrees[name]


def selection_facts(device: str | None) -> dict[str, str]:
    """Return for a report whether Triton or torch selected on a GPU; nothing if the kernel was not asked for there."""
    agrees = _agrees.get(device)
    return {} if agrees is None else {"selection": "triton" if agrees else "torch"}


def accumulate_and_take(
    residuals: Sequence[torch.Tensor], vectors: Sequence[Dense | Scaled], k: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Add vectors to residuals, and remove the k largest entries from each sum.

    Parameters
    ----------
    residuals
        n vectors (d,); overwritten by the sums, with zeros at the selected entries.
    vectors
        What is added to each, possibly times a factor; a product is rounded before it is added.
    k
        The number of entries of each row.

    Returns
    -------
    list of (indices, values)
        For each row, in main memory: int32 indices, ascending, and their values.
    """
    from algorithms import triton_kernels

    rows = triton_kernels.Rows(residuals, *zip(*map(scaled, vectors), strict=True))
    size = residuals[0].numel()
    bounds = [0, size]
    taken = among(*rows.accumulate(*sampled_rank(size, k), _room(size, k)), len(residuals), bounds, [k])
    complete(taken, residuals, bounds, [k])
    positions = [positions for positions, _ in taken]
    rows.clear(np.repeat(np.arange(len(taken)), list(map(len, positions))), np.concatenate(positions))
    return as_tensors(taken)


def _check(device: torch.device) -> bool:
    """Return whether the kernel selects as the compiled kernels do; log a warning if not."""
    try:
        wrong = [size for size in (8 * SAMPLE, 16 * SAMPLE + 3) if not _is_right(device, size)]
        why = f"its results for {wrong} elements differ from those of the CPU" if wrong else ""
    except Exception as error:  # whatever Triton, its compiler or the driver raises: torch's operators select as well
        why = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
    if why:
        logging.getLogger(__name__).warning(
            "netsim: Triton's kernel is not used on %s (%s); torch's operators select instead, more slowly", device, why
        )
    return not why


def _is_right(device: torch.device, size: int) -> bool:
    """Return whether rows of a size, one of each kind that could go wrong, have the compiled kernels' bits."""
    import torch

    from netsim.comm.payload import Dense

    random, k = generator(0, Stream.SELF_CHECK, size), size // 200
    normal, seldom = random.standard_normal((2, size), np.float32), random.random(size) < k / size / 2
    residuals = np.stack(
        [
            normal[0],
            np.round(normal[0]),  # ties
            np.full(size, -0.5, np.float32),  # only ties: there are more candidates than a list has room for
            normal[0] * seldom,  # mostly zeros: there are too few candidates
            np.where(seldom, np.float32(np.inf), normal[0]),
            np.where(seldom, np.float32(np.nan), normal[0]),
            normal[0] * np.float32(1e-39),  # denormals
        ]
    )
    gradients = np.stack([normal[1], np.round(normal[1]), *[np.zeros(size, np.float32)] * 2, *[normal[1]] * 2])
    gradients = np.vstack([gradients, normal[1] * np.float32(1e-39)])
    factors = [0.1, 0.5, 1.0, 1.0, 1e-3, 1.0, 0.3]
    there, addends = (torch.from_numpy(each).to(device) for each in (residuals.copy(), gradients))
    taken = accumulate_and_take(
        list(there), [Scaled(Dense(row), factor) for row, factor in zip(addends, factors, strict=True)], k
    )
    right = [
        kernels.accumulate_select(row, gradient, k, factor)
        for row, gradient, factor in zip(residuals, gradients, factors, strict=True)
    ]
    pairs = [(there.cpu().numpy(), residuals)]
    for (indices, values), expected in zip(taken, right, strict=True):
        pairs += zip((indices.numpy(), values.numpy()), expected, strict=True)
    return all(np.array_equal(_bits(one), _bits(other)) for one, other in pairs)


def _bits(values: np.ndarray) -> np.ndarray:
    """Return the bits of numbers; those of every NaN are the same, because a GPU has one and a CPU several."""
    bits = values.view(np.int32)
    return np.where(np.isnan(values), -1, bits) if values.dtype == np.float32 else bits
