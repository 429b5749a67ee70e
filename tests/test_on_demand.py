"""Conclusions are computed when they are read, once, and are those of the command line."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

import netsim
from netsim._util.on_demand import OnDemand
from tests.command import run

OPTIONS: dict[str, Any] = {"workers": 4, "timing_only": True, "elements": 1000, "algorithm": "dense,gtopk", "k": 10}
CALLED = "netsim.analysis.conclusion.conclude"


def test_the_items_are_computed_once_and_a_copy_is_a_list() -> None:
    calls: list[int] = []

    def compute() -> list[str]:
        calls.append(len(calls))
        return ["one", "two"]

    read = OnDemand(compute)
    assert calls == []
    assert read == ["one", "two"]
    assert read == OnDemand(lambda: ["one", "two"])
    assert read != ["one"]
    assert (len(read), read[0], read[-1:], list(read), repr(read)) == (2, "one", ["two"], list(read), "['one', 'two']")
    for copied in (pickle.loads(pickle.dumps(read)), copy.deepcopy(read)):
        assert type(copied) is list
        assert copied == read
    assert calls == [0]


def test_an_interrupt_while_it_is_read_leaves_it_to_the_next_reader() -> None:
    answers = iter([KeyboardInterrupt, ["here"]])

    def compute() -> list[str]:
        if (answer := next(answers)) is KeyboardInterrupt:
            raise KeyboardInterrupt
        assert isinstance(answer, list)
        return answer

    read = OnDemand(compute)
    with pytest.raises(KeyboardInterrupt):
        len(read)
    assert read == ["here"]


def test_results_do_not_wait_for_a_conclusion_that_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(CALLED, lambda *_: pytest.fail("it was concluded"))
        report = netsim.simulate(**OPTIONS)
        assert len(report.results) == 2
    ran = run(capsys, "simulate --workers 4 --timing-only --elements 1000 --algorithm dense,gtopk --k 10 --json")
    assert report.to_json() + "\n" == ran.out
    assert len(report.conclusion) > 1


@pytest.mark.parametrize("own", ["algorithm", "topology", "background"])
def test_what_own_code_and_files_say_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    mine = "from algorithms.topk import TopK\n\nclass Mine(TopK):\n    title = 'mine'\n"
    nodes = [{"id": "switch", "kind": "switch"}, *({"id": f"host{rank}", "kind": "host"} for rank in range(4))]
    cable = {"target": "switch", "bandwidth_bps": 1e9, "latency_s": 1e-5}
    net = {"nodes": nodes, "edges": [cable | {"source": f"host{rank}"} for rank in range(4)]}
    flows = "src,dst,bytes,start_s\nworker0,worker1,1000,0\n"
    monkeypatch.chdir(tmp_path)
    for name, text in {"mine.py": mine, "net.json": json.dumps(net), "flows.csv": flows}.items():
        Path(name).write_text(text)
    changed = {
        "algorithm": {"algorithm": "dense,mine.py:Mine"},
        "topology": {"topology": "net.json"},
        "background": {"background": "flows.csv"},
    }[own]
    called: list[tuple[object, ...]] = []

    def conclude(*given: object) -> list[str]:
        called.append(given)
        return ["concluded"]

    monkeypatch.setattr(CALLED, conclude)
    report = netsim.simulate(**OPTIONS | changed)
    assert len(called) == 1
    assert report.conclusion == ["concluded"]
