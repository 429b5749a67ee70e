"""Distributed-SGD algorithms, one file each; the same code runs in the simulator and over torch.distributed.

To add one: a file with a subclass of :class:`netsim.training.algorithm.Algorithm`, and a line below.
"""

from __future__ import annotations

from algorithms.dense import DenseRing
from algorithms.dense_tree import DenseTree
from algorithms.gtopk import GTopK
from algorithms.gtopk_hier import GTopKHierarchical
from algorithms.gtopk_naive import GTopKNaive
from algorithms.lag import LAG
from algorithms.lasg import LASGPS, LASGWK1, LASGWK2
from algorithms.ps import ParameterServer
from algorithms.ps_topk import ParameterServerTopK
from algorithms.randk import RandK
from algorithms.sasg import SASG
from algorithms.topk import TopK
from netsim.training.algorithm import Algorithm

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm
    for algorithm in (
        *(DenseRing, DenseTree, TopK, GTopK, GTopKNaive, GTopKHierarchical, RandK),
        *(ParameterServer, ParameterServerTopK, LAG, LASGWK1, LASGWK2, LASGPS, SASG),
    )
}
