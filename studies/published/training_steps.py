"""Training steps as plans: one communicator performs exchanges one after another, during the backward pass.

NCCL performs the collectives of a communicator one after another, and Horovod starts one at a time. ``netsim simulate
--overlap tensor --communicator serial`` models the same. Here a step is composed of bare exchanges: each is simulated
by itself, and its time serves many steps. A test compares the two ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias

from netsim.training.overlap import ready_by_elements
from studies.published.plans import Question, RowPlan

Scheduler: TypeAlias = Literal["BSP", "WFBP", "MG-WFBP"]
"""When gradients are exchanged.

BSP exchanges one fused buffer after backward. WFBP exchanges each tensor by itself, as soon as its gradient and the
communicator are ready. MG-WFBP joins to a tensor those that will be ready within the time of an empty exchange, because
waiting for them takes less time than another exchange.
"""
SMALLEST, LARGEST, STEP = 2**8, 2**22, 4
"""Elements of exchanges that are simulated: the smallest, the largest, and the ratio of one to the next.

Between them and beyond the largest, time is taken to grow linearly with elements.
"""


def step_plan(
    compute_s: float, tensors: Sequence[int], scheduler: Scheduler, exchange: Callable[[int], Sequence[Question]]
) -> RowPlan:
    """Return the plan of a training step.

    Parameters
    ----------
    compute_s
        Seconds of forward and backward pass.
    tensors
        Elements of each tensor, first layer first. The backward pass takes two thirds of `compute_s`, in proportion to
        elements (ASSUMED, as with ``--ready elements``).
    scheduler
        When gradients are exchanged.
    exchange
        ``exchange(elements)`` returns a question for each way in which the library may exchange that many elements. The
        library takes the fastest.
    """
    sizes = _sizes(sum(tensors))
    if scheduler == "BSP":
        sizes = sizes[-2:]
    ways = [exchange(elements) for elements in sizes]
    parts = [(1.0, question) for questions in ways for question in questions]
    return RowPlan(parts, compose=partial(_composed, compute_s, tensors, scheduler, sizes, len(ways[0])))


def _sizes(total: int) -> list[int]:
    """Return the sizes to simulate, in elements, for exchanges of up to `total` elements."""
    sizes = [SMALLEST]
    while sizes[-1] < min(total, LARGEST):
        sizes.append(STEP * sizes[-1])
    return sizes


def _composed(
    compute_s: float,
    tensors: Sequence[int],
    scheduler: Scheduler,
    sizes: Sequence[int],
    ways: int,
    seconds: Sequence[float],
) -> float:
    exchanges = [min(seconds[first : first + ways]) for first in range(0, len(seconds), ways)]
    return step_s(compute_s, tensors, scheduler, by_elements(sizes, exchanges))


def by_elements(sizes: Sequence[int], seconds: Sequence[float]) -> Callable[[int], float]:
    """Return an exchange's seconds as a function of its elements: linear between `sizes`, and beyond the largest."""

    def exchange_s(elements: int) -> float:
        if elements <= sizes[0] or len(sizes) == 1:
            return seconds[0]
        last = next((place for place, size in enumerate(sizes) if size >= elements), len(sizes) - 1)
        low, high = sizes[last - 1], sizes[last]
        return seconds[last - 1] + (seconds[last] - seconds[last - 1]) * (elements - low) / (high - low)

    return exchange_s


def step_s(compute_s: float, tensors: Sequence[int], scheduler: Scheduler, exchange_s: Callable[[int], float]) -> float:
    """Return the seconds of a training step, for the parameters of :func:`step_plan`.

    ``exchange_s(elements)`` returns the seconds of a bare exchange.

    References
    ----------
    Shi, Chu and Li, "MG-WFBP: Efficient data communication for distributed synchronous SGD algorithms", INFOCOM 2019.
    """
    if scheduler == "BSP":
        return compute_s + exchange_s(sum(tensors))
    wait_s = exchange_s(1) if scheduler == "MG-WFBP" else -math.inf
    ready = [share * compute_s for share in reversed(ready_by_elements(tensors))]
    sizes = list(reversed(tensors))
    free_s, position = 0.0, 0
    while position < len(sizes):
        start_s, elements = max(free_s, ready[position]), sizes[position]
        position += 1
        while position < len(sizes) and ready[position] < start_s + wait_s:
            start_s, elements = max(start_s, ready[position]), elements + sizes[position]
            position += 1
        free_s = start_s + exchange_s(elements)
    return max(compute_s, free_s)
