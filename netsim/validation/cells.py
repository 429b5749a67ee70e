"""What is measured in one cluster, cell by cell, and what ranks and model make of a cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netsim.backends.kernel import HostTerms
from netsim.network.fabric import Fabric
from netsim.network.wire import Wire
from netsim.validation.exchanges import EXCHANGES
from netsim.worker import Sends

OnRound = Callable[[str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An exchange of vectors of so many bytes, or rounds of an algorithm's training (`experiment`), and how it sends.

    `experiment` is an :meth:`netsim.experiment.Experiment.config` with one algorithm.
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


def measured(
    cells: Sequence[Mapping[str, Any]], large_bytes: int, backend: str, rank: int, on_repeat: OnRound
) -> list[dict[str, Any]]:
    """Return, on rank 0, what points cost (:func:`netsim.validation.measure.points`), and the times of each cell."""
    from netsim.device import one_thread_each
    from netsim.experiment import Experiment
    from netsim.validation.measure import Start, before_others, measured_exchange, points
    from netsim.validation.rounds import measured_rounds

    with one_thread_each():
        first = before_others()
        start = Start(backend)
        found: list[dict[str, Any]] = [points(rank, start, large_bytes) | {"before_others": first}]
        for number, given in enumerate(cells):
            cell = Cell(**given)

            def told(repeat: int, number: int = number) -> None:
                if rank == 0:
                    on_repeat(str(number), repeat + 1)

            if cell.experiment is None:
                seconds, busy = measured_exchange(cell.name, cell.bytes, cell.sends, rank, cell.repeats, start, told)
                by_rank = list(zip(*seconds, strict=True))
                found.append({"times": list(map(max, seconds)), "by_rank": by_rank, "processors_busy": busy})
            else:
                experiment = Experiment.from_config(cell.experiment)
                found.append(measured_rounds(experiment, cell.sends, rank, cell.repeats, start, told))
    return found if rank == 0 else []


def predicted(
    cell: Cell, fabric: Fabric, wire: Wire, terms: HostTerms, merge_s_per_byte: float, local: Mapping[str, float]
) -> tuple[list[float], str | None]:
    """Return the seconds that the model gives each rank (one for training), and the parameters' SHA-256 of training.

    `local` is what computations of a round were measured to cost ranks that only computed.
    """
    from netsim.experiment import Experiment
    from netsim.validation.predict import predicted_exchange
    from netsim.validation.rounds import predicted_rounds

    if cell.experiment is None:
        return predicted_exchange(cell.name, cell.bytes, cell.sends, fabric, wire, terms, merge_s_per_byte), None
    seconds, sha256 = predicted_rounds(Experiment.from_config(cell.experiment), fabric, wire, terms, cell.sends, local)
    return [seconds], sha256
