"""Published measurements: the reader, calibration, what is compared, and predictions of known closed forms."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim._util.errors import UsageError
from netsim.comm.collectives import Pipeline
from netsim.study_engine import Finding, run_study
from studies import load_study
from studies.published.calibration import calibrate_cluster, rounding_of
from studies.published.exchanges import EXCHANGES, exchange_question, simulate_exchange
from studies.published.plans import CalibratedCluster, NotPredictedError, Question, RowPlan, Term, Terms
from studies.published.predictions import AnsweredRow, Answers, Campaign, cluster_of, predict_rows
from studies.published.questions import answer
from studies.published.report import conclude_on, nine_in_ten
from studies.published.rows import PUBLISHED, PublishedRow, read_rows, row_of, sample
from studies.published.sources import SOURCES, source_of

LINES = list(csv.DictReader(PUBLISHED.read_text(encoding="utf-8").splitlines()))
HEADER = list(LINES[0])
A_ROW = {
    "id": "r1",
    "source": "example.org/cluster",
    "what": "a message",
    "measured_s": "0.0101",
    "P": "2",
    "backend": "nccl",
    "algorithm": "point to point",
    "bandwidth_gbps": "1",
    "one_way_latency_ms": "2",
    "bytes_per_rank": "1000000",
    "quality": "A",
}


def written(path: Path, *rows: dict[str, str]) -> Path:
    """Write rows, each :data:`A_ROW` but for what it changes; return the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, HEADER)
        lines.writeheader()
        lines.writerows(A_ROW | row for row in rows)
    return path


def the_row(**changed: str) -> PublishedRow:
    """Return :data:`A_ROW` with changed columns, as it is read."""
    return row_of("line 2", A_ROW | changed)


# The reader.


def test_netsims_own_file_is_read_whole() -> None:
    rows = read_rows(PUBLISHED)
    assert len(rows) == len(LINES)
    first = next(row for row in rows if row.id == "47")
    assert (first.workers, first.bandwidth_bps, first.latency_s, first.measured_s) == (4, 5 * 10**9, 0.001, 0.329)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"P": "four"}, "line 2: P 'four' must be a positive number"),
        ({"P": "2.5"}, "line 2: P '2.5' must be a whole number"),
        ({"P": "-3"}, "line 2: P '-3' must be a positive number"),
        ({"measured_s": "0"}, "line 2: measured_s '0' must be a positive number"),
        ({"bytes_per_rank": "1e30"}, "line 2: bytes_per_rank '1e30' must be"),
        ({"quality": "Z"}, "unknown data"),
        ({"id": ""}, "line 2: id is empty"),
    ],
)
def test_a_bad_cell_is_one_line_with_its_place(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        read_rows(written(tmp_path / "rows.csv", changed))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_ids_are_unique_columns_are_there_and_rows_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3: id 'r1' was used before"):
        read_rows(written(tmp_path / "twice.csv", {}, {}))
    with pytest.raises(UsageError, match="no rows"):
        read_rows(written(tmp_path / "none.csv"))
    (tmp_path / "columns.csv").write_text("id,source\n1,x\n")
    with pytest.raises(UsageError, match="no column measured_s"):
        read_rows(tmp_path / "columns.csv")


def test_a_latency_in_words_is_not_stated_and_a_missing_column_neither(tmp_path: Path) -> None:
    (row,) = read_rows(written(tmp_path / "rows.csv", {"one_way_latency_ms": "same rack, not stated"}))
    assert row.latency_s is None
    (tmp_path / "short.csv").write_text(
        "id,source,measured_s,P,backend,algorithm,quality\n1,x,0.5,4,nccl,all-reduce,B\n"
    )
    (short,) = read_rows(tmp_path / "short.csv")
    assert (short.measured_s, short.workers, short.bytes_per_rank, short.notes) == (0.5, 4, None, "")


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_a_sample_has_rows_of_every_source_and_quality(every: int) -> None:
    rows = read_rows(PUBLISHED)
    chosen = sample(rows, every)
    assert {(row.source, row.quality) for row in chosen} == {(row.source, row.quality) for row in rows}
    assert len(chosen) <= len(rows) / every + len({(row.source, row.quality) for row in rows})


def test_every_row_of_a_source_has_a_plan_or_a_reason() -> None:
    def planned(row: PublishedRow) -> Sequence[RowPlan] | str:
        source = source_of(row)
        try:
            return source.plans(row, source.cluster(row).starts())
        except NotPredictedError as reason:
            return str(reason)

    assert all(map(planned, read_rows(PUBLISHED)))


STRANGE = ("", "1", "3", "64", "1000000000", "0.001", "unknown", "reduce", "gloo", "nccl", "all-reduce", "H=1, x-y, z")


@settings(max_examples=300)
@given(st.data())
def test_a_row_with_any_cells_has_a_plan_or_a_reason(data: st.DataObject) -> None:
    """Rows of the file with changed cells, as rows that others add may be; nothing is simulated."""
    cells = dict(data.draw(st.sampled_from(LINES)))
    columns = [name for name in HEADER if name not in ("id", "source", "quality")]
    cells |= data.draw(st.dictionaries(st.sampled_from(columns), st.sampled_from(STRANGE), max_size=4))
    with suppress(UsageError, NotPredictedError):  # a cell that cannot be read, and a row that cannot be predicted
        row = row_of("line 2", cells)
        source = source_of(row)
        cluster = source.cluster(row)
        cluster.calibrates(row)
        if source.contender is not None:
            assert len(source.contender(row)) == 2
        assert source.plans(row, cluster.starts())


def test_clusters_have_two_terms_at_most_and_rows_that_calibrate_them() -> None:
    rows = read_rows(PUBLISHED)
    campaign = Campaign(rows, [], rows)
    for cluster in {source_of(row).cluster(row).name: source_of(row).cluster(row) for row in rows}.values():
        assert len(campaign.calibrating(cluster)) >= len(cluster.terms) <= 2
    with pytest.raises(ValueError, match="at most 2"):
        CalibratedCluster("x", dict.fromkeys("abc", Term("s", 1, 0.1, 10)))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_row_with_nothing_stated_is_refused_with_a_reason(source: Any) -> None:
    row = the_row(source=source.begins[0], P="", bytes_per_rank="", bandwidth_gbps="", one_way_latency_ms="")
    with pytest.raises(NotPredictedError, match="not state"):
        source.plans(row, source.cluster(row).starts())


# Calibration: a model of two terms whose exact fit is known.


def alpha_beta(row: PublishedRow, terms: Terms) -> RowPlan:
    assert row.bytes_per_rank is not None
    return RowPlan([], terms["latency_s"] + row.bytes_per_rank * terms["byte_s"])


@given(st.floats(1e-5, 1e-2), st.floats(1e-10, 1e-7))
def test_a_calibration_finds_the_terms_that_made_the_times(latency_s: float, byte_s: float) -> None:
    cluster = CalibratedCluster(
        "two terms", {"latency_s": Term("s", 1e-3, 1e-7, 1.0), "byte_s": Term("s/B", 1e-8, 1e-12, 1e-5)}
    )
    rows = [
        the_row(id=str(size), bytes_per_rank=str(size), measured_s=repr(latency_s + size * byte_s))
        for size in (1, 10_000, 1_000_000, 100_000_000)
    ]
    fit = calibrate_cluster(cluster, rows, alpha_beta, lambda question: math.nan)
    assert fit["terms"]["latency_s"] == pytest.approx(latency_s, rel=1e-3)
    assert fit["terms"]["byte_s"] == pytest.approx(byte_s, rel=1e-3)
    assert fit["residual"] < 1e-3


def test_one_outlier_does_not_decide_a_calibration() -> None:
    cluster = CalibratedCluster("one term", {"byte_s": Term("s/B", 1e-8, 1e-12, 1e-5)})
    times = [1.0, 1.0, 1.0, 1.0, 10.0]  # least squares of logarithms would give 10^(1/5) = 1.58

    def plan(row: PublishedRow, terms: Terms) -> RowPlan:
        return RowPlan([], 1e8 * terms["byte_s"])

    rows = [the_row(id=str(index), measured_s=str(seconds)) for index, seconds in enumerate(times)]
    fit = calibrate_cluster(cluster, rows, plan, lambda question: math.nan)
    assert fit["terms"]["byte_s"] == pytest.approx(1e-8, rel=0.1)


def test_a_figure_is_known_to_its_last_digit() -> None:
    # A uniform error of ±1/2 in the last digit has the standard deviation 1/√12 of that digit.
    assert rounding_of(0.107) == pytest.approx(0.001 / math.sqrt(12) / 0.107)
    assert rounding_of(20.0) == pytest.approx(10 / math.sqrt(12) / 20)


# Exchanges: closed forms on an idle star.

SIZE, BANDWIDTH, LATENCY = 4_000_000, 10**9, 1e-3
DRAIN = 8 * SIZE / BANDWIDTH


def seconds(exchange: str, ranks: int, **how: Any) -> float:
    question = exchange_question(exchange, ranks, SIZE, bandwidth_bps=BANDWIDTH, latency_s=LATENCY, **how)
    return float(simulate_exchange(question)["seconds"])


@pytest.mark.parametrize(
    ("exchange", "ranks", "form"),
    [
        ("point-to-point", 2, LATENCY + DRAIN),
        ("ring-all-reduce", 4, 6 * (LATENCY + DRAIN / 4)),
        ("ring-all-gather", 4, 3 * (LATENCY + DRAIN)),
        ("recursive-doubling", 8, 3 * (LATENCY + DRAIN)),
        ("tree-all-reduce", 8, 6 * (LATENCY + DRAIN)),
        ("double-tree-all-reduce", 8, 6 * LATENCY + (2 + 3) * DRAIN),  # 2 L α + (2 + 2 L - 3) d β, in one slice
        ("doubling-broadcast", 8, 3 * (LATENCY + DRAIN)),
        ("tree-broadcast", 8, 3 * (LATENCY + DRAIN)),
        ("tree-reduce", 8, 3 * (LATENCY + DRAIN)),
        ("chain-broadcast", 5, 4 * (LATENCY + DRAIN)),
        ("chain-reduce", 5, 4 * (LATENCY + DRAIN)),
        ("chain-reduce-broadcast", 5, 8 * (LATENCY + DRAIN)),
        ("ring-reduce", 4, 3 * (LATENCY + DRAIN / 4) + LATENCY + 3 * DRAIN / 4),
        ("gloo-reduce", 4, 3 * (LATENCY + DRAIN / 4) + LATENCY + 3 * DRAIN / 4),
        ("sharded", 4, LATENCY + 3 * DRAIN / 4 + 3 * (LATENCY + DRAIN / 4)),
    ],
)
def test_an_exchange_takes_its_closed_form(exchange: str, ranks: int, form: float) -> None:
    assert seconds(exchange, ranks) == pytest.approx(form, rel=1e-6)


def test_every_exchange_has_a_closed_form_above() -> None:
    marks = test_an_exchange_takes_its_closed_form.pytestmark  # type: ignore[attr-defined]
    assert {name for name, _, _ in marks[0].args[1]} == set(EXCHANGES)


def test_gloos_reduction_goes_a_chunk_further() -> None:
    """By hand, 4 ranks, chunks of 10 slices that drain in t = DRAIN / 40 < α, two in flight, so that two take α + t.

    The further chunk has 10 - 2 slices, four pairs; the ring's three chunks have 15 pairs. The second slice of the last
    pair ends t after the first. Then three chunks come to rank 0.
    """
    t = DRAIN / 40
    pairs = (4 + 15) * (LATENCY + t) + 2 * t
    assert t < LATENCY
    assert seconds("gloo-reduce", 4, pipeline=Pipeline(SIZE // 40, 2, 2)) == pytest.approx(
        pairs + LATENCY + 3 * DRAIN / 4, rel=1e-6
    )


def test_recursive_doubling_of_no_power_of_two_is_a_tree() -> None:
    assert seconds("recursive-doubling", 6) == seconds("tree-all-reduce", 6)


def test_eager_sends_of_a_broadcast_share_the_senders_link() -> None:
    # L(L+1)/2 times the drain and L latencies: the root sends L copies at once, its child L - 1, and so on.
    assert seconds("doubling-broadcast", 8, eager=True) == pytest.approx(6 * DRAIN + 3 * LATENCY, rel=1e-6)


def test_an_unshaped_ingress_takes_a_gather_at_the_rate_of_its_senders() -> None:
    symmetric = 3 * (LATENCY + DRAIN / 4) + LATENCY + 3 * DRAIN / 4
    unshaped = seconds("ring-reduce", 4, topology="star:down=10Gbps")
    assert unshaped == pytest.approx(symmetric - 2 * DRAIN / 4, rel=1e-6)


# The study.


def concluded(data: Path) -> dict[str, Any]:
    """Return the conclusion on the rows of a file, with their own errors alone."""
    rows = read_rows(data)
    campaign, findings = Campaign(rows, rows, read_rows(PUBLISHED)), list[Finding]()
    for _ in range(2):  # the calibrations, then the predictions
        findings += [Finding(question, answer(question)) for question in campaign.questions(Answers(findings))]
    answers = Answers(findings)
    return dict(conclude_on(predict_rows(campaign, answers), answers.calibrations).data)


def published_rows(start: str, workers: Sequence[int]) -> list[dict[str, str]]:
    """Return the cells of netsim's own rows whose `what` starts so, at some P."""
    return [row for row in LINES if row["what"].startswith(start) and row["P"] and int(row["P"]) in workers]


def test_rows_of_an_unknown_source_are_predicted_if_they_state_everything_else_skipped(tmp_path: Path) -> None:
    changes: list[dict[str, str]] = [{}, {"bandwidth_gbps": ""}, {"algorithm": "gossip"}, {"measured_s": ""}]
    changes.append({"source": "Streaming DiLoCo arXiv 2501.18512 Table 1"})
    lines = [{"id": f"r{number}"} | changed for number, changed in enumerate(changes)]
    told, *others = concluded(written(tmp_path / "rows.csv", *lines))["rows"]
    assert told["predicted_s"] == pytest.approx(0.002 + 0.008, rel=1e-6)  # α + S/B
    assert told["error"] == pytest.approx(0.01 / 0.0101 - 1, rel=1e-6)
    assert [row["predicted_s"] for row in others] == [None] * 4
    reasons = ("does not state the bandwidth", "gossip", "a time in seconds", "netsim study utilisation compares")
    for row, reason in zip(others, reasons, strict=True):
        assert reason in row["skipped"]


def test_a_row_that_calibrates_is_never_compared(tmp_path: Path) -> None:
    series = published_rows("broadcast 1 GB, NADC, own tree", (2, 4, 8, 16, 32))
    told = concluded(written(tmp_path / "rows.csv", *series))
    assert [row["calibrated"] for row in told["rows"]] == [True, False, False, False, False]
    (summary,) = told["summary"]
    assert (summary["rows"], summary["calibrated"], summary["compared"]) == (5, 1, 4)
    # A binomial tree takes log₂P times as long as at P = 2, which calibrates it.
    for row in told["rows"]:
        assert row["predicted_s"] == pytest.approx(told["rows"][0]["measured_s"] * math.log2(row["workers"]), rel=1e-3)


def test_an_interval_comes_from_the_errors_at_other_sources(tmp_path: Path) -> None:
    series = published_rows("reduce 1 GB, NADC, own tree", (2, 4, 8))
    lines = [{"quality": "C"}, *series]
    alone, _, near, far = concluded(written(tmp_path / "rows.csv", *lines))["rows"]
    # No row calibrates the first: the larger of the errors of the other source's two compared rows, as it is.
    sizes = [abs(math.log(1 + row["error"])) for row in (near, far)]
    assert alone["high_s"] == pytest.approx(0.01 * math.exp(max(sizes)), rel=1e-6)
    assert alone["low_s"] == pytest.approx(0.01 / math.exp(max(sizes)), rel=1e-6)
    # One row calibrates one term, which is as uncertain as a row: twice the variance. A doubling of P adds it again.
    error = abs(math.log(0.0101 / 0.01))
    for row, doublings in ((near, 1), (far, 2)):
        widest = math.exp(math.hypot(error * math.sqrt(2 + doublings), 1.96 * rounding_of(2.4)))
        assert row["high_s"] / row["predicted_s"] == pytest.approx(widest, rel=1e-3)


@pytest.mark.parametrize(("more", "quantile"), [(1, 12.706), (2, 4.303), (5, 2.571)])
def test_few_calibrating_rows_widen_an_interval_by_students_law(more: int, quantile: float) -> None:
    """Quantiles by a printed table of Student's distribution, for 1, 2 and 5 more rows than terms."""
    answered = AnsweredRow(the_row(), "a source", 0.01, [], [0.02], more, 0.0, False)
    low, high = answered.bounds(0.05)
    assert math.log(high / 0.01) == pytest.approx(math.hypot(0.05, quantile * 0.02), rel=1e-4)
    assert low * high == pytest.approx(1e-4)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_nine_in_ten_errors_are_at_most_the_nine_in_ten(errors: list[float]) -> None:
    limit = nine_in_ten(errors)
    assert sum(error <= limit for error in errors) >= 0.9 * len(errors)
    assert sum(error < limit for error in errors) < 0.9 * len(errors)


def test_a_simulation_that_fails_is_a_reason() -> None:
    question: Question = {"exchange": "ring-all-reduce", "ranks": 2}
    answers = Answers([Finding(question, {"failed": "no such network"})])
    with pytest.raises(NotPredictedError, match="no such network"):
        answers.seconds(question)


def test_the_quick_study_calibrates_only_clusters_that_it_compares() -> None:
    study = load_study("published")
    points = study.points(study.settings(**study.quick))
    calibrated = {point["calibrate"]: len(point["rows"]) for point in points if "calibrate" in point}
    assert max(calibrated.values()) <= study.quick["calibrating"]
    own = read_rows(PUBLISHED)
    campaign = Campaign(own, [], own)
    rows = sample(own, study.quick["every"])
    compared = {cluster_of(row).name for row in rows if not campaign.calibrates(row)}
    assert calibrated.keys() <= compared
    assert len(calibrated) >= len({source_of(row).name for row in rows}) / 2, "so that most sources are in the sample"


@pytest.mark.slow
def test_the_quick_study_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    study = load_study("published")
    settings = study.settings(**study.quick | {"every": 4 * study.quick["every"]})
    for name in ("first", "second"):
        run_study(study, settings, tmp_path / name)
    for file in ("conclusion.json", "report.html", "points.csv"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    told = json.loads((tmp_path / "first" / "conclusion.json").read_text())
    compared = [row for row in told["rows"] if row["predicted_s"] is not None and not row["calibrated"]]
    assert told["conclusion"][0].startswith(f"{len(compared)} of {len(told['rows'])} PUBLISHED times are compared")
    assert told["conclusion"][1].startswith(f"A sample: {len(told['rows'])} of {len(LINES)} rows, {len(compared)} of")
    assert all((row["predicted_s"] is None) == (row["skipped"] is not None) for row in told["rows"])
    assert all(row["low_s"] is None for row in told["rows"])
    assert "95 % intervals of" not in " ".join(told["conclusion"])
