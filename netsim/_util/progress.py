"""Callbacks through which a long operation reports its progress."""

from collections.abc import Callable

OnRound = Callable[[str, int], None]
"""Called with the name of an algorithm or of another stage, and the step that rank 0 has finished."""

OnPoint = Callable[[int, int], None]
"""Called with the number of points of a study that have results, and the number of all points so far."""


def ignore(algorithm: str, step: int) -> None:
    """Report no progress."""


def ignore_points(known: int, total: int) -> None:
    """Report no progress."""
