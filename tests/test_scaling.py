"""Fits and crossovers against known curves, and the scaling study against the laws of the papers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim._util.errors import UsageError
from studies.crossovers import brackets, crossovers, unsettled
from studies.fits import fit, per_entry
from tests.browser import CHROMIUM, CUT, OVERLAPPING, browser
from tests.command import run

WORKERS = (2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
KNOWN: dict[str, Callable[[float], float]] = {
    "1": lambda workers: 0.0,
    "log2(P)": math.log2,
    "(P-1)/P": lambda workers: (workers - 1) / workers,
    "P": lambda workers: workers,
    "sqrt(P)": math.sqrt,
}


@pytest.mark.parametrize("form", KNOWN)
@given(st.floats(1e-4, 1e4), st.floats(1e-2, 1e2))
def test_an_exact_form_is_found_exactly(form: str, intercept: float, ratio: float) -> None:
    slope = intercept * ratio
    found = fit(WORKERS, [intercept + slope * KNOWN[form](workers) for workers in WORKERS], resamples=20)
    assert found.form == form
    assert found.intercept == pytest.approx(intercept, rel=1e-6)
    assert found.slope == pytest.approx(0 if form == "1" else slope, rel=1e-6)
    assert found.worst < 1e-6
    assert found.slope_interval[0] == pytest.approx(found.slope_interval[1])


@pytest.mark.parametrize("form", ["P", "(P-1)/P", "log2(P)", "sqrt(P)"])
def test_an_intercept_that_is_rounding_is_shown_as_zero(form: str) -> None:
    """Of times without an intercept rounding leaves about 1e-18 s; one that is a ten-thousandth of the times stays."""
    slopes = [0.013 * KNOWN[form](workers) for workers in WORKERS]
    assert fit(WORKERS, slopes, resamples=20).offset == 0
    small = 1e-4 * min(slopes)
    assert fit(WORKERS, [small + each for each in slopes], resamples=20).offset == pytest.approx(small, rel=1e-6)


@pytest.mark.parametrize("form", KNOWN)
def test_noise_of_one_percent_hides_no_form_and_intervals_cover(form: str) -> None:
    """Of 100 noisy curves nearly all get their form back, and the slope's 95 % interval holds it about so often."""
    draws = np.random.default_rng(1).normal(1, 0.01, (100, len(WORKERS)))
    curve = np.array([1 + 3 * KNOWN[form](workers) for workers in WORKERS])
    fits = [fit(WORKERS, list(curve * draw), resamples=200) for draw in draws]
    right = [each for each in fits if each.form == form]
    # AIC, by design, adds a needless term to a constant now and then.
    assert len(right) >= (70 if form == "1" else 98)
    true, interval = (1.0, "intercept_interval") if form == "1" else (3.0, "slope_interval")
    covered = [getattr(each, interval)[0] <= true <= getattr(each, interval)[1] for each in right]
    assert 0.8 <= np.mean(covered) <= 1


def test_the_fit_is_weighted_least_squares() -> None:
    """Against numpy's own, on times that no form meets."""
    times = np.random.default_rng(3).uniform(1, 2, len(WORKERS)) * np.array(WORKERS)
    slope, intercept = np.polyfit(WORKERS, times, 1, w=1 / times)
    found = fit(WORKERS, list(times))
    assert found.form == "P"
    assert (found.intercept, found.slope) == (pytest.approx(intercept), pytest.approx(slope))


def test_the_same_seed_gives_the_same_interval() -> None:
    times = [1.0 + math.ceil(math.log2(workers)) for workers in WORKERS]
    assert fit(WORKERS, times, seed=5).slope_interval == fit(WORKERS, times, seed=5).slope_interval
    assert fit(WORKERS, times, seed=5).slope_interval != fit(WORKERS, times, seed=6).slope_interval


@pytest.mark.parametrize(
    ("workers", "seconds"),
    [((2, 4, 8, 16), (1.0, 2.0, 3.0, 4.0)), (WORKERS, (1.0,) * 9 + (0.0,)), (WORKERS, (1.0,) * 9 + (math.nan,))],
)
def test_what_cannot_be_fitted(workers: tuple[int, ...], seconds: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        fit(workers, seconds)


def test_growth_with_k_is_told_from_growth_without() -> None:
    selected = [1_000, 3_000, 10_000]
    with_k = [fit(WORKERS, [(k * 2e-6 + 1e-4) * workers for workers in WORKERS]) for k in selected]
    without = [fit(WORKERS, [1e-4 * workers for workers in WORKERS]) for _ in selected]
    found = per_entry(selected, with_k)
    assert found is not None
    assert found.proportional
    assert found.seconds == pytest.approx(2e-6)
    assert not (per_entry(selected, without) or found).proportional
    assert per_entry([1_000], with_k[:1]) is None


@given(st.integers(2, 100), st.floats(0.1, 10))
def test_two_lines_cross_where_they_cross(crossing: int, slope: float) -> None:
    """A constant against a line through the origin that meets it half a worker before `crossing`."""
    seconds = tuple(
        {workers: time(workers) for workers in sorted({*WORKERS, crossing - 1, crossing} - {1})}
        for time in (lambda workers: slope * (crossing - 0.5), lambda workers: slope * workers)
    )
    fits = tuple(fit(WORKERS, [each[workers] for workers in WORKERS], resamples=20) for each in seconds)
    found = crossovers(("flat", "rising"), (seconds[0], seconds[1]), (fits[0], fits[1]))
    if crossing == 2:
        assert found == []
        return
    (only,) = found
    assert (only.before, only.after, only.bracket) == ("rising", "flat", (crossing - 1, crossing))
    assert only.fitted == pytest.approx(crossing - 0.5, rel=1e-3)


def test_equal_times_are_no_change() -> None:
    assert brackets({2: 1.0, 4: 2.0, 8: 3.0}, {2: 1.0, 4: 2.0, 8: 4.0}) == []
    assert brackets({2: 1.0, 4: 2.0, 8: 5.0}, {2: 2.0, 4: 2.0, 8: 4.0}) == [(2, 8, True)]


def tree(workers: int) -> float:
    """Messages one after another in gTop-k's trees up and down."""
    return 2.0 * math.ceil(math.log2(workers))


@given(st.floats(0.3, 3), st.floats(-3, 3), st.integers(0, 3))
def test_an_order_that_goes_to_and_fro_is_told_exactly(slope: float, offset: float, shape: int) -> None:
    """A tree's steps against a line: what refining finds, octave by octave, is what comparing every P finds."""
    grid, most = [(2, 3, 4, 6, 8, 12, 16, 24, 32), (2, 4, 8, 16, 32), (2, 5, 9, 17, 31), (3, 7, 20, 32)][shape], 32

    def line(workers: int) -> float:
        return max(0.01, offset + slope * workers)

    one, other = ({workers: time(workers) for workers in grid} for time in (tree, line))
    while asked := unsettled(one, other, most):
        assert not set(asked) & one.keys()
        assert max(asked) <= most
        one |= {workers: tree(workers) for workers in asked}
        other |= {workers: line(workers) for workers in asked}
    every = brackets(*({workers: time(workers) for workers in range(2, most + 1)} for time in (tree, line)))
    found = brackets(one, other)
    assert set(found) <= set(every), "a change is not exact"
    for low, high, _ in found:
        octave = range(1 << (low.bit_length() - 1), 2 + (1 << (high - 1).bit_length()))
        assert [each for each in every if each[0] in octave and each[1] in octave] == [
            each for each in found if each[0] in octave and each[1] in octave
        ]


SMALL = (
    "--set workers=2,3,4,6,8,12,16 --set algorithms=dense,topk:segment=none,gtopk --set bandwidths=1Gbps "
    "--set exact_up_to=16 --set topologies=star,ring --jobs 1"
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from netsim.study_engine import run_study
    from netsim.study_engine.settings import settings_of
    from studies import load_study

    folder = tmp_path_factory.mktemp("scaling")
    sets = [part for part in SMALL.split() if "=" in part]
    run_study(load_study("scaling"), settings_of(load_study("scaling"), sets=sets), folder, jobs=1)
    return folder


def conclusion(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "conclusion.json").read_text())
    return found


def test_the_papers_laws_are_found(small: Path) -> None:
    """On a star: Top-k (P-1)(α + 2kβ), gTop-k up to 2⌈log₂P⌉(α + 2kβ), with β = 32 ns and α = 50 µs."""
    found = conclusion(small)
    orders = {law["algorithm"]: law["order"] for law in found["laws"] if law["topology"] == "star"}
    assert orders == {"dense": "O(1)", "topk:segment=none": "O(kP)", "gtopk": "O(k log P)"}
    for each in found["fits"]:
        if (each["algorithm"], each["topology"]) == ("topk:segment=none", "star"):
            assert each["form"] == "P"
            assert each["coefficients"]["slope_s"] == pytest.approx(50e-6 + 2 * each["k"] * 32e-9, rel=1e-6)
        if (each["algorithm"], each["topology"]) == ("gtopk", "star"):
            assert each["form"] == "log2(P)"
            message = 50e-6 + 2 * each["k"] * 32e-9
            low, high = each["intervals"]["slope_s"]
            assert low <= 2 * message <= high
            assert 1.5 * message < each["coefficients"]["slope_s"] < 2.5 * message
    said = " ".join(found["conclusion"])
    assert "Top-k (segment none) communicates in O(kP)" in said
    assert "gTop-k communicates in O(k log P)" in said
    assert said.count("95% interval") == 1  # of gTop-k: the others fit exactly


def test_the_crossover_is_the_one_that_simulation_finds(small: Path) -> None:
    """gTop-k against Top-k on the star, found by simulating every P (not by bisection)."""
    import netsim

    def faster(workers: int) -> bool:
        options = {"workers": workers, "timing_only": True, "model": "resnet50", "density": 0.001}
        topk, gtopk = netsim.simulate(algorithm="topk:segment=none,gtopk", **options).results
        return gtopk.round_time_s < topk.round_time_s

    (crossing,) = (
        each
        for each in conclusion(small)["crossovers"]
        if each["topology"] == "star" and each["density"] == 0.001 and each["between"] == ["topk:segment=none", "gtopk"]
    )
    first = next(workers for workers in range(2, 17) if faster(workers))
    assert crossing["bracket"] == [first - 1, first]
    assert crossing["interval"][0] <= crossing["fitted_workers"] <= crossing["interval"][1]


@pytest.mark.slow
def test_a_million_workers_on_an_idle_star(tmp_path: Path) -> None:
    """On an idle star, against the papers' forms: Top-k (P-1)(α + 2kβ), gTop-k 2 log₂P (α + 2kβ)."""
    from netsim.study_engine import run_study
    from netsim.study_engine.settings import settings_of
    from studies import load_study

    sets = ["workers=2,4,16,256,65536,1048576", "topologies=star", "bandwidths=1Gbps",
            "densities=0.001", "algorithms=topk,gtopk", "exact_up_to=4"]  # fmt: skip
    study = load_study("scaling")
    ran = run_study(study, settings_of(study, sets=sets), tmp_path, jobs=1)
    message = 50e-6 + 2 * 25_557 * 32e-9
    found = {(each["algorithm"], each["workers"]): each["round_time_s"] for each in ran.data["scaling"]}
    for workers in (65536, 1048576):
        assert found["topk", workers] == pytest.approx(0.12 + (workers - 1) * message)
        assert found["gtopk", workers] == pytest.approx(0.12 + 2 * math.log2(workers) * message)
    assert "gTop-k in O(log P)" in ran.conclusion.sentences[0]  # one density says nothing of k


def test_many_flows_through_one_uplink_are_told(tmp_path: Path) -> None:
    """By Bruck's all-gather hosts of a rack of four send at once, through an uplink with the bandwidth of one.

    Of 31 vectors, the first goes to the neighbour: one host of a rack sends through the uplink. The next two go two
    hosts further, so that two hosts share the uplink. The other 28 go further still, so that all four share it.
    """
    from netsim.study_engine import run_study
    from netsim.study_engine.settings import settings_of
    from studies import load_study

    sets = [
        "workers=2,4,8,16,32", "algorithms=topk:gather=bruck", "densities=0.1", "bandwidths=1Gbps", "latency=1ns",
        "topologies=star, racks:size=4,oversubscription=4",
    ]  # fmt: skip
    study = load_study("scaling")
    ran = run_study(study, settings_of(study, sets=sets), tmp_path, jobs=1)
    (slower,) = ran.data["slower_topologies"]
    assert slower["times_as_long"] == pytest.approx((1 + 2 * 2 + 28 * 4) / 31, rel=1e-3)
    assert "Top-k (bruck)" in " ".join(ran.conclusion.sentences)


def test_efficiency_and_speed_up_follow_from_the_round(small: Path) -> None:
    for each in conclusion(small)["scaling"]:
        assert each["scaling_efficiency"] == pytest.approx(0.120 / each["round_time_s"])
        assert each["speed_up"] == pytest.approx(each["workers"] * each["scaling_efficiency"])


def test_what_is_written(small: Path) -> None:
    page = (small / "report.html").read_text()
    assert page.index("O(k log P)") < page.index("<svg")
    assert {
        "points.jsonl",
        "points.csv",
        "report-fits.csv",
        "report-crossovers.csv",
        "report-rounds-with-16-workers.csv",
    } <= {path.name for path in small.iterdir()}


def in_a_browser(report: Path, profile: Path, pictures: int) -> None:
    """Open a report, on a telephone and on a screen: it asks for nothing, complains of nothing, and all is legible."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine to open the page in (Debian: apt-get install chromium)")
    with browser(profile) as page:
        page.open(report.as_uri())
        assert page.requests == [report.as_uri()]
        assert page.complaints == []
        for width in (360, 1280):
            page.look(width)
            page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
            assert page.evaluate("document.querySelectorAll('figure svg').length") == pictures
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate(CUT) == []
            assert page.evaluate(OVERLAPPING) == []
            headline = "document.querySelector('.headline').getClientRects()[0].bottom"
            assert page.evaluate(f"{headline} < document.querySelector('figure').getBoundingClientRect().top")
        lines = "parseFloat(getComputedStyle(document.querySelector('.headline')).lineHeight)"
        assert page.evaluate(f"document.querySelector('.headline').clientHeight < 6 * {lines}")
        assert "O(k log P)" in page.evaluate("document.body.innerText")


def test_a_browser_shows_the_report(small: Path, tmp_path: Path) -> None:
    in_a_browser(small / "report.html", tmp_path, 4 + 2 * 3)


@pytest.mark.slow
def test_the_quick_study_names_both_laws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, f"study scaling --quick --out {tmp_path / 'out'}")
    assert ran.code == 0
    for said in (
        "Top-k (segment none) communicates in O(kP)",
        "gTop-k communicates in O(k log P)",
        "gTop-k breaks its law on ring",
    ):
        assert said in ran.out
    in_a_browser(tmp_path / "out" / "report.html", tmp_path / "profile", 4 + 2 + 2 * 4 + 3)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("workers=2,4", "at least 5"),
        ("workers=1,2,3,4,5", "each at least 2"),
        ("algorithms=topk,gtopkk", "did you mean 'gtopk'"),
        ("algorithms=topk:gather=bruk", "did you mean 'bruck'"),
        ("topologies=mesh", "unknown topology 'mesh'"),
        ("densities=2", "density 2"),
        ("bandwidths=fast", "bandwidth 'fast'"),
        ("model=resnet", "unknown model"),
        ("model=3", "setting model 3"),
        ("latency=0s", "latency"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: str, said: str) -> None:
    ran = run(capsys, f"study scaling --set {sets} --out {tmp_path} --jobs 1")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
