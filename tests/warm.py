"""Processes forked from one that has imported what they import: torch, numba and netsim take three seconds of a core.

The server is multiprocessing's own, so a test process has one. Tests of the command line, of faults and of signals
start the host of a real run as users do.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from contextlib import suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import torch.distributed  # noqa: F401  for the server

import netsim.distributed.interpreter
import netsim.simulator.opening  # noqa: F401  for the server
from netsim._util.system import child_environment, compiler
from netsim.distributed import forkserver
from netsim.distributed.job import HOST, JOB, LAUNCHER, Job


def context(*modules: str) -> ForkServerContext:
    """Return the context of processes that a warm server forks, which imports `modules`, too, if it is not there yet.

    DistributedDataParallel needs torch._dynamo.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch._dynamo", __name__, *modules])
    return found


class WarmHost:
    """A host of ranks as a :class:`netsim.distributed.supervision.Process`."""

    def __init__(self, job: Job) -> None:
        """Start the host as :func:`netsim.distributed.launch._start` does, without a new interpreter."""
        environment = child_environment() | {JOB: str(job.folder)}
        self._process: ForkServerProcess = context().Process(target=_host, args=(job.folder, environment, Path.cwd()))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("host", timeout or 0.0)
        return self._process.exitcode


def _host(folder: Path, environment: dict[str, str], cwd: Path) -> None:
    os.environ.clear()
    os.environ.update(environment | {LAUNCHER: str(os.getppid())})
    os.chdir(cwd)
    os.dup2(os.open(Job(folder).stderr(HOST), os.O_WRONLY | os.O_CREAT, 0o600), 2)
    os._exit(forkserver.main())


with suppress(ImportError):
    compiler()
