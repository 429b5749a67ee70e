"""What may be wrong around a study: kept points, disks, settings and processes. One line each, and nothing is lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from netsim._util.errors import NetsimError, UsageError
from netsim.experiment.configuration import Experiment
from netsim.study_engine import Conclusion, Point, Settings, Study, run_study
from netsim.study_engine.pool import _manager_quiet
from tests.command import run, without_announcements

calls: list[Point] = []


def square(point: Point) -> Mapping[str, Any]:
    calls.append(point)
    return {"square": point["x"] ** 2}


def fail(point: Point) -> Mapping[str, Any]:
    raise KeyError("a key\nthat nobody knows")


def die(point: Point) -> Mapping[str, Any]:
    os._exit(1)


class Numbers(Settings):
    xs: tuple[int, ...] = (1, 2, 3)


def study(measure: Callable[[Point], Mapping[str, Any]] = square) -> Study[Numbers]:
    return Study(
        name="numbers",
        title="Numbers",
        settings=Numbers,
        points=lambda settings: [{"x": x} for x in settings.xs],
        measure=measure,
        conclude=lambda settings, found: Conclusion([f"{sum(each.outcome['square'] for each in found)}"], {}),
    )


def ran(out: Path, **options: Any) -> str:
    return run_study(study(), Numbers(), out, jobs=1, **options).conclusion.sentences[0]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The file of the first point, kept by a whole run."""
    assert ran(tmp_path) == "14"
    calls.clear()
    return next(path for path in (tmp_path / "points").iterdir() if json.loads(path.read_text())["point"] == {"x": 1})


def sealed(kept: Path, **changed: Any) -> bytes:
    """Return a point with something changed, and the hash that belongs to it."""
    whole = json.loads(kept.read_text()) | changed
    whole.pop("sha256")
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(whole | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


DAMAGED: dict[str, Callable[[Path], bytes]] = {
    "as it was filed": lambda kept: b'{"schema": "netsim.point/1", "outcome": {"a": NaN}, "sha256": "x"}',
    "nothing": lambda kept: b"",
    "null": lambda kept: b"null",
    "a list": lambda kept: b"[1, 2]",
    "deep": lambda kept: b"[" * 100_000,
    "deep and closed": lambda kept: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "digits": lambda kept: b'{"outcome": {"square": ' + b"9" * 5000 + b"}}",
    "not UTF-8": lambda kept: b"\xff\xfe" + kept.read_bytes(),
    "cut": lambda kept: kept.read_bytes()[:-9],
    "infinite": lambda kept: kept.read_bytes().replace(b'"square": 1', b'"square": 1e999'),
    "another number": lambda kept: kept.read_bytes().replace(b'"square": 1', b'"square": 2'),
    "half a character": lambda kept: kept.read_bytes().replace(b'"square": 1', b'"square": "\\ud800"'),
    "no hash": lambda kept: kept.read_bytes().replace(b'"sha256"', b'"sha"'),
    "a hash that is a number": lambda kept: re.sub(rb'"sha256": "[^"]*"', b'"sha256": 3', kept.read_bytes()),
    "another point": lambda kept: sealed(kept, point={"x": 2}, outcome={"square": 4}),
    "another version": lambda kept: sealed(kept, version="0.0.0+0"),
    "another schema": lambda kept: sealed(kept, schema="netsim.point/3"),
    "no outcome": lambda kept: sealed(kept, outcome=None),
    "a list for an outcome": lambda kept: sealed(kept, outcome=[1]),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_point_is_measured_again(kept: Path, damage: str) -> None:
    whole = kept.read_bytes()
    kept.write_bytes(DAMAGED[damage](kept))
    assert ran(kept.parents[1], resume=True) == "14"
    assert calls == [{"x": 1}]
    assert kept.read_bytes() == whole


def test_a_point_that_may_not_be_read_is_measured_again(kept: Path) -> None:
    whole = kept.read_bytes()
    kept.chmod(0)
    assert ran(kept.parents[1], resume=True) == "14"
    assert calls == ([] if os.geteuid() == 0 else [{"x": 1}])
    kept.chmod(0o600)
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("outcome", [{}, {"square": "x"}, {"square": None}, {"square": {"a": 1}}, {"other": 1}])
def test_a_point_with_a_right_hash_and_strange_contents_is_an_error_of_one_line(
    kept: Path, outcome: dict[str, Any]
) -> None:
    kept.write_bytes(sealed(kept, outcome=outcome))
    with pytest.raises(NetsimError, match=r"were not written by a study .* leave out --resume") as caught:
        ran(kept.parents[1], resume=True)
    assert "\n" not in str(caught.value)
    assert ran(kept.parents[1]) == "14"


@pytest.mark.parametrize("kind", ["folder", "fifo", "link to nothing", "link to a folder"])
def test_what_is_in_the_way_of_a_point_is_said_before_anything_is_measured(kept: Path, kind: str) -> None:
    kept.unlink()
    if kind == "folder":
        kept.mkdir()
    elif kind == "fifo":
        os.mkfifo(kept)
    else:
        kept.symlink_to("nothing" if kind == "link to nothing" else kept.parent)
    with pytest.raises(UsageError, match=re.escape(f"point {str(kept)!r} is not a regular file")):
        ran(kept.parents[1], resume=True)
    assert calls == []


@pytest.mark.parametrize("name", ["report.html", "conclusion.json", "points.csv", "points.jsonl"])
def test_what_is_in_the_way_of_a_result_is_said_before_anything_is_measured(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    calls.clear()
    with pytest.raises(UsageError, match=name):
        ran(tmp_path)
    assert calls == []


@pytest.mark.parametrize("out", ["file", "file/below", "file/below/that"])
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_measured(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    calls.clear()
    with pytest.raises(UsageError, match="out"):
        ran(tmp_path / out)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "points").touch()
    with pytest.raises(UsageError, match="points"):
        ran(tmp_path / "there")
    assert calls == []


def limited(out: Path, most: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a small sweep where no file may be longer than so many bytes, as on a disk that is full."""
    code = (
        "import resource, sys; from netsim.cli.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); sys.exit(main(sys.argv[1:]))"
    )
    sets = ["--set", "vary.workers=2,3", "--set", "vary.algorithm=gtopk", "--set", "vary.bandwidth=1Gbps"]
    command = [sys.executable, "-c", code, "study", "sweep", *sets, "--jobs", "1", "--out", str(out), *more]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    ran.stderr = without_announcements(ran.stderr)
    return ran


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """Full from the start, it is said before measuring; full at the report, points are kept and used again."""
    full = limited(tmp_path / "full", 0)
    assert (full.returncode, full.stdout, full.stderr.count("\n")) == (2, "", 1), full.stderr
    assert "cannot be written to: File too large" in full.stderr
    assert list((tmp_path / "full" / "points").iterdir()) == []
    late = limited(tmp_path / "late", 6000)
    assert (late.returncode, late.stderr.count("\n")) == (1, 1), late.stderr
    assert "all points are stored: make it writable, and give --resume" in late.stderr
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "late" / "points").iterdir()}
    assert len(kept) == 2
    again = limited(tmp_path / "late", 10**9, "--resume")
    assert (again.returncode, again.stderr) == (0, "")
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "late" / "points").iterdir()}
    assert (tmp_path / "late" / "report.html").is_file()


def test_a_disk_that_gets_full_keeps_what_was_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netsim._util.storage import write_atomically

    def until_full(path: Path, text: str) -> None:
        if len(list(path.parent.glob("*.json"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(path, text)

    monkeypatch.setattr("netsim.study_engine.store.write_atomically", until_full)
    with pytest.raises(NetsimError, match="No space left on device; finished points are stored"):
        ran(tmp_path)
    monkeypatch.undo()
    calls.clear()
    assert ran(tmp_path, resume=True) == "14"
    assert len(calls) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_of_any_kind_in_a_measurement_is_one_line(tmp_path: Path, jobs: int) -> None:
    with pytest.raises(NetsimError, match=r"point x [123] failed: KeyError: 'a key\\nthat nobody knows'") as caught:
        run_study(study(fail), Numbers(), tmp_path, jobs=jobs)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_process_that_dies_while_measuring_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetsimError, match=r"a process that measured points ended .* give --resume") as caught:
        run_study(study(die), Numbers(), tmp_path, jobs=2)
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_while_it_is_used_is_told(tmp_path: Path) -> None:
    network = tmp_path / "net.json"
    network.write_text("one")

    def change(known: int, total: int) -> None:
        network.write_text("another")

    one = Study(
        name="numbers", title="Numbers", settings=Numbers, points=lambda settings: [{"x": 1, "topology": str(network)}],
        measure=square, conclude=lambda settings, found: Conclusion(["all"], {}),
    )  # fmt: skip
    with pytest.raises(NetsimError, match="was changed while points were measured"):
        run_study(one, Numbers(), tmp_path / "out", jobs=1, on_point=change)


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    ran(tmp_path)
    left = tmp_path / "points" / f".{'ab' * 20}.{'0' * 16}"
    young = tmp_path / "points" / f".{'cd' * 20}.{'1' * 16}"
    report, own = tmp_path / f".report.html.{'2' * 16}", tmp_path / "points" / ".gitignore"
    for path in (left, young, report, own):
        path.write_text("half")
        if path is not young:
            os.utime(path, (time.time() - 7200,) * 2)
    assert ran(tmp_path, resume=True) == "14"
    assert [path.exists() for path in (left, young, report, own)] == [False, True, False, True]


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        f"study {LONG} --out {{out}}",
        f"study {LONG}.toml --out {{out}}",
        f"study sweep --quick --out {{out}}/{LONG}",
        f"study sweep --quick --out {{out}}/{LONG}/below",
        f"study sweep --out {{out}} --set fixed.topology={LONG}",
        f"study sweep --out {{out}} --set fixed.topology={LONG}.json",
        f"study sweep --out {{out}} --set fixed.profile={LONG}",
        f"study sweep --out {{out}} --set fixed.background={LONG}",
        f"study sweep --quick --out {{out}} --validation {LONG}",
        f"study scaling --quick --out {{out}} --set topologies={LONG}",
        f"study time-to-accuracy --quick --out {{out}} --set data={LONG}",
        "study sweep --quick --out {out} --jobs 99999999999",
        "study scaling --quick --out {out} --set densities=",
        "study scaling --quick --out {out} --set bandwidths=",
        "study time-to-accuracy --quick --out {out} --set bandwidths=",
        "study time-to-accuracy --quick --out {out} --set algorithms=x",
        "study time-to-accuracy --quick --out {out} --set lr=0",
        "study gtopk-paper --quick --out {out} --set seeds=",
        "study gtopk-paper --quick --out {out} --set ratios=0",
        "study sasg-paper --quick --out {out} --set seeds=",
        "study sasg-paper --quick --out {out} --set workload=x",
        "study sasg-paper --quick --out {out} --set lr_decay_at=x",
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str
) -> None:
    found = run(capsys, arguments.format(out=tmp_path))
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "points").exists()


TOML = {
    "numbers for names": 'study = "scaling"\n[settings]\nalgorithms = [3]',
    "lists for names": 'study = "scaling"\n[settings]\nalgorithms = [["dense"]]',
    "a number for a network": 'study = "sweep"\n[settings.fixed]\ntopology = 5',
    "a list for a value": 'study = "sweep"\n[settings.fixed]\ntopology = ["star"]',
    "a table for a value": 'study = "sweep"\n[settings.fixed.topology]\nname = "star"',
    "a number for a table": 'study = "sweep"\n[settings]\nfixed = 5',
    "a day": 'study = "sweep"\n[settings.fixed]\nlatency = 1979-05-27',
    "digits": 'study = "sweep"\n[settings.fixed]\nelements = ' + "9" * 5000,
    "deep": 'study = "sweep"\n[settings]\nfixed = ' + "[" * 900 + "]" * 900,
    "deep names": f'study = "sweep"\n[{".".join(["settings"] + 3000 * ["a"])}]\nx = 1',
    "a list for a study": "study = []",
    "a NUL in a name": 'study = "sweep"\n[settings.fixed]\n"a\\u0000" = 1',
}


@pytest.mark.parametrize("kind", TOML)
def test_settings_of_a_wrong_kind_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (tmp_path / "own.toml").write_text(TOML[kind])
    found = run(capsys, f"study {tmp_path / 'own.toml'} --quick --out {tmp_path / 'out'}")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)


NAMES = [*(name for name in Experiment.__dataclass_fields__ if name not in ("effects", "work_rates")), "algorithm",
         "topology", "bandwidth", "latency", "compute_time", "lr", "background", "straggler", "link_event",
         "compute_jitter", "latency_jitter", "protocol", "switching", "background_size", "message_overhead",
         "connections"]  # fmt: skip
WRONG = [
    "a\0/b.json",
    "\0",
    "wan:matrix=a\0b",
    "",
    " ",
    "x" * 300,
    "é😀",
    "-1",
    -1,
    0,
    3,
    2**80,
    1e300,
    True,
    "1e999999",
]


@pytest.mark.parametrize("name", dict.fromkeys(NAMES))
def test_any_value_for_any_option_is_used_or_refused(name: str) -> None:
    """As a TOML file could give it to a sweep: refusals are UsageErrors of one line, and nothing else is raised."""
    from studies.sweep import SweepSettings, points

    for value in WRONG:
        fixed: dict[str, Any] = {"timing_only": True, "elements": 10, "algorithm": "gtopk"}
        said = ""
        try:
            points(SweepSettings(fixed=fixed | {name: value}, vary={"workers": (2,)} if name != "workers" else {}))
        except NetsimError as error:
            said = str(error)
        assert "\n" not in said, value


def test_only_the_key_error_of_a_cancelled_pool_stays_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException]] = []

    def see(failure: threading.ExceptHookArgs) -> None:
        seen.append(failure.exc_type)

    def fail_in_thread(name: str, error: Exception) -> None:
        failure = (type(error), error, None, threading.Thread(name=name))
        threading.excepthook(threading.ExceptHookArgs(failure))

    monkeypatch.setattr(threading, "excepthook", see)
    with _manager_quiet():
        fail_in_thread("ExecutorManagerThread", KeyError(1))
        assert seen == []
        fail_in_thread("ExecutorManagerThread", ValueError(1))
        fail_in_thread("another", KeyError(1))
        assert seen == [ValueError, KeyError]
    assert threading.excepthook is see
