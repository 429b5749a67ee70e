"""Says in words what a round is bound by, from the time its longest chain of events spent on each thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from netsim.network.fabric import Link
from netsim.worker import COMPUTE, SELECT


def bound_by(totals: Counter[Hashable], server_host: str | None) -> str:
    """Return "compute", "selection", "latency", "server NIC", or the link that took most of the time.

    `server_host` is the host whose links belong to a parameter server. Where no link took half of
    all links' time, many alike share it and the first of them stands for all.
    """
    links: Counter[Link] = Counter({what: time for what, time in totals.items() if isinstance(what, Link)})
    candidates = {
        "compute": sum(totals[work] for work in COMPUTE),
        "selection": sum(totals[work] for work in SELECT),
        "latency": totals["latency"] + totals["switching"],
        "host overhead": totals["host overhead"],
        "slow start": totals["slow start"] + totals["handshake"],
        "links": links.total(),
    }
    greatest = max(candidates, key=lambda name: candidates[name])
    if not candidates[greatest]:
        return "nothing"
    if greatest != "links":
        return greatest
    at_server = sum(time for link, time in links.items() if server_host in (link.source, link.target))
    if 2 * at_server > links.total():
        return f"server NIC ({server_host})"
    busiest = max(links, key=lambda link: (links[link], -link.index))
    if 2 * links[busiest] > links.total():
        return f"link {busiest.name}"
    alike = [link for link, time in links.items() if 2 * time > links[busiest]]
    return f"worker links, e.g. {min(alike, key=lambda link: link.index).name}"
