"""Nothing of the current folder runs, whatever it is called, but the module of a workload that the user names.

The folder holds a trap for every module of Python's library and for what netsim imports. A trap that is executed
writes down its name and the process that executed it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cluster import why_no_cluster

PACKAGES = [
    "algorithms",
    "defusedxml",
    "dask",
    "distributed",
    "jinja2",
    "joblib",
    "loky",
    "markupsafe",
    "matplotlib",
    "networkx",
    "numba",
    "numpy",
    "pandas",
    "psutil",
    "pydantic",
    "pyximport",
    "rich",
    "scipy",
    "seaborn",
    "simpy",
    "sitecustomize",
    "sklearn",
    "studies",
    "tblib",
    "threadpoolctl",
    "topologies",
    "torch",
    "torchvision",
    "triton",
    "typer",
    "usercustomize",
    "yaml",
]
TRAP = """
import sys
with open({marker!r}, "w") as marker:
    print(sys.orig_argv, file=marker)
"""
SCRIPT = """
import sys
from netsim.cli.main import main

sys.exit(main())
"""
"""As pip writes it: Python puts the script's own folder first, not the current one."""
OWN = """
def factory(seed):
    import beside  # of the same folder, and only found when the factory is called

    return beside.workload(seed)
"""
BESIDE = """
from netsim.training.workloads import WORKLOADS

def workload(seed):
    return WORKLOADS["digits-mlp"](seed)
"""
SWEEP = """
study = "sweep"
[settings.fixed]
algorithm = "gtopk"
timing_only = true
elements = 1000
workers = 4
[settings.vary]
k = [1, 2, 3]
"""
REAL, SLOW = pytest.mark.real, pytest.mark.slow
COMPILED = "--workers 11 --timing-only --elements 10 --algorithm gtopk --engine vectorized"
NUMBA = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
COMMANDS = [
    pytest.param("simulate --workers 2 --rounds 1", id="simulate"),
    pytest.param(
        f"simulate {COMPILED}",
        id="compiled",
        marks=NUMBA,
    ),
    pytest.param("recommend --workers 4 --elements 1000 --compute-time 1ms --jobs 2", id="recommend"),
    pytest.param("study own.toml --jobs 2 --out out", id="study"),
    pytest.param("doctor", id="doctor"),
    pytest.param("run --nproc 2 --algorithm dense --rounds 1", id="run", marks=REAL),
    pytest.param("calibrate --out profile.toml", id="calibrate", marks=[REAL, SLOW]),
    pytest.param(
        "validate --local 2 --sizes 100KB --exchange none --algorithm dense --repeats 1",
        id="validate",
        marks=[REAL, SLOW],
    ),
]


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """Return a folder of traps; what is executed appears in `markers` beside it."""
    folder, markers = tmp_path / "traps", tmp_path / "markers"
    folder.mkdir()
    markers.mkdir()
    for name in {*sys.stdlib_module_names, *PACKAGES}:
        (folder / f"{name}.py").write_text(TRAP.format(marker=str(markers / name)))
    (folder / "own.toml").write_text(SWEEP)
    (tmp_path / "netsim-script").write_text(SCRIPT)
    return folder


def executed(traps: Path) -> dict[str, str]:
    """Return the traps that were executed, each with the command of a process that did."""
    return {marker.name: marker.read_text() for marker in (traps.parent / "markers").iterdir()}


def ran(folder: Path, arguments: str, *start: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run netsim in a folder, with `path` before the rest of PYTHONPATH; Python is told to `start` it so."""
    command = [sys.executable, *(start or (str(folder.parent / "netsim-script"),)), *arguments.split()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    if path:
        environment["PYTHONPATH"] = os.pathsep.join([path, *filter(None, [environment.get("PYTHONPATH")])])
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow
def test_no_command_runs_a_file_of_the_current_folder(traps: Path, command: str) -> None:
    if command.startswith("validate") and (why := why_no_cluster()):
        pytest.skip(why)
    done = ran(traps, command)
    assert executed(traps) == {}
    assert done.returncode in (0, 4), done.stderr  # 4: a prediction was off by more than is tolerated


def without_pythons_own(traps: Path) -> None:
    """Remove the traps for what ``python -m`` needs to find a module: it looks into the current folder before."""
    command = [sys.executable, "-P", "-c", "import runpy, sys; print(*sys.modules)"]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split():
        (traps / f"{name}.py").unlink(missing_ok=True)


@pytest.mark.slow
def test_python_m_netsim_runs_no_file_of_the_current_folder(traps: Path) -> None:
    without_pythons_own(traps)
    assert (traps / "typing.py").exists(), "which netsim imports first"
    done = ran(traps, "study own.toml --jobs 2 --out out", "-m", "netsim")
    assert executed(traps) == {}
    assert done.returncode == 0, done.stderr


@pytest.mark.real
@pytest.mark.parametrize("start", [(), ("-m", "netsim")], ids=["netsim", "python -m netsim"])
@pytest.mark.slow
def test_a_workload_of_the_current_folder_is_found_beside_traps(traps: Path, start: tuple[str, ...]) -> None:
    """The folder is looked at last, so a trap runs only for a module that is not installed."""
    without_pythons_own(traps)
    for trap in traps.glob("*.py"):
        if find_spec(trap.stem) is None:
            trap.unlink()
    (traps / "mine.py").write_text(OWN)
    (traps / "beside.py").write_text(BESIDE)
    done = ran(traps, "run --nproc 2 --algorithm dense --rounds 1 --workload mine:factory", *start)
    assert done.returncode == 0, done.stderr
    assert executed(traps) == {}


@pytest.mark.real
@pytest.mark.slow
def test_a_folder_that_the_user_names_in_pythonpath_stays(tmp_path: Path) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "mine.py").write_text(BESIDE)
    command = "run --nproc 2 --algorithm dense --rounds 1 --workload mine:workload"
    done = ran(tmp_path, command, "-m", "netsim", path=str(tmp_path / "named"))
    assert done.returncode == 0, done.stderr


def test_compiled_code_of_a_folder_that_a_file_names_is_not_loaded(tmp_path: Path) -> None:
    """Numba reads that file wherever it is imported, and unpickles what lies in the folder."""
    pytest.importorskip("numba")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: ./theirs\n")
    done = ran(
        tmp_path,
        f"simulate {COMPILED}",
        "-m",
        "netsim",
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "theirs").exists()
