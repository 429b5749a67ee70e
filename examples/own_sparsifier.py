"""An own sparsifier, which sends every entry of at least a tenth of the largest one, beside Top-k and dense.

``python examples/own_sparsifier.py`` prints the table and draws the training loss over simulated seconds.
"""

import pandas as pd
import torch

import netsim
from algorithms.compression import sum_to_dense
from netsim.comm.collectives import ring_all_gather
from netsim.comm.payload import Dense, Sparse, Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm
from netsim.training.sgd import zeros


class Threshold(Algorithm):
    """Sends entries of at least `share` of the largest magnitude, and keeps the others as a residual."""

    title = "threshold"

    def __init__(self, share: float = 0.1) -> None:
        self.share = share

    def initial_memory(self, template: Vector) -> Vector:
        return zeros(template)

    async def exchange(self, worker: Worker, vector: Vector, memory: Vector, template: Vector) -> tuple[Vector, Vector]:
        sent, rest = await worker.compute("select", self.select, vector, memory)
        everyones = await ring_all_gather(worker, sent)
        return await worker.replicated("merge", sum_to_dense, *everyones), rest

    def select(self, vector: Dense, memory: Dense) -> tuple[Sparse, Dense]:
        total = vector.values + memory.values
        magnitudes = total.abs()
        indices = (magnitudes >= self.share * magnitudes.max()).nonzero().flatten()
        sent = Sparse(indices.to(torch.int32), total[indices], total.numel())
        return sent, Dense(total.index_fill(0, indices, 0))


if __name__ == "__main__":
    report = netsim.simulate(
        workers=8,
        bandwidth="100Mbps",
        algorithm=[Threshold(share=0.3), "topk", "dense"],
        rounds=10,
        density=0.01,
        compute_time="5ms",
        metrics="training.csv",
    )
    print(report)
    losses = pd.read_csv("training.csv").pivot_table(index="time_s", columns="algorithm", values="train_loss")
    axes = losses.interpolate().plot(logx=True, xlabel="time (s), SIMULATED", ylabel="training loss")
    axes.figure.savefig("own_sparsifier.svg")
