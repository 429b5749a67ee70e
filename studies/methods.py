"""Accuracy, bytes and seconds of all methods in one frame, and the claims of papers that do not hold in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean

from algorithms import class_of
from netsim._util.units import format_bytes, format_duration
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, scatter
from netsim.study_engine import Conclusion, Finding, Study
from netsim.training.algorithm import Convergence
from studies.method_rows import MethodRow, TestedClaim, rows_of, tested_claims
from studies.method_trainings import MethodsSettings, measure, plan_of, points, stands_for

PROVENANCE = "SIMULATED network, real gradients; compute ASSUMED"


def conclude(settings: MethodsSettings, findings: Sequence[Finding]) -> Conclusion:
    """Conclude which methods keep the accuracy of dense, what these save, and which claims of papers do not hold."""
    rows = rows_of(settings, findings)
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.plan, row.split))]
    tested = tested_claims(rows) if settings.claims else []
    sentences = [_headline(settings, groups), *(_sentence(settings, group) for group in groups)]
    sentences += [*_by_split(settings, rows), *_skips(groups), *_claim_sentences(settings, tested)]
    return Conclusion(
        sentences,
        {
            "margin": settings.margin,
            "rows": [row.as_json() for row in rows],
            "claims": [
                {"claim": claim.words, "method": claim.method, "other": claim.other, **row.place}
                | {"holds": TestedClaim(claim, row, other).holds(settings.margin)}
                for claim, row, other in tested
            ],
        },
        [
            Section("Accuracy against seconds", figures=[_picture(settings, group) for group in groups]),
            *(_table(settings, group) for group in groups),
        ],
        _limits(settings),
    )


def _points_of(share: float) -> str:
    """Return a difference of two accuracies in words."""
    return f"{100 * share:.1f} points"


def _dense(group: Sequence[MethodRow]) -> MethodRow:
    return next(row for row in group if row.method == "dense")


def _keepers(settings: MethodsSettings, group: Sequence[MethodRow]) -> list[MethodRow]:
    """Return the rows of methods with other parameters than dense that end at most the margin below dense."""
    least = (_dense(group).accuracy or 0.0) - settings.margin
    others = (row for row in group if row.trained != "dense")
    return [row for row in others if row.accuracy is not None and row.accuracy >= least and row.seconds]


def _share(kept: Sequence[MethodRow], group: Sequence[MethodRow]) -> str:
    """Return how many of the trained methods other than dense are kept; copies that share parameters do not count."""
    own, every = (sum(row.method == row.trained != "dense" for row in rows) for rows in (kept, group))
    return f"{own} of {every} trained methods"


def _headline(settings: MethodsSettings, groups: Sequence[Sequence[MethodRow]]) -> str:
    """Return how many methods keep the accuracy of dense everywhere, and which of these sends least in the first."""
    everywhere = set.intersection(*({row.method for row in _keepers(settings, group)} for group in groups))
    first = groups[0]
    kept = [row for row in first if row.method in everywhere]
    where = f"all {len(groups)} trainings" if len(groups) > 1 else "the training"
    rounds = ", ".join(f"{plan.workload} for {plan.rounds} rounds" for plan in map(plan_of, settings.trainings))
    among = (
        f"{_share(kept, first)} other than dense end within {100 * settings.margin:g} points of dense in {where} "
        f"({settings.data}; {rounds})"
    )
    if not kept:
        return f"{among}."
    dense, least = _dense(first), min(kept, key=lambda row: row.moved)
    slowest = settings.bandwidths[0]
    fastest = min(kept, key=lambda row: row.seconds[slowest])
    return (
        f"{among}. Of these, and of methods with their parameters, a worker of {least.title} sends and receives least, "
        f"{format_bytes(least.moved)} in {dense.where} where one of dense has {format_bytes(dense.moved)}; "
        f"{fastest.title} ends first at {slowest}, after {format_duration(fastest.seconds[slowest])} instead of "
        f"{format_duration(dense.seconds[slowest])}."
    )


def _sentence(settings: MethodsSettings, group: Sequence[MethodRow]) -> str:
    """Return who keeps the accuracy of dense in one training and split, who is first, and who is furthest below."""
    dense, kept = _dense(group), _keepers(settings, group)
    if dense.accuracy is None:
        return f"{dense.where}: dense diverged; give this training a smaller learning rate."
    below = sorted(
        (row for row in group if row.method == row.trained != "dense" and row.accuracy is not None and row not in kept),
        key=lambda row: row.accuracy or 0.0,
    )
    furthest = ", ".join(f"{row.title} ({_points_of(dense.accuracy - (row.accuracy or 0.0))})" for row in below[:3])
    diverged = [row.title for row in group if not row.seconds]
    best = ""
    if kept:
        least = min(kept, key=lambda row: row.moved)
        first = {each: min(kept, key=lambda row, each=each: row.seconds[each]) for each in settings.bandwidths}  # type: ignore[misc]
        told = ", ".join(f"{row.title} at {each} ({format_duration(row.seconds[each])})" for each, row in first.items())
        best = (
            f" Of these, and of methods with their parameters, a worker of {least.title} sends and receives least "
            f"({format_bytes(least.moved)}), and the first to end are {told}."
        )
    return (
        f"{dense.where}: dense ends at {dense.accuracy:.1%}, and {_share(kept, group)} within "
        f"{100 * settings.margin:g} points.{best}"
        + (f" Furthest below: {furthest}." if furthest else "")
        + (f" Diverged: {', '.join(diverged)}." if diverged else "")
    )


def _by_split(settings: MethodsSettings, rows: Sequence[MethodRow]) -> Iterator[str]:
    """Yield, for each training, how accuracies change with another split than the first."""
    found = {(row.plan, row.split, row.method): row for row in rows if row.accuracy is not None}
    usual = settings.splits[0]
    for plan in dict.fromkeys(row.plan for row in rows):
        for split in settings.splits[1:]:
            gained = [
                ((other.accuracy or 0.0) - (row.accuracy or 0.0), row.method, row.title)
                for (its, at, method), row in found.items()
                if (its, at, row.trained) == (plan, usual, method)
                and (other := found.get((plan, split, method))) is not None
            ]
            if dense := [gain for gain, method, _ in gained if method == "dense"]:
                told = [f"{title} {100 * gain:+.1f}" for gain, _, title in sorted(gained)]
                yield (
                    f"{plan.workload}, {split} instead of {usual}: dense {100 * dense[0]:+.1f} points; lowest are "
                    f"{', '.join(told[:4])}, highest is {told[-1]}."
                )


def _skips(groups: Sequence[Sequence[MethodRow]]) -> Iterator[str]:
    """Yield the share of uploads that the workers of lazy methods skip, over all trainings."""
    shares: dict[str, list[float]] = {}
    for row in (row for group in groups for row in group):
        if class_of(row.algorithm).convergence is Convergence.STALE and row.skipped is not None:
            shares.setdefault(row.title, []).append(100 * row.skipped)
    if shares:
        told = [f"{title} {min(each):.0f} to {max(each):.0f} %" for title, each in shares.items()]
        yield f"Uploads that workers skip, least to greatest of all trainings: {', '.join(told)}."


def _claim_sentences(settings: MethodsSettings, tested: Sequence[TestedClaim]) -> Iterator[str]:
    """Yield how many claims hold, and one sentence for each that does not hold everywhere."""
    if not settings.claims:
        yield "Claims of papers are not tested (claims=false): a quick run is too short to test them."
    verdicts = [each.holds(settings.margin) for each in tested]
    failed = [each for each, holds in zip(tested, verdicts, strict=True) if holds is False]
    if tested:
        undecided = verdicts.count(None)
        yield (
            f"Claims of papers on accuracy: {verdicts.count(True)} of {len(tested)} tests agree, within "
            f"{100 * settings.margin:g} points; {undecided} {'is' if undecided == 1 else 'are'} undecided. A test "
            "disagrees if the difference exceeds this margin plus the half ranges of both methods over seeds; one seed "
            "has no range."
        )
    for claim in dict.fromkeys(each.claim for each in failed):
        where = "; ".join(each.in_words() for each in failed if each.claim == claim)
        yield f"Disagrees with {claim.words}. Here {claim.method} {where}."


def _picture(settings: MethodsSettings, group: Sequence[MethodRow]) -> Figure:
    """Return the accuracy of each method against its seconds, one panel for each bandwidth."""
    rated = [row for row in group if row.accuracy is not None and row.seconds]
    panels = {
        f"links of {bandwidth}": [
            Series(row.method, [row.seconds[bandwidth]], [row.accuracy or 0.0], algorithm=row.algorithm)
            for row in rated
        ]
        for bandwidth in settings.bandwidths
    }
    plan, split, *_ = group[0]
    return Figure(
        f"{group[0].where}: accuracy against seconds",
        f"After {plan.rounds} rounds of {settings.workers} workers with {settings.batch_size} samples, means of "
        f"{plan.counted_seeds}; {settings.data}, {split}. Named are the methods to whose left no other one is as "
        "accurate.",
        scatter(panels, Axis("simulated time of the run", 10, unit="s"), Axis("test accuracy (fraction)")),
        PROVENANCE,
    )


def _table(settings: MethodsSettings, group: Sequence[MethodRow]) -> Section:
    """Return a table of all methods in one training and split, the most accurate first."""
    columns = [
        "method",
        "parameters of",
        "test accuracy (%)",
        "least (%)",
        "greatest (%)",
        "sent by a worker (MB)",
        "received by a worker (MB)",
        "rounds without an upload (%)",
        *(f"run at {bandwidth} (s)" for bandwidth in settings.bandwidths),
    ]
    cells = [
        [
            row.title,
            "its own" if row.trained == row.method else row.trained,
            *(100 * each(row.accuracies) if row.accuracies else None for each in (fmean, min, max)),
            *(None if each is None else each / 1e6 for each in (row.sent, row.received)),
            None if row.skipped is None else 100 * row.skipped,
            *(row.seconds.get(bandwidth) for bandwidth in settings.bandwidths),
        ]
        for row in sorted(group, key=lambda row: -(row.accuracy or 0.0))
    ]
    title = f"{group[0].where}: accuracy, bytes and seconds"
    return Section(group[0].where, tables=[Table(title, columns, cells, PROVENANCE)])


def _limits(settings: MethodsSettings) -> list[str]:
    """Return what the study assumes, and what it leaves out."""
    plans = [plan_of(text) for text in settings.trainings]
    trained = "; ".join(f"{plan.workload} for {plan.rounds} rounds with {plan.counted_seeds}" for plan in plans)
    compute = ", ".join(f"{format_duration(plan.compute_s)} on {plan.workload}" for plan in plans)
    rates = ", ".join(f"{plan.lr:g} on {plan.workload}" for plan in plans)
    own = ", ".join(f"{name} {rate:g}" for name, rate in settings.rates.items())
    copies = [name for name in dict.fromkeys(settings.methods) if stands_for(name) != name]
    together = ", ".join(f"{name} those of {stands_for(name)}" for name in copies)
    return [
        f"Trained on {settings.data}: {trained}, {settings.workers} workers, mini-batches of {settings.batch_size}. "
        "These are short runs: an order of methods after them need not be the order at the end of a long training.",
        f"Learning rates: {rates}; {own}. Only dgc has momentum, {settings.momentum:g}. That of a training is the "
        "best of 0.05, 0.1 and 0.2 for seven methods and both splits, seed 0; those of single methods are the best of "
        "two or three on fc-mnist, iid, seed 0.",
        f"All sparse methods select {settings.density:.1%} of all entries, and have error feedback. Methods with local "
        f"steps exchange {settings.exchanges} times in a run.",
        "These methods have the parameters of another one, up to the order of sums, and were not trained: "
        f"{together or 'none'}. Their bytes and seconds follow from sizes, "
        "those of ssar and dsar as if no two workers selected the same entry.",
        f"ASSUMED times: {compute} for a gradient, {settings.select_time} for a selection or compression, "
        f"{settings.merge_time} for a merge or sum; rules that compare two gradients take two. Only exchanges of "
        "streaming-diloco overlap with computation.",
        "Batch norm, in resnet20, has the statistics of a worker's mini-batch, so by class those of two classes or so. "
        "Test accuracy has the statistics of training samples of all classes. resnet20 is tested on 2,048 samples, "
        "which gives a standard error of 1 point.",
        "A parameter server runs on worker 0's host; bytes are those of another worker.",
    ]


STUDY = Study(
    name="methods",
    title="All methods in one frame: accuracy, bytes and seconds",
    settings=MethodsSettings,
    points=points,
    measure=measure,
    conclude=conclude,
    quick={"trainings": ("fc-mnist:40:1:5ms:0.2",), "data": "digits", "exchanges": 10, "claims": False},
    needs="Fashion-MNIST (netsim fetch fashion-mnist --data-dir DATA) and --data-dir DATA",
)
