"""One experiment: everything that decides a result, checked once, and what is built from its names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from algorithms import OWN_OPTIONS, build_algorithm, class_of, own_options, settings_of
from algorithms.selection import How, Selector, entries
from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.options import read_fields
from netsim._util.units import format_bytes, format_duration
from netsim.comm.pieces import Piece
from netsim.comm.worker import Work
from netsim.experiment.given import by_field, of_today
from netsim.experiment.options import (
    DEFAULT_DENSITY,
    LR_DECAY,
    ROUNDS,
    AlgorithmOptions,
    CostOptions,
    NetworkOptions,
    TrainingOptions,
)
from netsim.network.effects import NONE, Effects
from netsim.training.algorithm import Algorithm
from netsim.training.catalogue import parameters_of, tensors_of
from netsim.training.overlap import Bucket, Overlapped, Ready, at_shares, even, pieces_of, ready_by_elements, shards
from netsim.training.profiled_costs import Rate
from netsim.training.sgd import Aggregate, SGDConfig
from netsim.training.workloads import WORKLOADS, check_workload
from topologies import STARS
from topologies.placement import place

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric

Momentum = Literal["sum", "workers"]
"""What momentum is applied to: the sum of the workers' vectors, or each worker's own before selection."""
MOST_WORKERS, WORKER_BYTES = 4_000_000, 280
"""What a worker takes with formulas alone; every other way takes more."""
MOST_ROUNDS_WITHOUT_DATA, ROUND_BYTES, ROUND_S = 100_000, 4096, 1e-3
"""All rounds are laid out before they are simulated; the last two are what laying out one takes."""


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
        options: Any = of_today(config)
        options |= {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
        if "effects" in options:
            options["effects"] = Effects(**options["effects"])
        return cls(**options)

    @classmethod
    def of(cls, **options: Any) -> Experiment:
        """Return an experiment from options as on the command line; those left out or None keep their default.

        Those of :meth:`config` are taken, too, and numbers, texts and arrays of one element of other libraries.
        """
        values, effects = by_field(options)
        return cls(**values, effects=Effects(**effects))

    def __post_init__(self) -> None:
        read_fields(self)
        effects, rates = cast(Any, self.effects), cast(Any, self.work_rates)
        if not isinstance(effects, Effects):
            raise UsageError(f"effects {shown(effects)} must be Effects; give each by its own option")
        if not isinstance(rates, tuple) or not all(isinstance(each, list | tuple) for each in rates):
            raise UsageError(f"work-rates {shown(rates)} must be those of a report's config")
        self._check_extent()
        self.effects.check_workers(self.workers)
        self.settle_links()
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
