"""The cells of a validation, each an exchange or an algorithm's rounds, and their measurement on one rank."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsim._util.progress import OnRound
from netsim.comm.worker import EARLIER_SENDS, Sends
from netsim.testbed.exchanges import EXCHANGES

if TYPE_CHECKING:
    from netsim.testbed.simultaneous_start import SimultaneousStart

TASK = f"{__name__}:measure_as_rank"
"""The task of ranks that are measured, as :func:`netsim.distributed.job.task_of` takes it."""
REMEASURE_AFTER_S = 6.0
"""Seconds after which, at the end of a cell, point-to-point messages are measured again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """An exchange, or rounds of training with one algorithm, which are measured and predicted.

    Parameters
    ----------
    name
        Name of the exchange or algorithm.
    bytes
        Size of the vector of each rank, in bytes of values and indices.
    sends
        When a send is done: ``eager`` or ``rendezvous``.
    repeats
        Number of measurements.
    experiment
        An :meth:`netsim.experiment.configuration.Experiment.config` with one algorithm; None for an exchange.
    """

    name: str
    bytes: int
    sends: Sends
    repeats: int
    experiment: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sends", EARLIER_SENDS.get(self.sends, self.sends))

    @property
    def kind(self) -> str:
        """``exchange`` or ``round``."""
        return "exchange" if self.experiment is None else "round"

    @property
    def is_flows(self) -> bool:
        """Whether each rank's time is compared by itself."""
        return self.experiment is None and EXCHANGES[self.name].source is not None

    def flow(self, rank: int, ranks: int) -> str:
        """Return in words the flow that a rank receives."""
        source = EXCHANGES[self.name].source
        assert source is not None
        return f"flow {source(rank, ranks)}→{rank} of a {self.title}"

    @property
    def title(self) -> str:
        """Name in words."""
        if self.experiment is None:
            return EXCHANGES[self.name].title
        from algorithms import title_of

        return f"a round of {title_of(self.name)}"


def measure_as_rank(details: Mapping[str, Any], rank: int, on_repeat: OnRound) -> list[dict[str, Any]]:
    """Measure point-to-point messages and all cells: the task of a rank of ``netsim validate``.

    Returns
    -------
    list of dict
        On rank 0 the point-to-point measurements of the whole run, then a record for each cell; elsewhere nothing.
    """
    from netsim._util.system import one_thread_each
    from netsim.testbed.simultaneous_start import SimultaneousStart, raise_priority

    cells = [Cell(**given) for given in details["cells"]]
    with one_thread_each():
        prioritised = raise_priority()
        start = SimultaneousStart(details["backend"])
        whole_run, records = _measured(cells, details["large_bytes"], rank, start, on_repeat)
    return [whole_run | {"before_others": prioritised}, *records] if rank == 0 else []


def _measured(
    cells: Sequence[Cell], large_bytes: int, rank: int, start: SimultaneousStart, on_repeat: OnRound
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the point-to-point measurements of the whole run, and the records of all cells.

    Point-to-point messages are measured before the first cell, after the last, and between cells at least every
    REMEASURE_AFTER_S. The whole run's are medians. CPU speed changes within seconds, so each cell's record has the mean
    of the last measurement before the cell and the first after it.
    """
    from netsim.testbed.p2p_measurements import averaged, measure_p2p

    p2p, measured_at = [measure_p2p(rank, start, large_bytes, warm_up=True)], time.monotonic()
    records: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = []
    for index, cell in enumerate(cells):

        def repeated(repeat: int, index: int = index) -> None:
            if rank == 0:
                on_repeat(str(index), repeat + 1)

        pending.append(_measured_cell(cell, rank, start, repeated))
        last = index + 1 == len(cells)
        if start.broadcast(last or time.monotonic() - measured_at > REMEASURE_AFTER_S):
            p2p.append(measure_p2p(rank, start, large_bytes))
            beside = averaged(statistics.fmean, p2p[-2:]).cpu_speed_json()
            records += [record | {"points": beside} for record in pending]
            pending, measured_at = [], time.monotonic()
    return averaged(statistics.median, p2p).as_json() | {"rounds": len(p2p)}, records


def _measured_cell(cell: Cell, rank: int, start: SimultaneousStart, on_repeat: Callable[[int], None]) -> dict[str, Any]:
    from netsim._util.device import exact_arithmetic
    from netsim.experiment.configuration import Experiment
    from netsim.testbed.measured_exchanges import measured_exchange
    from netsim.testbed.training_rounds import measured_rounds

    if cell.experiment is not None:
        experiment = Experiment.from_config(cell.experiment)
        with exact_arithmetic(start.device, experiment.tf32):
            return measured_rounds(experiment, cell.sends, rank, cell.repeats, start, on_repeat)
    seconds, busy = measured_exchange(cell.name, cell.bytes, cell.sends, rank, cell.repeats, start, on_repeat)
    by_rank = list(zip(*seconds, strict=True))
    return {"times": list(map(max, seconds)), "by_rank": by_rank, "processors_busy": busy}
