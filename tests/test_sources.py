"""The version of a measurement changes with what decides its result, and with nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netsim.study_engine import sources
from netsim.study_engine.simulated import simulate_point
from netsim.study_engine.store import Store
from netsim.study_engine.trained import train_point
from studies import sasg_paper, scaling, time_to_accuracy

MEASURES = {
    "sweep": simulate_point,
    "training": train_point,
    "scaling": scaling.measure,
    "sasg-paper": sasg_paper.measure,
    "time-to-accuracy": time_to_accuracy.measure,
}
ALL = set(MEASURES)
DRAW = {"scaling", "time-to-accuracy"}
"""Studies that measure traces, too."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of our packages, to be changed."""
    copy = tmp_path_factory.mktemp("checkout")
    for package in sources.OURS:
        shutil.copytree(sources.HOME / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def of_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, str]]]:
    """Give the versions of all measurements, as the copy says them now; a file of another time is read again."""

    def versions() -> dict[str, str]:
        sources._load.cache_clear()
        sources.version_of.cache_clear()
        return {name: sources.version_of(measure).code for name, measure in MEASURES.items()}

    monkeypatch.setattr(sources, "HOME", checkout)
    yield versions
    sources._load.cache_clear()
    sources.version_of.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        # What measures.
        ("netsim/study_engine/simulated.py", 'del result["bytes_', 'del result["bites_', {"sweep", "scaling"}),
        ("netsim/study_engine/trained.py", "< 4:", "< 3:", ALL - {"sweep", "scaling"}),
        ("netsim/study_engine/traced.py", 'asdict(trace)}', 'asdict(trace), "one": 1}', DRAW),
        ("studies/sasg_paper.py", "busy, until = 0, 0", "busy, until = 7, 0", {"sasg-paper"}),
        ("studies/scaling.py", 'in (DRAWN, "engine")', "in (DRAWN,)", {"scaling"}),
        ("netsim/_util/units.py", "PICOSECONDS = 10**12", "PICOSECONDS = 10**11", ALL),
        ("algorithms/gtopk.py", "class GTopK(", "class GTopK(object, ", ALL),
        ("netsim/comm/collectives/rings.py", "def ring_reduce_scatter(", "def ring_reduce_scatter(*, ", ALL),
        ("topologies/spec.py", "1e6", "1e7", ALL),
        ("topologies/star.py", "def star(", "def star(*, ", ALL),
        # Named by a text alone.
        ("netsim/training/workloads/fully_connected.py", "def fc_mnist(", "def fc_mnist(*, ", ALL),
        # What asks, fits, says, draws and shows.
        ("netsim/report/page.py", "import annotations\n", "import annotations\n\nNEW = 1\n", set()),
        ("netsim/cli/main.py", "INTERRUPTED = 130", "INTERRUPTED = 131", set()),
        ("netsim/cli/study.py", '"--quick"', '"--quickly"', set()),
        ("studies/growth.py", "BREAKS = 1.5", "BREAKS = 2.5", set()),
        ("studies/words.py", "LARGE_ERROR = 0.2", "LARGE_ERROR = 0.3", set()),
        ("netsim/study_engine/runner.py", "MOST_POINTS = 100_000", "MOST_POINTS = 1", set()),
        ("netsim/study_engine/traced.py", "RANKS, LINKS = 16, 16", "RANKS, LINKS = 8, 8", set()),
        ("studies/scaling.py", '"topk:gather=bruck", "gtopk"', '"gtopk"', set()),
        ("netsim/analysis/conclusion.py", "LARGEST = 64", "LARGEST = 32", set()),
        # What is for people alone, in files that measure.
        ("netsim/study_engine/simulated.py", "it would be most of the stored file.", "it would be much.", set()),
        ("netsim/simulator/session.py", "from __future__", "# A comment.\nfrom __future__", set()),
        ("netsim/experiment/configuration.py", "everything but the exchange.", "all but the exchange.", set()),
        ("netsim/_util/units.py", "from __future__", "\n\n\nfrom __future__", set()),
    ],
)  # fmt: skip
def test_a_version_changes_with_what_measures_and_nothing_else(
    checkout: Path, of_checkout: Callable[[], dict[str, str]], file: str, old: str, new: str, changed: set[str]
) -> None:
    before, path = of_checkout(), checkout / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        after = of_checkout()
    finally:
        path.write_text(text)
    assert {name for name in MEASURES if after[name] != before[name]} == changed


TRACED = """
import json, sys, threading
from pathlib import Path
home = Path(sys.argv[1])
ran = set()
def note(frame, event, argument):
    if event == "call":
        ran.add((frame.f_code.co_filename, frame.f_code.co_qualname))
    return None
from netsim.study_engine.sources import OURS, Reference, reach
from studies import scaling, time_to_accuracy
same = {"workload": "digits-mlp", "data": "digits", "workers": 3, "rounds": 1, "compute_time": "1ms", "batch_size": 4,
        "select_time": "1ms", "merge_time": "1ms", "eval_every": 1}
sizes = {"workers": 5, "timing_only": True, "elements": 1000}
points = [
    (time_to_accuracy.measure, same | {"algorithm": "gtopk"}),
    (time_to_accuracy.measure, same | {"algorithm": "sasg:alpha=0.5", "overlap": None}),
    (scaling.measure, sizes | {"algorithm": "dense", "topology": "fat-tree:k=4"}),
    (scaling.measure, sizes | {"algorithm": "gtopk", "topology": "racks", "engine": "event"}),
    (scaling.measure, sizes | {"algorithm": "topk:gather=bruck", "drawn": True}),
    (scaling.measure, sizes | {"algorithm": "ps", "protocol": "tcp", "background": "0.2"}),
    (scaling.measure, sizes | {"algorithm": "dense", "engine": "vectorized", "topology": "star"}),
    (scaling.measure, {"workers": 4, "timing_only": True, "model": "alexnet", "algorithm": "dense-tree",
                       "overlap": "tensor"}),
]
reached = set()
for measure, point in points:
    sys.setprofile(note); threading.setprofile(note)
    try:
        measure({name: value for name, value in point.items() if value is not None})
    finally:
        sys.setprofile(None); threading.setprofile(None)
    reached |= set(reach(measure).texts)
missing = []
for file, qualified in sorted(ran):
    path, top = Path(file), qualified.partition(".")[0]
    if not path.is_relative_to(home) or path.relative_to(home).parts[0] not in OURS or top.startswith("<"):
        continue
    parts = path.relative_to(home).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if Reference(module, top) not in reached:
        missing.append(f"{module}:{qualified}")
print(json.dumps({"missing": missing, "ran": len(ran)}))
"""


@pytest.mark.slow
def test_all_that_runs_while_measuring_is_in_the_version() -> None:
    """The interpreter says which functions of ours it called; none may be one that the version leaves out."""
    command = [sys.executable, "-c", TRACED, str(sources.HOME)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=sources.HOME)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["missing"] == []
    assert found["ran"] > 300


def test_libraries_that_are_imported_count_by_their_versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    libraries = sources.version_of(simulate_point).libraries
    assert {"python", "numpy", "torch", "networkx", "simpy"} <= libraries.keys()
    assert not {"typer", "rich", "jinja2", "joblib", "matplotlib", "seaborn"} & libraries.keys()
    before = Store(tmp_path, simulate_point).key({"workers": 2})
    changed = sources.Version(sources.version_of(simulate_point).code, libraries | {"numpy": "0.1"})
    monkeypatch.setattr("netsim.study_engine.store.version_of", lambda measure: changed)
    assert Store(tmp_path, simulate_point).key({"workers": 2}) != before


def test_where_files_are_the_same_the_version_is_and_the_sources_are_not_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, digest = sources.version_of(simulate_point), sources.digest_of_files()
    assert sources.version_where_measured(simulate_point, asked, digest) == asked
    elsewhere = sources.Version("of other files", {})
    monkeypatch.setattr(sources, "version_of", lambda measure: elsewhere)
    assert sources.version_where_measured(simulate_point, asked, digest) == asked
    assert sources.version_where_measured(simulate_point, asked, "another") == elsewhere
    assert sources.version_where_measured(keys, asked, digest) == elsewhere, "a file that the digest does not cover"
    monkeypatch.setattr(sources, "_installed", lambda name: "0.1")
    assert set(sources.version_where_measured(simulate_point, asked, digest).libraries.values()) == {"0.1"}


def test_a_change_of_any_file_changes_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netsim" / "deep").mkdir(parents=True)
    file, digests = tmp_path / "netsim" / "deep" / "one.py", []
    monkeypatch.setattr(sources, "HOME", tmp_path)
    for text in ("x = 1", "x = 2"):
        file.write_text(text)
        digests.append(sources.digest_of_files.__wrapped__())
    file.rename(file.with_name("two.py"))
    digests.append(sources.digest_of_files.__wrapped__())
    assert len(set(digests)) == 3


def test_a_measurement_of_ones_own_counts_with_the_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_study.py").write_text("import own_helper as h\n\ndef measure(point):\n    return h.twice(point)\n")
    helper = tmp_path / "own_helper.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    codes: list[str] = []
    for text in (
        "def twice(point):\n    return {'y': 2 * point['x']}\n",
        "def twice(point):\n    return {'y': 3 * point['x']}\n",
        "def twice(point):\n    'Say so.'\n    return {'y': 3 * point['x']}\n\ndef other():\n    return 1\n",
    ):
        helper.write_text(text)
        import own_study

        sources._load.cache_clear()
        sources.version_of.cache_clear()
        codes.append(sources.version_of(own_study.measure).code)
    assert codes[0] != codes[1]
    assert codes[1] == codes[2]


def keys(folder: Path, point: dict[str, Any], data: Any = None) -> str:
    return Store(folder, simulate_point, data).key(point)


@pytest.mark.parametrize(
    "point",
    [
        {"topology": "{file}.json:hash=1"},
        {"topology": "wan:matrix={file}.csv"},
        {"profile": "{file}.toml"},
        {"background": "{file}.csv"},
    ],
)
def test_a_file_that_a_point_names_counts_with_what_is_in_it(tmp_path: Path, point: dict[str, str]) -> None:
    named = {key: value.format(file=tmp_path / "f") for key, value in point.items()}
    file = next(tmp_path / f"f{suffix}" for suffix in (".json", ".csv", ".toml") if suffix in str(named))
    found = [keys(tmp_path, named)]
    for text in ("one", "two", "one"):
        file.write_text(text)
        found.append(keys(tmp_path, named))
    assert len(set(found)) == 3
    assert found[1] == found[3]


def test_a_point_that_trains_counts_with_its_data_and_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, Any] = {"workload": "fc-mnist", "data": "digits"}
    one = keys(tmp_path, trained, {("digits", None): "digits: SHA-256 1"})
    other = keys(tmp_path, trained, {("digits", None): "digits: SHA-256 2"})
    cluster = keys(tmp_path, trained, None)
    sizes = keys(tmp_path, trained | {"timing_only": True}, {})
    monkeypatch.setattr("netsim.study_engine.environment.processor", lambda device: "another")
    assert len({one, other, cluster, keys(tmp_path, trained, {("digits", None): "digits: SHA-256 1"})}) == 4
    assert sizes == keys(tmp_path, trained | {"timing_only": True}, None)
