"""What the functions of the interface have in common: the check of a call, and the progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from netsim._util.errors import UsageError, shown
from netsim._util.progress import OnPoint, OnRound
from netsim._util.user_code import check_not_imported
from netsim.experiment.configuration import Experiment
from netsim.report.progress_bar import progress_bar


def check_call(call: str, on_round: OnRound | None = None, on_point: OnPoint | None = None) -> None:
    """Raise UsageError if `call` was made by a file that Python is importing, or a callback is no function."""
    check_not_imported(call)
    for name, told, of in (
        ("on_round", on_round, "an algorithm's name and a step"),
        ("on_point", on_point, "two numbers"),
    ):
        if told is not None and not callable(told):
            raise UsageError(f"{name} {shown(told)} must be a function of {of}")


@contextmanager
def shown_rounds(experiment: Experiment, on_round: OnRound, progress: bool | None) -> Iterator[OnRound]:
    """Yield a function that calls `on_round`, and shows a progress bar if `progress` says so."""
    total = experiment.round_count * len(experiment.algorithms)
    with progress_bar(progress, "rounds") as show:

        def told(algorithm: str, step: int) -> None:
            on_round(algorithm, step)
            if algorithm in experiment.algorithms:  # and not another stage of a real run
                show(experiment.algorithms.index(algorithm) * experiment.round_count + step + 1, total)

        yield told


@contextmanager
def shown_points(on_point: OnPoint, progress: bool | None) -> Iterator[OnPoint]:
    """Yield a function that calls `on_point`, and shows a progress bar if `progress` says so."""
    with progress_bar(progress, "simulations") as show:

        def told(known: int, total: int) -> None:
            on_point(known, total)
            show(known, total)

        yield told
