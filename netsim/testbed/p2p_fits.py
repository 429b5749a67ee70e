"""The terms of the host model from point-to-point measurements; no collective is looked at."""

from __future__ import annotations

import math

from netsim.cluster.framing import Wire
from netsim.experiment.profile import Profile
from netsim.testbed.host_model import HostTerms
from netsim.testbed.p2p_measurements import P2PMeasurements


def measured_bandwidth(measured: P2PMeasurements) -> float:
    """Return the payload rate of the large message in bit/s, for networks whose bandwidth is not given."""
    return float(8 * measured.large_bytes / max(1e-9, measured.idle_large_s - measured.idle_small_s))


def profile_terms(profile: Profile, cores: int | None) -> HostTerms:
    """Return the terms that a profile contains: a message's α, and the work of its two hosts."""
    wake = profile.link.fixed_s / 2 + profile.message.fixed_s  # a message wakes two threads
    return HostTerms(
        wake_warm_s=wake, wake_cold_s=wake, delivery_lag_s_per_byte=2 * profile.message.each_s, cores=cores
    )


def host_terms(measured: P2PMeasurements, wire: Wire, bandwidth_bps: float, cores: int | None) -> HostTerms:
    """Return all terms, each from the difference of two measurements.

    With c = min(1, cores / ranks), the cores that a rank has while all send:

    - ``cpu_per_message_s = c concurrent_small_s``, as far as a single message takes that long. Two thirds of it lie
      between sending and having received.
    - ``wake_cold_s = (idle_small_s - 2/3 cpu_per_message_s) / 2``, since a message wakes two threads; ``wake_warm_s``
      likewise from ``warm_small_s``.
    - ``header_cpu_s = c (concurrent_header_s - concurrent_small_s)``.
    - ``call_s = merge_s``.
    - ``delivery_lag_s_per_byte = (idle_large_s - idle_small_s - drained) / large_bytes``, where ``drained`` is the time
      that the link needs for the large message.

    Parameters
    ----------
    measured
        Point-to-point measurements.
    wire
        Framing of the links.
    bandwidth_bps
        Bandwidth of the links in bit/s.
    cores
        Cores that all ranks share; None if each has one of its own.
    """
    core_share = min(1.0, (cores or math.inf) / measured.ranks)
    small_s = measured.idle_small_s
    cpu_s = min(small_s, measured.concurrent_small_s * core_share)
    cold, warm = (max(0.0, min(seconds, small_s) - cpu_s * 2 / 3) / 2 for seconds in (small_s, measured.warm_small_s))
    drained_s = 8 * wire.drained_of(wire.bytes_of(measured.large_bytes)) / bandwidth_bps
    lag_s = max(0.0, measured.idle_large_s - small_s - drained_s)
    return HostTerms(
        wake_warm_s=warm,
        wake_cold_s=cold,
        cpu_per_message_s=cpu_s,
        header_cpu_s=max(0.0, measured.concurrent_header_s - measured.concurrent_small_s) * core_share,
        delivery_lag_s_per_byte=lag_s / measured.large_bytes,
        call_s=measured.merge_s,
        cores=cores,
    )
