"""Settings of a study as people write them: ``--set key=values``, and TOML files of their own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from netsim._util.errors import UsageError, check_choice, unknown
from netsim._util.storage import content_of
from netsim.study.kinds import SettingsT, Study
from topologies.spec import several

LARGEST_FILE = 1_000_000
"""Bytes of a TOML file; a study that says what varies needs a thousandth of it."""


class StudyFile(NamedTuple):
    """What a TOML file says: the study that it is a variant of, and the settings that it changes."""

    study: str
    settings: Mapping[str, Any]


def read_study_file(path: Path, studies: Iterable[str]) -> StudyFile:
    """Return what the TOML file at `path` says: ``study = "scaling"``, and under ``[settings]`` what it changes.

    Raises UsageError for anything else. A file holds values only: nothing in it is run.
    """
    text = content_of(path, f"study file {str(path)!r}", most=LARGEST_FILE)
    try:
        said = tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # ValueError: whatever is no TOML, and integers of 4,301 digits
        raise UsageError(f"study file {str(path)!r} is not TOML: {error}") from None
    for name in said:
        if name not in ("study", "settings"):
            raise unknown(f"key of study file {str(path)!r}:", name, ("study", "settings"))
    if "study" not in said:
        raise UsageError(f'study file {str(path)!r} does not say which study it is; add a line study = "scaling"')
    check_choice("study", said["study"], studies)
    if not isinstance(said.get("settings", {}), dict):
        raise UsageError(f"study file {str(path)!r}: settings must be a table; write [settings] and a line a setting")
    return StudyFile(said["study"], said.get("settings", {}))


def settings_of(
    study: Study[SettingsT], *, quick: bool = False, given: Mapping[str, Any] | None = None, sets: Iterable[str] = ()
) -> SettingsT:
    """Return the study's settings: its defaults, changed by `quick`, then by those `given`, then by ``key=values``."""
    known = study.settings.model_fields
    values = (dict(study.quick) if quick else {}) | dict(given or {})
    for text in sets:
        name, equals, written = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"set {text!r} has no value; write it like --set {next(iter(known))}=…")
        table, _, key = name.partition(".")
        default = known[table].get_default(call_default_factory=True) if table in known else None
        if key and isinstance(default, dict):
            list_of = any(isinstance(each, tuple) for each in default.values())
            values[table] = dict(values.get(table, default)) | {key: _read(written.strip(), list_of)}
        else:
            values[name] = _read(written.strip(), isinstance(default, tuple))
    for name in values:
        if name not in known:
            raise unknown(f"setting of study {study.name}", name, known)
    try:
        return study.settings.model_validate({name: _frozen(value) for name, value in values.items()})
    except ValidationError as error:
        raise UsageError(_one_line(error)) from None


def _read(text: str, list_of: bool) -> Any:
    """Return the value, or with `list_of` the values between commas: whole numbers, numbers, or text."""
    if list_of:
        return tuple(_read(each, False) for each in several(text) if each)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def _frozen(value: Any) -> Any:
    """Return `value` with tuples for lists: TOML has only lists, and settings never change."""
    if isinstance(value, dict):
        return {name: _frozen(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value


KINDS = ("bool", "int", "float", "str")
"""Kinds of value among which an option's may be of any; pydantic tells what is wrong with it as each."""


def _one_line(error: ValidationError) -> str:
    """Return the first thing wrong, in a line that names the value."""
    errors = error.errors(include_url=False)
    wrong = next((each for each in errors if each["type"] == "finite_number"), errors[0])
    place = " ".join(
        part if isinstance(part, str) else f"value {part + 1}" for part in wrong["loc"] if part not in KINDS
    )
    said = wrong["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if wrong["loc"] and wrong["loc"][-1] in KINDS and wrong["type"] != "finite_number":
        said = "must be a number, text, true or false"
    return f"setting {place or 'of the study'} {wrong['input']!r}: {said}"
