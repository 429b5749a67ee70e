"""Names the bottleneck of a round from the times along its critical path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable

from netsim.comm.worker import COMPUTE, SELECT
from netsim.network.fabric import Link


def bound_by(totals: Counter[Hashable], server_hosts: Collection[str]) -> str:
    """Return the event that took most of the time along a critical path, as text.

    Parameters
    ----------
    totals
        Picoseconds of each event along the path; links are their own events.
    server_hosts
        The hosts of parameter servers. Their links together count as "server NIC".

    Returns
    -------
    str
        Such as "compute", "selection", "latency", "server NIC (worker0)" or "link worker1→switch". If no link took half
        of the time of all links, "worker links", with the first of the busiest as an example.
    """
    links: Counter[Link] = Counter({what: time for what, time in totals.items() if isinstance(what, Link)})
    candidates = {
        "compute": sum(totals[work] for work in COMPUTE),
        "selection": sum(totals[work] for work in SELECT),
        "latency": totals["latency"] + totals["switching"],
        "host overhead": totals["host overhead"],
        "slow start": totals["slow start"] + totals["handshake"],
        "window": totals["window"],
        "stream rate": totals["stream rate"],
        "clear to send": totals["clear to send"],
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
