"""Links that degrade, fail and come back while a simulation runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from netsim._util.errors import UsageError, suggestion
from netsim._util.units import HORIZON_DAYS, HORIZON_PS, parse_bandwidth, parse_duration, picoseconds
from netsim.network.fabric import Link
from netsim.network.graph import check_link

EXAMPLE = "'worker3->switch@0.5s=100Mbps', '=down' or '=up'"
_EVENT = re.compile(r"\s*(.+?)\s*(<->|->|↔|→)\s*(.+?)\s*@\s*(.+?)\s*=\s*(.+?)\s*")


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """A link has another bandwidth, in bit/s, from `at_ps` on: 0 if it is down, None for its original bandwidth."""

    source: str
    target: str
    both_ways: bool
    at_ps: int
    bandwidth_bps: int | None

    @classmethod
    def several(cls, text: str) -> tuple[LinkEvent, ...]:
        """Read one event or several with commas; ``<->`` names both directions of a cable.

        Raises
        ------
        UsageError
            If a part of the text is not an event.

        Examples
        --------
        >>> event, = LinkEvent.several("worker3->switch@0.5s=100Mbps")
        >>> event.target, event.at_ps, event.bandwidth_bps
        ('switch', 500000000000, 100000000)
        """
        return tuple(cls._of(part) for part in text.split(","))

    @classmethod
    def _of(cls, text: str) -> LinkEvent:
        match = _EVENT.fullmatch(text)
        if match is None:
            raise UsageError(f"link event {text!r} is not LINK@TIME=BANDWIDTH; write it like {EXAMPLE}")
        source, arrow, target, instant, value = match.groups()
        at_ps = picoseconds(parse_duration(instant, f"time of link event {text!r}:", zero=True))
        if at_ps >= HORIZON_PS:
            raise UsageError(f"link event {text!r} is later than {HORIZON_DAYS} days, where every simulation ends")
        if value in ("down", "up"):
            bandwidth = 0 if value == "down" else None
        elif not (value[0].isascii() and value[0].isdigit()):
            close = suggestion(value, ["down", "up"])
            raise UsageError(f"link event {text!r} has an unknown value {value!r}{close}; write it like {EXAMPLE}")
        else:
            try:
                bandwidth = parse_bandwidth(value)
                check_link(bandwidth, 0.0)
            except UsageError as error:
                raise UsageError(f"link event {text!r}: {error}") from None
        return cls(source, target, arrow in ("<->", "↔"), at_ps, bandwidth)

    def links(self, links: Iterable[Link]) -> tuple[Link, ...]:
        """Return the links that change; raise UsageError for a link that this network does not have."""
        by_ends = {(link.source, link.target): link for link in links}
        wanted = [(self.source, self.target), (self.target, self.source)][: 1 + self.both_ways]
        for source, target in wanted:
            if (source, target) not in by_ends:
                names = [link.name for link in by_ends.values()]
                asked = f"{source}→{target}"
                close = suggestion(asked, names) or f"; there is {', '.join(names[:4])}" + (
                    f" and {len(names) - 4} more" if len(names) > 4 else ""
                )
                raise UsageError(f"link event names link {asked!r}, which this topology does not have{close}")
        return tuple(by_ends[pair] for pair in wanted)


@dataclass(frozen=True, slots=True)
class Change:
    """A new bandwidth of one link, in bit/s, from `at_ps` on."""

    at_ps: int
    link: Link
    bandwidth_bps: float


def changes_of(events: Sequence[LinkEvent], links: Iterable[Link]) -> list[Change]:
    """Return the changes that the events make, in order of time; changes of one instant keep the events' order."""
    links = list(links)
    return sorted(
        (
            Change(event.at_ps, link, link.bandwidth_bps if event.bandwidth_bps is None else event.bandwidth_bps)
            for event in events
            for link in event.links(links)
        ),
        key=lambda change: change.at_ps,
    )
