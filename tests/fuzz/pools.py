"""Values that inputs are made of: usual ones, ones at a limit, and hostile ones; and how a valid text is spoilt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

UNITS = [
    "bps", "bit/s", "Gbps", "Mbps", "kB/s", "GiB/s", "ps", "ns", "us", "µs", "ms", "s", "min", "h", "B", "kB", "MB",
    "GiB", "%", "x", "",
]  # fmt: skip
DIGITS = "9" * 4301
"""One digit more than Python turns into an integer without being asked to."""

NUMBERS = [
    "0", "-0", "1", "2", "3", "4", "8", "10", "0.1", "0.5", "1.5", "100", "1e3", "1e-3", ".5", "5.", "1e9", "-1",
    "-0.5", "+1", "1e-12", "1e-400", "1e300", "1e308", "1e309", "1e-999999999", "1e999999999", "9" * 40, "9" * 400,
    DIGITS, f"0.{DIGITS}", f"1e{DIGITS}", "0.0000001", "2147483647", "2147483648", "9223372036854775807",
    "18446744073709551616", "nan", "inf", "-inf", "Infinity", "1_000", "1,000", "0x10", "1e", "e5", "--1", "٣", "½",
    "²", "1e5e5", "1 000", "True", "None",
]  # fmt: skip
USUAL_NUMBERS = NUMBERS[:17]
TEXTS = [
    "", " ", "\t", "\n", "a\nb", "\r", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "é", "🙂", "𝟙", "\udcff",
    "x" * 300, "x" * 5000, "[bold]", "[/bold]", "[/]", "{}", "{0}", "%s", "%", ",", ",,", ":", "::", "=", "a=b", "a:b",
    "a,b", "+", "-", "--", "-x", "/", "//", ".", "..", "../x", "~", "*", "\\", "'", '"', "`", "$(x)", "none", "None",
    "null", "true", "all", "auto", "self", "class", "__init__", "self.x", "0", "-1", "1:1", "1->2", "@", "#", ";",
    "<a>", "&amp;",
]  # fmt: skip
HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 10**30, -(10**30), 10**400, 2**63, 2**64, 1.5, -0.0, 1e-320, 1e300, float("nan"),
    float("inf"), float("-inf"), "", "x", "1", "1e400", "\x00", "\n", "\ud800", "x" * 5000, [], [[]], {}, {"a": 1}, [1,
    "x"], {"": {}}, "self", "host", "switch", "1Gbps", "1e19bps", "50us", "0us",
]  # fmt: skip
"""Values of the kinds that JSON has."""


def chance(random: Random, part: float) -> bool:
    """Return whether something happens that happens in `part` of all cases."""
    return random.random() < part


def number(random: Random) -> str:
    """Return a number as text, more often a usual one."""
    return random.choice(USUAL_NUMBERS if chance(random, 0.5) else NUMBERS)


def quantity(random: Random) -> str:
    """Return a number with a unit."""
    return number(random) + random.choice(["", "", " "]) + random.choice(UNITS)


def text(random: Random) -> str:
    """Return text that nobody expects."""
    if chance(random, 0.7):
        return random.choice(TEXTS)
    return "".join(chr(random.choice([random.randrange(1, 128), random.randrange(1, 0x3000)])) for _ in range(
        random.randrange(12)))  # fmt: skip


def spoilt(random: Random, valid: str, times: int = 3) -> str:
    """Return a valid text with up to so many changes, none of them included."""
    for _ in range(random.randrange(times + 1)):
        at = random.randrange(len(valid) + 1)
        to = min(len(valid), at + random.randrange(1, 6))
        put = random.choice([text(random), number(random), quantity(random), valid[at:to]])
        valid = random.choice([valid[:at] + put + valid[at:], valid[:at] + valid[to:], valid[:at] + put + valid[to:],
                               valid[:at], _other_number(random, valid)])  # fmt: skip
    return valid


def _other_number(random: Random, valid: str) -> str:
    """Return `valid` with another number in the place of one of those in it."""
    places = [at for at, letter in enumerate(valid) if letter.isdigit()]
    if not places:
        return valid.swapcase()
    at = random.choice(places)
    return valid[:at] + number(random) + valid[at + 1 :]


def spoilt_bytes(random: Random, valid: bytes, times: int = 4) -> bytes:
    """Return the content of a file with bits flipped, pieces cut, doubled or put in, or in another encoding."""
    content = bytearray(valid)
    for _ in range(random.randrange(1, times + 1)):
        at = random.randrange(len(content) + 1)
        to = min(len(content), at + random.choice([1, 2, 8, 64, 512]))
        match random.randrange(7):
            case 0 if at < len(content):
                content[at] ^= 1 << random.randrange(8)
            case 1:
                del content[at:to]
            case 2:
                content[at:at] = content[at:to]
            case 3:
                del content[at:]
            case 4:
                content[at:to] = random.randbytes(to - at)
            case 5:
                content[at:to] = random.choice([text, number])(random).encode("utf-8", "surrogatepass")
            case _ if chance(random, 0.1):
                content = bytearray(
                    bytes(content).decode("latin1").encode(random.choice(["utf-16", "utf-32", "utf-7"]))
                )
    return bytes(content)


def spoilt_tree(random: Random, tree: Any, times: int = 3) -> Any:
    """Return a copy of what JSON holds with some values, keys or elements replaced, renamed, added or taken out."""
    tree = json.loads(json.dumps(tree))
    for _ in range(random.randrange(times + 1)):
        parent, place = random.choice(list(_places(tree)))
        if parent is None:
            continue
        match random.randrange(5):
            case 0 if isinstance(parent, dict):
                parent[random.choice([text(random), "self", "id", "node_for_adding", "u_of_edge"])] = parent.pop(place)
            case 1:
                del parent[place]
            case 2 if isinstance(parent, list):
                parent.insert(place, json.loads(json.dumps(parent[place])))
            case 3 if isinstance(parent, dict):
                parent[random.choice(["self", "id", "kind", "role", "key", "group", text(random)])] = hostile(random)
            case _:
                parent[place] = hostile(random)
    return tree


def hostile(random: Random) -> Any:
    """Return a value of the kinds that JSON has."""
    return random.choice([*HOSTILE, text(random), number(random), quantity(random)])


def _places(tree: Any) -> Sequence[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = [(None, None)]
    queue = [tree]
    while queue:
        each = queue.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        found += [(each, key) for key in keys]
        queue += [each[key] for key in keys]
    return found


def as_json(tree: Any) -> bytes:
    """Return JSON, or nearly: numbers that are not finite, and half of a surrogate pair, are written, too."""
    return json.dumps(tree).encode()
