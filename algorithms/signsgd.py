"""signSGD with majority vote: workers send one bit for each element, and every element moves as most workers say."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from algorithms.compression import accelerate
from algorithms.gathering import Gather
from algorithms.packing import pack, packed_bytes, unpack
from algorithms.pipelining import DEFAULT, Segment
from algorithms.quantisation import packed_like, packed_size, whole_messages
from algorithms.quantised import Quantised
from algorithms.server import OverServer, count_upload
from netsim.comm.collectives import broadcast_from_server, gather
from netsim.comm.payload import Dense, Sparse, Vector, size_rule
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm
from netsim.training.sgd import SGDConfig, zeros


class SignMemory(NamedTuple):
    """The memory of a worker: the velocity (d,) of momentum before the sign; None without it."""

    velocity: Vector | None


class MajorityVote(Algorithm):
    """An algorithm that moves every element by γ in the direction that most workers' gradients have.

        x ← x - γ sign(Σ_p sign(g_p))

    A sign has one bit, and none is 0 as sign(0) is. So a value of 0 counts as +1 in even steps and as -1 in odd ones,
    and worker t mod P decides a tie in step t. With one fixed sign, elements without a gradient would drift.

    Parameters
    ----------
    momentum_correction
        μ of the momentum that each worker applies before it takes signs, which is Signum (algorithm 1 of the paper).

    Notes
    -----
    The exchange returns P times the vote, which the mean over workers divides by P. The learning rate multiplies the
    vote. Weight decay is added to the gradient before the sign; the paper's algorithm 1 adds it to the vote.

    References
    ----------
    Bernstein, Wang, Azizzadenesheli and Anandkumar, signSGD: Compressed Optimisation for Non-Convex Problems, ICML
    2018. Bernstein, Zhao, Azizzadenesheli and Anandkumar, signSGD with Majority Vote is Communication Efficient and
    Fault Tolerant, ICLR 2019, algorithm 1.
    """

    lossy: ClassVar[bool] = True
    rate_on_sum: ClassVar[bool] = True
    corrects_momentum: ClassVar[bool] = True
    remembers: ClassVar[tuple[type, ...]] = (SignMemory,)
    momentum: float

    def initial_memory(self, template: Vector) -> SignMemory:
        """Return a velocity of zeros under momentum correction."""
        assert not isinstance(template, Sparse)
        return SignMemory(zeros(template) if self.momentum else None)

    async def signs_of(self, worker: Worker, vector: Vector, memory: SignMemory) -> tuple[Vector, SignMemory]:
        """Return the packed signs of a vector, or of its momentum, and the memory with the new velocity."""
        if memory.velocity is not None:
            vector = await worker.compute("update", accelerate, memory.velocity, vector, self.momentum)
            memory = SignMemory(vector)
        return await worker.compute("select", packed_signs, vector, worker.step), memory


class SignSGD(MajorityVote, Quantised):
    """Workers send their signs to all other workers, and every worker counts the votes: (P-1) ⌈d/8⌉ bytes each.

    Communication takes the time that :class:`~algorithms.quantised.Quantised` gives for messages of ⌈d/8⌉ bytes.
    """

    name = "signsgd"
    title = "signSGD"
    colour = "#694bd2"
    exchanges = "signSGD with majority vote, all-gather"
    sends = "(P-1) d/8 bytes per worker"

    def __init__(
        self,
        momentum_correction: SGDConfig | float = 0.0,
        gather: Gather = "ring",
        segment: Segment = DEFAULT,
    ) -> None:
        Quantised.__init__(self, gather, segment)
        self.momentum = _momentum_of(momentum_correction)

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: SignMemory, template: Vector
    ) -> tuple[Vector, SignMemory]:
        """Return P times the vote of the workers' signs (d,)."""
        assert vector is not None
        signs, memory = await self.signs_of(worker, vector, memory)
        everyones = await self.gathered(worker, signs)
        vote = await worker.replicated("merge", majority, template, worker.workers, worker.step, *everyones)
        return await worker.replicated("merge", votes, template, worker.workers, vote), memory


class ParameterServerSignSGD(MajorityVote, OverServer):
    """Workers send their signs to a server, which sends the vote to all: ⌈d/8⌉ bytes up and ⌈d/8⌉ bytes down.

    Communication takes 2 (α + n ⌈d/8⌉ β) for n workers that are not the server itself, with β the time of a byte.
    """

    name = "ps-signsgd"
    title = "PS signSGD"
    colour = "#ff5a96"
    exchanges = "signSGD with majority vote over a parameter server"
    sends = "d/8 bytes to the server, d/8 back"
    same_parameters_as: ClassVar[str | None] = "signsgd"
    half_precision: ClassVar[bool] = False

    def __init__(self, momentum_correction: SGDConfig | float = 0.0, serial_server: bool = False) -> None:
        OverServer.__init__(self, serial_server)
        self.momentum = _momentum_of(momentum_correction)

    async def exchange(
        self, worker: Worker, vector: Vector | None, memory: SignMemory, template: Vector
    ) -> tuple[Vector, SignMemory]:
        """Return P times the vote of the workers' signs (d,), which the server counts."""
        signs = None
        if vector is not None:
            signs, memory = await self.signs_of(worker, vector, memory)
            count_upload(worker, signs)
        like = packed_like(template, 1)
        everyones = await gather(worker, signs, like, self.serial)
        counted = None
        if everyones is not None:
            counted = await worker.compute("merge", majority, template, worker.workers, worker.step, *everyones)
        vote = await broadcast_from_server(worker, counted, like)
        return await worker.replicated("merge", votes, template, worker.workers, vote), memory


def _momentum_of(correction: SGDConfig | float) -> float:
    return correction.momentum if isinstance(correction, SGDConfig) else correction


@size_rule(lambda vector, step: packed_size(vector, 1))
def packed_signs(vector: Dense, step: int) -> Dense:
    """Return a bit for each element of a vector (d,), in ⌈d/8⌉ bytes: 1 for positive values, in even steps also 0."""
    values = vector.values
    return Dense(pack(values > 0 if step % 2 else values >= 0, 1))


@size_rule(lambda template, workers, step, *signs: packed_size(template, 1))
def majority(template: Dense, workers: int, step: int, *signs: Dense) -> Dense:
    """Return the packed signs that most workers have; worker `step` mod P decides a tie.

    Parameters
    ----------
    template
        (d,), for the size.
    workers
        P.
    step
        t.
    signs
        The packed signs in rank order; those of a worker may be in several consecutive slices.
    """
    import torch

    size, dtype = template.size, torch.uint8 if workers < 128 else torch.int32
    twice = torch.zeros(size, dtype=dtype, device=template.values.device)  # the votes for +1, and half a vote for a tie
    for rank, message in enumerate(whole_messages(signs, packed_bytes(size, 1))):
        vote = unpack(message, 1, size)
        twice += 3 * vote if rank == step % workers else 2 * vote
    return Dense(pack(twice > workers, 1))


@size_rule(lambda template, workers, vote: template)
def votes(template: Dense, workers: int, vote: Dense) -> Dense:
    """Return P or -P for each bit of a vote, as a vector (d,) like `template`."""
    signs = unpack(vote.values, 1, template.size).to(template.values.dtype)
    return Dense(signs.mul_(2 * workers).sub_(workers))
