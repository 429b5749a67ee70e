"""The goals of netsim's path on a GPU, as ratios of what ``bench.py`` measured; docs/gpu.md explains them.

This module imports no torch, so that the summary of a check is written whatever became of the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

MODELS = ("fc-mnist", "resnet20", "resnet18")
ADDED = "add_ of P rows"
GRADIENT_BITS = "share of gradients with the bits that they have alone"
TRITON_BITS = "share of rows selected by Triton with torch's bits"
GRAPHS = "CUDA graphs"


class Goal(NamedTuple):
    """A ratio of two measurements of a model, and the bounds between which it should be.

    A goal is met only if each measurement of `needs` is at least its number: a wrong result in no time meets nothing.
    """

    what: str
    model: str
    over: tuple[str, str]
    most: float
    least: float = 0.0
    needs: tuple[tuple[str, float], ...] = ()


GOALS = (
    *(
        Goal(
            "gradients of P, bits as alone, over a plain loop",
            model,
            ("P gradients", "plain loop"),
            most,
            needs=((GRADIENT_BITS, 1.0), (GRAPHS, 1.0)),
        )
        for model, most in (("fc-mnist", 0.2), ("resnet20", 0.2), ("resnet18", 0.5))
    ),
    *(
        Goal(
            f"accumulate and select by {by}, over add_ of the same rows",
            model,
            (f"select P rows by {by}", ADDED),
            most,
            needs=((TRITON_BITS, 1.0),) if by == "triton" else (),
        )
        for by, most in (("torch", 4.0), ("triton", 1.5))
        for model in MODELS
    ),
    Goal("accumulate and select, over GRACE's step × P", "resnet20", ("select P rows", "GRACE P steps"), 0.02),
    Goal("accumulate and select, over GRACE's step × P", "resnet18", ("select P rows", "GRACE P steps"), 0.1),
    Goal("a round of gTop-k, over a plain loop of gradients", "resnet20", ("gtopk round", "plain loop"), 0.35),
    Goal("a round of gTop-k, over a plain loop of gradients", "resnet18", ("gtopk round", "plain loop"), 0.7),
    Goal("peak memory of a round, over P·d·4 bytes", "resnet18", ("gtopk peak bytes", "P·d·4 bytes"), 1.2),
    *(
        Goal("MEASURED charge of a selection, over one timed by hand", model, ("charge", "charge by hand"), 1.1, 0.9)
        for model in MODELS
    ),
)


def judged(found: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """Yield the table of goals, with the measurements `found` by name and model."""
    yield "| goal | model | at most | measured | met |"
    yield "|---|---|---|---|---|"
    for goal in GOALS:
        parts = [found.get((name, goal.model)) for name in goal.over]
        ratio = parts[0] / parts[1] if parts[0] is not None and parts[1] else None
        measured = "not measured" if ratio is None else f"{ratio:.3g}"
        yield f"| {goal.what} | {goal.model} | {goal.most:g} | {measured} | {_met(goal, ratio, found)} |"


def _met(goal: Goal, ratio: float | None, found: Mapping[tuple[str, str], float]) -> str:
    if ratio is None:
        return ""
    needed = {name: found.get((name, goal.model), 0.0) for name, _ in goal.needs}
    short = [f"{name}: {needed[name]:g}" for name, least in goal.needs if needed[name] < least]
    if short:
        return f"no ({', '.join(short)})"
    return "yes" if goal.least <= ratio <= goal.most else "no"
