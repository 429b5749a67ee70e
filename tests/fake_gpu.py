"""A CPU that passes for a GPU, for tests of the path of ``--device cuda`` on machines without one.

A :class:`FakeCuda` tensor says that it is on ``cuda:0``, or on another GPU, and holds its data in main memory. Like a
tensor on a GPU it refuses ``numpy()``, ``data_ptr()`` and to be mixed with tensors of another device. Operators on it
count the kernels that a GPU would launch, the times that the CPU would wait for the GPU, and the copies that wait for
nothing.

The number of kernels of an operator is that of PyTorch's CUDA sources where it is not one, and rough. It serves to
compare two ways of a computation, and to notice a way that becomes longer. Nothing here tells time.

``python -m tests.fake_gpu`` counts what selection and merging of gTop-k take in a round.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from algorithms.gtopk import GTopK
from algorithms.selection import Selector
from netsim.comm.payload import Dense
from netsim.comm.worker import Worker
from netsim.simulator.lock_step import LockStep
from netsim.training.costs import AssumedCosts
from netsim.training.workloads import gpu_task
from tests import fake_streams
from tests.fake_streams import FakeEvent, FakeGraph, FakeStream, Operator, Order, gpu_of

CUDA = torch.device("cuda:0")
LAUNCHES = {"sort": 6, "topk": 4, "nonzero": 3, "isin": 4, "convolution_backward": 2, "equal": 2}
"""Kernels of an operator that launches another number than one."""
VIEWS = {
    *("view", "_unsafe_view", "view_as", "_reshape_alias", "as_strided", "alias", "detach", "lift_fresh", "set_"),
    *("split_with_sizes", "split", "tensor_split", "unbind", "narrow", "slice", "select", "diagonal", "expand"),
    *("t", "transpose", "permute", "unsqueeze", "squeeze", "is_same_size", "is_pinned", "resize_"),
    *("empty", "empty_like", "new_empty", "empty_strided"),
}
"""Operators that launch nothing."""
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "equal", "is_nonzero"}
"""Operators whose result the CPU needs before it goes on."""


@dataclass
class Counts:
    """What a GPU would have done.

    Attributes
    ----------
    launches, waits, copies
        Kernels launched; times that the CPU waited for the GPU; copies between main memory and GPU that did not wait.
    synchronised
        Times that the CPU waited for all streams of the device.
    operators
        How often each operator launched something or waited, by name.
    memory, most_memory
        Bytes of all tensors on the GPU that live, and the most of them since it was last set; what an operator needs
        inside is not counted.
    """

    launches: int = 0
    waits: int = 0
    copies: int = 0
    synchronised: int = 0
    operators: Counter[str] = field(default_factory=Counter)
    memory: int = 0
    most_memory: int = 0

    def launched(self, name: str, kernels: int = 1) -> None:
        """Count the kernels of an operator."""
        self.launches += kernels
        self.operators[name] += 1

    def waited(self, what: str) -> None:
        """Count a wait of the CPU for the GPU."""
        self.waits += 1
        self.operators[f"wait: {what}"] += 1


class FakeCuda(torch.Tensor):
    """A tensor that says it is on a GPU; `held` has its data in main memory."""

    held: torch.Tensor
    gpu: torch.device
    freed: Callable[[], Any]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor, gpu: torch.device = CUDA) -> FakeCuda:
        made: FakeCuda = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held, made.gpu = held, gpu
        made.freed = _gpu.allocated(made)
        return made

    device = property(lambda self: self.gpu)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        """The tensor without its history, and with a version count of its own."""
        return FakeCuda(self.held.data, self.gpu)

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        assert isinstance(other, FakeCuda), "data of another device"
        assert other.gpu == self.gpu, "data of another GPU"
        self.freed()
        self.held = other.held
        self.freed = _gpu.allocated(self)

    def numpy(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse, as a tensor on a GPU does."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy

    def data_ptr(self) -> NoReturn:
        """Refuse: on a GPU this is not an address of main memory."""
        raise RuntimeError("data_ptr of a tensor on a GPU")

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        """Return a copy in main memory."""
        return self.to("cpu")

    def tolist(self) -> Any:
        """Return the elements as Python's numbers, for which the CPU waits."""
        fake_streams.order.waits("tolist", fake_streams.order.current_stream(self.gpu))
        return self.held.tolist()

    def new_tensor(self, data: Any, **options: Any) -> torch.Tensor:
        """Return a tensor of the data on the GPU, after a copy that waits."""
        fake_streams.order.waits("copy to the GPU", fake_streams.order.current_stream(self.gpu))
        return FakeCuda(torch.tensor(data, dtype=options.get("dtype", self.held.dtype)), self.gpu)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            value = FakeCuda(torch.tensor(value, dtype=self.dtype), self.gpu)
        torch.Tensor.__setitem__(self, key, value)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"FakeCuda({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _gpu.run(func, args, kwargs or {})


class _Gpu:
    """The state of the fake GPU: what it counted, and main memory that is pinned."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.order = fake_streams.order = Order(self.counts)
        self.pinned: dict[int, torch.Tensor] = {}  # by address; kept, so that no other tensor gets it
        self._tensors: Counter[int] = Counter()  # of each memory, by its address

    def allocated(self, tensor: FakeCuda) -> Callable[[], Any]:
        """Count the memory of a tensor until the last tensor in it is freed; return what frees this one."""
        memory = tensor.held.untyped_storage()
        address, size = memory.data_ptr(), memory.nbytes()
        counts, tensors, order = self.counts, self._tensors, self.order

        def freed() -> None:
            tensors[address] -= 1
            if not tensors[address]:
                counts.memory -= size
                order.freed(address)

        if not tensors[address]:
            order.allocated(address, tensor.gpu)
            counts.memory += size
            counts.most_memory = max(counts.most_memory, counts.memory)
        tensors[address] += 1
        return weakref.finalize(tensor, freed)

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Return whether the memory of a tensor was allocated with ``pin_memory=True``."""
        return tensor.untyped_storage().data_ptr() in self.pinned

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an operator, and count it if it concerns the GPU."""
        leaves = tree_leaves((args, kwargs))
        on_gpu = [leaf for leaf in leaves if isinstance(leaf, FakeCuda)]
        name = func._schema.name.split("::")[1]
        to = kwargs.get("device")
        to_gpu = to is not None and torch.device(to).type == "cuda"
        gpu = gpu_of(to) if to_gpu else on_gpu[0].gpu if on_gpu else CUDA
        pin = kwargs.pop("pin_memory", None)
        if not on_gpu and not to_gpu:
            made = func(*args, **kwargs)
            if pin:
                self.pinned[made.untyped_storage().data_ptr()] = made
            return made
        waits = self.counts.waits
        self._check(func, name, leaves, on_gpu)
        stays = self._count(name, args, kwargs, on_gpu, to)
        waits = self.counts.waits - waits
        if waits and self.order.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({name})")
        by_number = name in ("div", "div_") and len(args) == 2 and not isinstance(args[1], FakeCuda)
        if by_number and on_gpu[0].is_floating_point():
            # A GPU multiplies by the reciprocal of a number, which is rounded twice.
            func = {"div": torch.ops.aten.mul.Tensor, "div_": torch.ops.aten.mul_.Tensor}[name]
            args = [args[0], 1 / torch.as_tensor(args[1], dtype=args[0].dtype)]
        if to_gpu:
            kwargs = kwargs | {"device": "cpu"}
        plain_args, plain_kwargs = tree_map(_plain, (list(args), kwargs))
        with _disable_current_modes():
            made = func(*plain_args, **plain_kwargs)
        given = {id(tensor.held): tensor for tensor in on_gpu}

        def wrapped(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor) or isinstance(leaf, FakeCuda):
                return leaf
            if func._schema.is_mutable and id(leaf) in given:  # in place, and out=, return what they were given
                return given[id(leaf)]
            return FakeCuda(leaf, gpu)

        result = tree_map(wrapped, made) if stays else made
        if name not in VIEWS:
            read, written = _uses(func, args, kwargs)
            operator = Operator(
                name, (func, plain_args, plain_kwargs), made, read, written | _addresses(result), result
            )
            gpus = {gpu, *(tensor.gpu for tensor in on_gpu if tensor.dim() > 0)}
            self.order.ran(operator, gpus)
            if waits:
                self.order.waited(*map(self.order.current_stream, gpus))
        return result

    def _check(self, func: Any, name: str, leaves: Sequence[Any], on_gpu: Sequence[FakeCuda]) -> None:
        """Refuse tensors of both devices in one operator, except for numbers and for indices, which torch copies."""
        plain = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeCuda)]
        if any(tensor.device.type == "meta" for tensor in plain):
            raise RuntimeError(f"a meta tensor in {func}")
        if not on_gpu or name in ("copy_", "_to_copy", "set_"):
            return
        if len({tensor.gpu for tensor in on_gpu if tensor.dim() > 0}) > 1:
            raise RuntimeError(f"expected all tensors on one GPU in {func}")
        elsewhere = [tensor for tensor in plain if tensor.dim() > 0]
        indices = name.startswith("index") and not any(tensor.is_floating_point() for tensor in elsewhere)
        if elsewhere and not (indices and name not in ("index_add_", "index_fill_", "index_select", "index_copy_")):
            raise RuntimeError(f"expected all tensors on one device, found cuda:0 and cpu in {func}")
        for _ in elsewhere:
            self.counts.waited(f"copy of an index ({name})")

    def _count(
        self, name: str, args: Sequence[Any], kwargs: dict[str, Any], on_gpu: Sequence[FakeCuda], to: Any
    ) -> bool:
        """Count an operator; return whether its result is on the GPU."""
        if name in ("_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            from_gpu = isinstance(source, FakeCuda)
            into_gpu = (
                isinstance(args[0], FakeCuda) if name == "copy_" else to is None or torch.device(to).type == "cuda"
            )
            if from_gpu and into_gpu:
                self.counts.launched(name)
            elif not from_gpu and self.is_pinned(source) and (kwargs.get("non_blocking") or args[2:3] == (True,)):
                self.counts.copies += 1
            else:
                self.counts.waited("copy to the GPU" if into_gpu else "copy from the GPU")
            return into_gpu
        for _ in [leaf for leaf in tree_leaves(args[1:2]) if _is_mask(leaf)] if name.startswith("index") else ():
            self.counts.waited(f"{name} by a mask")
            self.counts.launched("nonzero", LAUNCHES["nonzero"])
        if name in WAITING:
            self.counts.waited(name)
        if name in ("_local_scalar_dense", "is_nonzero"):
            return True
        if name not in VIEWS:
            self.counts.launched(name, LAUNCHES.get(name.rstrip("_"), 1))
        return True


def _plain(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, FakeCuda) else leaf


def _addresses(leaves: Any) -> set[int]:
    """Return the addresses of the memories of all tensors on a GPU."""
    tensors = (leaf for leaf in tree_leaves(leaves) if isinstance(leaf, FakeCuda))
    return {tensor.held.untyped_storage().data_ptr() for tensor in tensors}


def _uses(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[set[int], set[int]]:
    """Return the addresses of the memories that an operator reads, and that it writes."""
    read: list[Any] = []
    written: list[Any] = []
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        writes = argument.alias_info is not None and argument.alias_info.is_write
        (written if writes else read).append(value)
    return _addresses(read), _addresses(written)


def _is_mask(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dtype in (torch.bool, torch.uint8)


_gpu = _Gpu()


class _Mode(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # skipping it imports it, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _gpu.run(func, args, dict(kwargs or {}))


def _seen() -> None:
    """Let operators of this thread be seen until it ends."""
    _Mode().__enter__()


@contextmanager
def fake_gpu(number: int = 1) -> Iterator[Counts]:
    """Let torch see `number` GPUs within this block, and yield the counts of what it has them do.

    Operators are seen in the thread of the block and in those that launch for one of several GPUs; in other threads,
    for tensors that are on the GPU. A use of memory that streams do not order fails at the end of the block.
    """
    _gpu.__init__()  # type: ignore[misc]
    tensor, of_tensors = torch.tensor, torch.where

    def on_device(data: Any, *args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        made = tensor(data, *args, **options)
        if device is None or torch.device(device).type != "cuda":
            return made
        _gpu.order.waits("copy to the GPU")
        return FakeCuda(made, gpu_of(device))

    def where(condition: torch.Tensor, one: torch.Tensor, other: Any) -> torch.Tensor:
        if isinstance(one, FakeCuda) and not isinstance(other, torch.Tensor):  # torch would put the number on "meta"
            other = FakeCuda(tensor(other, dtype=one.dtype), one.gpu)
        return of_tensors(condition, one, other)

    order = _gpu.order
    replaced: dict[str, Callable[..., Any] | type] = {
        "is_available": lambda: number > 0,
        "device_count": lambda: number,
        "get_device_name": lambda *_: "a CPU that passes for a GPU",
        "synchronize": order.synchronize,
        "_lazy_init": lambda: None,
        "set_device": lambda *_: None,
        "get_rng_state": lambda *_: torch.zeros(1, dtype=torch.uint8),
        "current_stream": order.current_stream,
        "Stream": FakeStream,
        "stream": order.stream,
        "Event": FakeEvent,
        "CUDAGraph": FakeGraph,
        "graph": order.graph,
        "graph_pool_handle": object,
    }
    with (
        mock.patch.multiple(torch.cuda, **replaced),
        mock.patch.object(torch.version, "cuda", None),  # without CUDA, Triton has nothing to launch kernels with
        mock.patch.multiple(torch, tensor=on_device, where=where),
        mock.patch.object(torch._C, "_cuda_endAllocateToPool", order.end_allocation, create=True),
        mock.patch.object(gpu_task, "ThreadPoolExecutor", partial(ThreadPoolExecutor, initializer=_seen)),
        _Mode(),
    ):
        yield _gpu.counts
    assert not order.races, Counter(order.races)


def counts_of_an_exchange(workers: int, size: int = 2**16) -> Counts:
    """Return what selections, merges and restored residuals of a round of gTop-k take, without gradients and update.

    The round is the second one: the first one also allocates the residuals, and makes them rows of a matrix. Its
    `most_memory` includes the residuals, and each gradient from when it is needed until it is added.
    """
    algorithm, steps = GTopK(Selector(40)), 2
    gradients = torch.from_numpy(np.random.default_rng(0).standard_normal((workers, size), np.float32))
    before: list[Counts] = []
    with fake_gpu() as counts:

        def gradient(rank: int) -> Dense:
            return Dense(FakeCuda(gradients[rank].clone()))

        template = gradient(0)

        async def program(worker: Worker) -> None:
            memory: Any = algorithm.initial_memory(template)
            for worker.step in range(steps):
                vector = worker.compute("gradient", gradient, worker.rank)
                _, memory = await algorithm.exchange(worker, vector, memory, template)
                ranks.end(worker)
                if worker.rank == workers - 1:
                    before.append(replace(counts))
                    counts.most_memory = 0

        ranks = LockStep([Worker(rank, workers) for rank in range(workers)], AssumedCosts({}))
        ranks.run(program)
    first, second = before
    return Counts(
        *(getattr(second, each) - getattr(first, each) for each in ("launches", "waits", "copies")),
        most_memory=second.most_memory,
    )


if __name__ == "__main__":
    print("workers  at once  kernels  waits  copies without a wait  memory / residuals")  # noqa: T201
    for workers, at_once in ((2, 32), (8, 32), (32, 32), (64, 32), (64, 3)):
        with mock.patch("algorithms.compression.AT_ONCE", at_once * 2**16):
            found = counts_of_an_exchange(workers)
        share = found.most_memory / (4 * 2**16 * workers)
        print(  # noqa: T201
            f"{workers:7}  {at_once:7}  {found.launches:7}  {found.waits:5}  {found.copies:21}  {share:18.2f}"
        )
