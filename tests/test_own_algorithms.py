"""Users' own algorithms: named by file or module, given from Python, and the rules that a rehearsal checks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import netsim
from algorithms import ALGORITHMS, class_of, title_of
from algorithms.dense import DenseRing
from netsim._util import user_code
from netsim._util.errors import NetsimError, UsageError
from netsim.cli.main import main
from netsim.cli.options import of_plugins
from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Dense, Vector
from netsim.comm.worker import Worker
from netsim.experiment.configuration import Experiment
from netsim.simulator import rehearsal
from netsim.study_engine.checks import check_no_code
from netsim.training.algorithm import Algorithm

HEADER = """
from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Dense, SizeOnly, size_rule
from netsim.training.algorithm import Algorithm

"""
WRITTEN = (
    HEADER
    + """
class Ring(Algorithm):
    def __init__(self, factor: float = 1.0, rounds: int = 1, mode: str = "plain", loud: bool = False) -> None:
        self.factor = factor

    async def exchange(self, worker, vector, memory, template):
        return await ring_all_reduce(worker, vector), None
"""
)


class Own(Algorithm):
    """The ring all-reduce, as a user writes it.

    Parameters
    ----------
    k : int
        A number that changes
        nothing.
    """

    def __init__(self, k: int = 1, rate: float = 0.5) -> None:
        self.k = k
        self.rate = rate

    async def exchange(self, worker: Worker, vector: Any, memory: None, template: Vector) -> tuple[Vector, None]:
        """Return the sum."""
        return await ring_all_reduce(worker, vector), None


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def timed(algorithm: Any, **options: Any) -> list[float]:
    report = netsim.simulate(**{"workers": 8, "timing_only": True, "elements": 10_000, **options}, algorithm=algorithm)
    return [result.round_time_s for result in report.results]


def test_a_file_a_module_a_class_and_an_object_serve_as_a_name_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    written(tmp_path, WRITTEN, "ring_of_mine.py")
    [expected] = timed("dense:segment=none")
    for algorithm in ("./ring_of_mine.py:Ring", "ring_of_mine:Ring", "ring_of_mine:Ring:factor=0.5", Own, Own(k=3)):
        assert timed(algorithm) == [expected]
    assert timed([Own(k=3), Own(k=4), "gtopk", DenseRing(segment="none")])[::3] == [expected, expected]


def test_the_arguments_of_an_object_are_its_options() -> None:
    report = netsim.simulate(workers=2, timing_only=True, elements=100, algorithm=[Own(3, rate=1e-7 / 3), DenseRing])
    assert [result.title for result in report.results] == [f"Own (k 3 rate {1e-7 / 3!r})", "dense"]
    name = report.results[0].algorithm
    built = Experiment.of(algorithm=name).algorithm(name, (100,))
    assert isinstance(built, Own)
    assert (built.k, built.rate) == (3, 1e-7 / 3)
    assert report.results[1].algorithm == "dense"


def test_constructor_parameters_are_options_of_their_defaults_type(tmp_path: Path) -> None:
    name = f"{written(tmp_path, WRITTEN)}:Ring"
    assert title_of(f"{name}:factor=2,loud=true") == "Ring (factor 2 loud)"
    for wrong, message in (("rounds=x", "not a whole number"), ("factor=inf", "finite"), ("fctor=1", "did you mean")):
        with pytest.raises(UsageError, match=message):
            Experiment.of(algorithm=f"{name}:{wrong}")


def test_a_file_that_changed_is_imported_anew(tmp_path: Path) -> None:
    path = written(tmp_path, WRITTEN)
    timed(f"{path}:Ring")
    path.write_text(WRITTEN.replace("mode", "manner"))
    os.utime(path, ns=(0, 0))
    timed(f"{path}:Ring:manner=plain")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.py:Ring", "was not found; give the path of a Python file"),
        ("mine.py:Rign", "has no attribute 'Rign' (did you mean 'Ring'?)"),
        ("mine.py:size_rule", "is of type function; expected a subclass of netsim.training.algorithm.Algorithm"),
        ("mine.py:Dense", "is class Dense; expected a subclass"),
        ("mine.py:Algorithm", "it has no exchange; define async def exchange(...)"),
        ("no_such_package.module:Ring", "ModuleNotFoundError"),
    ],
)
def test_a_name_that_is_no_algorithm_is_refused_in_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, WRITTEN)
    with pytest.raises(UsageError) as raised:
        Experiment.of(algorithm=name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


BROKEN = {
    "a received payload is changed": (
        """
        other = await worker.sendrecv((worker.rank + 1) % worker.workers, vector,
                                      (worker.rank - 1) % worker.workers, vector)
        other.values.add_(1)  #!
        return await ring_all_reduce(worker, other), None
""",
        "was changed at mine.py:10; a payload never changes",
    ),
    "the values of a payload are replaced": (
        """
        vector.values += 1  #!
        return await ring_all_reduce(worker, vector), None
""",
        "a payload never changes",
    ),
    "a function changes what was sent": (
        """
        await worker.sendrecv((worker.rank + 1) % worker.workers, vector, (worker.rank - 1) % worker.workers, vector)
        return await worker.compute("merge", double, vector), None
""",
        "was changed at mine.py:13; a payload never changes",
    ),
    "the result of a collective is changed": (
        """
        total = await ring_all_reduce(worker, vector)
        total.values.mul_(0.5)  #!
        return total, None
""",
        "1000 elements of float32 that every rank has as a result at mine.py:8 was changed at mine.py:9; a payload",
    ),
    "the result of a collective is changed, every time alike": (
        """
        total = await ring_all_reduce(worker, vector)
        total.values.clamp_(-0.1, 0.1)  #!
        return total, None
""",
        "that every rank has as a result at mine.py:8 was changed at mine.py:9",
    ),
    "one of several replicated results is changed": (
        """
        total = await ring_all_reduce(worker, vector)
        half, rest = await worker.replicated("merge", halves, total)
        rest.values.mul_(2)  #!
        return total, None
""",
        "500 elements of float32 that every rank has as a result at mine.py:9 was changed at mine.py:10",
    ),
    "a send is begun and its handle not awaited": (
        """
        await worker.start_send((worker.rank + 1) % worker.workers, vector)  #!
        await worker.recv((worker.rank - 1) % worker.workers, vector)
        return await ring_all_reduce(worker, vector), None
""",
        "the handle of worker.start_send at mine.py:8 was not awaited",
    ),
    "a receive is begun and its handle not awaited": (
        """
        handle = await worker.start_recv((worker.rank - 1) % worker.workers, vector)  #!
        await worker.send((worker.rank + 1) % worker.workers, vector)
        return await ring_all_reduce(worker, vector), None
""",
        "write handle = await worker.start_recv(...), and await handle later",
    ),
    "a send is not awaited": (
        """
        worker.send((worker.rank + 1) % worker.workers, vector)  #!
        return await ring_all_reduce(worker, vector), None
""",
        "was not awaited",
    ),
    "a send is not awaited, and its receiver waits": (
        """
        worker.send((worker.rank + 1) % worker.workers, vector)  #!
        return await worker.recv((worker.rank - 1) % worker.workers, vector), None
""",
        "worker.send at mine.py:",
    ),
    "ranks end with different sums": ("\n        return vector, None\n", "the same sum on every rank"),
    "nobody sends": (
        "\n        return await worker.recv((worker.rank - 1) % worker.workers, vector), None\n",
        "the algorithm deadlocks",
    ),
    "no size rule": (
        """
        summed = await ring_all_reduce(worker, vector)
        return await worker.replicated("merge", halve, summed), None
""",
        "halve (mine.py:",
    ),
    "values are read outside of a function": (
        """
        total = float(vector.values.sum())  #!
        return await ring_all_reduce(worker, vector), None
""",
        "read values only in functions given to worker.compute",
    ),
    "another error": (
        """
        total = vector.vales  #!
        return await ring_all_reduce(worker, vector), None
""",
        "AttributeError ('Dense' object has no attribute 'vales') in its exchange, at mine.py:",
    ),
    "something else is awaited": (
        """
        import asyncio
        await asyncio.sleep(0)  #!
        return await ring_all_reduce(worker, vector), None
""",
        "which is not a netsim request",
    ),
}
FUNCTIONS = """

def double(vector):
    vector.values.mul_(2)
    return vector

def halve(vector):
    return Dense(vector.values / 2)

def halves(vector):
    return tuple(Dense(half.clone()) for half in vector.values.tensor_split(2))
"""


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_rule_is_named_with_file_and_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = BROKEN[what]
    text = HEADER + f"class Broken(Algorithm):\n    async def exchange(self, worker, vector, memory, template):{body}"
    written(tmp_path, text + FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        netsim.simulate(workers=4, timing_only=True, elements=1000, algorithm="mine.py:Broken")
    said = str(raised.value)
    assert message in said
    assert "\n" not in said
    assert said.startswith("algorithm 'mine.py:Broken'")
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("#!")]
    assert all(f"mine.py:{number}" in said for number in marked)


def test_every_command_that_simulates_rehearses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body, message = BROKEN["no size rule"]
    text = HEADER + f"class Broken(Algorithm):\n    async def exchange(self, worker, vector, memory, template):{body}"
    written(tmp_path, text + FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    sizes = ["--workers", "4", "--elements", "100", "--algorithm", "mine.py:Broken"]
    for command in (["recommend", "--compute-time", "1ms", "--jobs", "1"], ["topology", "placement", "racks:size=2"]):
        assert main([*command, *sizes]) == 2
        assert message in capsys.readouterr().err


def test_an_exchange_that_is_no_coroutine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, WRITTEN.replace("async def exchange", "def exchange").replace("await ", ""))
    with pytest.raises(UsageError, match=r"\(mine\.py:11\): exchange is not a coroutine; write async def exchange"):
        timed("mine.py:Ring")


@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_netsims_own_algorithms_break_no_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "is_users", lambda text: True)
    rehearsal._rehearse_once.cache_clear()
    rehearsal.rehearse(Experiment.of(algorithm=name, timing_only=True))


def test_a_study_runs_no_code_that_its_settings_name() -> None:
    for point in ({"algorithm": "./mine.py:Mine"}, {"algorithm": "dense,mine:Mine:k=3"}, {"workload": "mine:make"}):
        with pytest.raises(UsageError, match="is your own code, which a study does not run"):
            check_no_code(point)
    check_no_code({"algorithm": "topk:gather=bruck,dense", "workload": "digits-mlp"})


def test_two_algorithms_with_one_title_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, WRITTEN.replace("    def __init__", '    title = "Top-k"\n    def __init__'))
    with pytest.raises(UsageError, match="have the same title 'Top-k'; change one"):
        Experiment.of(algorithm=f"topk,{path}:Ring")


def test_a_class_that_ranks_cannot_import_is_refused_before_they_start() -> None:
    class Local(Own):
        """A class inside a function."""

    assert timed(Local) == timed(Own)
    with pytest.raises(UsageError, match="define it at the top level of a file"):
        netsim.run(workers=2, algorithm=Local)


def test_an_object_with_an_argument_that_no_text_holds_is_refused() -> None:
    class Callback(Own):
        """An algorithm with a function as its argument."""

        def __init__(self, decay: Any = None) -> None:
            super().__init__()

    with pytest.raises(UsageError, match=r"Callback\(decay=<built-in function len>\)"):
        Experiment.of(algorithm=Callback(decay=len))


def test_a_script_that_calls_netsim_while_it_is_imported_is_told_so(tmp_path: Path) -> None:
    path = written(tmp_path, WRITTEN + "\nimport netsim\nnetsim.simulate(algorithm=Ring)\n")
    with pytest.raises(UsageError, match=r"call it under if __name__ == '__main__':$"):
        timed(f"{path}:Ring")


def test_an_installed_package_adds_algorithms_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        """An entry point as importlib.metadata finds it."""

        def __init__(self, name: str, load: Any) -> None:
            self.name, self.value, self.load = name, "package:Class", load

    points = [Point("theirs", lambda: Own), Point("broken", lambda: 1 / 0), Point("dense", lambda: Own)]
    monkeypatch.setattr(user_code, "plugin_points", lambda group: points)
    monkeypatch.setattr("algorithms.ALGORITHMS", ALGORITHMS.copy())
    monkeypatch.setattr("algorithms.UNUSABLE", {})
    import algorithms

    algorithms._add_plugins()
    assert class_of("theirs") is Own
    assert class_of("dense") is DenseRing
    with pytest.raises(
        UsageError, match=r"'broken': ZeroDivisionError \(division by zero\) in importing package:Class"
    ):
        class_of("broken")
    with pytest.raises(UsageError, match="theirs"):
        class_of("unknown")
    assert of_plugins() == [
        ("k=N", "theirs: A number that changes nothing. [default: 1]"),
        ("rate=X", "theirs: [default: 0.5]"),
    ]


def test_new_algorithm_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "algorithm", "my_entries.py"]) == 0
    assert main(["new", "algorithm", "my_entries.py"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["new", "algorithm", "my-entries.py"]) == 2
    assert "must be the name of a Python module" in capsys.readouterr().err
    # P-1 messages of a tenth of 640,000 values and indices, 4 bytes each, at 1 Gbit/s, after 50 µs each.
    own = "./my_entries.py:MyEntries:fraction=0.1"
    [took, _] = timed([own, "gtopk"], workers=64, elements=640_000, latency="50us")
    assert took == pytest.approx(63 * (50e-6 + 64_000 * 64 / 1e9))


LATE = """
class Late(Algorithm):
    async def exchange(self, worker, vector, memory, template):
        if worker.step == 3:
            vector.nothing
        return await ring_all_reduce(worker, vector), None
"""


def test_an_error_of_a_later_step_is_named_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, HEADER + LATE)
    with pytest.raises(UsageError, match=r"no attribute 'nothing'\) in its exchange, at mine\.py:10$"):
        netsim.simulate(workers=2, algorithm="mine.py:Late", rounds=5, workload="tests.tiny:tiny", k=3)


@pytest.mark.slow
@pytest.mark.real
def test_an_error_of_a_real_rank_is_named_with_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, HEADER + LATE)
    with pytest.raises(NetsimError, match=rf"no attribute 'nothing', at {path}:10$"):
        netsim.run(workers=2, algorithm=f"{path}:Late", rounds=5, workload="tests.tiny:tiny", k=3)


def test_a_name_with_options_is_kept_in_the_config() -> None:
    report = netsim.simulate(workers=2, timing_only=True, elements=100, algorithm=[Own(k=3), "sasg"])
    again = Experiment.from_config(report.config)
    assert again.algorithms == ("tests.test_own_algorithms:Own:k=3", "sasg")
    assert torch.equal(netsim.exchange(Own(k=3), torch.ones(2, 5)).aggregated, torch.full((5,), 2.0))


class Measured(Own):
    """The ring all-reduce of values that a function without a size rule has seen."""

    async def exchange(self, worker: Worker, vector: Vector, memory: Any, template: Vector) -> tuple[Vector, Any]:
        seen = await worker.compute("select", lambda each: Dense(each.values.clone()), vector)
        return await ring_all_reduce(worker, seen), None


def test_an_algorithm_without_size_rules_has_a_conclusion_at_its_own_number_of_workers() -> None:
    report = netsim.simulate(algorithm=[Measured, "topk"], workers=2, rounds=1, compute_time="1ms")
    assert "has the shortest round" in report.conclusion[0]
    last = report.conclusion[-1]
    assert last.startswith("The order at other numbers of workers could not be computed: algorithm ")
    assert "<lambda> (" in last
    assert "has no size_rule" in last
