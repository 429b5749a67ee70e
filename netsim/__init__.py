"""netsim: simulation of distributed-SGD communication algorithms on networks, and the same algorithms on real ranks.

>>> import netsim
>>> report = netsim.simulate(workers=64, bandwidth="1Gbps", algorithm="gtopk", timing_only=True, elements=25_000_000)
>>> print(report.conclusion[0])
A round of gTop-k with 64 workers takes 19.8 ms (bottleneck: worker links, e.g. worker0→switch).

Importing this package is fast: torch and other libraries are imported on first use.
"""

import os
import sys

# Python puts the current folder first for ``python -m netsim``: a random.py there would run in place of Python's own.
# The folder stays if netsim itself was found there. Python has loaded os and sys by now, and typing perhaps not.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and os.path.join(sys.path[0], "netsim") != __path__[0]:  # noqa: PTH118
    del sys.path[0]

TYPE_CHECKING = False  # as checkers of types read it; typing itself takes time, in which an interrupt is a traceback
if TYPE_CHECKING:
    from typing import Any

    from netsim import ddp as ddp
    from netsim._util.errors import NetsimError as NetsimError
    from netsim._util.errors import UsageError as UsageError
    from netsim.api.grids import recommend as recommend
    from netsim.api.grids import sweep as sweep
    from netsim.api.one_exchange import exchange as exchange
    from netsim.api.real_run import run as run
    from netsim.api.simulation import simulate as simulate
    from netsim.api.studies import study as study
    from netsim.api.traffic import flows as flows
    from netsim.api.validation import validate as validate
    from netsim.experiment.results import Result as Result
    from netsim.report.exchange_result import ExchangeResult as ExchangeResult
    from netsim.report.run_report import Report as Report
    from netsim.training.workloads.workload import Workload as Workload

_HOMES = {
    "exchange": "netsim.api.one_exchange",
    "flows": "netsim.api.traffic",
    "recommend": "netsim.api.grids",
    "run": "netsim.api.real_run",
    "simulate": "netsim.api.simulation",
    "study": "netsim.api.studies",
    "sweep": "netsim.api.grids",
    "validate": "netsim.api.validation",
    "NetsimError": "netsim._util.errors",
    "UsageError": "netsim._util.errors",
    "ExchangeResult": "netsim.report.exchange_result",
    "Report": "netsim.report.run_report",
    "Result": "netsim.experiment.results",
    "Workload": "netsim.training.workloads.workload",
}
_ROOMS = ("ddp",)
__all__ = [*_HOMES, *_ROOMS, "__version__"]


def __getattr__(name: str) -> "Any":
    import importlib

    if name == "__version__":
        from netsim._util.system import version

        return version()
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'netsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
