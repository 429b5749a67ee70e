"""One experiment: everything that decides a result, checked once, and what is built from its names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from algorithms import OWN_OPTIONS, build_algorithm, class_of, own_options, owners_of, settings_of, with_options
from algorithms.selection import How, Selector, entries
from netsim._util.errors import InfeasibleError, UsageError, check_choice, check_digits, shown, unknown
from netsim._util.options import Option, declared, read_fields
from netsim._util.units import format_bandwidth, format_bytes, format_duration, in_python
from netsim.comm.pieces import Piece
from netsim.comm.worker import Work
from netsim.experiment.options import (
    DEFAULT_DENSITY,
    ENGINE_OF_WAY,
    LR_DECAY,
    OWN,
    ROUNDS,
    AlgorithmOptions,
    CostOptions,
    NetworkOptions,
    TrainingOptions,
)
from netsim.network.effects import NONE, Effects
from netsim.network.graph import check_link
from netsim.training.algorithm import Algorithm
from netsim.training.catalogue import parameters_of, tensors_of
from netsim.training.overlap import Bucket, Overlapped, Ready, at_shares, even, pieces_of, ready_by_elements, shards
from netsim.training.profiled_costs import Rate
from netsim.training.sgd import Aggregate, SGDConfig
from netsim.training.workloads import WORKLOADS, check_workload
from topologies import STARS, build, file_of, servers_of, taken
from topologies.builder import BANDWIDTH_BPS, LATENCY_S, Shape
from topologies.placement import place

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric
    from netsim.network.graph import Graph, LinkRanges

Momentum = Literal["sum", "workers"]
"""What momentum is applied to: the sum of the workers' vectors, or each worker's own before selection."""
MOST_WORKERS, WORKER_BYTES = 4_000_000, 280
"""What a worker takes with formulas alone; every other way takes more."""
MOST_ROUNDS_WITHOUT_DATA, ROUND_BYTES, ROUND_S = 100_000, 4096, 1e-3
"""All rounds are laid out before they are simulated; the last two are what laying out one takes."""
PANELS = {
    "Network": NetworkOptions,
    "Algorithms": AlgorithmOptions,
    "Training": TrainingOptions,
    "Costs": CostOptions,
    "Effects": Effects,
}
"""The declarations of all options, by the heading under which the help and the README show them."""


@dataclass(frozen=True, kw_only=True)
class Experiment(CostOptions, TrainingOptions, AlgorithmOptions, NetworkOptions):
    """What is run, in SI units. Build it with :meth:`of`, which takes options by the names that people know.

    Raises UsageError for a value that cannot be used. ``elements``, or ``model`` out of the
    catalogue, may be set for timing-only runs; otherwise the workload decides. Of ``k`` and ``density`` at
    most one is given.

    ``bandwidth_bps`` and ``latency_s`` stay None where no link takes them, because the topology's file or keys decide
    every link; to give them there is an error. The two scales multiply every link's, whatever decides it.
    """

    effects: Effects = NONE
    work_rates: tuple[tuple[str, float, float, float], ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Experiment:
        """Return the experiment whose :meth:`config` this is, also after a trip through JSON."""
        options: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
        _rename_way(options)
        options = _with_own_options(options)
        if "effects" in options:
            options["effects"] = Effects(**options["effects"])
        return cls(**options)

    @classmethod
    def of(cls, **options: Any) -> Experiment:
        """Return an experiment from options as on the command line; those left out or None keep their default.

        Those of :meth:`config` are taken, too, and numbers, texts and arrays of one element of other libraries.
        """
        given = {name: in_python(value) for name, value in options.items() if value is not None}
        _rename_way(given)
        for name, value in given.items():
            check_digits(option_of(name).replace("_", "-"), value)
        if "algorithms" in given:  # options of a config
            given = _with_own_options(given)
        effects, own = _effects(given), _by_field(cls, given)
        if "work_rates" in own:  # options of a config: what a profile decided is among them
            own["work_rates"] = _rates(own["work_rates"])
        elif "profile" in own:
            from netsim.experiment.profile import decide

            decide(own, effects)
        return cls(**own, effects=Effects(**effects))

    def __post_init__(self) -> None:
        read_fields(self)
        effects, rates = cast(Any, self.effects), cast(Any, self.work_rates)
        if not isinstance(effects, Effects):
            raise UsageError(f"effects {shown(effects)} must be Effects; give each by its own option")
        if not isinstance(rates, tuple) or not all(isinstance(each, list | tuple) for each in rates):
            raise UsageError(f"work-rates {shown(rates)} must be those of a report's config")
        self._check_extent()
        self.effects.check_workers(self.workers)
        self._settle_links()
        check_workload(self.workload, self.data, self.split, self.sampling)
        self._check_recipe()
        self._check_overlap()
        self._check_servers()
        self._check_selection()
        self._check_sizes()

    def _check_extent(self) -> None:
        """Raise InfeasibleError for more than any machine can do, before anything is done."""
        if self.workers > MOST_WORKERS:
            raise InfeasibleError(
                f"{self.workers:,} workers would take at least {format_bytes(WORKER_BYTES * self.workers)}; take at "
                f"most {MOST_WORKERS:,}"
            )
        if self.timing_only and self.round_count > MOST_ROUNDS_WITHOUT_DATA:
            memory, took = format_bytes(ROUND_BYTES * self.round_count), format_duration(ROUND_S * self.round_count)
            raise InfeasibleError(
                f"{self.round_count:,} rounds without data would take about {memory} and {took} an algorithm, and be "
                f"like the first ones; take at most {MOST_ROUNDS_WITHOUT_DATA:,}"
            )

    def _settle_links(self) -> None:
        """Fill in the bandwidth and latency that links take; raise UsageError for one that no link takes."""
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
            f"it out, or say {what} {OWN} ({what}-scale multiplies that of all simulated links)"
        )

    def _check_recipe(self) -> None:
        if self.lr_decay != LR_DECAY and not self.lr_decay_at:
            raise UsageError(f"lr-decay {self.lr_decay!r} was given, but not when; add --lr-decay-at 100,150")
        if not self.momentum_correction:
            return
        if not self.momentum:
            raise UsageError("momentum-correction was given, but momentum is 0; add --momentum 0.9")
        for name in self.algorithms:
            if class_of(name).sparse and not class_of(name).corrects_momentum:
                raise UsageError(
                    f"momentum-correction was given, but for {name} none is defined: a worker that skips discards its "
                    "gradient; leave it out, and momentum is applied to the sum"
                )

    def _check_overlap(self) -> None:
        if self.overlap is None:
            if self.ready is not None:
                raise UsageError(f"ready {self.ready!r} was given, but nothing overlaps; add --overlap 25MB")
            return
        if self.clip is not None:
            raise UsageError(
                f"clip {self.clip} was given with --overlap, but a gradient's norm is known when all of it is; "
                "leave one out"
            )
        for name in self.algorithms:
            if not class_of(name).overlaps:
                raise UsageError(
                    f"{name} was asked for with --overlap, but its rule looks at the whole gradient before anything "
                    "is sent; leave one out"
                )

    def _check_servers(self) -> None:
        if self.servers < 2:
            return
        for name in (each for each in self.algorithms if class_of(each).uses_server):
            why = None
            if not class_of(name).overlaps:
                why = f"{name} looks at the whole gradient, and each server has a part of it"
            elif self.clip is not None:
                why = f"clip {self.clip} is of the whole gradient, and each server has a part of it"
            elif self.per_tensor and class_of(name).sparse and self.overlap is None:
                why = "per-tensor was given, and servers share the gradient out evenly; add --overlap tensor"
            if why is not None:
                raise UsageError(f"topology {self.topology!r} has {self.servers} servers: {why}; or take one server")

    def _check_selection(self) -> None:
        if self.per_tensor and self.k is not None:
            raise UsageError(f"k {self.k} was given with --per-tensor, which needs a density; give --density instead")
        if self.per_tensor and self.elements is not None:
            raise UsageError("per-tensor was given, but of --elements no tensors are known; leave --elements out")
        if self.k is not None and self.density is not None:
            raise UsageError(f"both k {self.k} and density {self.density} were given; give one of them")

    def _check_sizes(self) -> None:
        """Raise UsageError for sizes of a model that are given where data decide them, or twice."""
        if self.model is not None:
            if not self.timing_only:
                raise UsageError(
                    f"model {self.model!r} is known by its sizes alone; add --timing-only, or train one with --workload"
                )
            if self.elements is not None:
                raise UsageError(f"both model {self.model!r} and elements {self.elements} were given; give one of them")
            self.k_of(parameters_of(self.model))
        elif self.elements is not None:
            if not self.timing_only:
                raise UsageError(
                    f"elements {self.elements} was given, but the workload decides how many there are; "
                    "add --timing-only to run without data"
                )
            self.k_of(self.elements)

    @property
    def round_count(self) -> int:
        """Rounds to run; without data every round is like the first."""
        return (1 if self.timing_only else ROUNDS) if self.rounds is None else self.rounds

    def data_name(self) -> str | None:
        """Return what data it is trained on; None where only sizes are known."""
        if self.timing_only:
            return None
        if self.workload not in WORKLOADS:
            return "its own data"
        return self.data or WORKLOADS[self.workload].default

    def known_tensors(self) -> tuple[int, ...]:
        """Return the sizes of the tensors that were named, by model or by number; empty if the workload decides."""
        if self.model is not None:
            return tuple(tensor.size for tensor in tensors_of(self.model))
        if self.elements is None:
            return ()
        return (self.elements,) if self.overlap is None else even(self.elements, self.overlap)

    def k_of(self, elements: int) -> int:
        """Return how many of `elements` a sparse algorithm selects: k, or max(1, floor(density d))."""
        if self.k is None:
            density = DEFAULT_DENSITY if self.density is None else self.density
            return entries(density, elements)
        if self.k > elements:
            raise UsageError(f"k {self.k} is more than the {elements} elements there are; give --k at most {elements}")
        return self.k

    def selector(self, tensors: tuple[int, ...], piece: Piece | None = None) -> Selector:
        """Return what sparse algorithms select of a vector made of `tensors` of so many elements, or of a piece."""
        density = DEFAULT_DENSITY if self.density is None else self.density
        own = tensors if piece is None else tensors[slice(*piece.tensors)]
        whole = sum(tensors)
        size = whole if piece is None else piece.last - piece.first
        if self.per_tensor:
            chosen = Selector.per_tensor(density, own)
        elif self.k is not None:
            chosen = Selector(max(1, self.k_of(whole) * size // whole))
        else:
            chosen = Selector(self.k_of(size))
        return replace(chosen, how=cast(How, self.select), warmup_rounds=self.density_warmup)

    def k_in_all(self, name: str, tensors: tuple[int, ...]) -> int:
        """Return how many entries an algorithm selects of a vector, in all of its pieces."""
        pieces, _ = self._exchanged(name, tensors)
        if len(pieces) == 1:
            return self.selector(tensors).k
        return sum(self.selector(tensors, piece).k for piece in pieces)

    def pieces(self, tensors: tuple[int, ...], measured: Sequence[float] | None = None) -> list[Piece]:
        """Return the pieces of the gradient in the order in which they get ready; the whole, if nothing overlaps.

        `measured` are the shares of a gradient's time after which each tensor is there, if somebody knows them.
        """
        if self.overlap is None:
            return [Piece(0, sum(tensors), (0, len(tensors)), 1.0)]
        ready = Ready() if self.ready is None else Ready.of(self.ready)
        found = pieces_of(tensors, self.overlap, measured or ready_by_elements(tensors, ready.forward))
        return at_shares(found, ready.shares) if ready.shares else found

    def algorithm(self, name: str, tensors: tuple[int, ...], ready: Sequence[float] | None = None) -> Algorithm:
        """Return the algorithm of that name, with the options of this experiment that it takes.

        `ready` are the shares of a gradient's time after which each tensor is there, if they were measured.
        """
        pieces, servers = self._exchanged(name, tensors, ready)
        if len(pieces) == 1:
            return self._algorithm(name, self.selector(tensors), 0)
        return Overlapped(
            [
                Bucket(piece, self._algorithm(name, self.selector(tensors, piece), number), number % servers)
                for number, piece in enumerate(pieces)
            ]
        )

    def _exchanged(
        self, name: str, tensors: tuple[int, ...], ready: Sequence[float] | None = None
    ) -> tuple[list[Piece], int]:
        """Return the pieces of the gradient that an algorithm exchanges by themselves, and over how many servers."""
        servers = max(1, self.servers) if class_of(name).uses_server else 1
        pieces = self.pieces(tensors, ready)
        if servers > 1 and len(pieces) == 1:
            pieces = shards(sum(tensors), len(tensors), servers)
        return pieces, servers

    def _algorithm(self, name: str, selector: Selector, bucket: int) -> Algorithm:
        kind = class_of(name)
        options = {
            "selector": selector if kind.sparse else None,
            "momentum_correction": self._recipe(self.momentum) if self.momentum_of(name) == "workers" else 0.0,
            "seed": self.seed,
            "bucket": bucket,
            "groups": self._groups() if kind.grouped and "group_size" not in own_options(name) else None,
        }
        return build_algorithm(name, options, strict=False)

    def momentum_of(self, name: str) -> Momentum | None:
        """Return what an algorithm applies the momentum to; None without momentum.

        With momentum correction it is the workers' own, where entries are selected. Algorithms that select none take
        it on the sum, which for those in which every worker sends at every step is the same.
        """
        if not self.momentum:
            return None
        return "workers" if self.momentum_correction and class_of(name).corrects_momentum else "sum"

    def recipe(self, name: str) -> SGDConfig:
        """Return the hyper-parameters of SGD around an algorithm's exchange; the momentum is that of the sum."""
        return self._recipe(self.momentum if self.momentum_of(name) == "sum" else 0.0)

    def _recipe(self, momentum: float) -> SGDConfig:
        return SGDConfig(
            learning_rate=self.learning_rate,
            momentum=momentum,
            weight_decay=self.weight_decay,
            clip=self.clip,
            warmup_rounds=self.lr_warmup,
            decay=self.lr_decay,
            decay_at=self.lr_decay_at,
            aggregate=cast(Aggregate, self.aggregate),
        )

    def shown(self) -> dict[str, str]:
        """Return what is simulated beyond an ideal network, in words, by the option that put it on."""
        shown = self.effects.shown()
        return shown if self.sharing == "maxmin" else {"sharing": "links shared by 1 / latency of routes (rtt)"} | shown

    @property
    def servers(self) -> int:
        """How many hosts of their own the topology has for parameter servers."""
        return servers_of(self.topology)

    def graph(self, workers: int | None = None) -> Graph:
        """Return the hosts, switches and links of the simulated network, built for another number of workers if asked.

        Where no link takes a bandwidth or latency, the shape's is the default, and decides nothing.
        """
        bandwidth_bps = BANDWIDTH_BPS if self.bandwidth_bps is None else self.bandwidth_bps
        latency_s = LATENCY_S if self.latency_s is None else self.latency_s
        shape = Shape(workers or self.workers, bandwidth_bps, latency_s, self.fan_out)
        return build(self.topology, shape).scaled(self.bandwidth_scale, self.latency_scale)

    def links(self) -> LinkRanges | None:
        """Return the range of the links' bandwidths and latencies; None if there are no links."""
        alike = self.topology in STARS  # one stands for all: there may be too many workers to build it
        return self.graph(1 if alike else None).ranges()

    def profiled(self) -> str:
        """Return in words what a profile can decide here: of the links only what their topology does not."""
        takes = taken(self.topology)
        if takes.bandwidth and takes.latency:
            return "network and hosts"
        return " and ".join([name for name, takes in takes._asdict().items() if takes] + ["hosts"])

    def fabric(self, *, everywhere: bool = False) -> Fabric:
        """Return the simulated network with the workers placed on its hosts, or with one on every host."""
        from netsim.network.fabric import Fabric

        graph = self.graph()
        if everywhere:
            return Fabric(graph, len(graph.hosts))
        self._check_hosts(len(graph.hosts))
        return Fabric(graph, self.workers, place(graph, self.workers, self.placement, self.seed))

    def check_room(self) -> None:
        """Raise InfeasibleError where the topology has fewer hosts than there are workers."""
        if self.topology not in STARS:  # which have as many, and may be too large to build
            self._check_hosts(len(self.graph().hosts))

    def _check_hosts(self, hosts: int) -> None:
        if self.workers > hosts:
            raise InfeasibleError(
                f"topology {self.topology!r} has {hosts} hosts, and {self.workers} workers need as many; take fewer "
                "workers or a larger topology"
            )

    def _groups(self) -> tuple[int, ...]:
        """Return which ranks share a machine, rack or site of the topology."""
        return tuple(self.fabric().groups.tolist())

    def assumed_costs(self) -> dict[Work, float]:
        """Return the seconds of work that the user gave rather than have measured."""
        assumed: dict[Work, float] = {}
        if self.compute_time_s is not None:
            # A step's compute time includes the update: it is everything but the exchange.
            assumed |= {"gradient": self.compute_time_s, "update": 0.0}
        if self.select_time_s is not None:
            assumed["select"] = self.select_time_s
        if self.merge_time_s is not None:
            assumed["merge"] = self.merge_time_s
        return assumed

    def rates(self) -> dict[str, Rate]:
        """Return what a profile says that functions cost."""
        return {name: Rate(*rate) for name, *rate in self.work_rates}

    def for_workers(self, workers: int) -> Experiment:
        """Return the same experiment for another number of workers."""
        return replace(self, workers=workers)

    def config(self) -> dict[str, Any]:
        """Return the options as JSON takes them, with the defaults that were filled in.

        The options of single algorithms are among them, as all that take one have it; as is its default, if they
        have it differently.
        """
        values = asdict(self) | {"rounds": self.round_count}
        config = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        for name, own in OWN_OPTIONS.items():
            settings = [settings_of(each) for each in self.algorithms]
            found = [each[name] for each in settings if name in each]
            config[name] = found[0] if found and found.count(found[0]) == len(found) else own.default
        return config


def _rename_way(options: dict[str, Any]) -> None:
    """Replace the ``way`` of an older config by its engine."""
    if "way" in options:
        way = options.pop("way")
        check_choice("way", way, ENGINE_OF_WAY)
        options.setdefault("engine", ENGINE_OF_WAY[way])


def option_of(name: str) -> str:
    """Return the option that sets a field of an experiment."""
    return OPTIONS[name].name if name in OPTIONS else name.removesuffix("_s")


def _by_field(cls: type[Experiment], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of options by the fields that hold them; raise UsageError for an option that there is not."""
    known = {each.name: name for name, each in OPTIONS.items()} | {each.name: each.name for each in fields(cls)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in OWN_OPTIONS:
            raise moved(name, str(value))
        if name not in known:
            raise unknown("option", name, [*(each.name for each in OPTIONS.values()), *EFFECTS])
        if (field := known[name]) in found:
            both = [(other, given[other]) for other in given if known.get(other) == field]
            raise UsageError(f"both {' and '.join(f'{other} {each!r}' for other, each in both)} were given; give one")
        if not (name in ("bandwidth", "latency") and value == OWN):
            found[field] = value
    return found


def moved(name: str, value: str) -> UsageError:
    """Return the error for an option of single algorithms that is given as one of all."""
    owners = owners_of(name)
    key = OWN_OPTIONS[name].key
    return UsageError(
        f"--{key} is an option of {', '.join(owners)}; write it after the name: --algorithm {owners[0]}:{key}={value}"
    )


def _with_own_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a config with those of single algorithms moved into the algorithms' names."""
    own = {name: config[name] for name in OWN_OPTIONS if config.get(name) is not None}
    options = {name: value for name, value in config.items() if name not in OWN_OPTIONS}
    if own and "algorithms" in options:
        options["algorithms"] = tuple(with_options(each, **own) for each in options["algorithms"])
    return options


def _effects(given: dict[str, Any]) -> dict[str, Any]:
    """Take the effects out of `given`, those of a config and options of their own, and return them by field."""
    config = given.pop("effects", {})
    if isinstance(config, Effects):
        config = config.config()
    if not isinstance(config, Mapping):
        raise UsageError(f"effects {shown(config)} must be those of a report's config, by name")
    for name in config:
        if name not in declared(Effects):
            raise unknown("effect", str(name), declared(Effects))
    own = {field: given.pop(name) for name, field in EFFECTS.items() if name in given}
    return {name: in_python(value) for name, value in config.items()} | own


def _rates(config: Any) -> tuple[tuple[str, float, float, float], ...]:
    """Return the rates of a config."""
    try:
        rates = tuple((str(name), float(fixed), float(entry), float(element)) for name, fixed, entry, element in config)
        if all(0 <= rate < math.inf for _, *of_one in rates for rate in of_one):
            return rates
    except (TypeError, ValueError):
        pass
    raise UsageError(f"work_rates {shown(config)} must be those of a report's config: a name and three numbers each")


def input_files(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the files that options read, by option; a background's load, which names no file, is passed on, too."""
    named = {name: options.get(name) for name in ("profile", "background", "flows")}
    topology = in_python(options.get("topology"))
    return named | {"topology": file_of(topology) if topology else None}


OPTIONS: Mapping[str, Option] = declared(Experiment)
"""The options of an experiment, by the field that holds each; its effects have their own."""
EFFECTS = {each.name: field for field, each in declared(Effects).items()}
"""The fields of the effects, by the option that sets each."""
