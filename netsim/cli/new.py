"""``netsim new``."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from netsim._util.errors import UsageError, check_choice, reason_of
from netsim.cli.options import Json

SCHEMA = "netsim.new/1"
KINDS = ("algorithm",)
"""What a file can be written for; each has two templates beside this module."""


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What to write: {', '.join(KINDS)}.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as mine.py.")],
    as_json: Json = False,
) -> None:
    """Write a working algorithm of your own into a file, with a test beside it, to start from."""
    from netsim._util.storage import write_atomically
    from netsim.cli.common import say_json, say_lines

    check_choice("kind", kind, KINDS)
    stem = file.stem
    if file.suffix != ".py" or not stem.isidentifier():
        raise UsageError(f"file {str(file)!r} must be the name of a Python module, such as mine.py")
    test = file.with_name(f"test_{file.name}")
    for each in (file, test):
        if each.exists():
            raise UsageError(f"file {str(each)!r} is there already; give another name")
    names = {"{Class}": "".join(part.capitalize() for part in stem.split("_")), "{stem}": stem}
    for each, template in ((file, f"new_{kind}.txt"), (test, f"new_{kind}_test.txt")):
        text = files("netsim.cli").joinpath(template).read_text(encoding="utf-8")
        for placeholder, name in names.items():
            text = text.replace(placeholder, name)
        try:
            write_atomically(each, text)
        except OSError as error:
            raise UsageError(f"file {str(each)!r} cannot be written: {reason_of(error)}; name another") from error
    name = f"{file if file.is_absolute() else f'./{file}'}:{names['{Class}']}"
    command = f"netsim simulate --algorithm {name},gtopk"
    if as_json:
        document = {"schema": SCHEMA, "kind": kind, "files": [str(file), str(test)], "command": command}
        say_json(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        say_lines([f"{file} and {test} are written. Try:", command])
