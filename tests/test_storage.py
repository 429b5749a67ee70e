"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import netsim
from netsim._util.errors import UsageError
from netsim._util.storage import check_folder, check_outputs, write_atomically
from tests.command import run
from tests.unprivileged import USER, run_unprivileged


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def refuse(_: int) -> None:
    raise OSError(28, "No space left on device")


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_text_arrives_byte_for_byte(tmp_path: Path) -> None:
    write_atomically(tmp_path / "report", "one\ntwo µ\n")
    assert (tmp_path / "report").read_bytes() == b"one\ntwo \xc2\xb5\n"
    assert names(tmp_path) == ["report"]


def test_a_longer_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old " * 1000)
    write_atomically(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["report"]


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    with path.open() as reading:
        write_atomically(path, "new")
        assert reading.read() == "old"


@pytest.mark.parametrize(("failure", "error"), [(refuse, OSError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("old", ["old", None])
def test_a_failure_midway_leaves_what_was_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: object,
    error: type[BaseException],
    old: str | None,
) -> None:
    path = tmp_path / "report"
    if old is not None:
        path.write_text(old)
    monkeypatch.setattr(os, "fsync", failure)
    with pytest.raises(error):
        write_atomically(path, "new")
    assert names(tmp_path) == ([] if old is None else ["report"])
    assert old is None or path.read_text() == old


def test_what_utf_8_cannot_hold_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    """Half of a pair, as in the name of a file that is not in UTF-8."""
    write_atomically(tmp_path / "report", '"new \udcff"')
    assert json.loads((tmp_path / "report").read_text(encoding="utf-8")) == "new \udcff"
    assert names(tmp_path) == ["report"]


def test_a_target_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    os.umask(mask)
    write_atomically(tmp_path / "report", "text")
    assert (tmp_path / "report").stat().st_mode & 0o777 == mode
    assert os.umask(0o022) == mask


def test_a_bare_name_is_written_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically(Path("report"), "text")
    assert (tmp_path / "report").read_text() == "text"


@pytest.mark.usefixtures("umask")
def test_an_existing_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    path.chmod(0o640)
    write_atomically(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")
def test_an_existing_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    os.chown(path, 12, 34)
    write_atomically(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


def test_another_hard_link_keeps_the_old_content(tmp_path: Path) -> None:
    """The price of a file that is whole at any moment."""
    path, other = tmp_path / "report", tmp_path / "other"
    path.write_text("old")
    other.hardlink_to(path)
    write_atomically(path, "new")
    assert (path.read_text(), other.read_text()) == ("new", "old")


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "target").write_text("old")
    (tmp_path / "second").symlink_to(elsewhere / "target")
    (tmp_path / "first").symlink_to("second")
    write_atomically(tmp_path / "first", "new")
    assert (tmp_path / "first").readlink() == Path("second")
    assert (tmp_path / "second").is_symlink()
    assert (elsewhere / "target").read_text() == "new"
    assert names(elsewhere) == ["target"]


def test_a_fifo_is_written_to_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write_atomically(path, "to whom it may concern " * 10_000)  # more than a pipe holds
    reader.join()
    assert read == [b"to whom it may concern " * 10_000]
    assert stat.S_ISFIFO(path.lstat().st_mode)
    assert names(tmp_path) == ["fifo"]


def test_a_fifo_that_nobody_reads_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsim._util.storage.READER_S", 0.05)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="nobody reads"):
        write_atomically(tmp_path / "fifo", "new")
    assert names(tmp_path) == ["fifo"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may make devices")
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(("minor", "error"), [(3, None), (7, "No space left on device")])
def test_a_device_is_written_to_and_stays(tmp_path: Path, minor: int, error: str | None, linked: bool) -> None:
    """Those that Linux has as /dev/null and /dev/full."""
    device = tmp_path / "device"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        device.open("wb").close()
    except PermissionError:
        pytest.skip("no devices here")
    path = device
    if linked:
        path = tmp_path / "link"
        path.symlink_to(device)
    before = sorted(names(tmp_path))
    with contextlib.nullcontext() if error is None else pytest.raises(OSError, match=error):
        write_atomically(path, "new")
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert path.is_symlink() == linked
    assert sorted(names(tmp_path)) == before


def test_what_stdout_is_already_is_written_to_in_order() -> None:
    """A pipe has no name that could be opened again, and a file would lose what is printed after it."""
    script = """
from pathlib import Path
from netsim._util.storage import write_atomically
print("before")
write_atomically(Path("/dev/stdout"), "whole\\n")
print("after")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "before\nwhole\nafter\n"


def test_what_stdout_is_already_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "report"
    script = f"""
from pathlib import Path
from netsim._util.storage import write_atomically
write_atomically(Path({str(path)!r}), "whole\\n")
print("after")
"""
    with path.open("w") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    assert path.read_text() == "whole\nafter\n"


def unwritable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Make what cannot be written to; return each with a part of what is said of it."""
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "folder").mkdir()
    (folder / "file").write_text("kept")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):  # such a name has 108 bytes at most
        listening.bind("socket")
    return {
        "dangling": (folder / "dangling", "a link to nothing"),
        "loop": (folder / "loop", "symbolic links"),
        "folder": (folder / "folder", "folder"),
        "socket": (folder / "socket", "a socket"),
        "below a file": (folder / "file" / "x", "Not a directory"),
        "in no folder": (folder / "missing" / "x", "missing"),
        "long": (folder / ("x" * 300), "name too long"),
        "nul": (folder / "a\0b", "null (byte|character)"),
        "nothing": (Path(), "folder"),
    }


KINDS = ["dangling", "loop", "folder", "socket", "below a file", "in no folder", "long", "nul", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_written_is_said_beforehand_and_stays(tmp_path: Path, kind: str) -> None:
    path, said = unwritable(tmp_path)[kind]
    before = sorted(names(tmp_path))
    with pytest.raises(UsageError, match=f"metrics .*{said}") as refused:
        check_outputs({"metrics": path})
    assert "\n" not in str(refused.value)
    with pytest.raises((OSError, ValueError)):
        write_atomically(path, "new")
    assert sorted(names(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("kind", ["dangling", "loop", "socket", "below a file", "in no folder", "long", "nul"])
def test_what_is_no_folder_is_said_beforehand(tmp_path: Path, kind: str) -> None:
    path, _ = unwritable(tmp_path)[kind]
    with pytest.raises(UsageError, match="out "):
        check_folder("out", path)


def test_a_check_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    os.mkfifo(tmp_path / "fifo")
    check_outputs({"out": tmp_path / "there", "trace": tmp_path / "new", "metrics": tmp_path / "fifo", "other": None})
    check_folder("out", tmp_path / "folder")
    assert sorted(names(tmp_path)) == ["fifo", "there"]
    assert (tmp_path / "there").read_text() == "old"


@pytest.mark.parametrize("there", [True, False])
def test_two_outputs_are_two_files(tmp_path: Path, there: bool) -> None:
    """However they are written: by way of a link, of a folder, or both."""
    (tmp_path / "folder").mkdir()
    path = tmp_path / "report"
    if there:
        path.write_text("old")
        (tmp_path / "link").symlink_to(path)
    for other in [path, tmp_path / "folder" / ".." / "report", *([tmp_path / "link"] if there else [])]:
        with pytest.raises(UsageError, match="file of out"):
            check_outputs({"out": path, "metrics": other})


def test_an_input_is_no_output(tmp_path: Path) -> None:
    path = tmp_path / "profile.toml"
    path.write_text("precious")
    with pytest.raises(UsageError, match="file of profile"):
        check_outputs({"out": path}, {"profile": str(path), "topology": "star", "background": None, "load": 0.3})


def test_the_matrix_of_a_topology_is_no_output(tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.csv"
    matrix.write_text(",a,b\na,,30ms\nb,30ms,\n")
    with pytest.raises(UsageError, match="is the file of topology, too"):
        netsim.simulate(
            topology=f"wan:matrix={matrix}", workers=4, timing_only=True, elements=10, k=1, metrics=str(matrix)
        )
    assert matrix.read_text().startswith(",a,b")


def test_a_device_may_take_several_outputs() -> None:
    check_outputs({"out": "/dev/null", "metrics": "/dev/null"})  # looks, and writes nothing


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that others may enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


CHECK = """
import sys
from pathlib import Path
from netsim._util.errors import NetsimError
from netsim._util.storage import check_outputs, write_atomically
for write in (check_outputs, lambda paths: write_atomically(paths["out"], "new")):
    try:
        write({"out": Path(sys.argv[1])})
    except (NetsimError, OSError) as error:
        print(error)
    else:
        print("written")
"""


@pytest.mark.parametrize("kind", ["folder", "unlisted", "file", "locked"])
def test_what_may_not_be_written_is_not(open_to_all: Path, kind: str) -> None:
    inside = open_to_all / "inside"
    inside.mkdir()
    file = inside / "file"
    file.write_text("kept")
    if os.getuid() == 0:
        os.chown(inside, USER, -1)
        os.chown(file, USER, -1)
    file.chmod(0o444 if kind == "file" else 0o644)
    inside.chmod({"folder": 0o555, "unlisted": 0o300, "locked": 0o000}.get(kind, 0o755))
    try:
        path = inside / "new" if kind in ("folder", "unlisted") else file
        ran = run_unprivileged([sys.executable, "-c", CHECK, str(path)], capture_output=True)
    finally:
        inside.chmod(0o755)
    assert ran.stderr == ""
    said = ran.stdout.splitlines()
    if kind == "unlisted":  # one may write there, but not see what is there
        assert said == ["written", "written"]
    else:
        assert [("Permission denied" in each or "nothing can be written" in each) for each in said] == [True, True]
        assert file.read_text() == "kept"
        assert names(inside) == ["file"]


INPUTS = {
    "topology.json": "topology show {}",
    "topology.graphml": "topology show {}",
    "profile.toml": "simulate --profile {}",
    "flows.csv": "flows --topology star --flows {}",
    "background.csv": "simulate --workers 2 --timing-only --elements 10 --background {}",
    "matrix.csv": "topology show wan:matrix={}",
    "study.toml": "study {} --out o",
    "validation.json": "study scaling --quick --out o --validation {}",
    "checkpoint": "simulate --workers 2 --rounds 2 --checkpoint {} --resume",
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("kind", ["fifo", "zeros", "huge"])
def test_an_input_without_end_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    """A FIFO without a writer, an endless device, and a file of a terabyte."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(10**12)
    ran = run(capsys, INPUTS[name].format(name))
    refused = (
        "regular file|is not a file"
        if kind != "huge"
        else "1,000,000,000,000 bytes, and at most|is not a file of schema|damaged"
    )
    assert re.fullmatch(rf"netsim: [^\n]*'{name}'[^\n]*({refused})[^\n]*\n", ran.err), ran.err
    assert ran.code in (1, 2)
    assert ran.out == ""
