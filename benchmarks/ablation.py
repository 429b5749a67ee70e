"""What each term of the testbed's host model buys: stored measurements predicted again without it.

    python benchmarks/ablation.py RUN [RUN...]             a table of all terms
    python benchmarks/ablation.py RUN [RUN...] --only "waking: warm and cold,delivery lag"

A RUN is a folder that ``python benchmarks/validation.py RUN PIECE...`` has filled; nothing is measured. The figures are
medians and worst values of |predicted / measured - 1| over all runs. They count exchanges of 100 kB and more where
links carry less than 800 Mbit/s in all, since there the model is believed.

The spread of a median is how much it differs between runs, with all terms. A term stays if its absence raises the
median by more than its spread. It also stays for one exchange, if it raises that exchange's median by more than both
spreads. The last row leaves out all terms at once that do not stay.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import Pool
from pathlib import Path
from typing import Any

from netsim.cluster.plan import Cluster
from netsim.testbed.campaign import compare, model_of, stored_record
from netsim.testbed.cells import Cell
from netsim.testbed.comparison import summary
from netsim.testbed.host_model import HostTerms
from netsim.testbed.p2p_measurements import P2PMeasurements
from netsim.testbed.predict import ClusterModel

BELIEVED_BYTES = 100_000
"""Bytes of a rank's vector from which on the model is believed."""
BELIEVED_BPS = 800e6
"""Bandwidth of all ranks' links in all below which the model is believed on two cores, in bit/s."""

Measured = Callable[[P2PMeasurements], P2PMeasurements]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A term of the host model, and what takes its place when it is left out.

    Parameters
    ----------
    term
        The term in words; docs/host-model.md has its unit and formula.
    wire
        Fields of :class:`netsim.cluster.framing.Wire` that change.
    measured
        Point-to-point measurements as they would be without the term, so that the other terms are fitted without it.
    terms
        Fields of :class:`netsim.testbed.host_model.HostTerms` that change.
    own_cores
        Whether every rank gets a core of its own.
    """

    term: str
    wire: Mapping[str, Any] = field(default_factory=dict)
    measured: Measured = lambda measured: measured
    terms: Mapping[str, Any] = field(default_factory=dict)
    own_cores: bool = False


def without_message_work(m: P2PMeasurements) -> P2PMeasurements:
    """Return measurements in which a message takes no core time, and all else as much more as it did."""
    return replace(
        m,
        concurrent_small_s=0.0,
        concurrent_header_s=m.concurrent_header_s - m.concurrent_small_s,
    )


FULL = Ablation(term="all terms")
ABLATIONS = (
    Ablation(term="frame headers", wire={"header_bytes": 0}),
    Ablation(term="acknowledgements", wire={"ack_bytes": 0}),
    Ablation(term="token bucket (burst)", wire={"burst_bytes": 0}),
    Ablation(term="last group on credit", wire={"gso_segments": 0}),
    Ablation(term="guaranteed rate of a pair", wire={"guaranteed_rate": 0.0}),
    Ablation(term="waking", terms={"wake_warm_s": 0.0, "wake_cold_s": 0.0}),
    Ablation(term="waking: warm and cold", measured=lambda m: replace(m, warm_small_s=m.idle_small_s)),
    Ablation(term="CPU per message", measured=without_message_work),
    Ablation(term="CPU of a header", measured=lambda m: replace(m, concurrent_header_s=m.concurrent_small_s)),
    Ablation(term="delivery lag", measured=lambda m: replace(m, idle_large_s=m.idle_small_s)),
    Ablation(term="calls", measured=lambda m: replace(m, merge_s=0.0)),
    Ablation(term="shared cores", own_cores=True),
)


def together(ablations: Sequence[Ablation], term: str) -> Ablation:
    """Return an ablation that leaves out several terms at once."""

    def measured(m: P2PMeasurements) -> P2PMeasurements:
        return functools.reduce(lambda changed, ablation: ablation.measured(changed), ablations, m)

    return Ablation(
        term=term,
        wire={name: value for ablation in ablations for name, value in ablation.wire.items()},
        measured=measured,
        terms={name: value for ablation in ablations for name, value in ablation.terms.items()},
        own_cores=any(ablation.own_cores for ablation in ablations),
    )


@dataclass(frozen=True)
class AblatedModel(ClusterModel):
    """A cluster's model without a term."""

    ablation: Ablation = FULL

    @classmethod
    def of(cls, record: Mapping[str, Any], ablation: Ablation) -> AblatedModel:
        """Return the model of the cluster that a record was measured on."""
        full = model_of(Cluster(**record["cluster"]), None if ablation.own_cores else record["cores"])
        return cls(full.fabric, replace(full.wire, **ablation.wire), full.bandwidth_bps, full.cores, None, ablation)

    def predicted(
        self, cell: Cell, measured: P2PMeasurements, compute_s: Mapping[str, float]
    ) -> tuple[list[float], str | None]:
        """Predict a cell, from measurements as they would be without the term."""
        return super().predicted(cell, self.ablation.measured(measured), compute_s)

    def terms(self, measured: P2PMeasurements) -> HostTerms:
        """Return the terms of the hosts, without the one that is left out."""
        return replace(super().terms(measured), **self.ablation.terms)


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of predictions where the model is believed, by exchange; and of smaller messages."""

    by_exchange: Mapping[str, Sequence[float]]
    small: Sequence[float]

    @property
    def believed(self) -> list[float]:
        """The errors of all exchanges where the model is believed."""
        return [error for errors in self.by_exchange.values() for error in errors]


def records_of(run: Path) -> list[dict[str, Any]]:
    """Return the records of a run whose links carry less than BELIEVED_BPS in all, on one switch and fairly shaped."""
    records = [record for file in sorted(run.glob("*/points/*.json")) if (record := stored_record(file)) is not None]
    if not records:
        sys.exit(f"{run}: no measurements; python benchmarks/validation.py {run} PIECE... makes some")
    if any("cell" not in measured for record in records for measured in record["cells"]):
        sys.exit(f"{run}: its records do not describe their cells, since an earlier version wrote them; measure again")
    clusters = [(record, Cluster(**record["cluster"])) for record in records]
    return [
        record
        for record, cluster in clusters
        if cluster.ranks * cluster.bandwidth_bps < BELIEVED_BPS
        and cluster.trunk_bps is None
        and cluster.shaping == "fair"
    ]


def errors_of(run: Path, ablation: Ablation) -> Errors:
    """Predict a run without a term, and return the errors of its exchanges."""
    by_exchange: defaultdict[str, list[float]] = defaultdict(list)
    small: list[float] = []
    for record in records_of(run):
        cells = [Cell(**measured["cell"]) for measured in record["cells"]]
        chosen = [index for index, cell in enumerate(cells) if cell.kind == "exchange"]
        some = record | {"cells": [record["cells"][index] for index in chosen]}
        for row in compare([cells[index] for index in chosen], some, AblatedModel.of(record, ablation), 1.0):
            (by_exchange[f"{row.title}, {row.sends}"] if row.bytes >= BELIEVED_BYTES else small).append(row.error)
    return Errors(dict(by_exchange), small)


def error_of_index(place: tuple[Path, int]) -> Errors:
    """Return :func:`errors_of` for a run and an index of ABLATIONS; -1 is the full model."""
    run, index = place
    return errors_of(run, FULL if index < 0 else ABLATIONS[index])


def median(errors: Sequence[float]) -> float:
    """Return the median of |error|, nan if there is none."""
    return summary(errors)[0] if errors else math.nan


def pooled(errors: Sequence[Errors]) -> Errors:
    """Return the errors of several runs as those of one."""
    exchanges = errors[0].by_exchange
    return Errors(
        {name: [error for run in errors for error in run.by_exchange.get(name, ())] for name in exchanges},
        [error for run in errors for error in run.small],
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the full model's median |error| differs between runs: of all exchanges, and of each."""

    of_all: float
    by_exchange: Mapping[str, float]

    @classmethod
    def of(cls, runs: Sequence[Errors]) -> Spread:
        """Return the spread of several runs; infinite for a single one, by which nothing can be told."""

        def spread(medians: Sequence[float]) -> float:
            return max(medians) - min(medians) if len(medians) > 1 else math.inf

        by_exchange = {
            name: spread([median(run.by_exchange.get(name, ())) for run in runs]) for name in runs[0].by_exchange
        }
        return cls(spread([median(run.believed) for run in runs]), by_exchange)


def verdict(full: Errors, without: Errors, spread: Spread) -> str:
    """Return whether a term stays, and for the sake of which exchange if not of all."""
    if math.isinf(spread.of_all):
        return "one run"
    if median(without.believed) - median(full.believed) > spread.of_all:
        return "stays"
    worse = {
        name: median(without.by_exchange[name]) - median(errors) - max(spread.of_all, spread.by_exchange[name])
        for name, errors in full.by_exchange.items()
    }
    name = max(worse, key=lambda name: worse[name])
    return f"stays for {name}" if worse[name] > 0 else "goes"


def row(ablation: Ablation, full: Errors, without: Errors, decision: str) -> str:
    """Return a row of the table."""
    exchanges = {name: (median(errors), median(without.by_exchange[name])) for name, errors in full.by_exchange.items()}
    most = max(exchanges, key=lambda name: exchanges[name][1] - exchanges[name][0])
    before, after = exchanges[most]
    figures = [
        f"{median(full.believed):.2%} → {median(without.believed):.2%}",
        f"{summary(full.believed)[1]:.1%} → {summary(without.believed)[1]:.1%}",
        f"{most}: {before:.2%} → {after:.2%}",
        f"{median(full.small):.1%} → {median(without.small):.1%}",
    ]
    return f"| {' | '.join([ablation.term, *figures, decision])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--only", help="terms with commas, as the table names them")
    parser.add_argument("--jobs", type=int, help="processes; as many as there are cores if left out")
    asked = parser.parse_args()
    names = None if asked.only is None else asked.only.split(",")
    indices = [index for index, ablation in enumerate(ABLATIONS) if names is None or ablation.term in names]
    places = [(run, index) for index in [-1, *indices] for run in asked.runs]
    with Pool(asked.jobs) as pool:
        found = iter(pool.map(error_of_index, places, chunksize=1))
    by_index = {index: [next(found) for _ in asked.runs] for index in [-1, *indices]}
    runs, full = by_index[-1], pooled(by_index[-1])
    spread = Spread.of(runs)
    medians = ", ".join(f"{median(run.believed):.2%}" for run in runs)
    print(f"{len(full.believed)} exchanges; median |error| with all terms, of each run: {medians}\n")
    print("| term | median \\|error\\| | worst | most in one exchange | below 100 kB | |")
    print("|---|---|---|---|---|---|")
    going = []
    for index in indices:
        without = pooled(by_index[index])
        decision = verdict(full, without, spread)
        going += [ABLATIONS[index]] if decision == "goes" else []
        print(row(ABLATIONS[index], full, without, decision))
    if len(going) > 1:
        without = pooled([errors_of(run, together(going, "all that go")) for run in asked.runs])
        print(row(together(going, "all that go"), full, without, verdict(full, without, spread)))


if __name__ == "__main__":
    main()
