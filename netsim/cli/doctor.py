"""``netsim doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from netsim._util.standard_streams import reader_may_go
from netsim.cli.common import say_json
from netsim.cli.options import option


def doctor(
    *,
    clean: Annotated[bool, option("Remove what killed runs left behind.", "--clean")] = False,
    as_json: Annotated[bool, option("Print one JSON document instead of the table.", "--json")] = False,
) -> None:
    """Show what this machine supports, and find what killed runs left behind."""
    from netsim.testbed.doctor import examine, leftovers

    left = leftovers()
    removed = left if clean else []
    for leftover in removed:
        leftover.remove()
    findings = list(examine())
    if as_json:
        document = {
            "schema": "netsim.doctor/1",
            "findings": [asdict(finding) for finding in findings],
            "leftovers": [asdict(leftover) for leftover in left],
            "removed": bool(removed),
        }
        say_json(json.dumps(document, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    from netsim.report.terminal import print_table, wide_console

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for finding in findings:
        remedy = f" ({finding.remedy})" if finding.remedy else ""
        table.add_row(finding.name, finding.state, escape(finding.found + remedy))
    console = wide_console()
    with reader_may_go():
        print_table(console, table)
        for leftover in left:
            state = "removed" if removed else "left behind"
            console.print(escape(f"{state}: {leftover.what} {leftover.name}"), highlight=False)
        if left and not removed:
            console.print("netsim doctor --clean removes what killed runs left behind", highlight=False)
        elif not left:
            console.print("nothing was left behind by killed runs", highlight=False)
