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
    *("bandwidth", "latency", "bandwidth_scale", "latency_scale", "profile"),
    *("model", "elements", "select_time", "merge_time"),
)


@takes(*OPTIONAL, required=("workers", "compute_time"), fan_out=8)
def recommend(
    topology: Annotated[str, option("The network's topology, or with commas several to choose from.")] = "star",
    algorithm: Annotated[
        str | None, option("Candidates, with commas. [default: all that keep what they hold back]")
    ] = None,
    density: Annotated[str, option("Densities that sparse candidates are tried with, with commas.")] = "0.001,0.01",
    validation: Annotated[
        Path | None, option("Folder of netsim validate --out: how far predictions were off on a real network.")
    ] = None,
    jobs: Annotated[int, option("Simulations at once; 0: as many as there are cores.", parser=whole, metavar="N")] = 0,
    as_json: Annotated[bool, option("Print one JSON document instead of the table.", "--json")] = False,
    **options: Any,
) -> None:
    """Rank algorithms and densities for a model on a network, and say how sure the order is."""
    from netsim.analysis.recommend import ALL, candidates
    from netsim.analysis.recommend import recommend as ranked
    from netsim.study.validated import read_validation
    from topologies.spec import several

    if ("model" in options) == ("elements" in options):
        raise UsageError("of model and elements one must be given, such as --model resnet50")
    options = dict.fromkeys(OPTIONAL) | options
    tried = candidates(several(algorithm) if algorithm else ALL, _numbers(density), several(topology))
    with points_progress("simulating") as on_point:
        validated = None if validation is None else read_validation(validation)
        found = ranked(tried, options, validation=validated, jobs=jobs, on_point=on_point)
    if as_json:
        say_json(json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _render(found)


def _numbers(text: str) -> list[float]:
    numbers = [read_number(each) for each in text.split(",")]
    if None in numbers:
        raise UsageError(f"density {shown(text)} must be numbers with commas between, such as 0.001,0.01")
    return [number for number in numbers if number is not None]


def _render(found: Recommendation) -> None:
    from rich.markup import escape
    from rich.table import Table

    from netsim.report.terminal import print_table, wide_console

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("", "candidate"):
        table.add_column(name, no_wrap=True)
    several = len({each.candidate.topology for each in found.ranking}) > 1
    if several:
        table.add_column("topology", overflow="fold")
    for name in ("round", "if inputs are\n20% off", "compute", "select", "exposed\ncomm", "scaling\nefficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ahead of next,\ninputs 20% off")
    table.add_column("bottleneck")
    for place, each in enumerate(found.ranking, start=1):
        table.add_row(*map(escape, _row(place, each, last=place == len(found.ranking), topology=several)))
    console = wide_console()
    with reader_may_go():
        for sentence in found.sentences:
            console.print(escape(sentence), highlight=False, soft_wrap=True)
        print_table(console, table)
        for sentence in found.limits:
            console.print(escape(sentence), highlight=False, soft_wrap=True)


def _row(place: int, each: Ranked, *, last: bool, topology: bool) -> list[str]:
    from netsim._util.units import format_duration

    return [
        str(place),
        each.candidate.title,
        *([each.candidate.topology] if topology else []),
        format_duration(each.round_time_s),
        f"{format_duration(each.low_s)} to {format_duration(each.high_s)}",
        format_duration(each.compute_time_s),
        format_duration(each.select_time_s),
        format_duration(each.comm_time_s),
        "–" if each.scaling_efficiency is None else f"{each.scaling_efficiency:.1%}",
        "" if last else "always" if each.holds else f"in {each.beats_next} of {each.variations}",
        each.bound_by.partition(",")[0],
    ]
