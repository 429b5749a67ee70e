"""``netsim study``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsim.cli.common import points_progress, rest_delivered, resumable, say_json, say_lines
from netsim.cli.options import COMMON, Json, NcclTests, option, takes
from studies import STUDIES

if TYPE_CHECKING:
    from netsim.study_engine.runner import StudyResult


@takes("Study")
def study(
    name: Annotated[
        str,
        typer.Argument(help=f"{', '.join(STUDIES)}; or a TOML file of a study."),
    ],
    sets: Annotated[
        list[str] | None,
        option(
            "Change a setting of the study: --set workers=2,4,8. May be given several times.",
            "--set",
            panel=COMMON,
            metavar="KEY=VALUES",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option("Folder for the report, the conclusion and the points.", panel=COMMON, metavar="FOLDER"),
    ] = None,
    nccl_tests: NcclTests = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Simulate many combinations of settings, and write one conclusion as a report and as JSON."""
    from netsim.api.studies import AskedStudy

    asked = AskedStudy.of(name, out, nccl_tests, options, {}, sets or ())
    read, label = asked.options, asked.study.name

    def show(done: StudyResult) -> None:
        if as_json:
            say_json(json.dumps(done.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
        else:
            say_lines(done.lines())

    if read.dry_run:
        show(asked.plan())
        return
    if asked.shard is not None:
        label += f", shard {asked.shard}"
    elif not read.resume and (stored := asked.plan().known):
        typer.echo(f"netsim: {str(asked.out)!r} holds {stored:,} of the points; --resume would use them", err=True)
    more = [*(["--data-dir", "DATA"] if read.data_dir else []), *(["--validation", "DIR"] if read.validation else [])]
    changed = [part for text in sets or () for part in ("--set", text)]
    quick = ["--quick"] if read.quick else []
    command = shlex.join(["netsim", "study", name, *quick, *changed, *more, "--out", "DIR"])
    after = f"finished points are stored in {str(asked.out)!r}: give the same options and --resume to continue"
    with resumable(lambda: after), rest_delivered(show), points_progress(label) as on_point:
        done = asked.carry_out(command, on_point)
    show(done)
