"""``netsim study``."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsim._util.errors import InterruptedRunError, UsageError
from netsim.cli.common import points_progress, rest_delivered, say, say_json
from netsim.cli.options import NcclTests, option, whole

if TYPE_CHECKING:
    from netsim.study import Plan, Ran, Study


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="gtopk-paper, published, sasg-paper, scaling, sweep, time-to-accuracy; or a TOML file of a study."
        ),
    ],
    sets: Annotated[
        list[str] | None,
        option(
            "Change a setting of the study: --set workers=2,4,8. May be given several times.",
            "--set",
            metavar="KEY=VALUES",
        ),
    ] = None,
    quick: Annotated[
        bool, option("Use the quick setting: up to two minutes on two cores, with bundled data.", "--quick")
    ] = False,
    out: Annotated[
        Path | None, option("Folder for the report, the conclusion and the points.", metavar="FOLDER")
    ] = None,
    resume: Annotated[bool, option("Use the points that an earlier run stored in --out.", "--resume")] = False,
    dry_run: Annotated[bool, option("Print what would be simulated, and simulate nothing.", "--dry-run")] = False,
    jobs: Annotated[int, option("Points simulated at the same time; 0: one per core.", parser=whole, metavar="N")] = 0,
    data_dir: Annotated[str | None, option("Folder of data sets, for studies that train.", metavar="FOLDER")] = None,
    validation: Annotated[
        Path | None,
        option("Folder of netsim validate --out, to add predicted against measured to the report.", metavar="FOLDER"),
    ] = None,
    nccl_tests: NcclTests = None,
    cluster: Annotated[str | None, option("Simulate on a Dask cluster: dask://host:port.")] = None,
    as_json: Annotated[bool, option("Print one JSON document instead of sentences.", "--json")] = False,
) -> None:
    """Simulate many combinations of settings, and write one conclusion as a report and as JSON."""
    from netsim.study import plan_study, run_study
    from netsim.study.settings import read_study_file, settings_of
    from studies import STUDIES, load_study

    given: Any = {}
    study_name = name
    is_file = os.path.isfile(name)  # noqa: PTH113  # False, without an error, for any name
    if name not in STUDIES and (name.endswith(".toml") or is_file):
        study_name, given = read_study_file(Path(name), STUDIES)
    loaded = load_study(study_name)
    settings = settings_of(loaded, quick=quick, given=given, sets=sets or ())
    if out is None and not dry_run:
        raise UsageError("out is missing: name the folder for the results, such as --out results")
    folder = _folder(out)
    if dry_run:
        plan = plan_study(loaded, settings, folder, cluster=cluster, data_dir=data_dir)
        setting = loaded.setting(settings)
        if as_json:
            say_json(json.dumps(_as_json(loaded, plan, setting), indent=2, ensure_ascii=False))
        else:
            say(_in_words(loaded, plan, setting))
        return
    if not resume and (stored := plan_study(loaded, settings, folder, cluster=cluster, data_dir=data_dir).known):
        typer.echo(f"netsim: {str(folder)!r} holds {stored:,} of the points; --resume would use them", err=True)
    more = [*(["--data-dir", "DATA"] if data_dir else []), *(["--validation", "DIR"] if validation else [])]
    command = shlex.join(
        ["netsim", "study", name, *(["--quick"] if quick else []), *_sets(sets), *more, "--out", "DIR"]
    )

    def show(ran: Ran) -> None:
        if as_json:
            say_json(json.dumps(ran.data, indent=2, ensure_ascii=False, allow_nan=False))
        else:
            say("\n".join([*ran.conclusion.sentences, *(f"Report: {file}" for file in ran.files[:1])]))

    try:
        with rest_delivered(show), points_progress(loaded.name) as on_point:
            ran = run_study(
                loaded,
                settings,
                folder,
                command=command,
                jobs=jobs,
                cluster=cluster,
                resume=resume,
                data_dir=data_dir,
                validation=validation,
                nccl_tests=nccl_tests,
                on_point=on_point,
            )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; finished points are stored in {str(folder)!r}: give the same options and --resume to "
            "continue"
        ) from None
    show(ran)


def _sets(sets: list[str] | None) -> list[str]:
    return [part for text in sets or () for part in ("--set", text)]


def _folder(out: Path | None) -> Path:
    """Return the folder for the results, after checking that it exists or can be made."""
    if out is None:
        return Path()
    from netsim._util.storage import check_folder

    check_folder("out", out)
    return out


def _as_json(study: Study[Any], plan: Plan, setting: str) -> dict[str, Any]:
    return {
        "study": study.name,
        "title": study.title,
        "setting": setting,
        "full_setting_needs": study.needs,
        "known": plan.known,
        "points": [dict(point) for point in plan.points],
    }


def _in_words(study: Study[Any], plan: Plan, setting: str) -> str:
    """Return the plan as text: the number of points, the options that vary, and the options with one value."""
    names = dict.fromkeys(name for point in plan.points for name in point)
    values = {name: dict.fromkeys(str(point.get(name, "default")) for point in plan.points) for name in names}
    varied = [f"  {name}: {', '.join(options)}" for name, options in values.items() if len(options) > 1]
    fixed = [f"  {name}: {next(iter(options))}" for name, options in values.items() if len(options) == 1]
    lines = [
        f"{study.name}: {study.title}",
        setting + (f"; the full setting needs {study.needs}" if study.needs else ""),
        f"{len(plan.points):,} points, of which {plan.known:,} are stored; the study may add points later",
    ]
    for title, options in (("options that vary", varied), ("options with one value", fixed)):
        if options:
            lines += [title, *options]
    return "\n".join(lines)
