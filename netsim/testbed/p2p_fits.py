"""What point-to-point measurements say of the terms of the model; no collective is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from netsim.cluster.framing import Wire
from netsim.experiment.profile import Profile
from netsim.testbed.host_model import HostTerms

NEEDED = {
    *("small_s", "busy_s", "ranks", "large_s", "large_bytes", "still_s"),
    *("crowd_s", "crowd_work_s", "crowd_some_s", "crowd_some_work_s", "crowd_some_bytes"),
    *("crowd_header_s", "crowd_merge_s", "merge_s"),
}
"""What :func:`host_terms` and :func:`netsim.testbed.duplex_losses.with_losses` ask for, and for how long all kept still
before what was measured, which others did not."""


def measured_bandwidth(points: Mapping[str, Any]) -> float:
    """Return the payload in bit/s that a large message got between two ranks, where nobody says what links carry."""
    return float(8 * points["large_bytes"] / max(1e-9, points["large_s"] - points["small_s"]))


def profile_terms(profile: Profile, cores: int | None) -> HostTerms:
    """Return the terms that a profile has: a message's α, and what its two hosts do to it."""
    wake = profile.link.fixed_s / 2 + profile.message.fixed_s  # a message wakes two threads
    return HostTerms(busy_s=wake, wake_s=wake, byte_s=2 * profile.message.each_s, cores=cores)


def host_terms(points: Mapping[str, Any], wire: Wire, bandwidth_bps: float, cores: int | None) -> HostTerms:
    """Return the terms that explain :func:`netsim.testbed.p2p_measurements.points`.

    As many small messages at once as there are ranks, again and again, tell the work of one, of which two thirds are
    between sending and having received it. The rest of what one takes by itself is the waking of two threads, and of
    one to and fro without a pause, their waking where they just did the same. How much longer those at once take with
    headers of their own, or if each adds something after a message, tells the work of that, and what processors worked
    more for larger ones what frames cost. The large message's time beyond the small one's is what it needs of the link,
    and how late its last byte is.
    """
    crowded = min(1.0, (cores or math.inf) / points["ranks"])
    work = min(points["small_s"], points["crowd_s"] * crowded)
    wake, busy = (max(0.0, min(points[name], points["small_s"]) - work * 2 / 3) / 2 for name in ("small_s", "busy_s"))
    hot_call = min(points["merge_s"], max(0.0, points["crowd_merge_s"] - points["crowd_s"]) * crowded)
    frames = max(0.0, (points["crowd_some_work_s"] or 0.0) - (points["crowd_work_s"] or 0.0))
    drained = 8 * wire.earned_of(wire.bytes_of(points["large_bytes"])) / bandwidth_bps
    beyond = max(0.0, points["large_s"] - points["small_s"] - drained)
    return HostTerms(
        busy_s=busy,
        wake_s=wake,
        work_s=work,
        header_s=max(0.0, points["crowd_header_s"] - points["crowd_s"]) * crowded,
        byte_s=beyond / points["large_bytes"],
        frame_s=frames / points["crowd_some_bytes"],
        call_s=points["merge_s"],
        hot_call_s=hot_call,
        cores=cores,
    )
