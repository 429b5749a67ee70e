"""How flows share a full link: at equal rates, or in inverse proportion to the latency of their routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from netsim._util.errors import UsageError
from netsim._util.units import PICOSECONDS

if TYPE_CHECKING:
    from netsim.network.fabric import Route

Sharing = Literal["maxmin", "rtt"]
SHARINGS: dict[Sharing, str] = {
    "maxmin": "max-min fairness",
    "rtt": "max-min fairness weighted by 1 / latency of routes",
}
"""What each choice of ``--sharing`` is called. Rates inverse to latency are those of long-lived TCP flows."""


def weight_by_latency(route: Route) -> float:
    """Return a flow's weight with ``rtt`` sharing: one over its route's latency in seconds.

    Raises
    ------
    UsageError
        If the route has no latency.
    """
    if not route.latency_ps:
        raise UsageError(
            f"sharing 'rtt' on the route {route.links[0].source}→{route.links[-1].target}, which has no latency to "
            "weigh by; give its links a latency, or share 'maxmin'"
        )
    return PICOSECONDS / route.latency_ps
