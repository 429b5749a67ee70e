"""Shards of a study: parts of its points that jobs of a scheduler, or machines, measure without a connection.

All shards write into one folder, or into folders that are copied together. A point is a file named by its content, and
a file is written whole or not at all, so that shards need no lock and may run in any order, at the same time, or twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from netsim._util.errors import UsageError, shown
from netsim.study_engine.kinds import Point
from netsim.study_engine.store import canonical_hash

SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class Shard(NamedTuple):
    """One of several parts of a study's points; `part` counts from 1 to `parts`."""

    part: int
    parts: int

    def __str__(self) -> str:
        return f"{self.part}/{self.parts}"

    def share(self, points: Sequence[Point]) -> list[Point]:
        """Return the points of this shard, each once.

        Points are dealt out in the order of their hashes. Shards therefore differ by at most one point, each has points
        of all kinds, and the parts are the same on every machine.
        """
        by_hash = {canonical_hash(point): point for point in points}
        return [by_hash[key] for key in sorted(by_hash)[self.part - 1 :: self.parts]]


def read_shard(text: str) -> Shard:
    """Return the shard of a text such as ``3/100``; raise UsageError for any other text."""
    match = SHARD.fullmatch(text)
    if match is None:
        raise UsageError(f"shard {shown(text)} must be a part of a number of parts, such as 3/100")
    shard = Shard(int(match[1]), int(match[2]))
    if not 1 <= shard.part <= shard.parts:
        last = max(1, shard.parts)
        raise UsageError(f"shard {text!r} must be a part from 1/{last} to {last}/{last}; parts count from 1")
    return shard
