"""Users' own topologies: functions in any file, or given from Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import netsim
from netsim._util.errors import UsageError
from netsim._util.user_code import imported
from netsim.study_engine.checks import check_no_code
from topologies import build, is_own, spec, taken
from topologies.builder import Shape

PAGE = Path(__file__).parents[1] / "docs" / "own-topology.md"
WRONG = """
def number(shape):
    return 3

def raises(shape):
    return shape.nothing

def unknown(shape, size: "Missing" = 2):
    return None

class Network:
    pass
"""


def round_times(topology: Any) -> list[float]:
    report = netsim.simulate(
        workers=16, timing_only=True, elements=100_000, algorithm="dense,gtopk", topology=topology, latency="40us"
    )
    return [result.round_time_s for result in report.results]


@pytest.mark.skipif(not PAGE.exists(), reason="the tests run away from the sources")
def test_the_function_of_the_page_is_the_racks_that_it_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(import networkx.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    # racks with the uplink of a host and half of the latency on each cable is the same network
    expected = round_times("racks:size=4,uplink=1Gbps")
    assert round_times("./mine.py:pairs:size=4") == pytest.approx(expected, rel=1e-9)
    pairs = imported("topology", "./mine.py:pairs", "a function")
    assert round_times(pairs) == pytest.approx(round_times("racks:size=2,uplink=1Gbps"), rel=1e-9)
    assert tuple(taken("./mine.py:pairs")) == (True, True)
    with pytest.raises(UsageError, match=r"'sze' \(did you mean 'size'\?\); known: size, hash"):
        round_times("./mine.py:pairs:sze=4")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "its function returned int, expected a networkx graph with hosts and links"),
        ("raises", "AttributeError ('Shape' object has no attribute 'nothing') in its function, at wrong.py:6"),
        ("Network", "is of type type; expected a function of a Shape"),
        ("unknown", "NameError (name 'Missing' is not defined) in the annotations of its function"),
        ("missing", "has no attribute 'missing'"),
    ],
)
def test_what_is_wrong_with_a_users_topology_is_said_in_one_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        build(f"wrong.py:{name}", Shape(4))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_of_files_and_of_netsims_own_topologies_are_no_users_functions() -> None:
    for text in ("racks:size", "star", "./a:b.json", "net.json:x", "/folder/net.graphml:hash=3"):
        assert not is_own(text)
    assert spec.parts_of("./mine.py:pairs") == ("./mine.py:pairs", "")


@pytest.mark.parametrize("topology", [len, float, object(), lambda: None])
def test_what_builds_no_network_is_refused(topology: Any) -> None:
    with pytest.raises(UsageError):
        round_times(topology)


def test_a_study_runs_no_code_that_its_settings_name() -> None:
    with pytest.raises(UsageError, match=r"topology './mine.py:pairs:size=4' is your own code"):
        check_no_code({"topology": "./mine.py:pairs:size=4"})
    check_no_code({"topology": "racks:size=4,uplink=1Gbps"})


def test_a_type_that_only_a_checker_can_evaluate_is_no_obstacle(tmp_path: Path) -> None:
    code = """
import networkx

def star(shape: "Unknown", nodes: int = 2) -> "networkx.Graph[str]":
    graph = networkx.Graph()
    for host in range(shape.hosts):
        graph.add_edge(f"host{host}", "switch", bandwidth=1e9, latency=1e-6)
    return graph
"""
    (tmp_path / "typed.py").write_text(code)
    keys = spec.keys_of(imported("topology", str(tmp_path / "typed.py") + ":star", "a function"))
    assert keys["nodes"] == ("nodes", spec.PLAIN[int])
