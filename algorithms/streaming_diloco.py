"""Streaming DiLoCo: fragments of the model take turns, and are exchanged while workers compute."""

from __future__ import annotations

from typing import Any, ClassVar

from algorithms.diloco import DiLoCo
from algorithms.e3m0 import add_e3m0, to_e3m0
from algorithms.gathering import all_gathered
from algorithms.local import check_delay
from algorithms.pipelining import DEFAULT, Segment
from netsim._util.errors import UsageError
from netsim._util.options import Number, OnOff, Option, Whole
from netsim.comm.payload import Precision, Vector, nbytes, split
from netsim.comm.worker import Worker


class StreamingDiLoCo(DiLoCo):
    """DiLoCo with F fragments, each exchanged every H steps, τ steps early, and mixed with the worker's own.

    F exchanges in H steps send as much as one of DiLoCo: (2(P-1)α F + 2((P-1)/P) d β) / H a step, of which up to τ
    steps' time is hidden. A fragment's exchange takes t = 2(P-1)α + 2((P-1)/P) (d/F) β. If τ is less than the H/F steps
    of a turn, a step takes the compute time c and, in the mean, max(0, t - τ c) F / H. With 4-bit values, workers
    gather messages of m = 4 + ⌈d / 2F⌉ bytes, in (P-1)(α + mβ) by a ring or less by slices, and add them in float32.

    Parameters
    ----------
    h, outer_lr, outer_momentum, inner
        As for :class:`~algorithms.diloco.DiLoCo`; by default H is 100 and η is 0.4.
    fragments
        F.
    tau
        τ, at most H - 1.
    mixing
        The share of its own that a worker keeps of a fragment, the α of the paper; the rest is the shared one.
    fp4
        Whether values in messages have 4 bits (:mod:`algorithms.e3m0`).
    segment, fp32_sums
        As for :class:`~algorithms.dense.DenseRing`.

    References
    ----------
    Douillard et al., Streaming DiLoCo with overlapping communication, arXiv 2501.18512, algorithm 2 and sections 2.2 to
    2.4. Read from it: x^{t-H} of lines 7 and 11 is the parameters that workers share, the "outer global parameters" of
    section 2.5. Fragment p is first exchanged after p H / F steps, as line 6 says; section 2.2 lets it wait H more. A
    fragment has d / F consecutive elements, and not the layers of a pattern.
    """

    name = "streaming-diloco"
    title = "Streaming DiLoCo"
    colour = "#c300b4"
    exchanges = (
        "`diloco` in F fragments that take turns, each exchanged during the next τ local steps; with `fp4=true` "
        "values of 4 bits"
    )
    sends = "as `dense`, every H rounds; (P-1) d / 2 bytes with 4 bits"
    default_h = 100
    default_outer_lr: ClassVar[float] = 0.4
    options: ClassVar[tuple[Option, ...]] = (
        Option(Whole(1), 8, "Number F of fragments, which take turns to be exchanged.", name="fragments"),
        Option(Whole(), 1, "Number τ of local steps during which a fragment is exchanged; less than h.", name="tau"),
        Option(
            Number(lambda value: 0 <= value <= 1, "from 0 to 1, such as 0.5"),
            0.5,
            "Share of its own that a worker keeps of a fragment when the shared one arrives.",
            name="mixing",
        ),
        Option(
            OnOff(), False, "Whether values in messages have 4 bits (E3M0), gathered and added in fp32.", name="fp4"
        ),
        *DiLoCo.options,
    )

    def __init__(
        self,
        h: int | None = None,
        fragments: int = 8,
        tau: int = 1,
        mixing: float = 0.5,
        fp4: bool = False,
        outer_lr: float | None = None,
        outer_momentum: float = 0.9,
        inner: str = "adamw",
        segment: Segment = DEFAULT,
        fp32_sums: bool = False,
    ) -> None:
        super().__init__(h, outer_lr, outer_momentum, inner, segment, fp32_sums)
        check_delay(self.name, tau, self.h)
        self.fragments, self.tau, self.mixing, self.fp4 = fragments, tau, mixing, fp4
        self.concurrent = tau + 1 if tau else 0

    def send_as(self, precision: Precision) -> None:
        """Set the precision of the values in messages; raise UsageError if they have 4 bits."""
        if self.fp4 and precision != "fp32":
            raise UsageError(
                f"dtype {precision!r} was given, but the values in messages of {self.name} have 4 bits with fp4=true; "
                "leave one out"
            )
        super().send_as(precision)

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: Any, template: Vector
    ) -> tuple[Vector, Any]:
        """Return the sum (d,) of all vectors, or of what 4 bits keep of them."""
        if not self.fp4:
            return await super().exchange(worker, vector, memory, template)
        assert vector is not None
        message = await worker.compute("select", to_e3m0, vector)
        messages = await all_gathered(worker, message, "ring", self._pipeline, nbytes(message), split)
        return await worker.replicated("merge", add_e3m0, template, *messages), memory
