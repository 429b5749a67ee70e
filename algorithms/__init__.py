"""Distributed-SGD algorithms, each written once; nothing here knows which backend runs it.

To add one: a file with a subclass of :class:`netsim.algorithm.Algorithm`, and a line below.
"""

from __future__ import annotations

from algorithms.dense import DenseRing
from algorithms.dense_tree import DenseTree
from algorithms.gtopk import GTopK
from algorithms.parameter_server import ParameterServer
from algorithms.topk import TopK
from netsim.algorithm import Algorithm

ALGORITHMS: dict[str, type[Algorithm]] = {
    algorithm.name: algorithm for algorithm in (DenseRing, DenseTree, ParameterServer, TopK, GTopK)
}
