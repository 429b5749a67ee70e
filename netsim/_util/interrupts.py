"""SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, so that a run that is stopped cleans up.

This module imports nothing slow, because the handlers are set before the rest of netsim is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TYPE_CHECKING = False  # typing itself takes time to import
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_S = 0.02
"""Seconds until a lost interrupt is sent again.

One is lost in code that cannot raise, such as ``__del__``, and in libraries that take it for a failed import.
"""
IMPORTS = "<frozen importlib._bootstrap>"
INSTALLED = ("site-packages", "dist-packages")
OWN = ("netsim", "algorithms", "topologies", "studies")


class Interrupts:
    """A signal handler that raises KeyboardInterrupt, and keeps the numbers of the signals in `came`.

    Parameters
    ----------
    block
        Frame of the code that is interrupted. Imports below it go on only if a library has caught the exception; the
        signal is then sent again.
    """

    def __init__(self, block: FrameType) -> None:
        self.came: list[int] = []
        self.block: FrameType | None = block

    def __call__(self, number: int, frame: FrameType | None) -> None:
        stack = list(self._stack(frame))
        if any(map(_is_import_of_library, stack)):
            # torch's C++ code, which its modules call, aborts the process at an exception; NumPy's ignores it.
            _soon(os.kill, os.getpid(), number)
            return
        self.came.append(number)
        if importing := [each for each in stack if each.f_code.co_filename == IMPORTS]:
            _soon(self._unless_left, importing[-1], number)
        raise KeyboardInterrupt

    def _stack(self, frame: FrameType | None) -> Iterator[FrameType]:
        """Yield a frame and its callers, up to the block."""
        while frame is not None and frame is not self.block:
            yield frame
            frame = frame.f_back

    def _unless_left(self, importing: FrameType, number: int) -> None:
        """Send a signal again if the main thread is still importing."""
        now = sys._current_frames().get(threading.main_thread().ident or 0)
        if any(each is importing for each in self._stack(now)):
            os.kill(os.getpid(), number)


def _is_import_of_library(frame: FrameType) -> bool:
    """Return whether a frame executes the body of an installed module that is not netsim's."""
    code = frame.f_code
    if code.co_name != "<module>" or not any(f"{os.sep}{place}{os.sep}" in code.co_filename for place in INSTALLED):
        return False
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in OWN


def _soon(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function from another thread after a moment."""
    timer = threading.Timer(AGAIN_S, function, arguments)
    timer.daemon = True
    timer.start()


@contextmanager
def ended_politely(*, last: bool = False) -> Iterator[Interrupts]:
    """Raise KeyboardInterrupt for all three signals within this block; ignored signals stay ignored, as under nohup.

    With `last`, the process ends after the block, and a signal that comes then kills it without a message.
    """
    interrupts = Interrupts(sys._getframe(2))  # past this generator and contextlib
    before = {number: handler for number, handler in _heeded().items() if not isinstance(handler, Interrupts)}
    for number in before:
        signal.signal(number, interrupts)
    hook = sys.unraisablehook

    def lost(unraisable: Any) -> None:
        if interrupts.came and issubclass(unraisable.exc_type, KeyboardInterrupt):
            _soon(os.kill, os.getpid(), interrupts.came[-1])
        else:
            hook(unraisable)

    if before:
        sys.unraisablehook = lost
    try:
        yield interrupts
    finally:
        interrupts.block = None
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if last else handler)


def is_interrupt(error: BaseException) -> bool:
    """Return whether an error is a KeyboardInterrupt, or one that code made of it, as numba does between its calls."""
    each: BaseException | None = error
    while each is not None and not isinstance(each, KeyboardInterrupt):
        each = each.__cause__ or each.__context__
    return each is not None


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
