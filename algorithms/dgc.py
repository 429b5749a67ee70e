"""Deep Gradient Compression: top-k with momentum, clipping and warm-up moved to the workers.

Lin, Han, Mao, Wang and Dally, Deep Gradient Compression: Reducing the communication bandwidth for distributed training,
ICLR 2018 (arXiv 1712.01887).
"""

from __future__ import annotations

from typing import ClassVar

from algorithms.topk import TopK


class DGC(TopK):
    """Top-k whose workers apply momentum before selection, and clip their own gradients.

    Every worker has a velocity u ← μ u + g and a residual e ← e + γ u, with the learning rate γ of the step. It sends
    the k largest entries of e, and sets both to 0 there (momentum factor masking). ``--clip C`` limits the norm of each
    worker's gradient to C / √P, because the sum of P independent gradients of norm C / √P has norm C.
    ``--density-warmup N`` is the warm-up of the density, from 1/4 on. The paper selects in each tensor among a sample:
    ``--per-tensor --select sampled``.

    The exchange is that of Top-k and takes (P-1)(α + 2kβ).

    References
    ----------
    Deep Gradient Compression, algorithm 4; sections 3.1 (momentum correction), 3.2 (local gradient clipping) and 3.3
    (momentum factor masking, warm-up).
    """

    name = "dgc"
    title = "DGC"
    colour = "#b45a2d"
    exchanges = "Deep Gradient Compression: `topk` with momentum and clipping at the workers"
    sends = "as `topk`"
    untried = "rounds as long as those of topk"
    always_corrects: ClassVar[bool] = True
    clips_locally: ClassVar[bool] = True
