"""The ends of a job's ranks, and the choice of the exit message that tells the cause."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netsim._util.errors import NetsimError
from netsim.distributed.rank_context import HINT

CONSEQUENCES = ("PeerSilentError", "PeerLostError", "Stopped")
"""Kinds of exit messages that another rank's failure causes, the most telling first."""


class RankFailedError(NetsimError):
    """A rank ended with an error, and the others were stopped.

    Parameters
    ----------
    message
        The cause, in one line.
    exit_code
        Exit status for the command.
    kind
        Class of the rank's error; empty if unknown.

    Attributes
    ----------
    results : list of dict
        Results of rank 0 before the failure.
    """

    def __init__(self, message: str, exit_code: int, kind: str = "") -> None:
        super().__init__(message, exit_code)
        self.exit_code = exit_code
        self.kind = kind
        self.results: list[dict[str, Any]] = []

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class ExitMessage:
    """The error that ended a process, as the process itself reported it.

    Parameters
    ----------
    kind
        Class of the error.
    message
        The error, in one line.
    exit_code
        Exit status.
    peer
        The rank that the process waited for; None if it waited for no rank.
    """

    kind: str
    message: str
    exit_code: int
    peer: int | None = None


@dataclass(frozen=True, slots=True)
class RankExit:
    """The end of a process.

    Parameters
    ----------
    name
        A rank, or the forkserver's name.
    code
        Exit status; None if the process still ran.
    halted
        Whether it was stopped by a signal or a debugger.
    message
        Its exit message; None if it left none.
    last_line
        Last line of its stderr.
    """

    name: int | str
    code: int | None
    halted: bool
    message: ExitMessage | None
    last_line: str

    def without_message(self) -> str | None:
        """Return in words the end of a process that left no exit message or was stopped; None for any other."""
        who = f"rank {self.name}" if isinstance(self.name, int) else f"the {self.name} of the ranks"
        if self.halted:
            return f"{who} is stopped (a SIGSTOP, or a debugger)"
        if self.message is not None or not self.code:
            return None
        if self.code < 0:
            return f"{who} was killed by {signal.Signals(-self.code).name}"
        return f"{who} ended with exit status {self.code}" + (f": {self.last_line}" if self.last_line else "")


def diagnose(exits: Mapping[int | str, RankExit], reached: str = "") -> tuple[str, int]:
    """Return the message and the exit status of a job with a failed process.

    A rank's own error comes first. Then comes a rank that died without an exit message or is stopped, with the message
    of a rank that waited for it. Then comes a rank that waited in vain for one that did not. A closed connection mostly
    is the consequence of one of these, and comes last.

    Parameters
    ----------
    exits
        How each process ended, by name.
    reached
        How far the ranks came, in words.
    """
    messages = {name: rank_exit.message for name, rank_exit in exits.items() if rank_exit.message is not None}
    errors = [message for message in messages.values() if message.kind not in CONSEQUENCES]
    if errors:
        first = min(errors, key=lambda message: message.exit_code != 2)
        return first.message, first.exit_code
    gone = [(name, how) for name, rank_exit in exits.items() if (how := rank_exit.without_message()) is not None]
    if gone:
        name, how = gone[0]
        ordered = sorted(messages.values(), key=lambda message: (message.peer != name, message.kind == "Stopped"))
        where = [message.message.removesuffix(HINT) for message in ordered[:1]] or [reached] * bool(reached)
        return "; ".join([how, *where]), 1
    for kind in CONSEQUENCES:
        waited = [message for message in messages.values() if message.kind == kind]
        if not waited:
            continue
        first = min(waited, key=lambda message: _peer_waited_too(message, messages, kind))
        peer = messages.get(first.peer) if first.peer is not None else None
        also = [peer.message.removesuffix(HINT)] if peer is not None and kind == "PeerSilentError" else []
        return "; ".join([*also, first.message]), first.exit_code
    return "the ranks ended without a word", 1


def _peer_waited_too(message: ExitMessage, messages: Mapping[int | str, ExitMessage], kind: str) -> bool:
    """Return whether a rank's peer ended with the same kind of error; its message is then closer to the cause."""
    peer = messages.get(message.peer) if message.peer is not None else None
    return peer is not None and peer.kind == kind
