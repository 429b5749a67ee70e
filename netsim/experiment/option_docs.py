"""Options in the documentation of functions that take them: a section of the docstring, and the signature."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from netsim._util.options import Option, declared
from netsim.experiment.command_options import COMMANDS
from netsim.experiment.given import PANELS

OptionTaker = TypeVar("OptionTaker", bound=Callable[..., Any])
RETURNS = "\n    Returns\n    -------\n"
WIDTH = 112
"""Columns of the section, which is indented."""


def takes_options(
    *names: str, without: tuple[str, ...] = (), changed: Mapping[str, Mapping[str, Any]] | None = None
) -> Callable[[OptionTaker], OptionTaker]:
    """List declared options in the docstring and the signature of a function that takes them as ``**options``.

    Parameters
    ----------
    names
        Headings, with all options below them, or names of single options.
    without
        Options to leave out.
    changed
        Attributes of declarations, such as the help, that differ here.

    ``**options`` of the function then leaves its signature. Keyword arguments of another name stay there.
    """

    def decorate(function: OptionTaker) -> OptionTaker:
        parameters = inspect.signature(function).parameters.values()
        own = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
        more_keywords = [each for each in parameters if each.kind is each.VAR_KEYWORD and each.name != "options"]
        left_out = {*without, *(each.name for each in own)}
        kept = [each for each in _declared(names) if each.name not in left_out]
        options = [replace(each, **(changed or {}).get(each.name, {})) for each in kept]
        if function.__doc__:  # python -OO has none
            function.__doc__ = function.__doc__.replace(RETURNS, f"\n{_section(options)}{RETURNS}", 1)
        more = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.kind.in_python
            )
            for each in options
        ]
        function.__signature__ = inspect.signature(function).replace(parameters=[*own, *more, *more_keywords])  # type: ignore[attr-defined]
        return function

    return decorate


def _declared(names: tuple[str, ...]) -> Iterator[Option]:
    for panel, group in PANELS.items():
        for each in declared(group).values():
            if panel in names or each.name in names:
                yield each
    for panel, group in COMMANDS.items():
        if panel in names:
            yield from declared(group).values()


def spelled_in_python(text: str) -> str:
    """Return a help text with options spelled as in Python, but those of a command that the text names.

    >>> spelled_in_python("With --lr-decay-at, as of netsim validate --out.")
    'With `lr_decay_at`, as of netsim validate --out.'
    """
    return re.sub(
        r"(netsim [a-z]+ )?--([a-z][a-z-]*)",
        lambda found: found[0] if found[1] else f"`{found[2].replace('-', '_')}`",
        text,
    )


def _section(options: list[Option]) -> str:
    """Return the options as a section of numpydoc."""
    lines = ["Other Parameters", "----------------"]
    lay_out = textwrap.TextWrapper(WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    for each in options:
        usual = f", default {spelled_in_python(each.usual)}" if each.usual else ", optional"
        lines.append(f"{each.name} : {each.kind.in_python}{usual}")
        lines += lay_out.wrap(spelled_in_python(each.text))
    return textwrap.indent("\n".join(lines), "    ") + "\n"
