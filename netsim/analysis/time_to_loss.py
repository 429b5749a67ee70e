"""The time that algorithms take to the same training loss: a short round is no progress by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from algorithms import settings_of
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import LossCurve, LossTimes, Result
from netsim.report.text import listed


def times_to_loss(results: Sequence[Result], curves: Mapping[str, LossCurve]) -> LossTimes | None:
    """Return the time of each algorithm to the highest of their final losses, which all of them reach.

    Parameters
    ----------
    results
        The results of at least two algorithms.
    curves
        The losses of each algorithm during its run.

    Returns
    -------
    LossTimes or None
        The simulated time at the end of the round in which the loss is first reached. Between two pairs the loss is
        taken to be a straight line. None if the losses of an algorithm are not known, or one did not lower the loss.
    """
    known = {result.algorithm: curves[result.algorithm] for result in results if _is_whole(result, curves)}
    if not 2 <= len(results) == len(known):
        return None
    target = max(curve.losses[-1][1] for curve in known.values())
    if any(target >= start for curve in known.values() for start in _start(curve)):
        return None
    return LossTimes(target, {name: curve.ends_s[rounds_to(target, curve.losses) - 1] for name, curve in known.items()})


def not_lowered(experiment: Experiment, results: Sequence[Result], curves: Mapping[str, LossCurve]) -> list[str]:
    """Return sentences on algorithms whose training loss did not fall below that of the start."""
    sentences, titles, starts = [], [], []
    for result in results:
        if not _is_whole(result, curves):
            continue
        curve = curves[result.algorithm]
        end = curve.losses[-1][1]
        for start in _start(curve):
            starts.append(start)
            titles += [result.title] if end >= start else []
            if round(end, 4) > round(start, 4):
                adamw = settings_of(result.algorithm).get("inner") == "adamw"
                advice = "; AdamW, its optimiser of local steps, usually takes about 0.001" if adamw else ""
                sentences.append(
                    f"The training loss of {result.title} rose from {start:.4f} to {end:.4f}: learning rate "
                    f"{experiment.learning_rate:g} may be too high for it{advice} (--learning-rate)."
                )
    if titles and len(results) > 1:
        sentences.append(
            f"No time to a common training loss is given, for not all algorithms lower the loss, {max(starts):.4f} at "
            f"the start: {listed(titles)}."
        )
    return sentences


def _is_whole(result: Result, curves: Mapping[str, LossCurve]) -> bool:
    curve = curves.get(result.algorithm, LossCurve())
    return len(curve.ends_s) == result.rounds and bool(curve.losses) and curve.losses[-1][0] == result.rounds


def _start(curve: LossCurve) -> list[float]:
    """Return the loss at the start; none if it is not known."""
    return [loss for rounds, loss in curve.losses[:1] if not rounds]


def rounds_to(target: float, curve: Sequence[tuple[int, float]]) -> int:
    """Return the number of rounds after which a loss is first at most `target`, which its last pair is.

    >>> rounds_to(2.0, [(10, 2.5), (20, 1.5)])
    15
    """
    if curve[0][1] <= target:
        return curve[0][0]
    for (before, above), (after, loss) in pairwise(curve):
        if loss <= target:
            return math.ceil(before + (after - before) * (above - target) / (above - loss))
    raise ValueError(f"a loss of {target} is not reached")
