"""A task of ranks that tells what their process had imported when it was forked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from netsim._util.progress import OnRound

IMPORTED: list[str] = []


def _note() -> None:
    IMPORTED[:] = [name for name in ("torch", "torch.distributed", "numba") if name in sys.modules]


os.register_at_fork(after_in_child=_note)


def imported(details: Mapping[str, Any], rank: int, on_round: OnRound) -> Iterator[dict[str, Any]]:
    """Yield the modules that were there before the ranks were, when all ranks are connected.

    A rank that left at once would close connections that another rank still makes.
    """
    import torch.distributed as dist

    dist.barrier()
    yield {"imported": IMPORTED}
