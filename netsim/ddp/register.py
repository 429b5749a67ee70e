"""Registration of an algorithm as the communication hook of a model of DDP or FSDP2."""

# DDP compares the annotations of a hook with types, so annotations must not be texts here.

import math
import os
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from algorithms import ALGORITHMS, build_algorithm, class_of, own_options, taken_by, text_of, with_options
from netsim._util.errors import UsageError, shown, unknown
from netsim.comm.pieces import Piece
from netsim.comm.worker import Worker
from netsim.ddp.hook import BucketHook, ExchangeHook, ShardHook
from netsim.ddp.memory import why_indivisible
from netsim.distributed.interpreter import RankInterpreter
from netsim.experiment.configuration import Experiment
from netsim.training.algorithm import Algorithm, TensorShapes

OPTIONS = ("density", "k", "per_tensor", "select", "density_warmup", "dtype", "momentum", "momentum_correction", "seed")
"""Options of :func:`netsim.simulate` that a hook has; all others are DDP's, the optimiser's or a simulation's."""
BACKENDS = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
"""Backends of the hook's own process group, by that of the model."""


def register(
    model: DistributedDataParallel | FSDPModule,
    algorithm: str | type[Algorithm] | Algorithm,
    *,
    replicas: dist.ProcessGroup | None = None,
    scaler: torch.amp.GradScaler | None = None,
    timeout: float | None = None,
    **options: Any,
) -> ExchangeHook:
    """Let an algorithm exchange the gradients of a model; call it on all ranks, before the first backward pass.

    Parameters
    ----------
    model
        The DDP model, on gloo or nccl; or a model of ``fully_shard`` (FSDP2), sharded within groups of ranks such as
        those of a machine, whose gradients are then exchanged between the groups.
    algorithm
        The algorithm as for :func:`netsim.simulate`: a text such as "gtopk" or "./mine.py:Mine:beta=0.9", a class or an
        object. Its exchange must be like an all-reduce: one with a parameter server, or that skips uploads, is refused.
    replicas
        For FSDP2: the process group of the ranks that hold the same shard as this rank, one of each group.
    scaler
        The ``torch.amp.GradScaler`` of the training. Residuals are then kept unscaled, and after an overflow on any
        rank all ranks skip the step and keep their residuals.
    timeout
        Seconds that a communication may wait before the backward pass fails; None for the default of
        torch.distributed.
    **options
        ``density``, ``k``, ``per_tensor``, ``select``, ``density_warmup``, ``dtype``, ``seed``, and ``momentum`` with
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
    text = text_of(algorithm)
    if (why := _no_hook(class_of(text))) is not None:
        raise _refusal(text, why)
    if unsupported := next((name for name in options if name not in OPTIONS), None):
        raise unknown("option of a DDP hook:", unsupported, OPTIONS)
    corrects = options.get("momentum_correction") or class_of(text).always_corrects
    if options.get("momentum") and not corrects:
        raise UsageError(
            f"momentum {shown(options['momentum'])} was given to a DDP hook, but momentum on the sum is the "
            "optimiser's; give it to torch.optim.SGD, or add momentum_correction=True"
        )
    text = _with_machines(text)
    if isinstance(model, FSDPModule):
        ranks = _check_shards(model, text, replicas, scaler, options)
    else:
        _check_model(model)
        ranks = model.process_group
    module: torch.nn.Module = model if isinstance(model, FSDPModule) else model.module  # type: ignore[assignment]
    names = {parameter: name for name, parameter in module.named_parameters() if parameter.requires_grad}
    elements = sum(parameter.numel() for parameter in names)
    experiment = Experiment.of(workers=dist.get_world_size(ranks), algorithm=[text], **options)
    experiment.k_of(elements)

    def algorithm_of(shapes: TensorShapes, number: int) -> Algorithm:
        sizes = tuple(map(math.prod, shapes))
        size = sum(sizes)
        tensors = (*sizes, max(0, elements - size))
        return experiment.bucket_algorithm(text, tensors, Piece(0, size, (0, len(sizes)), 1.0), number, shapes)

    if (why := why_indivisible(algorithm_of(((elements,),), 0))) is not None:
        raise _refusal(text, why)
    device = next(iter(names)).device
    backend = _backend(ranks, device)
    limit = None if timeout is None else timedelta(seconds=timeout)
    members = dist.get_process_group_ranks(ranks)
    group = dist.new_group(members, limit, BACKENDS[backend], use_local_synchronization=True)
    worker = Worker(dist.get_rank(group), dist.get_world_size(group))
    _check_same(group, experiment, {name: parameter.numel() for parameter, name in names.items()})
    interpreter = RankInterpreter(worker, str(device), backend, group=group)
    common = (text, algorithm_of, worker, interpreter, group)
    if isinstance(model, FSDPModule):
        shards = ShardHook(*common)
        for number, (name, part) in enumerate(module.named_modules()):
            if isinstance(part, FSDPModule):
                part.set_all_reduce_hook(partial(shards.exchange, name, number))
        return shards
    buckets = BucketHook(names, model.find_unused_parameters, *common, scaler=scaler)
    try:
        model.register_comm_hook(buckets, exchange_bucket)
    except RuntimeError as error:
        raise UsageError(f"the model takes no hook ({str(error).splitlines()[0]}); register one hook, once") from error
    return buckets


def exchange_bucket(state: BucketHook, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Exchange a bucket: the hook as DDP calls it."""
    return state.start(bucket)


def _check_model(model: Any) -> None:
    """Raise UsageError unless a model is a DistributedDataParallel whose gradients are all dense."""
    if not isinstance(model, DistributedDataParallel):
        raise UsageError(
            f"a hook for a {type(model).__name__} was asked for, expected a DistributedDataParallel or a model of "
            "fully_shard (FSDP2); wrap the model in one"
        )
    for name, module in model.module.named_modules():
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) and module.sparse:
            raise UsageError(
                f"module {name!r} has sparse=True, expected dense gradients, from which algorithms select themselves; "
                "leave sparse out"
            )


def _check_shards(
    model: FSDPModule,
    text: str,
    replicas: dist.ProcessGroup | None,
    scaler: torch.amp.GradScaler | None,
    options: dict[str, Any],
) -> dist.ProcessGroup:
    """Return the ranks that exchange shards of an FSDP model; raise UsageError for what cannot be combined."""
    why, instead = None, ""
    if replicas is None:
        why = "within a group that shards, gradients are added up in a reduce-scatter that no hook can replace"
        instead = "shard within machines, and give replicas=, the group of the ranks with the same shard"
    elif any(parameter.device_mesh.ndim != 1 for parameter in model.parameters()):  # type: ignore[attr-defined]
        why = "a mesh of two dimensions has an all-reduce of its own, before the hook"
        instead = "give fully_shard the mesh of one dimension within which it shards"
    elif scaler is not None:
        why = "ranks with other shards would not restore their residuals after an overflow"
        instead = "train in bfloat16, without a scaler"
    elif "shapes" in taken_by(text):
        why = f"{text} needs matrices, and a shard is a flat vector with padding"
        instead = "take an algorithm that selects entries, such as gtopk"
    elif unknown_size := next((name for name in ("k", "per_tensor") if options.get(name)), None):
        why = f"{unknown_size} needs the tensors, and a shard is a flat vector with padding"
        instead = "give density"
    if why is not None or replicas is None:
        raise UsageError(f"such a hook for a model of FSDP2: no, because {why}; {instead}")
    return replicas


def _refusal(text: str, why: str) -> UsageError:
    """Return the error for an algorithm that cannot be a hook, with the names of those that can."""
    others = [name for name in ALGORITHMS if why_no_hook(name) is None]
    return UsageError(f"algorithm {text!r} as a DDP hook: no, because {why}; take one of {', '.join(others)}")


def why_no_hook(name: str) -> str | None:
    """Return why a registered algorithm cannot be a DDP hook of any model; None if it can."""
    options = {"selector": Experiment.of(workers=1).selector((1,)), "groups": (0,)}  # any: hooks differ in neither
    return _no_hook(class_of(name)) or why_indivisible(build_algorithm(name, options, strict=False))


def _no_hook(kind: type[Algorithm]) -> str | None:
    """Return why an algorithm cannot be a DDP hook; None if it can."""
    if kind.uses_server:
        return "its workers send to a parameter server, and DDP has none"
    if kind.steps_locally:
        return "its workers exchange what their own steps moved, and DDP hands over gradients"
    if not kind.overlaps:
        return "its rule looks at the whole gradient, and DDP hands over one bucket at a time"
    if any(getattr(kind, part) is not getattr(Algorithm, part) for part in ("step", "contribution", "apply")):
        return "its training step is its own, and in DDP the optimiser makes the step"
    return None


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


def _backend(ranks: dist.ProcessGroup, device: torch.device) -> str:
    """Return the backend of a process group for a device; raise UsageError for one that cannot be used."""
    config = dict(item.split(":") for item in dist.get_backend_config(ranks).split(","))
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
