"""``netsim flows``."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from netsim._util.standard_streams import reader_may_go
from netsim.cli.common import all_done, patience, show_and_write, with_links, write_out
from netsim.cli.options import Json, NcclTests, Out, option, takes

if TYPE_CHECKING:
    from rich.table import Table

    from netsim.analysis.replay import Replay
    from netsim.network.flow import Sharing

SCHEMA = "netsim.flows/1"
MOST_ROWS = 24
"""Flows in the table; the JSON contains all."""


@takes(
    "bandwidth",
    "latency",
    "bandwidth_scale",
    "latency_scale",
    "fan_out",
    "profile",
    "sharing",
    required=("topology",),
    workers=8,
)
def flows(
    flows: Annotated[Path, option("CSV file with the columns src, dst, bytes and start_s.", metavar="FILE")],
    nccl_tests: NcclTests = None,
    as_json: Json = False,
    out: Out = None,
    **options: Any,
) -> None:
    """Simulate any traffic on any network, and print when each flow ends and which link is busiest."""
    from netsim._util.storage import check_outputs
    from netsim.analysis.replay import replay
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
    document = json.dumps(_as_json(done, config), indent=2, ensure_ascii=False)
    show = partial(_print, done, cast(Sharing, experiment.sharing))
    writes = [] if nccl_tests is None else [partial(_write_nccl_tests, done, experiment.topology, nccl_tests)]
    all_done([partial(show_and_write, document, out, None if as_json else show), *writes])


def _write_nccl_tests(done: Replay, topology: str, file: Path) -> None:
    from netsim.report.nccl_tests import NcclTestsRun, nccl_tests_text

    hosts = {host for flow in done.flows for host in (flow.given.source, flow.given.target)}
    sizes = [(flow.given.nbytes, flow.duration_s) for flow in done.flows]
    run = NcclTestsRun(operation="sendrecv", title=f"single flows on {topology}", ranks=len(hosts), seconds=sizes)
    write_out(file, nccl_tests_text([run]), "nccl-tests")


def _as_json(done: Replay, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "config": config,
        "makespan_s": done.makespan_s,
        "conclusion": [_sentence(done)],
        "flows": [
            {
                "src": flow.given.source,
                "dst": flow.given.target,
                "bytes": flow.given.nbytes,
                "start_s": flow.given.start_s,
                "finish_s": flow.finish_s,
                "duration_s": flow.duration_s,
                "rate_bps": flow.rate_bps,
                "links": [link.name for link in flow.route],
            }
            for flow in done.flows
        ],
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


def _print(done: Replay, sharing: Sharing) -> None:
    from rich.markup import escape

    from netsim.network.flow import SHARINGS
    from netsim.report.terminal import print_table, wide_console

    console = wide_console()
    with reader_may_go():
        print_table(console, _table(done))
        if len(done.flows) > MOST_ROWS:
            console.print(f"… and {len(done.flows) - MOST_ROWS:,} more flows; --json prints all", highlight=False)
        console.print(escape(_sentence(done)), highlight=False, soft_wrap=True)
        console.print(f"SIMULATED; links are shared by {SHARINGS[sharing]} (--sharing {sharing}).", highlight=False)


def _table(done: Replay) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from netsim._util.units import format_bandwidth, format_bytes, format_duration

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("from", "to"):
        table.add_column(name, no_wrap=True)
    for name in ("size", "start", "finish", "took", "mean rate"):
        table.add_column(name, justify="right", no_wrap=True)
    for flow in done.flows[:MOST_ROWS]:
        table.add_row(
            escape(flow.given.source),
            escape(flow.given.target),
            format_bytes(flow.given.nbytes),
            format_duration(flow.given.start_s),
            format_duration(flow.finish_s),
            format_duration(flow.duration_s),
            "–" if flow.rate_bps is None else format_bandwidth(flow.rate_bps),
        )
    return table
