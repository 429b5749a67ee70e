"""The results of a run: one :class:`Result` per algorithm."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim._util.errors import ReplicasDivergedError
from netsim.comm.payload import Precision
from netsim.comm.worker import Traffic
from netsim.training.costs import Provenance

if TYPE_CHECKING:
    from netsim.comm.payload import Dense

Mode = Literal["simulated", "real"]
EngineMethod = Literal["messages", "compiled", "batched", "memoised", "closed-form"]
"""How the simulator computed a time.

- ``messages``: message by message, in coroutines
- ``compiled``: message by message, in compiled code
- ``batched``: round by round, all ranks of a round at once
- ``memoised``: one of the above, where each kind of repeated step is simulated once
- ``closed-form``: by the formulas of the literature
"""


@dataclass(frozen=True, slots=True)
class Timing:
    """The parts of a round's time along its critical path, in seconds: round = compute + select + comm.

    Attributes
    ----------
    compute_s
        Gradients and updates.
    select_s
        Selections and merges.
    comm_s
        Exposed communication: communication that no computation hides.
    bound_by
        The bottleneck: the part, or the links, on which the critical path spends most time.
    hidden_s
        Communication hidden behind computation; not part of the sum.
    """

    round_s: float
    compute_s: float
    select_s: float
    comm_s: float
    bound_by: str
    hidden_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RankOutcome:
    """The outcome of one rank: its traffic, the hash of its final parameters, and its counters by name."""

    rank: int
    traffic: Traffic
    parameters_sha256: str | None
    tally: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one algorithm; ``result["key"]`` reads an attribute as well.

    Attributes
    ----------
    algorithm, title
        The name on the command line, and the name in tables.
    mode
        "simulated" or "real".
    workers, elements, k, rounds
        Number of workers P, of gradient elements d, of selected entries k (None if dense), and of rounds.
    round_time_s, compute_time_s, select_time_s, comm_time_s
        Mean seconds of a round and of its parts; `comm_time_s` is exposed communication.
    hidden_comm_time_s
        Mean seconds of communication per round that computation hides.
    compute_provenance, select_provenance
        Whether these times were measured or assumed.
    value_bytes_up, index_bytes_up, bytes_down
        Bytes that a worker sends (values, indices) and receives in a round, averaged over workers and rounds. A
        parameter server does not count as a worker.
    uploads, value_bits_up, index_bits_up, bits_down
        Uploads, and bits sent and received, of all workers in the whole run.
    stored_value_bytes
        Bytes of values that a server stores for its workers between rounds.
    scaling_efficiency
        Compute time divided by round time; None without compute time.
    final_loss, final_accuracy
        Training loss in nats and test accuracy in [0, 1] after the last round; None without data.
    parameters_sha256
        Hash of the final parameters, which all ranks share; None without data.
    bound_by
        The bottleneck of the round.
    way, way_reason
        How the times were computed, and why no faster way was possible; None for a real run.
    bytes_sent_by_rank
        Bytes that each rank sent in the whole run.
    buckets
        `elements`, `k`, `ready` and `server` of each bucket, last layers first; None without buckets.
    ready_provenance
        Source of the times at which buckets are ready.
    momentum
        "sum" if momentum applies to the summed update, "workers" if to each worker's vector before selection, or None.
    dtype
        The type of the values in messages: "fp32", "bf16" or "fp16".
    """

    algorithm: str
    title: str
    mode: Mode
    workers: int
    elements: int
    k: int | None
    rounds: int
    round_time_s: float
    compute_time_s: float
    select_time_s: float
    comm_time_s: float
    compute_provenance: Provenance
    select_provenance: Provenance
    value_bytes_up: float
    index_bytes_up: float
    bytes_down: float
    uploads: int
    value_bits_up: int
    index_bits_up: int
    bits_down: int
    stored_value_bytes: int
    scaling_efficiency: float | None
    final_loss: float | None
    final_accuracy: float | None
    parameters_sha256: str | None
    bound_by: str
    way: EngineMethod | None = None
    way_reason: str | None = None
    bytes_sent_by_rank: list[int] = field(default_factory=list)
    hidden_comm_time_s: float = 0.0
    buckets: list[dict[str, Any]] | None = None
    ready_provenance: Provenance | None = None
    momentum: str | None = None
    dtype: Precision = "fp32"

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}

    @property
    def paper_accounting(self) -> dict[str, int]:
        """The columns of Table II of the SASG paper: "rounds" counts uploads, "bits" the bits of uploaded values."""
        return {"rounds": self.uploads, "bits": self.value_bits_up}

    def __getitem__(self, key: str) -> Any:
        if key not in {attribute.name for attribute in fields(self)}:
            raise KeyError(key)
        return getattr(self, key)


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The training loss of an algorithm during its run.

    Attributes
    ----------
    losses
        Pairs of finished rounds and the training loss in nats, on the same samples for all algorithms. The first pair
        is that of the start, with 0 rounds; the last one that of the end.
    ends_s
        The simulated seconds at which the last rank has ended each round.
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)

    def clear(self) -> None:
        """Forget a run that begins again."""
        self.losses.clear()
        self.ends_s.clear()

    def round_ended(self, step: int, seconds: float) -> None:
        """Note when a rank ended a step; the last rank to do so counts."""
        self.ends_s[step : step + 1] = [seconds]


class LossTimes(NamedTuple):
    """A training loss in nats that all algorithms reach, and the seconds of each until it first did, by algorithm."""

    loss: float
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """The outcomes of all ranks: arrays of bytes, shape (ranks,), and counters summed over ranks."""

    value_bytes_up: npt.NDArray[np.int64]
    index_bytes_up: npt.NDArray[np.int64]
    bytes_up: npt.NDArray[np.int64]
    bytes_down: npt.NDArray[np.int64]
    tally: Mapping[str, int]
    stored_value_bytes: int = 0
    parameters_sha256: str | None = None

    @classmethod
    def of(cls, outcomes: Sequence[RankOutcome]) -> Ranks:
        """Combine the outcomes of single ranks.

        Raises
        ------
        ReplicasDivergedError
            If ranks ended with different parameters.
        """
        for outcome in outcomes:
            if outcome.parameters_sha256 not in (None, outcomes[0].parameters_sha256):
                raise ReplicasDivergedError(
                    f"rank {outcome.rank} ended with other parameters than rank 0: a replica diverged"
                )
        tally: Counter[str] = Counter()
        for outcome in outcomes:
            tally.update(outcome.tally)
        values, indices, up, down = (
            np.array([getattr(outcome.traffic, name) for outcome in outcomes], np.int64)
            for name in ("value_bytes_up", "index_bytes_up", "bytes_up", "bytes_down")
        )
        stored = max(outcome.tally.get("stored_value_bytes", 0) for outcome in outcomes)
        return cls(values, indices, up, down, tally, stored, outcomes[0].parameters_sha256)


def summarise(
    *,
    ranks: Ranks,
    server: int | None,
    timing: Timing,
    rounds: int,
    **others: Any,
) -> Result:
    """Return the result of an algorithm.

    Parameters
    ----------
    ranks
        The outcomes of all ranks.
    server
        The rank that served, or None for an algorithm without a server.
    timing
        The time of an average round.
    rounds
        The number of rounds.
    **others
        The remaining attributes of :class:`Result`.
    """
    rank = np.arange(len(ranks.bytes_up))
    uploading = (rank < others["workers"]) & (rank != (-1 if server is None else server))
    value_up, index_up, down = (
        int(column[uploading].sum()) for column in (ranks.value_bytes_up, ranks.index_bytes_up, ranks.bytes_down)
    )
    share = rounds * max(1, int(uploading.sum()))
    if server is None:
        # Every rank sends in every round, unless ranks count the rounds in which they do.
        uploads = ranks.tally.get("uploads", rounds * len(uploading))
        value_bits, index_bits = 8 * value_up, 8 * index_up
    else:
        # A worker on the server's host also uploads, though over no link, so uploads are counted, not bytes on links.
        uploads, value_bits, index_bits = (ranks.tally.get(name, 0) for name in ("uploads", "value_bits", "index_bits"))
    return Result(
        rounds=rounds,
        round_time_s=timing.round_s,
        compute_time_s=timing.compute_s,
        select_time_s=timing.select_s,
        comm_time_s=timing.comm_s,
        bound_by=timing.bound_by,
        hidden_comm_time_s=timing.hidden_s,
        value_bytes_up=value_up / share,
        index_bytes_up=index_up / share,
        bytes_down=down / share,
        uploads=uploads,
        value_bits_up=value_bits,
        index_bits_up=index_bits,
        stored_value_bytes=ranks.stored_value_bytes,
        bits_down=8 * down,
        scaling_efficiency=timing.compute_s / timing.round_s if timing.compute_s else None,
        parameters_sha256=ranks.parameters_sha256,
        bytes_sent_by_rank=ranks.bytes_up.tolist(),
        **others,
    )


def sha256_of(parameters: Dense) -> str:
    """Return the SHA-256 of the parameters as little-endian bytes."""
    values = parameters.values.detach().cpu().contiguous().numpy()
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()
