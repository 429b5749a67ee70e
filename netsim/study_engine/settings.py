"""Parsing of a study's settings: ``--set key=values`` and TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from netsim._util.errors import UsageError, check_choice, unknown
from netsim._util.options import several
from netsim._util.storage import content_of
from netsim.study_engine.kinds import Settings, SettingsT, Study

LARGEST_FILE = 1_000_000
"""Greatest size of a TOML file in bytes, a thousand times the usual size."""


class StudyFile(NamedTuple):
    """The content of a TOML file: the name of a study, and the settings to change."""

    study: str
    settings: Mapping[str, Any]


def read_study_file(path: Path, studies: Iterable[str]) -> StudyFile:
    """Read a TOML file with a line such as ``study = "scaling"`` and a table ``[settings]``.

    The file holds values only; no code in it is run.

    Raises
    ------
    UsageError
        For a file that cannot be read, is not TOML, or has other keys.
    """
    text = content_of(path, f"study file {str(path)!r}", most=LARGEST_FILE)
    try:
        content = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # ValueError: invalid TOML, and integers of more than 4,300 digits
        raise UsageError(f"study file {str(path)!r} is not TOML: {error}") from None
    for name in content:
        if name not in ("study", "settings"):
            raise unknown(f"key of study file {str(path)!r}:", name, ("study", "settings"))
    if "study" not in content:
        raise UsageError(f'study file {str(path)!r} names no study; add a line such as study = "scaling"')
    check_choice("study", content["study"], studies)
    if not isinstance(content.get("settings", {}), dict):
        raise UsageError(
            f"study file {str(path)!r}: settings must be a table; write [settings] and one line per setting"
        )
    return StudyFile(content["study"], content.get("settings", {}))


def settings_of(
    study: Study[SettingsT], *, quick: bool = False, given: Mapping[str, Any] | None = None, sets: Iterable[str] = ()
) -> SettingsT:
    """Return the settings of a study.

    Parameters
    ----------
    study
        The study, with its default settings.
    quick
        Whether the study's quick settings replace its defaults.
    given
        Settings from a TOML file, which replace the former.
    sets
        Texts ``key=value`` or ``key=value,value`` from ``--set``, which replace all others.

    Raises
    ------
    UsageError
        For an unknown setting, or a value that it cannot have.
    """
    known = study.settings.model_fields
    values = (dict(study.quick) if quick else {}) | dict(given or {})
    in_tables: dict[str, dict[str, Any]] = {}
    for text in sets:
        name, equals, written = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"set {text!r} has no value; write it like --set {next(iter(known))}=…")
        table, _, key = name.partition(".")
        default = known[table].get_default(call_default_factory=True) if table in known else None
        if key and isinstance(default, dict):
            list_of = any(isinstance(value, tuple) for value in default.values())
            in_tables.setdefault(table, {})[key] = _read(written.strip(), list_of)
        else:
            values[name] = _read(written.strip(), isinstance(default, tuple))
    values |= _tables(study.settings, values, in_tables)
    for name in values:
        if name not in known:
            raise unknown(f"setting of study {study.name}:", name, known)
    try:
        return study.settings.model_validate({name: _frozen(value) for name, value in values.items()})
    except ValidationError as error:
        raise UsageError(_one_line(error, study.settings)) from None


def _tables(
    settings: type[Settings], values: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the settings that are tables, changed by `sets`.

    A table that was not given has its default, without the keys that were given in another table, and without those
    that a given key replaces.
    """
    defaults = {name: field.get_default(call_default_factory=True) for name, field in settings.model_fields.items()}
    defaults = {name: default for name, default in defaults.items() if isinstance(default, dict)}
    whole = {name: values[name] for name in defaults if isinstance(values.get(name), Mapping)}
    given = {key for table in (*whole.values(), *sets.values()) for key in table}
    gone = given.union(*(settings.replaces.get(key, ()) for key in given))
    kept = {
        name: {key: value for key, value in default.items() if key not in gone}
        for name, default in defaults.items()
        if name not in values
    }
    return {name: {**table, **sets.get(name, {})} for name, table in (whole | kept).items()}


def _read(text: str, list_of: bool) -> Any:
    """Parse one value, or with `list_of` a list of values between commas: integers, floats, booleans or text."""
    if list_of:
        return tuple(_read(part, False) for part in several(text) if part)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _frozen(value: Any) -> Any:
    """Return `value` with all lists turned into tuples, because settings are immutable."""
    if isinstance(value, dict):
        return {name: _frozen(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value


KINDS = ("bool", "int", "float", "str")
"""Types of which an option's value may have any; pydantic reports an error for each type it tried."""


def _one_line(error: ValidationError, settings: type[Settings]) -> str:
    """Return the first error in one line that names the value, with the setting's default as an example."""
    errors = error.errors(include_url=False)
    wrong = next((error for error in errors if error["type"] == "finite_number"), errors[0])
    place = " ".join(
        part if isinstance(part, str) else f"value {part + 1}" for part in wrong["loc"] if part not in KINDS
    )
    reason = wrong["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if wrong["loc"] and wrong["loc"][-1] in KINDS and wrong["type"] != "finite_number":
        reason = "must be a number, text, true or false"
        if wrong["loc"][0] == "fixed" and isinstance(wrong["input"], tuple):
            reason += "; give a list of values under vary"
    return f"setting {place or 'of the study'} {wrong['input']!r}: {reason}{_example(settings, wrong['loc'])}"


def _example(settings: type[Settings], place: Sequence[Any]) -> str:
    """Return how the default of a setting is written, at most three values; nothing for a table or an empty text."""
    field = settings.model_fields.get(place[0]) if place else None
    default = None if field is None else field.get_default(call_default_factory=True)
    if default in (None, "", ()) or isinstance(default, Mapping):
        return ""
    values = default[:3] if isinstance(default, tuple) else (default,)
    return f", such as --set {place[0]}={','.join(map(_written, values))}"


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
