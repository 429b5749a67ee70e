"""A report as text for a terminal: a header, one table row per algorithm, and the conclusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
"""Buckets up to which the header lists all sizes."""

LEAST_WIDTH = 128
"""Columns that the table needs; output to a file or pipe has at least this many."""
WIDEST = 10_000
"""Upper bound, in columns, on the width of a table."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, which the command line handles, instead of exiting here."""
        raise BrokenPipeError


def wide_console() -> Console:
    """Return a console on stdout; where stdout is a file or pipe, the console is wide enough for a table."""
    console = _Console()
    return console if console.is_terminal else _Console(width=max(console.width, LEAST_WIDTH))


def print_table(console: Console, table: Table) -> None:
    """Print a table without cutting any cell.

    A terminal that is too narrow gets one line per cell. A console that is not a terminal is widened instead.
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
    """Print a report.

    Parameters
    ----------
    report
        The results.
    experiment
        The configuration that the header describes.
    console
        Where to print; stdout if None.
    accounting
        "full" prints times and bytes per round; "paper" prints the columns of Table II of the SASG paper: uploads, and
        bits of uploaded values, over the whole run.
    """
    console = console or wide_console()
    first = report.results[0]
    for line in _header(first, experiment, report):
        console.print(escape(line), highlight=False, soft_wrap=True)
    if accounting == "paper":
        print_table(console, _paper_table(report.results))
        sentences = [PAPER_ACCOUNTING]
    else:
        print_table(console, _table(report.results))
        known = [f"Known error, {sentence}" for sentence in report.known_errors]
        sentences = [*_engines(report.results), *report.conclusion, *known]
    for sentence in [*sentences, *(f"Note: {note}" for note in report.notes)]:
        console.print(escape(sentence), highlight=False, soft_wrap=True)


def _header(first: Result, experiment: Experiment, report: Report) -> list[str]:
    data = _data(experiment, report)
    sparse = next((result for result in report.results if result.k is not None), None)
    chosen = f"   k {sparse.k:,} (density {sparse.k / sparse.elements:.3g})" if sparse and sparse.k else ""
    if sparse and sparse.buckets:
        chosen += (
            f" = {_few([format(each['k'], ',') for each in sparse.buckets], ' + ')}, selected in each part by itself"
        )
    rounds = f"{first.rounds} round{'s' if first.rounds != 1 else ''}"
    lines = [f"model    {data}   {first.elements:,} parameters{chosen}"]
    if first.mode == "simulated":
        speed = _speed(experiment, report.link_ranges)
        placed = "" if experiment.placement == "rank-order" else f"   placement {experiment.placement}"
        lines.append(f"network  {experiment.topology}{placed}   {first.workers} workers   {speed}   SIMULATED")
    else:
        backend = report.environment.get("backend", "")
        lines.append(f"network  {first.workers} workers over torch.distributed ({backend})   MEASURED")
    if experiment.profile is not None and first.mode == "simulated":
        lines.append(f"profile  {experiment.profile}: values for {experiment.profiled()}")
    if report.effects:
        lines.append(f"Effects: {'; '.join(report.effects.values())}")
    in_parts = [result for result in report.results if result.buckets]
    if in_parts and experiment.overlap is not None:
        serial = "   one after another" if experiment.communicator == "serial" else ""
        lines.append(f"overlap  {_buckets(in_parts[0])}{serial}")
    elif in_parts:
        titles = " and ".join(result.title for result in in_parts)
        lines.append(f"servers  {experiment.servers}, each with an equal part of the gradient, for {titles}")
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
    """Return bandwidth and latency of the links.

    If all links have the same latency, the text gives the host-to-host latency, as in ``--latency``.
    """
    if links is None:
        return "no links"
    least, most = links.latency_s
    if experiment.latency_s is None or least != most:
        return links.in_words()
    bandwidth = format_range(*links.bandwidth_bps, format_bandwidth)
    return f"{bandwidth}   {format_duration(experiment.latency_s * experiment.latency_scale)} one way"


ENGINES = {
    "messages": "event engine",
    "compiled": "vectorised engine, compiled loop",
    "batched": "vectorised engine",
    "memoised": "vectorised engine, repeated rounds solved once",
    "closed-form": "vectorised engine, closed forms",
}


def _engines(results: list[Result]) -> list[str]:
    """Describe which engine produced the times, per algorithm if they differ; no sentence for a real run."""
    reasons = {result.title: f" ({result.way_reason})" if result.way_reason else "" for result in results}
    engines = _by_value({result.title: ENGINES[result.way] + reasons[result.title] for result in results if result.way})
    return [f"Times: {'; '.join(engines)}."] if engines else []


MOMENTUM = {"sum": "on the sum", "workers": "at each worker, before selection"}


def _momentum(results: list[Result]) -> str:
    """Describe where momentum is applied, per algorithm if they differ."""
    return "   ".join(_by_value({result.title: MOMENTUM[result.momentum] for result in results if result.momentum}))


def _by_value(texts: Mapping[str, str]) -> list[str]:
    """Return the distinct texts of a mapping from titles to texts; each of several texts names its titles."""
    titles: dict[str, list[str]] = {}
    for title, text in texts.items():
        titles.setdefault(text, []).append(title)
    return [text if len(titles) == 1 else f"{text}: {', '.join(of_text)}" for text, of_text in titles.items()]


def _buckets(result: Result) -> str:
    """Describe the buckets of the gradient: their number, sizes, and when each is ready within the compute time."""
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


COLUMNS: Mapping[str, Callable[[Result], str]] = {
    "round": lambda result: format_duration(result.round_time_s),
    "compute": lambda result: format_duration(result.compute_time_s),
    "select": lambda result: format_duration(result.select_time_s),
    "exposed\ncomm": lambda result: format_duration(result.comm_time_s),
    "hidden\ncomm": lambda result: format_duration(result.hidden_comm_time_s),
    "sent/\nworker": lambda result: format_bytes(result.value_bytes_up + result.index_bytes_up),
    "received/\nworker": lambda result: format_bytes(result.bytes_down),
    "scaling\nefficiency": lambda result: _or_dash(result.scaling_efficiency, ".1%"),
    "loss": lambda result: _or_dash(result.final_loss, ".4f"),
}
"""The columns of numbers, each with the text of its cells."""


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(results: list[Result]) -> Table:
    overlaps = any(result.buckets for result in results)
    columns = {name: cell for name, cell in COLUMNS.items() if overlaps or not name.startswith("hidden")}
    table = _empty_table(list(columns))
    table.add_column("bottleneck")
    fastest = min(result.round_time_s for result in results)
    for result in results:
        table.add_row(
            escape(result.title),
            *(cell(result) for cell in columns.values()),
            escape(result.bound_by),
            style="bold" if result.round_time_s == fastest and len(results) > 1 else "",
        )
    return table


def _empty_table(numbers: Sequence[str]) -> Table:
    """Return a table without rows: a column of algorithms, and a right-aligned column for each name in `numbers`."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


PAPER_ACCOUNTING = (
    'Paper accounting (SASG paper, Table II): "rounds" counts the uploads of all workers in the whole run, and "bits" '
    "the bits of the uploaded values. Indices and the traffic from the server to the workers are not counted."
)


def _paper_table(results: list[Result]) -> Table:
    table = _empty_table(["rounds", "bits", "accuracy"])
    for result in results:
        paper = result.paper_accounting
        accuracy = _or_dash(result.final_accuracy, ".2%")
        table.add_row(escape(result.title), f"{paper['rounds']:,}", f"{paper['bits']:.2E}", accuracy)
    return table
