"""Orders: whether the simulator ranks algorithms or schedulers in one setting as their source measured them.

A setting is a task on a network at one P. Its contenders are algorithms or schedulers. Two contenders count if their
measured times differ by more than 5 %. Equal predictions count as a wrong order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

from netsim.report import Section, Table
from studies.published.calibration import measured_of
from studies.published.predictions import PredictedRow, cluster_of
from studies.published.sources import source_of

APART = 1.05
"""Ratio of measured times from which two contenders are compared."""


class Contender(NamedTuple):
    """An algorithm or a scheduler with its measured and its predicted seconds."""

    name: str
    measured_s: float
    predicted_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """The contenders of a setting.

    Attributes
    ----------
    source, task, network
        The setting in words.
    workers
        Number of workers P.
    contenders
        All contenders, in ascending order of measured time.
    """

    source: str
    task: str
    network: str
    workers: int | None
    contenders: Sequence[Contender]

    @property
    def pairs(self) -> list[tuple[Contender, Contender]]:
        """The pairs of contenders that count; the first of a pair has the shorter measured time."""
        return [
            (fast, slow)
            for fast, slow in combinations(self.contenders, 2)
            if fast.name != slow.name and slow.measured_s > APART * fast.measured_s
        ]

    @property
    def right(self) -> int:
        """Number of pairs that are predicted in the measured order."""
        return sum(fast.predicted_s < slow.predicted_s for fast, slow in self.pairs)

    @property
    def agrees(self) -> bool:
        """Whether all pairs are predicted in the measured order."""
        return self.right == len(self.pairs)

    def as_json(self) -> dict[str, Any]:
        """Return the order as a JSON object."""
        return {
            "source": self.source,
            "task": self.task,
            "network": self.network,
            "workers": self.workers,
            "measured_order": [each.name for each in self.contenders],
            "predicted_order": [each.name for each in sorted(self.contenders, key=lambda each: each.predicted_s)],
            "pairs": len(self.pairs),
            "right": self.right,
            "agrees": self.agrees,
        }


def orders_of(rows: Iterable[PredictedRow]) -> list[Order]:
    """Return the settings in which at least two contenders count, without rows that calibrated a cluster."""
    settings: dict[tuple[Any, ...], list[Contender]] = {}
    for each in rows:
        row, contender = each.row, source_of(each.row).contender
        if each.compared and each.predicted_s is not None and contender is not None:
            task, name = contender(row)
            key = (row.source, each.source, task, cluster_of(row).name, row.bandwidth_kind, row.workers)
            settings.setdefault(key, []).append(Contender(name, measured_of(row), each.predicted_s))
    orders = [
        Order(source, task, network, workers, sorted(contenders, key=lambda each: each.measured_s))
        for (_, source, task, _, network, workers), contenders in settings.items()
    ]
    return [order for order in orders if order.pairs]


def sentence_on(orders: Sequence[Order]) -> str:
    """Return a sentence on how many pairs, and how many settings, are ordered as measured."""
    pairs = sum(len(order.pairs) for order in orders)
    if not pairs:
        return "No source compares algorithms or schedulers in one setting of these rows."
    right = sum(order.right for order in orders)
    return (
        f"Of {pairs} pairs of algorithms or schedulers whose measured times in one setting differ by more than "
        f"{APART - 1:.0%}, {right} are ordered as measured ({right / pairs:.0%}); in "
        f"{sum(order.agrees for order in orders)} of {len(orders)} settings, all pairs are."
    )


def section_on(orders: Sequence[Order]) -> Section:
    """Return the section of the report on orders."""
    columns = ["source", "task", "network", "P", "as measured, fastest first", "as predicted", "pairs", "right"]
    rows = []
    for order in orders:
        told = order.as_json()
        names = [" < ".join(told[key]) for key in ("measured_order", "predicted_order")]
        rows.append([order.source, order.task, order.network, order.workers, *names, told["pairs"], told["right"]])
    table = Table("Orders in one setting", columns, rows, "SIMULATED; measured times PUBLISHED")
    return Section("Algorithms and schedulers in one setting", sentence_on(orders), tables=[table])
