"""What is trained: models with their data, by name.

To add one: a file with a function ``(seed) -> Workload``, and a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netsim.workloads.workload import Workload


def _digits_mlp(seed: int) -> Workload:
    from netsim.workloads.digits import digits_mlp

    return digits_mlp(seed)


WORKLOADS: dict[str, Callable[[int], Workload]] = {"digits-mlp": _digits_mlp}

DEFAULT = "digits-mlp"
