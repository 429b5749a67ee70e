"""A sweep over workers and bandwidths as a table of pandas: where does gTop-k overtake Top-k?

``python examples/sweep.py`` prints the table. A second run reads the results of the first from the folder ``results``.
"""

import netsim

if __name__ == "__main__":
    table = netsim.sweep(
        workers=[2, 4, 8, 16, 32, 64],
        bandwidth=["1Gbps", "10Gbps"],
        algorithm=["topk", "gtopk"],
        model="resnet50",
        timing_only=True,
        cache="results",
    )
    times = table.pivot(index=["bandwidth", "workers"], columns="algorithm", values="round_time_s")
    times["gtopk / topk"] = times["gtopk"] / times["topk"]
    print(times)
    faster = times[times["gtopk"] < times["topk"]].reset_index().groupby("bandwidth")["workers"].min()
    print("gTop-k is faster from P =", faster.to_dict())
