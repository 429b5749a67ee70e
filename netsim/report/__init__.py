"""Reports: one HTML file that needs nothing else, with the tables as CSV and JSON lines beside it.

A study fills a :class:`Document` and calls :func:`write_report`. Pictures are drawn by :mod:`netsim.report.drawing`
from plain data; nothing in here simulates.
"""

from netsim.report.document import Document, Figure, Section, Table, TableCell
from netsim.report.page import write_report

__all__ = ["Document", "Figure", "Section", "Table", "TableCell", "write_report"]
