"""The groups of hierarchical algorithms: ranks that share a machine, rack or site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from netsim._util.errors import UsageError
from netsim._util.options import Option, Whole

GROUP_SIZE: Final = Option(
    Whole(1),
    None,
    "Number of consecutive ranks that form a group.",
    otherwise="the machines or racks of the topology",
    name="group_size",
)


def groups_of_ranks(groups: Sequence[int] | int | None, workers: int) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of every group, ascending.

    Parameters
    ----------
    groups
        The group of every rank, or the size of groups of consecutive ranks. None is one group of all ranks.
    workers
        The number of ranks.

    Raises
    ------
    UsageError
        For groups that do not fit the workers.
    """
    if groups is None:
        groups = workers
    if isinstance(groups, int):
        if groups < 1:
            raise UsageError(f"groups {groups!r} must be a size of at least 1, or the group of every rank")
        groups = [rank // groups for rank in range(workers)]
    if len(groups) != workers:
        raise UsageError(f"groups for {len(groups)} ranks were given, but there are {workers} ranks")
    members: dict[int, list[int]] = {}
    for rank, group in enumerate(groups):
        members.setdefault(group, []).append(rank)
    return tuple(map(tuple, members.values()))
