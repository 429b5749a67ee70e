"""Reads CSV files as spreadsheets and other programs write them."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from netsim._util.errors import UsageError
from netsim._util.storage import content_of

_COMMENT = re.compile(r"\s*#(?:[\w\s]|$)")


def csv_rows(path: Path, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line, and the stripped cells, of every row that is not empty.

    The file is UTF-8, or UTF-16 if it begins with a byte-order mark. Cells are separated by commas, semicolons or tabs:
    the character that the first line has most of. Lines that begin with ``#`` and a space or a letter are comments.

    Raises
    ------
    UsageError
        For a file that cannot be read; `where` begins its message.
    """
    content = content_of(path, where)
    try:
        text = content.decode(
            "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        )
        lines = ["\n" if _COMMENT.match(line) else line for line in io.StringIO(text, newline="")]
        header = next((line for line in lines if line.strip()), "")
        reader = csv.reader(lines, strict=True, delimiter=max(",;\t", key=header.count))
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not {error.encoding} text at byte {error.start:,}; save it as UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{where} cannot be read as CSV: {error}; save it as CSV again") from None
