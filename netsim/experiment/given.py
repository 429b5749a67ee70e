"""Options as they are given: by the command line, by Python, by TOML files, and by the config of an earlier report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from algorithms import OWN_OPTIONS, owners_of, with_options
from netsim._util.errors import UsageError, check_choice, check_digits, shown, unknown
from netsim._util.options import Option, declared
from netsim._util.units import in_python
from netsim.comm.worker import EARLIER_SENDS
from netsim.experiment.options import (
    OWN,
    AlgorithmOptions,
    CostOptions,
    NetworkOptions,
    TrainingOptions,
)
from netsim.network.effects import Effects
from topologies import file_of

ENGINE_OF_WAY = {
    **{"auto": "auto", "messages": "event"},
    **dict.fromkeys(("batched", "compiled", "closed-form"), "vectorized"),
}
"""The engine that an older config names by ``way``."""
PANELS = {
    "Network": NetworkOptions,
    "Algorithms": AlgorithmOptions,
    "Training": TrainingOptions,
    "Costs": CostOptions,
    "Effects": Effects,
}
"""The declarations of all options, by the heading under which the help and the README show them."""
OPTIONS: dict[str, Option] = {
    field: each for group in PANELS.values() if group is not Effects for field, each in declared(group).items()
}
"""The options of an experiment, by the field that holds each; its effects have their own."""
EFFECTS = {each.name: field for field, each in declared(Effects).items()}
"""The fields of the effects, by the option that sets each."""
RENAMED = {"sends": EARLIER_SENDS, "placement": {"given": "rank-order"}, "gather": {"doubling": "bruck"}}
"""Values that configs of earlier versions hold under other names."""


def option_of(name: str) -> str:
    """Return the option that sets a field of an experiment."""
    return OPTIONS[name].name if name in OPTIONS else name.removesuffix("_s")


def by_field(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of options by the fields of an experiment, and those of effects by theirs.

    Parameters
    ----------
    options
        Values by the names of options, or by those of fields, as a config has them. None counts as not given.

    Raises
    ------
    UsageError
        For an option that there is not, or that is given under both of its names.
    """
    given = {name: in_python(value) for name, value in options.items() if value is not None}
    for name, value in given.items():
        check_digits(option_of(name).replace("_", "-"), value)
    if "algorithms" in given:  # options of a config
        given = of_today(given)
    effects, values = _effects(given), _fields(given)
    if "work_rates" in values:  # what a profile decided is among the options of a config
        values["work_rates"] = _rates(values["work_rates"])
    elif "profile" in values:
        from netsim.experiment.profile import decide

        decide(values, effects)
    return values, effects


def of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's options under the names that an experiment's fields and their values have today."""
    options = {
        name: RENAMED[name].get(value, value) if name in RENAMED and isinstance(value, str) else value
        for name, value in config.items()
    }
    if (way := options.pop("way", None)) is not None:
        check_choice("way", way, ENGINE_OF_WAY)
        options.setdefault("engine", ENGINE_OF_WAY[way])
    return _with_own_options(options)


def _with_own_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config with those of single algorithms moved into the algorithms' names."""
    own = {name: config[name] for name in OWN_OPTIONS if config.get(name) is not None}
    options = {name: value for name, value in config.items() if name not in OWN_OPTIONS}
    if own and "algorithms" in options:
        options["algorithms"] = tuple(with_options(each, **own) for each in options["algorithms"])
    return options


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    known = {each.name: field for field, each in OPTIONS.items()}
    known |= {field: field for field in (*OPTIONS, "work_rates")}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in OWN_OPTIONS:
            raise moved(name, str(value))
        if name not in known:
            raise unknown("option", name, [*(each.name for each in OPTIONS.values()), *EFFECTS])
        if (field := known[name]) in found:
            both = [(other, given[other]) for other in given if known.get(other) == field]
            raise UsageError(f"both {' and '.join(f'{other} {each!r}' for other, each in both)} were given; give one")
        if not (name in ("bandwidth", "latency") and value == OWN):
            found[field] = value
    return found


def moved(name: str, value: str) -> UsageError:
    """Return the error for an option of single algorithms that is given as one of all."""
    owners = owners_of(name)
    key = OWN_OPTIONS[name].key
    return UsageError(
        f"--{key} is an option of {', '.join(owners)}; write it after the name: --algorithm {owners[0]}:{key}={value}"
    )


def _effects(given: dict[str, Any]) -> dict[str, Any]:
    """Take the effects out of `given`, those of a config and options of their own, and return them by field."""
    config = given.pop("effects", {})
    if isinstance(config, Effects):
        config = config.config()
    if not isinstance(config, Mapping):
        raise UsageError(f"effects {shown(config)} must be those of a report's config, by name")
    for name in config:
        if name not in declared(Effects):
            raise unknown("effect", str(name), declared(Effects))
    own = {field: given.pop(name) for name, field in EFFECTS.items() if name in given}
    return {name: in_python(value) for name, value in config.items()} | own


def _rates(config: Any) -> tuple[tuple[str, float, float, float], ...]:
    """Return the rates of a config."""
    try:
        rates = tuple((str(name), float(fixed), float(entry), float(element)) for name, fixed, entry, element in config)
        if all(0 <= rate < math.inf for _, *of_one in rates for rate in of_one):
            return rates
    except (TypeError, ValueError):
        pass
    raise UsageError(f"work_rates {shown(config)} must be those of a report's config: a name and three numbers each")


def input_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files that options read, by option; a background's load, which names no file, is passed on, too."""
    named = {name: options.get(name) for name in ("profile", "background", "flows")}
    topology = in_python(options.get("topology"))
    return named | {"topology": file_of(topology) if topology else None}
