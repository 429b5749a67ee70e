"""What is known of errors: the nearest comparisons are found, named, and only theirs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS
from netsim.analysis.known_errors import (
    COLUMNS,
    RING,
    SERVER,
    ErrorQuestion,
    KnownError,
    exchange_kind,
    known_errors,
    known_sentences,
    nearest,
)

SLOW = KnownError(
    source="slow cluster",
    backend="nccl",
    exchange=RING,
    part="exchange",
    workers=8,
    nbytes=10**8,
    bandwidth_bps=1e9,
    latency_s=10e-3,
    error=-0.021,
)
FAST = replace(SLOW, source="fast cluster", bandwidth_bps=1e11, latency_s=10e-6, error=0.3)
ASKED = ErrorQuestion(RING, 8, 1e8, 1e9, 10e-3)


def test_the_nearest_comparisons_are_named_with_their_worst_error() -> None:
    other = replace(SLOW, workers=16, error=0.015)
    found = nearest(ASKED, [FAST, SLOW, other])
    assert found is not None
    assert found.worst == 0.021
    assert found.sentence == (
        "within 2.1% in 2 exchanges of nccl ring all-reduce at 1 Gbit/s, 8 to 16 ranks (slow cluster)"
    )
    assert nearest(ASKED._replace(exchange=SERVER), [FAST, SLOW]) is None


def test_libraries_that_are_equally_near_are_both_named() -> None:
    gloo = replace(SLOW, backend="gloo", error=-0.114)
    found = nearest(ASKED, [FAST, SLOW, gloo])
    assert found is not None
    assert found.worst == 0.114
    assert "nccl ring all-reduce at 1 Gbit/s" in found.sentence
    assert "; within 11.4% in 1 exchange of gloo ring all-reduce at 1 Gbit/s" in found.sentence


def test_measurements_without_a_latency_say_nothing_of_a_long_one() -> None:
    unstated = replace(SLOW, latency_s=None, error=0.01)
    assert nearest(ASKED, [unstated]) is None
    (said,) = known_sentences({"A, B": ASKED, "C": ASKED}, [unstated])
    assert said == (
        "A, B; C: unknown at a latency of 10 ms: latency not stated in the measurements of a ring all-reduce."
    )
    found = nearest(ASKED, [unstated, SLOW])
    assert found is not None
    assert found.worst == abs(SLOW.error)


def test_a_question_far_from_all_comparisons_says_how_far() -> None:
    found = nearest(ASKED._replace(bandwidth_bps=4e11, latency_s=10e-6, workers=1024), [FAST, SLOW])
    assert found is not None
    assert "fast cluster" in found.sentence
    assert found.sentence.endswith("; beyond that: ranks 128×, bandwidth 4×")
    unstated = nearest(ASKED._replace(latency_s=50e-6), [replace(SLOW, latency_s=None)])
    assert unstated is not None
    assert "latency" not in unstated.sentence
    rounds = nearest(ASKED, [replace(SLOW, nbytes=None, part="round")])
    assert rounds is not None
    assert rounds.rounds
    assert rounds.sentence == "within 2.1% in 1 round of nccl ring all-reduce at 1 Gbit/s, 8 ranks (slow cluster)"


exponents = st.integers(-3, 3)


@given(steps=st.tuples(exponents, exponents, exponents), others=st.lists(st.tuples(exponents, exponents, exponents)))
def test_no_comparison_is_nearer_than_the_one_that_is_named(
    steps: tuple[int, int, int], others: list[tuple[int, int, int]]
) -> None:
    """The oracle is the distance in decades, on a grid where it is that of the exponents.

    Sources that are a tenth of a decade farther away are named, too.
    """
    question = ErrorQuestion(RING, 10, 10.0 ** (6 + steps[0]), 10.0 ** (9 + steps[1]), 10.0 ** (-3 + steps[2]))
    rows = [
        KnownError(
            source=str(number),
            backend="gloo",
            exchange=RING,
            part="exchange",
            workers=10,
            nbytes=10 ** (6 + each[0]),
            bandwidth_bps=10.0 ** (9 + each[1]),
            latency_s=10.0 ** (-3 + each[2]),
            error=0.1,
        )
        for number, each in enumerate(others)
    ]
    assume(rows)
    found = nearest(question, rows)
    assert found is not None
    least = min(math.dist(steps, each) for each in others)
    named = {row.source: row for row in rows if f"({row.source})" in found.sentence}
    distances = [math.dist(steps, others[int(source)]) for source in named]
    assert min(distances) == pytest.approx(least)
    assert max(distances) <= least + 0.1 + 1e-9


def test_equal_answers_are_given_once() -> None:
    questions = {"dense": ASKED, "Random-k": ASKED, "SASG": ASKED._replace(exchange=SERVER)}
    assert known_sentences(questions, [SLOW]) == [
        "dense, Random-k: within 2.1% in 1 exchange of nccl ring all-reduce at 1 Gbit/s, 8 ranks (slow cluster).",
        "SASG: unknown: there is no comparison of parameter server with a measurement (netsim validate makes one).",
    ]


def test_every_algorithm_has_a_kind_of_exchange() -> None:
    kinds = {name: exchange_kind(name) for name in ALGORITHMS}
    assert kinds["dense"] == RING
    assert {kinds[name] for name, each in ALGORITHMS.items() if each.uses_server and not each.lossy} == {SERVER}
    assert kinds["ps-signsgd"] == "PS signSGD", "an eighth of a byte for an element was never compared"
    assert exchange_kind("topk:gather=bruck") == "Bruck all-gather" != kinds["topk"]


def test_the_file_of_comparisons_is_read_whole() -> None:
    rows = known_errors()
    assert len(rows) > 50
    assert all(row.error > -1 and row.workers >= 2 and row.nbytes != 0 and row.bandwidth_bps > 0 for row in rows)
    assert {RING, SERVER} <= {row.exchange for row in rows}


def test_a_simulation_says_what_is_known_of_its_errors() -> None:
    report = netsim.simulate(workers=8, algorithm="dense,sasg", timing_only=True, elements=1_000_000)
    assert [sentence.partition(":")[0] for sentence in report.known_errors] == ["dense", "SASG"]
    assert json.loads(report.to_json())["known_errors"] == report.known_errors
    assert netsim.simulate(workers=1, algorithm="dense", timing_only=True, elements=10).known_errors == []


def test_validations_become_comparisons(tmp_path: Path) -> None:
    script = pytest.importorskip("benchmarks.known_errors", reason="the benchmarks are in the checkout only")
    cluster = {"bandwidth_bps": 50_000_000, "shaping": "fair", "trunk_bps": None}
    setting = {"network": "fair 50 Mbit/s", "cluster": cluster, "points": {"small_s": 0.000412}}
    rows = [
        {"algorithm": name, "network": "fair 50 Mbit/s", "workers": 4, "bytes": 400_000, "error": 0.01}
        for name in ("ring-all-reduce", "permutation")
    ]
    document = {"environment": {"hardware": "a Xeon"}, "settings": [setting], "comparison": rows}
    (tmp_path / "piece").mkdir()
    (tmp_path / "piece" / "validation.json").write_text(json.dumps(document))
    (found,) = script.validated(tmp_path)
    assert (found.exchange, found.workers, found.nbytes, found.latency_s, found.error) == (
        RING,
        4,
        400_000,
        4.1e-4,
        0.01,
    )
    assert set(COLUMNS) == set(KnownError.__dataclass_fields__)


@pytest.mark.slow
def test_the_file_is_what_the_study_of_published_times_says() -> None:
    """Every row of the quick setting is in the file. Errors are rounded to 1e-4, and compared to 1e-3."""
    script = pytest.importorskip("benchmarks.known_errors", reason="the benchmarks are in the checkout only")
    stored: dict[KnownError, list[float]] = {}
    for row in known_errors():
        stored.setdefault(replace(row, error=0.0), []).append(row.error)
    rows = list(script.published(script.study_rows(quick=True)))
    assert len(rows) > 10
    for row in rows:
        errors = stored.get(replace(row, error=0.0), [])
        assert any(abs(error - row.error) < 1e-3 for error in errors), (
            f"{row} is not in known_errors.csv, which has {errors}: run python benchmarks/known_errors.py"
        )
