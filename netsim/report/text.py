"""Text for a terminal: lines that are broken between words, and tables whose cells are whole at every width."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console

UNLIMITED = 10_000
"""Columns of output to a file or pipe: lines are not broken there."""
NARROWEST = 40
"""The least columns that output is laid out for."""
BETWEEN_PARTS = "   "
LEAST_TEXT = 24
"""The least columns for a column of text, unless its text is shorter."""

_UNIT = re.compile(r"(?<=\d) (?=(?:[kMGT]?(?:bit/s|B/s|B)|[mµnp]?s|%)(?!\w))|(?<=P) (?==)|(?<=P =) (?=\d)")
"""Spaces where no line is broken: between a number and its unit, and in P = 8."""
_GLUE = "\N{NO-BREAK SPACE}"


def listed(names: Sequence[str], last: str = " and ") -> str:
    """Return names as one text; semicolons separate them if a name contains a comma.

    >>> listed(["dense", "gTop-k", "Top-k"]), listed(["mine, with commas", "gTop-k"], last="")
    ('dense, gTop-k and Top-k', 'mine, with commas; gTop-k')
    """
    between = "; " if any(", " in name for name in names) else ", "
    return between.join(names) if not last else last.join(filter(None, [between.join(names[:-1]), names[-1]]))


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, which the command line handles, instead of exiting here."""
        raise BrokenPipeError


def stdout_console() -> Console:
    """Return a console on stdout, as wide as the terminal or as COLUMNS says; a file or pipe breaks no line."""
    console = _Console()
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return _Console(width=UNLIMITED)


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """Return the lines of a text, broken between words, but not between a number and its unit.

    Parts of the text that three spaces separate stay whole if they fit into a line. A word longer than `width` gets a
    line of its own, so that a path can be copied. Later lines begin with `indent`.

    >>> wrapped("The link carries 10 GB to 3 hosts.", 20)
    ['The link carries', '  10 GB to 3 hosts.']
    """
    if len(text) <= width:
        return [text]
    parts = text.split(BETWEEN_PARTS)
    glued = BETWEEN_PARTS.join(
        part.replace(" ", _GLUE) if len(parts) > 1 and len(part) <= width - len(indent) else _UNIT.sub(_GLUE, part)
        for part in parts
    )
    lines = textwrap.wrap(
        glued, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return [line.replace(_GLUE, " ") for line in lines]


def print_lines(console: Console, lines: Iterable[str], indent: str = "  ") -> None:
    """Print each line, broken between words where the console is too narrow; later parts begin with `indent`."""
    for line in lines:
        for part in wrapped(line, max(console.width, NARROWEST), indent):
            console.out(part, highlight=False)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table for a terminal.

    Attributes
    ----------
    name
        The header, of one or several lines.
    cells
        A text for each row.
    kind
        A "number" is aligned to the right and never broken. A "label" is broken only if it is one of the columns that
        each block begins with. A "text" is broken where it is longer than the rest of its block.
    """

    name: str
    cells: Sequence[str]
    kind: Literal["number", "label", "text"] = "number"

    def laid_out(self, width: int) -> list[list[str]]:
        """Return the lines of the header and of each cell, where a line has at most `width` characters."""
        if self.kind == "number":
            return [self.name.split("\n"), *([cell] for cell in self.cells)]
        return [_folded(text, width) for text in (self.name, *self.cells)]

    @property
    def width(self) -> int:
        """The characters of the longest line, if none is broken."""
        return max(cell_len(line) for lines in self.laid_out(UNLIMITED) for line in lines)


def _folded(text: str, width: int) -> list[str]:
    """Return the lines of a text; only a word that is longer than `width` is broken."""
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    return lines or [""]


def print_table(console: Console, columns: Sequence[Column], keys: int = 1, bold: Collection[int] = ()) -> None:
    """Print a table. If it is wider than the console, its columns are printed in several blocks.

    Parameters
    ----------
    console
        Where to print.
    columns
        The columns from left to right.
    keys
        Each block begins with this number of first columns, which say what a row is about. They take at most half of
        the width; longer cells are broken.
    bold
        The rows in bold.
    """
    width = max(console.width, NARROWEST)
    first, rest = columns[:keys], columns[keys:]
    widths = [column.width for column in first]
    while sum(widths) + 2 * keys > width // 2:
        widths[widths.index(max(widths))] -= 1
    key_blocks = [column.laid_out(most) for column, most in zip(first, widths, strict=True)]
    left = width - sum(widths) - 2 * keys
    blocks: list[list[Column]] = [[]]
    room = left
    for column in rest:
        need = min(column.width, LEAST_TEXT) if column.kind == "text" else column.width
        if need > room and blocks[-1]:
            blocks.append([])
            room = left
        blocks[-1].append(column)
        room -= need + 2
    for index, block in enumerate(blocks):
        if index:
            console.out("")
        fixed = sum(column.width + 2 for column in block if column.kind != "text")
        cells = [column.laid_out(left - fixed if column.kind == "text" else column.width) for column in block]
        kinds = [*("label" for _ in first), *(column.kind for column in block)]
        _print_block(console, [*key_blocks, *cells], kinds, bold)


def _print_block(
    console: Console, columns: Sequence[list[list[str]]], kinds: Sequence[str], bold: Collection[int]
) -> None:
    """Print columns of laid out cells side by side; the headers are aligned at their last lines."""
    widths = [max(cell_len(line) for lines in column for line in lines) for column in columns]
    for row, cells in enumerate(zip(*columns, strict=True)):
        height = max(map(len, cells))
        empty = [[""] * (height - len(lines)) for lines in cells]
        padded = [more + lines if row == 0 else lines + more for lines, more in zip(cells, empty, strict=True)]
        for line in zip(*padded, strict=True):
            texts = (
                " " * (width - cell_len(text)) + text if kind == "number" else text + " " * (width - cell_len(text))
                for text, width, kind in zip(line, widths, kinds, strict=True)
            )
            style = "bold" if row == 0 or row - 1 in bold else None
            if any(line):
                console.out("  ".join(texts).rstrip(), style=style, highlight=False)
