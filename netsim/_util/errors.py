"""What netsim raises: one line each, naming the value, what was expected and the likely fix."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from typing import Any


class NetsimError(Exception):
    """A run that could not go on. The command line exits with ``exit_code``."""

    exit_code = 1


class UsageError(NetsimError, ValueError):
    """A value the user gave cannot be used."""

    exit_code = 2


class InfeasibleError(NetsimError):
    """The request is well formed, but this machine or this data cannot carry it out."""

    exit_code = 3


class InterruptedRunError(NetsimError):
    """The user stopped a run that can go on later."""

    exit_code = 130


class IncompleteError(NetsimError):
    """Something is missing; `report` is what came out, None if nothing did."""

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report


class UnwrittenError(IncompleteError):
    """The work was done, but a file of it could not be written."""


class ReplicasDivergedError(NetsimError):
    """Workers that must hold the same parameters do not."""


class NonFiniteGradientError(NetsimError):
    """A gradient holds NaN or infinity; training on would poison every worker's residual."""


class AlgorithmsFailedError(IncompleteError):
    """Some algorithms have no result; `failed` tells why, by name, and the report has the others."""

    def __init__(self, message: str, report: Any, failed: Mapping[str, NetsimError]) -> None:
        super().__init__(message, report)
        self.failed = dict(failed)
        self.exit_code = next(iter(self.failed.values())).exit_code


class DivergedError(AlgorithmsFailedError, NonFiniteGradientError):
    """The training of some algorithms diverged; the report has the others."""


class DeadlockError(NetsimError):
    """Nothing can happen any more, but some ranks still wait, or some messages were never received."""


class LinkDownError(NetsimError):
    """A link is down and stays down, and all that could still happen waits for it."""


class ProtocolError(NetsimError):
    """A message is not the one its receiver asked for."""


class PeerError(NetsimError):
    """A rank could not go on for something that happened elsewhere; `peer` is the rank it waited for, if known."""

    def __init__(self, message: str, peer: int | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class PeerSilentError(PeerError):
    """Nothing came from a peer, or went to it, for as long as the timeout."""


class PeerLostError(PeerError):
    """A peer ended, or gave up: mostly the consequence of an error that another rank tells of."""


def unreadable(what: str, error: Exception, fix: str = "give the path of a file that is there") -> UsageError:
    """Return the error for a file that a user named and that cannot be read."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        fix = "name a file that may be read"
    return UsageError(f"{what} cannot be read: {reason_of(error)}; {fix}")


def reason_of(error: Exception) -> str:
    """Return the system's reason of an error, such as "Permission denied", without the name of the file."""
    return getattr(error, "strerror", None) or str(error)


def text_of(error: BaseException, most: int = 300) -> str:
    """Return what an error says, on one line and cut after `most` characters; a compiler's text may run to pages."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]} …"


def in_one_line(error: BaseException) -> str:
    """Return the class of an error and its text, as the last line of a traceback has them."""
    return f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")


def check_file_name(what: str, name: object) -> None:
    """Raise UsageError for a name that no file can have; Python and TOML can hold such, the command line cannot."""
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"{what} {shown(name)} must be the name of a file")
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UsageError(f"{what} {shown(str(name))} has a character that no name of a file can have")


def shown(value: object, most: int = 80) -> str:
    """Return a value as an error names it: its repr, cut where that is long, on one line."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "of more digits than can be written"
    return text if len(text) <= most + 20 else f"{text[:most]}… ({len(text):,} characters)"


def check_digits(name: str, value: object) -> None:
    """Raise UsageError for a value with a number that Python cannot write: no message could name it."""
    try:
        repr(value)
    except ValueError:
        raise UsageError(f"{name} has more digits than can be written; give a number of at most 300 digits") from None


def suggestion(value: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the choice closest to `value`, or an empty string."""
    choices = list(choices)
    # A choice that differs in case alone is meant, before any that differs in a letter.
    same = [choice for choice in choices if choice.casefold() == value.casefold()]
    close = difflib.get_close_matches(value, same or choices, n=1, cutoff=0 if same else 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(kind: str, value: object, choices: Iterable[str]) -> None:
    """Raise UsageError unless `value` is one of the names that there are."""
    choices = list(choices)
    if not isinstance(value, str):
        raise UsageError(f"{kind} {shown(value)} must be a name; known: {', '.join(choices)}")
    if value not in choices:
        raise unknown(kind, value, choices)


def unknown(kind: str, value: str, choices: Iterable[str]) -> UsageError:
    """Return the error for a name that is in no registry."""
    choices = list(choices)
    return UsageError(f"unknown {kind} {value!r}{suggestion(value, choices)}; known: {', '.join(choices)}")
