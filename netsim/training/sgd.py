"""Stochastic gradient descent around the exchange: what is done to a gradient before, to parameters after."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from netsim._util.device import zero_row
from netsim._util.errors import UsageError
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, in_place, size_rule

if TYPE_CHECKING:
    import torch

Aggregate = Literal["mean", "sum"]

TORCH_EPSILON = 1e-6
"""What ``torch.nn.utils.clip_grad_norm_`` adds to a norm before it divides by it."""


@dataclass(frozen=True, slots=True)
class SGDConfig:
    """The hyper-parameters of SGD.

    `learning_rate` is γ; it grows linearly over the first `warmup_rounds` rounds and is multiplied by
    `decay` at every round in `decay_at`. `momentum` is heavy-ball momentum on the aggregated update.
    `clip` bounds the norm of each worker's gradient; then `weight_decay` adds its multiple of the parameters
    to it. `aggregate` says whether the workers' vectors are averaged or, as in the authors' code
    of SASG, summed; a summed γ is P times smaller than an averaged one of the same effect.

    A dense algorithm moves the parameters as ``torch.nn.utils.clip_grad_norm_`` of each worker's gradient and
    ``torch.optim.SGD`` on their mean do (``docs/recipe.md``).
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
        """Return γ of a step."""
        rate = self.learning_rate * self.decay ** sum(step >= at for at in self.decay_at)
        return rate * (step + 1) / self.warmup_rounds if step < self.warmup_rounds else rate

    def momentum_at(self, step: int) -> float:
        """Return what the update before is multiplied by: μ γ_t / γ_{t-1}.

        ``torch.optim.SGD`` keeps v_t = μ v_{t-1} + g_t, and moves by u_t = γ_t v_t. Here γ is inside what workers
        exchange, so that u_t is kept: u_t = μ (γ_t / γ_{t-1}) u_{t-1} + γ_t g_t.
        """
        return self.momentum * (self.rate(step) / self.rate(step - 1)) if step else self.momentum

    def divisor(self, workers: int) -> int:
        """Return what the sum over workers is divided by."""
        return workers if self.aggregate == "mean" else 1


class Moved(NamedTuple):
    """Parameters after a step, and the velocity they move with (None without momentum, and at first)."""

    parameters: Vector
    velocity: Vector | None


class Scaled(NamedTuple):
    """A vector that is not multiplied by its factor yet: who adds it somewhere does both at once."""

    vector: Dense
    factor: float


def scaled(vector: Dense | Scaled) -> tuple[torch.Tensor, float]:
    """Return the values of a vector, and what they are to be multiplied by."""
    return (vector.vector.values, vector.factor) if isinstance(vector, Scaled) else (vector.values, 1.0)


def product(vector: Dense | Scaled) -> torch.Tensor:
    """Return the values of a vector, multiplied in place."""
    return vector.vector.values.mul_(vector.factor) if isinstance(vector, Scaled) else vector.values


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def weigh(gradient: Dense, parameters: Dense, recipe: SGDConfig, step: int) -> Scaled:
    """Make of g what a worker puts into the exchange: γ (c g + λ x), where c ≤ 1 cuts g to the norm `clip`.

    γ multiplies before the exchange (gTop-k paper, algorithm 1, line 3), so that a residual keeps the
    rate that its gradient was computed under.
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
    """Return what ``torch.nn.utils.clip_grad_norm_`` multiplies a gradient by."""
    return min(1.0, most / (float(gradient.norm()) + TORCH_EPSILON))


@in_place
@size_rule(lambda gradient, parameters, recipe, step: gradient)
def prepare(gradient: Dense, parameters: Dense, recipe: SGDConfig, step: int) -> Dense:
    """Return what :func:`weigh` does, multiplied."""
    return Dense(product(weigh(gradient, parameters, recipe, step)))


@size_rule(lambda parameters, total, velocity, recipe, step, workers: Moved(parameters, velocity))
def descend(
    parameters: Dense, total: Dense | Sparse, velocity: Dense | None, recipe: SGDConfig, step: int, workers: int
) -> Moved:
    """Return x - u, where u is the aggregated update (algorithm 1, line 6).

    With momentum, the update before is added to it, multiplied by :meth:`SGDConfig.momentum_at`.
    """
    divisor = recipe.divisor(workers)
    if not recipe.momentum and isinstance(total, Sparse):
        moved = parameters.values.clone()
        moved[total.indices.long()] -= total.values / divisor
        return Moved(Dense(moved), None)
    update = dense_values(total) if divisor == 1 else dense_values(total) / divisor
    if velocity is not None:
        update = recipe.momentum_at(step) * velocity.values + update
    return Moved(Dense(parameters.values - update), Dense(update) if recipe.momentum else None)


def dense_values(vector: Dense | Sparse) -> torch.Tensor:
    """Return all elements of a vector, zeros included: (d,)."""
    if isinstance(vector, Dense):
        return vector.values
    values = vector.values.new_zeros(vector.size)
    values[vector.indices.long()] = vector.values
    return values


@size_rule(lambda template: template)
def zeros(template: Dense | SizeOnly) -> Dense | SizeOnly:
    """Return the zero vector of the size, type and device of `template`, for who keeps it and works on it in place."""
    assert isinstance(template, Dense)
    return Dense(zero_row(template.values))
