"""The recommendation: candidates in the order of their closed forms, with what it rests on said."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import netsim
from algorithms import ALGORITHMS, class_of, name_of
from netsim._util.units import format_duration
from netsim.analysis.candidates import Candidate, candidates, not_tried
from netsim.analysis.recommend import ranks_of
from netsim.experiment.configuration import Experiment
from netsim.training.algorithm import Algorithm, Convergence
from tests.command import run
from tests.test_study import validated

ASK = "recommend --elements 1000000 --workers 16 --bandwidth 1Gbps --latency 50us --compute-time 10ms --jobs 1"
ALPHA, BETA, ELEMENTS = 50e-6, 32e-9, 1_000_000


def asked(capsys: pytest.CaptureFixture[str], more: str = "") -> dict[str, Any]:
    ran = run(capsys, f"{ASK} --json {more}")
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def closed_form(algorithm: str, density: float | None, scale: Sequence[float] = (1, 1, 1)) -> float:
    """Seconds of a round of 16 workers on an idle star; `scale` multiplies bandwidth, latency and compute time."""
    bandwidth, latency, compute = scale
    alpha, beta, k = latency * ALPHA, BETA / bandwidth, (density or 0) * ELEMENTS
    messages = {
        "dense": 30 * (alpha + ELEMENTS / 16 * beta),
        "topk": 15 * alpha + 30 * k * beta,
        "topk:gather=bruck": 4 * alpha + 30 * k * beta,
        "gtopk": 8 * (alpha + 2 * k * beta),
    }
    return compute * 10e-3 + messages[algorithm]


def test_rounds_ranks_and_ranges_are_the_closed_forms(capsys: pytest.CaptureFixture[str]) -> None:
    ranking = asked(capsys, "--algorithm dense,topk,gtopk")["ranking"]
    keys = [(each["candidate"]["algorithm"], each["candidate"]["density"]) for each in ranking]
    assert len(set(keys)) == len(keys) == 1 + 4 + 2
    rounds = [closed_form(*key) for key in keys]
    assert rounds == sorted(rounds)
    off = [tuple(share if at == input_ else 1 for at in range(3)) for input_ in range(3) for share in (0.8, 1.2)]
    for number, (each, key) in enumerate(zip(ranking, keys, strict=True)):
        assert each["round_time_s"] == pytest.approx(rounds[number])
        every = [closed_form(*key, scale) for scale in [(1, 1, 1), *off]]
        assert (each["low_s"], each["high_s"]) == (pytest.approx(min(every)), pytest.approx(max(every)))
        if number + 1 < len(ranking):
            following = [closed_form(*keys[number + 1], scale) for scale in off]
            assert each["beats_next"] == sum(a < b for a, b in zip(every[1:], following, strict=True))
            assert each["order_holds"] == (each["beats_next"] == 6)


def test_an_order_that_an_error_of_a_fifth_turns_is_not_called_safe(capsys: pytest.CaptureFixture[str]) -> None:
    """By Bruck's, Top-k saves 4 of gTop-k's 8 latencies and sends 14 k β more: at k = 450 they are nearly equal."""
    k = round(4 * ALPHA / (14 * BETA)) + 4
    found = asked(capsys, f"--algorithm topk,gtopk --density {k / ELEMENTS}")
    first, second, _ = found["ranking"]
    assert {first["candidate"]["algorithm"], second["candidate"]["algorithm"]} == {"topk:gather=bruck", "gtopk"}
    assert not first["order_holds"]
    said = " ".join(found["conclusion"])
    assert "uncertain" in said or "within 1%" in said


def test_what_it_rests_on_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, f"{ASK} --algorithm dense,gtopk")
    assert ran.code == 0
    assert ran.out.startswith("The shortest round has gTop-k 0.001: ")
    assert "The fastest dense SGD is dense" in ran.out
    _, heading, rest = ran.out.partition("How wrong netsim was in the most similar measurements")
    known, again, command = rest.partition("The first row again")
    assert heading
    assert again
    assert command.splitlines()[1].startswith("  netsim simulate --workers 16 --topology star --bandwidth 1Gbps ")
    assert [line.strip().partition(":")[0] for line in known.splitlines()[1:]] == [
        "gTop-k 0.001, gTop-k 0.01",
        "dense",
    ]
    assert "the sum of the known errors of both" in ran.out
    assert "ASSUMED, as given: compute time 10ms; as not given, 0: select time, merge time." in ran.out
    lines = ran.out.splitlines()
    table = lines[4 : next(number for number, line in enumerate(lines) if line.startswith("SIMULATED"))]
    assert len(table) >= 5
    assert max(map(len, table)) <= 128


def test_a_validation_says_how_far_the_lead_can_be_trusted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Predictions were off by 10 % at the worst. gTop-k at 0.001 leads dense by far, and one at 0.00101 by nothing."""
    folder = validated(tmp_path / "validation")
    safe = asked(capsys, f"--algorithm dense,gtopk --density 0.001 --validation {folder}")
    assert "10.0% at the worst; the next candidate takes" in safe["conclusion"][-1]
    assert "which exceeds the worst error" in safe["conclusion"][-1]
    close = asked(capsys, f"--algorithm gtopk --density 0.001,0.00101 --validation {folder}")
    assert [each.partition(":")[0] for each in safe["known_errors"]] == ["gTop-k 0.001", "dense"]
    assert "could reverse the order" in close["conclusion"][-1]
    ran = run(capsys, f"{ASK} --validation {tmp_path / 'none'}")
    assert (ran.code, ran.out) == (2, "")


def test_a_question_beyond_what_is_simulated_is_infeasible(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "recommend --workers 8 --elements 1000 --compute-time 5e6s --jobs 1")  # of 2⁶² ps = 4.6e6 s
    assert (ran.code, ran.out) == (3, "")
    assert "53 days" in ran.err


def test_topologies_that_one_may_choose_from(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "--algorithm ps --topology star,ps")
    assert [each["candidate"]["topology"] for each in found["ranking"]] == ["star", "ps"]
    assert " on star" in found["conclusion"][0]


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(
        capsys,
        "recommend --model resnet50 --workers 8 --bandwidth 10Gbps --compute-time 120ms --algorithm dense,gtopk "
        "--jobs 1 --json",
    )
    ranking = json.loads(ran.out)["ranking"]
    after_backward = [each for each in ranking if each["candidate"]["overlap"] is None]
    assert [each["candidate"]["algorithm"] for each in after_backward] == ["gtopk", "gtopk", "dense"]
    dense = 0.12 + 2 * 50e-6 + 14 * 25_557_032 / 8 * 3.2e-9  # chunks of 12.8 MB, forwarded in slices
    assert after_backward[-1]["round_time_s"] == pytest.approx(dense)


@pytest.mark.parametrize("bandwidth", [1, 10])
def test_a_round_with_overlap_is_the_closed_form(capsys: pytest.CaptureFixture[str], bandwidth: int) -> None:
    """Two workers exchange n elements in 2 (α + n/2 β), one of two buckets after the other.

    The forward pass takes a third of the compute time T, so the first half of the gradient is ready at 2/3 T.
    """
    total, compute = 10_000_000, 0.5
    asked = f"recommend --elements {total} --workers 2 --bandwidth {bandwidth}Gbps --latency 50us --compute-time 500ms"
    found = json.loads(run(capsys, f"{asked} --algorithm dense --overlap 20MB --jobs 1 --json").out)
    rounds = {each["candidate"]["overlap"]: each["round_time_s"] for each in found["ranking"]}
    bucket = 2 * (50e-6 + total / 2 / 2 * 32e-9 / bandwidth)
    assert rounds[None] == pytest.approx(compute + 2 * (50e-6 + total / 2 * 32e-9 / bandwidth))
    assert rounds["20MB"] == pytest.approx(max(compute, 2 / 3 * compute + bucket) + bucket)


@pytest.mark.slow
def test_what_is_left_out_by_default_could_not_win(capsys: pytest.CaptureFixture[str]) -> None:
    """Serial buckets hide at most what backward leaves after the first bucket, so a bound decides before simulating."""
    asked = "recommend --model resnet18 --workers 4 --bandwidth 10Gbps --compute-time 60ms --algorithm "
    asked += "dense,dense-tree,topk,gtopk --density 0.01 --jobs 1 --json"
    default, every = (
        [(Candidate(**each["candidate"]), each["round_time_s"]) for each in json.loads(run(capsys, ask).out)["ranking"]]
        for ask in (asked, f"{asked} --overlap 25MB,10MB,50MB")
    )
    tried = dict(default)
    assert tried.items() <= dict(every).items()
    assert Candidate("dense", "star", overlap="25MB") in tried
    left_out = [(each, time) for each, time in every if each not in tried]
    assert left_out
    for candidate, time in left_out:
        best = min(other for each, other in default if each.density == candidate.density)
        assert time > best * 0.99


@pytest.mark.slow
def test_overlap_that_takes_too_many_messages_is_named_and_not_tried(capsys: pytest.CaptureFixture[str]) -> None:
    """A ring of 200 workers in 5 buckets has 5 · 200 · 398 messages."""
    asked = "recommend --model resnet50 --workers 200 --bandwidth 10Gbps --compute-time 1s --algorithm dense --jobs 1"
    found = json.loads(run(capsys, f"{asked} --json").out)
    assert [each["candidate"]["overlap"] for each in found["ranking"]] == [None]
    assert found["limits"][-1].startswith("Not tried, because each takes over 170,000 messages: dense in 25MB")


def test_equal_ranks_are_ties_and_rank_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "--algorithm gtopk,dense --density 0.001,0.00101,0.00102,0.01")
    assert [each["rank"] for each in found["ranking"]] == [1, 1, 1, 4, 5]
    assert "gTop-k 0.00101 and gTop-k 0.00102 have the same round time, within 1%." in found["conclusion"]
    assert any(each.startswith("gTop-k 0.01 comes next") for each in found["conclusion"])


@given(st.lists(st.floats(0.5, 0.6), min_size=1, max_size=20))
def test_a_rank_is_the_position_of_the_first_row_of_a_tie(times: list[float]) -> None:
    ascending = sorted(times)
    ranks = ranks_of(ascending)
    assert ranks == sorted(ranks)
    for place, (seconds, rank) in enumerate(zip(ascending, ranks, strict=True), 1):
        first = ascending[rank - 1]
        assert ranks[rank - 1] == rank <= place
        assert first <= seconds <= 1.01 * first
        if rank == place > 1:  # a new tie begins where the time no longer ties with the first one of the last tie
            assert seconds > 1.01 * ascending[ranks[place - 2] - 1]


def test_a_row_does_not_say_how_surely_it_beats_its_equal(capsys: pytest.CaptureFixture[str]) -> None:
    asked = f"{ASK} --algorithm gtopk,dense --density 0.001,0.00101,0.01"
    rows = [line for line in run(capsys, asked).out.splitlines() if re.match(r"[0-9] ", line)]
    assert [row.split()[0] for row in rows] == ["1", "1", "3", "4"]
    assert [" of 6 " in row for row in rows] == [False, True, True, False]


def test_a_selection_may_cost_what_sparse_algorithms_gain_on_dense_ones(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "recommend --elements 1000000 --workers 8 --compute-time 100ms --density 0.001 --overlap none"
    ran = run(capsys, f"{asked} --algorithm diloco,gtopk,dense --json")
    document = json.loads(ran.out)
    local, sparse, dense = (row["round_time_s"] for row in document["ranking"])
    assert local < sparse < dense
    slack = (
        f"gTop-k 0.001 is faster as long as selecting and merging cost less than {format_duration(dense - sparse)} a"
    )
    (sentence,) = (each for each in document["conclusion"] if each.startswith("The fastest dense SGD is dense: "))
    assert f"{slack} round more (assumed: 0). Other algorithms may need more rounds" in sentence


def test_a_dense_algorithm_that_is_as_fast_is_preferred(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "recommend --elements 1000000 --workers 4 --bandwidth 100Gbps --compute-time 100ms --algorithm dense,gtopk"
    found = json.loads(run(capsys, f"{asked} --density 0.001 --jobs 1 --json").out)
    assert [each["rank"] for each in found["ranking"]] == [1, 1]
    assert found["ranking"][0]["candidate"]["algorithm"] == "dense"
    assert found["ranking"][0]["round_time_s"] > found["ranking"][1]["round_time_s"]
    assert found["conclusion"][0].startswith("Use dense: ")
    assert found["conclusion"][1:] == [
        "gTop-k 0.001 has the same round time, within 1%; dense SGD is named first because it needs no extra rounds."
    ]


@pytest.mark.parametrize(
    "options",
    [
        "--model resnet18 --bandwidth 10Gbps --algorithm dense,topk --density 0.01 --dtype bf16 --overlap 10MB",
        "--elements 5000000 --topology machines:gpus=2,star --algorithm dense-hier,gtopk:residual=index-intersection "
        "--accumulate 2 --overlap 10MB --communicator concurrent --ready elements:0.5 --density 0.01234567",
    ],
)
def test_the_command_of_a_row_has_its_figures(capsys: pytest.CaptureFixture[str], options: str) -> None:
    found = json.loads(run(capsys, f"recommend --workers 4 --compute-time 12.3456789ms --jobs 1 --json {options}").out)
    assert len(found["ranking"]) >= 4
    for row in found["ranking"]:
        (result,) = json.loads(run(capsys, f"{row['command'].removeprefix('netsim ')} --json").out)["results"]
        assert result["round_time_s"] == row["round_time_s"]
        assert result["comm_time_s"] == row["comm_time_s"]


def test_numbers_from_python_are_written_in_full() -> None:
    advice = netsim.recommend(workers=2, compute_time=1 / 3, elements=1000, algorithm="gtopk", density=1 / 7, jobs=1)
    (row,) = advice.ranking
    assert shlex.split(row.command) == [
        *("netsim", "simulate", "--workers", "2", "--topology", "star", "--algorithm", "gtopk"),
        *("--density", repr(1 / 7), "--compute-time", f"{1 / 3!r}s", "--timing-only", "--elements", "1000"),
    ]


def test_commands_of_every_row_are_printed_and_can_be_copied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    ran = run(capsys, f"{ASK} --algorithm dense,topk --density 0.001 --commands")
    commands = [each["command"] for each in asked(capsys, "--algorithm dense,topk --density 0.001")["ranking"]]
    assert len(commands) == 3
    printed = " ".join(ran.out.replace("\\\n", " ").split())
    assert all(each in printed for each in commands)
    assert max(map(len, ran.out.splitlines())) <= 60


def test_a_folder_gets_page_picture_table_and_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "new"
    found = asked(capsys, f"--algorithm dense,gtopk --out {folder}")
    assert sorted(each.name for each in folder.iterdir()) == [
        *("recommendation-candidates.csv", "recommendation-candidates.jsonl", "recommendation-ranking.svg"),
        *("recommendation.html", "recommendation.json"),
    ]
    assert json.loads((folder / "recommendation.json").read_text()) == found
    picture = (folder / "recommendation-ranking.svg").read_text()
    assert all(each["title"] in picture for each in found["ranking"])
    assert found["conclusion"][0] in (folder / "recommendation.html").read_text()
    rows = [json.loads(line) for line in (folder / "recommendation-candidates.jsonl").read_text().splitlines()]
    assert [row["command"] for row in rows] == [each["command"] for each in found["ranking"]]


def test_a_notebook_shows_picture_and_table() -> None:
    advice = netsim.recommend(workers=2, compute_time="1ms", elements=1000, algorithm="dense,gtopk", jobs=1)
    shown = advice._repr_html_()
    assert all(shown.count(each.candidate.title) >= 2 for each in advice.ranking)
    assert "<svg" in shown
    assert "<script" not in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--model resnet50", "both --model and --elements were given; give one"),
        ("--algorithm gtopkk", "did you mean 'gtopk'"),
        ("--algorithm gtopk,gtopk", "gTop-k 0.001 was named twice"),
        ("--algorithm gtopk,gtopk:residual=keep-at-merge", "gTop-k 0.001 was named twice"),
        ("--algorithm topk,topk:gather=bruck", "Top-k 0.001 (bruck) was named twice"),
        ("--density many", "density 'many'"),
        ("--density 2", "density 2"),
        ("--topology mesh", "unknown topology 'mesh'"),
        ("--compute-time 0s", "--compute-time '0s'"),
        ("--bandwidth 10Gpbs", "10Gpbs"),
        ("--jobs -1", "jobs -1"),
        ("--overlap 25MBB", "25MBB"),
        ("--overlap 25MB,25MB", "overlap '25MB' was named twice"),
        ("--overlap 25MB,none", "none: no overlap"),
    ],
)
def test_questions_that_are_refused(capsys: pytest.CaptureFixture[str], change: str, said: str) -> None:
    ran = run(capsys, f"{ASK} {change}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_density_stands_behind_the_name_of_an_algorithm() -> None:
    assert Candidate("gtopk-hier:group-size=4", "star", 0.001).title == "gTop-k 0.001 (hierarchical group-size 4)"
    assert Candidate("topk:gather=bruck", "star", 0.01).title == "Top-k 0.01 (bruck)"
    assert Candidate("dense-hier", "star").title == "dense (hierarchical)"
    assert Candidate("dense", "star", overlap="25MB").title == "dense in 25MB buckets"
    assert Candidate("dense", "star", overlap="tensor").title == "dense in a bucket per tensor"
    assert Candidate("dense-hier", "star", dtype="bf16").title == "dense bf16 (hierarchical)"


def test_machines_have_a_hierarchical_candidate_unless_one_holds_all_workers() -> None:
    names = [
        [each.algorithm for each in candidates(None, [0.001], [topology], {"workers": 16, "elements": 1000})]
        for topology in ("machines:gpus=8", "machines:gpus=16", "star")
    ]
    assert "dense-hier" in names[0]
    assert "gtopk-hier" not in names[0]
    assert names[1] == names[2] == [name for name in names[0] if name != "dense-hier"]


def test_candidates_are_what_their_classes_say() -> None:
    """Sums of signs and the like may not converge, and a simulation of sizes skips no upload. A name is enough."""
    names = {each.algorithm for each in candidates(None, [0.001], ["star"], {"workers": 4, "elements": 1000})}
    assert {"dense", "topk:gather=bruck", "powersgd", "qsgd", "ef-signsgd", "diloco", "streaming-diloco"} <= names
    kinds = {class_of(name).convergence for name in names}
    assert kinds == set(Convergence) - {Convergence.ROUNDED, Convergence.BIASED, Convergence.STALE}
    for name, kind in ALGORITHMS.items():
        (first, *_) = candidates([name], [0.001], ["star"], {"workers": 4, "elements": 1000})
        assert name_of(first.algorithm) == name
        assert (name in {name_of(each) for each in names}) <= kind.is_candidate((0,) * 4)


def test_algorithms_that_are_not_tried_are_named_with_the_reason() -> None:
    options = {"workers": 16, "elements": 1000}
    for topologies in (["star"], ["star", "machines:gpus=8"]):
        tried = {name_of(each.algorithm) for each in candidates(None, [0.001], topologies, options)}
        said = not_tried(topologies, options)
        assert {name for name in ALGORITHMS if f" {name}," in said or f" {name} (" in said} == set(ALGORITHMS) - tried
    assert "oktopk, ssar, dsar (bytes that depend on the data)" in said
    assert "dense-hier (no machines, racks or sites)" not in said
    assert "diloco, streaming-diloco (over 20 s to simulate H rounds)" in not_tried(
        ["star"], options | {"workers": 10**6}
    )
    advice = netsim.recommend(compute_time="1ms", jobs=1, overlap="none", density=0.001, **options)
    assert advice.limits[-1] == not_tried(["star"], options)
    assert "Not tried" not in " ".join(
        netsim.recommend(compute_time="1ms", jobs=1, algorithm="dense", overlap="none", **options).limits
    )


def test_local_methods_are_candidates_while_their_rounds_are_quick() -> None:
    """A million workers have 16 rounds of local SGD in seconds, and 500 of DiLoCo in minutes."""
    options = {"workers": 10**6, "elements": 1000}
    tried = {each.algorithm for each in candidates(None, [0.001], ["star"], options)}
    assert {"dense", "local-sgd"} <= tried
    assert "diloco" not in tried
    assert "diloco" in {each.algorithm for each in candidates(["diloco"], [0.001], ["star"], options)}


def test_only_candidates_whose_messages_hold_16_bits_are_tried_in_16_bits() -> None:
    options = {"workers": 4, "elements": 1000, "dtype": "bf16"}
    tried = candidates(None, [0.001], ["star"], options)
    assert {"dense", "gtopk", "diloco"} <= {each.algorithm for each in tried}
    for each in tried:
        assert Experiment.of(**each.options(options, set())).dtype == "bf16"


def test_the_convergence_of_a_class_follows_from_what_it_says() -> None:
    sparse = type("Mine", (Algorithm,), {"sparse": True})
    assert sparse.convergence is Convergence.BIASED
    assert type("Its", (sparse,), {"convergence": Convergence.UNBIASED}).convergence is Convergence.UNBIASED
    assert type("Own", (Algorithm,), {"steps_locally": True}).convergence is Convergence.LOCAL
    exact = [name for name, kind in ALGORITHMS.items() if kind.convergence is Convergence.EXACT]
    assert exact == [name for name in ALGORITHMS if name == "ps" or name.startswith("dense")]


def test_a_local_method_takes_the_mean_of_h_rounds_and_bf16_half_of_the_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One ring of 2 (P-1) messages in H rounds; its time is beside the others', whose steps are named."""
    alone = candidates(None, [0.001], ["star"], {"workers": 16, "elements": ELEMENTS})
    found = asked(capsys, "--overlap none --density 0.001")
    ranking = {each["title"]: each for each in found["ranking"]}
    ring = 30 * (ALPHA + ELEMENTS / 16 * BETA)
    assert ranking["DiLoCo"]["round_time_s"] == pytest.approx(10e-3 + ring / 500)
    assert ranking["local SGD"]["round_time_s"] == pytest.approx(10e-3 + ring / 16)
    assert ranking["dense bf16"]["round_time_s"] == pytest.approx(10e-3 + 30 * (ALPHA + ELEMENTS / 16 * BETA / 2))
    assert len(ranking) == len(alone) + 1
    steps = {title: each["steps"] for title, each in ranking.items()}
    assert (steps["dense"], steps["dense bf16"], steps["PowerSGD"]) == ("dense SGD", "16-bit values", "error feedback")
    said = " ".join(found["conclusion"])
    assert found["conclusion"][0].startswith("The shortest round has ")
    assert all(kind in said for kind in ("16-bit values", "unbiased", "error feedback"))
    assert any("local SGD 16, DiLoCo 500 and Streaming DiLoCo 100" in limit for limit in found["limits"])


@pytest.mark.parametrize("topology", ["machines:gpus=6", "racks:size=3"])
def test_a_tree_that_does_not_follow_the_groups_has_a_hierarchical_one_beside_it(topology: str) -> None:
    names = [each.algorithm for each in candidates(None, [0.001], [topology], {"workers": 12, "elements": 1000})]
    assert {"dense-hier", "gtopk", "gtopk-hier"} <= set(names)


@pytest.mark.parametrize(
    ("workers", "elements", "tried"), [(64, 10**6, True), (66, 10**6, False), (3, 10**9, True), (4, 10**9, False)]
)
def test_a_double_tree_is_a_candidate_while_it_has_few_messages(workers: int, elements: int, tried: bool) -> None:
    """4 (P-1) messages a slice of half a gradient, of 512 KiB or a 128th: 4 x 63 x 4 = 1,008 among 64 with 4 MB."""
    options = {"workers": workers, "elements": elements}
    assert ("dense-double-tree" in [each.algorithm for each in candidates(None, [0.01], ["star"], options)]) is tried


def test_a_ranking_outlives_any_fault_of_its_sentences(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nothing to divide by")

    asked = "recommend --elements 1000 --workers 2 --compute-time 1ms --algorithm dense,gtopk --jobs 1 --json"
    whole = json.loads(run(capsys, asked).out)
    monkeypatch.setattr("netsim.analysis.recommend._words", fail)
    found = json.loads(run(capsys, asked).out)
    assert found["ranking"] == whole["ranking"]
    assert found["conclusion"] == ["The conclusion could not be computed: ZeroDivisionError: nothing to divide by."]


def test_sentences_name_the_topology_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    asked = "recommend --elements 1000000 --workers 8 --compute-time 5ms --topology star,ring --algorithm dense,gtopk"
    asked += " --density 0.001 --overlap none --jobs 1 --json"
    first, *others = json.loads(run(capsys, asked).out)["conclusion"]
    assert re.match(r"The shortest round has gTop-k 0\.001 on star: ", first)
    assert any(re.search(r"gTop-k 0\.001 on ring (comes next|has the same)", each) for each in others)
    assert any(re.match(r"The lead of gTop-k 0\.001 on star over \S+.* on (ring|star), ", each) for each in others)


def test_simulate_names_what_takes_several_topologies(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("star,ring", "star,machines:gpus=8,network=100Gbps"):
        ran = run(capsys, f"simulate --topology {asked} --timing-only --elements 10")
        assert ran.code == 2
        assert ran.err == (
            f"netsim: --topology '{asked}' names 2 topologies, and a simulation has one; netsim recommend and "
            "netsim.sweep take several\n"
        )
