"""Reads options from the command line, Python, TOML files, and the config of an earlier report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from algorithms import OWN_OPTIONS, is_users, owners_of, with_options
from netsim._util.errors import UsageError, check_choice, check_digits, shown, unknown
from netsim._util.options import Choice, Option, declared
from netsim._util.units import in_python
from netsim.experiment.options import (
    EARLIER_ENGINES,
    OWN,
    AlgorithmOptions,
    CostOptions,
    NetworkOptions,
    TrainingOptions,
)
from netsim.network.effects import Effects
from netsim.training import workloads
from netsim.training.library_models import file_of as file_of_model
from netsim.training.profiler_trace import is_trace
from topologies import file_of, text_of

ENGINE_OF_WAY = {"auto": "auto"} | EARLIER_ENGINES
"""The engine by the value of ``way``, as configs of earlier versions call the option."""
PANELS = {
    "Network": NetworkOptions,
    "Algorithms": AlgorithmOptions,
    "Training": TrainingOptions,
    "Costs": CostOptions,
    "Effects": Effects,
}
"""The declarations of all options, by the heading under which the help and docs/options.md show them."""
OPTIONS: dict[str, Option] = {
    field: option for group in PANELS.values() if group is not Effects for field, option in declared(group).items()
}
"""All options except those of effects, by the field of an experiment that holds the value."""
EFFECTS = {option.name: field for field, option in declared(Effects).items()}
"""The fields of :class:`Effects`, by the name of the option that sets the field."""
RENAMED = {name: each.kind.earlier for name, each in (OPTIONS | OWN_OPTIONS).items() if isinstance(each.kind, Choice)}
"""For each option: the present name of a value, by its name in configs of earlier versions."""
EARLIER_OPTIONS = {"way": "engine", "sends": "send_mode"}
"""The present name of an option, by its name in earlier versions."""


def option_of(name: str) -> str:
    """Return the name of the option that sets a field of an experiment."""
    return OPTIONS[name].name if name in OPTIONS else name.removesuffix("_s")


def by_field(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of options by field of an experiment, and the values of effects by field of Effects.

    Parameters
    ----------
    options
        Values by the names of options, or by the names of fields, as in a config. None counts as not given.

    Raises
    ------
    UsageError
        For an unknown option, and for an option that is given under both of its names.
    """
    given = {name: in_python(value) for name, value in options.items() if value is not None}
    for name, value in given.items():
        check_digits(option_of(name).replace("_", "-"), value)
    if "workload" in given:
        given["workload"] = workloads.text_of(given["workload"])
    if "topology" in given:
        given["topology"] = text_of(given["topology"])
    if "algorithms" in given:  # a config, perhaps of an earlier version; people write `algorithm`
        given = of_today(given)
    effects, values = _effects(given), _fields(given)
    if "work_rates" in values:  # a config, which already holds the values from its profile
        values["work_rates"] = _rates(values["work_rates"])
    elif "profile" in values:
        from netsim.experiment.profile import decide

        decide(values, effects)
    return values, effects


def of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config, with names and values of earlier versions replaced by the present ones."""
    options = {
        name: RENAMED[name].get(value, value) if name in RENAMED and isinstance(value, str) else value
        for name, value in config.items()
    }
    if (way := options.pop("way", None)) is not None:
        check_choice("way", way, ENGINE_OF_WAY)
        options.setdefault("engine", ENGINE_OF_WAY[way])
    return _with_own_options(options)


def _with_own_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the options of single algorithms moved into names such as ``topk:gather=bruck``."""
    settings = {name: config[name] for name in OWN_OPTIONS if config.get(name) is not None}
    options = {name: value for name, value in config.items() if name not in OWN_OPTIONS}
    if settings and "algorithms" in options:
        options["algorithms"] = tuple(
            algorithm if is_users(algorithm) else with_options(algorithm, **settings)
            for algorithm in options["algorithms"]
        )
    return options


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    field_of = {option.name: field for field, option in OPTIONS.items()}
    field_of |= {field: field for field in (*OPTIONS, "work_rates")}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in field_of:
            known = [*(option.name for option in OPTIONS.values()), *EFFECTS]
            raise moved(name, str(value)) or unknown("option", name, known)
        if (field := field_of[name]) in values:
            both = [f"{other} {given[other]!r}" for other in given if field_of.get(other) == field]
            raise UsageError(f"both {' and '.join(both)} were given; give one")
        if not (name in ("bandwidth", "latency") and value == OWN):
            values[field] = value
    return values


def present_option(name: str) -> str | None:
    """Return the option that replaced an option of an earlier version; None if `name` was not replaced."""
    return "algorithm" if name in OWN_OPTIONS else EARLIER_OPTIONS.get(name)


def moved(name: str, value: str) -> UsageError | None:
    """Return the error that tells the new spelling of a renamed option; None for an option that was not renamed."""
    if name in EARLIER_OPTIONS:
        flag = "--" + EARLIER_OPTIONS[name].replace("_", "-")
        return UsageError(f"--{name} is called {flag} now; write {flag} instead")
    if name not in OWN_OPTIONS:
        return None
    owners = owners_of(name)
    key = OWN_OPTIONS[name].key
    return UsageError(
        f"--{key} is an option of {', '.join(owners)}; write it after the name: --algorithm {owners[0]}:{key}={value}"
    )


def _effects(given: dict[str, Any]) -> dict[str, Any]:
    """Remove all effects from `given`, a config's ``effects`` and single options; return their values by field."""
    config = given.pop("effects", {})
    if isinstance(config, Effects):
        config = config.config()
    if not isinstance(config, Mapping):
        raise UsageError(f"effects {shown(config)} must be those of a report's config, by name")
    for name in config:
        if name not in declared(Effects):
            raise unknown("effect", str(name), declared(Effects))
    single = {field: given.pop(name) for name, field in EFFECTS.items() if name in given}
    return {name: in_python(value) for name, value in config.items()} | single


def _rates(config: Any) -> tuple[tuple[str, float, float, float], ...]:
    """Return the cost rates of a config; raise UsageError unless each is a name and three numbers of seconds."""
    try:
        rates = tuple((str(name), float(fixed), float(entry), float(element)) for name, fixed, entry, element in config)
        if all(0 <= seconds < math.inf for _, *costs in rates for seconds in costs):
            return rates
    except (TypeError, ValueError):
        pass
    raise UsageError(f"work_rates {shown(config)} must be those of a report's config: a name and three numbers each")


def input_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files that options read, by option. A background load is returned, too, although it is no file."""
    named = {name: options.get(name) for name in ("profile", "background", "flows")}
    if is_trace(str(in_python(options.get("ready")))):
        named["ready"] = options["ready"]
    if (file := file_of_model(str(in_python(options.get("model"))))) is not None:
        named["model"] = file
    topology = text_of(in_python(options.get("topology")))
    return named | {"topology": file_of(topology) if topology else None}
