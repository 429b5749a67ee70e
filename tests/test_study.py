"""The study engine: points are kept one by one, used again only when they are the same, and never half written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim._util.errors import NetsimError, UsageError
from netsim.study_engine import Conclusion, Finding, Point, RanShard, Settings, Shard, Study, run_shard, run_study
from netsim.study_engine.pool import cluster_address, measured
from netsim.study_engine.settings import read_study_file, settings_of
from netsim.study_engine.shards import read_shard
from netsim.study_engine.sources import Version
from netsim.study_engine.store import Store
from studies import STUDIES, load_study
from tests.command import run

calls: list[Point] = []
"""The points that were measured in this process."""


def square(point: Point) -> Mapping[str, Any]:
    calls.append(point)
    if point["x"] < 0:
        raise UsageError(f"x {point['x']} must not be negative")
    return {"square": point["x"] ** 2}


class Squares(Settings):
    xs: tuple[int, ...] = (1, 2, 3)
    scale: float = 1.0


def up_to_a_hundred(settings: Squares, findings: Any) -> list[Point]:
    """Ask for ten times the greatest x, until its square is a hundred or more."""
    largest = max(finding.point["x"] for finding in findings)
    return [{"x": 10 * largest}] if largest**2 < 100 else []


def total(settings: Squares, findings: Any) -> Conclusion:
    assert all(isinstance(finding, Finding) for finding in findings)
    found = settings.scale * sum(finding.outcome["square"] for finding in findings)
    return Conclusion([f"The squares are {found} together."], {"sum": found})


SQUARES = Study(
    name="squares",
    title="Squares <of> numbers",
    settings=Squares,
    points=lambda settings: [{"x": x} for x in settings.xs],
    measure=square,
    refine=up_to_a_hundred,
    conclude=total,
    quick={"xs": (1,)},
)


@pytest.fixture(autouse=True)
def nothing_measured() -> None:
    calls.clear()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def squares(out: Path, **options: Any) -> dict[str, Any]:
    return run_study(SQUARES, settings_of(SQUARES), out, jobs=1, **options).data


def test_a_study_measures_refines_and_concludes(tmp_path: Path) -> None:
    assert squares(tmp_path)["sum"] == 1 + 4 + 9 + 900
    assert sorted(point["x"] for point in calls) == [1, 2, 3, 30]
    assert json.loads((tmp_path / "conclusion.json").read_text())["sum"] == 914
    rows = [json.loads(line) for line in (tmp_path / "points.jsonl").read_text().splitlines()]
    assert rows == [{"x": x, "square": x * x} for x in (1, 2, 3, 30)]
    assert (tmp_path / "points.csv").read_text().splitlines()[0] == "x,square"
    assert "Squares &lt;of&gt; numbers" in (tmp_path / "report.html").read_text()


def test_what_is_kept_is_measured_again_only_without_resume(tmp_path: Path) -> None:
    squares(tmp_path)
    before = files(tmp_path)
    calls.clear()
    squares(tmp_path, resume=True)
    assert calls == []
    squares(tmp_path)
    assert len(calls) == 4
    assert files(tmp_path) == before


def test_resuming_measures_what_is_missing_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    squares(tmp_path)
    before = files(tmp_path)
    kept = sorted((tmp_path / "points").iterdir())
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-20])
    kept[2].write_bytes(kept[2].read_bytes().replace(b'"square": ', b'"square": 7'))
    calls.clear()
    squares(tmp_path, resume=True)
    assert len(calls) == 3
    assert files(tmp_path) == before


def test_a_point_is_known_by_its_configuration_seed_measurement_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, square)
    point = {"x": 1, "y": "1Gbps", "seed": 3}
    same = {"seed": 3, "y": "1Gbps", "x": 1}
    others = [{"x": 2, "y": "1Gbps", "seed": 3}, {"x": 1, "y": "1Gbps", "seed": 4}, {"x": 1, "y": "1Gbps"}]
    keys = {store.key(each) for each in (point, same, *others)}
    keys.add(Store(tmp_path, total).key(point))
    monkeypatch.setattr("netsim.study_engine.store.version_of", lambda measure: Version("0.0.0+0", {}))
    keys.add(Store(tmp_path, square).key(point))
    assert len(keys) == 1 + len(others) + 2
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


def test_a_network_in_a_file_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    store, file = Store(tmp_path, square), tmp_path / "net.json"
    point = {"topology": f"{file}:hash=1"}
    keys = [store.key(point)]
    for text in ("one", "two", "one"):
        file.write_text(text)
        keys.append(store.key(point))
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_no_point(tmp_path: Path, value: object) -> None:
    with pytest.raises(UsageError, match="cannot be written as JSON"):
        Store(tmp_path, square).key({"x": value})


def test_a_point_that_fails_is_named_and_those_before_it_are_kept(tmp_path: Path) -> None:
    settings = settings_of(SQUARES, sets=["xs=4,-5,6"])
    with pytest.raises(NetsimError, match=re.escape("point x -5 failed: x -5 must not be negative")):
        run_study(SQUARES, settings, tmp_path, jobs=1)
    assert {json.loads(text)["point"]["x"] for text in files(tmp_path / "points").values()} == {
        point["x"] for point in calls
    } - {-5}


@pytest.mark.slow
def test_several_processes_find_what_one_does(tmp_path: Path) -> None:
    one = run_study(SQUARES, settings_of(SQUARES), tmp_path / "one", jobs=1)
    two = run_study(SQUARES, settings_of(SQUARES), tmp_path / "two", jobs=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert one.data == two.data


def test_workers_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first version is that of the process that asks, the second that of the one that measures."""
    for here, said in (
        (Version("1.0+bb", {}), "the cluster runs netsim 1.0+bb, but this machine 1.0+aa"),
        (Version("1.0+aa", {"torch": "2.8"}), "the cluster has torch 2.8, but this machine 2.9"),
    ):
        asked = Version("1.0+aa", {"torch": "2.9"})
        monkeypatch.setattr("netsim.study_engine.pool.version_of", lambda measure, asked=asked: asked)
        monkeypatch.setattr("netsim.study_engine.pool.version_where_measured", lambda *_, here=here: here)
        with pytest.raises(NetsimError, match=re.escape(said)):
            list(measured(square, [{"x": 1}], jobs=1))
        assert [outcome for _, outcome in measured(square, [{"x": 1}], jobs=1, stored=False)] == [square({"x": 1})]


def test_settings_come_from_defaults_then_quick_then_the_file_then_the_command() -> None:
    def of(**options: Any) -> Squares:
        return settings_of(SQUARES, **options)

    assert of().xs == (1, 2, 3)
    assert of(quick=True).xs == (1,)
    assert of(quick=True, given={"xs": [5, 6]}).xs == (5, 6)
    assert of(quick=True, given={"xs": [5, 6]}, sets=["xs=7"]).xs == (7,)
    assert of(sets=["scale=2"]).scale == 2.0
    assert of(sets=["xs=4,5, 6,"]).xs == (4, 5, 6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"xz": [1]}, "unknown setting of study squares: 'xz' (did you mean 'xs'?)"),
        ({"xs": 3}, "setting xs 3: should be a valid tuple, such as --set xs="),
        ({"xs": [1, "two"]}, "setting xs value 2 'two'"),
        ({"xs": [1, 2.5]}, "setting xs value 2 2.5"),
        ({"xs": [True]}, "setting xs value 1 True"),
        ({"scale": float("nan")}, "setting scale nan"),
        ({"scale": float("inf")}, "setting scale inf"),
        ({"scale": "1"}, "setting scale '1'"),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        settings_of(SQUARES, given=given)


@pytest.mark.parametrize("text", ["xs", "", "=1", "xs:1"])
def test_sets_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        settings_of(SQUARES, sets=[text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study = 1", "study 1 must be a name"),
        ('study = "scalin"', "unknown study 'scalin'"),
        ("[settings]", "names no study"),
        ('study = "sweep"\nsettings = 3', "settings must be a table"),
        ('study = "sweep"\ncode = "print()"', "unknown key"),
        ("study = ", "is not TOML"),
        ("\x00", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("#" * 1_000_001, "at most 1,000,000 are read"),
    ],
)
def test_study_files_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_study_file(path, STUDIES)


SMALL = {"fixed": {"timing_only": True, "elements": 100}, "vary": {"algorithm": ["dense", "topk"], "workers": [2, 3]}}


def write_toml(path: Path, extra: str = "", workers: str = "[2, 3]") -> Path:
    path.write_text(
        'study = "sweep"\n[settings.fixed]\ntiming_only = true\nelements = 100\n'
        f'{extra}\n[settings.vary]\nalgorithm = ["dense", "topk"]\nworkers = {workers}\n'
    )
    return path


def test_a_study_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write_toml(tmp_path / "own.toml")
    ran = run(capsys, f"study {own} --jobs 1 --json --out {tmp_path / 'out'}")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found == json.loads((tmp_path / "out" / "conclusion.json").read_text())
    assert found["wins"] == {"dense": 0, "topk": 2}
    dry = run(capsys, f"study {own} --dry-run --json --out {tmp_path / 'out'}")
    planned = json.loads(dry.out)
    assert (planned["known"], len(planned["points"])) == (4, 4)
    assert run(capsys, f"study {own} --dry-run").out.startswith("sweep: ")
    again = run(capsys, f"study {own} --jobs 1 --json --out {tmp_path / 'out'}")
    assert "holds 4 of the points; --resume would use them" in again.err
    assert run(capsys, f"study {own} --jobs 1 --json --resume --out {tmp_path / 'out'}") == (0, ran.out, "")


@pytest.mark.parametrize(
    ("sets", "fixed", "points"),
    [
        ("fixed.elements=1000", {"timing_only": True, "elements": 1000}, 30),
        ("fixed.workload=fc-mnist", {"timing_only": True, "workload": "fc-mnist"}, 30),
        ("fixed.density=0.01", {"timing_only": True, "model": "resnet50", "density": 0.01}, 30),
        ("fixed.workers=4", {"timing_only": True, "model": "resnet50", "workers": 4}, 6),
        ("vary.elements=1000,2000", {"timing_only": True}, 60),
        ("vary.model=vgg16,resnet50", {"timing_only": True}, 60),
    ],
)
def test_a_set_replaces_the_defaults_that_contradict_it(
    capsys: pytest.CaptureFixture[str], sets: str, fixed: dict[str, Any], points: int
) -> None:
    """The defaults: 3 algorithms, 5 numbers of workers and 2 bandwidths, of which one table has given up a key."""
    planned = json.loads(run(capsys, f"study sweep --set {sets} --dry-run --json").out)["points"]
    assert len(planned) == points
    varied = {"algorithm", "workers", "bandwidth", sets.removeprefix("vary.").partition("=")[0]}
    assert all(
        {name: value for name, value in point.items() if name not in varied or name in fixed} == fixed
        for point in planned
    )


@pytest.mark.parametrize(("fixed", "said"), [("workload=fc-mnist", True), ("model=vgg16", False)])
def test_a_sweep_says_that_a_workload_was_not_trained(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fixed: str, said: bool
) -> None:
    sets = f"--set fixed.{fixed} --set vary.workers=2 --set vary.bandwidth=1Gbps"
    found = json.loads(run(capsys, f"study sweep {sets} --jobs 1 --json --out {tmp_path / 'out'}").out)
    assert any(each.startswith("Nothing was trained") and "fc-mnist" in each for each in found["limits"]) == said


def test_a_set_that_contradicts_another_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run(capsys, "study sweep --set fixed.elements=1000 --set fixed.model=vgg16 --dry-run")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "elements" in ran.err
    assert "model" in ran.err


@pytest.mark.parametrize(
    ("extra", "workers", "said"),
    [
        ('workload = "os:system"', "[2]", "your own code"),
        ("elments = 5", "[2]", "did you mean"),
        ("latency = 0", "[2]", "latency 0"),
        ("latency = inf", "[2]", "finite"),
        ("density = nan", "[2]", "finite"),
        ("", "[]", "no points"),
        ("", "[-2]", "workers -2"),
        ("", "[true]", "workers True"),
        ("workers = 3", "[2]", "both fixed and varied"),
        ("k = [10, 20]", "[2]", "give a list of values under vary"),
        ('way = "auto"', "[2]", "write --engine instead"),
    ],
)
def test_sweeps_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, workers: str, said: str
) -> None:
    own = write_toml(tmp_path / "own.toml", extra, workers)
    ran = run(capsys, f"study {own} --jobs 1 --out {tmp_path / 'out'}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("study swep", "did you mean 'sweep'"),
        ("study missing.toml --out {out}", "cannot be read"),
        ("study sweep", "out is missing"),
        ("study sweep --out {out}/not/there", "is in a folder that was not found"),
        ("study sweep --out {out} --jobs -1", "jobs -1"),
        ("study sweep --out {out} --jobs many", "'many'"),
        ("study sweep --out {out} --cluster 127.0.0.1:8786", "dask://127.0.0.1:8786"),
        ("study sweep --out {out} --shard 0/4", "from 1/4 to 4/4; parts count from 1"),
        ("study sweep --out {out} --shard 5/4", "from 1/4 to 4/4"),
        ("study sweep --out {out} --shard 0/0", "from 1/1 to 1/1"),
        ("study sweep --out {out} --shard 3", "must be a part of a number of parts, such as 3/100"),
        ("study sweep --out {out} --shard -1/4", "such as 3/100"),
        ("study sweep --out {out} --shard 1/4 --cluster dask://a:1", "shard 1/4 and cluster exclude each other"),
        ("study sweep --out {out} --shard 1/4 --validation v", "validation 'v' is for a report"),
        ("study sweep --out {out} --shard 1/4 --nccl-tests t", "nccl-tests 't' is for a report"),
        ("study sweep --out {out} --set vary.workers=two", "workers 'two'"),
    ],
)
def test_commands_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, said: str
) -> None:
    ran = run(capsys, arguments.format(out=tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize("address", ["dask://[::1]:8786", "dask://head-node.example:8786"])
def test_addresses_of_clusters(address: str) -> None:
    assert cluster_address(address) == address.replace("dask", "tcp")


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_is_what_it_is_called(name: str) -> None:
    study = load_study(name)
    assert study.name == name
    for quick in (False, True):
        assert study.points(settings_of(study, quick=quick))


def validated(folder: Path, **changed: Any) -> Path:
    """Write what netsim validate writes, of two comparisons: 10 % off and 1 %; return the folder."""
    rows = [
        {"kind": "exchange", "algorithm": "ring-all-reduce", "title": "ring all-reduce", "workers": 4, "bytes": 400_000,
         "sends": "eager", "network": "shaped 100Mbit/s", "predicted_s": 0.11, "measured_s": 0.1,
         "measured_ci_s": [0.099, 0.102], "measured_ci_coverage": 0.96, "repeats": 9, "error": 0.1, "verdict": "off"},
        {"kind": "round", "algorithm": "gtopk", "title": "gTop-k <round>", "workers": 4, "bytes": 8000,
         "sends": "eager", "network": "shaped 100Mbit/s", "predicted_s": 0.099, "measured_s": 0.1,
         "measured_ci_s": [0.09, 0.11], "measured_ci_coverage": 0.96, "repeats": 9, "error": -0.01, "verdict": "agrees",
         "same_parameters": True},
    ]  # fmt: skip
    document = {"schema": "netsim.validation/1", "config": {}, "environment": {"hardware": "a Xeon, 2 cores"},
                "conclusion": ["All is well."], "settings": [], "comparison": rows} | changed  # fmt: skip
    folder.mkdir()
    (folder / "validation.json").write_text(json.dumps(document))
    return folder


def test_a_report_shows_predicted_against_measured_where_a_validation_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, folder = write_toml(tmp_path / "own.toml"), validated(tmp_path / "validation")
    ran = run(capsys, f"study {own} --jobs 1 --validation {folder} --out {tmp_path / 'out'}")
    assert ran.code == 0
    assert "on a Xeon, 2 cores, in 2 comparisons: the error is 5.5% in the median and 10.0% at the worst" in ran.out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Predicted against measured" in page
    assert "predicted = measured" in page
    assert "gTop-k &lt;round&gt;" in page
    assert "--validation DIR" in page
    assert "a setting of one&#39;s own" in page
    assert len((tmp_path / "out" / "report-predicted-against-measured.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema": "netsim.report/1"}, "schema"),
        ({"comparison": []}, "comparison"),
        ({"comparison": [{"kind": "exchange"}]}, "comparison 0"),
    ],
)
def test_validations_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], said: str
) -> None:
    own, folder = write_toml(tmp_path / "own.toml"), validated(tmp_path / "validation", **changed)
    ran = run(capsys, f"study {own} --jobs 1 --validation {folder} --out {tmp_path / 'out'}")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    missing = run(capsys, f"study {own} --jobs 1 --validation {tmp_path / 'none'} --out {tmp_path / 'out'}")
    assert missing.code == 2
    assert "cannot be read" in missing.err


@pytest.mark.parametrize("name", ["sasg-paper", "time-to-accuracy"])
def test_no_study_runs_code_that_a_file_names(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module would leave a mark if it were imported."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    Path("study.toml").write_text(f'study = "{name}"\n[settings]\nworkload = "mine:factory"\n')
    ran = run(capsys, "study study.toml --quick --out found")
    assert (ran.code, ran.out) == (2, "")
    assert "your own code" in ran.err
    assert not Path("ran").exists()


def shard_of_squares(out: Path, text: str) -> RanShard:
    return run_shard(SQUARES, settings_of(SQUARES), out, read_shard(text), jobs=1)


def test_shards_measure_each_point_once_and_merge_into_the_bytes_of_one_run(tmp_path: Path) -> None:
    squares(tmp_path / "one")
    calls.clear()
    first = shard_of_squares(tmp_path / "parts", "1/2")
    assert (first.points, first.measured, first.stored, first.total, first.stages_left) == (2, 2, 2, 3, True)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["points"]
    second = shard_of_squares(tmp_path / "parts", "2/2")  # all points are there: a refined one, the other shard's
    assert (second.points, second.measured, second.stored, second.total) == (1, 1, 3, 4)
    again = shard_of_squares(tmp_path / "parts", "1/2")
    assert (again.points, again.measured, again.stored, again.total, again.stages_left) == (3, 1, 4, 4, False)
    assert sorted(point["x"] for point in calls) == [1, 2, 3, 30]
    calls.clear()
    squares(tmp_path / "parts", resume=True)
    assert calls == []
    assert files(tmp_path / "parts") == files(tmp_path / "one")


def test_merging_measures_what_shards_left_out(tmp_path: Path) -> None:
    squares(tmp_path / "one")
    shard_of_squares(tmp_path / "parts", "2/3")
    calls.clear()
    squares(tmp_path / "parts", resume=True)
    assert len(calls) == 3
    assert files(tmp_path / "parts") == files(tmp_path / "one")


@given(points=st.lists(st.dictionaries(st.text(max_size=3), st.integers())), count=st.integers(1, 12))
def test_every_point_is_in_one_shard_and_shards_are_even(points: list[dict[str, int]], count: int) -> None:
    shares = [Shard(index, count).share(points) for index in range(1, count + 1)]
    together = [point for share in shares for point in share]
    assert all(together.count(point) == 1 for point in points)
    assert all(point in points for point in together)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert [Shard(index, count).share(points[::-1]) for index in range(1, count + 1)] == shares


def test_a_shard_says_how_many_points_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = f"study sweep --set vary.workers=2,4 --set vary.bandwidth=1Gbps --out {tmp_path} --jobs 1"
    planned = run(capsys, f"{few} --shard 1/4 --dry-run")
    assert "2 points, of which 0 are stored" in planned.out
    first = run(capsys, f"{few} --shard 1/4")
    assert first.out.splitlines() == [
        "Shard 1/4 of sweep: 2 points, 2 of them simulated now.",
        f"All shards: 2 of 6 points are stored in {str(tmp_path)!r}.",
    ]
    rest = run(capsys, f"{few} --shard 2/2 --json")
    assert json.loads(rest.out) == {
        "study": "sweep",
        "shard": [2, 2],
        "points": 3,
        "measured": 3,
        "stored": 5,
        "total": 6,
        "stages_left": False,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["points"]


@pytest.mark.parametrize(
    ("study", "is_read"),
    [
        ("scaling --quick", False),  # without data
        ("methods --quick", False),  # on digits, which come with netsim
        ("methods", True),  # on fashion-mnist
        ("gtopk-paper", True),  # on several data sets, one of which is in a folder
    ],
)
def test_a_folder_of_data_that_no_point_reads_is_mentioned(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, study: str, is_read: bool
) -> None:
    run(capsys, f"study {study} --dry-run --data-dir nowhere")
    why = "netsim: --data-dir nowhere changed nothing: no point of this study trains on a data set of a folder"
    assert caplog.messages == ([] if is_read else [why])
