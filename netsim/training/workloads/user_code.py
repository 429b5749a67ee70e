"""Errors of user code, reported in one line with file and line number."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from netsim._util.errors import NetsimError, UsageError, text_of


@contextmanager
def blaming(workload: str, what: str, hint: str = "") -> Iterator[None]:
    """Turn any error in the block into a UsageError with the workload, `what` failed, and the place in the code."""
    try:
        yield
    except NetsimError:
        raise
    except (Exception, SystemExit) as error:  # an imported script may call sys.exit
        cause = f"{type(error).__name__} ({text_of(error)})"
        raise UsageError(f"workload {workload}: {cause} in {what}{where(error)}{hint}") from error


def where(error: BaseException) -> str:
    """Return ", at FILE:LINE" for the innermost line of user code in the traceback; empty text without one."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f", at {_short(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith("<") and not _is_library(frame.filename):
            return f", at {_short(frame.filename)}:{frame.lineno}"
    return ""


def _short(filename: str) -> str:
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _is_library(filename: str) -> bool:
    path = Path(filename)
    packages, standard = _libraries()
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    return any(map(path.is_relative_to, packages)) or (path.is_relative_to(standard) and not installed)


@cache
def _libraries() -> tuple[list[Path], Path]:
    """Return the folders of netsim, torch and NumPy, and of the standard library."""
    specs = [find_spec(name) for name in ("netsim", "torch", "numpy")]
    packages = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return packages, Path(sysconfig.get_path("stdlib"))
