"""``netsim.flows``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from netsim.analysis import FLOWS_OPTIONS
from netsim.experiment.configuration import Experiment
from netsim.experiment.option_docs import takes_options
from netsim.network.flow import Sharing

if TYPE_CHECKING:
    from netsim.analysis.replay import Replay


@takes_options(*FLOWS_OPTIONS)
def flows(flows: str | Path, *, topology: Any, workers: int = 8, **options: Any) -> Replay:
    """Simulate any traffic on any network.

    Parameters
    ----------
    flows
        A file of flows that ``netsim flows`` reads, such as CSV with the columns src, dst, bytes and start_s.
    topology
        The network.
    workers
        Number of hosts of a topology that takes it from there.
    **options
        Further options of ``netsim flows``, with underscores.

    Returns
    -------
    Replay
        When each flow ends, and how busy each link is; ``to_pandas()`` returns the flows as a table.
        A warning names an option that had no effect.

    Raises
    ------
    UsageError
        For a file or an option that cannot be used.
    """
    from netsim.analysis.replay import replay
    from netsim.analysis.unused_options import idle_of_links
    from netsim.network.flowfile import read_flows

    experiment = Experiment.of(timing_only=True, elements=1, k=1, topology=topology, workers=workers, **options)
    for note in idle_of_links(experiment):
        warnings.warn(note, stacklevel=2)
    fabric = experiment.fabric(everywhere=True)
    return replay(fabric, read_flows(Path(flows), fabric.nodes_of_hosts), cast(Sharing, experiment.sharing))
