"""A pipelined ring by both engines: how many times faster the vectorised engine is than the event engine.

    python benchmarks/pipelined.py

Processor time of simulating one round, and the smallest of several runs, which take turns.
"""

from __future__ import annotations

import platform
import time
from datetime import date

from netsim.experiment.configuration import Experiment
from netsim.simulator.opening import open_session

REPEATS = 5
WORKERS = (8, 64)
RING = {"algorithm": "dense:segment=auto", "model": "resnet50", "timing_only": True}
TEXTBOOK = RING | {"algorithm": "dense:segment=none"}


def processor_s(**options: object) -> float:
    """Return the processor time of one simulation in seconds."""
    with open_session(Experiment.of(**options)) as session:
        began = time.process_time()
        session.simulate(session.experiment.algorithms[0])
        return time.process_time() - began


def main() -> None:
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, least of {REPEATS}")
    print(f"{'workers':>8}{'event':>11}{'vectorised':>13}{'ratio':>8}   textbook's ring, vectorised")
    for workers in WORKERS:
        runs = [
            (
                processor_s(workers=workers, engine="event", **RING),
                processor_s(workers=workers, engine="vectorized", **RING),
                processor_s(workers=workers, engine="vectorized", **TEXTBOOK),
            )
            for _ in range(REPEATS)
        ]
        event, vectorised, textbook = (min(column) for column in zip(*runs, strict=True))
        print(f"{workers:8}{event:9.3f} s{vectorised:11.4f} s{event / vectorised:8.1f}{textbook:13.4f} s", flush=True)


if __name__ == "__main__":
    main()
