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
from netsim.cli.options import option, whole

if TYPE_CHECKING:
    from netsim.study import Plan, Ran, Study


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="gtopk-paper, sasg-paper, scaling, sweep, time-to-accuracy; or a TOML file that says which."
        ),
    ],
    sets: Annotated[
        list[str] | None,
        option(
            "A setting of the study: --set workers=2,4,8; several times for several.", "--set", metavar="KEY=VALUES"
        ),
    ] = None,
    quick: Annotated[
        bool, option("A smaller study: two minutes on two cores, with data that is bundled.", "--quick")
    ] = False,
    out: Annotated[Path | None, option("The folder for the report, the conclusion and the points.")] = None,
    resume: Annotated[bool, option("Use the points that an earlier run left in --out.", "--resume")] = False,
    dry_run: Annotated[bool, option("Say what would be simulated, and simulate nothing.", "--dry-run")] = False,
    jobs: Annotated[int, option("Points at once; 0: as many as there are cores.", parser=whole, metavar="N")] = 0,
    data_dir: Annotated[str | None, option("Folder that holds the data sets of studies that train.")] = None,
    validation: Annotated[
        Path | None, option("Folder of netsim validate --out: predicted against measured, in the report, too.")
    ] = None,
    cluster: Annotated[str | None, option("Use the cores of this Dask cluster: dask://host:port.")] = None,
    as_json: Annotated[bool, option("Print one JSON document instead of sentences.", "--json")] = False,
) -> None:
    """Simulate many points, and say what they show together, in a report and in JSON."""
    from netsim.study import plan_study, run_study
    from netsim.study.settings import read_study_file, settings_of
    from studies import STUDIES, load_study

    given: Any = {}
    known = name
    is_file = os.path.isfile(name)  # noqa: PTH113  # false for any name, never an error
    if name not in STUDIES and (name.endswith(".toml") or is_file):
        known, given = read_study_file(Path(name), STUDIES)
    found = load_study(known)
    settings = settings_of(found, quick=quick, given=given, sets=sets or ())
    if out is None and not dry_run:
        raise UsageError("out is missing: name the folder for the results, such as --out results")
    folder = _folder(out)
    if dry_run:
        plan = plan_study(found, settings, folder, cluster=cluster, data_dir=data_dir)
        said = found.setting(settings)
        if as_json:
            say_json(json.dumps(_as_json(found, plan, said), indent=2, ensure_ascii=False))
        else:
            say(_in_words(found, plan, said))
        return
    if not resume and (kept := plan_study(found, settings, folder, cluster=cluster, data_dir=data_dir).known):
        typer.echo(f"netsim: {str(folder)!r} holds {kept:,} of the points; --resume would use them", err=True)
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
        with rest_delivered(show), points_progress(found.name) as on_point:
            ran = run_study(
                found, settings, folder, command=command, jobs=jobs, cluster=cluster, resume=resume, data_dir=data_dir,
                validation=validation, on_point=on_point,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted; every point that was ready is kept in {str(folder)!r}: give the same options and --resume "
            "to go on from there"
        ) from None
    show(ran)


def _sets(sets: list[str] | None) -> list[str]:
    return [part for text in sets or () for part in ("--set", text)]


def _folder(out: Path | None) -> Path:
    """Return the folder for the results, which is there or can be made."""
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
        "points": [dict(each) for each in plan.points],
    }


def _in_words(study: Study[Any], plan: Plan, setting: str) -> str:
    """Return how many points there are, and what varies in them."""
    names = dict.fromkeys(name for point in plan.points for name in point)
    values = {name: dict.fromkeys(str(point.get(name, "default")) for point in plan.points) for name in names}
    varied = [f"  {key}: {', '.join(each)}" for key, each in values.items() if len(each) > 1]
    fixed = [f"  {key}: {next(iter(each))}" for key, each in values.items() if len(each) == 1]
    return "\n".join([
        f"{study.name}: {study.title}",
        setting + (f"; the full one needs {study.needs}" if study.needs else ""),
        f"{len(plan.points):,} points, of which {plan.known:,} are kept already; a study may ask for more later",
        *(["vary", *varied] if varied else []),
        *(["the same everywhere", *fixed] if fixed else []),
    ])  # fmt: skip
