"""A profile: measured costs of a network and its hosts, with the provenance of the measurement.

A profile is a TOML file, written whole or not at all. Reading refuses unknown keys and numbers that are not finite.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from netsim._util.errors import UsageError, check_file_name
from netsim._util.storage import content_of, write_atomically
from netsim.experiment.options import TrainingOptions
from netsim.training.costs import STEP
from topologies import STARS, taken

FORMAT = 1

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
ShortText = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ProfileTable(BaseModel):
    """A table of a profile, read strictly."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ProfileProvenance(ProfileTable):
    """When, where and how a profile was measured; `load` is the machine's mean load in the minute before.

    Work and the step of training were timed on the `gpu`, if there is one, and else on a core of the machine.

    Where another program's file was read, `date` is when it was read, and `measured` the exchange that it timed; the
    versions, cores and load of the machine are not known. Only a file that netsim wrote has simulated times.
    """

    kind: Literal["MEASURED", "SIMULATED"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$")]
    command: ShortText
    where: Literal["loopback", "shaped cluster", "torchrun", "file"]
    backend: ShortText
    ranks: PositiveCount
    netsim: ShortText
    machine: ShortText
    measured: ShortText | None = None
    python: ShortText | None = None
    torch: ShortText | None = None
    kernel: ShortText | None = None
    gpu: ShortText | None = None
    cores: PositiveCount | None = None
    load: NotNegative | None = None


class ProfilePoint(ProfileTable):
    """Measurements at one size: the median in seconds, the quartiles, and the relative residual of the fit."""

    size: Annotated[int, Field(ge=0)]
    seconds: NotNegative
    low_s: NotNegative
    high_s: NotNegative
    repeats: PositiveCount
    residual: float

    @classmethod
    def of(cls, size: int, samples: Sequence[float]) -> ProfilePoint:
        """Return the point of measurements in seconds at a size in bytes."""
        low, median, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
        return cls(size=size, seconds=median, low_s=low, high_s=high, repeats=len(samples), residual=0.0)

    def against(self, fitted: float) -> ProfilePoint:
        """Return the point with its residual from a fitted value in seconds."""
        residual = fitted / self.seconds - 1 if self.seconds > 0 else 0.0
        return self.model_copy(update={"residual": residual})


class Line(ProfileTable):
    """``fixed_s + each_s · size``: seconds as a linear function of a size in bytes.

    Parameters
    ----------
    fixed_s, each_s
        Seconds, and seconds per byte.
    residual_median, residual_worst
        Median and largest absolute residual, relative to the measured medians.
    points
        The points that the line was fitted to.
    """

    fixed_s: NotNegative
    each_s: NotNegative
    residual_median: NotNegative
    residual_worst: NotNegative
    points: tuple[ProfilePoint, ...] = ()


class Sample(ProfileTable):
    """Median seconds of a function for a number of entries of sparse vectors and elements of dense ones."""

    entries: Annotated[int, Field(ge=0)]
    elements: Annotated[int, Field(ge=0)]
    seconds: NotNegative
    residual: float


class WorkLine(ProfileTable):
    """``fixed_s + entry_s · entries + element_s · elements``: seconds of a function.

    Parameters
    ----------
    fixed_s, entry_s, element_s
        Seconds of a call, per entry of a sparse vector, and per element of a dense one.
    residual_median, residual_worst
        Median and largest absolute residual, relative to the measured medians.
    samples
        The samples that the costs were fitted to.
    """

    fixed_s: NotNegative
    entry_s: NotNegative
    element_s: NotNegative
    residual_median: NotNegative
    residual_worst: NotNegative
    samples: tuple[Sample, ...] = ()


class LinkLine(Line):
    """Seconds of a message between two hosts, without packing and unpacking: α + β · size.

    Parameters
    ----------
    fixed_s, each_s
        α in seconds, and β in seconds per byte.
    free_bytes
        Bytes at the start of a message that take no time, because an idle shaped link sends them at once. Simulations
        charge β for these bytes, too.
    nominal_bps
        Nominal bandwidth in bit/s.
    efficiency
        Payload bandwidth divided by `nominal_bps`.
    """

    fixed_s: Positive
    each_s: Positive
    free_bytes: NotNegative = 0.0
    nominal_bps: Positive | None = None
    efficiency: Positive | None = None

    @property
    def bandwidth_bps(self) -> float:
        """Payload bandwidth in bit/s, 8 / β."""
        return 8 / self.each_s


class Step(ProfileTable):
    """A training step of a workload: median seconds of gradient and update."""

    workload: ShortText
    batch_size: PositiveCount
    elements: PositiveCount
    seconds: Positive
    repeats: PositiveCount


class Profile(ProfileTable):
    """Measured costs of a network and its hosts.

    Parameters
    ----------
    format
        Version of the file's format.
    provenance
        When, where and how the costs were measured.
    link
        Seconds of a message between two hosts, by bytes of values and indices.
    message
        Seconds to pack or unpack a message on one host, by bytes of values and indices.
    work
        Functions with which algorithms select and merge; those called ``sparse_…`` take sparse vectors.
    step
        Seconds of a training step; None if no step was measured.
    """

    format: Literal[1]
    provenance: ProfileProvenance
    link: LinkLine
    message: Line
    work: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")], WorkLine]
    step: Step | None = None

    def title(self) -> str:
        """Return date, place and machine of the measurement, in words."""
        source = self.provenance
        if source.where == "file":
            return (
                f"{source.kind}, from {source.backend}, {source.ranks} ranks, {source.machine}; read {source.date[:10]}"
            )
        return f"MEASURED {source.date[:10]} on {source.where}, {source.machine}"


def load_profile(path: str | Path) -> Profile:
    """Read a profile.

    Raises
    ------
    UsageError
        With file, key and value, if it is not a profile.
    """
    check_file_name("profile", path)
    shown = f"profile {str(path)!r}"
    content = content_of(Path(path), shown, "netsim calibrate writes one")
    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{shown} is not TOML: {error}; netsim calibrate writes one") from None
    if (version := table.get("format")) != FORMAT:
        raise UsageError(f"{shown} has format {version!r}, expected {FORMAT}; netsim calibrate writes one")
    try:
        return Profile.model_validate(_tuples(table))
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        key = ".".join(map(str, wrong["loc"]))
        value = "" if wrong["type"] == "missing" else f" {wrong['input']!r:.100}"
        said = wrong["msg"].removeprefix("Input ").lower()
        raise UsageError(f"{shown}: {key}{value}: {said}") from None


def _tuples(value: Any) -> Any:
    """Return a parsed TOML value in which every list is replaced by a tuple."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


BESIDE_PROFILES = (
    *("bandwidth_bps", "latency_s", "message_overhead_s", "byte_cost_s"),
    *("compute_time_s", "select_time_s", "merge_time_s"),
)
"""Values of a profile that an option replaces, by field."""


def decide(given: dict[str, Any], effects: dict[str, Any]) -> None:
    """Set every value that no option sets from the profile in the file ``given["profile"]``.

    Parameters
    ----------
    given
        Values of options by field; changed in place.
    effects
        Values of effects by field; changed in place.
    """
    profile = load_profile(given["profile"])
    beside = [each for each in BESIDE_PROFILES if each in given or each in effects]
    takes = taken(given.get("topology", STARS[0]))
    if takes.bandwidth and "bandwidth_bps" not in given:
        if effects.get("protocol") == "tcp":
            raise UsageError(
                "protocol tcp was given with a profile, whose β holds TCP's headers already; leave one out, or give "
                "the links' bandwidth"
            )
        given["bandwidth_bps"] = max(1, round(profile.link.bandwidth_bps))
    if takes.latency:
        given.setdefault("latency_s", profile.link.fixed_s)
    effects.setdefault("message_overhead_s", profile.message.fixed_s)
    effects.setdefault("byte_cost_s", profile.message.each_s)
    rates = [(name, work.fixed_s, work.entry_s, work.element_s) for name, work in profile.work.items()]
    usual = TrainingOptions()
    trained = given.get("workload", usual.workload), given.get("batch_size", usual.batch_size)
    if (step := profile.step) is not None and trained == (step.workload, step.batch_size) and "model" not in given:
        rates.append((STEP, step.seconds, 0.0, 0.0))
    given["work_rates"] = tuple(rates)
    names = ", ".join(each.removesuffix("_bps").removesuffix("_s").replace("_", " ") for each in beside)
    given["profile"] = f"{given['profile']} ({profile.title()}{f'; {names} as given beside it' if names else ''})"


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile, whole or not at all."""
    write_atomically(path, "\n".join(_toml("", profile.model_dump(exclude_none=True))).lstrip("\n") + "\n")


def _toml(name: str, table: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: its values, its lists with one table a line, then its tables."""
    if name:
        yield ""
        yield f"[{name}]"
    for key, value in table.items():
        if not isinstance(value, dict | tuple | list):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, tuple | list):
            yield f"{_key(key)} = ["
            yield from (f"  {_inline(row)}," for row in value)
            yield "]"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(f"{name}.{_key(key)}" if name else _key(key), value)


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _inline(table: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{_key(key)} = {_value(value)}" for key, value in table.items()) + " }"


def _value(value: str | float) -> str:
    """Return a value as TOML. A string is written as in JSON, which TOML allows but for DEL; no profile has one."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
