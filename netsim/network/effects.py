"""What slows real networks and workers: all that a simulation adds to an ideal one when it is asked to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from netsim._util.errors import UsageError, check_choice, shown
from netsim._util.random_streams import Jitter, Speeds, Straggler
from netsim._util.units import format_duration, parse_duration
from netsim.network.changes import LinkEvent
from netsim.network.cross_traffic import Sizes
from netsim.network.switching import SWITCHINGS
from netsim.network.tcp import HEADERS, PAYLOAD, Tcp

PROTOCOLS = ("ideal", "tcp")
LIGHTEST, HEAVIEST = 1e-6, 0.999
"""Loads of the background: at the heaviest a link has a thousand flows on it in the mean."""
USUAL_SIZE = "exponential:1MB"
"""Of flows, where the user gave none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """The effects of a simulation, each off by default; ``docs/effects.md`` has their models and sources.

    Texts are as on the command line. `message_overhead_s` is charged to both hosts of a message, and
    `byte_cost_s` for each of its bytes. Raises UsageError for a value that cannot be used.
    """

    protocol: str = "ideal"
    initial_window: int = 10
    connections: str = "established"
    switching: str = "ideal"
    message_overhead_s: float = 0.0
    byte_cost_s: float = 0.0
    compute_jitter: str | None = None
    straggler: str | None = None
    latency_jitter: str | None = None
    background: str | None = None
    background_size: str = USUAL_SIZE
    link_event: str | None = None

    @classmethod
    def of(cls, given: dict[str, Any]) -> Effects:
        """Return the effects among the options `given`, as on the command line, and take them out of there."""
        own = {name: given.pop(name) for name in NAMES if name in given}
        for name in ("message_overhead", "byte_cost"):
            if name in own:
                own[f"{name}_s"] = parse_duration(own.pop(name), name.replace("_", "-"), zero=True)
        if isinstance(own.get("background"), int | float) and not isinstance(own["background"], bool):
            own["background"] = str(own["background"])
        return cls(**own)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            text = each.type == "str" or (each.type == "str | None" and value is not None)
            if text and not (isinstance(value, str) and value):
                raise UsageError(f"{each.name.replace('_', '-')} {value!r} must be text; see netsim simulate --help")
            if each.type == "float" and not (type(value) in (int, float) and 0 <= value < math.inf):
                raise UsageError(
                    f"{each.name.replace('_', '-')} {value!r} must be finite and zero or more, such as 20e-6"
                )
        check_choice("protocol", self.protocol, PROTOCOLS)
        check_choice("switching", self.switching, SWITCHINGS)
        tcp = Tcp(self.initial_window, self.connections)
        if self.protocol != "tcp" and tcp != Tcp():
            raise UsageError(
                "an initial window or connections were given, but the protocol is ideal; add --protocol tcp"
            )
        self.speeds(0)
        self.jitter()
        self.events()
        if Sizes.of(self.background_size) != Sizes.of(USUAL_SIZE) and self.load is None:
            raise UsageError(f"background-size {self.background_size!r} was given without a load; add --background 0.3")
        if (load := self.load) is not None and not LIGHTEST <= load <= HEAVIEST:
            raise UsageError(
                f"background {shown(self.background)} must be a load of more than 0 and less than 1 "
                f"({LIGHTEST:g} to {HEAVIEST:g}), such as 0.3, or a file"
            )

    @property
    def any(self) -> bool:
        """Whether anything is on: then rounds may differ, and a message takes more than latency and bandwidth."""
        return self != NONE

    @property
    def local(self) -> bool:
        """Whether workers, hosts or links are named, which another number of workers need not have."""
        named = self.link_event is not None or self.flows_file is not None
        return named or any(each.rank is not None for each in self.stragglers())

    def tcp(self) -> Tcp | None:
        """Return the protocol, None if it is ideal."""
        return Tcp(self.initial_window, self.connections) if self.protocol == "tcp" else None

    def stragglers(self) -> tuple[Straggler, ...]:
        """Return who computes slowly."""
        return () if self.straggler is None else Straggler.several(self.straggler)

    def speeds(self, seed: int) -> Speeds | None:
        """Return how slowly workers compute; None if as charged."""
        if self.compute_jitter is None and self.straggler is None:
            return None
        jitter = None if self.compute_jitter is None else Jitter.of(self.compute_jitter, "compute-jitter")
        return Speeds(seed, jitter, self.stragglers())

    def jitter(self) -> Jitter | None:
        """Return the factor on a message's latency."""
        return None if self.latency_jitter is None else Jitter.of(self.latency_jitter, "latency-jitter")

    def events(self) -> tuple[LinkEvent, ...]:
        """Return what happens to links."""
        return () if self.link_event is None else LinkEvent.several(self.link_event)

    @property
    def load(self) -> float | None:
        """The load of the background, None if there is none or it is a file."""
        try:
            return None if self.background is None else float(self.background)
        except ValueError:
            return None

    @property
    def flows_file(self) -> Path | None:
        """The file of the background's flows, None if there is none or it is a load."""
        return None if self.background is None or self.load is not None else Path(self.background)

    def check_workers(self, workers: int) -> None:
        """Raise UsageError where a worker is named that is not there."""
        for straggler in self.stragglers():
            if straggler.rank is not None and straggler.rank >= workers:
                raise UsageError(f"straggler {straggler.rank} is not there: workers are numbered 0 to {workers - 1}")

    def shown(self) -> dict[str, str]:
        """Return what is on, in words, by the option that put it on."""
        parts: dict[str, str] = {}
        if self.protocol == "tcp":
            opened = {"established": "connections established", "per-pair": "a connection opened per pair"}
            parts["protocol"] = (
                f"tcp ({PAYLOAD} bytes of {PAYLOAD + HEADERS} on the wire, slow start from {self.initial_window} "
                f"segments, {opened.get(self.connections, 'a connection opened per message')})"
            )
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

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Effects:
        """Return the effects whose :meth:`config` this is."""
        return cls(**config)

    def config(self) -> dict[str, Any]:
        """Return the options as JSON takes them."""
        return asdict(self)


NONE = Effects()
NAMES = tuple(each.name.removesuffix("_s") for each in fields(Effects))
"""The options, as :meth:`Effects.of` takes them."""
