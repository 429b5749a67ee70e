"""The options of single commands that are not an experiment's, each declared once.

The command line, Python and docs/options.md have them from here, as :mod:`netsim.experiment.options` explains.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from algorithms import text_of
from netsim._util.options import (
    Bandwidth,
    Choice,
    Duration,
    FilePath,
    Kind,
    Number,
    OnOff,
    Several,
    Share,
    Size,
    Text,
    Whole,
    option,
    read_fields,
)
from netsim.cluster.plan import PLACEMENTS, SHAPINGS
from netsim.comm.worker import EARLIER_SENDS, SENDS


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Options of ``netsim study`` that are the same for every study; its settings are in the file of the study."""

    quick: bool = option(
        False, OnOff(), "Use the quick setting: up to two minutes on two cores, with bundled data.", common=True
    )
    resume: bool = option(False, OnOff(), "Use the points that an earlier run stored in --out.", common=True)
    shard: str | None = option(
        None,
        Text("3/100"),
        "Simulate one part of the points, without a report: 3/100 is part 3 of 100. --resume without --shard then "
        "writes the report.",
    )
    dry_run: bool = option(False, OnOff(), "Print what would be simulated, and simulate nothing.")
    jobs: int = option(0, Whole(), "Points simulated at the same time; 0: one per core.")
    data_dir: str | None = option(None, Text("data", metavar="FOLDER"), "Folder of data sets, for studies that train.")
    validation: str | None = option(
        None,
        FilePath("FOLDER"),
        "Folder of netsim validate --out, to add predicted against measured to the report.",
    )
    cluster: str | None = option(None, Text("dask://host:port"), "Simulate on a Dask cluster: dask://host:port.")

    def __post_init__(self) -> None:
        read_fields(self)


class NameOrClass(Kind):
    """A name as text, or an algorithm's class."""

    metavar = "NAME"
    in_python = "str"

    def read(self, name: str, value: object) -> str:
        """Return the name."""
        return Text().read(name, text_of(value))


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """Options of ``netsim validate``: the real network, what is measured in it, and what its prediction rests on."""

    local: tuple[int, ...] | None = option(
        None,
        Several(Whole(2, example="8")),
        "Build a cluster of P ranks on this machine; several with commas: 4,8,16. Not under torchrun.",
        common=True,
    )
    bandwidth_bps: tuple[int, ...] | None = option(
        None,
        Several(Bandwidth()),
        "Bandwidth of every link; several with commas.",
        name="bandwidth",
        otherwise="100Mbps; under torchrun it is measured",
        common=True,
    )
    sizes: tuple[int, ...] = option(
        (100_000, 400_000, 2_000_000),
        Several(Size()),
        "Sizes of the vector of each rank, with commas.",
        common=True,
    )
    exchange: tuple[str, ...] = option(
        ("all",),
        Several(NameOrClass()),
        "Exchanges, with commas, all or none; permutation compares single flows.",
        common=True,
    )
    algorithm: tuple[str, ...] = option(
        ("dense", "topk", "gtopk", "ps"),
        Several(NameOrClass()),
        "Algorithms whose rounds of training are compared, with commas, all or none.",
        common=True,
    )
    rounds: int = option(1, Whole(1), "Rounds of training in one repeat.")
    density: float = option(
        0.01,
        Number(lambda value: 0 < value <= 1, "more than 0 and at most 1, such as 0.01"),
        "Density of sparse algorithms.",
    )
    repeats: int = option(7, Whole(1), "Repeats of every measurement; one more goes before and is not counted.")
    sends: str | None = option(
        None,
        Choice(SENDS, EARLIER_SENDS),
        "When a sender continues: rendezvous or eager, as in simulate.",
        otherwise="eager; trees both ways",
        name="send_mode",
    )
    shaping: str = option(
        SHAPINGS[0],
        Choice(SHAPINGS),
        "How links are shaped: fair (a class for each pair), or tbf (plain token buckets).",
    )
    trunk_bps: int | None = option(
        None, Bandwidth(), "Make two racks with a link of this bandwidth between them.", name="trunk"
    )
    placement: str = option(PLACEMENTS[0], Choice(PLACEMENTS), "Placement of ranks in two racks: {choices}.")
    latency_s: float | None = option(
        None,
        Duration(),
        "One-way latency; needs a kernel with netem.",
        name="latency",
        otherwise="the machine's own",
    )
    tolerance: float = option(0.1, Share(), "Exit with status 4 if a relative error is larger.")
    profile: str | None = option(
        None,
        FilePath(),
        "Predict with a profile of netsim calibrate, not with messages measured beside the exchanges.",
    )
    backend: str = option("gloo", Text("gloo", metavar="NAME"), "Backend under torchrun: gloo, nccl or mpi.")
    timeout_s: float = option(60.0, Duration(), "Timeout of an operation that waits.", name="timeout")

    def __post_init__(self) -> None:
        read_fields(self)

    def differing(self, *names: str) -> dict[str, object]:
        """Return those of these fields that do not have their defaults, by field."""
        defaults = {each.name: each.default for each in fields(self)}
        return {name: getattr(self, name) for name in names if getattr(self, name) != defaults[name]}


COMMANDS = {"Study": StudyOptions, "Validation": ValidationOptions}
"""The declarations, by the headings under which docs/options.md shows them."""
