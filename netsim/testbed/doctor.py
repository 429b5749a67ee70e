"""The features that this machine supports, and the leftovers of killed runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from netsim._util.errors import text_of
from netsim._util.system import DISTRIBUTION, child_environment, compiler, version
from netsim.cluster.namespaces import TOOL_FOLDERS
from netsim.distributed.job import JOB, LAUNCHER

CheckState = Literal["ok", "missing", "problem"]
PACKAGES = ("netsim", "algorithms", "topologies", "studies")
"""netsim's packages."""
PROBE_S = 30.0
"""Timeout for building a shaped cluster, in seconds."""
FRESH_S = 10.0
"""Age in seconds up to which a folder may belong to a run that is just starting."""
CLUSTER_PROBE = """
import sys
from netsim.cluster.namespaces import become_owner, build, has_netem
from netsim.cluster.plan import Cluster
from netsim._util.errors import NetsimError
try:
    become_owner()
    build(Cluster(ranks=2, bandwidth_bps=100_000_000))
except NetsimError as error:
    sys.exit(str(error))
print(has_netem())
"""


@dataclass(frozen=True, slots=True)
class Check:
    """A check of this machine: its name, whether it passed, the finding, and a remedy."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that a killed run left, or a process that has lost its launcher."""

    what: Literal["folder", "process"]
    name: str

    def remove(self) -> None:
        """Delete the folder, or kill the process."""
        if self.what == "folder":
            shutil.rmtree(self.name, ignore_errors=True)
        else:
            os.kill(int(self.name), signal.SIGKILL)


def examine() -> Iterator[Check]:
    """Yield the checks of this machine, each as soon as it is done."""
    yield Check("netsim", "ok", f"{version()} on Python {sys.version.split()[0]}, {sys.platform}")
    yield _packages()
    yield from _cluster()
    yield _priority()
    yield from _torch()
    yield _numba()


def _packages() -> Check:
    """Check that no other distribution has a package of one of netsim's names."""
    owners = packages_distributions()
    others = {
        f"{package} is also in {name}"
        for package in PACKAGES
        for name in owners.get(package, ())
        if name.replace("_", "-") != DISTRIBUTION
    }
    if others:
        return Check("packages", "problem", "; ".join(sorted(others)), "use a fresh virtual environment")
    return Check("packages", "ok", f"{', '.join(PACKAGES)} belong to {DISTRIBUTION} alone")


def _cluster() -> Iterator[Check]:
    """Check for the tools, and try to build a shaped cluster of two hosts."""
    for tool in ("ip", "tc"):
        path = shutil.which(tool, path=TOOL_FOLDERS)
        yield Check(tool, "ok" if path else "missing", path or "not found", "" if path else "install iproute2")
    try:
        probe = subprocess.run(
            [sys.executable, "-c", CLUSTER_PROBE],
            env=child_environment(), capture_output=True, text=True, timeout=PROBE_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Check("namespaces", "problem", f"no shaped cluster was built within {PROBE_S:g} s")
        return
    if probe.returncode:
        said = probe.stderr.strip().splitlines()
        yield Check("namespaces", "missing", said[-1] if said else "no shaped cluster can be built")
        return
    who = "root" if os.geteuid() == 0 else "an ordinary user, in a user namespace"
    yield Check("namespaces", "ok", f"a shaped cluster was built and taken down, as {who}")
    netem = probe.stdout.strip() == "True"
    yield Check(
        "netem",
        "ok" if netem else "missing",
        "links of a cluster can have latency"
        if netem
        else "this kernel has none, so links of a cluster have no latency",
        "" if netem else "modprobe sch_netem, or a kernel with CONFIG_NET_SCH_NETEM",
    )


def _priority() -> Check:
    """Check whether measured ranks may have real-time priority."""
    if not hasattr(os, "sched_setscheduler"):
        return Check(
            "real-time priority", "missing", "this system has none; small messages will be measured with noise"
        )
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, *before)
    except OSError:
        return Check(
            "real-time priority", "missing", "not allowed; small messages will be measured with noise",
            "raise the limit: ulimit -r 1",
        )  # fmt: skip
    return Check("real-time priority", "ok", "ranks that are measured are woken before other processes")


def _torch() -> Iterator[Check]:
    """Check torch, its GPUs and its backends."""
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield Check("torch", "ok", f"{torch.__version__}, {gpus} CUDA device{'s' * (gpus != 1)}")
    for backend in ("gloo", "nccl", "mpi"):
        available = dist.is_available() and dist.is_backend_available(backend)
        if backend == "nccl" and available and not gpus:
            yield Check(backend, "missing", "built into this torch, but there is no CUDA GPU")
        else:
            state: CheckState = "ok" if available else "missing"
            yield Check(backend, state, f"{'' if available else 'not '}built into this torch")


def _numba() -> Check:
    """Check that numba is there, and that it works with what else is installed."""
    slower = "selection is not compiled, and slower; results are the same"
    try:
        compiler()
    except ImportError as error:
        if find_spec("numba") is None:
            return Check("numba", "missing", slower, "pip install -c constraints.txt '.[fast]'")
        return Check("numba", "missing", f"{slower} ({text_of(error)})", "install the versions of constraints.txt")
    return Check("numba", "ok", "selection is compiled")


def leftovers(folder: Path | None = None) -> list[Leftover]:
    """Return the folders and processes that this user's killed runs left.

    Parameters
    ----------
    folder
        Where to look for folders; None for the system's temporary folder.
    """
    processes = dict(_processes())
    lost = [
        Leftover("process", str(pid))
        for pid, environment in processes.items()
        if JOB in environment and LAUNCHER in environment and not _runs(environment[LAUNCHER])
    ]
    orphans = {int(process.name) for process in lost}
    used = {environment[JOB] for pid, environment in processes.items() if JOB in environment and pid not in orphans}
    folders = sorted((folder or Path(tempfile.gettempdir())).glob("netsim-*"))
    return lost + [Leftover("folder", str(path)) for path in folders if _is_a_jobs(path) and str(path) not in used]


def _is_a_jobs(path: Path) -> bool:
    """Return whether a folder is a job's of this user, and old enough not to be of one that is just starting."""
    try:
        details = path.lstat()
        owned = path.is_dir() and not path.is_symlink() and details.st_uid == os.getuid()
        return owned and (path / "job.json").is_file() and time.time() - details.st_mtime > FRESH_S
    except OSError:
        return False


def _processes() -> Iterator[tuple[int, dict[str, str]]]:
    """Yield this user's processes and their environments; none without /proc."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == os.getuid() and int(path.name) != os.getpid():
                raw = (path / "environ").read_bytes().decode(errors="replace")
                yield int(path.name), dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
        except OSError:
            continue


def _runs(pid: str) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (OSError, ValueError):
        return False
