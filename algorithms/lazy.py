"""Lazily aggregated gradients: a worker skips its upload if its gradient has changed little.

For a skipping worker the server uses the worker's last upload again. A rule (the trigger) decides who uploads: worker m
uploads if the rule's left-hand side, a squared distance between gradients, exceeds a limit. The limit is the same for
all rules and grows with the recent movement of the parameters:

    (1/M²) Σ_{d=1..D} α_d ‖ω^{t+1-d} - ω^{t-d}‖²

with M workers, parameters ω^t of step t, and τ_m the steps since worker m's last upload. Notation of the SASG paper.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

from algorithms.feedback import Feedback
from algorithms.server import SKIP, OverServer, upload
from netsim._util.options import Number, Option, Whole
from netsim.comm.payload import Bundle, Dense, Flag, Vector, size_rule, template_of
from netsim.comm.worker import Worker
from netsim.training.algorithm import Convergence, Gradient, State
from netsim.training.sgd import SGDConfig, prepare

SLAB = 2**16
"""Elements processed at a time on a CPU, so that intermediate results stay in the cache."""


class LazyMemory(NamedTuple):
    """The memory of a rank.

    Attributes
    ----------
    old
        The parameters at the last upload (d,).
    skipped
        Uploads skipped since then.
    movements
        ‖ω^{t+1-d} - ω^{t-d}‖² for d = 1..D.
    latest
        At the server, the last upload of every worker.
    feedback
        The residual of a sparse algorithm.
    reference
        The gradient of the last upload, for rules that compare with it.
    snapshot
        The parameters at which LASG-WK1 corrects gradients.
    """

    old: Vector
    skipped: int = 0
    movements: tuple[float, ...] = ()
    latest: tuple[Bundle, ...] = ()
    feedback: Feedback | None = None
    reference: Vector | None = None
    snapshot: Vector | None = None


class TriggerDecision(NamedTuple):
    """The left-hand side of a rule, and values to remember: `snapshot` always, `reference` if the worker uploads."""

    distance: float
    reference: Vector | None = None
    snapshot: Vector | None = None


class Lazy(OverServer):
    """A lazily aggregated algorithm; subclasses define the rule and the content of an upload.

    Parameters
    ----------
    history
        D, the number of movements in the limit. During the first D steps all workers upload.
    delay
        Number of skips in a row after which a worker must upload; D by default.
    alpha
        Sets α_d = alpha / γ, with γ the learning rate of a summed update.
    serial_server
        Whether the server receives from one worker after another.

    Raises
    ------
    UsageError
        If `history`, `delay` or `alpha` is not above 0.
    """

    convergence: ClassVar[Convergence] = Convergence.STALE
    overlaps: ClassVar[bool] = False  # the rule needs the whole gradient
    rounds: ClassVar[bool] = True  # an upload, not the gradient that the rule looks at
    default_alpha: float | None = None
    options = (
        Option(
            Whole(1),
            10,
            "Number D of recent parameter movements that set the limit under which a worker skips its upload.",
            name="history",
        ),
        Option(
            Whole(1), None, "Number of consecutive skips after which a worker must upload.", otherwise="D", name="delay"
        ),
        Option(
            Number(),
            None,
            "Weight α_d of a parameter movement in the limit (see history), times the learning rate γ.",
            otherwise="sasg 0.5, others 0.1 / γ",
            name="alpha",
        ),
        *OverServer.options,
    )
    remembers: ClassVar[tuple[type, ...]] = (LazyMemory, Feedback)

    def __init__(
        self, history: int = 10, delay: int | None = None, alpha: float | None = None, serial_server: bool = False
    ) -> None:
        super().__init__(serial_server)
        self.history = history
        self.delay = history if delay is None else delay
        self.alpha = self.default_alpha if alpha is None else alpha

    def initial_memory(self, template: Vector) -> LazyMemory:
        """Return the memory before the first step."""
        return LazyMemory(template)

    async def evaluate_trigger(
        self, worker: Worker, parameters: Vector, fresh: Vector, gradient: Gradient, memory: LazyMemory, asked: bool
    ) -> TriggerDecision:
        """Evaluate the rule.

        Parameters
        ----------
        worker, parameters, memory
            The rank, the parameters (d,) of this step, and the rank's memory.
        fresh
            The gradient of this step's batch (d,).
        gradient
            Computes the gradient of the same batch at other parameters.
        asked
            Whether the decision is used; False if the upload is forced, so that the rule need not compute.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement evaluate_trigger")

    async def message(self, worker: Worker, vector: Vector, memory: LazyMemory) -> tuple[Vector, LazyMemory]:
        """Return the content of an upload of the vector γ g, and the memory after the upload."""
        return await self.rounded(worker, vector), memory

    def upload_like(self, template: Vector) -> Bundle:
        """Return an example of an upload of a vector like `template`."""
        return Bundle((Flag(True), template))

    def weight(self, rate: float) -> float:
        """Return α_d, the weight of a movement, for the learning rate γ of a summed update."""
        assert self.alpha is not None
        return self.alpha / rate

    def limit(self, worker: Worker, recipe: SGDConfig, movements: tuple[float, ...]) -> float:
        """Return the limit, the right-hand side of the rule: (1/M²) Σ_d α_d ‖ω^{t+1-d} - ω^{t-d}‖²."""
        rate = recipe.rate(worker.step) / recipe.divisor(worker.workers)
        return self.weight(rate) * sum(movements) / worker.workers**2

    def must_upload(self, step: int, skipped: int) -> bool:
        """Return whether an upload is forced: in the first D steps, and after `delay` skips in a row."""
        return step < self.history or skipped >= self.delay

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, Any]:
        """Return the sum of one exchange in which every worker uploads, without evaluating the rule."""
        own = None
        if vector is not None:
            content, memory = await self.message(worker, vector, memory)
            own = upload(worker, content)
        summed, latest = await self.sum_of_latest(worker, own, memory.latest, template, self.upload_like(template))
        return summed, memory._replace(latest=latest)

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Make one step: evaluate the rule, upload or skip, aggregate, and move the parameters."""
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
        """Aggregate, move the parameters, and record the movement; `message` is None at a dedicated server."""
        memory: LazyMemory = state.memory
        template = template_of(parameters, self.precision)
        summed, latest = await self.sum_of_latest(worker, message, memory.latest, template, self.upload_like(template))
        after, state = await self.apply(worker, parameters, summed, recipe, state)
        moved = await worker.replicated("update", squared_distance, after, parameters)
        movements = (moved, *memory.movements)[: self.history]
        return after, state._replace(memory=memory._replace(latest=latest, movements=movements))


@size_rule(lambda left, right: 0.0)
def squared_distance(left: Dense, right: Dense) -> float:
    """Return ‖left - right‖², summed in double precision."""
    import torch

    slab = SLAB if left.values.device.type == "cpu" else max(1, left.size)
    pieces = zip(torch.split(left.values, slab), torch.split(right.values, slab), strict=True)
    differences = ((one - other).double() for one, other in pieces)
    return float(sum(difference.dot(difference) for difference in differences))


@size_rule(lambda left, right: math.inf)
def gradient_distance(left: Dense, right: Dense) -> float:
    """Return ‖left - right‖²; infinity where only sizes are simulated, so that every worker uploads."""
    return squared_distance(left, right)
