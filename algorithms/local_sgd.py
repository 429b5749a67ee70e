"""Local SGD: H steps of SGD at each worker, then the mean of the workers' parameters; post-local SGD begins densely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from algorithms.local import Local
from algorithms.pipelining import DEFAULT, Segment
from netsim._util.options import Option, Whole


class LocalSGD(Local):
    """Every H steps, one all-reduce of parameters: (2(P-1)α + 2((P-1)/P) d β) / H a step, or pipelined.

    With x_m^t the parameters of worker m, x_m^{t+1} = (1/P) Σ_n (x_n^t - γ g_n^t) if H divides t + 1, and
    x_m^t - γ g_m^t otherwise. Workers exchange the sum of their updates since the last exchange, which has the size of
    the parameters and the same mean. With H = 1 this is dense SGD. The momentum of the run is each worker's own, and is
    not exchanged.

    References
    ----------
    Stich, Local SGD Converges Fast and Communicates Little, ICLR 2019, algorithm 1 and eq. (2).
    """

    name = "local-sgd"
    title = "local SGD"
    colour = "#5a5a87"
    exchanges = "H steps of SGD at each worker, then the mean of the parameters by `dense`"
    sends = "as `dense`, every H rounds"


class PostLocalSGD(Local):
    """Dense SGD for the first steps, then local SGD.

    Parameters
    ----------
    h
        H, after the first steps.
    start
        The number of first steps, in which H is 1.
    segment, fp32_sums
        As for :class:`~algorithms.dense.DenseRing`.

    References
    ----------
    Lin et al., Don't Use Large Mini-Batches, Use Local SGD, ICLR 2020, eq. (2) and section 3: the first steps end where
    the learning rate decays first. Momentum is each worker's own.
    """

    name = "post-local-sgd"
    title = "post-local SGD"
    colour = "#2da5c3"
    exchanges = "`local-sgd` with H = 1 in the first steps"
    sends = "as `dense`, every H rounds"
    untried = "local-sgd after its first steps"
    options: ClassVar[tuple[Option, ...]] = (
        Option(Whole(), 0, "Number of first steps after each of which workers exchange.", name="start"),
        *Local.options,
    )

    def __init__(
        self, h: int | None = None, start: int = 0, segment: Segment = DEFAULT, fp32_sums: bool = False
    ) -> None:
        super().__init__(h, segment, fp32_sums)
        self.start = start

    @classmethod
    def period(cls, settings: Mapping[str, Any]) -> int:
        """Return the first steps and H more, which exchange less."""
        start: int = settings["start"]
        return start + super().period(settings)

    def due(self, steps: int) -> Sequence[int]:
        """Return the one fragment in the first steps, and every H steps after them."""
        return [0] if steps <= self.start or (steps - self.start) % self.h == 0 else []
