"""Settings for the whole suite."""

from __future__ import annotations

import signal
import threading

from hypothesis import settings

from netsim.cli import common

# Started in the background of a shell, the suite and all that it starts would ignore what some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run this are noisy, and the first call of a kernel compiles it: no test is judged by time.
settings.register_profile("explore", deadline=None)
# The same cases every time, so that what turns a build red is the change; `--hypothesis-profile=explore` looks further.
settings.register_profile("netsim", settings.get_profile("explore"), derandomize=True)
settings.load_profile("netsim")

# On a busy machine a command may print a progress line on stderr. Tests compare stderr without such lines.
common.PATIENCE_S = 3600.0
