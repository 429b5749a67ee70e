"""Settings for the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Machines that run this are noisy, and the first call of a kernel compiles it: no test is judged by time.
settings.register_profile("explore", deadline=None)
# The same cases every time, so that what turns a build red is the change; `--hypothesis-profile=explore` looks further.
settings.register_profile("netsim", settings.get_profile("explore"), derandomize=True)
settings.load_profile("netsim")
