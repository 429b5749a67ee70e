"""What is measured in one cluster, cell by cell, and what ranks and model make of a cell."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsim._util.progress import OnRound
from netsim.cluster.framing import Wire
from netsim.comm.worker import Sends
from netsim.network.fabric import Fabric
from netsim.testbed.exchanges import EXCHANGES
from netsim.testbed.host_model import HostTerms

if TYPE_CHECKING:
    from netsim.testbed.simultaneous_start import SimultaneousStart

BESIDE_S = 6.0
"""After so long, and the cell that is being measured, points are measured anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An exchange of vectors of so many bytes, or rounds of an algorithm's training (`experiment`), and how it sends.

    `experiment` is an :meth:`netsim.experiment.configuration.Experiment.config` with one algorithm.
    """

    name: str
    bytes: int
    sends: Sends
    repeats: int
    experiment: Mapping[str, Any] | None = None

    @property
    def kind(self) -> str:
        return "exchange" if self.experiment is None else "round"

    @property
    def is_flows(self) -> bool:
        """Whether each rank's time is compared by itself."""
        return self.experiment is None and EXCHANGES[self.name].source is not None

    def flow(self, rank: int, ranks: int) -> str:
        """Return in words which flow a rank receives."""
        source = EXCHANGES[self.name].source
        assert source is not None
        return f"flow {source(rank, ranks)}→{rank} of a {self.title}"

    @property
    def title(self) -> str:
        if self.experiment is None:
            return EXCHANGES[self.name].title
        from algorithms import ALGORITHMS

        return f"a round of {ALGORITHMS[self.name].title}"


def measure_as_rank(details: Mapping[str, Any], rank: int, on_repeat: OnRound) -> list[dict[str, Any]]:
    """Measure point-to-point messages, then every cell: the task of one rank of `netsim validate`."""
    return measured(details["cells"], details["large_bytes"], details["backend"], rank, on_repeat)


def measured(
    cells: Sequence[Mapping[str, Any]], large_bytes: int, backend: str, rank: int, on_repeat: OnRound
) -> list[dict[str, Any]]:
    """Return, on rank 0, what points cost (:func:`netsim.testbed.p2p_measurements.points`), and the cells' times.

    Points are measured before the first cell, after the last, and between cells at least every BESIDE_S. All of them
    are medians, but what processors do changes within seconds: of that each cell has, as its `points`, the mean of the
    last before it and the first after it.
    """
    from netsim._util.device import one_thread_each
    from netsim.testbed.p2p_measurements import points
    from netsim.testbed.simultaneous_start import SimultaneousStart, before_others

    with one_thread_each():
        first = before_others()
        start = SimultaneousStart(backend)
        rounds, since = [points(rank, start, large_bytes, warm_up=True)], time.monotonic()
        found: list[dict[str, Any]] = []
        waiting: list[dict[str, Any]] = []
        for number, given in enumerate(cells):

            def told(repeat: int, number: int = number) -> None:
                if rank == 0:
                    on_repeat(str(number), repeat + 1)

            waiting.append(_measured_cell(Cell(**given), rank, start, told))
            if start.first_says(number + 1 == len(cells) or time.monotonic() - since > BESIDE_S):
                rounds.append(points(rank, start, large_bytes))
                beside = of_all(statistics.fmean, [_of_processors(each) for each in rounds[-2:]])
                found += [one | {"points": beside} for one in waiting]
                waiting, since = [], time.monotonic()
    everything = of_all(statistics.median, rounds) | {"before_others": first, "rounds": len(rounds)}
    return [everything, *found] if rank == 0 else []


def _measured_cell(cell: Cell, rank: int, start: SimultaneousStart, on_repeat: Callable[[int], None]) -> dict[str, Any]:
    from netsim.experiment.configuration import Experiment
    from netsim.testbed.measured_exchanges import measured_exchange
    from netsim.testbed.training_rounds import measured_rounds

    if cell.experiment is not None:
        experiment = Experiment.from_config(cell.experiment)
        return measured_rounds(experiment, cell.sends, rank, cell.repeats, start, on_repeat)
    seconds, busy = measured_exchange(cell.name, cell.bytes, cell.sends, rank, cell.repeats, start, on_repeat)
    by_rank = list(zip(*seconds, strict=True))
    return {"times": list(map(max, seconds)), "by_rank": by_rank, "processors_busy": busy}


def _of_processors(points: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of points is how fast processors are."""
    return {name: value for name, value in points.items() if name.startswith(("crowd_", "merge_"))}


def of_all(mean: Callable[[list[float]], float], rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of points that were measured several times; None, where a machine has no such count, is left out.

    What is the same in all rounds, such as how many ranks there are, stays what it is.
    """
    found: dict[str, Any] = {}
    for name in rounds[0]:
        known = [each[name] for each in rounds if each[name] is not None]
        found[name] = (known[0] if len(set(known)) == 1 else mean(known)) if known else None
    return found


def predicted(
    cell: Cell, fabric: Fabric, wire: Wire, terms: HostTerms, merge_s_per_byte: float, local: Mapping[str, float]
) -> tuple[list[float], str | None]:
    """Return the seconds that the model gives each rank (one for training), and the parameters' SHA-256 of training.

    `local` is what computations of a round were measured to cost ranks that only computed.
    """
    from netsim.experiment.configuration import Experiment
    from netsim.testbed.predict import predicted_exchange
    from netsim.testbed.training_rounds import predicted_rounds

    if cell.experiment is None:
        return predicted_exchange(cell.name, cell.bytes, cell.sends, fabric, wire, terms, merge_s_per_byte), None
    seconds, sha256 = predicted_rounds(Experiment.from_config(cell.experiment), fabric, wire, terms, cell.sends, local)
    return [seconds], sha256
