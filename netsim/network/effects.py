"""The options of effects: what slows real networks and workers, and what an ideal simulation leaves out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netsim._util.errors import UsageError, shown
from netsim._util.options import Bandwidth, Choice, Duration, OnOff, Size, Text, Whole, option, read_fields
from netsim._util.random_streams import Jitter, Speeds, Straggler
from netsim._util.units import format_bandwidth, format_bytes, format_duration
from netsim.network.changes import LinkEvent
from netsim.network.cross_traffic import Sizes
from netsim.network.streams import Streams
from netsim.network.switching import SWITCHINGS
from netsim.network.tcp import CONNECTIONS, Tcp

PROTOCOLS = ("ideal", "tcp")
LIGHTEST, HEAVIEST = 1e-6, 0.999
"""The range of background loads; at the largest a link has a thousand flows in the mean."""
USUAL_SIZE = "exponential:1MB"
"""The default size of background flows."""


class Background(Text):
    """A load, or the name of a file."""

    def read(self, name: str, value: Any) -> str:
        """Return the text of a load or a file's name; raise UsageError for anything else."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if value == "":
            raise UsageError(f"{name} '' must be a load or the name of a file, such as 0.3")
        return super().read(name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The effects of a simulation, each off by default; ``docs/effects.md`` has their models and sources.

    Texts are as on the command line. `message_overhead_s` is charged to both hosts of a message, and
    `byte_cost_s` for each of its bytes. Raises UsageError for a value that cannot be used.
    """

    protocol: str = option(
        "ideal", Choice(PROTOCOLS), "Protocol of messages: ideal, or tcp (headers, connections, slow start)."
    )
    initial_window: int = option(10, Whole(1, example="10"), "With tcp: initial congestion window, in segments.")
    connections: str = option(
        "established",
        Choice(CONNECTIONS),
        "With tcp: when connections open: established (before the run), per-pair (with the first message between two "
        "hosts) or per-message. Opening takes one round trip.",
    )
    mtu: int = option(
        1500,
        Whole(68, 65_535, "at most 65535, the largest IP packet", example="9001"),
        "With tcp: largest IP packet in bytes; 9001 for jumbo frames.",
    )
    segments_per_ack: int = option(
        0,
        Whole(0, example="2"),
        "With tcp: segments per acknowledgement; 2 with delayed acknowledgements. Each acknowledgement takes 90 bytes "
        "of the other direction's bandwidth. 0: acknowledgements take no bandwidth.",
    )
    window_bytes: int | None = option(
        None,
        Size(),
        "Bytes that a connection may have sent and not yet acknowledged: 2.5MB. Long messages move at window / round "
        "trip at most.",
        name="window",
        otherwise="unlimited",
    )
    streams: int = option(
        1,
        Whole(1, 65_535, "at most 65535, as there are TCP ports", example="4"),
        "Connections of a pair of hosts; a message is striped over all of them.",
    )
    stream_rate_bps: int | None = option(
        None,
        Bandwidth(),
        "Highest rate of one connection: 5Gbps.",
        name="stream_rate",
        otherwise="unlimited",
    )
    clear_to_send: bool = option(
        False,
        OnOff(),
        "Every message waits until its receiver has posted a receive and has told the sender, as in gloo.",
    )
    switching: str = option(
        "ideal",
        Choice(SWITCHINGS),
        "How switches forward: ideal (no delay), cut-through (after a header) or store-and-forward (whole packets).",
    )
    message_overhead_s: float = option(
        0.0, Duration(), "Time that sender and receiver each spend on a message: 20us.", name="message_overhead"
    )
    byte_cost_s: float = option(
        0.0, Duration(), "Time that sender and receiver each spend on a byte of a message: 0.1ns.", name="byte_cost"
    )
    compute_jitter: str | None = option(
        None,
        Text(check=lambda text: Jitter.of(text, "compute-jitter")),
        "Random factor on a worker's compute times, by step: lognormal:0.2, exponential:0.5, uniform:0.1.",
    )
    straggler: str | None = option(
        None,
        Text(check=Straggler.several),
        "Slow workers: 3:2.5 (worker 3 is 2.5 times slower), 5%:4 (each worker, one step in 20), or several with "
        "commas.",
    )
    latency_jitter: str | None = option(
        None,
        Text(check=lambda text: Jitter.of(text, "latency-jitter")),
        "Random factor on a message's latency: lognormal:0.5, for example.",
    )
    background: str | None = option(
        None,
        Background(),
        "Cross traffic: a fraction of every link's bandwidth, like 0.3, or a CSV file of src,dst,bytes,start_s.",
    )
    background_size: str = option(
        USUAL_SIZE,
        Text(check=Sizes.of),
        "Sizes of the flows of cross traffic: exponential:1MB, fixed:100kB, lognormal:1MB:1.5.",
    )
    link_event: str | None = option(
        None,
        Text(check=LinkEvent.several),
        "Changes of links: 'worker3->switch@0.5s=100Mbps' (or =down, =up; <-> both ways); several with commas.",
    )

    def __post_init__(self) -> None:
        read_fields(self)
        if self.protocol != "tcp" and self._tcp != Tcp():
            raise UsageError(
                "an initial-window, connections, mtu or segments-per-ack was given, but the protocol is ideal; "
                "add --protocol tcp"
            )
        if Sizes.of(self.background_size) != Sizes.of(USUAL_SIZE) and self.load is None:
            raise UsageError(f"background-size {self.background_size!r} was given without a load; add --background 0.3")
        if (load := self.load) is not None and not LIGHTEST <= load <= HEAVIEST:
            raise UsageError(
                f"background {shown(self.background)} must be a load of more than 0 and less than 1 "
                f"({LIGHTEST:g} to {HEAVIEST:g}), such as 0.3, or a file"
            )

    @property
    def any(self) -> bool:
        """Whether any effect is on. Rounds may then differ, and a message takes more than latency and bandwidth."""
        return self != NONE

    @property
    def local(self) -> bool:
        """Whether an effect names workers, hosts or links, which networks of another size may not have."""
        named = self.link_event is not None or self.flows_file is not None
        return named or any(straggler.rank is not None for straggler in self.stragglers())

    def tcp(self) -> Tcp | None:
        """Return the options of TCP, None if the protocol is ideal."""
        return self._tcp if self.protocol == "tcp" else None

    @property
    def _tcp(self) -> Tcp:
        return Tcp(self.initial_window, self.connections, self.mtu, self.segments_per_ack)

    def connected(self) -> Streams:
        """Return the connections of a pair of hosts."""
        rate_bps = math.inf if self.stream_rate_bps is None else self.stream_rate_bps
        return Streams(self.streams, rate_bps, self.window_bytes)

    def stragglers(self) -> tuple[Straggler, ...]:
        """Return the workers that compute slowly."""
        return () if self.straggler is None else Straggler.several(self.straggler)

    def speeds(self, seed: int) -> Speeds | None:
        """Return the factors on computing times; None if there are none."""
        if self.compute_jitter is None and self.straggler is None:
            return None
        jitter = None if self.compute_jitter is None else Jitter.of(self.compute_jitter, "compute-jitter")
        return Speeds(seed, jitter, self.stragglers())

    def jitter(self) -> Jitter | None:
        """Return the random factor on latencies; None if there is none."""
        return None if self.latency_jitter is None else Jitter.of(self.latency_jitter, "latency-jitter")

    def events(self) -> tuple[LinkEvent, ...]:
        """Return the events of links."""
        return () if self.link_event is None else LinkEvent.several(self.link_event)

    @property
    def load(self) -> float | None:
        """The background's load from 0 to 1; None if there is no background or it is a file."""
        try:
            return None if self.background is None else float(self.background)
        except ValueError:
            return None

    @property
    def flows_file(self) -> Path | None:
        """The file of background flows; None if there is no background or it is a load."""
        return None if self.background is None or self.load is not None else Path(self.background)

    def check_workers(self, workers: int) -> None:
        """Raise UsageError for a straggler that is not one of the workers."""
        for straggler in self.stragglers():
            if straggler.rank is not None and straggler.rank >= workers:
                raise UsageError(f"straggler {straggler.rank} was not found: workers are numbered 0 to {workers - 1}")

    def shown(self) -> dict[str, str]:
        """Return the effects that are on as text, by option."""
        parts: dict[str, str] = {}
        if (tcp := self.tcp()) is not None:
            opened = {"established": "connections established", "per-pair": "a connection opened per pair"}
            parts["protocol"] = (
                f"tcp ({tcp.payload} bytes of {tcp.segment} on the wire, slow start from {self.initial_window} "
                f"segments, {opened.get(self.connections, 'a connection opened per message')})"
            )
        if self.segments_per_ack:
            parts["segments-per-ack"] = f"an acknowledgement for {self.segments_per_ack} segments"
        if self.window_bytes is not None:
            parts["window"] = f"at most {format_bytes(self.window_bytes)} unacknowledged on a connection"
        if self.streams > 1:
            parts["streams"] = f"{self.streams} connections a pair"
        if self.stream_rate_bps is not None:
            parts["stream-rate"] = f"at most {format_bandwidth(self.stream_rate_bps)} a connection"
        if self.clear_to_send:
            parts["clear-to-send"] = "messages leave when their receivers have said that they are ready"
        if self.switching != "ideal":
            parts["switching"] = f"{self.switching} switches"
        if self.message_overhead_s:
            parts["message-overhead"] = f"{format_duration(self.message_overhead_s)} a message on each host"
        if self.byte_cost_s:
            parts["byte-cost"] = f"{format_duration(self.byte_cost_s)} a byte on each host"
        if self.compute_jitter:
            parts["compute-jitter"] = f"compute times × {self.compute_jitter}"
        if self.straggler:
            parts["straggler"] = f"stragglers {self.straggler}"
        if self.latency_jitter:
            parts["latency-jitter"] = f"latencies × {self.latency_jitter}"
        if self.load is not None:
            parts["background"] = f"background load {self.load:g} of flows {self.background_size}"
        elif self.background:
            parts["background"] = f"background flows of {self.background}"
        if self.link_event:
            parts["link-event"] = f"link events {self.link_event}"
        return parts

    def config(self) -> dict[str, Any]:
        """Return the options as values for JSON."""
        return asdict(self)


NONE = Effects()
