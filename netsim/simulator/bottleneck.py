"""Says in words what a round is bound by, from the time its longest chain of events spent on each thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable

from netsim.comm.worker import COMPUTE, SELECT
from netsim.network.fabric import Link


def bound_by(totals: Counter[Hashable], server_hosts: Collection[str]) -> str:
    """Return "compute", "selection", "latency", "server NIC", or the link that took most of the time.

    `server_hosts` are those whose links belong to parameter servers. Where no link took half of
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
    at_servers = {host: sum(time for link, time in links.items() if host in link.ends) for host in server_hosts}
    if 2 * sum(at_servers.values()) > links.total():
        return f"server NIC ({max(at_servers, key=lambda host: at_servers[host])})"
    busiest = max(links, key=lambda link: (links[link], -link.index))
    if 2 * links[busiest] > links.total():
        return f"link {busiest.name}"
    alike = [link for link, time in links.items() if 2 * time > links[busiest]]
    return f"worker links, e.g. {min(alike, key=lambda link: link.index).name}"
