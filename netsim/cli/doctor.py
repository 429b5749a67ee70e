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
    from netsim.report.text import Column, print_lines, print_table, stdout_console

    columns = [
        Column("", [finding.name for finding in findings], "label"),
        Column("", [finding.state for finding in findings], "label"),
        Column("", [f"{each.found} ({each.remedy})" if each.remedy else each.found for each in findings], "text"),
    ]
    state = "removed" if removed else "left behind"
    lines = [f"{state}: {leftover.what} {leftover.name}" for leftover in left]
    if left and not removed:
        lines.append("netsim doctor --clean removes what killed runs left behind")
    elif not left:
        lines.append("nothing was left behind by killed runs")
    console = stdout_console()
    with reader_may_go():
        print_table(console, columns, keys=2)
        print_lines(console, lines)
