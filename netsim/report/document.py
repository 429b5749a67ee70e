"""What a report is made of: plain values, so that anything can fill it and nothing in it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

TableCell: TypeAlias = str | int | float | bool | None
"""A table's entry; None is shown as a dash."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture. `caption` says what to see in it, for those who cannot see it, too.

    `svg` is what a function of :mod:`netsim.report.drawing` returned; `provenance` where the numbers come
    from, such as "SIMULATED, compute ASSUMED", "MEASURED" or "PUBLISHED".
    """

    title: str
    caption: str
    svg: str
    provenance: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; a column of quantities names its unit, as in "round (s)".

    The files beside the report hold the cells as they are; the page shows numbers to four or five digits.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    provenance: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r}: a row has {len(row)} cells, but there are {len(self.columns)} "
                                 f"columns: {row!r}")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report under a heading. `text` is paragraphs, separated by empty lines; no markup."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report, in the order in which it is read: what was found comes first.

    `limits` says what was assumed and left out, a sentence each. `reproduce` maps what somebody needs to
    get the same again (such as "command", "version", "seed", "hardware") to its value. `setting` says how thoroughly
    it was looked, such as "quick setting", and stands at the title and at every picture and table.
    """

    title: str
    conclusion: Sequence[str]
    sections: Sequence[Section]
    limits: Sequence[str] = ()
    reproduce: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""
