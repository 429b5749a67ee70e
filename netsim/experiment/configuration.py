"""The configuration of a run: its options, checked together, and the algorithms and network built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from algorithms import OWN_OPTIONS, build_algorithm, class_of, is_users, own_options, settings_of
from algorithms.selection import How, Selector, entries
from netsim._util.errors import InfeasibleError, UsageError, shown
from netsim._util.options import read_fields
from netsim._util.units import format_bandwidth, format_bytes, format_duration
from netsim.comm.payload import PRECISION_BYTES, Precision
from netsim.comm.pieces import Piece
from netsim.comm.worker import Work
from netsim.experiment.given import by_field, of_today
from netsim.experiment.options import (
    DEFAULT_DENSITY,
    LR_DECAY,
    MOST_ELEMENTS,
    ROUNDS,
    AlgorithmOptions,
    CostOptions,
    NetworkOptions,
    TrainingOptions,
)
from netsim.network.effects import NONE, Effects
from netsim.training.algorithm import Algorithm, TensorShapes
from netsim.training.catalogue import parameters_of, tensors_of
from netsim.training.costs import STEP, UPDATE, Rate
from netsim.training.overlap import Bucket, Overlapped, Ready, at_shares, even, pieces_of, ready_by_elements, shards
from netsim.training.profiler_trace import BackwardTrace
from netsim.training.sgd import Aggregate, SGDConfig
from netsim.training.workloads import WORKLOADS, check_workload
from topologies import STARS, file_of, is_own, of_routers
from topologies.placement import place

if TYPE_CHECKING:
    from netsim.network.fabric import Fabric

Momentum = Literal["sum", "workers"]
"""Where momentum is applied: to the sum of the workers' vectors, or to each worker's vector before selection."""
MOST_WORKERS, WORKER_BYTES = 4_000_000, 280
"""Largest number of workers, and bytes of memory per worker with closed forms; every other computation needs more."""
MOST_ROUNDS_WITHOUT_DATA, ROUND_BYTES, ROUND_S = 100_000, 4096, 1e-3
"""Largest number of rounds without data, and the memory (bytes) and time (seconds) to prepare one round.

All rounds are prepared before the first one is simulated."""


@dataclass(frozen=True, kw_only=True)
class Experiment(CostOptions, TrainingOptions, AlgorithmOptions, NetworkOptions):
    """The configuration of a run, in SI units; :meth:`of` builds it from options by their command-line names.

    A timing-only run may set ``elements``, or a ``model`` of the catalogue. Otherwise the workload decides the size of
    the gradient. At most one of ``k`` and ``density`` may be set.

    ``bandwidth_bps`` and ``latency_s`` remain None if the topology's file or keys set the value of every link; setting
    them is then an error. ``bandwidth_scale`` and ``latency_scale`` multiply the values of all links.

    Raises
    ------
    UsageError
        For a value that cannot be used, and for options that contradict each other.
    InfeasibleError
        For more workers or rounds than any machine can simulate.
    """

    effects: Effects = NONE
    work_rates: tuple[tuple[str, float, float, float], ...] = ()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Experiment:
        """Return the experiment with this :meth:`config`, which may have been written as JSON and read again."""
        options: Any = of_today(config)
        options |= {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
        if "effects" in options:
            options["effects"] = Effects(**options["effects"])
        return cls(**options)

    @classmethod
    def of(cls, **options: Any) -> Experiment:
        """Return an experiment from options by their command-line names, or by their names in :meth:`config`.

        An option that is missing or None has its default. Values may be numbers or texts of other libraries, such as
        NumPy, and arrays of one element.
        """
        values, effects = by_field(options)
        return cls(**values, effects=Effects(**effects))

    def __post_init__(self) -> None:
        read_fields(self)
        effects, rates = cast(Any, self.effects), cast(Any, self.work_rates)
        if not isinstance(effects, Effects):
            raise UsageError(f"effects {shown(effects)} must be Effects; give each by its own option")
        if not isinstance(rates, tuple) or not all(isinstance(rate, list | tuple) for rate in rates):
            raise UsageError(f"work-rates {shown(rates)} must be those of a report's config")
        self._check_extent()
        self.effects.check_workers(self.workers)
        self.settle_links()
        check_workload(self.workload, self.data, self.split, self.sampling)
        self._check_recipe()
        self._check_overlap()
        self._check_dtype()
        self._check_servers()
        self._check_selection()
        self._check_sizes()

    def _check_extent(self) -> None:
        """Raise InfeasibleError for more workers or rounds than any machine can simulate."""
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
            if self.ready is not None and self.trace is None:
                raise UsageError(f"ready {self.ready!r} was given, but nothing overlaps; add --overlap 25MB")
            if self.ready is not None and self.compute_time_s is not None:
                raise UsageError(
                    f"ready {self.ready!r} was given, but nothing overlaps, and --compute-time replaces the compute "
                    "time of the trace; add --overlap 25MB, or leave one out"
                )
            if self.communicator == "serial":
                raise UsageError("communicator 'serial' was given, but there is one exchange only; add --overlap 25MB")
            return
        if self.clip is not None:
            raise UsageError(
                f"clip {self.clip} was given with --overlap, but a gradient's norm is known when all of it is; "
                "leave one out"
            )
        for name in self.algorithms:
            if not class_of(name).overlaps:
                raise UsageError(
                    f"{name} was asked for with --overlap, but it sends nothing before the whole gradient is "
                    "computed; leave one out"
                )

    def _check_dtype(self) -> None:
        for name in self.algorithms:
            if self.dtype != "fp32" and not class_of(name).half_precision:
                instead = ", or set half_precision = True in its class once they can" if is_users(name) else ""
                raise UsageError(
                    f"dtype {self.dtype!r} was given, but the messages of {name} cannot hold 16-bit values; leave it "
                    f"out{instead}"
                )

    def _check_servers(self) -> None:
        if self.servers < 2:
            return
        for name in (name for name in self.algorithms if class_of(name).uses_server):
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
        """Raise UsageError for `model` or `elements` without `timing_only`, for both, and for fewer elements than k."""
        if self.model is not None:
            if not self.timing_only:
                raise UsageError(
                    f"model {self.model!r} is known by its sizes alone; add --timing-only, or train one with --workload"
                )
            if self.elements is not None:
                raise UsageError(f"both model {self.model!r} and elements {self.elements} were given; give one of them")
            elements = parameters_of(self.model)
            if elements > MOST_ELEMENTS:
                raise InfeasibleError(
                    f"model {self.model!r} has {elements:,} parameters, expected at most {MOST_ELEMENTS:,}, because an "
                    "index is an int32; take a smaller model"
                )
            self.k_of(elements)
        elif self.elements is not None:
            if not self.timing_only:
                raise UsageError(
                    f"elements {self.elements} was given, but the workload decides how many there are; "
                    "add --timing-only to run without data"
                )
            self.k_of(self.elements)

    @property
    def value_bytes(self) -> int:
        """Bytes of a value in messages."""
        return PRECISION_BYTES[cast(Precision, self.dtype)]

    @property
    def round_count(self) -> int:
        """Number of rounds to run.

        By default without data, these are the fewest rounds after which those of all algorithms repeat: one, or the
        steps of a local method from one exchange to the next.
        """
        if self.rounds is not None:
            return self.rounds
        return _period(self.algorithms) if self.timing_only else ROUNDS

    def data_name(self) -> str | None:
        """Return the name of the training data; None for a timing-only run."""
        if self.timing_only:
            return None
        if self.workload not in WORKLOADS:
            return "its own data"
        return self.data or WORKLOADS[self.workload].default

    def known_tensors(self) -> tuple[int, ...]:
        """Return the elements of each tensor, by `model` or `elements`; empty if the workload decides.

        Without a model, the tensors are those of the trace that ``ready`` names, or else overlap divides `elements`
        into equal tensors, one for each bucket.
        """
        if self.model is not None:
            return tuple(tensor.size for tensor in tensors_of(self.model))
        if self.elements is None:
            return ()
        if self.trace is not None and self.trace.tensors:
            self.trace.check(self.elements)
            return self.trace.tensors
        return (self.elements,) if self.overlap is None else even(self.elements, self.overlap, self.value_bytes)

    def known_shapes(self) -> TensorShapes:
        """Return the shape of each tensor of :meth:`known_tensors`; empty if only sizes are known."""
        return () if self.model is None else tuple(tensor.shape for tensor in tensors_of(self.model))

    def k_of(self, elements: int) -> int:
        """Return the entries that a sparse algorithm selects from d = `elements`: k, or max(1, floor(density d))."""
        if self.k is None:
            density = DEFAULT_DENSITY if self.density is None else self.density
            return entries(density, elements)
        if self.k > elements:
            raise UsageError(f"k {self.k} is more than the {elements} elements there are; give --k at most {elements}")
        return self.k

    def selector(self, tensors: tuple[int, ...], piece: Piece | None = None) -> Selector:
        """Return the selector of sparse algorithms for a whole vector, or for a `piece` of it.

        Parameters
        ----------
        tensors
            Elements of each tensor of the vector.
        piece
            The piece; None for the whole vector. A piece of n of d elements selects max(1, floor(k n / d)) entries.
        """
        density = DEFAULT_DENSITY if self.density is None else self.density
        in_piece = tensors if piece is None else tensors[slice(*piece.tensors)]
        whole = sum(tensors)
        size = whole if piece is None else piece.last - piece.first
        if self.per_tensor:
            chosen = Selector.per_tensor(density, in_piece)
        elif self.k is not None:
            chosen = Selector(max(1, self.k_of(whole) * size // whole))
        else:
            chosen = Selector(self.k_of(size))
        return replace(chosen, how=cast(How, self.select), warmup_rounds=self.density_warmup)

    def k_in_all(self, name: str, tensors: tuple[int, ...]) -> int:
        """Return the number of entries that an algorithm selects, summed over all pieces of the vector."""
        pieces, _ = self._exchanged(name, tensors)
        if len(pieces) == 1:
            return self.selector(tensors).k
        return sum(self.selector(tensors, piece).k for piece in pieces)

    def pieces(self, tensors: tuple[int, ...], measured: Sequence[float] | None = None) -> list[Piece]:
        """Return the pieces of the gradient in the order in which they become ready; without overlap a single one.

        Parameters
        ----------
        tensors
            Elements of each tensor of the gradient.
        measured
            For each tensor, the measured fraction of the compute time after which its gradient is ready. None for
            fractions in proportion to elements. Fractions given by ``ready``, or by its trace, replace both.

        Raises
        ------
        UsageError
            If the trace that ``ready`` names is not one of this model.
        """
        if self.overlap is None:
            if self.trace is not None:
                self.trace.check(sum(tensors))
            return [Piece(0, sum(tensors), (0, len(tensors)), 1.0)]
        ready = Ready() if self.ready is None else Ready.of(self.ready)
        pass_shares = ready_by_elements(tensors, ready.forward) if ready.trace is None else ready.trace.shares(tensors)
        shares = measured or self._in_last_pass(pass_shares)
        pieces = pieces_of(tensors, self.overlap, shares, self.value_bytes)
        return at_shares(pieces, self._in_last_pass(ready.shares)) if ready.shares else pieces

    def _in_last_pass(self, shares: Sequence[float]) -> list[float]:
        """Return fractions of one pass as fractions of a round's passes; only the last one completes a gradient."""
        return [(self.accumulate - 1 + share) / self.accumulate for share in shares]

    def algorithm(
        self, name: str, tensors: tuple[int, ...], ready: Sequence[float] | None = None, shapes: TensorShapes = ()
    ) -> Algorithm:
        """Return the algorithm of a name with this experiment's options.

        Parameters
        ----------
        name
            The algorithm.
        tensors
            Elements of each tensor of the vector.
        ready
            `measured` of :meth:`pieces`.
        shapes
            The shape of each tensor; empty if shapes are not known.
        """
        pieces, servers = self._exchanged(name, tensors, ready)
        if len(pieces) == 1:
            return self._algorithm(name, self.selector(tensors), 0, shapes)
        buckets = [
            Bucket(piece, self.bucket_algorithm(name, tensors, piece, index, shapes), index % servers)
            for index, piece in enumerate(pieces)
        ]
        return Overlapped(buckets, self.communicator == "serial")

    def bucket_algorithm(
        self, name: str, tensors: tuple[int, ...], piece: Piece, index: int, shapes: TensorShapes = ()
    ) -> Algorithm:
        """Return the algorithm that exchanges a `piece` of a vector with these tensors as its bucket `index`."""
        return self._algorithm(name, self.selector(tensors, piece), index, shapes[slice(*piece.tensors)])

    def _exchanged(
        self, name: str, tensors: tuple[int, ...], ready: Sequence[float] | None = None
    ) -> tuple[list[Piece], int]:
        """Return the pieces of the gradient that an algorithm exchanges separately, and the number of servers."""
        servers = max(1, self.servers) if class_of(name).uses_server else 1
        pieces = self.pieces(tensors, ready)
        if servers > 1 and len(pieces) == 1:
            pieces = shards(sum(tensors), len(tensors), servers)
        return pieces, servers

    def _algorithm(self, name: str, selector: Selector, bucket: int, shapes: TensorShapes) -> Algorithm:
        kind = class_of(name)
        options = {
            "selector": selector if kind.sparse else None,
            "momentum_correction": self._recipe(self.momentum) if self.momentum_of(name) == "workers" else 0.0,
            "seed": self.seed,
            "bucket": bucket,
            "shapes": shapes,
            "groups": self._groups() if kind.grouped and "group_size" not in own_options(name) else None,
        }
        algorithm = build_algorithm(name, options, strict=False)
        algorithm.send_as(cast(Precision, self.dtype))
        return algorithm

    def momentum_of(self, name: str) -> Momentum | None:
        """Return where an algorithm applies momentum, "sum" or "workers"; None without momentum.

        With momentum correction, algorithms that support it apply momentum at the workers, before selection. Dense
        algorithms apply momentum to the sum. If every worker sends at every step, both places give the same sum.
        A worker that takes steps of its own has momentum of its own, if its optimiser is SGD.
        """
        kind = class_of(name)
        if not self.momentum or (kind.steps_locally and settings_of(name).get("inner") == "adamw"):
            return None
        corrects = kind.always_corrects or (self.momentum_correction and kind.corrects_momentum)
        return "workers" if kind.steps_locally or corrects else "sum"

    def recipe(self, name: str) -> SGDConfig:
        """Return the hyper-parameters of SGD for an algorithm; their momentum is 0 if its exchange applies momentum."""
        in_exchange = self.momentum_of(name) == "workers" and not class_of(name).steps_locally
        recipe = self._recipe(0.0 if in_exchange else self.momentum)
        if recipe.clip is not None and class_of(name).clips_locally:
            return replace(recipe, clip=recipe.clip / math.sqrt(self.workers))
        return recipe

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
        """Return a description of each effect that is enabled, by the name of its option."""
        shown: dict[str, str] = {}
        if self.sharing == "rtt":
            shown["sharing"] = "links shared by 1 / latency of routes (rtt)"
        if self.host_ceiling_bps is not None:
            shown["host-ceiling"] = f"a host moves at most {format_bandwidth(self.host_ceiling_bps)}, sent and received"
        return shown | self.effects.shown()

    def reads_own(self) -> bool:
        """Return whether the network or the algorithms are defined by own code or files, which may change later."""
        own = is_own(self.topology) or any(map(is_users, self.algorithms))
        return own or file_of(self.topology) is not None or self.effects.flows_file is not None

    def fabric(self, *, everywhere: bool = False) -> Fabric:
        """Return the simulated network with the workers placed on its hosts; `everywhere`: a worker on every host."""
        from netsim.network.fabric import Fabric

        graph = self.graph()
        if everywhere:
            return Fabric(graph, len(graph.hosts))
        self._check_hosts(len(graph.hosts))
        return Fabric(graph, self.workers, place(graph, self.workers, self.placement, self.seed))

    def check_room(self) -> None:
        """Raise InfeasibleError if the topology has fewer hosts than the experiment has workers."""
        if self.topology not in STARS:  # a star has a host for every worker, and may be too large to build
            self._check_hosts(len(self.graph().hosts))

    def _check_hosts(self, hosts: int) -> None:
        if self.workers > hosts:
            more = "several hosts a router, FILE:hosts=2" if of_routers(self.topology) else "a larger topology"
            raise InfeasibleError(
                f"topology {self.topology!r} has {hosts} hosts, and {self.workers} workers need as many; take fewer "
                f"workers or {more}"
            )

    def _groups(self) -> tuple[int, ...]:
        """Return the group of every rank: the number of its machine, rack or site in the topology."""
        return tuple(self.fabric().groups.tolist())

    def assumed_costs(self) -> dict[Work, float]:
        """Return the seconds that the user assumes for a computation, by kind of work."""
        assumed: dict[Work, float] = {}
        if self.compute_time_s is not None:
            # The compute time includes the update: it is everything but the exchange.
            assumed |= {"gradient": self.accumulate * self.compute_time_s, "update": 0.0}
        if self.select_time_s is not None:
            assumed["select"] = self.select_time_s
        if self.merge_time_s is not None:
            assumed["merge"] = self.merge_time_s
        return assumed

    def rates(self) -> dict[str, Rate]:
        """Return the cost rates of the profile, and of the trace given by ``ready``, by the name of the function.

        A step is all passes of a round.
        """
        rates = {name: Rate(*rate) for name, *rate in self.work_rates}
        if self.trace is not None:
            rates |= {STEP: Rate(self.trace.gradient_s), UPDATE: Rate(self.trace.update_s)}
        if STEP in rates:
            rates[STEP] = Rate(*(self.accumulate * seconds for seconds in rates[STEP]))
        return rates

    @property
    def trace(self) -> BackwardTrace | None:
        """The backward pass in the trace that ``ready`` names; None if it names none."""
        return None if self.ready is None else Ready.of(self.ready).trace

    def for_workers(self, workers: int) -> Experiment:
        """Return the same experiment for another number of workers."""
        return replace(self, workers=workers)

    def config(self) -> dict[str, Any]:
        """Return all options, defaults included, as values that JSON can represent.

        An option that only some algorithms declare is included as well. Its value is the one that these algorithms
        have in common, or the option's default if their values differ.
        """
        values = asdict(self) | {"rounds": self.round_count}
        config = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        settings = [settings_of(algorithm) for algorithm in self.algorithms if not is_users(algorithm)]
        for name, option in OWN_OPTIONS.items():
            chosen = [setting[name] for setting in settings if name in setting]
            config[name] = chosen[0] if chosen and chosen.count(chosen[0]) == len(chosen) else option.default
        return config


@lru_cache(maxsize=256)
def _period(algorithms: tuple[str, ...]) -> int:
    """Return the number of rounds after which the rounds of all these algorithms repeat."""
    return math.lcm(*(class_of(name).period(settings_of(name)) for name in algorithms))
