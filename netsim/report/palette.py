"""The look of everything in pictures: a colour belongs to an algorithm, in every picture of every report.

The class of an algorithm declares its colour. Related algorithms, such as dense exchanges by a ring and by a tree, have
shades of one colour. The same algorithm with other options has the same colour, and another marker and dash.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple, TypeAlias

from algorithms import ALGORITHMS, name_of

Dash: TypeAlias = tuple[float, ...] | str
"""Lengths of strokes and gaps in line widths, as seaborn takes them; "" is a solid line."""

COLOURS = ("#0173b2", "#d55e00", "#029e73", "#c765ad", "#8d7a5b", "#3fa0d8", "#7f7f7f", "#6a40f0")
"""Seaborn's colour-blind palette, adjusted to be legible on white and on black."""
ALGORITHM_COLOURS: dict[str, str] = {
    name: colour for name, kind in ALGORITHMS.items() if (colour := vars(kind).get("colour")) is not None
}
"""The colours that classes declare, by name; without one, the colour of an algorithm differs by picture."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Dash, ...] = (
    "", (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (3, 1), (8, 2), (1, 2), (4, 1, 1, 1, 1, 1),
)  # fmt: skip
ACTIVITY_COLOURS = {
    "compute": "#808080",
    "select": "#4f7f86",
    "merge": "#9a6fb0",
    "send and receive": "#b8860b",
    "send": "#d9b44a",
    "receive": "#97792e",
    "wait": "#80808040",
    "selection and merging": "#4f7f86",
    "exposed communication": "#b8860b",
}
"""Colours of what a worker does, none of which is an algorithm's; communication is brown and yellow."""


class Look(NamedTuple):
    """How a series is drawn."""

    colour: str
    marker: str
    dash: Dash


def looks_of(algorithms: Mapping[str, str | None]) -> dict[str, Look]:
    """Return the look of each series of a picture.

    Parameters
    ----------
    algorithms
        The algorithm of each series, with or without options, by the name of the series. None for a series that is no
        algorithm's; such a series, and an algorithm that netsim does not have, take a colour that nothing else has.

    Examples
    --------
    >>> looks = looks_of({"S-SGD": "dense", "Bruck": "topk:gather=bruck", "ring": "topk", "ideal": None})
    >>> looks["Bruck"].colour == looks["ring"].colour, looks["Bruck"].marker == looks["ring"].marker
    (True, False)
    """
    colours = {name: algorithm and ALGORITHM_COLOURS.get(name_of(algorithm)) for name, algorithm in algorithms.items()}
    free = _free_places([COLOURS.index(colour) for colour in colours.values() if colour in COLOURS])
    looks: dict[str, Look] = {}
    drawn = set()
    for name, colour in colours.items():
        if colour in COLOURS and colour not in drawn:
            place = form = COLOURS.index(colour)
        else:
            place, form = next(free)
        drawn.add(colour)
        looks[name] = Look(colour or COLOURS[place], MARKERS[form], DASHES[form])
    return looks


def _free_places(taken: list[int]) -> Iterator[tuple[int, int]]:
    """Yield places in the palette and among markers and dashes; a colour that comes again has others of these."""
    every = range(len(COLOURS))
    free = [place for place in every if place not in taken]
    for lap in count(0 if free else 1):
        yield from ((place, (place + lap) % len(MARKERS)) for place in free or every)
