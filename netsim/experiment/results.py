"""What a run found out: one result an algorithm, and the report that holds them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from netsim._util.errors import ReplicasDivergedError
from netsim.comm.traffic import Traffic
from netsim.training.costs import Provenance

if TYPE_CHECKING:
    import pandas as pd

    from netsim.comm.payload import Dense
    from netsim.network.graph import LinkRanges

SCHEMA = "netsim.report/1"
Mode = Literal["simulated", "real"]
Way = Literal["messages", "compiled", "batched", "memoised", "closed-form"]
"""How a simulated time was had: message by message; the same in compiled code, without coroutines; in rounds of all
ranks at once; one of these, with steps that repeat each other solved once; by the formulas of the literature."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a round's seconds went, along the longest chain of events; the parts sum to the round.

    `compute_s` is gradients and updates, `select_s` selections and merges, `comm_s` communication
    that no computation hid. `hidden_s` is what computation did hide, and no part of the sum.
    """

    round_s: float
    compute_s: float
    select_s: float
    comm_s: float
    bound_by: str
    hidden_s: float = 0.0


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
    way: Way | None = None
    way_reason: str | None = None
    """Why no faster way was taken, if one was wanted."""
    bytes_sent_by_rank: list[int] = field(default_factory=list)
    hidden_comm_time_s: float = 0.0
    buckets: list[dict[str, Any]] | None = None
    """Where parts of the gradient are exchanged by themselves: `elements`, `k`, `ready` and `server` of each, the last
    part first."""
    ready_provenance: Provenance | None = None
    momentum: str | None = None
    """What momentum is applied to: the "sum" of the workers' vectors, or each of the "workers" before selection; None
    without."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def paper_accounting(self) -> dict[str, int]:
        """The view of Table II of the SASG paper: an upload of one worker is a "round"; of bits, values up alone."""
        return {"rounds": self.uploads, "bits": self.value_bits_up}

    def __getitem__(self, key: str) -> Any:
        if key not in {each.name for each in fields(self)}:
            raise KeyError(key)
        return getattr(self, key)


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """What all ranks did, a number a rank, and what they counted in all."""

    value_bytes_up: npt.NDArray[np.int64]
    index_bytes_up: npt.NDArray[np.int64]
    bytes_up: npt.NDArray[np.int64]
    bytes_down: npt.NDArray[np.int64]
    tally: Mapping[str, int]
    stored_value_bytes: int = 0
    parameters_sha256: str | None = None

    @classmethod
    def of(cls, outcomes: Sequence[RankOutcome]) -> Ranks:
        """Return what these ranks did; raise ReplicasDivergedError unless all end with the same parameters."""
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
    """Return the result of an algorithm from what its ranks did; `server` is the rank that served, if any."""
    numbers = np.arange(len(ranks.bytes_up))
    uploading = (numbers < others["workers"]) & (numbers != (-1 if server is None else server))
    value_up, index_up, down = (
        int(column[uploading].sum()) for column in (ranks.value_bytes_up, ranks.index_bytes_up, ranks.bytes_down)
    )
    share = rounds * max(1, int(uploading.sum()))
    if server is None:
        uploads, value_bits, index_bits = rounds * len(uploading), 8 * value_up, 8 * index_up
    else:
        # A worker on the server's own host uploads, too, though over no link.
        uploads, value_bits, index_bits = (ranks.tally.get(what, 0) for what in ("uploads", "value_bits", "index_bits"))
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
    """Return the SHA-256 of the parameters' bytes, little-endian."""
    values = parameters.values.detach().cpu().contiguous().numpy()
    return hashlib.sha256(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()).hexdigest()


_COLUMN = "\N{SYMBOL FOR SUBSTITUTE} a number a rank "
"""Stands in a document for what is put there afterwards."""


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one experiment, and what they say."""

    config: Mapping[str, Any]
    results: list[Result]
    conclusion: list[str] = field(default_factory=list)
    environment: Mapping[str, Any] = field(default_factory=dict)
    effects: Mapping[str, str] = field(default_factory=dict)
    """What was simulated beyond an ideal network, in words, by option."""
    link_ranges: LinkRanges | None = None
    """Of the simulated links; None for a real run, or a network without links."""
    notes: list[str] = field(default_factory=list)
    """Options that were given and changed nothing, in sentences."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as documented in the README, in SI units."""
        return {
            "schema": SCHEMA,
            "config": dict(self.config),
            "environment": dict(self.environment),
            "effects": dict(self.effects),
            "link_ranges": self.link_ranges and self.link_ranges.as_json(),
            "results": [result.to_dict() | {"paper_accounting": result.paper_accounting} for result in self.results],
            "conclusion": list(self.conclusion),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Return one JSON document; what is a number a rank is on one line."""
        told = self.to_dict()
        columns = []
        for result in told["results"]:
            columns.append(json.dumps(result["bytes_sent_by_rank"]))
            result["bytes_sent_by_rank"] = f"{_COLUMN}{len(columns) - 1}"
        text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
        for number, column in enumerate(columns):
            text = text.replace(f'"{_COLUMN}{number}"', column, 1)
        return text

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row an algorithm and the JSON's keys as columns."""
        import pandas as pd

        return pd.DataFrame([result.to_dict() for result in self.results])
