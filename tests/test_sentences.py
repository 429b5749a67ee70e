"""What studies say must follow from what they found: sentences are read back, and held against made-up results."""

from __future__ import annotations

import math
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from algorithms import ALGORITHMS
from netsim.analysis.conclusion import conclude
from netsim.experiment.configuration import Experiment
from netsim.study_engine import Finding
from netsim.training.algorithm import Convergence
from studies import sweep, time_to_accuracy
from studies.growth import Growth, title_of
from studies.words import in_words

GRID = (2, 3, 4, 6, 8, 12, 16, 32)
REFINED = (5, 7, 9, 13)
FORMS = (
    lambda p: 1.0,
    lambda p: 0.2 + math.log2(p),
    lambda p: (p - 1) / p,
    lambda p: 0.1 * p,
    lambda p: math.sqrt(p),
    lambda p: 40.0 / p,  # falls
    lambda p: 2.0 * math.ceil(math.log2(p)),
    lambda p: 3.0 if p in (4, 8, 16) else 9.0,
)
ORDERS = {"log₂P": "log P", "P": "P", "√P": "√P", "(P−1)/P": "1"}


def made_up(seed: int) -> tuple[Growth, dict[tuple[str, float | None], dict[int, float]]]:
    """Return results of three algorithms on two topologies at two densities, and the rounds on the first topology.

    Forms differ from density to density, some algorithms are equal at some P or at all, and some P are only
    simulated with a pair of algorithms, as the search for crossovers does.
    """
    draw = random.Random(seed)
    findings: list[Finding] = []
    rounds: dict[tuple[str, float | None], dict[int, float]] = {}
    copied = draw.random() < 0.3
    for topology in ("star", "ring"):
        for algorithm in ("dense", "topk", "gtopk"):
            for density in (None,) if algorithm == "dense" else (0.001, 0.01):
                form, scale = draw.choice(FORMS), draw.choice((1e-3, 1e-2, 2e-2))
                refined = () if algorithm == "dense" and seed % 2 else REFINED[: draw.randint(0, 4)]
                known = {p: scale * form(p) + 1e-4 for p in sorted({*GRID, *refined})}
                if copied and algorithm == "gtopk":
                    known = dict(rounds["topk", density]) if topology == "star" else known
                    for p in known if draw.random() < 0.5 else ():
                        known[p] *= draw.choice((1.0, 1.0, 1.5))
                if topology == "star":
                    rounds[algorithm, density] = known
                point: dict[str, Any] = {"topology": topology, "bandwidth": "1Gbps", "algorithm": algorithm}
                point |= {} if density is None else {"density": density}
                k = None if density is None else round(1e6 * density)
                findings += [
                    Finding(point | {"workers": p}, {"comm_time_s": s, "round_time_s": s, "k": k, "elements": 10**6})
                    for p, s in known.items()
                ]
    return Growth(findings, GRID, seed), rounds


@pytest.mark.parametrize("seed", range(24))
def test_sentences_of_growth_follow_from_the_results(seed: int) -> None:
    growth, every = made_up(seed)
    said = in_words(growth)
    times = {title_of(name): every.get((name, 0.001)) or every[name, None] for name, _ in every}
    checked = [
        *check_growth(said[0], said[2:]),
        *check_fastest(said[1], times),
        *check_laws(said, growth),
        *check_orders(said, times),
    ]
    assert set(checked) == set(said), "a sentence was not understood"


def check_growth(sentence: str, laws: list[str]) -> list[str]:
    """The orders of the headline are those of the laws."""
    orders = re.match(r"Communication on star grows: (.*)\.$", sentence)
    assert orders is not None, sentence
    for part in orders[1].split(", "):
        found = re.fullmatch(
            r"(.*?) (?:in (O\(.*\))|nearest to (O\(.*\))|in an order that depends on the density)", part
        )
        assert found is not None, part
        (law,) = (each for each in laws if same(each.partition(" communicates")[0], found[1]))
        order = found[2] or found[3]
        assert f" {order}" in law if order else "depends on the density" in law
    return [sentence]


def same(one: str, other: str) -> bool:
    """Whether two texts name one algorithm: at the start of a sentence its letter is a capital."""
    return one.casefold() == other.casefold()


def check_fastest(sentence: str, times: dict[str, dict[int, float]]) -> list[str]:
    found = re.search(
        r"With ([\d,]+)(?: to ([\d,]+))? workers (.*?)(?: alike)? (?:has|have) the shortest round"
        r"(?:; at fewer, (.*?))? \(",
        sentence,
    )
    assert found is not None, sentence
    first, last = int(found[1]), int(found[2] or found[1])
    names = re.split(", | and ", found[3])
    assert last == GRID[-1]
    for workers in {p for known in times.values() for p in known if p >= first}:
        known = {name: of[workers] for name, of in times.items() if workers in of}
        least = min(known.values())
        assert all(known.get(name, least) == least for name in names), (workers, known)
        if workers in GRID:
            assert {name for name, seconds in known.items() if seconds == least} == set(names)
    fewer = {
        name
        for workers in GRID
        if workers < first
        for name, of in times.items()
        if of[workers] == min(each[workers] for each in times.values())
    }
    assert set(found[4].split(" or ") if found[4] else []) == fewer
    return [sentence]


END = r"(?= \(95% interval| at k = |;|\.$)"
"""What follows a formula: an interval unless its ends print alike, the selected entries, another law, or nothing."""


def check_laws(said: list[str], growth: Growth) -> list[str]:
    """An order and a formula in one sentence must be of one form; where densities differ, each has its own."""
    checked = []
    for sentence in said[1:]:
        if " communicates in " not in sentence:
            continue
        checked.append(sentence)
        title = sentence.partition(" communicates")[0]
        on_star = [each for each in growth.laws if each.topology == "star"]
        (law,) = (each for each in on_star if same(growth.titles[each.algorithm], title))
        forms = {(found.form, found.slope < 0) for found in law.fits.values()}
        if "depends on the density" in sentence:
            assert len(forms) > 1
            parts = re.findall(rf"at density [\d.]+ O\((.*?)\), (.*?){END}", sentence)
            assert len(parts) == len(law.fits)
        else:
            assert len(forms) == 1
            found = re.search(rf"communicates in .*?O\((.*?)\).*?: (.*?){END}", sentence)
            assert found is not None
            parts = [(found[1], found[2])]
        for order, formula in parts:
            basis = re.search(r" · (\S+)", formula)
            wanted = ORDERS[basis[1]] if basis and not formula.startswith("−") else "1"
            assert order.removeprefix("k").strip() in (wanted, "" if wanted == "1" else wanted), sentence
    assert len(checked) == len(growth.algorithms())
    for sentence in said[1:]:
        if re.search(r" on ring[:,]| On ring,|^On ring,", sentence) and sentence not in checked:
            checked.append(sentence)
            check_slower(sentence, growth)
    return checked


def check_slower(sentence: str, growth: Growth) -> None:
    last = GRID[-1]
    found = re.search(
        r"workers it takes ([\d.,]+)× as long as on star \(ring, 1Gbps(?:, density ([\d.]+))?\)", sentence
    )
    titles = {title: name for name, title in growth.titles.items()}
    here, there = (
        {
            (condition.density, name): growth.curves[condition, name][last]["comm_time_s"]
            for condition, name in growth.curves
            if condition.topology == topology
        }
        for topology in ("ring", "star")
    )
    if found is not None:
        name = next(titles[title] for title in titles if same(sentence[: len(title) + 1], title + " "))
        density = None if found[2] is None else float(found[2])
        assert here[density, name] / there[density, name] == pytest.approx(float(found[1].replace(",", "")), rel=0.01)
        return
    for title in re.search(r"communication of (.*) with 32 workers takes", sentence)[1].split(", "):  # type: ignore[index]
        assert all(here[key] < 1.5 * there[key] for key in here if key[1] == titles[title])


def check_orders(said: list[str], times: dict[str, dict[int, float]]) -> list[str]:
    checked = []
    pairs = set()

    def both(one: str, other: str) -> dict[int, tuple[float, float]]:
        one, other = (
            name[0].upper() + name[1:] if name[0].upper() + name[1:] in times else name for name in (one, other)
        )
        one, other = (next(each for each in times if each.lower() == name.lower()) for name in (one, other))
        pairs.add(frozenset((one, other)))
        return {p: (times[one][p], times[other][p]) for p in times[one] if p in times[other]}

    for sentence in said[1:]:
        if found := re.match(r"The order is the same for all of .*?: (.*) \(star", sentence):
            for part in re.findall(r"(\S+) faster than (\S+?)(?: \(equal at P = ([^)]*)\))?(?:, |$)", found[1]):
                known = both(part[0], part[1])
                equal = {p for p, (one, other) in known.items() if one == other}
                assert all(one <= other for one, other in known.values())
                assert numbers(part[2], sorted(known)) == equal
        elif found := re.match(r"Equally fast for all of .*?: (.*) \(star", sentence):
            for one, other in (part.split(" and ") for part in found[1].split(", ")):
                assert all(a == b for a, b in both(one, other).values())
        elif found := re.match(r"The order of (\S+) and (\S+) alternates: .* is faster only at (.*) \(", sentence):
            known = both(found[2], found[1])
            assert numbers(found[3], sorted(known)) == {p for p, (one, other) in known.items() if one < other}
        elif found := re.match(
            r"(\S+) is faster than (\S+) from P = (\d+)(?: \(or from a P after (\d+)\))?"
            r"(?:; equal at P = ([^;(]*))?",
            sentence,
        ):
            known = both(found[1], found[2])
            since, equal = int(found[3]), numbers(found[5] or "", sorted(known))
            assert all(one < other for p, (one, other) in known.items() if p >= since)
            assert all(one == other for p, (one, other) in known.items() if p in equal)
            assert all(one >= other for p, (one, other) in known.items() if p < since)
            assert found[4] or since - 1 in known
            assert not found[4] or int(found[4]) == max(p for p in known if p < since)
        elif found := re.match(r"Beyond the simulated P, (\S+) overtakes (\S+):", sentence):
            known = both(found[1], found[2])
            assert all(one >= other for one, other in known.values())
        else:
            continue
        checked.append(sentence)
    assert len(pairs) == 3, "each pair is spoken of"
    return checked


def numbers(text: str, every: list[int]) -> set[int]:
    """Read "4, 6 to 9, 16 on" back."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(", ")):
        low, _, high = part.removesuffix(" on").partition(" to ")
        last = every[-1] if part.endswith(" on") else int(high or low)
        found |= {p for p in every if int(low) <= p <= last}
    return found


def test_the_fault_that_was_filed_is_gone() -> None:
    """One density is constant in P, two grow with log P: no sentence may claim O(1) and write a logarithm."""
    forms = {0.001: lambda p: 1.0, 0.003: math.log2, 0.01: math.log2}
    findings = [
        Finding({"topology": "star", "bandwidth": "1Gbps", "density": density, "algorithm": "gtopk", "workers": p},
                {"comm_time_s": 2.5e-3 * form(p), "round_time_s": 1.0, "k": round(1e6 * density), "elements": 10**6})
        for density, form in forms.items() for p in GRID
    ]  # fmt: skip
    headline, _, law, *_ = in_words(Growth(findings, GRID, 0))
    assert "gTop-k in an order that depends on the density" in headline
    assert "at density 0.001 O(1), 2.5 ms; " in law
    assert law.count("O(log P), 2.5 ms · log₂P") == 2
    assert "bounded" not in law


def swept(times: dict[str, float]) -> Any:
    settings = sweep.SweepSettings(vary={"algorithm": tuple(times), "workers": (4,)})
    findings = [
        Finding({"algorithm": name, "workers": 4}, dict.fromkeys(sweep.SHOWN, 0.0) | {"round_time_s": seconds})
        for name, seconds in times.items()
    ]
    return sweep.conclude(settings, findings)


def test_equals_of_a_sweep_are_told_as_equals() -> None:
    tied = swept({"dense": 1.0, "topk": 1.0, "gtopk": 2.0})
    assert "and 1 more with 1 s a round; slowest: algorithm gtopk, workers 4 with 2 s" in tied.sentences[0]
    assert tied.data["wins"] == {"dense": 1, "topk": 1, "gtopk": 0}
    assert "in 1 of them together with others" in tied.sentences[1]
    assert swept({"dense": 1.0, "topk": 1.009, "gtopk": 1.02}).data["wins"] == {"dense": 1, "topk": 1, "gtopk": 0}
    assert swept({"dense": 1.0, "topk": 1.0}).sentences[0] == "All 2 combinations take 1 s a round."
    clear = swept({"dense": 1.0, "topk": 3.0})
    assert clear.sentences[0].startswith("Fastest of 2 combinations: algorithm dense, workers 4 with 1 s a round;")
    assert "together" not in clear.sentences[1]


def test_what_depends_on_the_bandwidth_is_not_said_to_be_independent_of_it() -> None:
    def row(bandwidth: str, name: str, sent: float) -> dict[str, Any]:
        return {"bandwidth": bandwidth, "algorithm": name, "time_s": 1.0, "times": [1.0], "bytes": sent,
                "uploads": sent, "accuracy": 0.9}  # fmt: skip

    settings = time_to_accuracy.TimeSettings(bandwidths=("1Gbps", "2Gbps"), seeds=(0,))
    for sent, said in ((2.0, "A and B (2 B)"), (1.0, "at 2Gbps")):
        rows = [row("1Gbps", "A", 2.0), row("2Gbps", "A", sent), row("1Gbps", "B", 2.0), row("2Gbps", "B", 2.0)]
        (first, least, *_), _ = time_to_accuracy._winners(settings, rows)
        assert "A and B at 1Gbps" in first
        assert said in least
        assert ("neither depends on the bandwidth" in least) == (sent == 2.0)


NAMES = {"A": "dense", "B": "dense-tree", "C": "ps"}


def result(name: str, seconds: float, workers: int = 6, bound_by: str = "network", loss: float | None = None) -> Any:
    return SimpleNamespace(
        algorithm=NAMES.get(name, name), title=name, round_time_s=seconds, workers=workers, bound_by=bound_by,
        way="messages", rounds=4, final_loss=loss, uploads=24 if seconds else 0,
    )  # fmt: skip


def test_who_is_fastest_is_told_with_equals() -> None:
    """Times that differ by at most 1 % are equal: a simulation is not more accurate than that."""
    (alone,) = conclude([result("A", 1.0), result("B", 1.02), result("C", 1049.6)], None)
    assert alone == (
        "With 6 workers A has the shortest round: 1 s (bottleneck: network); B takes 1.02× as long, C takes 1,050× as "
        "long."
    )
    (tied,) = conclude([result("A", 1.0), result("B", 1.009, bound_by="compute"), result("C", 3.0)], None)
    assert tied == "With 6 workers A and B have the shortest rounds, equal within 1%: 1 s; C takes 3× as long."


def test_a_short_round_is_not_told_as_progress() -> None:
    """Four rounds of 1 s and of 3 s; the lower loss comes first."""
    _, reached = conclude([result("A", 1.0, loss=2.25), result("B", 3.0, loss=2.125)], None)
    assert reached == "Training loss after 4 rounds each, and their time: B 2.1250 in 12 s, A 2.2500 in 4 s."
    assert conclude([result("A", 1.0), result("C", 0.5)], None)[1:] == []


OTHER_STEPS = [name for name, kind in ALGORITHMS.items() if kind.convergence is not Convergence.EXACT]


@pytest.mark.parametrize("name", [*OTHER_STEPS, "diloco:h=2"])
def test_without_data_nothing_is_told_of_the_rounds_of_what_is_not_dense_sgd(name: str) -> None:
    assert conclude([result("A", 1.0), result(name, 0.5)], None)[1:] == [
        f"Without data netsim cannot say how many rounds {name} needs; the time of a round is not the time to an "
        "accuracy."
    ]


def test_an_algorithm_without_any_work_is_not_compared() -> None:
    """The quotient of a round time and 0 is no factor."""
    said = conclude([result("A", 2.0), result("local-sgd", 0.0), result("B", 4.0)], None)
    assert said[:2] == [
        "With 6 workers A has the shortest round: 2 s (bottleneck: network); B takes 2× as long.",
        "Nothing is computed or sent with local-sgd, which therefore has no round time.",
    ]
    nothing = "With 6 workers no algorithm takes any time: nothing is computed or sent."
    assert conclude([result("A", 0.0), result("B", 0.0)], None)[0] == nothing


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (
            {"A": lambda p: 1.0, "B": lambda p: 2.0},
            "A also has the shortest round with P = 2, 4, 8, 16, 32, 64 workers on this network.",
        ),
        (
            {"A": lambda p: 1.0, "B": lambda p: 1.0},
            "A and B have the shortest rounds, equal within 1%, with P = 2, 4, 8, 16, 32, 64 workers",
        ),
        (
            {"A": lambda p: 1.0, "B": lambda p: 30.0 / p},
            "Fastest: A at P = 2; B from P = 31 (computed between 16 and 32).",
        ),
        ({"A": lambda p: 1.0, "B": lambda p: 4.0 / p**2}, "Fastest: B and A (tie) at P = 2; B from P = 3 (computed"),
        # Here B is fastest, and the round of sizes says A: nothing may be said of other numbers of workers.
        (
            {"A": lambda p: 1.0, "B": lambda p: 0.5 if p == 0 else 2.0},
            "is shortest with A; it does not predict the order at other P",
        ),
    ],
)
def test_the_order_along_workers_agrees_with_the_results(
    monkeypatch: pytest.MonkeyPatch, of: dict[str, Any], said: str
) -> None:
    session = session_with_rounds(monkeypatch, of)
    misleading = "not predict" in said
    results = [result(name, of[name](0) if misleading else of[name](6)) for name in of]
    sentences = conclude(results, session)
    assert said in sentences[-1]


@pytest.mark.parametrize("alone", [0.0, 3.0])
def test_one_worker_that_is_fastest_otherwise_or_not_at_all_is_no_precedent(
    monkeypatch: pytest.MonkeyPatch, alone: float
) -> None:
    """With one worker nothing is sent: neither takes any time, or B, which computes less, is faster."""
    session = session_with_rounds(monkeypatch, {"A": lambda p: 1.0, "B": lambda p: 2.0})
    results = [result("A", alone, workers=1), result("B", alone / 2, workers=1)]
    for each in results:
        each.uploads = 4  # one worker hands its vector over as several do
    sentences = conclude(results, session)
    assert sentences[-1] == "A has the shortest round with P = 2, 4, 8, 16, 32, 64 workers on this network."


def session_with_rounds(monkeypatch: pytest.MonkeyPatch, of: dict[str, Any]) -> Any:
    """Return a session in which a round of each algorithm takes as long as a function of P says."""
    titles = {algorithm: title for title, algorithm in NAMES.items()}

    def round_time(self: Any, algorithm: str, workers: int) -> float:
        return of[titles[algorithm]](workers)

    monkeypatch.setattr("netsim.analysis.conclusion.Scaling.round_time", round_time)
    monkeypatch.setattr("netsim.analysis.conclusion.rehearse", lambda experiment: None)
    monkeypatch.setattr("netsim.analysis.conclusion._sizes", lambda experiment, largest: [2, 4, 8, 16, 32, 64])
    return SimpleNamespace(experiment=Experiment())
