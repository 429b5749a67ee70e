"""Local steps, the common part of methods whose workers train by themselves and exchange every H steps.

All workers share the parameters x. Worker m has parameters of its own, x - Δ_m, and steps from there with an inner
optimiser:

    Δ_m ← Δ_m + InnerOpt(∇f_m(x - Δ_m))

After H steps the workers sum their Δ_m in one all-reduce, an outer optimiser moves x, and every Δ_m is 0 again:

    x ← OuterOpt(x, (1/P) Σ_m Δ_m)

The vector is exchanged whole, or in F fragments that take turns. The sum may be applied τ steps late, so that it is
exchanged while workers compute. A worker then keeps a share α, the mixing, of its distance to the new x.

This is algorithm 2 of the Streaming DiLoCo paper (arXiv 2501.18512). With F = 1 and τ = α = 0 it is FedOpt (Reddi et
al., 2003.00295) and DiLoCo (2311.08105); with an outer learning rate of 1 and no outer momentum, local SGD
(Stich, 1805.09767). A round is one local step, also if nothing is exchanged in it. Its parameters are the shared x,
which are equal on all ranks: losses, accuracies and checksums are those of x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from algorithms.dense import DenseRing
from algorithms.pipelining import DEFAULT, Segment
from netsim._util.errors import UsageError
from netsim._util.options import Option, Whole
from netsim.comm.payload import Dense, Vector, cut, in_place, size_rule, subtract, widened
from netsim.comm.worker import Handle, Traffic, Worker
from netsim.training.algorithm import Gradient, State
from netsim.training.sgd import Moved, SGDConfig, clip_factor, prepare, quotient

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""The constants of AdamW, as torch's defaults."""


class Inner(NamedTuple):
    """The state of an inner optimiser: its first and second moments (d,), None where it has none."""

    first: Vector | None = None
    second: Vector | None = None


class UnderWay(NamedTuple):
    """An exchange that has begun: its fragment, the local steps after which its sum is applied, and the sum.

    The sum of an exchange that has not ended is the handle of its coroutine.
    """

    fragment: int
    due: int
    total: Vector | Handle[tuple[Vector, Traffic]]


class LocalMemory(NamedTuple):
    """The memory of a worker.

    Attributes
    ----------
    moved
        Δ (d,), the shared parameters less the worker's own; None if both are equal.
    inner
        The state of the inner optimiser, which is never exchanged.
    outer
        The velocity of the outer optimiser (d,), the same on all ranks; None without momentum and at first.
    under_way
        The exchanges whose sums have not been applied yet.
    """

    moved: Vector | None = None
    inner: Inner = Inner()
    outer: Vector | None = None
    under_way: tuple[UnderWay, ...] = ()


class Outer(NamedTuple):
    """The outer optimiser: SGD with a learning rate and Nesterov momentum."""

    rate: float = 1.0
    momentum: float = 0.0


class Fragment(NamedTuple):
    """The elements of a fragment: from `first` to before `last`."""

    first: int
    last: int


class LocalStep(NamedTuple):
    """The result of a local step: Δ (d,), and the state of the inner optimiser."""

    moved: Vector
    inner: Inner


InnerOptimiser = Callable[[Any, Any, Any, Inner, SGDConfig, int], LocalStep]
"""An inner optimiser: gradient, own parameters, Δ, state, hyper-parameters and step of a worker give its next Δ."""


H = Option(Whole(1, example="500"), None, "Number H of local steps from one exchange to the next.", name="h")
"""The option ``h``, without the default in words, which each class adds."""


class Local(DenseRing):
    """A method with local steps; subclasses choose the optimisers, and when to exchange what.

    The exchange is a ring all-reduce of Δ. A subclass may exchange Δ in another way, with a memory or over a server.

    Parameters
    ----------
    h
        H; None for the default of the method.
    segment, fp32_sums
        As for :class:`~algorithms.dense.DenseRing`.

    Attributes
    ----------
    default_h
        H by default, which the help of the option ``h`` names.
    outer
        The outer optimiser.
    inner
        The inner optimiser: ``sgd`` with the momentum of the run, or ``adamw``.
    fragments, tau, mixing
        F, τ and α.

    Raises
    ------
    UsageError
        If τ is not below H, because a fragment would be sent again before its sum is applied.
    """

    overlaps: ClassVar[bool] = False  # a worker takes its step, with the whole gradient, before it sends anything
    steps_locally: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = (LocalMemory, Inner, UnderWay)
    options = (H, *DenseRing.options)
    default_h: ClassVar[int] = 16
    outer: Outer = Outer()
    inner: str = "sgd"
    fragments: int = 1
    tau: int = 0
    mixing: float = 0.0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.options = tuple(
            replace(each, otherwise=str(cls.default_h)) if each.name == "h" else each for each in cls.options
        )

    def __init__(self, h: int | None = None, segment: Segment = DEFAULT, fp32_sums: bool = False) -> None:
        super().__init__(segment, fp32_sums)
        self.h = self.default_h if h is None else h

    @classmethod
    def period(cls, settings: Mapping[str, Any]) -> int:
        """Return H."""
        h: int | None = settings.get("h")
        return cls.default_h if h is None else h

    def initial_memory(self, template: Vector) -> LocalMemory:
        """Return the memory before the first step."""
        return LocalMemory()

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, Any]:
        """Return the sum of all vectors (d,), and the memory as it is."""
        total, _ = await super().exchange(worker, vector, None, template)
        return total, memory

    def due(self, steps: int) -> Sequence[int]:
        """Return the fragments that are exchanged when `steps` local steps have been made.

        Fragment p of F follows fragment 0 after p H / F steps (Streaming DiLoCo, algorithm 2, line 6).
        """
        return [part for part in range(self.fragments) if (steps - part * self.h // self.fragments) % self.h == 0]

    def span(self, fragment: int, size: int) -> Fragment:
        """Return the elements of a fragment of a vector of `size` elements: consecutive ones, as many in each."""
        return Fragment(size * fragment // self.fragments, size * (fragment + 1) // self.fragments)

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Take a local step, begin the exchanges that follow it, and apply the sums that are due."""
        assert gradient is not None
        memory: LocalMemory = state.memory
        own = parameters
        if memory.moved is not None:
            own = await worker.compute("update", subtract, parameters, memory.moved)
        fresh = await gradient(own)
        worker.observe("gradient", fresh)
        moved, inner = await worker.compute(
            "update", INNER[self.inner], fresh, own, memory.moved, memory.inner, recipe, worker.step
        )
        del fresh, own  # memory for the exchange
        steps = worker.step + 1
        begun = [
            UnderWay(fragment, steps + self.tau, await self._begin(worker, moved, fragment))
            for fragment in self.due(steps)
        ]
        worker.tally["uploads"] += bool(begun)
        memory = memory._replace(moved=moved, inner=inner, under_way=(*memory.under_way, *begun))
        while memory.under_way and memory.under_way[0].due <= steps:
            parameters, memory = await self._apply_first(worker, parameters, recipe, memory)
        return parameters, state._replace(memory=memory)

    async def settle(self, worker: Worker, state: State) -> State:
        """Wait for the exchanges under way; their sums are applied when they are due."""
        under_way = [each._replace(total=await _total(worker, each)) for each in state.memory.under_way]
        return state._replace(memory=state.memory._replace(under_way=tuple(under_way)))

    async def _begin(self, worker: Worker, moved: Vector, fragment: int) -> Any:
        """Exchange a fragment of Δ and return its sum; with τ > 0 return the handle of a coroutine that does so."""
        span, size = self.span(fragment, moved.size), moved.size
        vector = await worker.compute("update", cut, moved, *span)
        if not self.tau:
            total, _ = await self.exchange_rounded(worker, vector, None, vector)
            return total
        branch = worker.branch(fragment, (span.first / size, span.last / size))
        return await worker.fork(branch, self._beside(branch, vector))

    async def _beside(self, branch: Worker, vector: Vector) -> tuple[Vector, Traffic]:
        total, _ = await self.exchange_rounded(branch, vector, None, vector)
        return total, branch.traffic

    async def _apply_first(
        self, worker: Worker, parameters: Vector, recipe: SGDConfig, memory: LocalMemory
    ) -> tuple[Vector, LocalMemory]:
        """Apply the sum of the exchange that began first, and let the worker's own parameters follow."""
        first, *others = memory.under_way
        span, total = self.span(first.fragment, parameters.size), await _total(worker, first)
        if self.precision != "fp32":
            total = await worker.replicated("update", widened, total)
        divisor = recipe.divisor(worker.workers)
        after = await worker.replicated(
            "update", outer_step, parameters, total, memory.outer, self.outer, divisor, span
        )
        moved = None
        if self.fragments > 1 or self.mixing:
            moved = await worker.compute(
                "update", follow, memory.moved, parameters, after.parameters, span, self.mixing
            )
        return after.parameters, memory._replace(moved=moved, outer=after.velocity, under_way=tuple(others))


async def _total(worker: Worker, begun: UnderWay) -> Vector:
    if not isinstance(begun.total, Handle):
        return begun.total
    total, traffic = await begun.total
    worker.traffic.add(traffic)
    return total


def check_delay(name: str, tau: int, h: int) -> None:
    """Raise UsageError unless τ < H."""
    if tau >= h:
        raise UsageError(
            f"tau {tau} of {name} must be less than h {h}: a fragment's sum is applied before it is sent again; take a "
            f"tau of at most {h - 1}"
        )


@in_place
@size_rule(
    lambda gradient, own, moved, inner, recipe, step: LocalStep(gradient, Inner(gradient if recipe.momentum else None))
)
def sgd_step(gradient: Dense, own: Dense, moved: Dense | None, inner: Inner, recipe: SGDConfig, step: int) -> LocalStep:
    """Return Δ + u after a step of SGD, u = μ u' + γ (c g + λ x).

    Parameters
    ----------
    gradient
        g (d,); overwritten.
    own
        x (d,), the worker's own parameters.
    moved
        Δ (d,); None for 0.
    inner
        The previous update u' (d,), if there is momentum.
    recipe, step
        γ, μ, λ and the greatest norm of g, which c ≤ 1 ensures; and the step.
    """
    update, first = prepare(gradient, own, recipe, step).values, None
    if recipe.momentum:
        if isinstance(inner.first, Dense):
            update += recipe.momentum_at(step) * inner.first.values
        first = Dense(update.clone())
    return LocalStep(Dense(update if moved is None else update.add_(moved.values)), Inner(first))


@in_place
@size_rule(lambda gradient, own, moved, inner, recipe, step: LocalStep(gradient, Inner(gradient, gradient)))
def adamw_step(
    gradient: Dense, own: Dense, moved: Dense | None, inner: Inner, recipe: SGDConfig, step: int
) -> LocalStep:
    """Return Δ + γ (m̂ / (√v̂ + ε) + λ x) after a step of AdamW; the parameters are those of :func:`sgd_step`.

    References
    ----------
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2, with the rate γ of the run in
    the place of the schedule times α. The weight decay is γ λ x, as in torch.
    """
    import torch

    values = gradient.values
    if recipe.clip is not None:
        values *= clip_factor(values, recipe.clip)
    first, second = ((moment.values if isinstance(moment, Dense) else torch.zeros_like(values)) for moment in inner)
    first = first * BETA1 + (1 - BETA1) * values
    second = second * BETA2 + (1 - BETA2) * values.square_()
    size = quotient(second, 1 - BETA2 ** (step + 1))
    update = quotient(torch.div(first, size.sqrt_().add_(EPSILON), out=values), 1 - BETA1 ** (step + 1))
    if recipe.weight_decay:
        update += recipe.weight_decay * own.values
    update *= recipe.rate(step)
    return LocalStep(Dense(update if moved is None else update.add_(moved.values)), Inner(Dense(first), Dense(second)))


INNER: dict[str, InnerOptimiser] = {"sgd": sgd_step, "adamw": adamw_step}
"""The inner optimisers by name."""


@size_rule(
    lambda parameters, total, velocity, outer, divisor, span: Moved(parameters, parameters if outer.momentum else None)
)
def outer_step(
    parameters: Dense, total: Dense, velocity: Dense | None, outer: Outer, divisor: int, span: Fragment
) -> Moved:
    """Return the shared parameters after a step of the outer optimiser, x - η (Δ̄ + μ v) with v = μ v' + Δ̄.

    Parameters
    ----------
    parameters
        x (d,).
    total
        The sum of the workers' Δ in the fragment (n,); Δ̄ is the sum over the `divisor`.
    velocity
        v' (d,); None for 0.
    outer
        η and μ.
    divisor
        P for the mean.
    span
        The fragment. Other elements remain.

    References
    ----------
    Sutskever et al., ICML 2013, as ``torch.optim.SGD(nesterov=True)`` writes it; DiLoCo, algorithm 1, line 14.
    """
    import torch

    mean = total.values if divisor == 1 else quotient(total.values, divisor)
    step, after = mean, None
    if outer.momentum:
        after = torch.zeros_like(parameters.values) if velocity is None else velocity.values.clone()
        speed = after[slice(*span)]
        speed *= outer.momentum
        speed += mean
        step = mean + outer.momentum * speed
    moved = parameters.values.clone()
    moved[slice(*span)] -= step if outer.rate == 1 else outer.rate * step
    return Moved(Dense(moved), None if after is None else Dense(after))


@size_rule(lambda moved, before, after, span, mixing: moved)
def follow(moved: Dense, before: Dense, after: Dense, span: Fragment, mixing: float) -> Dense:
    """Return Δ (d,) after the shared parameters moved from `before` to `after` (d,) in a fragment.

    The worker's own parameters y become α y + (1 - α) x, so that Δ = x - y becomes α times the distance of the new x to
    the old y (Streaming DiLoCo, algorithm 2, line 12).
    """
    values, part = moved.values.clone(), slice(*span)
    if mixing:
        values[part] += after.values[part] - before.values[part]
        values[part] *= mixing
    else:
        values[part] = 0
    return Dense(values)
