"""The interpreter in memory: messages arrive at once and nothing takes time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.backends.cooperative import Done
from netsim.backends.path import Path
from netsim.payload import Payload
from netsim.worker import Compute


class Instant:
    """A medium without time."""

    now = 0

    def carry(self, src: int, dst: int, payload: Payload, path: Path, done: Done) -> None:
        done(None, path)

    def compute(self, request: Compute[Any], call: Callable[[], Any], path: Path, done: Done) -> None:
        done(call(), path)

    def advance(self) -> bool:
        return False
