"""``netsim recommend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from netsim._util.errors import UsageError, shown
from netsim._util.standard_streams import reader_may_go
from netsim._util.units import read_number
from netsim.cli.common import points_progress, say_json
from netsim.cli.options import option, takes, whole

if TYPE_CHECKING:
    from netsim.analysis.recommend import Ranked, Recommendation


OPTIONAL = (
    "bandwidth",
    "latency",
    "bandwidth_scale",
    "latency_scale",
    "profile",
    "model",
    "elements",
    "select_time",
    "merge_time",
)


@takes(*OPTIONAL, required=("workers", "compute_time"), fan_out=8)
def recommend(
    topology: Annotated[str, option("Topology of the network, or several with commas.")] = "star",
    algorithm: Annotated[
        str | None, option("Candidates, with commas. [default: dense algorithms, and sparse ones that keep a residual]")
    ] = None,
    density: Annotated[str, option("Densities of sparse candidates, with commas.")] = "0.001,0.01",
    validation: Annotated[
        Path | None,
        option("Folder of netsim validate --out, to compare the lead with errors of predictions.", metavar="FOLDER"),
    ] = None,
    jobs: Annotated[int, option("Simulations at the same time; 0: one per core.", parser=whole, metavar="N")] = 0,
    as_json: Annotated[bool, option("Print one JSON document instead of the table.", "--json")] = False,
    **options: Any,
) -> None:
    """Rank algorithms and densities for a model on a network, and state how robust the ranking is."""
    from netsim._util.options import several
    from netsim.analysis.recommend import candidates
    from netsim.analysis.recommend import recommend as ranked
    from netsim.study.validated import read_validation

    if ("model" in options) == ("elements" in options):
        raise UsageError("either model or elements must be given, such as --model resnet50")
    options = dict.fromkeys(OPTIONAL) | options
    named = several(algorithm) if algorithm else None
    tried = candidates(named, _numbers(density), several(topology), options["workers"])
    with points_progress("simulating") as on_point:
        validated = None if validation is None else read_validation(validation)
        recommendation = ranked(tried, options, validation=validated, jobs=jobs, on_point=on_point)
    if as_json:
        say_json(json.dumps(recommendation.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _render(recommendation)


def _numbers(text: str) -> list[float]:
    numbers = [read_number(part) for part in text.split(",")]
    if None in numbers:
        raise UsageError(f"density {shown(text)} must be numbers, separated by commas, such as 0.001,0.01")
    return [number for number in numbers if number is not None]


def _render(recommendation: Recommendation) -> None:
    from rich.markup import escape
    from rich.table import Table

    from netsim.report.terminal import print_table, wide_console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("", "candidate"):
        table.add_column(name, no_wrap=True)
    several = len({row.candidate.topology for row in recommendation.ranking}) > 1
    if several:
        table.add_column("topology", overflow="fold")
    for name in ("round", "with inputs\n±20%", "compute", "select", "exposed\ncomm", "scaling\nefficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("faster than next\nwith inputs ±20%")
    table.add_column("bottleneck")
    for place, ranked in enumerate(recommendation.ranking, start=1):
        last = place == len(recommendation.ranking)
        table.add_row(*map(escape, _row(place, ranked, last=last, topology=several)))
    console = wide_console()
    with reader_may_go():
        for sentence in recommendation.sentences:
            console.print(escape(sentence), highlight=False, soft_wrap=True)
        print_table(console, table)
        known = (f"Known error, {sentence}" for sentence in recommendation.known_errors)
        for sentence in (*recommendation.limits, *known):
            console.print(escape(sentence), highlight=False, soft_wrap=True)


def _row(place: int, ranked: Ranked, *, last: bool, topology: bool) -> list[str]:
    from netsim._util.units import format_duration

    return [
        str(place),
        ranked.candidate.title,
        *([ranked.candidate.topology] if topology else []),
        format_duration(ranked.round_time_s),
        f"{format_duration(ranked.low_s)} to {format_duration(ranked.high_s)}",
        format_duration(ranked.compute_time_s),
        format_duration(ranked.select_time_s),
        format_duration(ranked.comm_time_s),
        "–" if ranked.scaling_efficiency is None else f"{ranked.scaling_efficiency:.1%}",
        "" if last else "always" if ranked.holds else f"in {ranked.beats_next} of {ranked.variations}",
        ranked.bound_by.partition(",")[0],
    ]
