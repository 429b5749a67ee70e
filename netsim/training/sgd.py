"""Stochastic gradient descent around an exchange.

Before the exchange a worker clips its gradient, adds weight decay and multiplies by the learning rate γ. After the
exchange every rank adds momentum and moves its parameters. The learning rate is applied before the exchange because a
residual must keep the rate under which its gradient was computed (gTop-k paper, algorithm 1, line 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from netsim._util.errors import UsageError
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, in_place, size_rule
from netsim.training.buffers import on_device, zero_row

if TYPE_CHECKING:
    import torch

Aggregate = Literal["mean", "sum"]

TORCH_EPSILON = 1e-6
"""Added to a norm before dividing by it, as in ``torch.nn.utils.clip_grad_norm_``."""


@dataclass(frozen=True, slots=True)
class SGDConfig:
    """The hyper-parameters of SGD.

    Attributes
    ----------
    learning_rate
        γ after the warm-up.
    momentum
        μ of heavy-ball momentum on the aggregated update.
    weight_decay
        λ; λ x is added to each worker's clipped gradient.
    clip
        Greatest norm of each worker's gradient; None for no clipping.
    warmup_rounds
        Rounds over which γ grows linearly.
    decay, decay_at
        The factor by which γ is multiplied at each of the rounds `decay_at`.
    aggregate
        "mean" divides the sum of the workers' vectors by P. "sum" does not, as in the SASG authors' code; the same
        effect then needs a γ that is P times smaller.

    Raises
    ------
    UsageError
        If γ underflows to 0 or overflows on its way.

    Notes
    -----
    With a dense algorithm, training equals PyTorch: ``torch.nn.utils.clip_grad_norm_`` on each worker's gradient, then
    ``torch.optim.SGD`` on the mean (``docs/recipe.md``).
    """

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    warmup_rounds: int = 0
    decay: float = 0.1
    decay_at: tuple[int, ...] = ()
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        last = math.prod([self.decay] * len(self.decay_at), start=self.learning_rate)
        if not 0 < last < math.inf:
            raise UsageError(
                f"learning rate {self.learning_rate!r}, multiplied by {self.decay!r} {len(self.decay_at)} times, "
                f"ends at {last!r}; it must stay finite and more than 0"
            )
        if not min(self.learning_rate, last) / max(1, self.warmup_rounds) > 0:
            raise UsageError(
                f"learning rate {self.learning_rate!r} becomes 0 in a warm-up of {self.warmup_rounds} rounds; take a "
                "larger one"
            )

    def rate(self, step: int) -> float:
        """Return γ_t, the learning rate of step t."""
        rate = self.learning_rate * self.decay ** sum(step >= decay_step for decay_step in self.decay_at)
        return rate * (step + 1) / self.warmup_rounds if step < self.warmup_rounds else rate

    def momentum_at(self, step: int) -> float:
        """Return μ γ_t / γ_{t-1}, the factor of the previous update in the update of step t.

        ``torch.optim.SGD`` keeps the velocity v_t = μ v_{t-1} + g_t and moves by u_t = γ_t v_t. Here workers exchange
        γ_t g_t, so the kept velocity is the update: u_t = μ (γ_t / γ_{t-1}) u_{t-1} + γ_t g_t.
        """
        return self.momentum * (self.rate(step) / self.rate(step - 1)) if step else self.momentum

    def at_rate_one(self) -> SGDConfig:
        """Return the same hyper-parameters with γ = 1 at every step."""
        return replace(self, learning_rate=1.0, warmup_rounds=0, decay_at=())

    def divisor(self, workers: int) -> int:
        """Return the divisor of the sum over workers: P for "mean", 1 for "sum"."""
        return workers if self.aggregate == "mean" else 1


class Moved(NamedTuple):
    """Parameters after a step, and the velocity; the velocity is None without momentum and before the first step."""

    parameters: Vector
    velocity: Vector | None


class Scaled(NamedTuple):
    """The product of a vector and a factor, not yet multiplied, so that a later addition can multiply on the way."""

    vector: Dense
    factor: float


def scaled(vector: Dense | Scaled) -> tuple[torch.Tensor, float]:
    """Return the values (d,) of a vector and the factor to multiply them by."""
    return (vector.vector.values, vector.factor) if isinstance(vector, Scaled) else (vector.values, 1.0)


def product(vector: Dense | Scaled) -> torch.Tensor:
    """Return the values (d,) of a vector times its factor; the vector does not change, so that it can be used again."""
    return vector.vector.values * vector.factor if isinstance(vector, Scaled) else vector.values


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def weigh(gradient: Dense, parameters: Dense, recipe: SGDConfig, step: int) -> Scaled:
    """Return a worker's input to the exchange, γ (c g + λ x), where c ≤ 1 limits the norm of g to `clip`.

    Parameters
    ----------
    gradient
        g (d,); overwritten.
    parameters
        x (d,).
    recipe
        γ, λ and `clip`.
    step
        The step, for γ.

    References
    ----------
    gTop-k paper, algorithm 1, line 3.
    """
    values, factor = gradient.values, recipe.rate(step)
    cut = 1.0 if recipe.clip is None else clip_factor(values, recipe.clip)
    if not recipe.weight_decay:
        return Scaled(Dense(values), factor * cut)
    if cut < 1:
        values *= cut
    values += recipe.weight_decay * parameters.values
    return Scaled(Dense(values), factor)


def clip_factor(gradient: torch.Tensor, most: float) -> float:
    """Return c = min(1, most / (‖g‖ + 1e-6)), the factor of ``torch.nn.utils.clip_grad_norm_``."""
    return min(1.0, most / (float(gradient.norm()) + TORCH_EPSILON))


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def prepare(gradient: Dense, parameters: Dense, recipe: SGDConfig, step: int) -> Dense:
    """Return the product that :func:`weigh` describes, as a vector (d,)."""
    vector, factor = weigh(gradient, parameters, recipe, step)
    return Dense(vector.values.mul_(factor))


@size_rule(lambda vector, factor: vector)
def multiplied(vector: Dense, factor: float) -> Dense:
    """Return a vector (d,) times a factor."""
    return Dense(vector.values * factor)


@size_rule(lambda parameters, total, velocity, recipe, step, workers: Moved(parameters, velocity))
def descend(
    parameters: Dense, total: Dense | Sparse, velocity: Dense | None, recipe: SGDConfig, step: int, workers: int
) -> Moved:
    """Return x - u, where u is the aggregated update.

    Parameters
    ----------
    parameters
        x (d,).
    total
        The exchanged sum over workers, dense (d,) or sparse.
    velocity
        The previous update; None without momentum, and at the first step.
    recipe
        Momentum, and whether `total` is averaged.
    step
        The step, for the factor :meth:`SGDConfig.momentum_at` of the previous update.
    workers
        P.

    References
    ----------
    gTop-k paper, algorithm 1, line 6.
    """
    divisor = recipe.divisor(workers)
    if not recipe.momentum and isinstance(total, Sparse):
        moved = parameters.values.clone()
        moved[on_device(total.indices.long(), moved.device)] -= on_device(quotient(total.values, divisor), moved.device)
        return Moved(Dense(moved), None)
    summed = on_device(dense_values(total), parameters.values.device)  # sums of sparse vectors are in main memory
    update = summed if divisor == 1 else quotient(summed, divisor)
    if velocity is not None:
        update = recipe.momentum_at(step) * velocity.values + update
    return Moved(Dense(parameters.values - update), Dense(update) if recipe.momentum else None)


def quotient(values: torch.Tensor, divisor: float) -> torch.Tensor:
    """Return `values` / `divisor` with the same bits on every device.

    A GPU multiplies by the reciprocal of a number, which is rounded twice; by a tensor it divides.
    """
    return values / values.new_full((), divisor)


def dense_values(vector: Dense | Sparse) -> torch.Tensor:
    """Return all elements (d,) of a vector, zeros included."""
    if isinstance(vector, Dense):
        return vector.values
    values = vector.values.new_zeros(vector.size)
    values[vector.indices.long()] = vector.values
    return values


@size_rule(lambda template: template)
def zeros(template: Dense | SizeOnly) -> Dense | SizeOnly:
    """Return a new zero vector with the size, type and device of `template`; it may be overwritten in place."""
    assert isinstance(template, Dense)
    return Dense(zero_row(template.values))
