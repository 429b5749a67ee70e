"""Running a study: measure the missing points, refine, conclude, and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from netsim._util.errors import NetsimError, UnwrittenError, UsageError, in_one_line, reason_of
from netsim._util.progress import OnPoint, ignore_points
from netsim._util.storage import check_outputs, made_folder, remove_leftovers, write_atomically
from netsim._util.system import surroundings
from netsim.experiment.configuration import Experiment
from netsim.report import Document, Table
from netsim.report.files import as_csv
from netsim.report.nccl_tests import collective_runs, nccl_tests_text
from netsim.report.notebook import html_of, paragraphs
from netsim.report.page import write_report
from netsim.simulator.estimates import check_experiments
from netsim.study_engine.checks import check_no_code
from netsim.study_engine.environment import data_if_there, read_data
from netsim.study_engine.kinds import Conclusion, Finding, Outcome, Point, SettingsT, Study, nothing_more
from netsim.study_engine.pool import backend, check_jobs, measured
from netsim.study_engine.shards import Shard
from netsim.study_engine.sources import version_of
from netsim.study_engine.store import Store
from netsim.study_engine.validated import present, read_validation

SCHEMA = "netsim.study/1"
MOST_POINTS = 100_000
"""Points of a study, to stop a grid that grew by mistake."""
REPORT, CONCLUSION, POINTS = "report.html", "conclusion.json", "points"
TABLES = ("points.jsonl", "points.csv")


class StudyResult:
    """The result of a study, a shard or a plan: ``print(result)`` shows what the command line shows."""

    __slots__ = ()

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.lines()[0]!r}; print it for all lines)"

    def _repr_html_(self) -> str:
        """Return the lines for a notebook."""
        return html_of(paragraphs(self.lines()))


@dataclass(frozen=True, slots=True, repr=False)
class Plan(StudyResult):
    """The plan of a study: its setting in words, its points before refinement, and how many of them are stored."""

    study: Study[Any]
    setting: str
    points: Sequence[Point]
    known: int

    def lines(self) -> list[str]:
        """Return the number of points, the options that vary, and the options with one value."""
        names = dict.fromkeys(name for point in self.points for name in point)
        values = {name: dict.fromkeys(str(point.get(name, "default")) for point in self.points) for name in names}
        varied = [f"  {name}: {', '.join(options)}" for name, options in values.items() if len(options) > 1]
        fixed = [f"  {name}: {next(iter(options))}" for name, options in values.items() if len(options) == 1]
        lines = [
            f"{self.study.name}: {self.study.title}",
            self.setting + (f"; the full setting needs {self.study.needs}" if self.study.needs else ""),
            f"{len(self.points):,} points, of which {self.known:,} are stored; the study may add points later",
        ]
        for title, options in (("options that vary", varied), ("options with one value", fixed)):
            if options:
                lines += [title, *options]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "study": self.study.name,
            "title": self.study.title,
            "setting": self.setting,
            "full_setting_needs": self.study.needs,
            "known": self.known,
            "points": [dict(point) for point in self.points],
        }


@dataclass(frozen=True, slots=True, repr=False)
class Ran(StudyResult):
    """A finished study: its conclusion, the same as a JSON object, the files written, and the points measured now."""

    conclusion: Conclusion
    data: dict[str, Any]
    files: Sequence[Path]
    measured: int

    def lines(self) -> list[str]:
        """Return the study and its setting, the sentences of the conclusion, and where the report is."""
        header = f"{self.data['study']}, {self.data['setting']}"
        return [header, *self.conclusion.sentences, *(f"Report: {file}" for file in self.files[:1])]

    def to_dict(self) -> dict[str, Any]:
        """Return the conclusion as a JSON object."""
        return self.data


@dataclass(frozen=True, slots=True, repr=False)
class RanShard(StudyResult):
    """A finished shard.

    Attributes
    ----------
    study, shard, out
        The name of the study, the shard, and the folder of the points.
    points
        Points of this shard, in the stages that it reached.
    measured
        Those of them that were measured now; the others were stored before.
    stored, total
        Points of all shards that are stored, and all points, in the stages that this shard reached.
    stages_left
        Whether the study may add points once all of these are stored.
    """

    study: str
    shard: Shard
    out: Path
    points: int
    measured: int
    stored: int
    total: int
    stages_left: bool

    def lines(self) -> list[str]:
        """Return the points of the shard, those of all shards, and the next step."""
        lines = [
            f"Shard {self.shard} of {self.study}: {self.points:,} points, {self.measured:,} of them simulated now.",
            f"All shards: {self.stored:,} of {self.total:,} points are stored in {str(self.out)!r}.",
        ]
        if self.stored == self.total:
            lines.append("The same command with --resume, without --shard, writes the report.")
        elif self.stages_left:
            lines.append(
                "Once they are stored, the study may add points: run the shards again, or --resume simulates them."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return the shard as a JSON object."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "out"}
        return values | {"shard": list(self.shard)}


def plan_study(
    study: Study[SettingsT],
    settings: SettingsT,
    out: Path,
    *,
    shard: Shard | None = None,
    cluster: str | None = None,
    data_dir: str | None = None,
) -> Plan:
    """Return the points that running `study`, or a `shard` of it, into the folder `out` would measure."""
    points = _points_of(study, settings)
    if shard is not None:
        points = shard.share(points)
    store = Store(out / POINTS, study.measure, None if cluster else data_if_there(points, data_dir))
    known = sum(store.load(point) is not None for point in points)
    return Plan(study, study.setting(settings), points, known)


def run_study(
    study: Study[SettingsT],
    settings: SettingsT,
    out: Path,
    *,
    command: str = "",
    jobs: int = 0,
    cluster: str | None = None,
    resume: bool = False,
    data_dir: str | None = None,
    validation: Path | None = None,
    nccl_tests: Path | None = None,
    on_point: OnPoint = ignore_points,
) -> Ran:
    """Run a study and write its report.

    Parameters
    ----------
    study, settings
        The study and its settings.
    out
        The folder of the report; each point is stored in ``out/points`` as soon as it is measured.
    command
        The command line that repeats the study, for the report.
    jobs
        Points measured at the same time on this machine; 0 for one per core.
    cluster
        The address of a Dask scheduler, ``dask://host:port``, whose workers then measure all points.
    resume
        Whether stored points of an earlier run are used; otherwise all points are measured again.
    data_dir
        The folder of data sets on every machine that measures; results do not depend on it.
    validation
        A result of ``netsim validate`` to include in the report.
    nccl_tests
        A file for the simulated exchanges in the columns of nccl-tests; the points then differ in size only.
    on_point
        Called with the number of points whose outcome is known, and the number of all points, as the former grows.

    Raises
    ------
    UsageError
        If settings, `out` or `validation` cannot be used.
    InfeasibleError
        If a data set is missing, or a point needs more memory or time than allowed.
    UnwrittenError
        If the report could not be written; its ``report`` holds the conclusion.
    """
    jobs = check_jobs(jobs)
    points = _points_of(study, settings)
    validated = None if validation is None else present(read_validation(validation))
    store = Store(out / POINTS, study.measure, None if cluster else read_data(points, data_dir))
    if cluster is None:
        missing = [point for point in points if not (resume and store.load(point) is not None)]
        check_experiments(_experiments_of(missing), jobs)
    made_folder("out", out)
    remove_leftovers(out)
    check_outputs({name: out / name for name in (REPORT, CONCLUSION, *TABLES)} | {"nccl-tests": nccl_tests})
    store.prepare(points)
    findings: dict[str, Finding] = {}
    count = 0
    with backend(cluster):
        while asked := _asked(points, store, findings):
            measure = partial(measured, study.measure, jobs=jobs, data_dir=data_dir)
            outcomes, fresh = _measure(measure, asked, store, resume, len(findings), on_point)
            findings |= {key: Finding(point, outcomes[key]) for key, point in asked.items()}
            count += fresh
            with _explain_foreign_points(store, count < len(findings)):
                points = study.refine(settings, list(findings.values()))
    ran: Ran | None = None
    try:
        with _explain_foreign_points(store, count < len(findings)):
            conclusion = study.conclude(settings, list(findings.values()))
            if validated is not None:
                conclusion = replace(
                    conclusion,
                    sentences=[*conclusion.sentences, validated.sentence],
                    sections=[*conclusion.sections, validated.section],
                )
            data = _as_json(study, settings, conclusion)
            ran = Ran(conclusion, data, (), count)
            files = _write(study, settings, list(findings.values()), conclusion, data, out, command)
    except (OSError, NetsimError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(reason, OSError):
            raise
        raise UnwrittenError(
            f"out {str(out)!r} could not be written to: {reason_of(reason)}; all points are stored: make it writable, "
            "and give --resume to write the report",
            ran,
        ) from error
    ran = replace(ran, files=files)
    if nccl_tests is not None:
        _write_nccl_tests(study, list(findings.values()), nccl_tests, ran)
    return ran


def run_shard(
    study: Study[SettingsT],
    settings: SettingsT,
    out: Path,
    shard: Shard,
    *,
    jobs: int = 0,
    data_dir: str | None = None,
    on_point: OnPoint = ignore_points,
) -> RanShard:
    """Measure the points of one shard that are not stored yet, and write no report.

    Parameters and errors are those of :func:`run_study`, which with `resume` writes the report after the shards.
    A study may add points in view of earlier ones. Its points then come in stages. A shard goes on to the next stage if
    all points of this stage are stored. Otherwise it ends and waits for no other shard, because a scheduler may run the
    shards one after the other. To measure further stages, run the shards again.
    """
    jobs = check_jobs(jobs)
    points = _points_of(study, settings)
    store = Store(out / POINTS, study.measure, read_data(points, data_dir))
    first = shard.share(points)
    check_experiments(_experiments_of([point for point in first if store.load(point) is None]), jobs)
    store.prepare(first)
    findings: dict[str, Finding] = {}
    total = stored = own = count = 0
    with backend(None):
        while asked := _asked(points, store, findings):
            share = {store.key(point): point for point in shard.share(list(asked.values()))}
            measure = partial(measured, study.measure, jobs=jobs, data_dir=data_dir)
            outcomes, fresh = _measure(measure, share, store, True, own, on_point)
            outcomes |= {
                key: kept
                for key, point in asked.items()
                if key not in share and (kept := store.load(point)) is not None
            }
            total, stored = len(findings) + len(asked), len(findings) + len(outcomes)
            own, count = own + len(share), count + fresh
            if stored < total:
                break
            findings |= {key: Finding(point, outcomes[key]) for key, point in asked.items()}
            with _explain_foreign_points(store, count < len(findings)):
                points = study.refine(settings, list(findings.values()))
    return RanShard(
        study.name, shard, out, own, count, stored, total, stored < total and study.refine is not nothing_more
    )


def _asked(points: Sequence[Point], store: Store, findings: Mapping[str, Finding]) -> dict[str, Point]:
    """Return the points without a finding, by key."""
    asked = {store.key(point): point for point in points}
    return {key: point for key, point in asked.items() if key not in findings}


def _measure(
    measure: Callable[[Sequence[Point]], Iterator[tuple[Point, Outcome]]],
    asked: dict[str, Point],
    store: Store,
    resume: bool,
    before: int,
    on_point: OnPoint,
) -> tuple[dict[str, Outcome], int]:
    """Return the outcomes of all requested points by key, and how many of them were measured now."""
    outcomes: dict[str, Outcome] = {}
    if resume:
        outcomes = {key: kept for key, point in asked.items() if (kept := store.load(point)) is not None}
    # Measured in order of the keys, which are hashes: the remaining points then resemble the finished ones, and the
    # estimate of the remaining time is fair.
    missing = [asked[key] for key in sorted(asked.keys() - outcomes.keys())]
    on_point(before + len(outcomes), before + len(asked))
    for point, outcome in measure(missing) if missing else ():
        key = store.key(point)
        if key not in asked:
            raise NetsimError("a file named by a point was changed while points were measured; run the study again")
        outcomes[key] = store.save(point, outcome)
        on_point(before + len(outcomes), before + len(asked))
    return outcomes, len(missing)


@contextmanager
def _explain_foreign_points(store: Store, resumed: bool) -> Iterator[None]:
    """Turn an error from resumed points into a NetsimError of one line.

    The hash of a stored point shows that its file is intact, but not that a study wrote it.
    """
    try:
        yield
    except Exception as error:
        if not resumed or isinstance(error, NetsimError | OSError):
            raise
        raise NetsimError(
            f"points in {str(store.folder)!r} were not written by a study ({in_one_line(error)}); leave out --resume "
            "to measure all of them again"
        ) from error


def _points_of(study: Study[SettingsT], settings: SettingsT) -> Sequence[Point]:
    points = study.points(settings)
    for point in points:
        check_no_code(point)
    if not points:
        raise UsageError(f"study {study.name} has no points with these settings; give every list at least one value")
    if len(points) > MOST_POINTS:
        raise UsageError(f"study {study.name} has {len(points):,} points; vary less, at most {MOST_POINTS:,} points")
    return points


def _experiments_of(points: Sequence[Point]) -> Iterator[Experiment]:
    """Yield the experiments of those points that hold only options of ``netsim simulate``."""
    for point in points:
        with suppress(UsageError):  # a point with a study's own options; measuring reports real errors
            yield Experiment.of(**point)


def _as_json(study: Study[SettingsT], settings: SettingsT, conclusion: Conclusion) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "study": study.name,
        "title": study.title,
        "version": version_of(study.measure).code,
        "setting": study.setting(settings),
        "settings": settings.model_dump(mode="json"),
        "conclusion": list(conclusion.sentences),
        "limits": list(conclusion.limits),
    } | dict(conclusion.data)


def _write(
    study: Study[SettingsT],
    settings: SettingsT,
    findings: Sequence[Finding],
    conclusion: Conclusion,
    data: dict[str, Any],
    out: Path,
    command: str,
) -> list[Path]:
    """Write the report, the conclusion, and the points as JSON lines and CSV; no file contains a time of day."""
    rows = [dict(finding.point) | dict(finding.outcome) for finding in findings]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table("points", columns, [[_cell(row.get(name)) for name in columns] for row in rows])
    texts = {
        "points.jsonl": "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows),
        "points.csv": as_csv(table),
        CONCLUSION: json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        write_atomically(out / name, text)
    reproduce = {
        "command": command,
        "version": version_of(study.measure).code,
        "seed": _seeds(findings),
        "setting": study.setting(settings) + (f"; the full setting needs {study.needs}" if study.needs else ""),
        "settings": json.dumps(data["settings"], ensure_ascii=False),
        "points": f"{len(findings):,}",
        "times": "SIMULATED with ASSUMED compute costs; none was measured",
        **surroundings(),
    }
    document = Document(
        study.title, conclusion.sentences, conclusion.sections, conclusion.limits, reproduce, data["setting"]
    )
    return [*write_report(document, out / REPORT), *(out / name for name in texts)]


def _write_nccl_tests(study: Study[SettingsT], findings: Sequence[Finding], file: Path, ran: Ran) -> None:
    """Write the table of exchanges of points that are results of ``netsim simulate``, which differ in size only."""
    sizes = ("elements", "model", "density", "k")
    titles = [
        f"study {study.name}, {', '.join(f'{key} {value}' for key, value in finding.point.items() if key not in sizes)}"
        for finding in findings
    ]
    unwritten = f"nccl-tests {str(file)!r} was not written: "
    try:
        runs = collective_runs(zip(titles, (finding.outcome for finding in findings), strict=True))
    except UsageError as error:
        raise UnwrittenError(f"{unwritten}{error}", ran) from error
    if not runs:
        raise UnwrittenError(f"{unwritten}study {study.name} has no times of exchanges; leave it out", ran)
    if len(runs) > 1:
        raise UnwrittenError(
            f"{unwritten}it is one table, of exchanges that differ in size only, and the points of study {study.name} "
            f"make {len(runs)}; vary only elements, model or density",
            ran,
        )
    try:
        write_atomically(file, nccl_tests_text(runs[0]) + "\n")
    except OSError as error:
        raise UnwrittenError(f"nccl-tests {str(file)!r} could not be written: {reason_of(error)}", ran) from error


def _seeds(findings: Sequence[Finding]) -> str:
    return ", ".join(map(str, sorted({finding.point.get("seed", 0) for finding in findings})))


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
