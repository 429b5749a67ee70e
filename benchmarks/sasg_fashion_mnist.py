"""The SASG paper's comparison on Fashion-MNIST: SGD, Sparse, LASG and SASG with the published settings.

10 workers of 10 samples, 784-512-10, γ = 0.005 on a sum over workers, 1 % of every tensor, D = 10,
α_d = 1/(2γ), 20 epochs (--epochs makes it shorter, and the output says so). Prints a table of mean and range
over the seeds; --json writes every run. Needs the data set: see `netsim simulate --workload fc-mnist`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import netsim
from algorithms import with_options

ALGORITHMS = {"ps": "SGD", "ps-topk": "Sparse", "lasg-wk2": "LASG", "sasg": "SASG"}
COLUMNS = {"final_accuracy": "{:.4f}", "uploads": "{:,.0f}", "value_bits_up": "{:.3e}", "index_bits_up": "{:.3e}"}
WORKERS, BATCH, SAMPLES, PUBLISHED_EPOCHS = 10, 10, 60_000, 20


def one(algorithm: str, seed: int, epochs: int) -> dict[str, Any]:
    """Return what one run found."""
    started = time.perf_counter()
    report = netsim.simulate(
        algorithm=with_options(algorithm, alpha=0.5),
        workers=WORKERS,
        batch_size=BATCH,
        rounds=epochs * SAMPLES // (WORKERS * BATCH),
        workload="fc-mnist",
        data="fashion-mnist",
        sampling="epochs",
        lr=0.005,
        aggregate="sum",
        density=0.01,
        per_tensor=True,
        seed=seed,
        compute_time="1ms",
        select_time="0s",
        merge_time="0s",
    )
    (result,) = report.results
    keys = (
        "uploads",
        "value_bits_up",
        "index_bits_up",
        "bits_down",
        "final_loss",
        "final_accuracy",
        "parameters_sha256",
    )
    return {"algorithm": algorithm, "seed": seed, "epochs": epochs, **{key: result[key] for key in keys},
            "wall_s": time.perf_counter() - started}  # fmt: skip


def table(runs: list[dict[str, Any]]) -> str:
    """Return the runs as Markdown, a row an algorithm."""
    epochs, seeds = runs[0]["epochs"], sorted({run["seed"] for run in runs})
    lines = [
        f"{epochs} of the paper's {PUBLISHED_EPOCHS} epochs, seeds {', '.join(map(str, seeds))}; mean (least to most)",
        "",
        '| | test accuracy | uploads ("rounds") | value bits up | index bits up |',
        "|---|---|---|---|---|",
    ]
    for algorithm, title in ALGORITHMS.items():
        own = [run for run in runs if run["algorithm"] == algorithm]
        if own:
            cells = [_range([run[key] for run in own], form) for key, form in COLUMNS.items()]
            lines.append(f"| {title} (`{algorithm}`) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(values: list[float], form: str) -> str:
    mean = sum(values) / len(values)
    return f"{form.format(mean)} ({form.format(min(values))} to {form.format(max(values))})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=PUBLISHED_EPOCHS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="write every run to this file")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for seed in options.seeds:
        for algorithm in ALGORITHMS:
            runs.append(one(algorithm, seed, options.epochs))
            print(json.dumps(runs[-1]), flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps(runs, indent=1))
    print(table(runs))


if __name__ == "__main__":
    main()
