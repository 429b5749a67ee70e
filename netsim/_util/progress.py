"""Callbacks by which a long operation reports how far it is."""

from collections.abc import Callable

OnRound = Callable[[str, int], None]
"""Called with an algorithm's name, or another stage's, and the step that rank 0 has finished."""

OnPoint = Callable[[int, int], None]
"""Called with the number of points that are known, and of all points so far."""


def ignore(algorithm: str, step: int) -> None:
    """Report no progress."""
