"""``netsim topology``: describe, draw and export a network, and compare placements of ranks on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netsim._util.errors import check_choice
from netsim._util.standard_streams import reader_may_go
from netsim.analysis import NETWORK_CHANGES
from netsim.cli.common import (
    all_done,
    patience,
    say,
    say_json,
    say_lines,
    show_and_write,
    told_after,
    with_links,
    write_out,
)
from netsim.cli.options import Command, Json, Out, option, show_help, takes

if TYPE_CHECKING:
    from netsim.analysis.placement import Gain
    from netsim.experiment.configuration import Experiment
    from netsim.network.summary import Summary
    from netsim.report.run_report import Report

SCHEMA = "netsim.topology/1"
PLACING = "netsim.placement/1"
EXPORT = "netsim.topology-export/1"

app = typer.Typer(
    help="Describe, draw or export a topology, and compare placements of ranks on it.",
    invoke_without_command=True,
    callback=show_help,
)

Name = Annotated[str, typer.Argument(help="A name with keys, such as fat-tree:k=8, or a file.")]


LINKS = ("bandwidth", "latency", "bandwidth_scale", "latency_scale", "fan_out")
DEFAULTS = {"bandwidth": {"otherwise": "1Gbps"}, "latency": {"otherwise": "50us"}}
"""The defaults of links where there is no profile."""
CHANGES = NETWORK_CHANGES | DEFAULTS


def _experiment(topology: str, options: dict[str, Any]) -> Experiment:
    from netsim.experiment.configuration import Experiment

    return Experiment.of(topology=topology, timing_only=True, elements=1, k=1, **options)


@app.command(cls=Command)
@takes(*LINKS, changed=CHANGES, workers=8)
def show(
    topology: Name,
    out: Annotated[Path | None, option("Draw the network into this SVG file.", metavar="FILE")] = None,
    as_json: Annotated[bool, option("Print one JSON document instead of sentences.", "--json")] = False,
    **options: Any,
) -> None:
    """Print hosts, links, diameter and bisection of a network, and draw it with --out."""
    from netsim._util.storage import check_outputs
    from netsim.analysis.unused_options import idle_of_links
    from netsim.experiment.given import input_files
    from netsim.network.summary import summarise
    from topologies.placement import orders

    check_outputs({"out": out}, input_files({"topology": topology}))
    experiment = _experiment(topology, options)
    fabric = experiment.fabric(everywhere=True)
    notes = idle_of_links(experiment)
    tell = told_after(2.0)
    tell(f"ordering {len(fabric.hosts):,} hosts")
    summary = summarise(fabric, orders(fabric.graph), tell)
    if as_json:
        config = {"topology": topology} | with_links(experiment, options)
        document = {"schema": SCHEMA, "config": config, **asdict(summary)}
        document |= {"network_notes": experiment.network_notes(), "notes": notes}
        document["link_ranges"] = summary.link_ranges and summary.link_ranges.as_json()
        steps = [partial(say_json, json.dumps(document, indent=2, ensure_ascii=False))]
    else:
        lines = _in_words(topology, summary, experiment.network_notes())
        lines += [f"note       {note}" for note in notes]
        steps = [partial(say_lines, lines, indent=" " * 11)]
    if out is not None:
        from netsim.report.network import draw_network

        steps.append(partial(write_out, out, draw_network(fabric, orders(fabric.graph)[-1]).rstrip()))
    all_done(steps)


def _in_words(topology: str, summary: Summary, notes: list[str]) -> list[str]:
    from netsim._util.units import format_bandwidth, format_duration

    def counted(count: int, noun: str, plural: str | None = None) -> str:
        return f"{count:,} {noun if count == 1 else plural or noun + 's'}"

    counts = (
        counted(summary.hosts, "host"),
        counted(summary.switches, "switch", "switches"),
        f"{counted(summary.links, 'link')}, each one way",
        counted(summary.groups, "group"),
    )
    least = "" if summary.exact else "at least "
    lines = [
        f"{topology}   {'   '.join(counts)}",
        *(f"file       {note}" for note in notes),
        f"links      {summary.link_ranges.in_words() if summary.link_ranges else 'none'}",
        f"diameter   {least}{counted(summary.diameter_links, 'link')}, {format_duration(summary.diameter_s)} one way",
    ]
    if summary.bisection_bps is not None:
        lines.append(f"bisection  {format_bandwidth(summary.bisection_bps)} from half of the hosts to the others")
    return lines


@app.command(cls=Command)
@takes(*LINKS, changed=CHANGES, workers=8)
def export(
    topology: Name,
    format_: Annotated[
        str, option("json (networkx node-link), graphml, or simgrid (platform XML).", "--format", metavar="NAME")
    ] = "json",
    out: Annotated[Path | None, option("Write to this file instead of printing.", metavar="FILE")] = None,
    as_json: Annotated[
        bool, option("Print one JSON document about the file, with its text unless --out has it.", "--json")
    ] = False,
    **options: Any,
) -> None:
    """Write a network as a file that netsim, networkx or SimGrid reads."""
    from netsim._util.storage import check_outputs
    from netsim.experiment.given import input_files
    from topologies.export import FORMATS

    check_choice("format", format_, FORMATS)
    check_outputs({"out": out}, input_files({"topology": topology}))
    experiment = _experiment(topology, options)
    fabric = experiment.fabric(everywhere=True)
    text = "".join(FORMATS[format_](fabric))
    steps = [] if out is None else [partial(write_out, out, text)]
    if as_json:
        document = {
            "schema": EXPORT,
            "config": {"topology": topology} | with_links(experiment, options),
            "network_notes": experiment.network_notes(),
            "format": format_,
            "out": None if out is None else str(out),
            "text": text if out is None else None,
        }
        steps.insert(0, partial(say_json, json.dumps(document, indent=2, ensure_ascii=False)))
    elif out is None:
        steps.append(partial(say, text))
    all_done(steps)


@app.command(cls=Command)
@takes(
    *LINKS,
    "density",
    "seed",
    changed=DEFAULTS | {"seed": {"help": "Random seed of the random placement."}},
    workers=8,
    algorithm=("dense", "dense-hier", "topk", "gtopk", "gtopk-hier"),
    elements=25_000_000,
)
def placement(
    topology: Name,
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Predict the round time of every placement: in rank order, by locality, cyclic and random."""
    from netsim._util.storage import check_outputs
    from netsim.analysis.placement import compare, in_words, simulate_placements
    from netsim.analysis.unused_options import idle_of_links
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.given import input_files
    from netsim.report.run_report import Report

    check_outputs({"out": out}, input_files({"topology": topology}))
    experiment = Experiment.of(topology=topology, timing_only=True, **options)
    with patience(lambda: f"simulating {', '.join(experiment.algorithms)} under every placement; no result so far"):
        results = simulate_placements(experiment)
    gains = compare(results)
    conclusion, notes = [in_words(gain) for gain in gains], idle_of_links(experiment)
    document = {
        "schema": PLACING,
        "config": experiment.config(),
        "conclusion": conclusion,
        "placements": [asdict(gain) for gain in gains],
        "notes": notes,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False)
    report = Report(
        experiment.config(),
        next(iter(results.values())),
        conclusion,
        notes=notes,
        link_ranges=experiment.links(),
        network_notes=experiment.network_notes(),
    )
    show_and_write(text, out, None if as_json else partial(_print_gains, gains, report, experiment))


def _print_gains(gains: list[Gain], report: Report, experiment: Experiment) -> None:
    from netsim._util.units import format_duration
    from netsim.report.terminal import LABEL, header_lines
    from netsim.report.text import Column, print_lines, print_table, stdout_console
    from topologies.placement import PLACEMENTS

    console = stdout_console()
    columns = [Column(name, [format_duration(gain.round_time_s[name]) for gain in gains]) for name in PLACEMENTS]
    header = [line for line in header_lines(report, experiment) if not line.startswith("compute ")]
    with reader_may_go():
        print_lines(console, [*header, f"seed     {experiment.seed}, of the random placement"], indent=" " * LABEL)
        print_table(console, [Column("round", [gain.title for gain in gains], "label"), *columns])
        print_lines(console, report.conclusion)
