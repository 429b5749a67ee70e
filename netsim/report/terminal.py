"""A report as people read it in a terminal: a header, a row an algorithm, and the conclusion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from netsim._util.units import format_bandwidth, format_bytes, format_duration, format_range
from netsim.comm.payload import VALUE_BYTES
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import Report, Result

if TYPE_CHECKING:
    from netsim.network.graph import LinkRanges

MOST_BUCKETS = 5
"""Buckets whose sizes are all told."""

LEAST_WIDTH = 128
"""Narrower than this the table would wrap; output that is not a terminal has at least so many columns."""
WIDEST = 10_000
"""More columns than any table needs."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line what a reader that went away means."""
        raise BrokenPipeError


def wide_console() -> Console:
    """Return a console on stdout, wide enough for a table where nobody looks."""
    console = _Console()
    return console if console.is_terminal else _Console(width=max(console.width, LEAST_WIDTH))


def print_table(console: Console, table: Table) -> None:
    """Print a table, or, where the terminal is too narrow for it, its cells a line each: nothing is cut.

    What is not a terminal is as wide as the table needs.
    """
    least = console.measure(table, options=console.options.update(max_width=WIDEST)).minimum
    if least <= console.width or not console.is_terminal:
        console.width = max(console.width, least)
        console.print(table)
        return
    headers = [" ".join(str(column.header).split()) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        for header, cell in zip(headers, cells, strict=True):
            console.print(f"{header}: {cell}" if header else str(cell), soft_wrap=True, highlight=False)
        console.print()


Accounting = Literal["full", "paper"]


def render(
    report: Report, experiment: Experiment, console: Console | None = None, accounting: Accounting = "full"
) -> None:
    """Print the report to stdout, or to `console`; with the "paper" accounting, the table is Table II of SASG's."""
    console = console or wide_console()
    first = report.results[0]
    for line in _header(first, experiment, report):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if accounting == "paper":
        print_table(console, _paper_table(report.results))
        sentences = [PAPER_ACCOUNTING]
    else:
        print_table(console, _table(report.results))
        ways = _ways(report.results)
        sentences = [*([ways] if ways else []), *report.conclusion]
    for sentence in [*sentences, *(f"Note: {note}" for note in report.notes)]:
        console.print(escape(sentence), highlight=False, soft_wrap=True)


def _header(first: Result, experiment: Experiment, report: Report) -> list[str]:
    data = _data(experiment, report)
    sparse = next((result for result in report.results if result.k is not None), None)
    chosen = f"   k {sparse.k:,} (density {sparse.k / sparse.elements:.3g})" if sparse and sparse.k else ""
    if sparse and sparse.buckets:
        chosen += f" = {_few([format(each['k'], ',') for each in sparse.buckets], ' + ')}, each part its own"
    rounds = f"{first.rounds} round{'s' if first.rounds != 1 else ''}"
    lines = [f"model    {data}   {first.elements:,} parameters{chosen}"]
    if first.mode == "simulated":
        speed = _speed(experiment, report.link_ranges)
        placed = "" if experiment.placement == "given" else f"   placement {experiment.placement}"
        lines.append(f"network  {experiment.topology}{placed}   {first.workers} workers   {speed}   SIMULATED")
    else:
        backend = report.environment.get("backend", "")
        lines.append(f"network  {first.workers} workers over torch.distributed ({backend})   MEASURED")
    if experiment.profile is not None and first.mode == "simulated":
        lines.append(f"profile  {experiment.profile}: what is said of {experiment.profiled()} comes from there")
    if report.effects:
        lines.append(f"Effects: {'; '.join(report.effects.values())}")
    in_parts = [result for result in report.results if result.buckets]
    if in_parts and experiment.overlap is not None:
        lines.append(f"overlap  {_buckets(in_parts[0])}")
    elif in_parts:
        titles = " and ".join(result.title for result in in_parts)
        lines.append(f"servers  {experiment.servers}, each with an equal part of the gradient: {titles}")
    if momentum := _momentum(report.results):
        lines.append(f"momentum {experiment.momentum:g}   {momentum}")
    device = report.environment.get("device")
    where = f" on {device}" if device else ""
    lines.append(
        f"compute  {format_duration(first.compute_time_s)} a round {first.compute_provenance}{where}   "
        f"selection {first.select_provenance}   {rounds}   seed {experiment.seed}"
    )
    return lines


def _speed(experiment: Experiment, links: LinkRanges | None) -> str:
    """Return what the links are; a latency that is that of all of them, as it was given: from host to host."""
    if links is None:
        return "no links"
    least, most = links.latency_s
    if experiment.latency_s is None or least != most:
        return links.in_words()
    bandwidth = format_range(*links.bandwidth_bps, format_bandwidth)
    return f"{bandwidth}   {format_duration(experiment.latency_s * experiment.latency_scale)} one way"


WAYS = {
    "messages": "a message at a time",
    "compiled": "a message at a time, in compiled code",
    "batched": "in rounds of all ranks at once",
    "memoised": "in steps of which those that repeat were solved once",
    "closed-form": "in closed form",
}


def _ways(results: list[Result]) -> str:
    """Say how the simulated times were had, of whom if not of all alike."""
    whose: dict[str, list[str]] = {}
    for result in results:
        if result.way is not None:
            because = f" ({result.way_reason})" if result.way_reason else ""
            whose.setdefault(WAYS[result.way] + because, []).append(result.title)
    told = [way if len(whose) == 1 else f"{way}: {', '.join(titles)}" for way, titles in whose.items()]
    return f"Simulated {'; '.join(told)}." if told else ""


MOMENTUM = {"sum": "on the sum", "workers": "at each worker, before selection"}


def _momentum(results: list[Result]) -> str:
    """Say what momentum is applied to, of whom if not of all alike."""
    whose: dict[str, list[str]] = {}
    for result in results:
        if result.momentum is not None:
            whose.setdefault(MOMENTUM[result.momentum], []).append(result.title)
    return "   ".join(what if len(whose) == 1 else f"{what}: {', '.join(titles)}" for what, titles in whose.items())


def _buckets(result: Result) -> str:
    """Return in words how the gradient is cut, and when buckets are there."""
    assert result.buckets is not None
    sizes = _few([format_bytes(VALUE_BYTES * each["elements"]) for each in result.buckets])
    said = f"{len(result.buckets)} buckets, last layers first, of {sizes}"
    if result.ready_provenance is not None:
        ready = _few([f"{each['ready']:.0%}" for each in result.buckets])
        said += f"   ready at {ready} of the compute time {result.ready_provenance}"
    return said


def _few(of_each: list[str], between: str = ", ") -> str:
    return between.join(of_each if len(of_each) <= MOST_BUCKETS else [*of_each[: MOST_BUCKETS - 1], "…", of_each[-1]])


def _data(experiment: Experiment, report: Report) -> str:
    if experiment.timing_only:
        of = experiment.model or ("" if experiment.elements else experiment.workload)
        return f"sizes only{' of ' + of if of else ''}, no data"
    on = report.environment.get("data", "")
    made_up = " (MADE UP, not real data)" if "synthetic" in on else ""
    return f"{experiment.workload} on {on}{made_up}"


def _table(results: list[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    overlaps = any(result.buckets for result in results)
    for name in (
        "round",
        "compute",
        "select",
        "exposed\ncomm",
        *(["hidden\ncomm"] if overlaps else []),
        "up a\nworker",
        "down a\nworker",
        "scaling\nefficiency",
        "loss",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by")
    fastest = min(result.round_time_s for result in results)
    for result in results:
        table.add_row(
            escape(result.title),
            format_duration(result.round_time_s),
            format_duration(result.compute_time_s),
            format_duration(result.select_time_s),
            format_duration(result.comm_time_s),
            *([format_duration(result.hidden_comm_time_s)] if overlaps else []),
            format_bytes(result.value_bytes_up + result.index_bytes_up),
            format_bytes(result.bytes_down),
            "–" if result.scaling_efficiency is None else f"{result.scaling_efficiency:.1%}",
            "–" if result.final_loss is None else f"{result.final_loss:.4f}",
            escape(result.bound_by),
            style="bold" if result.round_time_s == fastest and len(results) > 1 else "",
        )
    return table


PAPER_ACCOUNTING = (
    'Paper accounting (SASG paper, Table II): a "round" is one upload of one worker, in the whole run; bits are those '
    "of the values uploaded. Indices, and what the server sends down, are not in it."
)


def _paper_table(results: list[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    for name in ("rounds", "bits", "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        told = result.paper_accounting
        accuracy = "–" if result.final_accuracy is None else f"{result.final_accuracy:.2%}"
        table.add_row(escape(result.title), f"{told['rounds']:,}", f"{told['bits']:.2E}", accuracy)
    return table
