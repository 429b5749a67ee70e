"""Registration of an algorithm as the communication hook of a DistributedDataParallel model."""

# DDP compares the annotations of a hook with types, so annotations must not be texts here.

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from algorithms import ALGORITHMS, class_of, own_options, text_of, with_options
from netsim._util.errors import UsageError, shown, unknown
from netsim.comm.pieces import Piece
from netsim.comm.worker import Worker
from netsim.ddp.hook import ExchangeHook
from netsim.ddp.memory import check_divisible
from netsim.distributed.interpreter import RankInterpreter
from netsim.experiment.configuration import Experiment
from netsim.training.algorithm import Algorithm

OPTIONS = ("density", "k", "per_tensor", "select", "density_warmup", "momentum", "momentum_correction", "seed")
"""Options of :func:`netsim.simulate` that a hook has; all others are DDP's, the optimiser's or a simulation's."""
BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
"""Backends of the hook's own process group, by that of the model."""


def register(
    model: DistributedDataParallel,
    algorithm: str | type[Algorithm] | Algorithm,
    *,
    scaler: torch.amp.GradScaler | None = None,
    timeout: float | None = None,
    **options: Any,
) -> ExchangeHook:
    """Let an algorithm exchange the gradients of a DDP model; call it on all ranks, before the first backward pass.

    Parameters
    ----------
    model
        The model, on gloo or nccl.
    algorithm
        The algorithm as for :func:`netsim.simulate`: a text such as "gtopk" or "./mine.py:Mine:beta=0.9", a class or an
        object. Its exchange must be like an all-reduce: one with a parameter server, or that skips uploads, is refused.
    scaler
        The ``torch.amp.GradScaler`` of the training. Residuals are then kept unscaled, and after an overflow on any
        rank all ranks skip the step and keep their residuals.
    timeout
        Seconds that a communication may wait before the backward pass fails; None for the default of
        torch.distributed.
    **options
        ``density``, ``k``, ``per_tensor``, ``select``, ``density_warmup``, ``seed``, and ``momentum`` with
        ``momentum_correction``, as for :func:`netsim.simulate`.

    Returns
    -------
    ExchangeHook
        The state of the hook; its ``state_dict`` belongs into the checkpoint of this rank.

    Raises
    ------
    UsageError
        For a model or an algorithm that cannot be combined, and if ranks register differently.

    Notes
    -----
    The residual holds gradients g. In :func:`netsim.simulate` it holds γ g, as in line 3 of the gTop-k paper. The two
    are the same training as long as the learning rate γ does not change.

    Examples
    --------
    >>> import netsim
    >>> model = torch.nn.parallel.DistributedDataParallel(net)  # doctest: +SKIP
    >>> hook = netsim.ddp.register(model, "gtopk", density=1e-3)  # doctest: +SKIP
    """
    _check_model(model)
    text = text_of(algorithm)
    _check_algorithm(text)
    if unsupported := next((name for name in options if name not in OPTIONS), None):
        raise unknown("option of a DDP hook", unsupported, OPTIONS)
    if options.get("momentum") and not options.get("momentum_correction"):
        raise UsageError(
            f"momentum {shown(options['momentum'])} was given to a DDP hook, but momentum on the sum is the "
            "optimiser's; give it to torch.optim.SGD, or add momentum_correction=True"
        )
    text = _with_machines(text)
    workers = dist.get_world_size(model.process_group)
    experiment = Experiment.of(workers=workers, algorithm=[text], **options)
    names = {parameter: name for name, parameter in model.module.named_parameters() if parameter.requires_grad}
    elements = sum(parameter.numel() for parameter in names)
    experiment.k_of(elements)

    def algorithm_of(sizes: tuple[int, ...], index: int) -> Algorithm:
        size = sum(sizes)
        return experiment.bucket_algorithm(text, (*sizes, elements - size), Piece(0, size, (0, len(sizes)), 1.0), index)

    check_divisible(algorithm_of(tuple(parameter.numel() for parameter in names), 0))
    device = next(iter(names)).device
    backend = _backend(model, device)
    group = dist.new_group(
        dist.get_process_group_ranks(model.process_group),
        None if timeout is None else timedelta(seconds=timeout),
        BACKENDS[backend],
        use_local_synchronization=True,
    )
    worker = Worker(dist.get_rank(group), workers)
    _check_same(group, experiment, {name: parameter.numel() for parameter, name in names.items()})
    interpreter = RankInterpreter(worker, str(device), backend, group=group)
    hook = ExchangeHook(text, algorithm_of, names, worker, interpreter, group, model.find_unused_parameters, scaler)
    try:
        model.register_comm_hook(hook, exchange_bucket)
    except RuntimeError as error:
        raise UsageError(f"the model takes no hook ({str(error).splitlines()[0]}); register one hook, once") from error
    return hook


def exchange_bucket(state: ExchangeHook, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Exchange a bucket: the hook as DDP calls it."""
    return state.start(bucket)


def _check_model(model: Any) -> None:
    """Raise UsageError unless a model is a DistributedDataParallel whose gradients are all dense."""
    if not isinstance(model, DistributedDataParallel):
        why = ""
        if any(kind.__name__ in ("FSDPModule", "FullyShardedDataParallel") for kind in type(model).__mro__):
            why = (
                " no, because FSDP adds gradients up in a reduce-scatter before a hook sees them, and a worker's "
                "residual needs its own gradient;"
            )
        raise UsageError(
            f"a DDP hook for a {type(model).__name__}:{why} expected a DistributedDataParallel; wrap the model in one"
        )
    for name, module in model.module.named_modules():
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) and module.sparse:
            raise UsageError(
                f"module {name!r} has sparse=True, expected dense gradients, from which algorithms select themselves; "
                "leave sparse out"
            )


def _check_algorithm(text: Any) -> None:
    """Raise UsageError unless an algorithm is a replacement of an all-reduce."""
    kind, why = class_of(text), None
    if kind.uses_server:
        why = "its workers send to a parameter server, and DDP has none"
    elif not kind.overlaps:
        why = "its rule looks at the whole gradient, and DDP hands over one bucket at a time"
    elif any(getattr(kind, part) is not getattr(Algorithm, part) for part in ("step", "contribution", "apply")):
        why = "its training step is its own, and in DDP the optimiser makes the step"
    if why is not None:
        others = ", ".join(name for name, other in ALGORITHMS.items() if not other.uses_server)
        raise UsageError(f"algorithm {text!r} as a DDP hook: no, because {why}; take one of {others}")


def _with_machines(text: str) -> str:
    """Return the text of an algorithm, with the ranks of a machine as a group if it needs groups and names none."""
    if not class_of(text).grouped or "group_size" in own_options(text):
        return text
    if (ranks := os.environ.get("LOCAL_WORLD_SIZE", "")).isdecimal():  # as torchrun sets it
        return with_options(text, group_size=int(ranks))
    raise UsageError(
        f"algorithm {text!r} needs groups, and LOCAL_WORLD_SIZE is not set as by torchrun; give {text}:group-size=N "
        "for N ranks a machine"
    )


def _backend(model: DistributedDataParallel, device: torch.device) -> str:
    """Return the backend of a model's process group for its device; raise UsageError for one that cannot be used."""
    config = dict(item.split(":") for item in dist.get_backend_config(model.process_group).split(","))
    if (backend := config.get(device.type, "none")) not in BACKENDS:
        raise UsageError(f"backend {backend!r} of the model's process group cannot be used; expected gloo or nccl")
    return backend


def _check_same(group: dist.ProcessGroup, experiment: Experiment, sizes: dict[str, int]) -> None:
    """Raise UsageError, on all ranks, unless all ranks register the same algorithm for the same parameters."""
    options = {name: value for name, value in experiment.config().items() if name in (*OPTIONS, "algorithms")}
    mine = {"algorithm": options, "parameters": sizes}
    everyones: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyones, mine, group)
    for rank, theirs in enumerate(everyones):
        for what, value in everyones[0].items():
            if theirs[what] != value:
                raise UsageError(
                    f"rank {rank} registered another {what} than rank 0: {shown(str(theirs[what]))}, expected "
                    f"{shown(str(value))}; register the same on all ranks"
                )
