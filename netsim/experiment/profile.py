"""A profile: what a network and its hosts were measured to cost, and where, when and how that was.

A TOML file, written whole and read strictly: every key known, every number finite, nothing that could run.
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
from netsim.training.profiled_costs import STEP
from topologies import STARS, taken

FORMAT = 1

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ProfileTable(BaseModel):
    """A table of a profile."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ProfileProvenance(ProfileTable):
    """When, where and how it was measured; `load` is the machine's mean load of the minute before."""

    kind: Literal["MEASURED"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$")]
    command: Text
    where: Literal["loopback", "shaped cluster", "torchrun"]
    backend: Text
    ranks: PositiveCount
    netsim: Text
    python: Text
    torch: Text
    kernel: Text
    machine: Text
    cores: PositiveCount
    load: NotNegative


class ProfilePoint(ProfileTable):
    """The median of what was measured at one size, its quartiles, and by how much of itself the fit misses it."""

    size: Annotated[int, Field(ge=0)]
    seconds: NotNegative
    low_s: NotNegative
    high_s: NotNegative
    repeats: PositiveCount
    residual: float

    @classmethod
    def of(cls, size: int, samples: Sequence[float]) -> ProfilePoint:
        """Return the point of what was measured at a size."""
        low, median, high = quantiles(samples, n=4, method="inclusive") if len(samples) > 1 else [samples[0]] * 3
        return cls(size=size, seconds=median, low_s=low, high_s=high, repeats=len(samples), residual=0.0)

    def against(self, fitted: float) -> ProfilePoint:
        """Return the point with its residual, where the line says `fitted`."""
        residual = fitted / self.seconds - 1 if self.seconds > 0 else 0.0
        return self.model_copy(update={"residual": residual})


class Line(ProfileTable):
    """``fixed_s + each_s · size``: seconds of something of that size, with the points that it was fitted to.

    The residuals are relative to the measured medians: the median and the largest of their absolute values.
    """

    fixed_s: NotNegative
    each_s: NotNegative
    residual_median: NotNegative
    residual_worst: NotNegative
    points: tuple[ProfilePoint, ...] = ()


class Sample(ProfileTable):
    """The median time of a function, given so many `entries` of sparse vectors, and `elements` of dense ones."""

    entries: Annotated[int, Field(ge=0)]
    elements: Annotated[int, Field(ge=0)]
    seconds: NotNegative
    residual: float


class WorkLine(ProfileTable):
    """``fixed_s + entry_s · entries + element_s · elements``: seconds of a function, with what it was fitted to."""

    fixed_s: NotNegative
    entry_s: NotNegative
    element_s: NotNegative
    residual_median: NotNegative
    residual_worst: NotNegative
    samples: tuple[Sample, ...] = ()


class LinkLine(Line):
    """A message between two hosts, besides what they do to it: ``fixed_s`` is α, ``each_s`` β, a byte's.

    Its first `free_bytes` cost nothing: what an idle link that is shaped lets through at once; a simulation
    charges them. `nominal_bps` is what the link is said to carry, `efficiency` which part of that messages get.
    """

    fixed_s: Positive
    each_s: Positive
    free_bytes: NotNegative = 0.0
    nominal_bps: Positive | None = None
    efficiency: Positive | None = None

    @property
    def bandwidth_bps(self) -> float:
        """The payload that the link carries."""
        return 8 / self.each_s


class Step(ProfileTable):
    """What computing takes of a step of training, gradient and update: the median over `repeats` steps."""

    workload: Text
    batch_size: PositiveCount
    elements: PositiveCount
    seconds: Positive
    repeats: PositiveCount


class Profile(ProfileTable):
    """What was measured; sizes in `link` and `message` are bytes of values and indices.

    `message` is what one host does to a message, packing or unpacking it. `work` is what functions cost that
    algorithms select and merge with; those called ``sparse_…`` are given sparse vectors.
    """

    format: Literal[1]
    provenance: ProfileProvenance
    link: LinkLine
    message: Line
    work: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")], WorkLine]
    step: Step | None = None

    def title(self) -> str:
        """Say in a line what this is."""
        source = self.provenance
        return f"MEASURED {source.date[:10]} on {source.where}, {source.machine}"


def load_profile(path: str | Path) -> Profile:
    """Return the profile of a file; raise UsageError, with file, key and value, where it is not one."""
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
    """Return `value` with tuples for lists: TOML has only lists."""
    if isinstance(value, dict):
        return {name: _tuples(each) for name, each in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def decide(given: dict[str, Any], effects: dict[str, Any]) -> None:
    """Have the profile in the file ``given["profile"]`` decide what no option does.

    `given` are values of options and `effects` those of effects, by field; both are changed.
    """
    profile = load_profile(given["profile"])
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
    given["profile"] = f"{given['profile']} ({profile.title()})"


def save_profile(profile: Profile, path: Path) -> None:
    """Write a profile, whole or not at all."""
    write_atomically(path, "\n".join(_toml("", profile.model_dump(exclude_none=True))).lstrip("\n") + "\n")


def _toml(name: str, table: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table: its values, then its tables; lists are of tables, each on a line of its own."""
    if name:
        yield ""
        yield f"[{name}]"
    for key, value in table.items():
        if not isinstance(value, dict | tuple | list):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        if isinstance(value, tuple | list):
            yield f"{_key(key)} = ["
            yield from (f"  {_inline(each)}," for each in value)
            yield "]"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(f"{name}.{_key(key)}" if name else _key(key), value)


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _inline(table: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{_key(key)} = {_value(value)}" for key, value in table.items()) + " }"


def _value(value: str | float) -> str:
    """Write a value; a text of TOML is one of JSON, but that it cannot hold DEL, which none of ours does."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
