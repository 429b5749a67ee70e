"""64 GPUs in 8 machines at 25 Gbit/s: what the hierarchy, overlap and sparsification save.

``python examples/eight_machines.py`` prints a table and draws it.
"""

import matplotlib.pyplot as plt
import seaborn as sns

import netsim

if __name__ == "__main__":
    table = netsim.sweep(
        overlap=[None, "25MB"],  # after the backward pass, or during it in buckets as DDP does
        algorithm=["dense", "dense-hier", "gtopk-hier"],
        workers=64,
        topology="machines:gpus=8,inside=300GB/s,network=25Gbps",
        model="resnet50",
        timing_only=True,
        compute_time="200ms",
    )
    table = table.fillna({"overlap": "none"})
    print(table[["title", "overlap", "round_time_s", "comm_time_s", "hidden_comm_time_s"]].to_string(index=False))
    axes = sns.barplot(table, y="title", x="comm_time_s", hue="overlap")
    axes.set(xlabel="exposed communication (s), SIMULATED", ylabel="")
    plt.savefig("eight_machines.svg", bbox_inches="tight")
