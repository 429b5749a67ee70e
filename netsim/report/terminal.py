"""A report as text for a terminal: a header, one table row per algorithm, and the conclusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from netsim._util.units import format_bandwidth, format_bytes, format_duration, format_range, is_tie
from netsim.comm.payload import PRECISION_BYTES
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import LossTimes, Result
from netsim.report.text import Column, print_lines, print_table, stdout_console
from topologies.builder import BANDWIDTH_BPS, LATENCY_S

if TYPE_CHECKING:
    from rich.console import Console

    from netsim.network.graph import LinkRanges
    from netsim.report.run_report import Report

LABEL = 9
"""Columns of the labels of the header."""
MOST_BUCKETS = 5
"""Buckets up to which the header lists all sizes."""

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
    console = console or stdout_console()
    render_results(report, experiment, console, accounting)
    render_sentences(report, console, accounting)


def render_results(report: Report, experiment: Experiment, console: Console, accounting: Accounting = "full") -> None:
    """Print the header and the table of a report; the parameters are those of :func:`render`."""
    print_lines(console, header_lines(report, experiment), indent=" " * LABEL)
    if accounting == "paper":
        print_table(console, _paper_columns(report.results))
    else:
        fastest = min(result.round_time_s for result in report.results)
        ties = [row for row, result in enumerate(report.results) if is_tie(result.round_time_s, fastest)]
        columns = table_columns(report.results, report.time_to_loss)
        print_table(console, columns, bold=ties if len(report.results) > 1 else ())


def render_sentences(report: Report, console: Console, accounting: Accounting = "full") -> None:
    """Print what stands below the table of a report; the parameters are those of :func:`render`."""
    if accounting == "paper":
        print_lines(console, [PAPER_ACCOUNTING])
        return
    print_lines(console, [*_engines(report.results), *report.conclusion])
    print_lines(console, known_lines(report.known_errors), indent="    ")


def known_lines(known_errors: Sequence[str]) -> list[str]:
    """Return sentences on known errors as lines below a heading.

    The comparisons say nothing about an ideal network: gloo's rings at 10 Gbit/s take twice as long as ideal ones.
    """
    heading = (
        "How wrong netsim was in the most similar measurements (with effects of hosts and library, which this run may "
        "not have):"
    )
    return [heading, *(f"  {sentence}" for sentence in known_errors)] if known_errors else []


def header_lines(report: Report, experiment: Experiment) -> list[str]:
    """Return the lines above the table of a report: what was run, and what was assumed."""
    first = report.results[0]
    data = _data(experiment, report)
    sparse = next((result for result in report.results if result.k is not None), None)
    chosen = f"   k {sparse.k:,} (density {sparse.k / sparse.elements:.3g})" if sparse and sparse.k else ""
    if sparse and sparse.buckets:
        part = "part" if experiment.overlap is None else "bucket"
        chosen += f" = {_few([format(each['k'], ',') for each in sparse.buckets], ' + ')}, selected in each {part}"
    if first.dtype != "fp32":
        chosen += f"   {first.dtype} in messages"
    rounds = f"{first.rounds} round{'s' if first.rounds != 1 else ''}"
    lines = [f"model    {data}   {first.elements:,} parameters{chosen}"]
    if first.mode == "simulated":
        speed = speed_in_words(experiment, report.link_ranges)
        placed = "" if experiment.placement == "rank-order" else f"   placement {experiment.placement}"
        lines.append(f"network  {experiment.topology}{placed}   {first.workers} workers   {speed}   SIMULATED")
        lines += [f"file     {note}" for note in report.network_notes]
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
    if (trace := experiment.trace) is not None:
        lines.append(
            f"trace    {experiment.ready}   {trace.steps} step{'' if trace.steps == 1 else 's'}   gradient "
            f"{format_duration(trace.gradient_s)}   update {format_duration(trace.update_s)}   MEASURED"
        )
    if momentum := _momentum(report.results):
        lines.append(f"momentum {experiment.momentum:g}   {momentum}")
    device = report.environment.get("device")
    where = f" on {', '.join(report.environment.get('gradient_devices', [device]))}" if device else ""
    lines.append(
        f"compute  {format_duration(first.compute_time_s)} a round {first.compute_provenance}"
        f"{_not_given(experiment, 'compute_time')}{where}   "
        f"selection {first.select_provenance}{_not_given(experiment, 'select_time', 'merge_time')}   {rounds}   "
        f"seed {experiment.seed}"
    )
    return [*lines, *(f"note     {note}" for note in report.notes)]


def _not_given(experiment: Experiment, *times: str) -> str:
    """Return which of these times are 0 because neither an option nor a profile gives them; empty if none is."""
    if not experiment.timing_only or experiment.profile is not None:
        return ""
    given = {"compute_time"} if experiment.trace is not None else set()
    missing = [
        f"--{time.replace('_', '-')}"
        for time in times
        if time not in given and getattr(experiment, f"{time}_s") is None
    ]
    return f" (no {', '.join(missing)}: 0)" if missing else ""


def speed_in_words(experiment: Experiment, links: LinkRanges | None) -> str:
    """Return bandwidth and latency of the links.

    If all links have the same latency, the text gives the host-to-host latency, as in ``--latency``. Defaults
    are marked.
    """
    if links is None:
        return "no links"
    least, most = links.latency_s
    if experiment.latency_s is None or least != most:
        return links.in_words()
    latency_s = experiment.latency_s * experiment.latency_scale
    bandwidth_is_usual = experiment.bandwidth_bps == links.bandwidth_bps[0] == BANDWIDTH_BPS
    return (
        f"{format_range(*links.bandwidth_bps, format_bandwidth)}{' (default)' if bandwidth_is_usual else ''}   "
        f"{format_duration(latency_s)} one way{' (default)' if latency_s == LATENCY_S else ''}"
    )


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
    sizes = _few([format_bytes(PRECISION_BYTES[result.dtype] * each["elements"]) for each in result.buckets])
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


def table_columns(results: list[Result], time_to_loss: LossTimes | None = None) -> list[Column]:
    """Return the columns of the table of a report."""
    to_loss = []
    if time_to_loss is not None:
        seconds = [format_duration(time_to_loss.seconds[result.algorithm]) for result in results]
        to_loss.append(Column(f"time to\nloss {time_to_loss.loss:.3g}", seconds))
    overlaps = any(result.buckets for result in results)
    return [
        Column("algorithm", [result.title for result in results], "label"),
        *(
            Column(name, [cell(result) for result in results])
            for name, cell in COLUMNS.items()
            if overlaps or not name.startswith("hidden")
        ),
        *to_loss,
        Column("bottleneck", [result.bound_by for result in results], "text"),
    ]


PAPER_ACCOUNTING = (
    'Paper accounting (SASG paper, Table II): "rounds" counts the uploads of all workers in the whole run, and "bits" '
    "the bits of the uploaded values. Indices and the traffic from the server to the workers are not counted."
)


def _paper_columns(results: list[Result]) -> list[Column]:
    papers = [result.paper_accounting for result in results]
    return [
        Column("algorithm", [result.title for result in results], "label"),
        Column("rounds", [f"{paper['rounds']:,}" for paper in papers]),
        Column("bits", [f"{paper['bits']:.2E}" for paper in papers]),
        Column("accuracy", [_or_dash(result.final_accuracy, ".2%") for result in results]),
    ]
