"""The interface of a distributed-SGD algorithm: an exchange of vectors, and a training step built on it.

A new algorithm is one file in :mod:`algorithms` and one line in its registry. It usually overrides
:meth:`Algorithm.exchange` only: the coroutine by which one rank turns its own vector into the sum over all ranks.

An algorithm object is shared by all ranks and never changes. Whatever a rank remembers between steps, such as a
residual, is an argument of `exchange` and part of its return value. The object can therefore run in the simulator, in
memory and over torch.distributed alike, and a checkpoint can save the memory of each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from netsim._util.options import Option
from netsim.comm.payload import Precision, Vector, VectorT, rounded, template_of, widened
from netsim.comm.worker import Compute, Worker
from netsim.training.sgd import Scaled, SGDConfig, descend, multiplied, prepare, weigh

Gradient: TypeAlias = Callable[[Vector], Compute[Vector]]
"""Maps parameters to the computation of the worker's mini-batch gradient; await it, or pass it to another one."""

Contribution: TypeAlias = Vector | Compute[Vector | Scaled]
"""A worker's input to an exchange: a vector, or the computation that produces it."""

TensorShapes: TypeAlias = tuple[tuple[int, ...], ...]
"""The shape of each tensor of a vector."""


class Convergence(StrEnum):
    """How the steps of an algorithm differ from those of dense SGD, on which the number of rounds to a loss depends."""

    EXACT = "dense SGD"
    """The mean of all gradients: as many rounds as dense SGD takes."""
    ROUNDED = "16-bit values"
    """The mean of all gradients, whose values messages round to 16 bits: `EXACT` with ``--dtype`` fp16 or bf16."""
    FEEDBACK = "error feedback"
    """Compressed vectors; each worker keeps the error as a residual, and adds it to its next vector."""
    UNBIASED = "unbiased"
    """Vectors compressed at random, whose expected value is the vector."""
    BIASED = "biased"
    """Compressed vectors whose errors nothing corrects."""
    STALE = "skipped uploads"
    """Earlier vectors of workers whose vectors have changed little."""
    LOCAL = "local steps"
    """Steps of each worker by itself, and a mean of what they moved, every H steps."""


class State(NamedTuple):
    """The state of a rank between steps: the memory of its exchange, and the velocity of momentum."""

    memory: Any
    velocity: Vector | None


class Algorithm:
    """Synchronous SGD: x ← x - (1/P) Σ_p γ g_p. Subclasses implement the exchange that computes the sum.

    Attributes
    ----------
    name, title
        The name on the command line, and the name in tables and sentences; the name of the class by default.
    colour
        The colour in pictures, such as "#0173b2"; a class derived from it has another one.
    exchanges, sends
        How vectors are exchanged, and how much is sent in a round: the row of ``docs/algorithms.md``.
    sparse
        Whether the algorithm selects k of d entries.
    lossy
        Whether the sum is approximate although all d entries are exchanged, as with quantised values or low rank.
    convergence
        How the steps differ from those of dense SGD. By default they do not, unless the class is `sparse` or `lossy`
        (biased), or `steps_locally`.
    tried_as
        The options of each candidate that the algorithm is in ``netsim recommend``.
    untried
        Why ``netsim recommend`` tries the algorithm only if it is named, in words such as "bytes that depend on the
        data"; empty if it tries it without.
    same_parameters_as
        The name of an algorithm whose parameters this one has after every step, up to the order of sums; None for an
        algorithm with results of its own, and for steps of dense SGD.
    uses_server
        Whether workers exchange through a parameter server.
    grouped
        Whether the constructor takes `groups`: for each rank, the number of its machine, rack or site.
    accumulates
        Whether `exchange` accepts the computation of a vector in place of the vector. The algorithm can then add the
        vector to its residual while computing it, without another pass over memory.
    random
        Whether entries are selected at random instead of by magnitude.
    corrects_momentum
        Whether the constructor takes `momentum_correction`: momentum at each worker, before selection.
    always_corrects
        Whether the workers apply momentum before selection also without the option momentum_correction.
    clips_locally
        Whether the option clip is the norm of the sum of independent gradients, and a worker's limit 1/√P of it.
    overlaps
        Whether a bucket of the gradient can be exchanged before the rest of the gradient is computed.
    steps_locally
        Whether workers take steps of their own between exchanges. Momentum is then each worker's own.
    concurrent
        The number of rounds during which an exchange may run beside computations; 0 if it never does.
    half_precision
        Whether the values in its messages may have 16 bits; its size rules then keep the precision of a vector.
    rounds
        Whether `exchange` takes a vector in full precision and rounds what it sends by itself, as with a residual.
    rate_on_sum
        Whether the learning rate multiplies the sum instead of each worker's vector: for an exchange whose sum does not
        grow in proportion to the vectors, such as one of signs.
    precision
        The precision of the values in messages, as :meth:`send_as` set it.
    remembers
        The NamedTuple classes of which a memory consists. A checkpoint saves and loads no other classes.
    """

    name: str
    title: str
    options: ClassVar[tuple[Option, ...]] = ()
    """The algorithm's own options, as in ``gtopk:residual=index-intersection``; each is a constructor parameter."""
    colour: ClassVar[str | None] = None
    exchanges: ClassVar[str] = ""
    sends: ClassVar[str] = ""
    sparse: ClassVar[bool] = False
    lossy: ClassVar[bool] = False
    convergence: ClassVar[Convergence] = Convergence.EXACT
    tried_as: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    untried: ClassVar[str] = ""
    same_parameters_as: ClassVar[str | None] = None
    uses_server: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    accumulates: ClassVar[bool] = False
    random: ClassVar[bool] = False
    corrects_momentum: ClassVar[bool] = False
    always_corrects: ClassVar[bool] = False
    clips_locally: ClassVar[bool] = False
    overlaps: ClassVar[bool] = True
    steps_locally: ClassVar[bool] = False
    concurrent: int = 0
    half_precision: ClassVar[bool] = False
    rounds: ClassVar[bool] = False
    rate_on_sum: ClassVar[bool] = False
    precision: Precision = "fp32"
    remembers: ClassVar[tuple[type, ...]] = ()
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    """What the constructor was given, from which an equal object can be built in another process."""

    def __init_subclass__(cls) -> None:
        for name in ("name", "title"):
            if name not in vars(cls):
                setattr(cls, name, cls.__name__)
        if "same_parameters_as" not in vars(cls):
            cls.same_parameters_as = None  # a derived class may do something else
        if cls.convergence is Convergence.EXACT and "convergence" not in vars(cls):
            if cls.steps_locally:
                cls.convergence = Convergence.LOCAL
            elif cls.sparse or cls.lossy:
                cls.convergence = Convergence.BIASED

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Return a new object that remembers the arguments of its constructor."""
        created = super().__new__(cls)
        created.arguments = args, kwargs
        return created

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    @classmethod
    def period(cls, settings: Mapping[str, Any]) -> int:
        """Return the number of rounds after which exchanges repeat, for `settings` of the algorithm's own options."""
        return 1

    @classmethod
    def is_candidate(cls, groups: Sequence[int]) -> bool:
        """Return whether ``netsim recommend`` tries the algorithm without being asked."""
        return not cls.why_untried(groups)

    @classmethod
    def why_untried(cls, groups: Sequence[int]) -> str:
        """Return why ``netsim recommend`` does not try the algorithm without being asked; empty if it does.

        It leaves out biased sums, which may not converge. It leaves out skipped uploads, because they depend on the
        data, which a simulation of sizes does not have.

        Parameters
        ----------
        groups
            For each rank, the number of its machine, rack or site.
        """
        if cls.untried:
            return cls.untried
        if cls.convergence is Convergence.BIASED:
            return "biased sums, which may not converge"
        if cls.convergence is Convergence.STALE:
            return "skipped uploads, which depend on the data"
        return "no machines, racks or sites" if cls.grouped and len(set(groups)) < 2 else ""

    def send_as(self, precision: Precision) -> None:
        """Set the precision of the values in messages, before the algorithm is used."""
        self.precision = precision

    async def rounded(self, worker: Worker, vector: VectorT) -> VectorT:
        """Return a vector as messages hold it, with its values rounded to :attr:`precision`."""
        if self.precision == "fp32":
            return vector
        narrow: VectorT = await worker.compute("update", rounded, vector, self.precision)
        return narrow

    def initial_memory(self, template: Vector) -> Any:
        """Return the memory before the first exchange; `template` is any vector of d elements."""
        return None

    def memory_sizes(self) -> Mapping[str, tuple[int, ...]]:
        """Return how many elements belong to each tensor in vectors of the memory, by name of the vector.

        Only for vectors that have other sizes than the gradient: a DDP hook cuts the memory by parameter.
        """
        return {}

    async def exchange(self, worker: Worker, vector: Any, memory: Any, template: Vector) -> tuple[Vector, Any]:
        """Exchange vectors with all other ranks.

        Parameters
        ----------
        worker
            The rank on which this coroutine runs, and its requests: send, receive, compute.
        vector
            The worker's vector (d,). It may also be a computation of one if the algorithm `accumulates`. It is None at
            a parameter server on a host of its own, which has no data.
        memory
            What this rank remembers from the exchange before.
        template
            Any vector (d,), for its size, type and device; its values have the precision of messages.

        Returns
        -------
        total
            The sum of all workers' vectors, possibly compressed; the same on every rank.
        memory
            What this rank remembers for the next exchange.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement exchange")

    async def exchange_rounded(self, worker: Worker, vector: Any, memory: Any, template: Vector) -> tuple[Vector, Any]:
        """Round a vector to the precision of messages, unless the algorithm does so itself, and exchange it."""
        if vector is not None and not self.rounds:
            vector = await self.rounded(worker, vector)
        return await self.exchange(worker, vector, memory, template_of(template, self.precision))

    def selected(self, size: int, step: int) -> int:
        """Return k, the number of entries of a vector of `size` elements that the exchange at `step` applies."""
        return size

    def residual(self, memory: Any) -> Vector | None:
        """Return the residual in a memory: the sum of vectors not yet applied (d,); None without one."""
        return None

    async def step(
        self, worker: Worker, parameters: Vector, gradient: Gradient | None, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Make one training step: compute the gradient, exchange it, and move the parameters.

        Parameters
        ----------
        worker
            The rank on which this coroutine runs.
        parameters
            The parameters x (d,) before the step.
        gradient
            The computation of the mini-batch gradient; None at a parameter server on a host of its own.
        recipe
            The hyper-parameters of SGD.
        state
            The state of this rank after the previous step.

        Returns
        -------
        parameters, state
            The parameters, and the state of this rank, after the step.
        """
        vector = None
        if gradient is not None:
            vector = await self.contribution(worker, gradient(parameters), parameters, recipe)
        total, memory = await self.exchange_rounded(worker, vector, state.memory, template=parameters)
        return await self.apply(worker, parameters, total, recipe, State(memory, state.velocity))

    async def contribution(
        self, worker: Worker, fresh: Vector | Compute[Vector], parameters: Vector, recipe: SGDConfig
    ) -> Contribution:
        """Return the input to the exchange: γ times the gradient, or its computation if nothing observes it.

        Without γ if the rate is applied to the sum.
        """
        if self.rate_on_sum:
            recipe = recipe.at_rate_one()
        gradient = fresh
        if worker.observer is not None:
            gradient = await fresh if isinstance(fresh, Compute) else fresh
            worker.observe("gradient", gradient)
        elif self.accumulates:
            return worker.compute("update", weigh, gradient, parameters, recipe, worker.step)
        return await worker.compute("update", prepare, gradient, parameters, recipe, worker.step)

    async def apply(
        self, worker: Worker, parameters: Vector, total: Vector, recipe: SGDConfig, state: State
    ) -> tuple[Vector, State]:
        """Return the parameters moved by the exchanged sum, and the state with the new velocity."""
        if self.precision != "fp32":
            total = await worker.replicated("update", widened, total)
        if self.rate_on_sum:
            total = await worker.replicated("update", multiplied, total, recipe.rate(worker.step))
        worker.observe("total", total)
        moved = await worker.replicated(
            "update", descend, parameters, total, state.velocity, recipe, worker.step, worker.workers
        )
        return moved.parameters, State(state.memory, moved.velocity)

    async def settle(self, worker: Worker, state: State) -> State:
        """Wait for everything that is still under way after the last step, before the run ends or is saved."""
        return state

    def initial_state(self, template: Vector) -> State:
        """Return the state of a rank before the first step."""
        return State(self.initial_memory(template), None)
