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
    """Say what this machine can do, and find what runs that were killed left behind."""
    from netsim.testbed.doctor import examine, leftovers

    left = leftovers()
    removed = left if clean else []
    for each in removed:
        each.remove()
    findings = list(examine())
    if as_json:
        document = {
            "schema": "netsim.doctor/1",
            "findings": [asdict(finding) for finding in findings],
            "leftovers": [asdict(each) for each in left],
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
        for each in left:
            console.print(
                escape(f"{'removed' if removed else 'left behind'}: {each.what} {each.name}"), highlight=False
            )
        if left and not removed:
            console.print("netsim doctor --clean removes what killed runs left behind", highlight=False)
        elif not left:
            console.print("nothing was left behind by killed runs", highlight=False)
