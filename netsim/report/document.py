"""The parts of a report as plain values: document, sections, figures and tables.

The parts hold text and numbers only. Any program can fill them, and writing a report never runs a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

TableCell: TypeAlias = str | int | float | bool | None
"""A table's entry; None is shown as a dash."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with its title.

    Attributes
    ----------
    caption
        What the picture shows; screen readers read it in place of the picture.
    svg
        The picture, as a function of :mod:`netsim.report.drawing` returned it.
    provenance
        The source of the numbers, such as "SIMULATED, compute ASSUMED", "MEASURED" or "PUBLISHED".
    """

    title: str
    caption: str
    svg: str
    provenance: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with one cell per column in every row.

    The name of a column of quantities ends with its unit, as in "round (s)". The files beside the report hold the cells
    in full precision; the page rounds numbers to four or five digits.

    Raises
    ------
    ValueError
        If a row has more or fewer cells than there are columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    provenance: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: a row has {len(row)} cells, but there are {len(self.columns)} "
                    f"columns: {row!r}"
                )


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report under a heading. `text` is plain paragraphs, separated by empty lines, without markup."""

    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report, in reading order: the conclusion comes first.

    Attributes
    ----------
    conclusion
        The results in sentences. The first is the headline, of two or three lines.
    sections
        Figures and tables under their headings. The first figure is shown below the headline, and everything else on
        demand.
    limits
        One sentence for each assumption and each omission.
    reproduce
        What is needed to repeat the study, by name: "command", "version", "seed", "hardware".
    setting
        The thoroughness of the study, such as "quick setting"; shown at the title and at every picture and table.
    """

    title: str
    conclusion: Sequence[str]
    sections: Sequence[Section]
    limits: Sequence[str] = ()
    reproduce: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""
