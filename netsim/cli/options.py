"""The command line's options: made from the declarations of :data:`netsim.experiment.given.PANELS` and of commands.

A command says with :func:`takes` which declared options it has, and receives those that were given as ``**options``,
under the names that :meth:`netsim.experiment.configuration.Experiment.of` takes. What only one command has is a
parameter of its function, described by :func:`option`.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer
from typer.core import TyperCommand
from typer.main import get_command

from netsim._util.errors import UsageError
from netsim._util.options import Kind, Number, OnOff, Option, Whole

VALUE = r"(?= (?:['\"\d−-]|nan\b|inf\b|was given|is missing|must be))"
"""What follows the name of an option in an error that is about the option."""
Function = TypeVar("Function", bound=Callable[..., None])
ALGORITHMS_OWN = "Options of one algorithm (--algorithm NAME:KEY=VALUE)"
COMMON = "Common options"
"""The first heading: the options that most users need."""
OPTIONS = "Options"
"""The last heading: the other options of one command."""
OUTPUT = "Output"
"""The heading of options that say where results go."""
NAMES_WIDTH = 30
"""The most columns of the help for names of options; the text of a longer name begins on the next line."""


def option(text: str, *names: str, panel: str = OPTIONS, metavar: str = "TEXT", **others: Any) -> Any:
    """Return the description of an option; its name is the parameter's unless `names` says otherwise."""
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar, **others)


def parser(kind: Kind) -> Callable[[str], Any]:
    """Return the function that parses the text of an option, for :func:`option`."""

    def parse(text: Any) -> Any:
        try:
            return kind.parse(str(text))  # typer hands over defaults, too
        except UsageError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


whole, number = parser(Whole()), parser(Number())


class Shared(NamedTuple):
    """The declared options of a command: `names` are headings, with all options below them, or single options.

    `defaults` are this command's own defaults; an option of `required` has no default, and one of `without` is left
    out. `changed` has attributes of declarations, such as the help, that differ in this command.
    """

    names: tuple[str, ...]
    required: tuple[str, ...]
    without: tuple[str, ...]
    changed: Mapping[str, Mapping[str, Any]]
    defaults: Mapping[str, Any]

    def declarations(self) -> Iterator[tuple[str, Option]]:
        """Yield the heading and the declaration of each option, in the order of declaration."""
        from netsim._util.options import declared
        from netsim.experiment.command_options import COMMANDS
        from netsim.experiment.given import PANELS

        wanted = {*self.names, *self.required, *self.defaults}
        for panel, group in PANELS.items():
            for each in declared(group).values():
                if (panel in wanted or each.name in wanted) and each.name not in self.without:
                    yield panel, replace(each, **self.changed.get(each.name, {}))
        for panel, group in COMMANDS.items():
            if panel in wanted:
                yield from ((OPTIONS, each) for each in declared(group).values())

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yield the options as parameters that typer understands."""
        for panel, each in self.declarations():
            usual = self.defaults.get(each.name)
            usual = each.usual if usual is None else each.kind.write(usual)
            required = each.name in self.required
            kind: Any = bool if isinstance(each.kind, OnOff) else str | None
            text = each.text if required or not usual or kind is bool else f"{each.text} [default: {usual}]"
            more: dict[str, Any] = {} if kind is bool else {"parser": parser(each.kind), "metavar": each.kind.metavar}
            default: Any = False if kind is bool else inspect.Parameter.empty if required else None
            yield inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=Annotated[kind, option(text, each.flag, panel=COMMON if each.common else panel, **more)],
            )


def takes(
    *names: str,
    required: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    changed: Mapping[str, Mapping[str, Any]] | None = None,
    **defaults: Any,
) -> Callable[[Function], Function]:
    """Give a command the declared options under these headings or of these names, besides its own.

    It gets those that were given, and its own `defaults` of others. The parameters are those of :class:`Shared`.
    """
    shared = Shared(names, required, without, changed or {}, defaults)

    def decorate(function: Function) -> Function:
        def complete() -> Callable[..., None]:
            """Return the command with all its options as parameters."""

            def command(**given: Any) -> None:
                function(**defaults | {name: value for name, value in given.items() if value is not None})

            hints = get_type_hints(function, include_extras=True)
            own = [
                each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
                for each in inspect.signature(function).parameters.values()
                if each.kind is not inspect.Parameter.VAR_KEYWORD
            ]
            parameters = [*shared.parameters(), *own]
            command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            command.__annotations__ = {each.name: each.annotation for each in parameters}
            return command

        @wraps(function)
        def promise() -> None:
            """Stand for the command until :class:`Command` completes it."""

        del promise.__wrapped__
        promise.__annotations__ = {}
        promise.complete = complete  # type: ignore[attr-defined]
        return promise  # type: ignore[return-value]

    return decorate


def show_help(ctx: typer.Context) -> None:
    """Print the help of a group of commands where none of them was named, and exit as for a usage error.

    As in click and git: the help goes to stderr and the status is 2, so that a script that forgot its command stops.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)


class Command(TyperCommand):
    """A command that makes its options on first use, because the choices of declared options come from registries.

    ``netsim --help`` looks at no command's options, and so imports none of the registries.
    """

    @property
    def params(self) -> list[Any]:
        """The options and arguments of the command; the first look makes those that are declared."""
        if (complete := getattr(self.callback, "complete", None)) is not None:
            app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            app.command()(complete())
            made = get_command(app)
            self.callback, self._params = made.callback, made.params
        return self._params

    @params.setter
    def params(self, own: list[Any]) -> None:
        """Store the parameters that typer found."""
        self._params = own

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Its usage errors name options as they are written here, and elsewhere as in Python."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.args = (_with_flags(str(error), self.params),)
            raise

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first paragraph of the help, whatever the limit: a sentence that is cut says too little."""
        return " ".join((self.help or "").partition("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options under their headings."""
        panels: dict[str, list[Any]] = {"Arguments": []}
        for each in self.get_params(ctx):
            is_argument = each.param_type_name == "argument"
            panel = "Arguments" if is_argument else getattr(each, "rich_help_panel", None)
            if record := each.get_help_record(ctx):
                name, text = record
                panels.setdefault(panel or OPTIONS, []).append((each.name if is_argument else name, text))
        if any(each.name == "algorithm" for each in self.params):
            panels[ALGORITHMS_OWN] = [*of_algorithms(), *of_plugins()]
        last = {panel: panels.pop(panel, []) for panel in (OPTIONS, ALGORITHMS_OWN)}
        for panel, records in (panels | last).items():
            if not records:
                continue
            with formatter.section(panel):
                formatter.write(_in_columns(records, formatter.current_indent, formatter.width))


def _with_flags(message: str, params: Sequence[Any]) -> str:
    """Return an error message in which the options that it is about have their spelling on the command line."""
    from netsim._util.options import declared
    from netsim.experiment.given import PANELS

    flags = {flag.removeprefix("--"): flag for each in params for flag in each.opts if flag.startswith("--")}
    titles = {each.title: each.flag for group in PANELS.values() for each in declared(group).values() if each.title}
    flags |= {title: flag for title, flag in titles.items() if flag in flags.values()}
    names = "|".join(map(re.escape, sorted(flags, key=len, reverse=True)))
    begins = r"^both | and " if message.startswith("both ") else "^"
    return re.sub(f"({begins})({names}){VALUE}", lambda found: found[1] + flags[found[2]], message)


def _in_columns(records: Sequence[tuple[str, str]], indent: int, width: int) -> str:
    """Return names and their help in two columns; lines break at spaces only, so that no name is cut at a hyphen."""
    left = indent + min(max(len(name) for name, _ in records), NAMES_WIDTH) + 2
    written = []
    for name, text in records:
        first, *more = textwrap.wrap(text, width - left, break_on_hyphens=False, break_long_words=False) or [""]
        start = f"{'':{indent}}{name}"
        written += [f"{start:{left}}{first}"] if len(start) + 2 <= left else [start, f"{'':{left}}{first}"]
        written += [f"{'':{left}}{line}" for line in more]
    return "".join(f"{line.rstrip()}\n" for line in written)


def of_algorithms() -> list[tuple[str, str]]:
    """Return each option that algorithms declare as two texts: its key and type, and its algorithms and help."""
    from algorithms import OWN_OPTIONS, owners_of

    return [_record(each, owners_of(name)) for name, each in OWN_OPTIONS.items()]


def of_plugins() -> list[tuple[str, str]]:
    """Return each option of the algorithms of installed packages, as :func:`of_algorithms` does."""
    from algorithms import ALGORITHMS, OWN_OPTIONS, declared_by, is_users

    return [
        _record(each, [name])
        for name in ALGORITHMS
        if is_users(name)
        for each in declared_by(name)
        if OWN_OPTIONS.get(each.name) != each
    ]


def _record(each: Option, owners: Sequence[str]) -> tuple[str, str]:
    """Return the key and type of an option, and its algorithms and help."""
    meaning = f" {each.text}" if each.text else ""
    return f"{each.key}={each.kind.metavar}", f"{', '.join(owners)}:{meaning} [default: {each.usual}]"


Json = Annotated[bool, option("Print one JSON document instead of text.", "--json", panel=OUTPUT)]
Out = Annotated[Path | None, option("Also write the JSON document to this file.", panel=OUTPUT, metavar="FILE")]
NcclTests = Annotated[
    Path | None,
    option(
        "Also write the exchanges, of one algorithm, to this file in the columns of nccl-tests (size, time, algbw, "
        "busbw).",
        panel=OUTPUT,
        metavar="FILE",
    ),
]
