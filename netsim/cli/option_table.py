"""The README's table of the options of ``netsim simulate``, written from their declarations.

``python -m netsim.cli.option_table README.md`` writes the table anew between the two markers in the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from netsim._util.storage import write_atomically
from netsim.cli.app import app
from netsim.cli.options import ALGORITHMS_OWN, of_algorithms

BEGIN, END = "<!-- options: python -m netsim.cli.option_table README.md -->", "<!-- /options -->"


def table() -> str:
    """Return the table in Markdown: one row per option, under the headings of ``netsim simulate --help``."""
    command: Any = typer.main.get_command(app)
    panels: dict[str, list[tuple[str, str]]] = {}
    for each in command.commands["simulate"].params:
        panels.setdefault(each.rich_help_panel, []).append((f"{each.opts[0]}", each.help))
    panels[ALGORITHMS_OWN] = [(key.partition("=")[0] + "=", text) for key, text in of_algorithms()]
    rows = [row for panel, options in panels.items() for row in _rows(panel, options)]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])


def _rows(panel: str, options: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| **{panel}** | | |"
    for flag, text in options:
        meaning, _, usual = text.removesuffix("]").partition(" [default: ")
        yield f"| `{flag}` | {meaning} | {usual} |".replace("  |", " |")


def with_table(text: str) -> str:
    """Return a document with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_atomically(path, with_table(path.read_text()))
