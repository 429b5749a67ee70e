"""``netsim.exchange``: one exchange of given vectors, in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from algorithms import build_algorithm, class_of, declared_by, taken_by, text_of
from netsim._util.errors import UsageError, check_digits, shown
from netsim._util.options import Whole
from netsim._util.units import in_python
from netsim.experiment.configuration import Experiment
from netsim.report.exchange_result import ExchangeResult
from netsim.training.algorithm import Algorithm

if TYPE_CHECKING:
    import numpy as np
    import torch

    from netsim.comm.payload import Precision

OPTION_OF = {"momentum_correction": "momentum"}
"""Constructor parameters of algorithms whose option has another name."""


def _settled(
    algorithm: str, k: int | None, rows: torch.Tensor, precision: Precision, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options with values as Python types; raise UsageError for a value that the algorithm cannot use."""
    workers, elements = rows.shape
    settled = {name: in_python(value) for name, value in given.items()}
    own = {name: value for name, value in settled.items() if name in taken_by(algorithm) and value is not None}
    for name, value in own.items():
        check_digits(name, value)
    if isinstance(groups := own.get("groups"), tuple):
        del own["groups"]
        if len(groups) != workers or not all(type(group) is int and group >= 0 for group in groups):
            raise UsageError(f"groups {shown(groups)} must be the number of each rank's group, {workers} in all")
    if "selector" in own:
        raise UsageError(
            f"selector {shown(own['selector'])} was given; give k, the number of selected entries, instead"
        )
    bucket = own.pop("bucket", 0)
    if type(bucket) is not int or not 0 <= bucket < 2**32:
        raise UsageError(f"bucket {shown(bucket)} must be a whole number from 0 to {2**32 - 1}")
    if "shapes" in own:
        _check_shapes(own.pop("shapes"), elements)
    if "groups" in own:
        Whole(1).read("groups", own.pop("groups"))
    for each in declared_by(algorithm):
        if each.name in own:
            each.read(own.pop(each.name))
    asked = {OPTION_OF.get(name, name): value for name, value in own.items()}
    Experiment.of(
        timing_only=True, workers=workers, elements=elements, k=k, algorithm=algorithm, dtype=precision, **asked
    )
    return settled


def _check_shapes(shapes: Any, elements: int) -> None:
    """Raise UsageError unless `shapes` are those of tensors that have so many elements in all."""
    rows = shapes if isinstance(shapes, list | tuple) else [None]
    sizes = [math.prod(row) if isinstance(row, list | tuple) and _are_lengths(row) else 0 for row in rows]
    if 0 in sizes or sum(sizes) != elements:
        raise UsageError(
            f"shapes {shown(shapes)} must be of tensors with {elements} elements in all, such as (({elements},),)"
        )


def _are_lengths(numbers: Sequence[Any]) -> bool:
    return all(type(number) is int and number > 0 for number in numbers)


def exchange(
    algorithm: str | type[Algorithm] | Algorithm,
    vectors: torch.Tensor | np.ndarray,
    k: int | None = None,
    *,
    dtype: Precision | None = None,
    **options: Any,
) -> ExchangeResult:
    """Make one exchange of given vectors in memory, starting without residuals.

    Parameters
    ----------
    algorithm
        The name of an algorithm, such as "gtopk", a class, or an object.
    vectors
        One vector per worker, shape (P, d), floating-point.
    k
        Number of entries that a sparse algorithm selects; None for a dense one.
    dtype
        The type of the values in messages: "fp32", "bf16" or "fp16"; that of `vectors` by default.
    **options
        The algorithm's own options, such as ``residual="index-intersection"`` for gtopk or ``gather="bruck"`` for
        topk.

    Returns
    -------
    ExchangeResult
        The total, residuals and bytes; ``print(result)``, ``result.messages`` and ``result.plot()`` show who sent what
        to whom in which round.

    Raises
    ------
    UsageError
        For vectors of another shape or type, and for values that the algorithm cannot use.

    Examples
    --------
    >>> import netsim, torch
    >>> vectors = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 1.5]])
    >>> result = netsim.exchange("gtopk", vectors, k=1)
    >>> result.aggregated
    tensor([3., 0., 0.])
    >>> result.residuals.tolist()
    [[0.0, 2.0, 1.0], [0.0, 0.0, 1.5]]
    >>> result.bytes_sent  # a value and an index of 4 bytes each
    [8, 8]
    >>> result
    gtopk among 2 ranks: 2 messages in 2 rounds; a rank sends at most 8 B.
    round 1, tree_reduce: 1 → 0 8 B
    round 2, tree_broadcast: 0 → 1 8 B
    """
    import numpy as np
    import torch

    from algorithms.compression import total as dense_sum
    from algorithms.selection import Selector
    from netsim.comm.payload import Dense, widened
    from netsim.comm.worker import Worker
    from netsim.simulator.message_rounds import RoundsTransport
    from netsim.simulator.scheduler import RankScheduler
    from netsim.simulator.workers import make_workers

    try:
        rows = vectors.detach() if isinstance(vectors, torch.Tensor) else torch.from_numpy(np.array(vectors))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"vectors of type {type(vectors).__name__} must be an array of shape (P, d): {error}"
        ) from None
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise UsageError(f"vectors of shape {tuple(rows.shape)}, {rows.dtype}, must be floating-point of shape (P, d)")
    if not bool(torch.isfinite(rows).all()):
        raise UsageError("vectors hold NaN or infinity; every element must be finite")
    name, k = text_of(in_python(algorithm)), in_python(k)
    sparse = class_of(name).sparse
    if sparse and k is None:
        raise UsageError(f"{name} needs k, the number of entries that it selects")
    if k is not None and not sparse:
        raise UsageError(f"k {shown(k)} was given, but {name} exchanges every entry; leave it out")
    precision = Dense(rows[0]).precision if dtype is None else dtype
    settled = _settled(name, k, rows, precision, options)
    chosen = build_algorithm(name, settled | ({"selector": Selector(k)} if k is not None else {}))
    chosen.send_as(precision)

    async def program(worker: Worker) -> tuple[torch.Tensor, torch.Tensor]:
        vector = widened(Dense(rows[worker.rank].clone()))
        total, memory = await chosen.exchange_rounded(worker, vector, chosen.initial_memory(vector), vector)
        residual, summed = chosen.residual(memory), dense_sum(total)
        assert isinstance(summed, Dense)
        return summed.values, residual.values if isinstance(residual, Dense) else torch.zeros_like(vector.values)

    transport = RoundsTransport()
    tasks = RankScheduler[tuple[torch.Tensor, torch.Tensor]](transport).run(
        make_workers(chosen, len(rows), False), program
    )
    held = [task.result for task in tasks if task.result is not None]
    return ExchangeResult(
        held[0][0],
        torch.stack([residual for _, residual in held]),
        [task.worker.traffic.bytes_up for task in tasks],
        [task.worker.traffic.bytes_down for task in tasks],
        name,
        sorted(transport.messages, key=lambda each: (each.round, each.operation, each.src, each.dst)),
    )
