"""``netsim flows``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from netsim._util.standard_streams import reader_may_go
from netsim.analysis import FLOWS_OPTIONS, NETWORK_CHANGES
from netsim.cli.common import all_done, patience, show_and_write, with_links, write_out
from netsim.cli.options import COMMON, OUTPUT, Json, Out, option, takes

if TYPE_CHECKING:
    from netsim.analysis.replay import Replay
    from netsim.experiment.configuration import Experiment
    from netsim.network.fabric import Fabric
    from netsim.network.flow import Sharing
    from netsim.report.text import Column

SCHEMA = "netsim.flows/1"
MOST_ROWS = 24
"""Flows in the table; the JSON contains all."""


@takes(*FLOWS_OPTIONS, required=("topology",), changed=NETWORK_CHANGES, workers=8)
def flows(
    flows: Annotated[
        Path,
        option(
            "CSV file with the columns src, dst, bytes and start_s, or HPCC's flow.txt.", panel=COMMON, metavar="FILE"
        ),
    ],
    nccl_tests: Annotated[
        Path | None,
        option(
            "Also write the flows to this file in the columns of nccl-tests (size, time, algbw, busbw).",
            panel=OUTPUT,
            metavar="FILE",
        ),
    ] = None,
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Simulate any traffic on any network, and print when each flow ends and which link is busiest."""
    from netsim._util.storage import check_outputs
    from netsim.analysis.replay import replay
    from netsim.analysis.unused_options import idle_of_links
    from netsim.experiment.configuration import Experiment
    from netsim.experiment.given import input_files
    from netsim.network.flow import Sharing
    from netsim.network.flowfile import read_flows

    check_outputs({"out": out, "nccl-tests": nccl_tests}, input_files({**options, "flows": flows}))
    experiment = Experiment.of(timing_only=True, elements=1, k=1, **options)
    fabric = experiment.fabric(everywhere=True)
    given = read_flows(flows, fabric.nodes_of_hosts)
    with patience(lambda: f"replaying {len(given):,} flows"):
        done = replay(fabric, given, cast(Sharing, experiment.sharing))
    config = {"topology": experiment.topology, "flows": str(flows), "workers": experiment.workers}
    config |= with_links(experiment, options)
    header = [_network(experiment, fabric), *experiment.network_notes()]
    notes = idle_of_links(experiment)
    document = json.dumps(_as_json(done, config, experiment.network_notes(), notes), indent=2, ensure_ascii=False)
    show = partial(_print, done, cast(Sharing, experiment.sharing), [*header, *(f"note     {note}" for note in notes)])
    writes = [] if nccl_tests is None else [partial(_write_nccl_tests, done, experiment.topology, nccl_tests)]
    all_done([partial(show_and_write, document, out, None if as_json else show), *writes])


def _write_nccl_tests(done: Replay, topology: str, file: Path) -> None:
    from netsim.report.nccl_tests import NcclTestsRun, nccl_tests_text

    hosts = {host for flow in done.flows for host in (flow.given.source, flow.given.target)}
    sizes = [(flow.given.nbytes, flow.duration_s) for flow in done.flows]
    run = NcclTestsRun(operation="sendrecv", title=f"single flows on {topology}", ranks=len(hosts), seconds=sizes)
    write_out(file, nccl_tests_text(run), "nccl-tests")


def _network(experiment: Experiment, fabric: Fabric) -> str:
    """Return the network in one line, with a mark at defaults."""
    from netsim.report.terminal import speed_in_words

    hosts = f"{len(fabric.hosts):,} host{'s' if len(fabric.hosts) != 1 else ''}"
    given = "" if experiment.profile is None else f"   links of the profile {experiment.profile}"
    return f"network  {experiment.topology}   {hosts}   {speed_in_words(experiment, experiment.links())}{given}"


def _as_json(done: Replay, config: dict[str, Any], network_notes: list[str], notes: list[str]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "config": config,
        "network_notes": network_notes,
        "notes": notes,
        "makespan_s": done.makespan_s,
        "conclusion": [_sentence(done)],
        "flows": [flow.to_dict() | {"links": [link.name for link in flow.route]} for flow in done.flows],
        "links": [
            {
                "name": use.link.name,
                "source": use.link.source,
                "target": use.link.target,
                "bandwidth_bps": use.link.bandwidth_bps,
                "latency_s": use.link.latency_s,
                "flows": use.flows,
                "bytes": use.nbytes,
                "utilisation": use.utilisation,
            }
            for use in done.links
        ],
    }


def _sentence(done: Replay) -> str:
    from netsim._util.units import format_bytes, format_duration

    busiest = done.busiest
    alike = sum(use.utilisation == busiest.utilisation for use in done.links) - 1
    span = format_duration(done.makespan_s) if done.makespan_s else "less than 1 ps"
    others = f"; {alike} other link{'s are' if alike > 1 else ' is'} equally busy" if alike else ""
    return (
        f"The busiest link is {busiest.link.name}: it carries {format_bytes(busiest.nbytes)} of "
        f"{busiest.flows} flow{'s' if busiest.flows > 1 else ''}, {busiest.utilisation:.1%} of its capacity in the "
        f"{span} from the first start to the last finish{others}."
    )


def _print(done: Replay, sharing: Sharing, header: list[str]) -> None:
    from netsim.network.flow import SHARINGS
    from netsim.report.text import print_lines, print_table, stdout_console

    console = stdout_console()
    more = len(done.flows) - MOST_ROWS
    with reader_may_go():
        print_lines(console, header, indent=" " * 9)
        print_table(console, _columns(done), keys=2)
        print_lines(
            console,
            [
                *([f"… and {more:,} more flows; --json prints all"] if more > 0 else []),
                _sentence(done),
                f"SIMULATED; links are shared by {SHARINGS[sharing]} (--sharing {sharing}).",
            ],
        )


def _columns(done: Replay) -> list[Column]:
    from netsim._util.units import format_bandwidth, format_bytes, format_duration
    from netsim.report.text import Column

    flows = done.flows[:MOST_ROWS]
    return [
        Column("from", [flow.given.source for flow in flows], "label"),
        Column("to", [flow.given.target for flow in flows], "label"),
        Column("size", [format_bytes(flow.given.nbytes) for flow in flows]),
        Column("start", [format_duration(flow.given.start_s) for flow in flows]),
        Column("finish", [format_duration(flow.finish_s) for flow in flows]),
        Column("took", [format_duration(flow.duration_s) for flow in flows]),
        Column("mean rate", ["–" if flow.rate_bps is None else format_bandwidth(flow.rate_bps) for flow in flows]),
    ]
