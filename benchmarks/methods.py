"""Timing-only runs of every registered method in one process: processor seconds of each, and of all.

    python benchmarks/methods.py
    python benchmarks/methods.py --workers 65536

A method with local steps runs the rounds of one whole exchange. A run whose estimate exceeds `--longest` seconds is
left out. The anchor is a fixed loop of Python and NumPy, timed after each method: ratios to it compare machines.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from datetime import date

import numpy as np

from algorithms import ALGORITHMS
from netsim._util.errors import NetsimError
from netsim.experiment.configuration import Experiment
from netsim.simulator.estimates import check_experiment, estimate
from netsim.simulator.opening import open_session


def anchor_s() -> float:
    """Return the processor seconds of a fixed piece of work, about as much in the interpreter as in NumPy."""
    began = time.process_time()
    numbers = np.arange(1 << 15)
    for step in range(300):
        np.add.at(numbers, numbers % 1024, step)
        sum(divmod(each, 7)[1] for each in range(2_000))
    return time.process_time() - began


def measure(name: str, workers: int, elements: int, longest: float) -> tuple[float, str, str]:
    """Return the processor seconds of a run, the method inside the engine, and the simulated seconds or the refusal."""
    began = time.process_time()
    experiment = Experiment(workers=workers, elements=elements, algorithms=(name,), timing_only=True)
    try:
        check_experiment(experiment)
        if (expected := estimate(experiment, name)).seconds > longest:
            spent = time.process_time() - began
            return spent, "left out", f"{expected.in_words()}, about {expected.seconds:.0f} s"
        with open_session(experiment) as session:
            result = session.simulate(name)
    except NetsimError as error:
        return time.process_time() - began, "refused", str(error)
    why = "" if result.way_reason is None else f" ({result.way_reason})"
    return time.process_time() - began, result.way or "", f"{result.round_time_s:.6g} s{why}"


def main() -> None:
    """Print a row for each method, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1024)
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--algorithm", default=",".join(ALGORITHMS), help="methods, with commas between them")
    parser.add_argument("--longest", type=float, default=60.0, help="longest estimate, in seconds, that is run")
    options = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, Python {platform.python_version()}, processor seconds")
    print(f"{options.workers:,} workers, {options.elements:,} elements\n")
    print(f"{'method':20}{'CPU':>9}{'anchors':>9}   {'played as':13}simulated time of a round")
    spent, anchors = [], []
    for name in options.algorithm.split(","):
        seconds, way, outcome = measure(name, options.workers, options.elements, options.longest)
        spent.append(seconds)
        anchors.append(anchor_s())
        print(f"{name:20}{seconds:7.2f} s{seconds / anchors[-1]:9.1f}   {way:13}{outcome}", flush=True)
    anchor = statistics.median(anchors)
    print(f"{'all':20}{sum(spent):7.2f} s{sum(spent) / anchor:9.1f}   the anchor takes {anchor:.3f} s")


if __name__ == "__main__":
    main()
