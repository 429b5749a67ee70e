"""Figures 2 to 5 of the SASG paper, drawn from training runs of this study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netsim.report import Figure
from netsim.report.drawing import Axis, Series, lines
from netsim.study_engine import Outcome

TRAINED = "SIMULATED network, real gradients; compute ASSUMED"
COUNTED = "COMPUTED from bits; real gradients"
ONE_BY_ONE = "Time counts uploads one after another at 1 Gbit/s, values and indices, and nothing else."
BITS_PER_S = 1e9
SPARSE = ("Sparse", "SASG")
UPLOADS, ACCURACY = Axis("uploads of single workers"), Axis("test accuracy (fraction)")

ByMethod = Mapping[str, Outcome]
"""The outcome of a training run by the method's name in the paper."""


def figure_2(by: ByMethod, on: str) -> list[Figure]:
    """Return accuracy and loss against uploads; `on` names workload and data for the captions."""
    loss = Axis("test loss (nats)")
    return [
        Figure(
            "Fig. 2: accuracy against uploads",
            f"{on}. The same accuracy with fewer uploads is better.",
            _curves(by, "uploads", "test_accuracy", UPLOADS, ACCURACY),
            TRAINED,
        ),
        Figure(
            "Fig. 2: loss against uploads",
            f"{on}. Test loss; the paper shows training loss.",
            _curves(by, "uploads", "test_loss", UPLOADS, loss),
            TRAINED,
        ),
    ]


def figure_3(by: ByMethod, on: str, window: int) -> list[Figure]:
    """Return accuracy against communication time and against all time, and communication time per round."""
    timed = {name: dict(outcome) | {"curve": _timed(outcome["curve"])} for name, outcome in by.items()}
    sparse = {name: timed[name] for name in SPARSE}
    rounds = [
        Series(
            name,
            *_smooth([_upload_s(by[name]) * count for count in by[name]["steps"]["uploads"]], window),
            algorithm=by[name]["algorithm"],
        )
        for name in SPARSE
    ]
    log, plain = Axis("communication time", 10, unit="s"), Axis("communication time", least=0, unit="s")
    return [
        Figure(
            "Fig. 3a: accuracy against communication time",
            f"{on}. {ONE_BY_ONE}",
            _curves(timed, "up_s", "test_accuracy", log, ACCURACY),
            COUNTED,
        ),
        Figure(
            "Fig. 3b: the two sparse methods",
            f"{on}. {ONE_BY_ONE}",
            _curves(sparse, "up_s", "test_accuracy", plain, ACCURACY),
            COUNTED,
        ),
        Figure(
            "Fig. 3c: communication time of every round",
            f"{on}; means of {window} rounds. SASG skips; Sparse never does. {ONE_BY_ONE}",
            lines(rounds, Axis("round"), Axis("communication of a round", least=0, unit="s")),
            COUNTED,
        ),
        Figure(
            "Accuracy against time, computation included",
            f"{on}; 1 Gbit/s, uploads one by one, the dense model sent back, 5 ms per gradient (SASG and LASG: two).",
            _curves(
                by,
                "time_s",
                "test_accuracy",
                Axis("simulated time", 10, unit="s"),
                ACCURACY,
            ),
            TRAINED,
        ),
    ]


def figure_4(by_density: ByMethod, on: str) -> Figure:
    """Return accuracy against uploads at several densities."""
    return Figure(
        "Fig. 4: other densities",
        f"{on}. The paper: density alone changes accuracy little, and SASG skips more uploads at lower density.",
        _curves(by_density, "uploads", "test_accuracy", UPLOADS, ACCURACY),
        TRAINED,
    )


def figure_5(by: ByMethod, on: str) -> Figure:
    """Return accuracy against uploads for workers with different data."""
    return Figure(
        "Fig. 5: workers with different data",
        f"{on}.",
        _curves(by, "uploads", "test_accuracy", UPLOADS, ACCURACY),
        TRAINED,
    )


def _curves(by: ByMethod, x: str, y: str, across: Axis, up: Axis) -> str:
    series = [
        Series(name, outcome["curve"][x], outcome["curve"][y], algorithm=outcome["algorithm"])
        for name, outcome in by.items()
    ]
    return lines(series, across, up)


def _timed(curve: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """Return the curve with ``up_s``: seconds of all uploads so far, one after another, at each evaluation."""
    bits = zip(curve["value_bits_up"], curve["index_bits_up"], strict=True)
    return dict(curve) | {"up_s": [(values + indices) / BITS_PER_S for values, indices in bits]}


def _upload_s(outcome: Mapping[str, Any]) -> float:
    bits: int = outcome["value_bits_up"] + outcome["index_bits_up"]
    return bits / int(outcome["uploads"]) / BITS_PER_S


def _smooth(values: Sequence[float], window: int) -> tuple[list[float], list[float]]:
    """Return the middles of consecutive windows, and the mean of the values in each window."""
    starts = range(0, len(values) - window + 1, window)
    return [start + window / 2 for start in starts], [sum(values[start : start + window]) / window for start in starts]
