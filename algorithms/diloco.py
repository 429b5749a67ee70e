"""DiLoCo: H steps of AdamW at each worker, then a step of Nesterov's method with the mean of what they moved."""

from __future__ import annotations

from typing import ClassVar

from algorithms.local import INNER, Local, Outer
from algorithms.pipelining import DEFAULT, Segment
from netsim._util.options import Choice, Number, Option

OUTER_LR = Option(
    Number(),
    None,
    "Learning rate of the outer optimiser.",
    otherwise="diloco 0.7, streaming-diloco 0.4",
    name="outer_lr",
)
OUTER_MOMENTUM = Option(
    Number(lambda value: 0 <= value < 1, "at least 0 and less than 1, such as 0.9"),
    0.9,
    "Nesterov momentum of the outer optimiser; 0 for none.",
    name="outer_momentum",
)
INNER_OPTIMISER = Option(
    Choice(tuple(INNER)),
    "adamw",
    "Optimiser of local steps: {choices}, with the learning rate and weight decay of the run; sgd has its momentum, "
    "too.",
    name="inner",
)


class DiLoCo(Local):
    """Every H steps, one all-reduce of Δ: (2(P-1)α + 2((P-1)/P) d β) / H a step, or pipelined.

    Line 12 of the algorithm is Δ = (1/P) Σ_m (x^{t-1} - x_m^t), the outer gradient; line 14 is x^t = OuterOpt(x^{t-1},
    Δ). A worker holds Δ_m, the two moments of AdamW, and the outer velocity, each of d elements.

    Parameters
    ----------
    h
        H.
    outer_lr, outer_momentum
        η and μ of the outer optimiser, SGD with Nesterov momentum; by default 0.7 and 0.9, as in the paper.
    inner
        The inner optimiser.
    segment, fp32_sums
        As for :class:`~algorithms.dense.DenseRing`.

    References
    ----------
    Douillard et al., DiLoCo: Distributed Low-Communication Training of Language Models, arXiv 2311.08105, algorithm 1.
    The paper says nothing of AdamW's β; they are torch's here.
    """

    name = "diloco"
    title = "DiLoCo"
    colour = "#1eb42d"
    exchanges = "H steps of AdamW at each worker, then a step of Nesterov's method with the mean of what they moved"
    sends = "as `dense`, every H rounds"
    default_h = 500
    default_outer_lr: ClassVar[float] = 0.7
    options: ClassVar[tuple[Option, ...]] = (OUTER_LR, OUTER_MOMENTUM, INNER_OPTIMISER, *Local.options)

    def __init__(
        self,
        h: int | None = None,
        outer_lr: float | None = None,
        outer_momentum: float = 0.9,
        inner: str = "adamw",
        segment: Segment = DEFAULT,
        fp32_sums: bool = False,
    ) -> None:
        super().__init__(h, segment, fp32_sums)
        self.outer = Outer(self.default_outer_lr if outer_lr is None else outer_lr, outer_momentum)
        self.inner = inner
