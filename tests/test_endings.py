"""Of what several ranks say of their end, the cause is told, and not a consequence."""

from __future__ import annotations

import signal

from netsim.distributed.failures import ExitMessage, RankExit, diagnose
from netsim.distributed.rank_context import HINT


def ended(
    name: int, code: int | None, word: ExitMessage | None = None, halted: bool = False
) -> tuple[int | str, RankExit]:
    return name, RankExit(name, code, halted, word, "its last line")


def silent(rank: int, peer: int) -> ExitMessage:
    return ExitMessage(
        "PeerSilentError", f"rank {rank}, gather, step 3, receiving from rank {peer}: nothing came{HINT}", 1, peer
    )


def lost(rank: int, peer: int) -> ExitMessage:
    return ExitMessage("PeerLostError", f"rank {rank}, gather, step 3, sending to rank {peer}: closed", 1, peer)


def test_an_error_of_its_own_comes_before_what_followed_from_it() -> None:
    own = ExitMessage("NonFiniteGradientError", "rank 2, gather, step 3: NaN", 1)
    endings = dict([ended(0, 1, lost(0, 2)), ended(1, 1, silent(1, 0)), ended(2, 1, own), ended(3, -9)])
    assert diagnose(endings) == (own.message, 1)


def test_a_usage_error_comes_first_and_keeps_its_exit_status() -> None:
    wrong = ExitMessage("UsageError", "no such data", 2)
    endings = dict([ended(0, 1, ExitMessage("ProtocolError", "a message", 1)), ended(1, 2, wrong)])
    assert diagnose(endings) == ("no such data", 2)


def test_a_killed_rank_is_named_with_where_somebody_was_who_noticed() -> None:
    endings = dict([ended(0, 1, lost(0, 1)), ended(1, 1, lost(1, 2)), ended(2, -signal.SIGKILL)])
    assert diagnose(endings)[0] == f"rank 2 was killed by SIGKILL; {lost(1, 2).message}"


def test_a_stopped_rank_is_named() -> None:
    endings = dict([ended(0, 1, silent(0, 2)), ended(1, 1, silent(1, 0)), ended(2, None, halted=True)])
    message, code = diagnose(endings)
    assert message.startswith("rank 2 is stopped")
    assert message.endswith("rank 0, gather, step 3, receiving from rank 2: nothing came")
    assert code == 1


def test_who_waited_for_somebody_that_did_not_wait_in_vain_knows_best() -> None:
    stuck = ExitMessage("Stopped", "rank 2, point-to-point, step 3, computing (gradient): ended by SIGTERM", 143)
    endings = dict([ended(0, 1, silent(0, 1)), ended(1, 1, silent(1, 2)), ended(2, 143, stuck)])
    assert diagnose(endings)[0] == f"{stuck.message}; {silent(1, 2).message}"


def test_an_exit_without_a_word_is_told_with_its_last_line_and_how_far_it_was() -> None:
    assert diagnose(dict([ended(1, 3)]), "rank 0 had ended dense, step 7") == (
        "rank 1 ended with exit status 3: its last line; rank 0 had ended dense, step 7",
        1,
    )
