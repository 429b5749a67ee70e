"""Exact top-k selection, merging and summing on NumPy arrays: compiled by numba where it is installed.

All functions select by the rule of :mod:`algorithms.selection`: the min(k, non-zeros) entries of largest magnitude. Of
equal magnitudes the lower index wins. A zero, also -0.0, is never selected. Indices are returned in ascending order.
Without numba the same functions run on NumPy and return the same bits, two to eight times slower.

Magnitudes are compared as integers: the bits of a float without its sign. Integers order finite floats by absolute
value, include denormals, and put NaN above infinity. A diverged run therefore shows NaN instead of hanging.

Selection takes one pass over the data. Elements above a threshold `floor` are appended to a list. When the list holds
about 2k elements, it is reduced to its k largest, and `floor` rises to the smallest of them. The pass is therefore fast
for any order of the data. A guess from a sample lets `floor` start high. A guess that is too high costs a second pass
but never changes the result.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FunctionType, SimpleNamespace
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from netsim._util.system import compiler

Floats: TypeAlias = NDArray[Any]
"""A one-dimensional, contiguous float32 or float64 array."""
Int32s: TypeAlias = NDArray[np.int32]
Int64s: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = NDArray[Any]
"""Magnitudes as integers: int32 for float32, int64 for float64."""

KEYS: dict[Any, np.dtype[Any]] = {np.dtype(np.float32): np.dtype(np.int32), np.dtype(np.float64): np.dtype(np.int64)}
LARGEST = 2**31 - 1
"""Greatest length of a vector: indices are int32."""

STRIDE, GROUP = 32 * 29, 32
"""The sample for a guess: the largest of the first GROUP of every STRIDE elements; 29 divides no usual layer width."""
STRIP, WIDE, NARROW = 1024, 64, 8
"""Block lengths: elements added before they are compared; elements compared with the floor at once; and elements
compared again if one of the wide block exceeds the floor."""
ROOM = 256
"""Least number of candidates kept beyond k."""
SLAB = 2**17
"""Elements that the NumPy kernels process at a time, so that their buffers stay in the cache."""


def available() -> bool:
    """Return whether the kernels are compiled by numba; the first call imports numba."""
    return isinstance(_kernels(), CompiledKernels)


def accumulate_select(residual: Floats, vector: Floats, k: int, factor: float = 1.0) -> tuple[Int32s, Floats]:
    """Add a multiple of a vector to a residual, and remove the k largest entries from the residual.

    Parameters
    ----------
    residual
        (d,); overwritten by the sum, with zeros at the selected entries.
    vector
        (d,), with the dtype of `residual`.
    k
        Number of entries to select.
    factor
        Multiplies `vector`; the product is rounded before it is added.

    Returns
    -------
    indices, values
        The selected entries of the sum.
    """
    _check_pair(residual, vector)
    positions = _kernels().select(residual, vector, residual.dtype.type(factor), _checked_k(k))
    return positions, _taken_out(residual, positions)


def accumulate_select_blocks(
    residual: Floats, vector: Floats, bounds: ArrayLike, ks: ArrayLike, factor: float = 1.0
) -> tuple[Int32s, Floats]:
    """Do as :func:`accumulate_select`, with the ks[b] largest entries of each block bounds[b]:bounds[b + 1]."""
    _check_pair(residual, vector)
    blocks = _checked_blocks(bounds, ks, residual.size)
    positions = _kernels().select_blocks(residual, vector, residual.dtype.type(factor), *blocks)
    return positions, _taken_out(residual, positions)


def top_positions(values: Floats, k: int) -> Int64s:
    """Return the ascending positions of the k largest magnitudes of `values` (d,); `values` is not changed."""
    _check(values)
    return _kernels().select(values, values[:0], values.dtype.type(1), _checked_k(k)).astype(np.int64)


def top_positions_blocks(values: Floats, bounds: ArrayLike, ks: ArrayLike) -> Int64s:
    """Return the ascending positions of the ks[b] largest magnitudes of each block bounds[b]:bounds[b + 1]."""
    _check(values)
    blocks = _checked_blocks(bounds, ks, values.size)
    return _kernels().select_blocks(values, values[:0], values.dtype.type(1), *blocks).astype(np.int64)


def merge(
    indices_a: Int32s, values_a: Floats, indices_b: Int32s, values_b: Floats, k: int
) -> tuple[Int32s, Floats, Int32s, Floats]:
    """Add two sparse vectors a and b, and keep the k largest entries of the sum.

    Parameters
    ----------
    indices_a, values_a, indices_b, values_b
        The vectors; the indices of each are strictly ascending.
    k
        Number of entries to keep.

    Returns
    -------
    kept indices, kept values, dropped indices, dropped values
        The k largest entries of the sum, and its other entries; entries that cancel to zero are in neither.

    Raises
    ------
    TypeError
        If the values have different dtypes.
    """
    _check_sparse(indices_a, values_a)
    _check_sparse(indices_b, values_b)
    if values_a.dtype != values_b.dtype:
        raise TypeError(f"cannot merge {values_a.dtype} with {values_b.dtype} values: convert one of them")
    return _kernels().merge(indices_a, values_a, indices_b, values_b, _checked_k(k))


def sum_to_dense(parts: Sequence[tuple[Int32s, Floats]], size: int) -> Floats:
    """Return the sum (size,) of sparse vectors (indices, values), added from left to right onto zeros."""
    if not parts:
        raise ValueError("expected at least one sparse vector: the sum of none has no dtype")
    total: Floats = np.zeros(size, parts[0][1].dtype)
    for indices, values in parts:
        add_at(total, indices, values)
    return total


def add_at(total: Floats, indices: Int32s, values: Floats) -> None:
    """Add `values` (n,) to total[indices] in place; the indices are distinct.

    Raises
    ------
    IndexError
        If an index is outside of `total`, which is then unchanged.
    """
    _check(total)
    _check_sparse(indices, values)
    if total.dtype != values.dtype:
        raise TypeError(f"cannot add {values.dtype} values to a {total.dtype} vector: convert one of them")
    if not _kernels().add_at(total, indices, values):
        raise IndexError(f"indices from {indices.min()} to {indices.max()} into a vector of {total.size} elements")


class Kernels(Protocol):
    """The kernels, compiled or in NumPy, on checked arguments; an empty `vector` means that nothing is added."""

    def select(self, residual: Floats, vector: Floats, factor: Any, k: int) -> Int32s:
        """Add `factor` times `vector` to `residual` in place; return the positions of the k largest entries."""

    def select_blocks(self, residual: Floats, vector: Floats, factor: Any, bounds: Int64s, ks: Int64s) -> Int32s:
        """Add `factor` times `vector` in place; return the positions of the ks[b] largest entries of each block."""

    def merge(self, ia: Int32s, va: Floats, ib: Int32s, vb: Floats, k: int) -> tuple[Int32s, Floats, Int32s, Floats]:
        """Return the kept and the dropped entries of a + b."""

    def add_at(self, total: Floats, indices: Int32s, values: Floats) -> bool:
        """Add values at indices; return False, without adding, if an index is out of range."""


class NumpyKernels:
    """The kernels in NumPy."""

    def select(self, residual: Floats, vector: Floats, factor: Any, k: int) -> Int32s:
        """See :meth:`Kernels.select`."""
        floor = self._guess(residual, vector, factor, k)
        positions = self._scan(residual, vector, factor, k, floor)
        if positions.size < k and floor > 0:
            positions = self._scan(residual, vector[:0], factor, k, 0)
        return positions

    def select_blocks(self, residual: Floats, vector: Floats, factor: Any, bounds: Int64s, ks: Int64s) -> Int32s:
        """See :meth:`Kernels.select_blocks`."""
        positions = [np.empty(0, np.int32)]
        for start, stop, k in zip(bounds[:-1].tolist(), bounds[1:].tolist(), ks.tolist(), strict=True):
            positions.append(self.select(residual[start:stop], vector[start:stop], factor, k) + np.int32(start))
        return np.concatenate(positions)

    def merge(self, ia: Int32s, va: Floats, ib: Int32s, vb: Floats, k: int) -> tuple[Int32s, Floats, Int32s, Floats]:
        """See :meth:`Kernels.merge`."""
        indices = np.concatenate([ia, ib])
        order = np.argsort(indices, kind="stable")
        indices, values = indices[order], np.concatenate([va, vb])[order]
        second = np.flatnonzero(indices[1:] == indices[:-1]) + 1
        values[second - 1] += values[second]
        values[second] = 0
        nonzero = values != 0
        indices, values = indices[nonzero], values[nonzero]
        kept = self._largest(_magnitudes(values), k)
        return indices[kept], values[kept], indices[~kept], values[~kept]

    def add_at(self, total: Floats, indices: Int32s, values: Floats) -> bool:
        """See :meth:`Kernels.add_at`."""
        if indices.size and not 0 <= indices.min() <= indices.max() < total.size:
            return False
        total[indices] += values
        return True

    def _scan(self, residual: Floats, vector: Floats, factor: Any, k: int, floor: int) -> Int32s:
        """Add `factor` times `vector`, and return the positions of the k largest of the elements above `floor`."""
        positions, keys = np.empty(0, np.int64), np.empty(0, KEYS[residual.dtype])
        magnitudes = np.empty(min(SLAB, residual.size), keys.dtype)
        exceed = np.empty(magnitudes.size, np.bool_)
        for start in range(0, residual.size, SLAB):
            slab = residual[start : start + SLAB]
            if vector.size:
                slab += factor * vector[start : start + SLAB]
            among = _magnitudes(slab, magnitudes[: slab.size])
            above = np.flatnonzero(np.greater(among, floor, out=exceed[: slab.size]))
            if above.size:
                positions, keys = np.concatenate([positions, above + start]), np.concatenate([keys, among[above]])
            if keys.size > max(2 * k, k + ROOM):
                largest = self._largest(keys, k)
                positions, keys = positions[largest], keys[largest]
                floor = int(keys.min(initial=np.iinfo(keys.dtype).max))
        return positions[self._largest(keys, k)].astype(np.int32)

    def _guess(self, residual: Floats, vector: Floats, factor: Any, k: int) -> int:
        """Return a floor for the k-th largest key, estimated from a sample; 0 if k is too large for the sample."""
        groups = residual.size // STRIDE
        rank = _rank(residual.size, k)
        if 2 * rank > groups:
            return 0
        sample = residual[: groups * STRIDE].reshape(groups, STRIDE)[:, :GROUP]
        if vector.size:
            sample = sample + factor * vector[: groups * STRIDE].reshape(groups, STRIDE)[:, :GROUP]
        largest = _magnitudes(np.ascontiguousarray(sample)).max(axis=1)
        return max(int(np.partition(largest, groups - rank)[groups - rank]) - 1, 0)

    def _largest(self, keys: Keys, k: int) -> NDArray[np.bool_]:
        """Return a mask of the k largest keys; of equal keys, those at lower positions."""
        if keys.size <= k:
            return np.ones(keys.size, np.bool_)
        if k == 0:
            return np.zeros(keys.size, np.bool_)
        cut = np.partition(keys, keys.size - k)[keys.size - k]
        mask: NDArray[np.bool_] = keys > cut
        mask[np.flatnonzero(keys == cut)[: k - np.count_nonzero(mask)]] = True
        return mask


class CompiledKernels:
    """The kernels compiled by numba; they run without the GIL."""

    def __init__(self) -> None:
        """Import numba; a loop is compiled, or read from numba's cache, when it is first called."""
        numba = compiler()
        try:
            self._loops = self._compiled(numba, cache=True)
            self._loops._add_at(np.zeros(1, np.float32), np.zeros(1, np.int32), np.zeros(1, np.float32))
        except (OSError, RuntimeError):
            # No folder for the cache is writable: every process compiles the loops itself.
            self._loops = self._compiled(numba, cache=False)

    def _compiled(self, numba: Any, cache: bool) -> SimpleNamespace:
        """Return compiled copies of the LOOPS below, which call each other's compiled copies."""
        names = dict(globals())
        for loop in LOOPS:
            copy = FunctionType(loop.__code__, names, loop.__name__)
            copy.__qualname__ = loop.__qualname__
            names[loop.__name__] = numba.njit(nogil=True, cache=cache)(copy)
        return SimpleNamespace(**{loop.__name__: names[loop.__name__] for loop in LOOPS})

    def select(self, residual: Floats, vector: Floats, factor: Any, k: int) -> Int32s:
        """See :meth:`Kernels.select`."""
        positions: Int32s = self._loops._select(*self._arguments(residual, vector, factor), k)
        return positions

    def select_blocks(self, residual: Floats, vector: Floats, factor: Any, bounds: Int64s, ks: Int64s) -> Int32s:
        """See :meth:`Kernels.select_blocks`."""
        positions: Int32s = self._loops._select_blocks(*self._arguments(residual, vector, factor), bounds, ks)
        return positions

    def _arguments(self, residual: Floats, vector: Floats, factor: Any) -> tuple[Floats, Floats, Any, Keys]:
        """Return the loops' arguments: residual, vector, factor and the bits of the residual.

        Without a vector, the loops get only the bits, so that the residual may be a read-only array.
        """
        bits = residual.view(KEYS[residual.dtype])
        if vector.size:
            return residual, vector, factor, bits
        nothing = np.empty(0, residual.dtype)
        return nothing, nothing, factor, bits

    def merge(self, ia: Int32s, va: Floats, ib: Int32s, vb: Floats, k: int) -> tuple[Int32s, Floats, Int32s, Floats]:
        """See :meth:`Kernels.merge`."""
        indices, values = np.empty(ia.size + ib.size, np.int32), np.empty(ia.size + ib.size, va.dtype)
        keys = np.empty(values.size, KEYS[values.dtype])
        merged: tuple[Int32s, Floats, Int32s, Floats] = self._loops._merge(
            ia, va, ib, vb, k, indices, values, values.view(keys.dtype), keys
        )
        return merged

    def add_at(self, total: Floats, indices: Int32s, values: Floats) -> bool:
        """See :meth:`Kernels.add_at`."""
        return bool(self._loops._add_at(total, indices, values))


_lock = threading.Lock()
_chosen: Kernels | None = None


def _kernels() -> Kernels:
    """Return the compiled kernels if numba works, else those in NumPy."""
    return _chosen or _choose()


def _choose() -> Kernels:
    global _chosen
    with _lock:
        if _chosen is None:
            try:
                _chosen = CompiledKernels()
            except ImportError:
                _chosen = NumpyKernels()
        return _chosen


def _taken_out(residual: Floats, positions: Int32s) -> Floats:
    """Return residual[positions], and set it to zero."""
    values: Floats = residual[positions]
    residual[positions] = 0
    return values


def _magnitudes(values: Floats, out: Keys | None = None) -> Keys:
    """Return the bits without the sign: integers in the order of the magnitudes."""
    bits = values.view(KEYS[values.dtype])
    magnitudes: Keys = np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=out)
    return magnitudes


def _check(values: Floats) -> None:
    if values.dtype not in KEYS or values.ndim != 1 or not (values.flags.c_contiguous and values.flags.aligned):
        raise TypeError(f"expected a contiguous float32 or float64 vector, not {values.dtype} of shape {values.shape}")
    if values.size > LARGEST:
        raise ValueError(f"{values.size} elements: an int32 index reaches {LARGEST}")


def _check_pair(residual: Floats, vector: Floats) -> None:
    _check(residual)
    _check(vector)
    if residual.dtype != vector.dtype or residual.size != vector.size:
        raise TypeError(
            f"expected {residual.size} {residual.dtype} elements to add, as many as the residual has, "
            f"not {vector.size} {vector.dtype} ones"
        )
    if not residual.flags.writeable:
        raise ValueError("the residual is read-only: pass a writable copy of it")


def _check_sparse(indices: Int32s, values: Floats) -> None:
    _check(values)
    if indices.dtype != np.int32 or indices.shape != values.shape or not indices.flags.c_contiguous:
        raise TypeError(
            f"expected one contiguous int32 index per value, not {indices.dtype} {indices.shape} for {values.shape}"
        )


def _checked_k(k: int) -> int:
    if k < 0:
        raise ValueError(f"k = {k}: expected the number of entries to keep, 0 or more")
    return min(int(k), LARGEST)


def _checked_blocks(bounds: ArrayLike, ks: ArrayLike, size: int) -> tuple[Int64s, Int64s]:
    edges, numbers = np.array(bounds, np.int64, ndmin=1), np.array(ks, np.int64, ndmin=1)
    if edges.size != numbers.size + 1 or edges[0] != 0 or edges[-1] != size or (np.diff(edges) < 0).any():
        raise ValueError(
            f"expected ascending bounds from 0 to {size}, one more than the {numbers.size} ks, not {edges}"
        )
    if (numbers < 0).any():
        raise ValueError(f"k = {numbers.min()}: expected the number of entries to keep, 0 or more")
    return edges, np.minimum(numbers, LARGEST)


# The functions below are compiled. Their blocks and counts let LLVM emit vector instructions: maxima of integers (NaN
# prevents it for floats), block lengths known at compile time, and sums in the type of the keys.


def _rank(size: int, k: int) -> int:
    """Return the floor's rank among the group maxima: the expected rank of the k-th, plus 3 standard deviations + 4."""
    expected = k * (size // STRIDE * GROUP) / max(size, 1)
    return int(expected + 3 * expected**0.5 + 4)


def _select(residual: Floats, vector: Floats, factor: Any, bits: Keys, k: int) -> Int32s:
    """Add `factor` times `vector` unless it is empty; return the positions of the k largest entries.

    `bits` is the memory of `residual` as integers.
    """
    room = min(bits.size, max(2 * k, k + ROOM)) + WIDE
    positions, keys = np.empty(room, np.int32), np.empty(room, bits.dtype)
    floor = _guess(residual, vector, factor, bits, k)
    count = _scan(residual, vector, factor, bits, k, floor, positions, keys)
    if count < k and floor > 0:
        count = _scan(residual, vector[:0], factor, bits, k, bits.dtype.type(0), positions, keys)
    return positions[:count].copy()


def _select_blocks(residual: Floats, vector: Floats, factor: Any, bits: Keys, bounds: Int64s, ks: Int64s) -> Int32s:
    """Do as :func:`_select` in every block; positions count from the start of the vector."""
    total = 0
    for b in range(ks.size):
        total += min(ks[b], bounds[b + 1] - bounds[b])
    positions = np.empty(total, np.int32)
    count = 0
    for b in range(ks.size):
        start, stop = bounds[b], bounds[b + 1]
        addend = vector[start:stop] if vector.size else vector
        found = _select(residual[start:stop], addend, factor, bits[start:stop], ks[b])
        for i in range(found.size):
            positions[count + i] = start + found[i]
        count += found.size
    return positions[:count].copy()


def _scan(
    residual: Floats, vector: Floats, factor: Any, bits: Keys, k: int, floor: Any, positions: Int32s, keys: Keys
) -> int:
    """Add; write the k largest of the elements above `floor` to `positions` and `keys`; return their number.

    This is one function because a call per wide block made the scan a sixth slower.
    """
    mask = bits.dtype.type(np.iinfo(bits.dtype).max)
    count = 0
    for start in range(0, bits.size, STRIP):
        strip = bits[start : start + STRIP]  # indices of a slice start at 0, so numba adds no test for negative ones
        if vector.size:
            sums, addends = residual[start : start + STRIP], vector[start : start + STRIP]
            for i in range(sums.size):
                sums[i] += factor * addends[i]
        tail = strip.size - strip.size % WIDE
        for near in range(0, tail, WIDE):
            exceeds = bits.dtype.type(0)
            for i in range(near, near + WIDE):
                exceeds |= bits.dtype.type((strip[i] & mask) > floor)
            if exceeds:
                for close in range(near, near + WIDE, NARROW):
                    exceeds = bits.dtype.type(0)
                    for i in range(close, close + NARROW):
                        exceeds |= bits.dtype.type((strip[i] & mask) > floor)
                    if exceeds:
                        for i in range(close, close + NARROW):
                            key = strip[i] & mask
                            positions[count], keys[count] = start + i, key
                            count += key > floor
                if count > positions.size - WIDE:
                    floor = _prune(positions, keys[:count], k, floor)
                    count = k
        for i in range(tail, strip.size):
            key = strip[i] & mask
            positions[count], keys[count] = start + i, key
            count += key > floor
    if count > k:
        _prune(positions, keys[:count], k, floor)
        count = k
    return count


def _guess(residual: Floats, vector: Floats, factor: Any, bits: Keys, k: int) -> Any:
    """Return a floor for the k-th largest key, estimated from a sample; 0 if k is too large for the sample."""
    none = bits.dtype.type(0)
    groups, rank = bits.size // STRIDE, _rank(bits.size, k)
    if 2 * rank > groups:
        return none
    sample = np.empty(groups, bits.dtype)
    sums = np.empty(GROUP, residual.dtype)
    sums_bits = sums.view(bits.dtype)
    for g in range(groups):
        largest = none
        if vector.size:
            for j in range(GROUP):
                sums[j] = residual[g * STRIDE + j] + factor * vector[g * STRIDE + j]
            for j in range(GROUP):
                largest = max(largest, sums_bits[j] & np.iinfo(bits.dtype).max)
        else:
            for j in range(GROUP):
                largest = max(largest, bits[g * STRIDE + j] & np.iinfo(bits.dtype).max)
        sample[g] = largest
    cut, _ = _cut(sample, rank, none)
    return bits.dtype.type(max(cut - 1, 0))


def _cut(keys: Keys, k: int, low: Any) -> tuple[Any, int]:
    """Return (cut, ties): the k largest keys are those above `cut`, and `ties` of the keys equal to `cut`.

    More than k keys are above `low`. The interval of values is halved until it contains the cut; each step only
    compares and counts, and equal keys need no special case.
    """
    number = keys.dtype.type
    high = number(0)
    for i in range(keys.size):
        high = max(high, keys[i])
    while high - low > 1:
        middle = number(low + (high - low) // 2)
        above = number(0)
        for i in range(keys.size):
            above = number(above + (keys[i] > middle))
        if above == k:
            return middle, 0
        if above > k:
            low = middle
        else:
            high = middle
    above = number(0)
    for i in range(keys.size):
        above = number(above + (keys[i] > high))
    return high, k - above


def _prune(positions: Int32s, keys: Keys, k: int, floor: Any) -> Any:
    """Move the k largest of more than k `keys` to the front, in order; return the new floor.

    New keys exceed `floor`; keys kept by an earlier call may equal it.
    """
    cut, ties = _cut(keys, k, keys.dtype.type(max(floor - 1, 0)))
    count = 0
    for i in range(keys.size):
        key = keys[i]
        tie = (key == cut) & (ties > 0)
        ties -= tie
        positions[count] = positions[i]
        keys[count] = key
        count += (key > cut) | tie
    return cut


def _merge(
    ia: Int32s, va: Floats, ib: Int32s, vb: Floats, k: int, indices: Int32s, values: Floats, bits: Keys, keys: Keys
) -> tuple[Int32s, Floats, Int32s, Floats]:
    """Merge a and b into `indices` and `values` (as integers: `bits`), then separate the k largest from the others."""
    i = j = total = 0
    while i < ia.size or j < ib.size:
        from_a = j == ib.size or (i < ia.size and ia[i] <= ib[j])
        from_b = i == ia.size or (j < ib.size and ib[j] <= ia[i])
        if from_a and from_b:
            indices[total], values[total] = ia[i], va[i] + vb[j]
        elif from_a:
            indices[total], values[total] = ia[i], va[i]
        else:
            indices[total], values[total] = ib[j], vb[j]
        i, j = i + from_a, j + from_b
        keys[total] = bits[total] & np.iinfo(bits.dtype).max
        total += keys[total] > 0
    if total <= k:
        return indices[:total].copy(), values[:total].copy(), indices[:0].copy(), values[:0].copy()
    cut, ties = _cut(keys[:total], k, bits.dtype.type(0))
    kept_indices, kept_values = np.empty(k, indices.dtype), np.empty(k, values.dtype)
    kept = dropped = 0
    for i in range(total):
        tie = keys[i] == cut and ties > 0
        ties -= tie
        if keys[i] > cut or tie:
            kept_indices[kept], kept_values[kept] = indices[i], values[i]
            kept += 1
        else:
            indices[dropped], values[dropped] = indices[i], values[i]
            dropped += 1
    return kept_indices, kept_values, indices[:dropped].copy(), values[:dropped].copy()


def _add_at(total: Floats, indices: Int32s, values: Floats) -> bool:
    """Add values at indices; return False, without adding, if an index is out of range."""
    for i in range(indices.size):
        if indices[i] < 0 or indices[i] >= total.size:
            return False
    for i in range(indices.size):
        total[indices[i]] += values[i]
    return True


LOOPS = (_rank, _select, _select_blocks, _scan, _guess, _cut, _prune, _merge, _add_at)
