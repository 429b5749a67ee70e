"""Colours of pictures, as people see them who lack a kind of cone (Machado, Oliveira and Fernandes 2009, table 1)."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from algorithms import ALGORITHMS, BUILT_IN
from netsim.report.palette import ALGORITHM_COLOURS, COLOURS, DASHES, MARKERS, looks_of

SEEN = {
    "all cones": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
}  # fmt: skip
JUST_NOTICEABLE = 2.3
"""Of distances in CIELAB (Mahy, Van Eycken and Oosterlinck 1994)."""
EVERY = list(dict.fromkeys([*COLOURS, *ALGORITHM_COLOURS.values()]))


def linear(colour: str) -> np.ndarray:
    """Return red, green and blue as light (IEC 61966-2-1)."""
    coded = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """Return CIELAB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = (
        value ** (1 / 3) if value > (6 / 29) ** 3 else value / (3 * (6 / 29) ** 2) + 4 / 29
        for value in to_xyz @ light.clip(0, 1) / np.array([0.9505, 1, 1.089])
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(light: np.ndarray, other: float) -> float:
    """Return the contrast to a grey of so much light (WCAG 2)."""
    own = float(np.array([0.2126, 0.7152, 0.0722]) @ light)
    return (max(own, other) + 0.05) / (min(own, other) + 0.05)


@pytest.mark.parametrize("who", SEEN)
def test_colours_are_told_apart(who: str) -> None:
    seen = {colour: lab(SEEN[who] @ linear(colour)) for colour in EVERY}
    for one, other in combinations(EVERY, 2):
        distance = float(np.linalg.norm(seen[one] - seen[other]))
        assert distance > 3 * JUST_NOTICEABLE, f"{one} and {other} are {distance:.1f} apart"


def test_the_usual_red_and_green_would_be_noticed() -> None:
    red, green = (lab(SEEN["deuteranopia"] @ linear(colour)) for colour in ("#c83c3c", "#6e7d20"))
    assert np.linalg.norm(red - green) < 20 * JUST_NOTICEABLE


@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_colours_are_seen_on_white_and_on_black(paper: str) -> None:
    """Three to one, as WCAG 2 asks of graphics, but for a tenth."""
    behind = float(np.array([0.2126, 0.7152, 0.0722]) @ linear(paper))
    for colour in EVERY:
        assert contrast(linear(colour), behind) > 2.7, colour


def test_markers_and_dashes_differ_where_colours_do() -> None:
    assert len(set(COLOURS)) == len(set(MARKERS)) == len(set(map(str, DASHES))) == 8


def test_each_algorithm_has_a_colour_that_no_other_has() -> None:
    assert set(ALGORITHM_COLOURS) >= BUILT_IN
    assert len({ALGORITHM_COLOURS[name] for name in BUILT_IN}) == len(BUILT_IN)


@pytest.mark.parametrize("others", [[], ["gtopk-hier", "sasg"], ["mine.py:Mine", None], [*ALGORITHMS]])
def test_a_colour_belongs_to_an_algorithm_whatever_is_beside_it(others: list[str | None]) -> None:
    """Also with options, and whatever the picture calls it; what is no algorithm takes another colour."""
    series = {"S-SGD": "dense:segment=none", "ours": "gtopk"}
    series |= {f"series {at}": name for at, name in enumerate(others)}
    looks = looks_of(series)
    assert (looks["S-SGD"].colour, looks["ours"].colour) == (ALGORITHM_COLOURS["dense"], ALGORITHM_COLOURS["gtopk"])
    strangers = {looks[f"series {at}"].colour for at, name in enumerate(others) if name not in ALGORITHMS}
    assert not strangers & {ALGORITHM_COLOURS["dense"], ALGORITHM_COLOURS["gtopk"]}
    assert len(set(looks.values())) == len(looks)


def test_two_options_of_one_algorithm_differ_by_marker_and_dash() -> None:
    ring, bruck = looks_of({"ring": "topk:gather=ring", "bruck": "topk:gather=bruck"}).values()
    assert ring.colour == bruck.colour
    assert ring.marker != bruck.marker
    assert ring.dash != bruck.dash
