"""Notes on options that were given and had no effect, and on the algorithms or topologies that use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from algorithms import ALGORITHMS, class_of, name_of, own_options, settings_of, taken_by
from algorithms.selection import FIRST_DENSITY
from netsim.experiment.configuration import Experiment
from netsim.experiment.given import option_of
from netsim.experiment.results import Result

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
    "split",
    "sampling",
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
        *_of_no_algorithm(experiment, given),
        *_already_dense(experiment, results),
        *_without_gradients(experiment, given),
        *_never_reached(experiment),
        *_never_skipping(experiment),
        *_cleared(results),
        *_unwatched(given, watched),
    ]


def _of_no_tree(experiment: Experiment, given: list[str]) -> Iterator[str]:
    name, _, keys = experiment.topology.partition(":")
    if "fan_out" in given and (name != "tree" or "fan" in keys):
        yield f"{_written(experiment, 'fan_out')} changed nothing: only a tree without the key fan-out uses it."


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


def _without_gradients(experiment: Experiment, given: list[str]) -> Iterator[str]:
    if not experiment.timing_only:
        return
    idle = [_written(experiment, option) for option in TRAINING if option in given]
    for name in experiment.algorithms:
        own = own_options(name)
        idle += [f"{option} {own[option]} of {name_of(name)}" for option in ("delay", "alpha") if option in own]
    if idle:
        yield f"{', '.join(idle)} changed nothing: with --timing-only no gradient is computed."


def _never_reached(experiment: Experiment) -> Iterator[str]:
    late = [str(step) for step in experiment.lr_decay_at if step >= experiment.round_count]
    if late and not experiment.timing_only:
        yield (
            f"--lr-decay-at {','.join(late)} changed nothing: rounds are numbered 0 to {experiment.round_count - 1}."
        )


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
