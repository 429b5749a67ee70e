"""How the ranks of a job ended, and which of their last words tells what happened."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from netsim._util.errors import NetsimError
from netsim.distributed.rank_context import HINT


class RankFailedError(NetsimError):
    """A rank ended with an error; the others were stopped.

    Parameters
    ----------
    kind
        The class of the rank's error; empty if that is not known.
    results
        What rank 0 had found out before.
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
    """What a process said of its end: the error's class, its message, the exit status, and the rank it waited for."""

    kind: str
    message: str
    exit_code: int
    peer: int | None = None


@dataclass(frozen=True, slots=True)
class RankExit:
    """How a process ended: its exit status (None: it did not), whether it was halted, what it said, its last line."""

    name: int | str
    code: int | None
    halted: bool
    word: ExitMessage | None
    last_line: str

    def how(self) -> str | None:
        """Return in words how it ended without a word of its own, None if it did not."""
        who = f"rank {self.name}" if isinstance(self.name, int) else f"the {self.name} of the ranks"
        if self.halted:
            return f"{who} is stopped (a SIGSTOP, or a debugger)"
        if self.word is not None or not self.code:
            return None
        if self.code < 0:
            return f"{who} was killed by {signal.Signals(-self.code).name}"
        return f"{who} ended with exit status {self.code}" + (f": {self.last_line}" if self.last_line else "")


def diagnose(endings: Mapping[int | str, RankExit], reached: str = "") -> tuple[str, int]:
    """Return the message and the exit status of a job of which a process failed; `reached` says how far it was.

    An error of a rank's own comes first; then a rank that died without a word or is stopped, with where
    another was that waited for it; then who waited in vain for somebody who did not. That a connection was
    closed is mostly the consequence of one of these.
    """
    words = {name: ending.word for name, ending in endings.items() if ending.word is not None}
    own = [word for word in words.values() if word.kind not in ("PeerSilentError", "PeerLostError", "Stopped")]
    if own:
        first = min(own, key=lambda word: word.exit_code != 2)
        return first.message, first.exit_code
    gone = [(name, how) for name, ending in endings.items() if (how := ending.how()) is not None]
    if gone:
        name, how = gone[0]
        seen = sorted(words.values(), key=lambda word: (word.peer != name, word.kind == "Stopped"))
        where = [word.message.removesuffix(HINT) for word in seen[:1]] or [reached] * bool(reached)
        return "; ".join([how, *where]), 1
    for kind in ("PeerSilentError", "PeerLostError", "Stopped"):
        waited = [word for word in words.values() if word.kind == kind]
        if not waited:
            continue
        first = min(waited, key=lambda word: _waits_in_vain(word, words, kind))
        other = words.get(first.peer) if first.peer is not None else None
        also = [other.message.removesuffix(HINT)] if other is not None and kind == "PeerSilentError" else []
        return "; ".join([*also, first.message]), first.exit_code
    return "the ranks ended without a word", 1


def _waits_in_vain(word: ExitMessage, words: Mapping[int | str, ExitMessage], kind: str) -> bool:
    """Return whether it waited for somebody who waited in vain, too: then that one knows better."""
    other = words.get(word.peer) if word.peer is not None else None
    return other is not None and other.kind == kind
