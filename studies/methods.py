"""Accuracy, bytes and seconds of all methods in one frame: real gradients, two splits of the data, several networks.

Every method trains on the same number of samples. It trains once: what it sends depends on no bandwidth, so that the
seconds on every network follow from the recorded messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, product
from math import inf
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import Field

from algorithms import ALGORITHMS, BUILT_IN, class_of, is_dense_sgd, name_of, title_of, with_options
from netsim._util.errors import NonFiniteGradientError, UsageError
from netsim._util.units import format_bytes, format_duration, parse_bandwidth, parse_duration
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Result
from netsim.report import Figure, Section, Table
from netsim.report.drawing import Axis, Series, scatter
from netsim.simulator.layout import NoScheduleError
from netsim.simulator.session import open_session
from netsim.study_engine import Conclusion, Finding, Outcome, Point, Settings, Study
from netsim.study_engine.checks import checked
from netsim.training.algorithm import Convergence
from studies.method_claims import CLAIMS, Claim

PROVENANCE = "SIMULATED network, real gradients; compute ASSUMED"
SAME_PARAMETERS = {
    "gtopk-hier": "gtopk",
    "ssar": "topk",
    "dsar": "topk",
    "ps-topk": "topk",
    "ps-signsgd": "signsgd",
}
"""Methods whose parameters are those of another one, up to the order of sums, by name; so are dense ones dense's."""
RATES = {"signsgd": 0.0003, "dgc": 0.03, "diloco": 0.001, "streaming-diloco": 0.001}
HALVES = ("dense@fp16", "dense@bf16")


def registered() -> tuple[str, ...]:
    """Return all methods: netsim's own algorithms, and ``dense`` with values of 16 bits in its messages."""
    return (*(name for name in ALGORITHMS if name in BUILT_IN), *HALVES)


def stands_for(method: str) -> str:
    """Return the method that trains in place of `method`; the method itself if it has an accuracy of its own.

    >>> [stands_for(method) for method in ("dense-tree", "dense@bf16", "ssar", "topk")]
    ['dense', 'dense@bf16', 'topk', 'topk']
    """
    if "@" in method:
        return method
    return "dense" if is_dense_sgd(method) else SAME_PARAMETERS.get(method, method)


class MethodsSettings(Settings):
    """The settings of the study.

    A training is a workload, its rounds, the number of its seeds, the compute time of a mini-batch, and the learning
    rate of the methods that `rates` does not name. A method is an algorithm, with ``@fp16`` or ``@bf16`` for values of
    16 bits. `exchanges` is the number of exchanges of a method
    with local steps in a run, which sets its H; post-local SGD is dense for the first quarter of a run.

    The rates have the highest test accuracy of some, with Fashion-MNIST, iid, seed 0: that of each training in the mean
    of dense, topk, randk, ef-signsgd, powersgd, lasg-wk2 and local-sgd, among 0.05, 0.1 and 0.2. On fc-mnist those of
    signsgd, and of diloco and streaming-diloco together, among 0.0003, 0.001 and 0.003; that of dgc of 0.01 and 0.03.

    `claims` says whether claims of papers are tested, for which a quick run is too short.
    """

    methods: tuple[str, ...] = registered()
    trainings: tuple[str, ...] = ("fc-mnist:200:3:5ms:0.2", "resnet20:60:3:20ms:0.05")
    splits: tuple[str, ...] = ("iid", "by-class")
    bandwidths: tuple[str, ...] = ("100Mbps", "1Gbps", "10Gbps")
    data: str = "fashion-mnist"
    workers: int = Field(default=8, ge=1)
    batch_size: int = Field(default=16, ge=1)
    density: float = 0.01
    exchanges: int = Field(default=20, ge=1)
    fragments: int = Field(default=4, ge=1)
    rates: dict[str, float] = Field(default_factory=lambda: dict(RATES))
    momentum: float = Field(default=0.9, ge=0, lt=1)
    latency: str = "50us"
    select_time: str = "0.3ms"
    merge_time: str = "0.1ms"
    margin: float = Field(default=0.02, ge=0, lt=1)
    claims: bool = True


class TrainingPlan(NamedTuple):
    """What is trained, for how many rounds, with how many seeds, the seconds of a gradient, and the learning rate."""

    workload: str
    rounds: int
    seeds: int
    compute_s: float
    lr: float


def plan_of(text: str) -> TrainingPlan:
    """Return a training from a text such as ``fc-mnist:200:3:5ms:0.2``."""
    try:
        workload, rounds, seeds, compute, lr = text.split(":")
        plan = TrainingPlan(workload, int(rounds), int(seeds), parse_duration(compute, "time of a training"), float(lr))
    except ValueError:
        plan = None
    if plan is None or plan.rounds < 1 or plan.seeds < 1 or not 0 < plan.lr < inf:
        raise UsageError(f"training {text!r} must be WORKLOAD:ROUNDS:SEEDS:TIME:LR, such as fc-mnist:200:3:5ms:0.2")
    return plan


class WantedPoint(NamedTuple):
    """A point with its training, method, split and seed; a point without data counts for all splits and seeds."""

    plan: TrainingPlan
    method: str
    split: str | None
    point: Point


def points(settings: MethodsSettings) -> list[Point]:
    """Return a training of each method with an accuracy of its own, and the sizes alone of the other methods."""
    for bandwidth in settings.bandwidths:
        parse_bandwidth(bandwidth)
    if "dense" not in settings.methods:
        raise UsageError(
            f"methods {','.join(settings.methods)} must contain dense, which the others are compared with; "
            f"write methods={','.join(('dense', *settings.methods))}"
        )
    wanted = [each.point for each in _wanted(settings)]
    checked([_options(point, settings.bandwidths[0]) for point in wanted])
    return wanted


def _wanted(settings: MethodsSettings) -> Iterator[WantedPoint]:
    """Yield the points in the order in which they are asked for."""
    for plan in map(plan_of, dict.fromkeys(settings.trainings)):
        same = _same(settings, plan)
        for method in dict.fromkeys(settings.methods):
            options = same | options_of(settings, plan, method)
            if stands_for(method) != method:
                yield WantedPoint(plan, method, None, options | {"timing_only": True})
                continue
            for split, seed in product(dict.fromkeys(settings.splits), range(plan.seeds)):
                yield WantedPoint(plan, method, split, options | {"split": split, "seed": seed})


def _same(settings: MethodsSettings, plan: TrainingPlan) -> dict[str, Any]:
    """Return the options that all methods of a training have in common."""
    return {
        "workload": plan.workload,
        "data": settings.data,
        "rounds": plan.rounds,
        "compute_time": plan.compute_s,
        "select_time": settings.select_time,
        "merge_time": settings.merge_time,
        "latency": settings.latency,
        "workers": settings.workers,
        "batch_size": settings.batch_size,
        "density": settings.density,
        "device": "cpu",
        "bandwidths": settings.bandwidths,
    }


def options_of(settings: MethodsSettings, plan: TrainingPlan, method: str) -> dict[str, Any]:
    """Return the options of ``netsim simulate`` that differ between methods."""
    algorithm, _, dtype = method.partition("@")
    trained = name_of(stands_for(method).partition("@")[0])
    h = max(1, plan.rounds // settings.exchanges)
    return {
        "algorithm": with_options(algorithm, h=h, start=plan.rounds // 4, fragments=min(settings.fragments, h)),
        "dtype": dtype or "fp32",
        "lr": settings.rates.get(trained, plan.lr),
        "momentum": settings.momentum if class_of(algorithm).always_corrects else 0.0,
    }


def _options(point: Point, bandwidth: str) -> dict[str, Any]:
    """Return the options of a simulation on a network."""
    return {name: value for name, value in point.items() if name != "bandwidths"} | {"bandwidth": bandwidth}


def measure(point: Point) -> Outcome:
    """Train, and return the test accuracy, the bytes of a worker, and the seconds of the run on every network.

    A training whose messages belong to collectives is recorded once, and timed on each network. Of a training that
    diverges only the error is returned. A point without data has bytes and seconds only, from the sizes of messages.
    """
    networks = {bandwidth: Experiment.of(**_options(point, bandwidth)) for bandwidth in point["bandwidths"]}
    first = next(iter(networks.values()))
    (name,) = first.algorithms
    found: dict[str, Any] = {"title": title_of(name)}
    if first.timing_only:
        return found | _summary(_simulated(networks))
    try:
        with open_session(first) as session:
            algorithm = first.algorithm(name, session.tensors, None, session.task.shapes)
            task: Any = session.task
            try:
                recording = session.record(algorithm)
                judged = task.evaluate(recording.trained[0].parameters, most=task.workload.loss_samples)
                found["accuracy"] = judged.accuracy
                results = {key: session.time_recording(recording, each.fabric()) for key, each in networks.items()}
            except NoScheduleError:
                found["accuracy"] = session.simulate(name).final_accuracy
                # Local steps, whatever their values, are as large as the parameters; other messages need the values.
                fixed = class_of(name).steps_locally
                results = _simulated({key: replace(each, timing_only=fixed) for key, each in networks.items()})
    except NonFiniteGradientError as error:
        return found | {"diverged": str(error)}
    return found | _summary(results)


def _simulated(networks: Mapping[str, Experiment]) -> dict[str, Result]:
    """Return the result of one algorithm on each network."""
    results = {}
    for bandwidth, experiment in networks.items():
        (name,) = experiment.algorithms
        with open_session(experiment) as session:
            results[bandwidth] = session.simulate(name)
    return results


def _summary(results: Mapping[str, Result]) -> dict[str, Any]:
    """Return the bytes that a worker sends and receives in a run, the uploads of all workers, and the seconds."""
    each = next(iter(results.values()))
    sent = each.rounds * (each.value_bytes_up + each.index_bytes_up)
    return {
        "sent": sent,
        "received": each.rounds * each.bytes_down,
        "uploads": each.uploads,
        "seconds": {bandwidth: each.rounds * each.round_time_s for bandwidth, each in results.items()},
    }


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


def rows_of(settings: MethodsSettings, findings: Sequence[Finding]) -> list[MethodRow]:
    """Return a row for each training, split and method, in this order."""
    measured: dict[tuple[TrainingPlan, str, str], list[Outcome]] = {}
    for wanted, finding in zip(_wanted(settings), findings, strict=True):
        for split in settings.splits if wanted.split is None else (wanted.split,):
            measured.setdefault((wanted.plan, split, wanted.method), []).append(finding.outcome)
    rows = []
    for (plan, split, method), outcomes in measured.items():
        trained = stands_for(method)
        judged: list[Any] = [outcome.get("accuracy") for outcome in measured.get((plan, split, trained), [])]
        ended = [] if any("diverged" in outcome for outcome in outcomes) else outcomes
        dtype = method.partition("@")[2]
        row = MethodRow(
            plan,
            split,
            method,
            ", ".join(filter(None, [outcomes[0]["title"], dtype])),
            trained,
            () if None in judged else tuple(judged),
            {key: fmean(each["seconds"][key] for each in ended) for key in settings.bandwidths if ended},
        )
        if ended:
            sent, received, uploads = (fmean(each[key] for each in ended) for key in ("sent", "received", "uploads"))
            row = row._replace(sent=sent, received=received, skipped=1 - uploads / (settings.workers * plan.rounds))
        rows.append(row)
    plans = list(map(plan_of, settings.trainings))
    return sorted(rows, key=lambda row: (plans.index(row.plan), settings.splits.index(row.split)))


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
            "rows": [_as_json(row) for row in rows],
            "claims": [
                {"claim": claim.words, "method": claim.method, "other": claim.other, **_place(row)}
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


def _name(row: MethodRow) -> str:
    return f"{row.plan.workload}, {row.split}"


def _place(row: MethodRow) -> dict[str, Any]:
    return {"workload": row.plan.workload, "split": row.split}


def _as_json(row: MethodRow) -> dict[str, Any]:
    return _place(row) | {
        "method": row.method,
        "trained": row.trained,
        "accuracy": row.accuracy,
        "accuracies": list(row.accuracies),
        "sent_bytes": row.sent,
        "received_bytes": row.received,
        "skipped": row.skipped,
        "seconds": dict(row.seconds),
    }


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
        f"{format_bytes(least.moved)} in {_name(dense)} where one of dense has {format_bytes(dense.moved)}; "
        f"{fastest.title} ends first at {slowest}, after {format_duration(fastest.seconds[slowest])} instead of "
        f"{format_duration(dense.seconds[slowest])}."
    )


def _sentence(settings: MethodsSettings, group: Sequence[MethodRow]) -> str:
    """Return who keeps the accuracy of dense in one training and split, who is first, and who is furthest below."""
    dense, kept = _dense(group), _keepers(settings, group)
    if dense.accuracy is None:
        return f"{_name(dense)}: dense diverged; give this training a smaller learning rate."
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
        f"{_name(dense)}: dense ends at {dense.accuracy:.1%}, and {_share(kept, group)} within "
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
            return f"diverges on {_name(self.row)} ({_count(self.row.plan)})"
        skips = f" and skips {self.row.skipped or 0:.0%} of uploads" if self.claim.skipped else ""
        apart = 100 * (self.row.accuracy - (self.other.accuracy or 0.0))
        return (
            f"ends at {self.row.accuracy:.1%} on {_name(self.row)} ({_count(self.row.plan)}), {apart:+.1f} points from "
            f"{self.other.title}{skips}"
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
    judged = [row for row in group if row.accuracy is not None and row.seconds]
    panels = {
        f"links of {bandwidth}": [
            Series(row.method, [row.seconds[bandwidth]], [row.accuracy or 0.0], algorithm=row.algorithm)
            for row in judged
        ]
        for bandwidth in settings.bandwidths
    }
    plan, split, *_ = group[0]
    return Figure(
        f"{_name(group[0])}: accuracy against seconds",
        f"After {plan.rounds} rounds of {settings.workers} workers with {settings.batch_size} samples, means of "
        f"{_count(plan)}; {settings.data}, {split}. Named are the methods to whose left no other one is as accurate.",
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
    title = f"{_name(group[0])}: accuracy, bytes and seconds"
    return Section(_name(group[0]), tables=[Table(title, columns, cells, PROVENANCE)])


def _count(plan: TrainingPlan) -> str:
    return f"{plan.seeds} seed{'' if plan.seeds == 1 else 's'}"


def _limits(settings: MethodsSettings) -> list[str]:
    """Return what the study assumes, and what it leaves out."""
    plans = [plan_of(text) for text in settings.trainings]
    trained = "; ".join(f"{plan.workload} for {plan.rounds} rounds with {_count(plan)}" for plan in plans)
    compute = ", ".join(f"{format_duration(plan.compute_s)} on {plan.workload}" for plan in plans)
    rates = ", ".join(f"{plan.lr:g} on {plan.workload}" for plan in plans)
    own = ", ".join(f"{name} {rate:g}" for name, rate in settings.rates.items())
    copies = [name for name in dict.fromkeys(settings.methods) if stands_for(name) != name]
    together = ", ".join(f"{name} those of {stands_for(name)}" for name in copies)
    return [
        f"Trained on {settings.data}: {trained}, {settings.workers} workers, mini-batches of {settings.batch_size}. "
        "These are short runs: an order of methods after them need not be the order at the end of a long training.",
        f"Learning rates: {rates}; {own}. Only dgc has momentum, {settings.momentum:g}. Each was the best of two or "
        "three with Fashion-MNIST, iid, seed 0, those of single methods on fc-mnist. By class nothing was tuned.",
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
