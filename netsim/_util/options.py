"""Declarations of options: each option is declared once, by an :class:`Option`, mostly a frozen dataclass's field.

    fan_out: int = option(8, Whole(2), "Children of a switch in a tree.")

The declaration holds the default, the help text, and a :class:`Kind`, which reads values and checks them. The command
line, ``netsim.simulate(**options)``, TOML files, docs/options.md, and ``--algorithm NAME:key=value`` read the same
declarations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any, TypeVar

from netsim._util.errors import UsageError, check_choice, check_digits, shown, unknown
from netsim._util.units import (
    BANDWIDTH,
    SIZE,
    in_python,
    parse_bandwidth,
    parse_duration,
    parse_size,
    read_number,
    read_whole,
)

BIT_RATES = {unit: size for unit, size in BANDWIDTH.items() if unit.endswith("bps")}


class Kind:
    """A kind of value that options take."""

    metavar = "TEXT"
    in_python = "str"
    """The type of its values in Python, in words."""

    def parse(self, text: str) -> Any:
        """Return the value of a text on the command line; a UsageError for a wrong text omits the option's name."""
        return text

    def read(self, name: str, value: Any) -> Any:
        """Return a value as an experiment holds it; raise UsageError, with the option's `name`, if it is unusable."""
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """Return the text that :meth:`parse` reads as `value`."""
        return str(value)


MOST_WHOLE = 2**63 - 1
"""The greatest whole number of an option that has no limit of its own."""


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number of `least` to `most`, like `example`; `limit` explains `most` in words if it needs a reason."""

    least: int = 0
    most: int = MOST_WHOLE
    limit: str = ""
    example: str = ""
    metavar = "N"
    in_python = "int"

    def parse(self, text: str) -> int:
        """Return the whole number that a text represents."""
        if (value := read_whole(text)) is None:
            raise UsageError(f"{shown(text)} is not a whole number of at most 18 digits; write it like 8")
        return value

    def read(self, name: str, value: Any) -> int:
        """Return the number, if it lies between the limits."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and self.least <= value <= self.most:
            return int(value)
        if self.most < MOST_WHOLE and not self.limit:
            expected = f"a whole number of {self.least} to {self.most}"
        elif whole and value > self.most:
            expected = self.limit or "less than 2⁶³"
        else:
            expected = f"a whole number of at least {self.least}"
        example = f", such as {self.example}" if self.example else ""
        raise UsageError(f"{name} {shown(value)} must be {expected}{example}")


def shortest(value: float) -> str:
    """Return the shortest text that is read as `value`.

    >>> shortest(2.0), shortest(1 / 3)
    ('2', '0.3333333333333333')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


@dataclass(frozen=True)
class Number(Kind):
    """A number for which `holds` is true; `expected` says the same in words, with an example."""

    holds: Callable[[float], bool] = lambda value: 0 < value < math.inf
    expected: str = "finite and more than zero, such as 0.1"
    metavar = "X"
    in_python = "float"

    def parse(self, text: str) -> float:
        """Return the number that a text represents; :meth:`read` refuses infinities and NaN."""
        value = read_number(text)
        if value is None and text.strip().lower().removeprefix("-") in ("nan", "inf", "infinity"):
            return float(text)
        if value is None:
            raise UsageError(f"{shown(text)} is not a finite number; write it like 0.1")
        return value

    def read(self, name: str, value: Any) -> float:
        """Return the number, if `holds` says so."""
        if not (is_number(value) and self.holds(value)):
            raise UsageError(f"{name} {shown(value)} must be {self.expected}")
        found: float = value
        return found

    def write(self, value: float) -> str:
        """Return the number in its shortest form."""
        return shortest(value)


@dataclass(frozen=True)
class OnOff(Kind):
    """True or False; on the command line it is given without a value."""

    metavar = "true|false"
    in_python = "bool"

    def parse(self, text: str) -> bool:
        """Return the truth value that a text represents."""
        if (value := {"true": True, "false": False}.get(text.lower())) is None:
            raise UsageError(f"{shown(text)} must be true or false")
        return value

    def read(self, name: str, value: Any) -> bool:
        """Return the truth value."""
        if not isinstance(value, bool):
            raise UsageError(f"{name} {shown(value)} must be True or False")
        return value

    def write(self, value: bool) -> str:
        """Return "true" or "false"."""
        return str(value).lower()


@dataclass(frozen=True)
class Choice(Kind):
    """One of several names, mostly those of a registry.

    `earlier` has the present name of names of earlier versions; `hint` says where to find what is not one of the names.
    """

    names: Collection[str]
    earlier: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    metavar = "NAME"

    def read(self, name: str, value: Any) -> str:
        """Return the name, if it is one of `names`."""
        if isinstance(value, str) and value in self.earlier:
            raise UsageError(f"{name} {value!r} is called {self.earlier[value]!r} now; write {self.earlier[value]}")
        check_choice(name, value, self.names, self.hint)
        return str(value)


@dataclass(frozen=True)
class Text(Kind):
    """A text that `check` accepts; `example` is named where the value is no text at all."""

    example: str = ""
    check: Callable[[str], object] | None = None
    metavar: str = "TEXT"

    def read(self, name: str, value: Any) -> str:
        """Return the text, if `check` accepts it."""
        if not isinstance(value, str):
            example = f", such as {self.example!r}" if self.example else ""
            raise UsageError(f"{name} {shown(value)} must be a name or other text{example}")
        if self.check is not None:
            self.check(value)
        return value


@dataclass(frozen=True)
class Bandwidth(Kind):
    """A text such as ``1Gbps``, or a number of bit/s."""

    metavar = "RATE"
    in_python = "str, or a number of bit/s"

    def read(self, name: str, value: Any) -> int:
        """Return the bandwidth in bit/s."""
        return parse_bandwidth(value, name)

    def write(self, value: int) -> str:
        """Return the shortest text of the bandwidth."""
        return min((f"{value // size}{unit}" for unit, size in BIT_RATES.items() if value % size == 0), key=len)


@dataclass(frozen=True)
class Duration(Kind):
    """A text such as ``50us``, or a number of seconds; with `zero` it may be zero."""

    zero: bool = True
    metavar = "TIME"
    in_python = "str, or a number of seconds"

    def read(self, name: str, value: Any) -> float:
        """Return the duration in seconds."""
        return parse_duration(value, name, zero=self.zero)

    def write(self, value: float) -> str:
        """Return the duration in seconds, with the unit."""
        return f"{shortest(value)}s"


@dataclass(frozen=True)
class Size(Kind):
    """A text such as ``64KiB``, a number of bytes, or one of `words`."""

    words: tuple[str, ...] = ()
    metavar = "SIZE"
    in_python = "str, or a number of bytes"

    def read(self, name: str, value: Any) -> int | str:
        """Return the size in bytes, or the word."""
        if self.words and isinstance(value, str) and not any(map(str.isdigit, value)):
            check_choice(name, value, (*self.words, "a size such as 512KiB"))
            return value
        return parse_size(value, name)

    def write(self, value: int | str) -> str:
        """Return the word, or the shortest text of the size."""
        if isinstance(value, str):
            return value
        return min((f"{value // size}{unit}" for unit, size in SIZE.items() if value % size == 0), key=len)


@dataclass(frozen=True)
class FilePath(Kind):
    """The path of a file or folder."""

    metavar: str = "FILE"
    in_python = "str or Path"

    def read(self, name: str, value: Any) -> str:
        """Return the path as text."""
        path = in_python(value)
        if not isinstance(path, str) or not path:
            raise UsageError(f"{name} {shown(value)} must be the path of a {self.metavar.lower()}")
        return path


@dataclass(frozen=True)
class Share(Kind):
    """A number of more than zero, or a text such as ``10%``."""

    metavar = "X%"
    in_python = "str, or a number"

    def read(self, name: str, value: Any) -> float:
        """Return the number; 10 % is 0.1."""
        number = value
        if isinstance(value, str):
            number = read_number(value.strip().removesuffix("%"))
            if number is not None and value.strip().endswith("%"):
                number /= 100
        if not (is_number(number) and 0 < number < math.inf):
            raise UsageError(f"{name} {shown(value)} must be more than zero; write it like 10% or 0.1")
        return float(number)

    def write(self, value: float) -> str:
        """Return the number in percent."""
        return f"{100 * value:g}%"


@dataclass(frozen=True)
class Several(Kind):
    """Several values of one kind: text with commas between, one value, or a list of values."""

    kind: Kind

    @property
    def metavar(self) -> str:  # type: ignore[override]
        """The word for one value, and for more."""
        return f"{self.kind.metavar},..."

    @property
    def in_python(self) -> str:  # type: ignore[override]
        """The type of one value, or of a list of them."""
        return f"{self.kind.in_python}, or a list of them"

    def read(self, name: str, value: Any) -> tuple[Any, ...]:
        """Return the values, which may be none; raise UsageError for one that is unusable."""
        if isinstance(value, str):
            value = [self._parse(name, text) for text in several(value) if text]
        return tuple(self.kind.read(name, each) for each in (value if isinstance(value, list | tuple) else [value]))

    def _parse(self, name: str, text: str) -> Any:
        try:
            return self.kind.parse(text)
        except UsageError as error:
            raise UsageError(f"{name} {error}") from None

    def write(self, value: tuple[Any, ...]) -> str:
        """Return the values with commas between."""
        return ",".join(map(self.kind.write, value))


def is_number(value: object) -> bool:
    """Return whether a value is a number that floating point can represent, including infinities and NaN."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**1000)


DeclarationT = TypeVar("DeclarationT")


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    kind
        The kind of its values.
    default
        The value where none is given; None if something else decides then, as `otherwise` says.
    help
        Its effect, in a sentence or two. ``{choices}`` stands for the names that `kind` takes.
    otherwise
        The default in words, for the help and docs/options.md, where `default` does not say it.
    name
        The name under which the option is given, with underscores.
    title
        The name in error messages, where it is not `name` with dashes.
    common
        Whether the help shows the option first, because most users need it.
    """

    kind: Kind
    default: Any
    help: str
    otherwise: str = ""
    name: str = ""
    title: str = ""
    common: bool = False

    @property
    def flag(self) -> str:
        """The option's spelling on the command line."""
        return "--" + self.key

    @property
    def key(self) -> str:
        """The option's spelling in ``NAME:key=value``."""
        return self.name.replace("_", "-")

    @property
    def text(self) -> str:
        """The help, with the names that there are."""
        names = self.kind.names if isinstance(self.kind, Choice) else getattr(self.kind, "choices", ())
        return self.help.replace("{choices}", ", ".join(names))

    @property
    def usual(self) -> str:
        """The default in words; empty for an option without a default."""
        if self.otherwise or self.default is None:
            return self.otherwise
        return self.kind.write(self.default)

    def in_words(self, value: Any) -> str:
        """Return a value that is not the default for people: ``bruck``, ``history 5``, ``serial-server``."""
        if isinstance(self.kind, OnOff):
            return self.key
        written = self.kind.write(value)
        return written if isinstance(self.kind, Choice) else f"{self.key} {written}"

    def read(self, value: Any) -> Any:
        """Return a value as an experiment holds it, or raise UsageError."""
        return self.kind.read(self.title or self.key, value)


def option(default: Any, kind: Kind, help: str, **others: Any) -> Any:  # noqa: A002
    """Return a dataclass's field that declares an option; see :class:`Option`."""
    return field(default=default, metadata={"option": Option(kind, default, help, **others)})


@lru_cache(maxsize=64)
def declared(cls: Any) -> Mapping[str, Option]:
    """Return the options that a dataclass declares, by field."""
    found = {each.name: each.metadata["option"] for each in fields(cls) if "option" in each.metadata}
    return {name: replace(each, name=each.name or name) for name, each in found.items()}


def read_fields(declaration: Any) -> None:
    """Replace the options of a frozen dataclass by the values that their kinds read; raise UsageError otherwise."""
    cls: type = type(declaration)
    for name, each in declared(cls).items():
        value = getattr(declaration, name)
        if value is not each.default and (read := each.read(value)) is not value:
            object.__setattr__(declaration, name, read)


def from_options(cls: Callable[..., DeclarationT], given: Mapping[str, Any]) -> DeclarationT:
    """Return a dataclass of options from values by the options' names; None counts as not given.

    Raises
    ------
    UsageError
        For an unknown option, or a value that it cannot have.
    """
    field_of = {each.name: name for name, each in declared(cls).items()}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in field_of:
            raise unknown("option", name, field_of)
        if value is not None:
            check_digits(name.replace("_", "-"), value)
            values[field_of[name]] = in_python(value)
    return cls(**values)


def as_written(declaration: Any) -> dict[str, Any]:
    """Return the options of a dataclass by name, as JSON has them: numbers, booleans, None, or text as people write it.

    :func:`from_options` reads them again.
    """
    plain = (Whole, Number, OnOff)
    cls: Any = type(declaration)
    values = [(each, getattr(declaration, name)) for name, each in declared(cls).items()]
    return {
        each.name: value if value is None or isinstance(each.kind, plain) else each.kind.write(value)
        for each, value in values
    }


def key_values(owner: str, text: str, options: Mapping[str, Option]) -> dict[str, Any]:
    """Return the values in an algorithm's ``key=value,key=value``, by option name.

    Raises
    ------
    UsageError
        With the key, and the algorithm `owner`, for a text or value that is unusable.
    """
    what = f"algorithm {owner!r}"
    found: dict[str, Any] = {}
    for item in text.split(",") if text else []:
        key, _, written = (part.strip() for part in item.partition("="))
        name = key.replace("-", "_")
        if not key or not written:
            keys = ", ".join(f"{each.key}={each.kind.metavar}" for each in options.values()) or "none"
            raise UsageError(f"{what}: {shown(item)} must be key=value; known: {keys}")
        if name not in options:
            error = unknown(f"option of {owner}:", key, [each.key for each in options.values()] or ["none"])
            raise UsageError(f"{error}; write it like --algorithm {owner}:KEY=VALUE" if options else str(error))
        if name in found:
            raise UsageError(f"{what}: {key} was given twice; give it once")
        try:
            found[name] = options[name].kind.parse(written)
        except UsageError as error:
            raise UsageError(f"{what}, {key}: {error}") from None
        found[name] = _read_of(owner, options[name], found[name])
    return found


def _read_of(owner: str, each: Option, value: Any) -> Any:
    """Return a value of an algorithm's option; an error names the algorithm, and shows how the option is written."""
    try:
        return each.kind.read(f"{each.key} of {owner}:", value)
    except UsageError as error:
        if each.default is None or value in getattr(each.kind, "earlier", ()):  # the error has an example
            raise
        usual = each.kind.write(each.default)
        raise UsageError(f"{error}; write it like --algorithm {owner}:{each.key}={usual}") from None


def several(text: str) -> list[str]:
    """Return the names in a comma-separated list; a part like key=value belongs to the name before it.

    >>> several("star,racks:size=8,uplink=10Gbps,ring")
    ['star', 'racks:size=8,uplink=10Gbps', 'ring']
    """
    names: list[str] = []
    for part in text.split(","):
        if names and "=" in part and ":" not in part.partition("=")[0]:
            names[-1] += f",{part}"
        else:
            names.append(part.strip())
    return names
