"""The device that computes gradients: its name, the GPU of a rank, exact arithmetic, streams, and facts for reports.

A device is "cpu" or "cuda:i". For "cpu" nothing here needs a GPU, nor a torch that was built for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from netsim._util.errors import UsageError, suggestion

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""The environment variable with which cuBLAS adds in one order on every stream, and its value."""
DRIVER = Path("/proc/driver/nvidia/version")


def check_device(name: str) -> None:
    """Raise UsageError unless `name` is the name of a device, whether or not this machine has it."""
    if re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name) is None:
        close = suggestion(name, ["auto", "cpu", "cuda"])
        raise UsageError(f"unknown device {name!r}{close}; expected auto, cpu, cuda or cuda:0")


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda:i" for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``; auto is a GPU if there is one."""
    check_device(name)
    kind, _, index = name.partition(":")
    available = number_of_gpus()
    if kind == "cpu" or (kind == "auto" and not available):
        return "cpu"
    if int(index or 0) >= available:
        raise UsageError(f"device {name!r} was not found: torch sees {available} CUDA devices; use --device cpu")
    return f"cuda:{int(index or 0)}"


def is_gpu(device: str) -> bool:
    """Return whether a device is a GPU."""
    return device.startswith("cuda")


def number_of_gpus() -> int:
    """Return the number of GPUs that torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpus_beside(device: str, asked: str) -> list[str]:
    """Return the further GPUs that compute gradients of a simulation beside `device`.

    These are all of the same model as `device`, which have the same bits, unless `asked`, the option, names one GPU.
    """
    if not is_gpu(device) or asked not in ("auto", "cuda"):
        return []
    import torch

    model = torch.cuda.get_device_name(device)
    others = (f"cuda:{index}" for index in range(number_of_gpus()))
    return [each for each in others if each != device and torch.cuda.get_device_name(each) == model]


def gpu_of_rank(device: str) -> str:
    """Return the device of this process as a rank; the ranks of a machine share all its GPUs if none is named."""
    if device in ("auto", "cuda") and (gpus := number_of_gpus()):
        return f"cuda:{local_rank() % gpus}"
    return resolve_device(device)


def local_rank() -> int:
    """Return the number of this process among the ranks of its machine, as torchrun counts them."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def check_gpu_each(ranks: int, device: str) -> None:
    """Raise UsageError unless there is a GPU for each of a job's ranks on this machine, as nccl needs it."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks))
    if ":" in device and here > 1:
        raise UsageError(
            f"device {device!r} is one GPU, and backend 'nccl' needs one for each of {here} ranks; use --device cuda, "
            "or --backend gloo"
        )
    if here > (gpus := number_of_gpus()):
        raise UsageError(
            f"backend 'nccl' needs a GPU for each rank: {here} ranks on this machine, and torch sees {gpus}; start "
            "fewer ranks, or use --backend gloo"
        )


@contextmanager
def exact_arithmetic(device: str, tf32: bool = False) -> Iterator[None]:
    """Let a GPU compute in float32 and the same bits every time, within this block; a CPU does so anyway.

    Parameters
    ----------
    device
        Where gradients are computed.
    tf32
        Whether products may round their factors to TF32, with 10 bits of mantissa. torch's default is yes for
        convolutions, and no for matrices.
    """
    if not is_gpu(device):
        yield
        return
    import torch

    os.environ.setdefault(*WORKSPACE)  # before the first matrix product, which makes cuBLAS read it
    cudnn, matrices = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matrices.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32 = matrices.allow_tf32 = tf32
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, matrices.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def gpu_facts(device: str) -> dict[str, Any]:
    """Return name, versions and settings of a GPU for a report; nothing for a CPU."""
    if not is_gpu(device):
        return {}
    import torch

    cudnn = torch.backends.cudnn
    return {
        "device_name": torch.cuda.get_device_name(device),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),  # type: ignore[no-untyped-call]
        "tf32": cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
        "deterministic": cudnn.deterministic and not cudnn.benchmark and bool(os.environ.get(WORKSPACE[0])),
    }


def _driver() -> str | None:
    """Return the version of Nvidia's driver; None where the system does not report it."""
    try:
        words = DRIVER.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError):
        return None
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def wait_for_gpu(device: str) -> None:
    """Wait until the GPU has done what this thread had it do; other streams go on."""
    if is_gpu(device):
        import torch

        torch.cuda.current_stream(device).synchronize()


def on_own_stream(device: str, urgent: bool = False) -> AbstractContextManager[Any]:
    """Return a block in which this thread's work on a GPU goes to a stream of its own, beside that of other threads.

    The kernels of an `urgent` stream begin before those of others. torch has 32 streams of each priority, and gives
    them out in turn: with another priority, a stream that lives long is never given out again.
    """
    if not is_gpu(device):
        return nullcontext()
    import torch

    return torch.cuda.stream(torch.cuda.Stream(device, priority=-urgent))  # type: ignore[no-untyped-call]
