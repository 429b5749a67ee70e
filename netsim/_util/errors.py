"""The exceptions of netsim. Each message is one line: the value, what was expected, and the likely fix."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class NetsimError(Exception):
    """The base of all errors of netsim. The command line exits with ``exit_code``."""

    exit_code = 1


class UsageError(NetsimError, ValueError):
    """A value that the user gave cannot be used."""

    exit_code = 2


class InfeasibleError(NetsimError):
    """The request is valid, but not possible on this machine or with this data."""

    exit_code = 3


class InterruptedRunError(NetsimError):
    """The user stopped a run that can be resumed."""

    exit_code = 130


class IncompleteError(NetsimError):
    """Some results are missing; `report` holds the others, None if there are none."""

    def __init__(self, message: str, report: Any) -> None:
        super().__init__(message)
        self.report = report


class UnconcludedError(IncompleteError, InterruptedRunError):
    """The user stopped the computation of the conclusion; the report has all results."""


class UnwrittenError(IncompleteError):
    """The run finished, but one of its files could not be written."""


class ReplicasDivergedError(NetsimError):
    """Workers that must hold equal parameters hold different ones."""


class NonFiniteGradientError(NetsimError):
    """A gradient contains NaN or infinity, which would spread to every worker's residual."""


class AlgorithmsFailedError(IncompleteError):
    """Some algorithms failed; `failed` has their errors by name, and the report the results of the others."""

    def __init__(self, message: str, report: Any, failed: Mapping[str, NetsimError]) -> None:
        super().__init__(message, report)
        self.failed = dict(failed)
        self.exit_code = next(iter(self.failed.values())).exit_code


class DivergedError(AlgorithmsFailedError, NonFiniteGradientError):
    """The training of some algorithms diverged; the report has the results of the others."""


class DeadlockError(NetsimError):
    """No event is left, but ranks still wait, or messages were never received."""


class LinkDownError(NetsimError):
    """A link is down for good, and every message on its way waits for it."""


class ProtocolError(NetsimError):
    """A request or message breaks the rules of communication, for example with another payload than expected."""


class PeerError(NetsimError):
    """A rank stopped because of an event elsewhere; `peer` is the rank that it waited for, None if unknown."""

    def __init__(self, message: str, peer: int | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class PeerSilentError(PeerError):
    """A message to or from a peer did not complete within the timeout."""


class PeerLostError(PeerError):
    """A peer ended or gave up; usually the consequence of an error that another rank reports."""


def unreadable(what: str, error: Exception, fix: str = "give the path of a file that is there") -> UsageError:
    """Return the error for an input file that cannot be read; `fix` is the advice if the file does not exist."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        fix = "name a file that may be read"
    return UsageError(f"{what} cannot be read: {reason_of(error)}; {fix}")


def reason_of(error: Exception) -> str:
    """Return the system's reason for an error, such as "Permission denied", without the name of the file."""
    return getattr(error, "strerror", None) or str(error)


def text_of(error: BaseException, most: int = 300) -> str:
    """Return the message of an error on one line, cut after `most` characters; a compiler's message may fill pages."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]} …"


def in_one_line(error: BaseException) -> str:
    """Return the class and the message of an error, as the last line of a traceback shows them."""
    return f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")


def or_why_not(what: str, sentences: Callable[[], list[str]]) -> list[str]:
    """Return the sentences, or one that says why there are none: results outlive any fault of their summary."""
    try:
        return sentences()
    except Exception as error:
        import logging

        logging.getLogger(__name__).debug("the %s could not be computed", what, exc_info=error)
        why = str(error) if isinstance(error, NetsimError) else in_one_line(error)
        return [f"The {what} could not be computed: {why}."]


def check_file_name(what: str, name: object) -> None:
    """Raise UsageError for a name that no file can have; such names come from Python and TOML."""
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"{what} {shown(name)} must be the name of a file")
    try:
        possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise UsageError(f"{what} {shown(str(name))} has a character that no name of a file can have")


def shown(value: object, most: int = 80) -> str:
    """Return the repr of a value for an error message, cut if it is long.

    >>> shown("a" * 200, most=5)
    "'aaaa… (202 characters)"
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "of more digits than can be written"
    return text if len(text) <= most + 20 else f"{text[:most]}… ({len(text):,} characters)"


def check_digits(name: str, value: object) -> None:
    """Raise UsageError for a value with an integer of more digits than Python prints."""
    try:
        repr(value)
    except ValueError:
        raise UsageError(f"{name} has more digits than can be written; give a number of at most 300 digits") from None


MANY = 20
"""The most choices that an error lists beside a suggestion."""


def suggestion(value: str, choices: Iterable[str]) -> str:
    """Return a hint at the choice closest to `value`, or an empty string.

    >>> suggestion("gtpok", ["dense", "gtopk"])
    " (did you mean 'gtopk'?)"
    """
    choices = list(choices)
    # A choice that differs only in case is preferred to one that differs in a letter.
    same = [choice for choice in choices if choice.casefold() == value.casefold()]
    close = difflib.get_close_matches(value, same or choices, n=1, cutoff=0 if same else 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(kind: str, value: object, choices: Iterable[str], hint: str = "") -> None:
    """Raise UsageError, which ends with the `hint`, unless `value` is one of the `choices` of the option `kind`."""
    choices = list(choices)
    if not isinstance(value, str):
        raise UsageError(f"{kind} {shown(value)} must be a name; known: {', '.join(choices)}")
    if value not in choices:
        raise unknown(kind, value, choices, hint)


def unknown(kind: str, value: str, choices: Iterable[str], hint: str = "") -> UsageError:
    """Return the error for a `value` that is not one of the `choices`; many are left out if one of them is close.

    A `hint` stands in the place of a suggestion.

    >>> unknown("bits", "fp8", ["fp16", "bf16"], "int8 is an algorithm").args[0]
    "unknown bits 'fp8'; known: fp16, bf16; int8 is an algorithm"
    """
    choices = list(choices)
    close = "" if hint else suggestion(value, choices)
    known = f"known: {', '.join(choices)}" if not close or len(choices) <= MANY else ""
    return UsageError("; ".join(filter(None, [f"unknown {kind} {value!r}{close}", known, hint])))
