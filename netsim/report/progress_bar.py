"""Progress bars for Python: in a notebook below the cell, and otherwise on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from netsim._util.progress import OnPoint

STEPS = 200
"""Updates of a bar in a notebook at most: each of them is a message to the browser."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


@contextmanager
def progress_bar(wanted: bool | None, what: str) -> Iterator[OnPoint]:
    """Yield a function that shows how many of all parts of a job are done, as text says.

    Parameters
    ----------
    wanted
        Whether to show a bar; None for a bar in notebooks only.
    what
        What is done, for a bar on stderr.
    """
    if wanted is False or (wanted is None and not in_notebook()):
        yield lambda done, total: None
    elif in_notebook():
        yield _below_the_cell()
    else:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as shown:
            bar = shown.add_task(what, total=None)
            yield lambda done, total: shown.update(bar, completed=done, total=total)


def _below_the_cell() -> Callable[[int, int], None]:
    display = import_module("IPython.display")  # it runs this process, though netsim does not depend on it
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = display.ProgressBar(total)
            bar.display()
        if STEPS * done // total != STEPS * bar.progress // bar.total or total != bar.total:
            bar.total = total
            bar.progress = done  # updates the bar

    return show
