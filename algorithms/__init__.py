"""Distributed-SGD algorithms, one file each; the same code runs in the simulator and over torch.distributed.

To add one: a file with a subclass of :class:`netsim.training.algorithm.Algorithm`, and a line below. An algorithm is
named ``NAME`` or ``NAME:key=value,key=value``, where the keys are the options that its class declares.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from algorithms.dense import DenseRing
from algorithms.dense_double_tree import DenseDoubleTree
from algorithms.dense_hier import DenseHierarchical
from algorithms.dense_tree import DenseTree
from algorithms.gtopk import GTopK, GTopKHierarchical
from algorithms.gtopk_naive import GTopKNaive
from algorithms.lag import LAG
from algorithms.lasg import LASGPS, LASGWK1, LASGWK2
from algorithms.ps import ParameterServer
from algorithms.ps_topk import ParameterServerTopK
from algorithms.randk import RandK
from algorithms.sasg import SASG
from algorithms.topk import TopK
from netsim._util.errors import check_choice, unknown
from netsim._util.options import Option, key_values
from netsim.training.algorithm import Algorithm

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (
        DenseRing,
        DenseTree,
        DenseDoubleTree,
        DenseHierarchical,
        TopK,
        GTopK,
        GTopKNaive,
        GTopKHierarchical,
        RandK,
        ParameterServer,
        ParameterServerTopK,
        LAG,
        LASGWK1,
        LASGWK2,
        LASGPS,
        SASG,
    )
}

OWN_OPTIONS: dict[str, Option] = {
    option.name: option for algorithm in ALGORITHMS.values() for option in algorithm.options
}
"""All options that algorithms declare, by name."""


def owners_of(option: str) -> list[str]:
    """Return the algorithms that declare an option."""
    return [
        name for name, algorithm in ALGORITHMS.items() if option in {declared.name for declared in algorithm.options}
    ]


def name_of(text: str) -> str:
    """Return the name of an algorithm without its options: "gtopk" for ``gtopk:residual=index-intersection``."""
    return text.partition(":")[0]


def class_of(text: Any) -> type[Algorithm]:
    """Return the class of an algorithm, given with or without options; raise UsageError for an unknown name."""
    name = name_of(text) if isinstance(text, str) else text
    check_choice("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


@lru_cache(maxsize=1024)
def _given(text: str) -> Mapping[str, Any]:
    options = {option.name: option for option in class_of(text).options}
    return key_values(f"algorithm {name_of(text)!r}", text.partition(":")[2], options)


def own_options(text: str) -> dict[str, Any]:
    """Return the options in the text of an algorithm, by name; raise UsageError for an option that it does not have."""
    class_of(text)
    return dict(_given(text))


def settings_of(text: str) -> dict[str, Any]:
    """Return the values of all options of an algorithm: those in its text, and defaults for the others."""
    return {option.name: option.default for option in class_of(text).options} | own_options(text)


def variant_of(text: Any) -> tuple[Any, ...]:
    """Return a key that differs between variants of algorithms: the class and the values of all options, given or not.

    >>> variant_of("topk") == variant_of("topk:gather=ring") != variant_of("topk:gather=bruck")
    True
    """
    return (class_of(text), *settings_of(text).items())


def with_options(text: str, **values: Any) -> str:
    """Return the text of an algorithm with options added from `values`.

    Options that the algorithm does not have, default values, and options already in `text` are not added.

    >>> with_options("sasg", history=5, gather="bruck")
    'sasg:history=5'
    """
    given = own_options(text)
    added = {
        option.key: option.kind.write(values[option.name])
        for option in class_of(text).options
        if option.name in values and option.name not in given and values[option.name] != option.default
    }
    name, _, items = text.partition(":")
    items = ",".join([*filter(None, [items]), *(f"{key}={value}" for key, value in added.items())])
    return f"{name}:{items}" if items else name


def title_of(text: str) -> str:
    """Return the title of an algorithm with its options, where they differ from the defaults.

    >>> title_of("topk:gather=bruck"), title_of("sasg:history=5,serial-server=true")
    ('Top-k (bruck)', 'SASG (history 5, serial-server)')
    """
    algorithm, settings = class_of(text), settings_of(text)
    changed = [option for option in algorithm.options if settings[option.name] != option.default]
    words = [option.in_words(settings[option.name]) for option in changed]
    return algorithm.title + (f" ({', '.join(words)})" if words else "")


def taken_by(text: str) -> list[str]:
    """Return the names of the constructor parameters of an algorithm."""
    algorithm = class_of(text)
    if algorithm.__init__ is object.__init__:
        return []
    return [parameter for parameter in inspect.signature(algorithm.__init__).parameters if parameter != "self"]


def build_algorithm(text: str, options: Mapping[str, Any], *, strict: bool = True) -> Algorithm:
    """Return an algorithm by its name, which may come with options; with `strict`, others must be ones it takes."""
    takes = taken_by(text)
    if strict:
        for option in options:
            if option not in takes:
                raise unknown(f"option of {name_of(text)}", option, takes or ["none"])
    own = own_options(text)
    if "group_size" in own:
        own["groups"] = own.pop("group_size")
    values = dict(options) | own
    for each in class_of(text).options:
        if values.get(each.name) is not None:
            values[each.name] = each.read(values[each.name])
    built = class_of(text)(**{name: value for name, value in values.items() if name in takes})
    if ":" in text:
        built.name, built.title = text, title_of(text)
    return built
