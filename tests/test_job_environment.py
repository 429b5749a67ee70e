"""What an environment may say of a job: wrong ports, names and numbers get one line, and nothing waits beyond its time.

The variables are torchrun's; what each must be is in torch's documentation of ``env://``.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from netsim._util.errors import NetsimError, PeerSilentError, UsageError
from netsim.cluster import namespaces
from netsim.distributed import forkserver, launch
from netsim.distributed.job import Job
from netsim.distributed.rank_main import TRAIN
from netsim.distributed.rendezvous import rendezvous
from netsim.study_engine.pool import backend

TIMEOUT_S = 0.5
PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
NEVER_S = 60.0
"""For a test that would otherwise hang; far longer than anything takes on a busy machine."""


def met(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int = 2, **variables: str) -> Any:
    for name in ("GLOO_SOCKET_IFNAME", "TORCHELASTIC_USE_AGENT_STORE", *PLACE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return rendezvous("env://", rank, world_size, TIMEOUT_S)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"MASTER_PORT": "99999"}, "MASTER_PORT '99999'"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT 'x'"),
        ({"MASTER_PORT": "-1"}, "MASTER_PORT '-1'"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT '0'"),
        ({"MASTER_PORT": "²"}, "MASTER_PORT '²'"),
        ({"MASTER_PORT": "9" * 5000}, "MASTER_PORT '99"),
        ({"MASTER_PORT": ""}, "MASTER_ADDR and MASTER_PORT"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR and MASTER_PORT"),
        ({"MASTER_ADDR": "a" * 300}, "MASTER_ADDR 'aaa"),
        ({"GLOO_SOCKET_IFNAME": "nonsense0"}, "GLOO_SOCKET_IFNAME 'nonsense0'"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, rank: int, wrong: dict[str, str], named: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(named)) as refused:
        met(monkeypatch, rank, **PLACE | wrong)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(("rank", "world_size"), [(5, 4), (-1, 2), (2, 2), (0, 0)])
def test_a_rank_outside_its_world_is_refused(monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int) -> None:
    with pytest.raises(UsageError, match=f"rank {rank} is not one of a world of {world_size}"):
        met(monkeypatch, rank, world_size, **PLACE)


def unknown(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(("rank", "error"), [(0, NetsimError), (1, PeerSilentError)])
def test_an_unknown_host_ends_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, rank: int, error: type[NetsimError]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(error, match=r"no\.such\.host:29500 .*Name or service not known"):
        met(monkeypatch, rank, **PLACE | {"MASTER_ADDR": "no.such.host"})


@pytest.mark.parametrize("rank", [0, 1])
def test_a_name_service_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2 * NEVER_S))
    began = time.monotonic()
    with pytest.raises(PeerSilentError, match=r"within 0\.5 s"):
        met(monkeypatch, rank, **PLACE | {"MASTER_ADDR": "no.such.host"})
    assert time.monotonic() - began < NEVER_S


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_numbers_of_torchrun_must_be_numbers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", name: "x"}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=f"{name} 'x' must be a whole number"):
        launch.join_work({"work": TRAIN, "backend": "gloo", "timeout_s": TIMEOUT_S})


MEETS = """
from netsim.distributed.launch import join_work
join_work({"work": "netsim.distributed.rank_main:train_as_rank", "backend": "gloo", "timeout_s": 0.5})
"""


@pytest.mark.real
@pytest.mark.slow
def test_a_meeting_place_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    """As a stopped process does: its kernel accepts connections, and nobody reads what they bring."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = str(silent.getsockname()[1])
        environment = os.environ | PLACE | {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": port}
        command = [sys.executable, "-c", MEETS]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=NEVER_S)
    assert done.returncode == 1
    assert re.fullmatch(r"netsim: rank 1, joining the group of 2, before step 0: [^\n]*\n", done.stderr)


def test_an_error_that_nobody_foresaw_is_one_line_under_torchrun_too(tmp_path: Path) -> None:
    program = (
        "from netsim.distributed.rank_context import taking_part\n"
        "with taking_part(0):\n    raise ValueError('one\\ntwo')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "netsim: rank 0, starting, before step 0: ValueError: one two\n")


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "topk:gather=bruck"])
def test_torch_is_imported_once_and_numba_where_entries_are_selected(name: str) -> None:
    details = {"work": "tests.forked:imported", "backend": "gloo", "timeout_s": NEVER_S}
    (found,) = launch.launch_work(details | {"experiment": {"algorithms": [name]}}, 2)
    compiled = find_spec("numba") is not None and name != "dense"
    assert found["imported"] == ["torch", "torch.distributed", *["numba"] * compiled]


def refuse(*_: Any, **__: Any) -> Any:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_process_that_cannot_be_started_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As where ``ulimit -u`` is reached, which root is not subject to."""
    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(
        NetsimError, match=r"the ranks could not be started: Resource temporarily unavailable; .*ulimit"
    ):
        launch.launch_work({"work": TRAIN, "timeout_s": TIMEOUT_S}, 2)
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(NetsimError, match=r"rank 3 could not be started: Resource temporarily unavailable; .*ulimit"):
        forkserver._fork(Job(tmp_path), 3, None, 4, lambda *_: [])


def test_no_temporary_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.mkdtemp", unusable)
    with pytest.raises(NetsimError, match=r"no folder for the run could be made: No usable.*; TMPDIR must name one"):
        launch.launch_work({"work": TRAIN, "timeout_s": TIMEOUT_S}, 2)


def unusable(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError(2, "No usable temporary directory found in ['/nowhere']")


@pytest.mark.parametrize("cores", ["x", "0", "-1", "", "²", "9" * 5000])
def test_how_many_cores_joblib_may_use_is_a_number(monkeypatch: pytest.MonkeyPatch, cores: str) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
    with pytest.raises(UsageError, match=f"LOKY_MAX_CPU_COUNT '{cores[:10]}.* must be"), backend(None):
        pass


def test_a_tool_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ip").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ip").chmod(0o700)
    monkeypatch.setattr(namespaces, "TOOL_FOLDERS", str(tmp_path))
    monkeypatch.setattr(namespaces, "TOOL_S", 0.2)
    with pytest.raises(NetsimError, match=r"the shaped cluster could not be built: ip was not done in 0\.2 s"):
        namespaces._tool("ip", "")
