"""The documentation as a site: pip install -e ".[docs]" && sphinx-build -W --keep-going docs out/site."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import netsim
from netsim.cli.app import app as command_line
from netsim.comm import collectives

DOCS = Path(__file__).parent

project, author = "netsim", "The netsim contributors"
release = netsim.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["cluster"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "netsim"
smartquotes = False  # which would make one dash of the two of an option
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"

OUTSIDE = re.compile(r"\[([^\]]*)\]\(([^):#]+)(#[^)]*)?\)")
"""A link to a file."""


def named(page: Path, text: str) -> str:
    """Name the files of the repository that the site does not have, instead of linking to them."""

    def name(link: re.Match[str]) -> str:
        target = (page.parent / link[2]).resolve()
        inside = target.is_relative_to(DOCS) and target.relative_to(DOCS).parts[0] not in exclude_patterns
        if inside or not target.exists():
            return link[0]
        path = f"`{target.relative_to(DOCS.parent)}`"
        return path if link[1].strip("`") in path else f"{link[1]} ({path})"

    return OUTSIDE.sub(name, text)


def commands() -> str:
    """Return the reference of all commands and their options, from their declarations."""
    root: Any = typer.main.get_command(command_line)
    return "\n".join(["# Commands and options", "", root.help, "", *_command("netsim", root, 2)])


def _command(name: str, command: Any, level: int) -> Iterator[str]:
    for sub, each in getattr(command, "commands", {}).items():
        if each.hidden:
            continue
        yield from (f"{'#' * level} {name} {sub}", "", each.help or "", "")
        if options := [option for option in each.params if not getattr(option, "hidden", False)]:
            yield from ("| option | meaning |", "|---|---|")
            yield from (f"| `{_names(option)}` | {_meaning(option)} |" for option in options)
            yield ""
        yield from _command(f"{name} {sub}", each, level + 1)


def _names(option: Any) -> str:
    return ", ".join(option.opts) if option.param_type_name == "option" else str(option.name).upper()


def _meaning(option: Any) -> str:
    return " ".join((getattr(option, "help", None) or "").replace("|", "\\|").replace("[", "\\[").split())


def python() -> str:
    """Return the reference of the public names, from their docstrings."""
    users = [f"netsim.{name}" for name in netsim.__all__] + ["netsim.ddp.register"]
    authors = [*OF_AUTHORS, *(f"netsim.comm.collectives.{name}" for name in collectives.__all__)]
    return "\n".join(["# Python", "", PYTHON, *_entries(users), AUTHORS, *_entries(authors)])


def _entries(names: list[str]) -> Iterator[str]:
    yield "```{eval-rst}"
    for name in names:
        thing = pkgutil.resolve_name(name)
        if isinstance(thing, type):
            yield from (f".. autoclass:: {name}", "   :members:", "")
        elif callable(thing):
            yield from (f".. autofunction:: {name}", "")
    yield from ("```", "")


PYTHON = """\
Options have the names of the command line, with `_` for `-`: `--timing-only` is `timing_only=True`. Quantities are
numbers in SI units (bit/s, seconds, bytes) or text with a unit (`"1Gbps"`, `"50us"`).
"""
AUTHORS = """\
## For authors of algorithms

[Your own algorithm](../own-algorithm.md) derives from `Algorithm`, awaits requests of a `Worker`, and calls
collectives.
"""
OF_AUTHORS = (
    "netsim.training.algorithm.Algorithm",
    "netsim.comm.worker.Worker",
    "netsim.comm.payload.Dense",
    "netsim.comm.payload.Sparse",
    "netsim.comm.payload.SizeOnly",
    "netsim.comm.payload.size_rule",
)


def setup(app: Any) -> None:
    """Write the generated pages, and mend links as pages are read."""
    (DOCS / "reference").mkdir(exist_ok=True)
    (DOCS / "reference" / "commands.md").write_text(commands())
    (DOCS / "reference" / "python.md").write_text(python())

    def read(_: Any, document: str, source: list[str]) -> None:
        source[0] = named(Path(app.env.doc2path(document)), source[0])

    def literal(*event: Any) -> None:
        """Show a name that ends with an underscore as code; docutils takes it for a link."""
        lines = event[-1]
        lines[:] = [re.sub(r"(?<![\w`])(\w+_)(?![\w`])", r"``\1``", line) for line in lines]

    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", literal)
