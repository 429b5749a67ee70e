"""Results of methods as rows of a table, and the claims of papers that they test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from netsim.study_engine import Finding, Outcome
from studies.method_claims import CLAIMS, Claim
from studies.method_trainings import MethodsSettings, TrainingPlan, plan_of, stands_for, wanted_points


class MethodRow(NamedTuple):
    """The results of a method in a training, with one split of the data.

    Attributes
    ----------
    plan, split, method, title
        The training, the split, the method and its title.
    trained
        The method whose parameters these are.
    accuracies
        The test accuracy of each seed; empty if a training diverged, or if `trained` is not one of the methods.
    seconds
        The seconds of the run by bandwidth, means over seeds; empty if a training diverged.
    sent, received
        Bytes of a worker in the whole run, means over seeds; None if a training diverged.
    skipped
        The share of rounds in which a worker uploads nothing.
    """

    plan: TrainingPlan
    split: str
    method: str
    title: str
    trained: str
    accuracies: tuple[float, ...]
    seconds: Mapping[str, float]
    sent: float | None = None
    received: float | None = None
    skipped: float | None = None

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy over seeds."""
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def half_range(self) -> float:
        """Half of the range of the accuracies over seeds; 0 with one seed."""
        return (max(self.accuracies) - min(self.accuracies)) / 2 if self.accuracies else 0.0

    @property
    def moved(self) -> float:
        """Bytes that a worker sends and receives in the whole run."""
        return (self.sent or 0.0) + (self.received or 0.0)

    @property
    def algorithm(self) -> str:
        """The algorithm, without the precision of its messages."""
        return self.method.partition("@")[0]

    @property
    def where(self) -> str:
        """The workload and the split, in words."""
        return f"{self.plan.workload}, {self.split}"

    @property
    def place(self) -> dict[str, str]:
        """The workload and the split, for JSON."""
        return {"workload": self.plan.workload, "split": self.split}

    def as_json(self) -> dict[str, Any]:
        """Return the row for ``conclusion.json``."""
        return self.place | {
            "method": self.method,
            "trained": self.trained,
            "accuracy": self.accuracy,
            "accuracies": list(self.accuracies),
            "sent_bytes": self.sent,
            "received_bytes": self.received,
            "skipped": self.skipped,
            "seconds": dict(self.seconds),
        }


def rows_of(settings: MethodsSettings, findings: Sequence[Finding]) -> list[MethodRow]:
    """Return a row for each training, split and method, in this order."""
    measured: dict[tuple[TrainingPlan, str, str], list[Outcome]] = {}
    for wanted, finding in zip(wanted_points(settings), findings, strict=True):
        for split in settings.splits if wanted.split is None else (wanted.split,):
            measured.setdefault((wanted.plan, split, wanted.method), []).append(finding.outcome)
    rows = []
    for (plan, split, method), outcomes in measured.items():
        trained = stands_for(method)
        accuracies: list[Any] = [outcome.get("accuracy") for outcome in measured.get((plan, split, trained), [])]
        ended = [] if any("diverged" in outcome for outcome in outcomes) else outcomes
        dtype = method.partition("@")[2]
        row = MethodRow(
            plan,
            split,
            method,
            ", ".join(filter(None, [outcomes[0]["title"], dtype])),
            trained,
            () if None in accuracies else tuple(accuracies),
            {key: fmean(each["seconds"][key] for each in ended) for key in settings.bandwidths if ended},
        )
        if ended:
            sent, received, uploads = (fmean(each[key] for each in ended) for key in ("sent", "received", "uploads"))
            row = row._replace(sent=sent, received=received, skipped=1 - uploads / (settings.workers * plan.rounds))
        rows.append(row)
    plans = list(map(plan_of, settings.trainings))
    return sorted(rows, key=lambda row: (plans.index(row.plan), settings.splits.index(row.split)))


class TestedClaim(NamedTuple):
    """A claim with the row of its method, and that of the method it is compared with, in one training and split."""

    claim: Claim
    row: MethodRow
    other: MethodRow

    def holds(self, margin: float) -> bool | None:
        """Return whether the method ends at most a margin below the other one, and skips as many uploads.

        None, undecided, if it ends further below by no more than the half ranges of both methods over seeds.
        """
        if self.row.accuracy is None or self.other.accuracy is None or (self.row.skipped or 0.0) < self.claim.skipped:
            return False
        below = self.other.accuracy - self.row.accuracy - margin
        return True if below <= 0 else None if below <= self.row.half_range + self.other.half_range else False

    def in_words(self) -> str:
        """Return where the method ended, how far from the other one, and what it skipped if the claim says so."""
        if self.row.accuracy is None:
            return f"diverges on {self.row.where} ({self.row.plan.counted_seeds})"
        skips = f" and skips {self.row.skipped or 0:.0%} of uploads" if self.claim.skipped else ""
        apart = 100 * (self.row.accuracy - (self.other.accuracy or 0.0))
        return (
            f"ends at {self.row.accuracy:.1%} on {self.row.where} ({self.row.plan.counted_seeds}), {apart:+.1f} points "
            f"from {self.other.title}{skips}"
        )


def tested_claims(rows: Sequence[MethodRow]) -> list[TestedClaim]:
    """Return each claim with each training and split that tests it."""
    found = {(row.plan, row.split, row.method): row for row in rows}
    pairs = [
        TestedClaim(claim, row, found[plan, split, claim.other])
        for claim in CLAIMS
        for (plan, split, method), row in found.items()
        if method == claim.method and split in claim.splits and (plan, split, claim.other) in found
    ]
    return [each for each in pairs if each.other.accuracy is not None]
