"""The parts of a study: settings, the points that settings span, the measurement of a point, and the conclusion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from netsim.report import Section

Point: TypeAlias = Mapping[str, Any]
"""The input of one measurement as a JSON object: options of ``netsim simulate``, or options of a study."""

Outcome: TypeAlias = Mapping[str, Any]
"""The result of one measurement as a JSON object; a function of the point only, not of clock or machine."""


class Finding(NamedTuple):
    """A point and its outcome."""

    point: Point
    outcome: Outcome


class Settings(BaseModel):
    """The settings of a study, one field each; ``--set``, a TOML file and Python can change them.

    Unknown names, numbers that are not finite, and values of another type are errors.

    Attributes
    ----------
    replaces
        For settings that are tables: the keys that a given key replaces where they have their default, by that key.
    """

    replaces: ClassVar[Mapping[str, Collection[str]]] = {}
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _has_values(cls, value: Any) -> Any:
        """Refuse an empty list, which would leave a study without points."""
        if value == ():
            raise ValueError("must have at least one value")
        return value


SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The conclusion of a study.

    Attributes
    ----------
    sentences
        The conclusion in sentences.
    data
        The same results as a JSON object.
    sections
        The figures and tables of the report.
    limits
        One sentence for each assumption and each omission.
    """

    sentences: Sequence[str]
    data: Mapping[str, Any]
    sections: Sequence[Section] = ()
    limits: Sequence[str] = ()


def nothing_more(settings: Any, findings: Sequence[Finding]) -> Sequence[Point]:
    """Return no points: the default of :attr:`Study.refine`, for studies that measure in one step."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Generic[SettingsT]):
    """A study; each file in :mod:`studies` defines one.

    Attributes
    ----------
    name, title
        The name on the command line, and the title of the report.
    settings
        The class of its settings.
    points
        Returns the points to measure.
    measure
        Measures a point. It must be a pure module-level function, which other processes import by name.
    conclude
        Draws the conclusion from all findings, in the order in which their points were requested.
    refine
        Returns further points in view of the findings; called again until it returns no new point.
    quick
        The settings that ``--quick`` changes.
    needs
        Memory and time that the full setting needs, in words.
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
        """Return "quick setting" or "full setting", whichever is closer to `settings`, and the settings that differ."""
        named = {"full setting": self.settings()}
        if self.quick:
            named["quick setting"] = self.settings(**self.quick)
        fields = self.settings.model_fields
        changed = {
            name: [key for key in fields if getattr(settings, key) != getattr(base, key)]
            for name, base in named.items()
        }
        nearest = min(changed, key=lambda name: len(changed[name]))
        if len(changed[nearest]) == len(fields):
            return "a setting of one's own"
        return nearest + (f", but {', '.join(changed[nearest])}" if changed[nearest] else "")
