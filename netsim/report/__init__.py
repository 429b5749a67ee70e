"""Reports: one self-contained HTML file, with every table as CSV and JSON lines beside it.

A study fills a :class:`Document`, which :func:`netsim.report.page.write_report` writes. :mod:`netsim.report.drawing`
turns plain data into SVG pictures, and :mod:`netsim.report.terminal` prints a report as text. No module of this room
runs a simulation.
"""

from netsim.report.document import Document, Figure, Section, Table, TableCell

__all__ = ["Document", "Figure", "Section", "Table", "TableCell"]
