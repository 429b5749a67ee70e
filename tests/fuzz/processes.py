"""What surrounds a command: its environment and its streams. Each input is a process, so these are few."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

from tests.fuzz import files, pools
from tests.fuzz.law import ROOT, Case, Hang, Ran
from tests.ports import free_port

LIMIT_S = 30.0
"""Of a process, by the clock: it starts Python, imports torch, and shares the machine with others."""

JOINING = "run --workload tests.tiny:tiny --rounds 1 --algorithm dense --batch-size 4 --k 3 --timeout 300ms --json"
COMMANDS = [
    "simulate --timing-only --elements 100 --workers 2",
    "simulate --timing-only --elements 100 --workers 2 --json",
    f"simulate {files.TINY} --algorithm dense --out out.json",
    "topology show star",
    "topology export ring",
    "topology show star --out out.svg",
    "study sweep --set fixed.workers=2 --dry-run",
    "study sweep --dry-run --json",
    "--version",
    "--help",
    "simulate --help",
    "simulate --bandwidth 1Gpbs",
    "calibrate --local 1",
    "validate --local 1",
    *[JOINING] * 4,
]
PORTS = ["0", "1", "65535", "65536", "99999", "-1", "x", "", "29400.5", "9" * 40, "٣"]
VARIABLES: dict[str, list[str]] = {
    "RANK": ["0", "0", "1", "-1", "x", "", "1.5", "9" * 40],
    "WORLD_SIZE": ["1", "1", "2", "0", "-1", "x", "", "9" * 40],
    "LOCAL_RANK": ["0", "x", "", "-1", "9" * 40],
    "LOCAL_WORLD_SIZE": ["1", "x"],
    "MASTER_ADDR": ["127.0.0.1", "127.0.0.1", "localhost", "::1", "", "256.1.1.1", "x" * 300, "a b", "\udcff", "-",
    "..", "é"],
    "MASTER_PORT": PORTS,
    "TORCHELASTIC_RESTART_COUNT": ["0", "x", "\udcff", "/"],
    "TORCHELASTIC_USE_AGENT_STORE": ["True", "x"],
    "NETSIM_JOB": ["/no/such/folder", "", "."],
    "NETSIM_LAUNCHER": ["1", "x", ""],
    "COLUMNS": ["40", "0", "1", "-1", "x", "", "9" * 40, "100000"],
    "LINES": ["0", "x"],
    "TERM": ["dumb", "", "x", "xterm"],
    "NO_COLOR": ["1"],
    "FORCE_COLOR": ["1"],
    "LC_ALL": ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1", "x"],
    "LANG": ["C", "x"],
    "PYTHONIOENCODING": ["ascii", "latin1", "utf-8", "ascii:replace", "utf-16", "cp437", "utf-8:surrogateescape"],
    "PYTHONUTF8": ["0", "1"],
    "PYTHONCOERCECLOCALE": ["0"],
    "PYTHONUNBUFFERED": ["1"],
    "PYTHONHASHSEED": ["0", "1", "random"],
    "PYTHONOPTIMIZE": ["1", "2"],
    "PYTHONINTMAXSTRDIGITS": ["0", "640"],
    "TMPDIR": ["/no/such/folder", "", ".", "x", "/proc"],
    "HOME": ["/no/such/folder", ""],
    "XDG_CACHE_HOME": ["/no/such/folder", "/proc"],
    "MPLCONFIGDIR": ["/no/such/folder"],
    "NUMBA_CACHE_DIR": ["/no/such/folder", "."],
    "NUMBA_NUM_THREADS": ["1", "x", "0"],
    "OMP_NUM_THREADS": ["1", "0", "-1", "x", "", "9" * 40],
    "MKL_NUM_THREADS": ["x"],
    "GLOO_SOCKET_IFNAME": ["lo", "x", ""],
    "CUDA_VISIBLE_DEVICES": ["", "x", "-1"],
    "JOBLIB_TEMP_FOLDER": ["/no/such/folder"],
    "LOKY_MAX_CPU_COUNT": ["x", "0"],
    "TZ": ["x"],
    "SOURCE_DATE_EPOCH": ["x"],
    "PATH": [""],
}  # fmt: skip
"""Variables that netsim, torchrun, Python or libraries read, with values good and bad."""

GROUPS = [["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"], ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR",
          "MASTER_PORT"], [], [], []]  # fmt: skip
STREAMS: list[str] = [
    "",
    "",
    "",
    "",
    "",
    ">&-",
    "2>&-",
    "<&-",
    ">&- 2>&-",
    "| head -c 1 >/dev/null",
    "</dev/full >/dev/full",
]
"""What a shell does with a command's streams; none of it replaces a device."""


def processes(random: Random, folder: Path) -> Case:
    """Return a command in an environment, with streams of another kind."""
    given: dict[str, str] = {}
    for name in [*random.choice(GROUPS), *random.sample(list(VARIABLES), random.choice([0, 1, 2, 3]))]:
        usual = name.startswith("PYTHON") or pools.chance(random, 0.9)  # Python refuses others before netsim begins
        given[name] = random.choice(VARIABLES[name] if usual else pools.TEXTS)
    if given.get("MASTER_PORT") == "0" and pools.chance(random, 0.7):
        given["MASTER_PORT"] = str(free_port())
    arguments = random.choice(COMMANDS).split()
    stream = random.choice(STREAMS)
    home = folder / "home"

    def call() -> Ran:
        home.mkdir(exist_ok=True)
        return _ended(arguments, given, stream, home)

    words = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
    return Case(" ".join([*words, "netsim", shlex.join(arguments), stream]), call)


def _ended(arguments: list[str], given: dict[str, str], stream: str, home: Path) -> Ran:
    """Return how the command ended in a process of its own; what a shell's pipe lost is no fault of it."""
    known = {name: value for name, value in os.environ.items() if name not in VARIABLES or name in ("PATH", "HOME")}
    command = [
        "bash",
        "-c",
        f'"$@" {stream}; exit ${{PIPESTATUS[0]}}',
        "bash",
        sys.executable,
        "-P",
        "-m",
        "netsim",
        *arguments,
    ]
    environment = known | {"PYTHONPATH": str(ROOT)} | given
    process = subprocess.Popen(
        command if stream else command[4:], env=environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, executable="/bin/bash" if stream else None,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise Hang from None
    if "2>&-" in stream:
        err = b"netsim: (nobody could read it)\n" if process.returncode in (1, 2, 3) else b""
    encoding = given.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    return Ran(process.returncode, *(_decoded(each, encoding) for each in (out, err)))


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except (LookupError, UnicodeDecodeError):
        return content.decode("utf-8", "replace")
