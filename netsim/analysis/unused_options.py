"""Notes on options that were given and had no effect, and on the algorithms or topologies that use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from algorithms import ALGORITHMS, class_of, name_of, own_options, settings_of, taken_by
from algorithms.selection import FIRST_DENSITY
from netsim._util.device import resolve_device
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import option_of
from netsim.experiment.results import Result
from netsim.training.workloads.data import BUNDLED
from topologies import STARS

SELECTOR = "selector"
SELECTING = ("density", "k", "per_tensor", "select", "density_warmup")
"""Options that algorithms take as their selector."""

TRAINING = (
    "learning_rate",
    "lr_warmup",
    "lr_decay_at",
    "momentum",
    "weight_decay",
    "clip",
    "aggregate",
    "data",
    "data_dir",
    "split",
    "sampling",
    "batch_size",
    "device",
    "tf32",
)
"""Options that only gradients use. A simulation of sizes has no gradients, so it also never skips an upload."""


def idle_options(experiment: Experiment, results: Sequence[Result], *, watched: bool) -> list[str]:
    """Return a sentence for every option that was given and had no effect.

    Parameters
    ----------
    experiment
        The configuration. An option with its default value counts as not given.
    results
        The results of the run.
    watched
        Whether ``--metrics`` was given.
    """
    given = [option.name for option in fields(Experiment) if getattr(experiment, option.name) != option.default]
    return [
        *_of_no_tree(experiment, given),
        *_of_equal_hosts(experiment, given),
        *_of_no_algorithm(experiment, given),
        *_already_dense(experiment, results),
        *_without_rounding(experiment),
        *_without_gradients(experiment, given),
        *_without_gpu(experiment, given),
        *_without_chance(experiment, given),
        *_never_reached(experiment),
        *_at_once_warm(experiment),
        *_bundled_data(experiment),
        *_never_skipping(experiment),
        *_never_exchanging(results),
        *_cleared(results),
        *_unwatched(given, watched),
    ]


def idle_of_links(experiment: Experiment) -> list[str]:
    """Return a sentence for every option of the network's links that was given and had no effect."""
    given = [option.name for option in fields(Experiment) if getattr(experiment, option.name) != option.default]
    return list(_of_no_tree(experiment, given))


def _of_no_tree(experiment: Experiment, given: list[str]) -> Iterator[str]:
    name, _, keys = experiment.topology.partition(":")
    if "fan_out" in given and (name != "tree" or "fan" in keys):
        yield f"{_written(experiment, 'fan_out')} changed nothing: only a tree without the key fan-out uses it."


def _of_equal_hosts(experiment: Experiment, given: list[str]) -> Iterator[str]:
    if "placement" in given and experiment.topology in STARS and not experiment.effects.any:
        yield f"{_written(experiment, 'placement')} changed nothing: all hosts of a star are alike."


def _of_no_algorithm(experiment: Experiment, given: list[str]) -> Iterator[str]:
    for option in given:
        if option in SELECTING and not any(_takes(name, option) for name in experiment.algorithms):
            owners = ", ".join(name for name in ALGORITHMS if _takes(name, option))
            whose = owners if option == "select" else "algorithms that select entries"
            yield f"{_written(experiment, option)} changed nothing: it applies to {whose}."


def _takes(name: str, option: str) -> bool:
    by_magnitude = option != "select" or not class_of(name).random
    return SELECTOR in taken_by(name) and by_magnitude


def _already_dense(experiment: Experiment, results: Sequence[Result]) -> Iterator[str]:
    sparse = [(result.k, result.elements) for result in results if result.k is not None]
    if experiment.density_warmup and sparse and all(k >= int(FIRST_DENSITY * elements) for k, elements in sparse):
        k, elements = sparse[0]
        yield (
            f"{_written(experiment, 'density_warmup')} changed nothing: a warm-up starts at density {FIRST_DENSITY}, "
            f"which is not above the final density {k / elements:.3g}."
        )


def _without_rounding(experiment: Experiment) -> Iterator[str]:
    for name in experiment.algorithms:
        if experiment.dtype == "fp32" and own_options(name).get("fp32_sums"):
            yield f"fp32-sums of {name_of(name)} changed nothing: messages hold fp32; add --dtype bf16 or fp16."


def _without_gradients(experiment: Experiment, given: list[str]) -> Iterator[str]:
    if not experiment.timing_only:
        return
    names = list(TRAINING)
    if experiment.elements is not None or experiment.model is not None:
        names.append("workload")  # otherwise it decides the size
    if experiment.profile is None and any(_takes(name, "select") for name in experiment.algorithms):
        names.append("select")  # a profile has the cost of each kind of selection
    idle = [_written(experiment, option) for option in names if option in given]
    for name in experiment.algorithms:
        own = own_options(name)
        idle += [f"{option} {own[option]} of {name_of(name)}" for option in ("delay", "alpha") if option in own]
    if idle:
        yield f"{', '.join(idle)} changed nothing: with --timing-only no gradient is computed."


def _without_chance(experiment: Experiment, given: list[str]) -> Iterator[str]:
    chance = experiment.placement == "random" or experiment.effects.any
    if "seed" in given and experiment.timing_only and not chance:
        yield f"{_written(experiment, 'seed')} changed nothing: sizes, and times without random effects, draw nothing."


def _at_once_warm(experiment: Experiment) -> Iterator[str]:
    if experiment.lr_warmup == 1 and not experiment.timing_only:
        yield "--lr-warmup 1 changed nothing: a warm-up of one round starts at the full learning rate."


def _bundled_data(experiment: Experiment) -> Iterator[str]:
    if experiment.data_dir is not None and experiment.data_name() in BUNDLED:
        yield f"{_written(experiment, 'data_dir')} changed nothing: the data {experiment.data_name()} come with netsim."


def _never_reached(experiment: Experiment) -> Iterator[str]:
    late = [str(step) for step in experiment.lr_decay_at if step >= experiment.round_count]
    if late and not experiment.timing_only:
        yield (
            f"--lr-decay-at {','.join(late)} changed nothing: rounds are numbered 0 to {experiment.round_count - 1}."
        )


def _without_gpu(experiment: Experiment, given: list[str]) -> Iterator[str]:
    if "tf32" in given and not experiment.timing_only and resolve_device(experiment.device) == "cpu":
        yield "--tf32 changed nothing: a CPU computes in float32."


def _never_skipping(experiment: Experiment) -> Iterator[str]:
    if experiment.timing_only:
        return
    lazy: dict[int, list[str]] = {}
    for name in experiment.algorithms:
        history = settings_of(name).get("history", 0)
        if experiment.round_count <= history:
            lazy.setdefault(history, []).append(name)
    for history, names in lazy.items():
        yield (
            f"{', '.join(names)} skipped no upload: all workers upload during the first {history} rounds (history), "
            f"and this run has {experiment.round_count}."
        )


def _never_exchanging(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.uploads or result.mode != "simulated" or not class_of(result.algorithm).steps_locally:
            continue
        h = class_of(result.algorithm).period(settings_of(result.algorithm))
        untrained = "" if result.final_loss is None else " Its loss is that of the untrained model."
        yield (
            f"{result.title} exchanged nothing: it does so every h = {h} rounds, and this run has {result.rounds}."
            f"{untrained} Give --rounds {h} or more, or a smaller h: {name_of(result.algorithm)}:h={result.rounds}."
        )


def _cleared(results: Sequence[Result]) -> Iterator[str]:
    titles = [result.title for result in results if result.momentum == "workers" and result.k == result.elements]
    if titles:
        yield (
            f"--momentum changed nothing for {', '.join(titles)}: momentum correction clears the velocity of every "
            "sent entry, and all entries were sent."
        )


def _unwatched(given: list[str], watched: bool) -> Iterator[str]:
    if "eval_every" in given and not watched:
        yield "--eval-every changed nothing: evaluations are written to the --metrics file, and no --metrics was given."


def _written(experiment: Experiment, option: str) -> str:
    """Return an option with its value, as written on the command line."""
    value = getattr(experiment, option)
    name = "--" + option_of(option).replace("_", "-")
    if value is True:
        return name
    return f"{name} {','.join(map(str, value)) if isinstance(value, tuple) else value}"
