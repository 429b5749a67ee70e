"""Figure 1 of the gTop-k paper on Fashion-MNIST: δ of Assumption 1 and the loss of gTop-k beside S-SGD's.

4 workers, density 0.001 after a warm-up, for fc-mnist and resnet20. Prints the band of δ after the warm-up, and
the test losses; draws both (--svg) and keeps the rows (--out). Needs the data set: see
`netsim simulate --workload fc-mnist`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt

import netsim

BUDGETS: dict[str, dict[str, Any]] = {
    "fc-mnist": {"rounds": 600, "batch_size": 32, "lr": 0.1, "density_warmup": 60, "eval_every": 20},
    "resnet20": {"rounds": 240, "batch_size": 16, "lr": 0.1, "density_warmup": 24, "eval_every": 20},
}


def run(model: str, rows: Path, seed: int) -> pd.DataFrame:
    """Return the rows of gTop-k and S-SGD on one model."""
    netsim.simulate(
        algorithm="gtopk,dense", workload=model, data="fashion-mnist", workers=4, density=1e-3, seed=seed, metrics=rows,
        compute_time="1ms", select_time="0s", merge_time="0s", **BUDGETS[model],
    )  # fmt: skip
    return pd.read_csv(rows)


def band(table: pd.DataFrame, model: str) -> str:
    """Return the least, mean and greatest δ after the warm-up, and where it stayed below 1."""
    delta = table[(table.algorithm == "gtopk") & (table.step >= BUDGETS[model]["density_warmup"])].delta
    return (
        f"{model}: δ {delta.min():.4f} to {delta.max():.4f}, mean {delta.mean():.4f}, standard deviation "
        f"{delta.std():.4f}; below 1 at {(delta < 1).sum()} of {len(delta)} steps"
    )


def losses(table: pd.DataFrame, model: str) -> str:
    """Return both algorithms' last test loss and accuracy."""
    last = table.dropna(subset=["test_loss"]).groupby("algorithm").last()
    return f"{model}: " + "; ".join(
        f"{name} test loss {row.test_loss:.4f}, accuracy {row.test_accuracy:.4f} at step {row.step:.0f}"
        for name, row in last.iterrows()
    )


def draw(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw δ above the test losses, a column a model."""
    mpl.rcParams |= {"svg.hashsalt": "netsim", "font.size": 9}
    figure, axes = plt.subplots(2, len(tables), figsize=(5 * len(tables), 6), sharex="col", squeeze=False)
    for column, (model, table) in enumerate(tables.items()):
        delta, loss = axes[:, column]
        gtopk = table[table.algorithm == "gtopk"]
        sns.lineplot(x=gtopk.step, y=gtopk.delta, ax=delta, color="#0173b2", linewidth=0.7)
        delta.axhline(1, color="black", linewidth=0.8, linestyle="--")
        delta.set(title=model, ylabel="δ (dashed: Assumption 1's bound)")
        judged = table.dropna(subset=["test_loss"])
        sns.lineplot(data=judged, x="step", y="test_loss", hue="algorithm", style="algorithm", markers=True, ax=loss,
                     palette="colorblind")  # fmt: skip
        loss.set(xlabel="round", ylabel="test loss (nats)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(BUDGETS), default=sorted(BUDGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path, help="draw to this file")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the rows")
    options = parser.parse_args()
    tables = {model: run(model, options.out / f"{model}.csv", options.seed) for model in options.models}
    for model, table in tables.items():
        print(band(table, model))
        print(losses(table, model))
    if options.svg is not None:
        draw(tables, options.svg)


if __name__ == "__main__":
    main()
