"""gTop-k's two residual rules on the same seeds: final loss, and the gradient mass that each loses.

fc-mnist on Fashion-MNIST, density 0.001, 4, 8 and 32 workers, data split iid and by class. Prints a table: final
training loss of either rule, and the share of ‖Σ x‖₁ lost a step (mean and greatest). Needs the data set: see
`netsim simulate --workload fc-mnist`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pandas as pd

import netsim

RULES = ("keep-at-merge", "index-intersection")


def run(rule: str, workers: int, split: str, seed: int, rounds: int) -> tuple[float, float, float]:
    """Return the final loss, and the mean and the greatest leak of a step."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.csv"
        report = netsim.simulate(
            algorithm=f"gtopk:residual={rule}", workload="fc-mnist", data="fashion-mnist", workers=workers, split=split,
            seed=seed, rounds=rounds, batch_size=8, lr=0.1, density=1e-3, metrics=rows,
            compute_time="1ms", select_time="0s", merge_time="0s",
        )  # fmt: skip
        leak = pd.read_csv(rows).leak
    loss = report.results[0].final_loss
    assert loss is not None
    return loss, leak.mean(), leak.max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 32])
    parser.add_argument("--splits", nargs="+", default=["iid", "by-class"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    print("| P | split | seed | loss, keep-at-merge | loss, index-intersection | leak a step, mean (greatest) |")
    print("|---|---|---|---|---|---|")
    for workers in options.workers:
        for split in options.splits:
            for seed in options.seeds:
                kept, leaky = (run(rule, workers, split, seed, options.rounds) for rule in RULES)
                lost = f"{kept[1]:.1e} against {leaky[1]:.2%} ({leaky[2]:.2%})"
                print(f"| {workers} | {split} | {seed} | {kept[0]:.4f} | {leaky[0]:.4f} | {lost} |", flush=True)


if __name__ == "__main__":
    main()
