"""Settings for the whole suite."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest
from hypothesis import settings

from netsim.cli import common

# In the background of a shell or under nohup, the suite and all that it starts would ignore what some tests send.
if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Tests run on the CPU, whatever the machine has, but for tests/test_cuda.py when it is asked for by name. Processes of
# pytest-xdist inherit this.
if "PYTEST_XDIST_WORKER" not in os.environ and not any("test_cuda" in argument for argument in sys.argv):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Machines that run this are noisy, and the first call of a kernel compiles it: no test is judged by time.
settings.register_profile("explore", deadline=None)
# The same cases every time, so that what turns a build red is the change; `--hypothesis-profile=explore` looks further.
settings.register_profile("netsim", settings.get_profile("explore"), derandomize=True)
settings.load_profile("netsim")

# pytest-xdist sets this in its processes. Then even files and pipes get lines of that width.
os.environ.pop("COLUMNS", None)

# On a busy machine a command may print a progress line on stderr. Tests compare stderr without such lines.
common.PATIENCE_S = 3600.0


@pytest.fixture
def warm_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the hosts of real runs from a process that has imported torch, for tests that are not about their start."""
    from netsim.distributed import launch
    from tests.warm import WarmHost

    monkeypatch.setattr(launch, "_start", WarmHost)
