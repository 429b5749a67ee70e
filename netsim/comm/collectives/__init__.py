"""Collectives over the workers, each one schedule of messages.

α is the latency of a message, β the time of an element, d the elements of a vector and P the
number of workers; the costs are those of an idle full-duplex network (gTop-k paper, table of costs).
The order in which operands are combined is fixed, so results agree bit for bit on every backend.
"""

from netsim.comm.collectives.bruck import bruck_all_gather
from netsim.comm.collectives.chains import chain_broadcast, chain_reduce
from netsim.comm.collectives.direct import all_to_all
from netsim.comm.collectives.double_trees import double_tree_all_reduce
from netsim.comm.collectives.doubling import fold, swap, unfold
from netsim.comm.collectives.hierarchical import hierarchical_all_reduce
from netsim.comm.collectives.pipeline import Pipeline
from netsim.comm.collectives.rings import (
    ring_all_gather,
    ring_all_reduce,
    ring_all_reduce_in_fp32,
    ring_reduce,
    ring_reduce_scatter,
)
from netsim.comm.collectives.server import broadcast_from_server, gather, scatter
from netsim.comm.collectives.trees import Levels, doubling_broadcast, tree_all_reduce, tree_broadcast, tree_reduce

__all__ = [
    "Levels",
    "Pipeline",
    "all_to_all",
    "broadcast_from_server",
    "bruck_all_gather",
    "chain_broadcast",
    "chain_reduce",
    "double_tree_all_reduce",
    "doubling_broadcast",
    "fold",
    "gather",
    "hierarchical_all_reduce",
    "ring_all_gather",
    "ring_all_reduce",
    "ring_all_reduce_in_fp32",
    "ring_reduce",
    "ring_reduce_scatter",
    "scatter",
    "swap",
    "tree_all_reduce",
    "tree_broadcast",
    "tree_reduce",
    "unfold",
]
