"""What a run found out: one result an algorithm, and the report that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from netsim.costs import Provenance
from netsim.errors import ReplicasDivergedError
from netsim.traffic import Traffic

if TYPE_CHECKING:
    import pandas as pd

    from netsim.payload import Dense

SCHEMA = "netsim.report/1"
Mode = Literal["simulated", "real"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a round's seconds went, along the longest chain of events; the parts sum to the round.

    `compute_s` is gradients and updates, `select_s` selections and merges, `comm_s` communication
    that no computation hid.
    """

    round_s: float
    compute_s: float
    select_s: float
    comm_s: float
    bound_by: str


@dataclass(frozen=True, slots=True)
class RankOutcome:
    """What one rank did."""

    rank: int
    traffic: Traffic
    parameters_sha256: str | None
    tally: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One algorithm's figures. Times are seconds of an average round; bytes are those of an average
    worker and round (a parameter server's own are not a worker's). Also read as ``result["key"]``.
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
    bytes_sent_by_rank: list[int] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        if key not in {each.name for each in fields(self)}:
            raise KeyError(key)
        return getattr(self, key)


def summarise(
    *,
    ranks: Sequence[RankOutcome],
    server: int | None,
    timing: Timing,
    rounds: int,
    **others: Any,
) -> Result:
    """Return the result of an algorithm from what its ranks did; `server` is the rank that served, if any.

    Raises ReplicasDivergedError unless all ranks end with the same parameters.
    """
    hashes = {outcome.parameters_sha256 for outcome in ranks}
    if len(hashes) != 1:
        first = next(outcome for outcome in ranks if outcome.parameters_sha256 != ranks[0].parameters_sha256)
        raise ReplicasDivergedError(f"rank {first.rank} ended with other parameters than rank 0: a replica diverged")
    uploading = [outcome.traffic for outcome in ranks if outcome.rank != server]
    share = rounds * max(1, len(uploading))
    if server is None:
        uploads = rounds * len(ranks)
        value_bits, index_bits = (
            8 * sum(getattr(each, up) for each in uploading) for up in ("value_bytes_up", "index_bytes_up")
        )
    else:
        # A worker on the server's own host uploads, too, though over no link.
        uploads, value_bits, index_bits = (
            sum(outcome.tally.get(what, 0) for outcome in ranks) for what in ("uploads", "value_bits", "index_bits")
        )
    return Result(
        rounds=rounds,
        round_time_s=timing.round_s,
        compute_time_s=timing.compute_s,
        select_time_s=timing.select_s,
        comm_time_s=timing.comm_s,
        bound_by=timing.bound_by,
        value_bytes_up=sum(traffic.value_bytes_up for traffic in uploading) / share,
        index_bytes_up=sum(traffic.index_bytes_up for traffic in uploading) / share,
        bytes_down=sum(traffic.bytes_down for traffic in uploading) / share,
        uploads=uploads,
        value_bits_up=value_bits,
        index_bits_up=index_bits,
        stored_value_bytes=max(outcome.tally.get("stored_value_bytes", 0) for outcome in ranks),
        bits_down=8 * sum(traffic.bytes_down for traffic in uploading),
        scaling_efficiency=timing.compute_s / timing.round_s if timing.compute_s else None,
        parameters_sha256=ranks[0].parameters_sha256,
        bytes_sent_by_rank=[outcome.traffic.bytes_up for outcome in ranks],
        **others,
    )


def sha256_of(parameters: Dense) -> str:
    """Return the SHA-256 of the parameters' bytes, little-endian."""
    values = parameters.values.detach().cpu().contiguous().numpy()
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one experiment, and what they say."""

    config: Mapping[str, Any]
    results: list[Result]
    conclusion: list[str] = field(default_factory=list)
    environment: Mapping[str, Any] = field(default_factory=dict)
    effects: Mapping[str, str] = field(default_factory=dict)
    """What was simulated beyond an ideal network, in words, by option."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as documented in the README, in SI units."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "environment": dict(self.environment),
            "effects": dict(self.effects),
            "results": [asdict(result) for result in self.results],
            "conclusion": list(self.conclusion),
        }

    def to_json(self) -> str:
        """Return one JSON document."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row an algorithm and the JSON's keys as columns."""
        import pandas as pd

        return pd.DataFrame([asdict(result) for result in self.results])
