"""SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, so that a run that is stopped cleans up.

This module imports nothing slow, because the handlers are set before the rest of netsim is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # typing itself takes time to import
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.02
"""Seconds until a lost interrupt is sent again. One is lost in code that cannot raise, such as ``__del__``."""


class Interrupts:
    """A signal handler that raises KeyboardInterrupt, and keeps the numbers of the signals in `came`."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        raise KeyboardInterrupt


@contextmanager
def ended_politely(*, last: bool = False) -> Iterator[Interrupts]:
    """Raise KeyboardInterrupt for all three signals within this block; ignored signals stay ignored, as under nohup.

    With `last`, the process ends after the block, and a signal that comes then kills it without a message.
    """
    interrupts = Interrupts()
    before = {number: handler for number, handler in _heeded().items() if not isinstance(handler, Interrupts)}
    for number in before:
        signal.signal(number, interrupts)
    hook = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        if interrupts.came and issubclass(unraisable.exc_type, KeyboardInterrupt):
            again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), interrupts.came[-1]))
            again.daemon = True
            again.start()
        else:
            hook(unraisable)

    if before:
        sys.unraisablehook = lost
    try:
        yield interrupts
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if last else handler)


@contextmanager
def held() -> Iterator[None]:
    """Delay the three signals until the end of this block."""
    came: list[int] = []
    before = _heeded()
    for number in before:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def _heeded() -> dict[signal.Signals, Any]:
    """Return the handlers of those of the three signals that are not ignored; none outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in ENDING}
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
