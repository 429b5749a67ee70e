"""Settings for the whole suite."""

from __future__ import annotations

from hypothesis import settings

# Machines that run this are noisy, and the first call of a kernel compiles it: no test is judged by time.
settings.register_profile("netsim", deadline=None)
settings.load_profile("netsim")
