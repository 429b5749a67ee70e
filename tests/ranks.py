"""Functions on gloo ranks of their own, connected over loopback.

A server imports torch once, and forks the ranks: each would take seconds to import what DistributedDataParallel and the
optimisers need.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.warm import context


def on_ranks(function: Callable[..., Any], ranks: int, *args: Any, timeout_s: float = 240) -> list[Any]:
    """Return ``function(rank, ranks, *args)`` of each rank; fail if one has not ended within the timeout."""
    server = context(function.__module__)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            server.Process(target=_main, args=(function, rank, ranks, folder, args), daemon=True)
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        until = time.monotonic() + timeout_s
        try:
            for process in processes:
                process.join(max(0, until - time.monotonic()))
            assert [process.exitcode for process in processes] == [0] * ranks
            return [pickle.loads(Path(folder, f"{rank}.pickle").read_bytes()) for rank in range(ranks)]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _main(function: Callable[..., Any], rank: int, ranks: int, folder: str, args: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    limit = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks, timeout=limit)
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(function(rank, ranks, *args)))
    dist.destroy_process_group()
