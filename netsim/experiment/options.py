"""The options of an experiment, each declared once with its default, its kind of value and its help.

A new option is a field here. The command line, ``netsim.simulate``, TOML files and docs/options.md then have it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from algorithms import ALGORITHMS, check_titles, is_users, name_of, text_of, variant_of
from algorithms.own import load_class
from algorithms.selection import HOWS
from netsim._util.device import check_device
from netsim._util.errors import UsageError, shown
from netsim._util.options import Bandwidth, Choice, Duration, Kind, Number, OnOff, Text, Whole, option, several
from netsim._util.random_streams import WORD
from netsim._util.units import format_bandwidth, format_duration, read_whole
from netsim.comm.payload import FLOATS
from netsim.comm.worker import EARLIER_SENDS, SENDS
from netsim.network.flow import SHARINGS
from netsim.network.graph import check_link
from netsim.training.catalogue import MODELS, check_model
from netsim.training.overlap import COMMUNICATORS, Ready, check_bucket
from netsim.training.workloads import DEFAULT, PLUGINS, WORKLOADS
from netsim.training.workloads.data import DATA, SYNTHETIC
from topologies import FILES, STARS, TOPOLOGIES, build, file_of, servers_of, taken
from topologies.builder import BANDWIDTH_BPS, LATENCY_S, Shape
from topologies.placement import PLACEMENTS

if TYPE_CHECKING:
    from netsim.network.graph import Graph, LinkRanges

DEFAULT_ALGORITHMS = ("dense", "topk", "gtopk", "ps")
DEFAULT_DENSITY = 1e-3
ROUNDS = 5
LR_DECAY = 0.1
ENGINES = ("auto", "event", "vectorized")
"""``event`` simulates one message at a time, ``vectorized`` a whole round; ``auto`` takes the faster that applies."""
EARLIER_ENGINES = {"messages": "event", "batched": "vectorized", "compiled": "vectorized", "closed-form": "vectorized"}
"""The engine, by the name that earlier versions gave to a method inside the engine."""
OWN = "own"
"""The value of bandwidth or latency that leaves links as the topology sets them, or else at the default."""
MOST_ELEMENTS = 2**31 - 1
POSITIVE = Number()
COUNT = Whole(1)
ROUND = Whole(0)


class Algorithms(Kind):
    """Algorithms: text of names with commas, or several names, classes or objects."""

    choices: ClassVar[Any] = ALGORITHMS
    metavar = "NAME,..."
    in_python = "str, class, object, or a list of them"

    def read(self, name: str, value: Any) -> tuple[str, ...]:
        """Return the names; raise UsageError for an unknown or repeated one."""
        if isinstance(value, str):
            value = tuple(several(value))
        elif not isinstance(value, list | tuple):
            value = (text_of(value),)
        names: tuple[str, ...] = tuple(map(text_of, value))
        if not names:
            raise UsageError("no algorithm was named; name at least one, such as gtopk")
        named: dict[Any, str] = {}
        for algorithm in names:
            if not isinstance(algorithm, str):
                raise UsageError(f"{name} {shown(algorithm)} must be a name or several, such as 'dense,gtopk'")
            if is_users(algorithm) and ":" in name_of(algorithm):
                load_class(name_of(algorithm))
            if (earlier := named.get(variant_of(algorithm))) is not None:
                first = "" if earlier == algorithm else f", first as {earlier!r}"
                raise UsageError(f"{name} {algorithm!r} was named twice{first}; name each once")
            named[variant_of(algorithm)] = algorithm
        check_titles(names)
        return names

    def write(self, value: tuple[str, ...]) -> str:
        """Return the names with commas between."""
        return ",".join(value)


class Rounds(Kind):
    """Numbers of rounds: text with commas, one number, or several."""

    metavar = "N,..."
    in_python = "int, str, or a list of int"

    def read(self, name: str, value: Any) -> tuple[int, ...]:
        """Return the numbers of the rounds."""
        if isinstance(value, str):
            numbers = [read_whole(text) for text in value.split(",")]
            if None in numbers:
                raise UsageError(
                    f"{name} {shown(value)} must be whole numbers of rounds with commas between, such as 100,150"
                )
            value = numbers
        rounds = value if isinstance(value, list | tuple | range) else (value,)
        return tuple(ROUND.read(name, number) for number in rounds)

    def write(self, value: tuple[int, ...]) -> str:
        """Return the numbers with commas between."""
        return ",".join(map(str, value))


class BucketSize(Kind):
    """The largest size of a bucket, or "tensor"; "none" stands for no overlap."""

    metavar = "SIZE"

    def read(self, name: str, value: Any) -> str | None:
        """Return the size as text, or None for "none"."""
        return None if value == "none" else Text("25MB", check_bucket).read(name, value)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options of the simulated network."""

    workers: int = option(8, COUNT, "Number of workers that train.", common=True)
    topology: str = option(
        STARS[0],
        Text(STARS[0], metavar="NAME"),
        f"Topology of the network: {', '.join(TOPOLOGIES)}, with keys, such as fat-tree:k=8; a file: "
        f"{FILES}; or your own FILE.py:FUNCTION or package.module:FUNCTION.",
        common=True,
    )
    bandwidth_bps: int | None = option(
        None,
        Bandwidth(),
        "Bandwidth of every link, each way: 1Gbps, 100Mbit/s, 25GiB/s.",
        name="bandwidth",
        otherwise="that of a --profile, or 1Gbps",
        common=True,
    )
    latency_s: float | None = option(
        None,
        Duration(zero=False),
        "One-way latency between two hosts across one switch: 50us.",
        name="latency",
        otherwise="that of a --profile, or 50us",
        common=True,
    )
    bandwidth_scale: float = option(
        1.0, POSITIVE, "Factor on the bandwidth of every link, including links that a file or keys describe."
    )
    latency_scale: float = option(
        1.0, POSITIVE, "Factor on the latency of every link, including links that a file or keys describe."
    )
    host_ceiling_bps: int | None = option(
        None,
        Bandwidth(),
        "Highest rate of a host, sent plus received: 600MB/s. The link of the host may be faster.",
        name="host_ceiling",
        otherwise="unlimited",
    )
    fan_out: int = option(8, Whole(2), "Children of a switch in the topology tree.")
    placement: str = option(
        "rank-order", Choice(PLACEMENTS, {"given": "rank-order"}), "How ranks are placed on hosts: {choices}."
    )
    sharing: str = option(
        "maxmin", Choice(SHARINGS), "How flows share a link: equal rates (maxmin) or inversely to RTT (rtt)."
    )
    sends: str | None = option(
        None,
        Choice(SENDS, EARLIER_SENDS),
        "When a sender continues: rendezvous (after its receiver has the message) or eager (at once, so its next "
        "message shares the link).",
        otherwise="rendezvous in simulations, eager on real ranks",
        name="send_mode",
    )
    profile: str | None = option(
        None,
        Text("profile.toml", metavar="FILE"),
        "File written by netsim calibrate: measured costs of network and hosts. Other options take precedence over it.",
    )

    def settle_links(self) -> None:
        """Set a missing bandwidth or latency to its default; raise UsageError for a value that no link would have."""
        takes = taken(self.topology)
        if not takes.bandwidth and self.bandwidth_bps is not None:
            raise self._not_taken("bandwidth", format_bandwidth(self.bandwidth_bps))
        if not takes.latency and self.latency_s is not None:
            raise self._not_taken("latency", format_duration(self.latency_s))
        if takes.bandwidth and self.bandwidth_bps is None:
            object.__setattr__(self, "bandwidth_bps", BANDWIDTH_BPS)
        if takes.latency and self.latency_s is None:
            object.__setattr__(self, "latency_s", LATENCY_S)
        check_link(self.bandwidth_bps or 0, self.latency_s or 0.0)

    def _not_taken(self, what: str, value: str) -> UsageError:
        return UsageError(
            f"{what} {value} was given, but topology {self.topology!r} decides the {what} of every link itself; leave "
            f"it out, or say --{what} {OWN} (--{what}-scale multiplies that of all simulated links)"
        )

    @property
    def servers(self) -> int:
        """Number of hosts that the topology reserves for parameter servers."""
        return servers_of(self.topology)

    def graph(self, workers: int | None = None) -> Graph:
        """Return the hosts, switches and links of the simulated network; `workers` replaces the number of workers."""
        # A value that is still None is one that no link takes: its default has no effect.
        bandwidth_bps = BANDWIDTH_BPS if self.bandwidth_bps is None else self.bandwidth_bps
        latency_s = LATENCY_S if self.latency_s is None else self.latency_s
        shape = Shape(workers or self.workers, bandwidth_bps, latency_s, self.fan_out)
        graph = build(self.topology, shape).scaled(self.bandwidth_scale, self.latency_scale)
        return graph if self.host_ceiling_bps is None else graph.limited(graph.all_hosts, self.host_ceiling_bps)

    def links(self) -> LinkRanges | None:
        """Return the range of the links' bandwidths and latencies; None if there are no links."""
        # All links of a star are alike, and a star with all workers may be too large to build.
        return self.graph(1 if self.topology in STARS else None).ranges()

    def network_notes(self) -> list[str]:
        """Return what was read from a topology file, and what was assumed; nothing for a named topology."""
        return list(self.graph().notes) if file_of(self.topology) else []

    def profiled(self) -> str:
        """Return in words what a profile describes: the hosts, and link properties that the topology leaves open."""
        takes = taken(self.topology)
        if takes.bandwidth and takes.latency:
            return "network and hosts"
        return " and ".join([name for name, takes in takes._asdict().items() if takes] + ["hosts"])


@dataclass(frozen=True, kw_only=True)
class AlgorithmOptions:
    """Options of algorithms: selected entries, and overlap of the exchange with the backward pass."""

    algorithms: tuple[str, ...] = option(
        DEFAULT_ALGORITHMS,
        Algorithms(),
        "Algorithms to compare, with commas: {choices}, or your own: FILE.py:CLASS or package.module:CLASS. An "
        "algorithm's own options follow its name: gtopk:KEY=VALUE.",
        name="algorithm",
        common=True,
    )
    density: float | None = option(
        None,
        Number(lambda value: 0 < value <= 1, "more than 0 and at most 1, such as 0.001"),
        "Fraction of entries that sparse algorithms select.",
        otherwise=f"{DEFAULT_DENSITY:g}",
        common=True,
    )
    k: int | None = option(None, COUNT, "Number of entries that sparse algorithms select.")
    per_tensor: bool = option(False, OnOff(), "Apply the density of sparse algorithms to each tensor separately.")
    select: str = option(
        "exact",
        Choice(HOWS),
        "How sparse algorithms select: exact, sampled (at most k) or threshold (about k). randk draws at random.",
        title="selection",
    )
    density_warmup: int = option(
        0, ROUND, "Number of first rounds in which the density of sparse algorithms falls from 1/4 to its final value."
    )
    dtype: str = option(
        "fp32",
        Choice(FLOATS, hint="int8 and qsgd are algorithms, such as --algorithm int8"),
        "Type of the values in messages: {choices}. Gradients are rounded to it, to the nearest value.",
    )
    overlap: str | None = option(
        None,
        BucketSize(),
        "Exchange gradients during backward in buckets, last layers first: a largest size (25MB), tensor for one "
        "bucket per tensor, or none. Sparse algorithms select within each bucket.",
        common=True,
    )
    communicator: str = option(
        COMMUNICATORS[0],
        Choice(COMMUNICATORS),
        "With --overlap, how a rank exchanges several buckets: {choices}. NCCL is serial: one bucket after another.",
    )
    ready: str | None = option(
        None,
        Text("measured", Ready.of),
        "With --overlap, when buckets are ready: measured; elements (ASSUMED: backward time is in proportion to "
        "elements, after a third of the compute time for forward, or half with elements:0.5); fractions of the "
        "compute time, 0.5,0.8,1; or FILE.json of torch.profiler, which also has the compute time. Without --overlap "
        "FILE.json gives the compute time alone.",
        otherwise="measured where compute times are measured",
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of training: workload, data, and the hyper-parameters of SGD."""

    workload: str = option(
        DEFAULT,
        Text(DEFAULT, metavar="NAME"),
        f"What is trained: {', '.join([*WORKLOADS, *PLUGINS])}, or your own FILE.py:factory or module:factory. The "
        "module is searched among installed packages, then in the current folder.",
        common=True,
    )
    data: str | None = option(
        None,
        Text("digits", metavar="NAME"),
        f"Data set: {', '.join([*DATA, SYNTHETIC])}, or two of them joined by +.",
        otherwise="the workload's",
    )
    data_dir: str | None = option(None, Text("data", metavar="FOLDER"), "Folder that holds the data sets.")
    split: str = option(
        "iid", Text("iid", metavar="NAME"), "How workers share the data: iid, dirichlet:ALPHA, by-class or mix."
    )
    sampling: str = option(
        "random",
        Text("random", metavar="NAME"),
        "How mini-batches are drawn: random, or epochs (every sample once in each pass over a worker's data).",
    )
    batch_size: int = option(16, COUNT, "Samples in a worker's mini-batch.")
    accumulate: int = option(
        1, COUNT, "Mini-batches of a worker in a round: so many backward passes, whose mean is exchanged once."
    )
    rounds: int | None = option(
        None, COUNT, "Steps of training.", otherwise=f"{ROUNDS}; with --timing-only 1, or h", common=True
    )
    learning_rate: float = option(0.1, POSITIVE, "Learning rate γ.", name="lr", title="learning rate")
    lr_warmup: int = option(0, ROUND, "Number of first rounds in which the learning rate grows to --lr.")
    lr_decay: float = option(LR_DECAY, POSITIVE, "Factor on the learning rate at each of the rounds of --lr-decay-at.")
    lr_decay_at: tuple[int, ...] = option((), Rounds(), "Rounds at which the learning rate decays, with commas.")
    momentum: float = option(
        0.0,
        Number(lambda value: 0 <= value < 1, "at least 0 and less than 1, such as 0.9"),
        "Heavy-ball momentum, applied to the sum as in torch.optim.SGD.",
    )
    momentum_correction: bool = option(
        False,
        OnOff(),
        "Sparse algorithms apply momentum at each worker, before selection (DGC). Dense algorithms still apply "
        "momentum to the sum; sasg does not support this option.",
    )
    weight_decay: float = option(
        0.0,
        Number(lambda value: 0 <= value < math.inf, "finite and zero or more, such as 1e-4"),
        "Multiple of the parameters that each worker adds to its gradient, after clipping.",
    )
    clip: float | None = option(
        None,
        POSITIVE,
        "Largest norm of a worker's gradient; a longer one is scaled down as by torch's clip_grad_norm_.",
    )
    aggregate: str = option(
        "mean", Choice(("mean", "sum")), "Whether workers' vectors are averaged (mean) or added (sum)."
    )
    eval_every: int = option(0, ROUND, "Rounds between evaluations on the test set, for --metrics; 0: none.")
    seed: int = option(0, Whole(0, WORD - 1, "less than 2³²"), "Random seed for data, initial weights and jitter.")
    device: str = option(
        "auto",
        Text("auto", check_device, "NAME"),
        "Device that computes gradients: cpu, cuda (all GPUs) or cuda:0; or auto, what is faster, measured.",
    )
    tf32: bool = option(
        False,
        OnOff(),
        "Whether products on a GPU may round their factors to TF32, 10 bits of mantissa, to be faster.",
    )


@dataclass(frozen=True, kw_only=True)
class CostOptions:
    """Options of the simulated time of computations, and of the engine."""

    compute_time_s: float | None = option(
        None,
        Duration(),
        "Time charged for the computation of a mini-batch, ASSUMED: 60ms.",
        name="compute_time",
        title="compute time",
        otherwise="measured, or 0 without data",
        common=True,
    )
    select_time_s: float | None = option(
        None,
        Duration(),
        "Time charged for each selection or compression of a round, whatever its size, ASSUMED.",
        name="select_time",
        title="select time",
        otherwise="measured, or 0 without data",
    )
    merge_time_s: float | None = option(
        None,
        Duration(),
        "Time charged for each merge or sum of a round, whatever its size, ASSUMED; dense has P of them.",
        name="merge_time",
        title="merge time",
        otherwise="measured, or 0 without data",
    )
    timing_only: bool = option(False, OnOff(), "Simulate times and bytes only: no data, no gradients.", common=True)
    elements: int | None = option(
        None,
        Whole(1, MOST_ELEMENTS, f"at most {MOST_ELEMENTS}: an index is an int32"),
        "Without data: number of elements of the gradient.",
        common=True,
    )
    model: str | None = option(
        None,
        Text("resnet50", check_model, "NAME"),
        f"Without data: a model whose tensors are known: {', '.join(MODELS)}, or if the package is installed, "
        "torchvision:NAME, or hf:NAME of transformers (a type such as gpt2, a class, or FILE.json).",
        common=True,
    )
    engine: str = option(
        "auto",
        Choice(ENGINES, EARLIER_ENGINES),
        "Engine: event (a message at a time), vectorized (a round of all ranks at once), or auto (vectorized "
        "where it applies).",
    )
