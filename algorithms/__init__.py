"""Distributed-SGD algorithms, one file each; the same code runs in the simulator and over torch.distributed.

To add one: a file with a subclass of :class:`netsim.training.algorithm.Algorithm`, and a line below. An algorithm is
named ``NAME`` or ``NAME:key=value,key=value``, where the keys are the options that its class declares. NAME is one of
:data:`ALGORITHMS`, or names a user's own class (:mod:`algorithms.own`). An installed package adds a name by an entry
point in the group ``netsim.algorithms``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import Any

from algorithms import own
from algorithms.dense import DenseRing
from algorithms.dense_double_tree import DenseDoubleTree
from algorithms.dense_hier import DenseHierarchical
from algorithms.dense_tree import DenseTree
from algorithms.dgc import DGC
from algorithms.diloco import DiLoCo
from algorithms.ef_signsgd import EFSignSGD
from algorithms.gtopk import GTopK, GTopKHierarchical
from algorithms.gtopk_naive import GTopKNaive
from algorithms.int8 import Int8
from algorithms.lag import LAG
from algorithms.lasg import LASGPS, LASGWK1, LASGWK2
from algorithms.local_sgd import LocalSGD, PostLocalSGD
from algorithms.oktopk import OkTopk
from algorithms.own import checked_class, class_named, options_of
from algorithms.powersgd import PowerSGD
from algorithms.ps import ParameterServer
from algorithms.ps_topk import ParameterServerTopK
from algorithms.qsgd import QSGD
from algorithms.randk import RandK
from algorithms.sasg import SASG
from algorithms.scalecom import ScaleCom
from algorithms.signsgd import ParameterServerSignSGD, SignSGD
from algorithms.sparcml import DSAR, SSAR
from algorithms.streaming_diloco import StreamingDiLoCo
from algorithms.terngrad import ParameterServerTernGrad, TernGrad
from algorithms.topk import TopK
from netsim._util.errors import UsageError, check_choice, unknown
from netsim._util.options import Option, key_values
from netsim._util.user_code import blaming, own_parts, plugins
from netsim.training.algorithm import Algorithm, Convergence

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
        DGC,
        ScaleCom,
        OkTopk,
        SSAR,
        DSAR,
        RandK,
        QSGD,
        TernGrad,
        SignSGD,
        EFSignSGD,
        Int8,
        PowerSGD,
        ParameterServer,
        ParameterServerTopK,
        ParameterServerTernGrad,
        ParameterServerSignSGD,
        LAG,
        LASGWK1,
        LASGWK2,
        LASGPS,
        SASG,
        LocalSGD,
        PostLocalSGD,
        DiLoCo,
        StreamingDiLoCo,
    )
}

BUILT_IN = frozenset(ALGORITHMS)
UNUSABLE: dict[str, UsageError] = {}
"""Why an algorithm of an installed package cannot be used, by its name."""


def _add_plugins() -> None:
    for name, found, error in plugins("netsim.algorithms"):
        try:
            if error is not None:
                raise error
            ALGORITHMS.setdefault(name, checked_class(name, found))
        except UsageError as why:
            UNUSABLE[name] = why


_add_plugins()


def _of_all(declared: Mapping[str, Option]) -> Option:
    """Return an option that algorithms declare, by their names; defaults in words that differ follow these names."""
    usual: dict[str, list[str]] = {}
    for name, each in declared.items():
        usual.setdefault(each.otherwise, []).append(name)
    first = next(iter(declared.values()))
    if len(usual) == 1:
        return first
    return replace(first, otherwise="; ".join(f"{', '.join(names)} {words}" for words, names in usual.items()))


def _own_options() -> dict[str, Option]:
    declared: dict[str, dict[str, Option]] = {}
    for name, kind in ALGORITHMS.items():
        for option in kind.options if name in BUILT_IN else ():
            declared.setdefault(option.name, {})[name] = option
    return {name: _of_all(options) for name, options in declared.items()}


OWN_OPTIONS = _own_options()
"""All options that netsim's own algorithms declare, by name."""


def owners_of(option: str) -> list[str]:
    """Return the algorithms that declare an option."""
    return [
        name for name, algorithm in ALGORITHMS.items() if option in {declared.name for declared in algorithm.options}
    ]


def parts_of(text: str) -> tuple[str, str]:
    """Return the name of an algorithm, and the text of its options.

    >>> parts_of("gtopk:residual=index-intersection"), parts_of("./mine.py:Mine:beta=0.9")
    (('gtopk', 'residual=index-intersection'), ('./mine.py:Mine', 'beta=0.9'))
    """
    name, _, rest = text.partition(":")
    return (name, rest) if name in ALGORITHMS else own_parts(text) or (name, rest)


def name_of(text: str) -> str:
    """Return the name of an algorithm without its options: "gtopk" for ``gtopk:residual=index-intersection``."""
    return parts_of(text)[0]


def is_users(text: str) -> bool:
    """Return whether an algorithm is a user's own class, or comes from another package."""
    return name_of(text) not in BUILT_IN


FEDERATED = ("fedavg", "fedprox", "federated", "federatedaveraging")
"""Names, without hyphens, of algorithms with sampled clients, which people ask for and which are not there."""


def class_of(text: Any) -> type[Algorithm]:
    """Return the class of an algorithm, given with or without options; raise UsageError for an unknown name."""
    name = name_of(text) if isinstance(text, str) else text
    if isinstance(name, str) and ":" in name:
        return class_named(name)
    if name in UNUSABLE and name not in ALGORITHMS:
        raise UNUSABLE[name]
    plain = re.sub("[-_ ]", "", name.lower()) if isinstance(name, str) else ""
    if plain in FEDERATED and name not in ALGORITHMS:
        raise UsageError(
            f"algorithm {name!r}: netsim samples no clients and weights all workers alike, so there is no federated "
            "averaging; use local-sgd or diloco, whose workers take steps of their own, with --split dirichlet:0.1 for "
            "unequal data, or your own: FILE.py:CLASS"
        )
    check_choice("algorithm", name, [*ALGORITHMS, "or your own: FILE.py:CLASS"])
    return ALGORITHMS[name]


def is_dense_sgd(text: str) -> bool:
    """Return whether each step of an algorithm is that of dense SGD, so that training takes as many rounds.

    >>> [is_dense_sgd(name) for name in ("dense-tree", "ps", "topk", "powersgd", "lag", "local-sgd")]
    [True, True, False, False, False, False]
    """
    return class_of(text).convergence is Convergence.EXACT


def text_of(given: Any) -> Any:
    """Return the text of an algorithm given as a class or an object; anything else as it is.

    >>> text_of(TopK), text_of(DenseRing(segment="none"))
    ('topk', 'dense:segment=none')
    """
    kind = given if isinstance(given, type) else type(given)
    if not issubclass(kind, Algorithm):
        return given
    return own.text_of(given, next((name for name, found in ALGORITHMS.items() if found is kind), None))


def declared_by(text: str) -> tuple[Option, ...]:
    """Return the options that an algorithm has of its own."""
    return options_of(class_of(text)) if is_users(text) else class_of(text).options


def _written(text: str) -> Mapping[str, Any]:
    name, written = parts_of(text)
    return key_values(name, written, {option.name: option for option in declared_by(text)})


_written_once = lru_cache(maxsize=1024)(_written)


def own_options(text: str) -> dict[str, Any]:
    """Return the options in the text of an algorithm, by name; raise UsageError for an option that it does not have."""
    class_of(text)
    return dict(_written(text) if is_users(text) else _written_once(text))


def settings_of(text: str) -> dict[str, Any]:
    """Return the values of all options of an algorithm: those in its text, and defaults for the others."""
    return {option.name: option.default for option in declared_by(text)} | own_options(text)


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
        for option in declared_by(text)
        if option.name in values and option.name not in given and values[option.name] != option.default
    }
    name, items = parts_of(text)
    items = ",".join([*filter(None, [items]), *(f"{key}={value}" for key, value in added.items())])
    return f"{name}:{items}" if items else name


def title_of(text: str) -> str:
    """Return the title of an algorithm with its options, where they differ from the defaults.

    >>> title_of("topk:gather=bruck"), title_of("dense-hier:group-size=5,segment=none")
    ('Top-k (bruck)', 'dense (hierarchical group-size 5 segment none)')
    """
    algorithm, settings = class_of(text), settings_of(text)
    changed = [option for option in declared_by(text) if settings[option.name] != option.default]
    words = [option.in_words(settings[option.name]) for option in changed]
    if not words:
        return algorithm.title
    begin = f"{algorithm.title[:-1]} " if algorithm.title.endswith(")") else f"{algorithm.title} ("
    return f"{begin}{' '.join(words)})"


def check_titles(texts: Sequence[str]) -> None:
    """Raise UsageError if a user's algorithm has the title of another one, which results are told apart by."""
    titles: dict[str, str] = {}
    for text in texts:
        if (other := titles.setdefault(title_of(text), text)) != text and (is_users(text) or is_users(other)):
            raise UsageError(f"algorithms {other!r} and {text!r} have the same title {title_of(text)!r}; change one")


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
                raise unknown(f"option of {name_of(text)}:", option, takes or ["none"])
    own = own_options(text)
    if "group_size" in own:
        own["groups"] = own.pop("group_size")
    values = dict(options) | own
    for each in declared_by(text):
        if values.get(each.name) is not None:
            values[each.name] = each.read(values[each.name])
    chosen = {name: value for name, value in values.items() if name in takes}
    with blaming(f"algorithm {text!r}", "its constructor") if is_users(text) else nullcontext():
        built = class_of(text)(**chosen)
    if ":" in text:
        built.name, built.title = text, title_of(text)
    return built
