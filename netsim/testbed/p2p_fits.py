"""The terms of the host model from point-to-point measurements; no collective is looked at."""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import replace

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.worker import Worker
from netsim.experiment.profile import Profile
from netsim.network.fabric import Fabric
from netsim.simulator.scheduler import RankScheduler
from netsim.testbed.exchanges import EXCHANGES, permutation
from netsim.testbed.host_model import HostTerms, HostTransport
from netsim.testbed.p2p_measurements import P2PMeasurements
from netsim.training.costs import AssumedCosts

WARM_UP, MESSAGES = 4, 16
"""Concurrent messages that are simulated: before those that count, since ranks are not in step yet, and that count."""
MOST_DUPLEX_LOSS = 0.2
"""A larger loss is not believed: something else went wrong in the measurement."""


def measured_bandwidth(measured: P2PMeasurements) -> float:
    """Return the payload rate of the large message in bit/s, for networks whose bandwidth is not given."""
    return float(8 * measured.large_bytes / max(1e-9, measured.idle_large_s - measured.idle_small_s))


def profile_terms(profile: Profile, cores: int | None) -> HostTerms:
    """Return the terms that a profile has: a message's α, and what its two hosts do to it."""
    wake = profile.link.fixed_s / 2 + profile.message.fixed_s  # a message wakes two threads
    return HostTerms(
        wake_warm_s=wake, wake_cold_s=wake, delivery_lag_s_per_byte=2 * profile.message.each_s, cores=cores
    )


def host_terms(measured: P2PMeasurements, wire: Wire, bandwidth_bps: float, cores: int | None) -> HostTerms:
    """Return all terms but the duplex loss, each from the difference of two measurements.

    With c = min(1, cores / ranks), the cores that a rank has while all send:

    - ``cpu_per_message_s = c concurrent_small_s``, as far as a single message takes that long. Two thirds of it lie
      between sending and having received.
    - ``wake_cold_s = (idle_small_s - 2/3 cpu_per_message_s) / 2``, since a message wakes two threads; ``wake_warm_s``
      likewise from ``warm_small_s``.
    - ``header_cpu_s = c (concurrent_header_s - concurrent_small_s)``.
    - ``call_cold_s = merge_s``, and ``call_warm_s = c (concurrent_merge_s - concurrent_small_s)``.
    - ``forwarding_cpu_s_per_byte = (concurrent_large_cpu_s - concurrent_small_cpu_s) / concurrent_large_bytes``.
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
    call_warm_s = max(0.0, measured.concurrent_merge_s - measured.concurrent_small_s) * core_share
    forwarding_cpu_s = max(0.0, (measured.concurrent_large_cpu_s or 0.0) - (measured.concurrent_small_cpu_s or 0.0))
    drained_s = 8 * wire.drained_of(wire.bytes_of(measured.large_bytes)) / bandwidth_bps
    lag_s = max(0.0, measured.idle_large_s - small_s - drained_s)
    return HostTerms(
        wake_warm_s=warm,
        wake_cold_s=cold,
        cpu_per_message_s=cpu_s,
        header_cpu_s=max(0.0, measured.concurrent_header_s - measured.concurrent_small_s) * core_share,
        delivery_lag_s_per_byte=lag_s / measured.large_bytes,
        forwarding_cpu_s_per_byte=forwarding_cpu_s / measured.concurrent_large_bytes,
        call_cold_s=measured.merge_s,
        call_warm_s=min(measured.merge_s, call_warm_s),
        cores=cores,
    )


@functools.lru_cache(64)
def with_duplex_loss(terms: HostTerms, nbytes: int, seconds: float, fabric: Fabric, wire: Wire) -> HostTerms:
    """Return terms with the duplex loss that makes a concurrent message as long as it was measured to be.

    Links lose nothing if the message took no longer than without loss. The loss lasts for as many bytes of larger
    messages.

    Parameters
    ----------
    terms
        All other terms.
    nbytes, seconds
        Payload of a concurrent message, and the seconds that it took.
    fabric, wire
        The links.
    """
    loss = 0.0
    for _ in range(2):  # a loss makes a message longer by nearly as much
        terms = replace(terms, duplex_loss=loss, duplex_loss_bytes=wire.bytes_of(nbytes))
        simulated = concurrent_message_s(nbytes, fabric, wire, terms)
        loss = min(MOST_DUPLEX_LOSS, max(0.0, loss + seconds / simulated - 1))
    return replace(terms, duplex_loss=loss)


def concurrent_message_s(nbytes: int, fabric: Fabric, wire: Wire, terms: HostTerms) -> float:
    """Return the simulated seconds of a concurrent message: all ranks send at once, one message after another."""
    transport = HostTransport(fabric, wire, terms, AssumedCosts({}))
    vector = EXCHANGES["permutation"].size_only(nbytes)

    async def program(worker: Worker) -> float:
        for _ in range(WARM_UP):
            await permutation(worker, vector)
        began = transport.now
        for _ in range(MESSAGES):
            await permutation(worker, vector)
        return (transport.now - began) / PICOSECONDS / MESSAGES

    ranks = len(fabric.hosts)
    tasks = RankScheduler[float](transport).run([Worker(rank, ranks) for rank in range(ranks)], program)
    return statistics.median(task.result for task in tasks if task.result is not None)
