"""The documentation's tables of options, algorithms and DDP hooks, written from their declarations.

``python -m netsim.cli.doc_tables docs/options.md docs/algorithms.md docs/ddp.md`` writes the tables of these pages.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from algorithms import ALGORITHMS, BUILT_IN
from netsim._util.storage import write_atomically
from netsim.cli import paper_counts
from netsim.cli.app import app
from netsim.cli.options import ALGORITHMS_OWN, of_algorithms

BEGIN = re.compile(
    r"<!-- (options of [a-z]+|algorithms|counts|hooks): python -m netsim.cli.doc_tables docs/[a-z]+.md -->"
)
END = "<!-- /table -->"


def table(name: str) -> str:
    """Return a table in Markdown: "algorithms", "counts" of bytes, "hooks", or "options of" a command."""
    if name == "counts":
        return paper_counts.table()
    if name == "hooks":
        return _of_hooks()
    return _of_algorithms() if name == "algorithms" else _of_options(name.removeprefix("options of "))


def _of_algorithms() -> str:
    """Return the table of algorithms: one row for each that is registered here."""
    rows = [
        f"| `{name}` | {kind.exchanges} | {kind.sends} | {kind.convergence} |"
        for name, kind in ALGORITHMS.items()
        if name in BUILT_IN
    ]
    return "\n".join(["| algorithm | exchange | what is sent | kind of step |", "|---|---|---|---|", *rows])


def _of_hooks() -> str:
    """Return the table of algorithms as DDP hooks: those that fit, and for each reason those that do not."""
    from netsim.ddp.register import why_no_hook

    names: dict[str, list[str]] = {}
    for name in filter(BUILT_IN.__contains__, ALGORITHMS):
        names.setdefault(why_no_hook(name) or "", []).append(f"`{name}`")
    fitting = ", ".join(names.pop(""))
    rows = [f"| {', '.join(refused)} | no, because {why} |" for why, refused in names.items()]
    return "\n".join(["| algorithm | as a hook |", "|---|---|", f"| {fitting} | yes |", *rows])


def _of_options(name: str) -> str:
    """Return the table of a command's options: one row per option, under the headings of the command's help."""
    group: Any = typer.main.get_command(app)
    panels: dict[str, list[tuple[str, str]]] = {}
    for each in group.commands[name].params:
        if each.param_type_name == "option":
            panels.setdefault(each.rich_help_panel, []).append((f"{each.opts[0]}", each.help))
    if name == "simulate":
        panels[ALGORITHMS_OWN] = [(key.partition("=")[0] + "=", text) for key, text in of_algorithms()]
    rows = [row for panel, options in panels.items() for row in _rows(panel, options)]
    return "\n".join(["| option | meaning | default |", "|---|---|---|", *rows])


def _rows(panel: str, options: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| **{panel}** | | |"
    for flag, text in options:
        meaning, _, usual = text.removesuffix("]").partition(" [default: ")
        yield f"| `{flag}` | {meaning} | {usual} |".replace("  |", " |")


def with_tables(text: str) -> str:
    """Return a document with each table between its markers."""
    before, *parts = BEGIN.split(text)
    begun = BEGIN.finditer(text)
    for name, part, begin in zip(parts[::2], parts[1::2], begun, strict=True):
        before += f"{begin[0]}\n\n{table(name)}\n\n{END}{part.partition(END)[2]}"
    return before


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        write_atomically(path, with_tables(path.read_text()))
