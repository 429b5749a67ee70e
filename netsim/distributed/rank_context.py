"""Where this process is in a real run, and its last word when an error or a signal ends it.

One process is one rank, so there is one :data:`CURRENT_RANK`. A rank that waits in gloo runs no Python, and so none of
Python's signal handlers, for as long as the timeout: a thread of its own, which the C handler wakes, speaks instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from netsim._util.errors import NetsimError, PeerError, PeerLostError, PeerSilentError, in_one_line

if TYPE_CHECKING:
    from netsim.comm.worker import Worker

TellFailure = Callable[[str, str, int, int | None], None]
"""``tell(kind, message, exit_code, peer)`` hands on why a rank ends: the error's class, and which rank it is about."""

StderrNote = Callable[[str], None]
"""``note(where)`` tells whoever watches this rank that it is in an operation that must end within the timeout."""

HINT = " (is that rank stuck, stopped or at something else, or a link down?)"
SLACK_S = 0.5
"""Seconds that a watcher waits beyond the timeout: a rank that times out itself knows more, and is to say so."""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _nothing(where: str) -> None:
    """Tell nobody."""


class RankContext:
    """Which rank this is, and what it is doing; the worker that runs, if any, knows operation and step."""

    def __init__(self) -> None:
        self.rank = 0
        self.note: StderrNote = _nothing
        self._worker: Worker | None = None
        self._doing: Callable[[], str] = str
        self._between = "starting, before step 0"

    def follow(self, worker: Worker, doing: Callable[[], str]) -> None:
        """Be where `worker` is from now on; `doing()` says what it does there."""
        self._worker, self._doing = worker, doing

    def __str__(self) -> str:
        if self._worker is None:
            return f"rank {self.rank}, {self._between}"
        doing = self._doing()
        return f"rank {self.rank}, {self._worker.operation}, step {self._worker.step}" + (f", {doing}" if doing else "")

    @contextmanager
    def between(self, operation: str, when: str) -> Iterator[None]:
        """Do something of torch.distributed that no worker asked for, such as a barrier; its errors say where."""
        self._worker, self._between = None, f"{operation}, {when}"
        self.note(str(self))
        try:
            yield
        except NetsimError:
            raise
        except RuntimeError as error:
            raise failure(str(self), error) from error
        self.note("")


CURRENT_RANK = RankContext()


def failure(where: str, error: RuntimeError, peer: int | None = None, what: str = "") -> NetsimError:
    """Return what an error of torch.distributed means, said of a rank in an operation at a step.

    `what` must be the same at both ends for anything to go on.
    """
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Timed out" in said or "timeout" in said.lower():
        nothing, joint = ("nothing came", "of") if "recv" in said else ("it did not go on", "with")
        wanted = f" {joint} {what}" if what else ""
        return PeerSilentError(f"{where}: {nothing}{_limit(said)}{wanted}{HINT}", peer)
    if any(
        sign in said for sign in ("closed by peer", "reset by peer", "Broken pipe", "pair closure", "likely closed")
    ):
        during = f" during {what}" if what else ""
        return PeerLostError(f"{where}: the other end closed the connection{during}", peer)
    return NetsimError(f"{where}: {said}")


def _limit(said: str) -> str:
    milliseconds = "".join(filter(str.isdecimal, said.partition("Timed out waiting ")[2].partition("ms")[0]))
    return f" for {int(milliseconds) / 1000:g} s" if milliseconds else " within the timeout"


@contextmanager
def taking_part(rank: int, tell: TellFailure | None = None, note: StderrNote = _nothing) -> Iterator[None]:
    """Be a rank within this: whatever goes wrong ends the process at once, with a last word on stderr.

    Not by an exception, since a peer that still waits for this rank would keep the interpreter from ending.
    """
    CURRENT_RANK.rank, CURRENT_RANK.note = rank, note
    with _heeding_signals(tell):
        try:
            yield
        except NetsimError as error:
            end(type(error).__name__, str(error), error.exit_code, tell, getattr(error, "peer", None))
        except Exception as error:
            if isinstance(error, RuntimeError) and isinstance(meant := failure(str(CURRENT_RANK), error), PeerError):
                end(type(meant).__name__, str(meant), meant.exit_code, tell, meant.peer)
            end("", f"{CURRENT_RANK}: {in_one_line(error)}", 1, tell)


_ENDING = threading.Lock()


def end(kind: str, message: str, code: int, tell: TellFailure | None, peer: int | None = None) -> None:
    """End this process with a last word: the first, where an error and a signal come at once."""
    _ENDING.acquire()
    if tell is not None:
        tell(kind, message, code, peer)
    print(f"netsim: {message}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


class Alarm:
    """A :data:`StderrNote` for a rank that nobody watches: ends the rank if an operation lasts too long."""

    def __init__(self, timeout_s: float, tell: TellFailure | None = None) -> None:
        self._timeout_s, self._tell = timeout_s, tell
        self._timer: threading.Timer | None = None

    def __call__(self, where: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if where:
            self._timer = threading.Timer(self._timeout_s + SLACK_S, self._ring, [where])
            self._timer.daemon = True
            self._timer.start()

    def _ring(self, where: str) -> None:
        end("PeerSilentError", f"{where}: it did not go on within {self._timeout_s:g} s{HINT}", 1, self._tell)


@contextmanager
def _heeding_signals(tell: TellFailure | None) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say how signals are handled
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def heed() -> None:
        if woken := os.read(reader, 1):
            number = woken[0]
            end("Stopped", f"{CURRENT_RANK}: ended by {signal.Signals(number).name}", 128 + number, tell)

    before: dict[int, Any] = {each: signal.getsignal(each) for each in ENDING_SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    waking = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=heed, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(waking)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)
