"""What a study is: settings, the points they span, how one is measured, and what all of them say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from netsim.report import Section

Point: TypeAlias = Mapping[str, Any]
"""What one measurement depends on, as JSON takes it: options as of ``netsim simulate``, or a study's own."""

Outcome: TypeAlias = Mapping[str, Any]
"""What one measurement found, as JSON takes it. It must follow from the point alone: no clock, no machine."""


class Finding(NamedTuple):
    """A point and what was found there."""

    point: Point
    outcome: Outcome


class Settings(BaseModel):
    """What a study varies: a field a setting, which ``--set``, a TOML file and Python may change.

    Unknown names, numbers that are not finite, and values of another type are errors, never guesses.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _has_values(cls, value: Any) -> Any:
        """Refuse an empty list: nothing varies over no value, and nothing is drawn of none."""
        if value == ():
            raise ValueError("must have at least one value")
        return value


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a study found: in `sentences` for people, and in `data` as JSON takes it.

    `sections` are the report's pictures and tables, `limits` what was assumed and left out, a sentence each.
    """

    sentences: Sequence[str]
    data: Mapping[str, Any]
    sections: Sequence[Section] = ()
    limits: Sequence[str] = ()


def nothing_more(settings: Any, findings: Sequence[Finding]) -> Sequence[Point]:
    """Ask for no further points."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Generic[SettingsT]):
    """One file in :mod:`studies` makes one of these.

    `points` says what to measure; `measure` is a pure function of the standard library's kind that other processes
    can import by name; `refine` may ask for further points in the light of what was found, as often as it returns
    new ones; `conclude` draws the conclusion from all findings, in the order in which they were asked for.
    `quick` holds the settings that ``--quick`` changes; `needs` says in a sentence what the full setting asks of a
    machine.
    """

    name: str
    title: str
    settings: type[SettingsT]
    points: Callable[[SettingsT], Sequence[Point]]
    measure: Callable[[Point], Outcome]
    conclude: Callable[[SettingsT, Sequence[Finding]], Conclusion]
    refine: Callable[[SettingsT, Sequence[Finding]], Sequence[Point]] = nothing_more
    quick: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""

    def setting(self, settings: SettingsT) -> str:
        """Return in words whether this is the quick or the full setting, whichever is nearer, and what differs."""
        known = {"full setting": self.settings()}
        if self.quick:
            known["quick setting"] = self.settings(**self.quick)
        fields = self.settings.model_fields
        changed = {
            name: [key for key in fields if getattr(settings, key) != getattr(base, key)]
            for name, base in known.items()
        }
        nearest = min(changed, key=lambda name: len(changed[name]))
        if len(changed[nearest]) == len(fields):
            return "a setting of one's own"
        return nearest + (f", but {', '.join(changed[nearest])}" if changed[nearest] else "")
