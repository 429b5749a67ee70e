"""Algorithms with quantised values transcribed from the papers, as in ``tests/papers.py``: NumPy, element by element.

A scale has 32 bits on the wire, as all papers say, so that it is rounded to float32 here; all else is float64.
"""

from __future__ import annotations

from math import floor

import numpy as np

from tests.papers import Array, Gradient, Method, Sgd

ROUNDING = 12
"""The number of netsim's random stream of rounding: its draws are a definition, which no paper has."""


def uniform(worker: int, t: int, size: int) -> Array:
    """Numbers from [0, 1) by which a worker rounds at step t, with seed 0 and one bucket of the gradient."""
    return np.random.default_rng((0, ROUNDING, 0, worker, t)).random(size, np.float32)


def parts(vector: Array, size: int) -> list[Array]:
    return [vector[first : first + size] for first in range(0, len(vector), size)]


class QSGD(Method):
    """Q_s(v_i) = ‖v‖ sgn(v_i) ξ_i(v, s), section 3.1; the sum of what all peers have sent, algorithm 1."""

    def __init__(self, workers: int, size: int, sgd: Sgd, bits: int, bucket: int, norm: str) -> None:
        super().__init__(workers, size, sgd)
        self.s, self.bucket, self.norm = 2 ** (bits - 1) - 1, bucket, norm

    def quantised(self, v: Array, u: Array) -> Array:
        norm = float(np.float32(np.abs(v).max() if self.norm == "max" else np.sqrt((v * v).sum())))
        out = np.zeros_like(v)
        for i in range(len(v)):
            a = abs(v[i]) * self.s / norm
            level = floor(a)
            xi = (level + 1) / self.s if u[i] < a - level else level / self.s
            out[i] = norm * np.sign(v[i]) * min(xi, 1)
        return out

    def sent(self, vector: Array, worker: int, t: int) -> Array:
        drawn = uniform(worker, t, len(vector))
        buckets = zip(parts(vector, self.bucket), parts(drawn, self.bucket), strict=True)
        return np.concatenate([self.quantised(v, u) for v, u in buckets])

    def exchange(self, vectors: Array, t: int) -> Array:
        return np.sum([self.sent(vector, worker, t) for worker, vector in enumerate(vectors)], axis=0)


class TernGrad(Method):
    """ternarize(g) = s sgn(g) b with P(b_k = 1) = |g_k| / s, eq. (1) to (3); clipped to c σ before."""

    def __init__(self, workers: int, size: int, sgd: Sgd, c: float, block: int) -> None:
        super().__init__(workers, size, sgd)
        self.c, self.block = c, block

    def clipped(self, g: Array) -> Array:
        if not self.c:
            return g
        sigma = np.sqrt(((g - g.mean()) ** 2).mean())
        return np.array([value if abs(value) <= self.c * sigma else np.sign(value) * self.c * sigma for value in g])

    def ternarized(self, g: Array, u: Array) -> Array:
        g = self.clipped(g)
        s = float(np.float32(np.abs(g).max()))
        b = [1 if u[k] < abs(g[k]) / s else 0 for k in range(len(g))]
        return s * np.sign(g) * np.array(b)

    def exchange(self, vectors: Array, t: int) -> Array:
        total = np.zeros(self.size)
        for worker, vector in enumerate(vectors):
            layers = zip(parts(vector, self.block), parts(uniform(worker, t, self.size), self.block), strict=True)
            total += np.concatenate([self.ternarized(g, u) for g, u in layers])
        return total


class TernGradAtServer(TernGrad):
    """Scaler sharing, section 3.2: s_t is the largest of the workers' s, and the server adds s_t sgn(g) b."""

    def exchange(self, vectors: Array, t: int) -> Array:
        total = []
        drawn = [parts(uniform(worker, t, self.size), self.block) for worker in range(self.workers)]
        for layer in range(-(-self.size // self.block)):
            g = [self.clipped(parts(vector, self.block)[layer]) for vector in vectors]
            s = max(float(np.float32(np.abs(each).max())) for each in g)
            u = [each[layer] for each in drawn]
            total.append(sum(s * np.sign(g[p]) * (u[p] < np.abs(g[p]) / s) for p in range(self.workers)))
        return np.concatenate(total)


class WithoutRate(Method):
    """The worker's gradient has no γ, which multiplies what was exchanged."""

    def total(self, t: int, parameters: Array, gradient: Gradient) -> Array:
        gamma = self.sgd.rate(t)
        return gamma * self.exchange(self.scaled_gradients(t, parameters, gradient) / gamma, t)


class SignSGD(WithoutRate):
    """sign(Σ_m sign(g_m)), algorithm 1; with β, Signum: m ← β m + (1 - β) g.

    The papers' sign(0) is 0, which one bit does not have. By netsim's definition a 0 is +1 and -1 in turn, and the
    worker whose turn it is decides a tie.
    """

    def __init__(self, workers: int, size: int, sgd: Sgd, beta: float = 0.0, at_server: bool = False) -> None:
        super().__init__(workers, size, sgd)
        self.beta, self.at_server, self.m = beta, at_server, np.zeros((workers, size))

    def exchange(self, vectors: Array, t: int) -> Array:
        self.m = self.beta * self.m + (1 - self.beta) * vectors
        of_zero = -1 if t % 2 else 1
        signs = np.array([[int(np.sign(value)) or of_zero for value in m] for m in self.m])
        vote = np.sign(signs.sum(axis=0))
        return self.workers * np.where(vote == 0, signs[t % self.workers], vote).astype(float)


class EFSignSGD(Method):
    """p = γ g + e; Δ = (‖p‖₁ / d) sign(p); e = p - Δ: algorithm 1 at every worker."""

    residuals: Array

    def __init__(self, workers: int, size: int, sgd: Sgd, block: int) -> None:
        super().__init__(workers, size, sgd)
        self.block, self.residuals = block, np.zeros((workers, size))

    def signed(self, p: Array) -> Array:
        return float(np.float32(np.abs(p).sum() / len(p))) * np.where(p >= 0, 1.0, -1.0)

    def exchange(self, vectors: Array, t: int) -> Array:
        p = vectors + self.residuals
        delta = np.array([np.concatenate([self.signed(layer) for layer in parts(each, self.block)]) for each in p])
        self.residuals = p - delta
        return delta.sum(axis=0)


class Int8(WithoutRate):
    """torch.quantize_per_tensor with the scale and zero point of its MinMaxObserver for quint8, at every worker."""

    def exchange(self, vectors: Array, t: int) -> Array:
        total = np.zeros(self.size)
        for g in vectors:
            low, high = min(g.min(), 0.0), max(g.max(), 0.0)
            s = float(max(np.float32((high - low) / 255), np.finfo(np.float32).eps))
            z = -np.rint(low / s)
            q = np.clip(np.rint(g / s) + z, 0, 255)
            total += s * (q - z)
        return total
