"""Every algorithm transcribed from the papers: plain NumPy in float64, nothing of netsim.

It is written to be compared with the papers line by line, not to be fast: it remembers every ω^t, and
computes what a formula names where the formula names it. (P or M, d) arrays hold a row a worker.

gTop-k paper: Shi et al., IJCAI 2019. SASG paper: Deng et al. LAG: Chen et al., NeurIPS 2018. LASG:
Chen, Sun and Yin, IEEE TSP 2021. DGC: Lin et al., ICLR 2018. What the papers leave open is said where
it is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import TypeAlias

import numpy as np

from tests.oracles import top_k

Array: TypeAlias = np.ndarray
Gradient: TypeAlias = Callable[[Array, int, int], Array]
"""∇f_m(ω; ξ_m^t), of (ω, m, t)."""
Positions: TypeAlias = Callable[[int, int], np.ndarray]
"""The entries that random-k draws, of (d, t)."""


def squared_norm(vector: Array) -> float:
    return float(vector @ vector)


@dataclass(frozen=True)
class Sgd:
    """What SGD does around an exchange."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip: float = float("inf")
    warmup: int = 0
    decay_at: tuple[int, ...] = ()
    decay: float = 0.1
    mean: bool = True  # False: the authors of SASG sum, with no 1/M

    def rate(self, t: int) -> float:
        """γ_t: it climbs in a straight line through the warm-up, and falls at every t of `decay_at`."""
        falls = len([at for at in self.decay_at if at <= t])
        climb = min(1.0, (t + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * climb * self.decay**falls

    def scaled(self, gradient: Array, parameters: Array, t: int) -> Array:
        """γ_t g, as in line 3 of algorithm 1 of the gTop-k paper; g is clipped as in torch, then decayed."""
        norm = float(np.sqrt(squared_norm(gradient))) + 1e-6
        clipped = gradient if norm <= self.clip else gradient / norm * self.clip
        return self.rate(t) * (clipped + self.weight_decay * parameters)

    def divisor(self, workers: int) -> int:
        return workers if self.mean else 1


@dataclass(frozen=True)
class TopK:
    """T_k of every tensor by itself: `tensors` are their (elements, k). One tensor: of the whole vector.

    For `warmup` steps the density goes down geometrically, from 1/4 at the first to k/n after the last.
    """

    tensors: tuple[tuple[int, int], ...]
    warmup: int = 0

    def k(self, t: int, n: int, k: int) -> int:
        if t >= self.warmup:
            return k
        return max(1, floor(0.25 ** (1 - t / self.warmup) * (k / n) ** (t / self.warmup) * n))

    def __call__(self, vector: Array, t: int) -> Array:
        ends = np.cumsum([n for n, _ in self.tensors])
        parts = np.split(vector, ends[:-1])
        return np.concatenate(
            [top_k(part, self.k(t, *tensor)) for part, tensor in zip(parts, self.tensors, strict=True)]
        )


class Method:
    """Synchronous SGD: ω^{t+1} = ω^t - (1/P) Σ_p γ g_p, eq. (2) of the gTop-k paper."""

    residuals: Array | None = None

    def __init__(self, workers: int, size: int, sgd: Sgd) -> None:
        self.workers, self.size, self.sgd = workers, size, sgd
        self.uploads: list[list[int]] = [[] for _ in range(workers)]  # the steps at which each worker uploaded
        self.uploaded_values = [0] * workers

    def total(self, t: int, parameters: Array, gradient: Gradient) -> Array:
        """The sum over workers that step t subtracts, before it is divided by P."""
        return self.exchange(self.scaled_gradients(t, parameters, gradient), t)

    def scaled_gradients(self, t: int, parameters: Array, gradient: Gradient) -> Array:
        every = range(self.workers)
        return np.array([self.sgd.scaled(gradient(parameters, p, t), parameters, t) for p in every])

    def exchange(self, vectors: Array, t: int) -> Array:
        return vectors.sum(axis=0)

    def upload(self, t: int, worker: int, values: int) -> None:
        self.uploads[worker].append(t)
        self.uploaded_values[worker] += values


@dataclass(frozen=True)
class Step:
    """What is there after a step."""

    parameters: Array
    residuals: Array | None
    uploads: tuple[int, ...]
    uploaded_values: tuple[int, ...]


def train(method: Method, start: Array, gradient: Gradient, steps: int) -> Iterator[Step]:
    """Heavy-ball momentum as torch.optim.SGD has it: v ← μ v + (1/P) Σ_p ... / γ_t, ω ← ω - γ_t v."""
    parameters, velocity = start, np.zeros_like(start)
    for t in range(steps):
        total = method.total(t, parameters, gradient)
        gamma = method.sgd.rate(t)
        velocity = method.sgd.momentum * velocity + total / method.sgd.divisor(method.workers) / gamma
        parameters = parameters - gamma * velocity
        residuals = None if method.residuals is None else method.residuals.copy()
        yield Step(parameters, residuals, tuple(map(len, method.uploads)), tuple(method.uploaded_values))


# Without compression


class Dense(Method):
    """Ring or tree, the sum is the same."""


class ParameterServer(Method):
    def exchange(self, vectors: Array, t: int) -> Array:
        for worker in range(self.workers):
            self.upload(t, worker, self.size)
        return vectors.sum(axis=0)


# With compression and error feedback


class ErrorFeedback(Method):
    """A worker sends some of acc = ε + γ g, and keeps the rest (gTop-k paper, algorithm 1, lines 3 to 5).

    With DGC's momentum correction: v ← μ v + g, acc = ε + γ v, and both are cleared where acc was sent.
    """

    residuals: Array

    def __init__(self, workers: int, size: int, sgd: Sgd, select: TopK, correction: float = 0.0) -> None:
        super().__init__(workers, size, sgd)
        self.select, self.correction = select, correction
        self.residuals = np.zeros((workers, size))
        self.velocities = np.zeros((workers, size))

    def selected(self, accumulated: Array, t: int) -> Array:
        return self.select(accumulated, t)

    def compress(self, worker: int, vector: Array, t: int) -> Array:
        """What the worker sends."""
        gamma = self.sgd.rate(t)
        self.velocities[worker] = self.correction * self.velocities[worker] + vector / gamma
        accumulated = self.residuals[worker] + gamma * self.velocities[worker]
        sent = self.selected(accumulated, t)
        self.residuals[worker] = np.where(sent != 0, 0, accumulated)
        self.velocities[worker][sent != 0] = 0
        return sent

    def compress_all(self, vectors: Array, t: int) -> Array:
        return np.array([self.compress(worker, vectors[worker], t) for worker in range(self.workers)])


class TopKAllGather(ErrorFeedback):
    """Eq. (3): Σ_p TopK(acc^p)."""

    def exchange(self, vectors: Array, t: int) -> Array:
        return self.compress_all(vectors, t).sum(axis=0)


class GTopK(ErrorFeedback):
    """Algorithm 1 of the gTop-k paper; ⊤ (eq. (6)) along a binomial tree.

    Which values stay in ε (eq. (7)) is `keep_at_merge`'s to say: who merges keeps what it drops; or, as
    the authors' code has it, a worker clears whatever it selected and the result holds.
    """

    keep_at_merge = True

    def exchange(self, vectors: Array, t: int) -> Array:
        selected = self.compress_all(vectors, t)
        held, dropped = selected.copy(), np.zeros_like(selected)
        s = 0
        while 2**s < self.workers:
            for r in range(self.workers):
                if r % 2 ** (s + 1) == 0 and r + 2**s < self.workers:
                    both = held[r] + held[r + 2**s]
                    held[r] = self.select(both, t)
                    dropped[r] += both - held[r]
            s += 1
        result = held[0]
        self.residuals += dropped if self.keep_at_merge else np.where(result != 0, 0, selected)
        return result


class GTopKIndexIntersection(GTopK):
    keep_at_merge = False


class GTopKNaive(ErrorFeedback):
    """TopK(Σ_p TopK(acc^p)); a worker takes back what is not in it."""

    def exchange(self, vectors: Array, t: int) -> Array:
        selected = self.compress_all(vectors, t)
        result = self.select(selected.sum(axis=0), t)
        self.residuals += np.where(result != 0, 0, selected)
        return result


class RandK(ErrorFeedback):
    """randomK of eq. (13), with error feedback: k entries, at `positions` of (d, t), alike at every worker."""

    def __init__(
        self, workers: int, size: int, sgd: Sgd, select: TopK, correction: float, positions: Positions
    ) -> None:
        super().__init__(workers, size, sgd, select, correction)
        self.positions = positions

    def selected(self, accumulated: Array, t: int) -> Array:
        kept, positions = np.zeros(self.size), self.positions(self.size, t)
        kept[positions] = accumulated[positions]
        return kept

    def exchange(self, vectors: Array, t: int) -> Array:
        return self.compress_all(vectors, t).sum(axis=0)


class ScaleCom(ErrorFeedback):
    """Algorithm 1 of Chen et al., NeurIPS 2020: worker t mod P chooses CLT-k's entries for all; eq. (5) filters ε.

    Where the leader has fewer than k non-zeros, the first zeros fill up its choice.
    """

    beta = 1.0

    def exchange(self, vectors: Array, t: int) -> Array:
        before = self.residuals.copy()
        gamma = self.sgd.rate(t)
        self.velocities = self.correction * self.velocities + vectors / gamma
        accumulated = before + gamma * self.velocities
        chosen = self.select(accumulated[t % self.workers], t) != 0
        ks = sum(self.select.k(t, *tensor) for tensor in self.select.tensors)
        chosen[np.flatnonzero(~chosen)[: ks - chosen.sum()]] = True
        sent = np.where(chosen, accumulated, 0)
        self.residuals = (1 - self.beta) * before + self.beta * (accumulated - sent)
        self.velocities[:, chosen] = 0
        return sent.sum(axis=0)


class OkTopk(ErrorFeedback):
    """Algorithms 1 and 2 of Li and Hoefler, PPoPP 2022, with exactly computed thresholds every τ' steps.

    Netsim's choices: no worker sends more than its k largest, and if more than k sums are kept, region i of n_i keeps
    the ⌊n_i k / Σ n⌋ largest. Regions are [b_i, b_{i+1}), with b the mean of the boundaries of up to τ steps ago.
    """

    threshold_period = region_period = 7

    def exchange(self, vectors: Array, t: int) -> Array:
        gamma, every = self.sgd.rate(t), range(self.workers)
        k = sum(self.select.k(t, *tensor) for tensor in self.select.tensors)
        self.velocities = self.correction * self.velocities + vectors / gamma
        accumulated = self.residuals + gamma * self.velocities
        if t % self.threshold_period == 0:
            local = np.array([self.select(row, t) for row in accumulated])
        else:
            local = np.array(
                [top_k(np.where(abs(a) >= least, a, 0), k) for a, least in zip(accumulated, self.least, strict=True)]
            )
        if t % self.region_period == 0:
            self.boundaries = np.floor(np.mean([self.divided(row) for row in local], axis=0)).astype(int)
        summed = local.sum(axis=0)
        if t % self.threshold_period == 0:
            self.least = [self.smallest(row[row != 0], k) for row in local]
            self.least_of_sum = self.smallest(top_k(summed, k)[top_k(summed, k) != 0], k)
        regions = np.split(np.where(abs(summed) >= self.least_of_sum, summed, 0), self.boundaries)
        found = [np.count_nonzero(region) for region in regions]
        if sum(found) > k:
            regions = [top_k(region, n * k // sum(found)) for region, n in zip(regions, found, strict=True)]
        kept = np.concatenate(regions)
        self.velocities[local != 0] = 0
        for p in every:
            self.residuals[p] = np.where((local[p] != 0) & (kept != 0), 0, accumulated[p])
        return kept

    def divided(self, local: Array) -> Array:
        entries = np.flatnonzero(local)
        if len(entries) < self.workers:
            return np.arange(1, self.workers) * (self.size / self.workers)
        return np.array([entries[len(entries) * i // self.workers] for i in range(1, self.workers)], float)

    def smallest(self, values: Array, k: int) -> float:
        return float(abs(values).min()) if len(values) >= k else 0.0


class ParameterServerTopK(ErrorFeedback):
    """ "Sparse" of the SASG paper: Σ_m T_k(γ g_m + e_m)."""

    def exchange(self, vectors: Array, t: int) -> Array:
        sent = self.compress_all(vectors, t)
        for worker in range(self.workers):
            self.upload(t, worker, int(np.count_nonzero(sent[worker])))
        return sent.sum(axis=0)


class PowerSGD(Method):
    """Algorithms 1 and 2 of Vogels et al., NeurIPS 2019: P ← M Q, Q ← Mᵀ P̂, means over workers, and M̂ = P̂ Qᵀ.

    Columns are orthogonalised by Gram and Schmidt. `draw(n, t)` are the random numbers with which Q begins. Tensors of
    one dimension are not compressed. The first `start` steps are dense, as torch has it.
    """

    residuals: Array

    def __init__(
        self,
        workers: int,
        size: int,
        sgd: Sgd,
        shapes: tuple[tuple[int, ...], ...],
        rank: int,
        draw: Callable[[int, int], Array],
        start: int = 0,
        warm: bool = True,
    ) -> None:
        super().__init__(workers, size, sgd)
        self.shapes, self.rank, self.draw, self.start, self.warm = shapes, rank, draw, start, warm
        self.residuals = np.zeros((workers, size))
        self.right: list[Array] = []

    def begin(self, t: int) -> None:
        columns = [(shape[1], min(self.rank, *shape)) for shape in self.shapes if len(shape) == 2]
        drawn = np.split(self.draw(sum(m * r for m, r in columns), t), np.cumsum([m * r for m, r in columns])[:-1])
        self.right = [flat.reshape(m, r) for flat, (m, r) in zip(drawn, columns, strict=True)]

    def exchange(self, vectors: Array, t: int) -> Array:
        if t < self.start:
            return vectors.sum(axis=0)
        if not self.warm or not self.right:
            self.begin(t)
        deltas = vectors + self.residuals
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        mean, matrix = deltas.mean(axis=0), 0
        for last, shape in zip(ends, self.shapes, strict=True):
            if len(shape) == 1:
                continue
            tensor = slice(last - int(np.prod(shape)), last)
            of_workers = deltas[:, tensor].reshape(-1, *shape)
            p = np.mean([of_worker @ self.right[matrix] for of_worker in of_workers], axis=0)
            for column in range(p.shape[1]):
                for before in range(column):
                    p[:, column] -= (p[:, before] @ p[:, column]) * p[:, before]
                p[:, column] /= np.linalg.norm(p[:, column])
            q = np.mean([of_worker.T @ p for of_worker in of_workers], axis=0)
            self.right[matrix] = q
            mean[tensor] = (p @ q.T).ravel()
            matrix += 1
        self.residuals = deltas - mean
        for last, shape in zip(ends, self.shapes, strict=True):
            if len(shape) == 1:
                self.residuals[:, last - shape[0] : last] = 0
        return mean * self.workers


# Lazily aggregated


@dataclass(frozen=True)
class Rule:
    """The constants of a rule.

    `history` is D and `delay` how many skips in a row are allowed. `c` makes α_d = c/γ, or
    α_d = 0.1/γ² where it is None (LAG-WK, LASG). γ is the rate of a summed update: that of a mean over M.
    """

    history: int
    delay: int
    c: float | None = None


@dataclass
class Asked:
    """How often a rule was asked, and what it answered."""

    uploads: int = 0
    skips: int = 0


class Lazy(Method):
    """ω^{t+1} = ω^t - Σ_{m uploads} γ g_m^t - Σ_{m skips} (what m uploaded last)."""

    def __init__(self, workers: int, size: int, sgd: Sgd, rule: Rule) -> None:
        super().__init__(workers, size, sgd)
        self.rule = rule
        self.asked = Asked()
        self.omega: list[Array] = []  # ω^0, ω^1, ...
        self.stored = np.zeros((workers, size))  # at the server: every worker's last message

    def total(self, t: int, parameters: Array, gradient: Gradient) -> Array:
        self.gradient = gradient
        self.omega.append(parameters)
        uploading = [m for m in range(self.workers) if self.must_upload(m, t) or self.wants_to(m, t)]
        for m in uploading:
            message = self.message(m, self.sgd.scaled(gradient(parameters, m, t), parameters, t), t)
            self.stored[m] = message
            self.upload(t, m, self.values_in(message))
        return self.stored.sum(axis=0)

    def must_upload(self, m: int, t: int) -> bool:
        """Everybody for the first D steps, and who has skipped `delay` times."""
        return t < self.rule.history or t - self.uploads[m][-1] == self.rule.delay + 1

    def wants_to(self, m: int, t: int) -> bool:
        if self.left(m, t) <= self.right(t):
            self.asked.skips += 1
            return False
        self.asked.uploads += 1
        return True

    def right(self, t: int) -> float:
        """(1/M²) Σ_{d=1..D} α_d ‖ω^{t+1-d} - ω^{t-d}‖²."""
        gamma = self.sgd.rate(t) / self.sgd.divisor(self.workers)
        alpha = 0.1 / gamma**2 if self.rule.c is None else self.rule.c / gamma
        moved = (squared_norm(self.omega[t + 1 - d] - self.omega[t - d]) for d in range(1, self.rule.history + 1))
        return sum(alpha * each for each in moved) / self.workers**2

    def left(self, m: int, t: int) -> float:
        """How much news worker m has at step t, having uploaded last at step t - τ = uploads[m][-1]."""
        raise NotImplementedError

    def message(self, m: int, vector: Array, t: int) -> Array:
        return vector

    def values_in(self, message: Array) -> int:
        return self.size


class LAG(Lazy):
    """Rule (5) of the SASG paper: ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-τ}; ξ^{t-τ})‖²."""

    def left(self, m: int, t: int) -> float:
        last = self.uploads[m][-1]
        return squared_norm(self.gradient(self.omega[t], m, t) - self.gradient(self.omega[last], m, last))


class LASGWK2(Lazy):
    """Rule (6) of the SASG paper: ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-τ}; ξ^t)‖²."""

    def left(self, m: int, t: int) -> float:
        last = self.uploads[m][-1]
        return squared_norm(self.gradient(self.omega[t], m, t) - self.gradient(self.omega[last], m, t))


class LASGWK1(Lazy):
    """‖δ_m^t - δ_m^{t-τ}‖², δ_m^t = ∇f_m(ω^t; ξ^t) - ∇f_m(ω̃; ξ^t), with the snapshot ω̃ of every D-th step."""

    def left(self, m: int, t: int) -> float:
        return squared_norm(self.delta(m, t) - self.delta(m, self.uploads[m][-1]))

    def delta(self, m: int, t: int) -> Array:
        snapshot = self.omega[t - t % self.rule.history]
        return self.gradient(self.omega[t], m, t) - self.gradient(snapshot, m, t)


class LASGPS(Lazy):
    """L_m² ‖ω^t - ω^{t-τ}‖²; L_m is the steepest change of gradient that m saw from one upload to the next."""

    def left(self, m: int, t: int) -> float:
        steepest = 0.0
        for before, now in pairwise(self.uploads[m]):
            change = self.gradient(self.omega[now], m, now) - self.gradient(self.omega[before], m, now)
            moved = self.omega[now] - self.omega[before]
            if moved.any():
                steepest = max(steepest, float(np.linalg.norm(change) / np.linalg.norm(moved)))
        return steepest**2 * squared_norm(self.omega[t] - self.omega[self.uploads[m][-1]])


class SASG(LASGWK2):
    """Algorithm 1 of the SASG paper: rule (6), and an upload is T_k(γ ∇f_m(ω^t; ξ^t) + e_m).

    A worker that skips leaves e_m as it is, and the server applies the stored message again.
    """

    residuals: Array

    def __init__(self, workers: int, size: int, sgd: Sgd, rule: Rule, select: TopK) -> None:
        super().__init__(workers, size, sgd, rule)
        self.select = select
        self.residuals = np.zeros((workers, size))

    def message(self, m: int, vector: Array, t: int) -> Array:
        accumulated = vector + self.residuals[m]
        sent = self.select(accumulated, t)
        self.residuals[m] = accumulated - sent
        return sent

    def values_in(self, message: Array) -> int:
        return int(np.count_nonzero(message))


class SASGOfDistributedCode(SASG):
    """As the authors' distributed code has it, not their notebooks: ‖∇f_m(ω^t; ξ^t) - ∇f_m(ω^{t-1}; ξ^t)‖²."""

    def left(self, m: int, t: int) -> float:
        return squared_norm(self.gradient(self.omega[t], m, t) - self.gradient(self.omega[t - 1], m, t))
