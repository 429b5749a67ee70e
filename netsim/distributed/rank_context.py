"""The current rank's operation and step, and its exit message when an error or a signal ends it.

One process is one rank, so there is one :data:`CURRENT_RANK`. A rank that waits in gloo runs no Python, and so none of
Python's signal handlers, for as long as the timeout. The C handler wakes a thread of its own, which then ends the rank.
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
from netsim._util.user_code import where

if TYPE_CHECKING:
    from netsim.comm.worker import Worker

TellFailure = Callable[[str, str, int, int | None], None]
"""``tell(kind, message, exit_code, peer)`` hands on a rank's exit message (netsim.distributed.failures.ExitMessage)."""

NotePhase = Callable[[str], None]
"""``note(where)`` tells the supervisor that this rank is in an operation that must end within the timeout.

An empty text says that it is in none."""

HINT = " (is that rank stuck, stopped or at something else, or a link down?)"
SLACK_S = 0.5
"""Seconds that a supervisor waits beyond the timeout, since a rank that times out itself can say more."""
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _ignore(where: str) -> None:
    """Ignore a phase."""


class RankContext:
    """The rank of this process and its present operation; error messages begin with them.

    Attributes
    ----------
    rank : int
        This rank.
    note : callable
        Called when the rank enters or leaves an operation that must end within the timeout; see :data:`NotePhase`.
    """

    def __init__(self) -> None:
        self.rank = 0
        self.note: NotePhase = _ignore
        self._worker: Worker | None = None
        self._doing: Callable[[], str] = str
        self._between = "starting, before step 0"

    def follow(self, worker: Worker, doing: Callable[[], str]) -> None:
        """From now on, describe this rank by the operation and step of `worker` and the text of ``doing()``."""
        self._worker, self._doing = worker, doing

    def __str__(self) -> str:
        if self._worker is None:
            return f"rank {self.rank}, {self._between}"
        doing = self._doing()
        return f"rank {self.rank}, {self._worker.operation}, step {self._worker.step}" + (f", {doing}" if doing else "")

    @contextmanager
    def between(self, operation: str, when: str) -> Iterator[None]:
        """Enter an operation of torch.distributed that no worker asked for, such as a barrier.

        Parameters
        ----------
        operation, when
            The operation in words, and its place in the run, such as "before step 0".

        Raises
        ------
        NetsimError
            Instead of torch's RuntimeError, with rank, operation and place.
        """
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
    """Return netsim's error for an error of torch.distributed.

    Parameters
    ----------
    where
        Rank, operation and step, in words.
    error
        The error of torch.distributed.
    peer
        The rank at the other end, if any.
    what
        The payload, which must be the same at both ends.

    Returns
    -------
    NetsimError
        PeerSilentError after a timeout, PeerLostError if the other end closed the connection.
    """
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "Timed out" in said or "timeout" in said.lower():
        happened, preposition = ("nothing came", "of") if "recv" in said else ("it did not go on", "with")
        payload = f" {preposition} {what}" if what else ""
        return PeerSilentError(f"{where}: {happened}{_limit(said)}{payload}{HINT}", peer)
    if any(
        sign in said for sign in ("closed by peer", "reset by peer", "Broken pipe", "pair closure", "likely closed")
    ):
        during = f" during {what}" if what else ""
        return PeerLostError(f"{where}: the other end closed the connection{during}", peer)
    return NetsimError(f"{where}: {said}")


def _limit(said: str) -> str:
    """Return the timeout that a message of gloo names, in words."""
    milliseconds = "".join(filter(str.isdecimal, said.partition("Timed out waiting ")[2].partition("ms")[0]))
    return f" for {int(milliseconds) / 1000:g} s" if milliseconds else " within the timeout"


@contextmanager
def taking_part(rank: int, tell: TellFailure | None = None, note: NotePhase = _ignore) -> Iterator[None]:
    """Run as a rank: any error ends the process at once, with an exit message on stderr.

    An exception would not do, since a peer that still waits for this rank keeps the interpreter from ending.

    Parameters
    ----------
    rank
        This rank.
    tell
        Told the exit message.
    note
        Told when the rank enters or leaves an operation that must end within the timeout.
    """
    CURRENT_RANK.rank, CURRENT_RANK.note = rank, note
    with _heeding_signals(tell):
        try:
            yield
        except NetsimError as error:
            end(type(error).__name__, str(error), error.exit_code, tell, getattr(error, "peer", None))
        except Exception as error:
            if isinstance(error, RuntimeError) and isinstance(
                translated := failure(str(CURRENT_RANK), error), PeerError
            ):
                end(type(translated).__name__, str(translated), translated.exit_code, tell, translated.peer)
            end("", f"{CURRENT_RANK}: {in_one_line(error)}{where(error)}", 1, tell)


_ENDING = threading.Lock()


def end(kind: str, message: str, code: int, tell: TellFailure | None, peer: int | None = None) -> None:
    """End this process with an exit message; if an error and a signal come at once, only the first ends it.

    Parameters
    ----------
    kind, message, code, peer
        The exit message (netsim.distributed.failures.ExitMessage).
    tell
        Told the exit message.
    """
    _ENDING.acquire()
    if tell is not None:
        tell(kind, message, code, peer)
    print(f"netsim: {message}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


class Alarm:
    """A :data:`NotePhase` for a rank without a supervisor: it ends the rank if an operation lasts too long.

    Parameters
    ----------
    timeout_s
        Seconds after which an operation lasts too long.
    tell
        Told the exit message.
    """

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
    """End this rank on SIGINT or SIGTERM, with an exit message, even while it waits in gloo."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def heed() -> None:
        if woken := os.read(reader, 1):
            received = woken[0]
            end("Stopped", f"{CURRENT_RANK}: ended by {signal.Signals(received).name}", 128 + received, tell)

    before: dict[int, Any] = {ending: signal.getsignal(ending) for ending in ENDING_SIGNALS}
    for ending, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(ending, lambda *_: None)
    waking = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=heed, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(waking)
        for ending, handler in before.items():
            signal.signal(ending, handler)
        os.close(writer)
        watcher.join()
        os.close(reader)
