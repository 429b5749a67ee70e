"""What ranks of a job can be asked to do, by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from netsim.experiment import Experiment
from netsim.jobs.job import OnRound, Work
from netsim.jobs.real import run_rank
from netsim.validation.cells import measured


def train(details: dict[str, Any], rank: int, on_round: OnRound) -> Iterator[dict[str, Any]]:
    """Run all algorithms of an experiment, and give the result of each when it has ended."""
    experiment = Experiment.from_config(details["experiment"])
    launched_with, first = details.get("launched_with"), details.get("first", 0)
    return map(asdict, run_rank(experiment, details["backend"], rank, on_round, launched_with, first))


def validate(details: dict[str, Any], rank: int, on_round: OnRound) -> list[dict[str, Any]]:
    """Measure point-to-point messages, then every cell: exchanges and rounds of training."""
    return measured(details["cells"], details["large_bytes"], details["backend"], rank, on_round)


def calibrate(details: dict[str, Any], rank: int, on_round: OnRound) -> list[dict[str, Any]]:
    """Measure messages between ranks 0 and 1, and work on rank 0."""
    from netsim.calibration.run import measure

    return measure(details, rank, on_round)


WORKS: dict[str, Work] = {"train": train, "validate": validate, "calibrate": calibrate}
