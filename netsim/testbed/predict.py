"""Predictions: the same exchanges and rounds that are measured, over the simulated cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from netsim._util.units import PICOSECONDS
from netsim.cluster.framing import Wire
from netsim.comm.worker import Sends, Worker
from netsim.experiment.profile import Profile
from netsim.network.fabric import Fabric
from netsim.simulator.scheduler import RankScheduler
from netsim.testbed.cells import Cell
from netsim.testbed.exchanges import EXCHANGES
from netsim.testbed.host_model import HostTerms, HostTransport
from netsim.testbed.p2p_fits import host_terms, profile_terms
from netsim.testbed.p2p_measurements import P2PMeasurements
from netsim.training.costs import AssumedCosts


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """A network and the source of its hosts' terms: measurements beside each cell, or a profile.

    Parameters
    ----------
    fabric, wire
        The links, and their framing.
    bandwidth_bps
        Bandwidth of the links in bit/s.
    cores
        Cores that all ranks share; None if each has one of its own.
    profile
        Where terms come from; None to take them from point-to-point measurements.
    """

    fabric: Fabric
    wire: Wire
    bandwidth_bps: float
    cores: int | None
    profile: Profile | None = None

    def terms(self, measured: P2PMeasurements) -> HostTerms:
        """Return the terms of the hosts, with point-to-point messages as measured beside a cell."""
        if self.profile is not None:
            return profile_terms(self.profile, self.cores)
        return host_terms(measured, self.wire, self.bandwidth_bps, self.cores)

    def predicted(
        self, cell: Cell, measured: P2PMeasurements, compute_s: Mapping[str, float]
    ) -> tuple[list[float], str | None]:
        """Predict a cell.

        Parameters
        ----------
        cell
            An exchange, or rounds of training.
        measured
            Point-to-point measurements beside the cell.
        compute_s
            Seconds of each computation of a round (:mod:`netsim.testbed.local_work`); empty for an exchange.

        Returns
        -------
        tuple
            Seconds of each rank, or the one value of a round; and the SHA-256 of trained parameters, if any.
        """
        from netsim.experiment.configuration import Experiment
        from netsim.testbed.training_rounds import predicted_rounds

        links, terms = (self.fabric, self.wire), self.terms(measured)
        if cell.experiment is None:
            return predicted_exchange(cell.name, cell.bytes, cell.sends, *links, terms), None
        experiment = Experiment.from_config(cell.experiment)
        round_s, sha256 = predicted_rounds(experiment, *links, terms, cell.sends, compute_s)
        return [round_s], sha256


def predicted_exchange(
    exchange: str, size: int, sends: Sends, fabric: Fabric, wire: Wire, terms: HostTerms
) -> list[float]:
    """Return the seconds after which each rank is done with one exchange on an idle network.

    Parameters
    ----------
    exchange, size, sends
        Name of the exchange, bytes of each rank's vector, and when a send is done.
    fabric, wire, terms
        The links, their framing, and the costs of hosts.
    """
    transport = HostTransport(fabric, wire, terms, AssumedCosts({}), sends)
    vector = EXCHANGES[exchange].size_only(size)

    async def program(worker: Worker) -> float:
        await EXCHANGES[exchange].program(worker, vector)
        return transport.now / PICOSECONDS

    ranks = len(fabric.hosts)
    tasks = RankScheduler[float](transport).run([Worker(rank, ranks) for rank in range(ranks)], program)
    return [task.result for task in tasks if task.result is not None]
