"""What ends a run from outside: SIGINT, SIGTERM and SIGHUP, all taken for an interrupt, so that nothing is left behind.

Imports nothing that takes time: it is at work while the rest is imported.
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
"""Seconds until a lost interrupt is sent again: one that came in code that cannot raise, such as ``__del__``."""


class Interrupts:
    """A handler that raises KeyboardInterrupt, and keeps the number of each signal that came."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came.append(number)
        raise KeyboardInterrupt


@contextmanager
def ended_politely(*, last: bool = False) -> Iterator[Interrupts]:
    """Take SIGTERM and SIGHUP for an interrupt within this; a signal that is ignored stays so, as under nohup.

    With `last`, the process ends after this, and a signal that comes then ends it without a message.
    """
    interrupts = Interrupts()
    before = {each: handler for each, handler in _heeded().items() if not isinstance(handler, Interrupts)}
    for each in before:
        signal.signal(each, interrupts)
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
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if last else handler)


@contextmanager
def held() -> Iterator[None]:
    """Have interrupts wait until this ends."""
    came: list[int] = []
    before = _heeded()
    for each in before:
        signal.signal(each, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came:
        signal.raise_signal(came[0])


def _heeded() -> dict[signal.Signals, Any]:
    """Return the handlers of the signals that this thread may take and that are not ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {each: signal.getsignal(each) for each in ENDING}
    return {each: handler for each, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
