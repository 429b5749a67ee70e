"""Users' own algorithms: classes named ``FILE.py:CLASS`` or ``package.module:CLASS``, or given from Python.

Every parameter of the class's constructor with a number, text or truth value as its default is an option, as in
``./mine.py:Mine:beta=0.9``, besides the options that the class declares.
"""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

from netsim._util.errors import UsageError, shown
from netsim._util.options import Kind, Number, OnOff, Option, Text, Whole
from netsim._util.user_code import imported, name_of_object, own_parts, short
from netsim.training.algorithm import Algorithm

SUPPLIED = ("selector", "momentum_correction", "seed", "bucket", "groups", "shapes")
"""Constructor parameters whose values come from other options of an experiment."""
KINDS: dict[type, Kind] = {
    bool: OnOff(),
    int: Whole(),
    float: Number(math.isfinite, "a finite number, such as 0.1"),
    str: Text(),
}
"""The kind of an option by the type of its default."""
_named: dict[str, type[Algorithm]] = {}
_from_python: set[str] = set()


def class_named(name: str) -> type[Algorithm]:
    """Return the class of a name that was loaded; load it otherwise."""
    return _named[name] if name in _named else load_class(name)


def load_class(name: str) -> type[Algorithm]:
    """Import the class that a user named, again if its file changed; raise UsageError if it is no algorithm."""
    if name not in _from_python:
        _named[name] = checked_class(name, imported("algorithm", name, "FILE.py:CLASS or package.module:CLASS"))
    return _named[name]


def own_classes() -> tuple[type[Algorithm], ...]:
    """Return the users' classes that were loaded."""
    return tuple(_named.values())


def checked_class(name: str, found: Any) -> type[Algorithm]:
    """Return `found` if it is an algorithm; otherwise raise UsageError that names the rule, the file and the line."""
    subject = f"algorithm {name!r}"
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        what = f"class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise UsageError(f"{subject} is {what}; expected a subclass of netsim.training.algorithm.Algorithm")
    if found.exchange is Algorithm.exchange and found.step is Algorithm.step:
        raise UsageError(f"{subject}{place_of(found)}: it has no exchange; define async def exchange(...)")
    for method in (found.exchange, found.step):
        if not inspect.iscoroutinefunction(method):
            raise UsageError(
                f"{subject}{place_of(method)}: {method.__name__} is not a coroutine; write async def {method.__name__}"
            )
    if "selector" in inspect.signature(found.__init__).parameters and not found.sparse:
        raise UsageError(f"{subject}{place_of(found)}: it takes a selector, which only `sparse = True` has; add that")
    return found


def place_of(definition: Any) -> str:
    """Return " (FILE:LINE)" for a class or function; empty text if its source is not available."""
    try:
        definition = inspect.unwrap(definition)
        return f" ({short(inspect.getsourcefile(definition) or '')}:{inspect.getsourcelines(definition)[1]})"
    except (OSError, TypeError):
        return ""


def options_of(kind: type[Algorithm]) -> tuple[Option, ...]:
    """Return the options of a user's class: those that it declares, and parameters of its constructor."""
    names = {option.name for option in kind.options} | set(SUPPLIED)
    if "group_size" in names:
        names.add("groups")
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    derived = [
        Option(KINDS[type(each.default)], each.default, _described(kind, each.name), name=each.name)
        for each in parameters
        if each.name not in names and type(each.default) in KINDS
    ]
    return (*kind.options, *derived)


def _described(kind: type[Algorithm], parameter: str) -> str:
    """Return what the docstring of a class says about a parameter, in numpydoc's form; empty text without a word."""
    lines = re.search(rf"^{parameter}(?: *:.*)?\n((?: +.*\n?)+)", inspect.getdoc(kind) or "", re.MULTILINE)
    return " ".join(lines[1].split()) if lines else ""


def text_of(given: type[Algorithm] | Algorithm, registered: str | None) -> str:
    """Return the text that names a class or an object from Python, so that it serves as a name does.

    Parameters
    ----------
    given
        The class, or an object of it.
    registered
        The name under which the class is registered, if it is.

    Raises
    ------
    UsageError
        For an object that was given what no text can name.
    """
    kind = given if isinstance(given, type) else type(given)
    name = registered or name_of_object(kind)
    if registered is None and _named.get(name) is not kind:
        _named[name] = checked_class(name, kind)
        _from_python.add(name)
    if isinstance(given, type):
        return name
    args, kwargs = given.arguments
    values = inspect.signature(kind.__init__).bind(given, *args, **kwargs).arguments
    options = {option.name: option for option in options_of(kind)}
    items = []
    for parameter, value in list(values.items())[1:]:
        if parameter not in options:
            raise UsageError(
                f"{kind.__name__}({parameter}={shown(value)}): an object's arguments are numbers, texts or truth "
                f"values that have a default; give {parameter} one, or give the class"
            )
        if (value := options[parameter].read(value)) != options[parameter].default:
            written = repr(value) if isinstance(value, float) else options[parameter].kind.write(value)
            items.append(f"{options[parameter].key}={written}")
    return f"{name}:{','.join(items)}" if items else name


def check_for_ranks(text: str) -> None:
    """Raise UsageError for a class that no other process can import."""
    name, _ = own_parts(text) or ("", "")
    if "<locals>" in name or name.startswith("__main__:"):
        raise UsageError(
            f"algorithm {name!r} cannot be imported by the ranks of a real run; define it at the top level of a file"
        )
