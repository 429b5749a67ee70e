"""Lazily aggregated gradients: workers that have little new to say skip their upload.

The server uses a skipping worker's last message once more. What "little" means is the rule's to say;
its right-hand side is common to all: (1/M²) Σ_{d=1..D} α_d ‖ω^{t+1-d} - ω^{t-d}‖², how far the
parameters moved lately.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from algorithms.feedback import Feedback
from algorithms.server import SKIP, OverServer, upload
from netsim._util.errors import UsageError
from netsim.comm.payload import Bundle, Dense, Flag, Vector, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Gradient, State
from netsim.training.sgd import SGDConfig, prepare

SLAB = 2**16
"""How many elements are taken at a time, so that what is made of them stays in the cache."""


class LazyMemory(NamedTuple):
    """What a rank remembers.

    `old` are the parameters at its last upload, `skipped` how often it has skipped since, `movements`
    ‖ω^{t+1-d} - ω^{t-d}‖² for d = 1..D, and `latest`, at the server, every worker's last upload. A
    sparse method has a `feedback`; some rules need a `reference` from the last upload, or a `snapshot`.
    """

    old: Vector
    skipped: int = 0
    movements: tuple[float, ...] = ()
    latest: tuple[Bundle, ...] = ()
    feedback: Feedback | None = None
    reference: Vector | None = None
    snapshot: Vector | None = None


class TriggerDecision(NamedTuple):
    """What a rule saw: its left-hand side, and what to remember; `reference` only if this uploads."""

    distance: float
    reference: Vector | None = None
    snapshot: Vector | None = None


class Lazy(OverServer):
    """A lazily aggregated method; subclasses give its rule, and what an upload holds.

    `history` is D, `delay` how many skips in a row force an upload (D by default), and `alpha` makes
    α_d = alpha / γ, with γ the rate of a summed update. During the first D steps everybody uploads.
    """

    overlaps: ClassVar[bool] = False  # a rule looks at the whole gradient
    default_alpha: float | None = None
    remembers: ClassVar[tuple[type, ...]] = (LazyMemory, Feedback)

    def __init__(
        self, history: int = 10, delay: int | None = None, alpha: float | None = None, serial: bool = False
    ) -> None:
        super().__init__(serial)
        for name, value in (("history", history), ("delay", delay), ("alpha", alpha)):
            if value is not None and not value > 0:
                raise UsageError(f"{name} {value!r} must be more than 0, such as 10")
        self.history = history
        self.delay = history if delay is None else delay
        self.alpha = self.default_alpha if alpha is None else alpha

    def initial_memory(self, template: Vector) -> LazyMemory:
        return LazyMemory(template)

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        """Return the rule's left-hand side; it is not used unless `asked`, since the upload is forced."""
        raise NotImplementedError(f"{type(self).__name__} has no rule")

    async def message(self, worker: Worker, vector: Vector, memory: LazyMemory) -> tuple[Vector, LazyMemory]:
        """Return what an upload of γ g holds, and the memory after it."""
        return vector, memory

    def upload_like(self, template: Vector) -> Bundle:
        """Return an example of an upload, of vectors like `template`."""
        return Bundle((Flag(True), template))

    def weight(self, rate: float) -> float:
        """Return α_d, the weight of a movement, at the rate γ of a summed update."""
        assert self.alpha is not None
        return self.alpha / rate

    def limit(self, worker: Worker, recipe: SGDConfig, movements: tuple[float, ...]) -> float:
        """Return the right-hand side of the rule."""
        rate = recipe.rate(worker.step) / recipe.divisor(worker.workers)
        return self.weight(rate) * sum(movements) / worker.workers**2

    def must_upload(self, step: int, skipped: int) -> bool:
        """Return whether the rule is not asked: at first, and after too many skips."""
        return step < self.history or skipped >= self.delay

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, Any]:
        """Return the sum of an exchange in which every worker uploads, whatever the rule says."""
        own = None
        if vector is not None:
            content, memory = await self.message(worker, vector, memory)
            own = upload(worker, content)
        summed, latest = await self.sum_of_latest(worker, own, memory.latest, template, self.upload_like(template))
        return summed, memory._replace(latest=latest)

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        memory: LazyMemory = state.memory
        message = None
        if gradient is not None:
            fresh = await gradient(parameters)
            worker.observe("gradient", fresh)
            forced = self.must_upload(worker.step, memory.skipped)
            seen = await self.evaluate_trigger(worker, parameters, fresh, gradient, memory, asked=not forced)
            memory = memory._replace(snapshot=seen.snapshot)
            if forced or seen.distance > self.limit(worker, recipe, memory.movements):
                vector = await worker.compute("update", prepare, fresh, parameters, recipe, worker.step)
                content, memory = await self.message(worker, vector, memory)
                message = upload(worker, content)
                memory = memory._replace(old=parameters, skipped=0, reference=seen.reference)
            else:
                message = SKIP
                memory = memory._replace(skipped=memory.skipped + 1)
        return await self.finish(worker, parameters, message, recipe, state._replace(memory=memory))

    async def finish(
        self, worker: Worker, parameters: Vector, message: Bundle | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Aggregate, move, and remember how far; `message` is None at a dedicated server."""
        memory: LazyMemory = state.memory
        summed, latest = await self.sum_of_latest(
            worker, message, memory.latest, parameters, self.upload_like(parameters)
        )
        after, state = await self.apply(worker, parameters, summed, recipe, state)
        moved = await worker.replicated("update", squared_distance, after, parameters)
        movements = (moved, *memory.movements)[: self.history]
        return after, state._replace(memory=memory._replace(latest=latest, movements=movements))


@size_rule(lambda left, right: 0.0)
def squared_distance(left: Dense, right: Dense) -> float:
    """Return ‖left - right‖², summed in double precision."""
    import torch

    pieces = zip(torch.split(left.values, SLAB), torch.split(right.values, SLAB), strict=True)
    differences = ((one - other).double() for one, other in pieces)
    return float(sum(difference.dot(difference) for difference in differences))


@size_rule(lambda left, right: math.inf)
def gradient_distance(left: Dense, right: Dense) -> float:
    """Return ‖left - right‖²; of gradients whose sizes alone are known, infinity: everybody uploads."""
    return squared_distance(left, right)
