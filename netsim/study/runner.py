"""Running a study: measure the missing points, refine, conclude, and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from netsim._util.errors import NetsimError, UnwrittenError, UsageError, in_one_line, reason_of
from netsim._util.progress import OnPoint
from netsim._util.storage import check_outputs, made_folder, remove_leftovers, write_atomically
from netsim._util.system import surroundings
from netsim.experiment.configuration import Experiment
from netsim.report import Document, Table, write_report
from netsim.report.files import as_csv
from netsim.report.nccl_tests import all_reduce_runs, nccl_tests_text
from netsim.simulator.estimates import check_experiments
from netsim.study.checks import check_no_code
from netsim.study.environment import data_if_there, read_data
from netsim.study.kinds import Conclusion, Finding, Outcome, Point, SettingsT, Study
from netsim.study.pool import backend, check_jobs, measured
from netsim.study.sources import version_of
from netsim.study.store import Store
from netsim.study.validated import present, read_validation

SCHEMA = "netsim.study/1"
MOST_POINTS = 100_000
"""Points of a study, to stop a grid that grew by mistake."""
REPORT, CONCLUSION, POINTS = "report.html", "conclusion.json", "points"
TABLES = ("points.jsonl", "points.csv")


def ignore(known: int, total: int) -> None:
    """Report no progress."""


class Plan(NamedTuple):
    """The plan of a study: its first points, before refinement, and how many of them are stored already."""

    points: Sequence[Point]
    known: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished study: its conclusion, the same as a JSON object, the files written, and the points measured now."""

    conclusion: Conclusion
    data: dict[str, Any]
    files: Sequence[Path]
    measured: int


def plan_study(
    study: Study[SettingsT], settings: SettingsT, out: Path, *, cluster: str | None = None, data_dir: str | None = None
) -> Plan:
    """Return the points that running `study` into the folder `out` would measure."""
    points = _points_of(study, settings)
    store = Store(out / POINTS, study.measure, None if cluster else data_if_there(points, data_dir))
    return Plan(points, sum(store.load(point) is not None for point in points))


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
    on_point: OnPoint = ignore,
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
        A file for the simulated exchanges in the columns of nccl-tests.
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
        while True:
            asked = {store.key(point): point for point in points}
            asked = {key: point for key, point in asked.items() if key not in findings}
            if not asked:
                break
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
    """Write the exchanges of points that are results of ``netsim simulate``; points of one run differ in size only."""
    sizes = ("elements", "model")
    titles = [
        f"study {study.name}, {', '.join(f'{key} {value}' for key, value in finding.point.items() if key not in sizes)}"
        for finding in findings
    ]
    runs = all_reduce_runs(zip(titles, (finding.outcome for finding in findings), strict=True))
    if not runs:
        raise UnwrittenError(
            f"nccl-tests {str(file)!r} was not written: study {study.name} has no times of exchanges; leave it out", ran
        )
    try:
        write_atomically(file, nccl_tests_text(runs) + "\n")
    except OSError as error:
        raise UnwrittenError(f"nccl-tests {str(file)!r} could not be written: {reason_of(error)}", ran) from error


def _seeds(findings: Sequence[Finding]) -> str:
    return ", ".join(map(str, sorted({finding.point.get("seed", 0) for finding in findings})))


def _cell(value: Any) -> str | int | float | bool | None:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)
