"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.storage import write_atomically


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


def test_text_that_utf_8_cannot_hold_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
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
