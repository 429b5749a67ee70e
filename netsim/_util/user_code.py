"""A user's own code: the text that names it, its import, and the file and line of its errors.

Own code is named ``FILE.py:NAME`` or ``package.module:NAME``. Only the command line and Python may name it: reading a
file of settings must run no code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from netsim._util.errors import NetsimError, UsageError, suggestion, text_of
from netsim._util.interrupts import is_interrupt

_OWN = re.compile(r"((?:[^:]*\.py|[^\W\d]\w*(?:\.\w+)*):[^\W\d][\w.<>]*)(?::(.*))?", re.DOTALL)
_files: dict[Path, tuple[int, ModuleType]] = {}
_importing: list[str] = []


def own_parts(text: str) -> tuple[str, str] | None:
    """Return the name in a text that names own code, and what follows the name; None for any other text.

    >>> own_parts("./mine.py:Mine:beta=0.9"), own_parts("package.module:Mine"), own_parts("topk:gather=bruck")
    (('./mine.py:Mine', 'beta=0.9'), ('package.module:Mine', ''), None)
    """
    found = _OWN.fullmatch(text)
    return None if found is None else (found[1], found[2] or "")


def imported(kind: str, name: str, example: str) -> Any:
    """Import the object that a user named; a file that changed since it was imported is imported anew.

    A module is searched among installed packages, then in the current folder.

    Parameters
    ----------
    kind
        What the object is, for errors: "algorithm".
    name
        ``FILE.py:NAME`` or ``package.module:NAME``.
    example
        What the user could have written, for errors.

    Raises
    ------
    UsageError
        If there is no such file, module or object, or if importing it fails.
    """
    place, _, attribute = name.rpartition(":")
    subject = f"{kind} {name!r}"
    with _import_of(name), redirect_stdout(sys.stderr), blaming(subject, "importing it", f"; expected {example}"):
        found: Any = _module_of_file(subject, Path(place)) if place.endswith(".py") else _module(place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = suggestion(part, vars(found)) if hasattr(found, "__dict__") else ""
            raise UsageError(f"{subject}: {place} has no attribute {part!r}{near}; expected {example}")
        found = getattr(found, part)
    return found


def name_of_object(found: Any) -> str:
    """Return the name of a class or function: ``module:NAME``, or ``FILE.py:NAME`` outside importable modules."""
    file = getattr(sys.modules.get(found.__module__), "__file__", None) or ""
    alone = not all(map(str.isidentifier, found.__module__.split(".")))
    if alone or (found.__module__ == "__main__" and file.endswith(".py")):
        return f"{file}:{found.__qualname__}"
    return f"{found.__module__}:{found.__qualname__}"


def _module(name: str) -> ModuleType:
    _search(os.getcwd())  # noqa: PTH109 (a string, as sys.path holds)
    return importlib.import_module(name)


def _module_of_file(subject: str, path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise UsageError(f"{subject}: file {short(str(path))} was not found; give the path of a Python file")
    changed = path.stat().st_mtime_ns
    if path in _files and _files[path][0] == changed:
        return _files[path][1]
    _search(str(path.parent))
    name = f"{path.stem}@{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[path] = changed, module
    return module


def _search(folder: str) -> None:
    """Search a folder for modules, after all others."""
    if folder not in sys.path:
        sys.path.append(folder)


@contextmanager
def _import_of(name: str) -> Iterator[None]:
    _importing.append(name)
    try:
        yield
    finally:
        _importing.pop()


def check_not_imported(call: str) -> None:
    """Raise UsageError if own code that is being imported calls netsim, which would import the code again."""
    if _importing:
        raise UsageError(
            f"{call} was called while netsim imports {_importing[-1]!r}; call it under if __name__ == '__main__':"
        )


def plugin_points(group: str) -> list[Any]:
    """Return the entry points of installed packages in a group."""
    return list(_entry_points().select(group=group))


@cache
def _entry_points() -> Any:
    return importlib.metadata.entry_points()


def plugins(group: str) -> Iterator[tuple[str, Any, UsageError | None]]:
    """Yield the objects that installed packages register as entry points: name, object, and None or why it failed."""
    for point in plugin_points(group):
        try:
            with redirect_stdout(sys.stderr), blaming(f"{group} {point.name!r}", f"importing {point.value}"):
                found = point.load()
        except UsageError as error:
            yield point.name, None, error
        else:
            yield point.name, found, None


@contextmanager
def blaming(subject: str, what: str, hint: str = "") -> Iterator[None]:
    """Turn any error in the block into a UsageError: `subject`, the error in `what`, and its place in the code."""
    try:
        yield
    except NetsimError:
        raise
    except (Exception, SystemExit) as error:  # an imported script may call sys.exit
        if is_interrupt(error):
            raise KeyboardInterrupt from error
        cause = f"{type(error).__name__} ({text_of(error)})"
        raise UsageError(f"{subject}: {cause} in {what}{where(error)}{hint}") from error


def where(error: BaseException) -> str:
    """Return ", at FILE:LINE" for the innermost line of user code in the traceback; empty text without one."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f", at {short(error.filename)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_users_file(frame.filename):
            return f", at {short(frame.filename)}:{frame.lineno}"
    return ""


def short(filename: str) -> str:
    """Return the name of a file, relative to the current folder if the file lies below it."""
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


@lru_cache(maxsize=4096)
def is_users_file(filename: str) -> bool:
    """Return whether a file holds a user's code, rather than netsim's, a numerical library's or Python's."""
    path = Path(filename)
    packages, standard = _libraries()
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    library = any(map(path.is_relative_to, packages)) or (path.is_relative_to(standard) and not installed)
    return not filename.startswith("<") and not library


@cache
def _libraries() -> tuple[list[Path], Path]:
    """Return the folders of netsim's packages, torch and NumPy, and of the standard library."""
    specs = [find_spec(name) for name in ("netsim", "algorithms", "topologies", "torch", "numpy")]
    packages = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin is not None]
    return packages, Path(sysconfig.get_path("stdlib"))
