"""``netsim.sweep`` and ``netsim.recommend``: many simulations and what follows from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algorithms import text_of
from netsim._util.errors import NetsimError, UnwrittenError, UsageError, check_choice, shown
from netsim._util.options import is_number, several
from netsim._util.progress import OnPoint, ignore_points
from netsim._util.storage import made_folder
from netsim._util.units import in_python, read_number
from netsim.analysis import NCCL_COMMUNICATOR, RECOMMEND_CHANGES, RECOMMEND_OPTIONS
from netsim.api.calls import check_call, shown_points
from netsim.experiment.configuration import Experiment
from netsim.experiment.option_docs import takes_options
from netsim.experiment.results import Result
from netsim.report.notebook import with_packages
from netsim.training.overlap import COMMUNICATORS

if TYPE_CHECKING:
    import pandas as pd

    from netsim.analysis.recommend import Recommendation
    from netsim.study_engine import Outcome, Point


@takes_options("Network", "Algorithms", "Training", "Costs", "Effects")
def sweep(
    *,
    cache: str | Path | None = None,
    jobs: int = 1,
    on_point: OnPoint = ignore_points,
    progress: bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Simulate every combination of some options' values.

    Parameters
    ----------
    cache
        Folder in which results are stored, by the hash of everything that determines them: options, the content of
        files that they name, data, and netsim's code. A later sweep reads them from there. Of your own code the hash
        covers the file FILE.py of FILE.py:NAME, not modules that it imports; other own code is refused. Compute times
        that were measured are stored as well.
    jobs
        Simulations at the same time: 1 in this process, more in as many processes, 0 for one per core. Several at the
        same time slow down computations whose time is measured.
    on_point
        Called with the number of finished simulations and the number of all.
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
    **options
        Options as for :func:`simulate`. A list, a range or an array of values is an axis of the grid; a tuple is one
        value. Each of several algorithms is simulated separately.

    Returns
    -------
    pandas.DataFrame
        One row per combination, the last axis varying fastest: the values of the axes as they were given, then the
        attributes of :class:`~netsim.experiment.results.Result` in SI units, except ``bytes_sent_by_rank``.
        A warning names an option that had no effect at any point.

    Raises
    ------
    UsageError
        For a value that cannot be used, and for own code that cannot be stored or sent to another process. The error
        names the combination.
    NetsimError
        If a simulation fails; the error names the combination. With `cache` the results so far are stored.

    Examples
    --------
    >>> import netsim
    >>> table = netsim.sweep(workers=[4, 64], algorithm=["gtopk", "dense"], timing_only=True, elements=1_000_000)
    >>> table[["workers", "algorithm", "round_time_s"]]
       workers algorithm  round_time_s
    0        4     gtopk      0.000456
    1        4     dense      0.048100
    2       64     gtopk      0.001368
    3       64     dense      0.069300
    """
    from netsim.study_engine.sweep import axes_of, points_of, simulate_points

    with with_packages("netsim.sweep"):
        import pandas as pd

    check_call("netsim.sweep", on_point=on_point)
    axes = axes_of(options)
    points = points_of(axes)
    with shown_points(on_point, progress) as told:
        outcomes = simulate_points(points, cache, jobs, told)
    given = [name for name, values in axes.items() if len(values) > 1 or isinstance(options.get(name), list)]
    rows = [
        {name: point[name] for name in given} | {name: value for name, value in outcome.items() if name not in given}
        for point, outcome in zip(points, outcomes, strict=True)
    ]
    for note in _idle_everywhere(points, outcomes):
        warnings.warn(note, stacklevel=2)
    table = pd.DataFrame(rows)
    return table.astype({"k": "Int64"}) if "k" in table else table


def _idle_everywhere(points: Sequence[Point], outcomes: Sequence[Outcome]) -> list[str]:
    """Return the sentences on options without effect that hold at every point."""
    from netsim.analysis.unused_options import idle_options

    first, *others = (
        idle_options(Experiment.of(**point), [Result(**outcome)], watched=False)
        for point, outcome in zip(points, outcomes, strict=True)
    )
    return [note for note in first if all(note in other for other in others)]


@takes_options(*RECOMMEND_OPTIONS, changed=RECOMMEND_CHANGES)
def recommend(
    *,
    workers: int,
    compute_time: str | float,
    topology: str | Sequence[str] = "star",
    algorithm: str | Sequence[str] | None = None,
    density: str | float | Sequence[float] = (0.001, 0.01),
    overlap: str | Sequence[str] | None = None,
    communicator: str = NCCL_COMMUNICATOR,
    validation: str | Path | None = None,
    out: str | Path | None = None,
    jobs: int = 0,
    on_point: OnPoint = ignore_points,
    progress: bool | None = None,
    **options: Any,
) -> Recommendation:
    """Rank algorithms, densities and overlap for a model on a network, and state how robust the ranking is.

    Parameters
    ----------
    workers
        Number of workers.
    compute_time
        Time of a step's computation: text with a unit, or seconds.
    topology, algorithm, density
        Topologies, candidates, and densities of sparse candidates; one, several, or text with commas. Without
        `algorithm` the candidates are those whose classes say so: dense and sparse algorithms, PowerSGD, unbiased
        quantisers and local methods; and the fastest dense SGD in bf16.
    overlap
        Sizes of buckets with which candidates also overlap backward; one, several, text with commas, or "none".
        Without it 25MB, as in DDP, 10MB and 50MB, where overlap may pay.
    communicator
        How buckets are exchanged: "serial", as on one communicator of NCCL, or "concurrent".
    validation
        Folder of ``netsim validate --out``, to compare the lead with errors of predictions.
    out
        Folder for a page with a picture of the ranking, the picture, the table as CSV, and the JSON document.
    jobs
        Simulations at the same time; 0 for one per core.
    on_point
        Called with the number of finished simulations and the number of all.
    progress
        Whether to show a progress bar; None for a bar in notebooks only.
    **options
        Further options of ``netsim recommend``, with underscores; either `model` or `elements` must be given.

    Returns
    -------
    Recommendation
        The candidates from the fastest to the slowest, and the conclusion in sentences.

    Raises
    ------
    UsageError
        For an option or a candidate that cannot be used.
    InfeasibleError
        If the simulations need more memory or time than is allowed.
    UnwrittenError
        If a file could not be written to `out`; its attribute ``report`` holds the recommendation.

    Examples
    --------
    >>> import netsim
    >>> options = {"model": "resnet50", "algorithm": "dense,gtopk", "density": 0.001, "overlap": "25MB", "jobs": 1}
    >>> advice = netsim.recommend(workers=8, compute_time="50ms", **options)
    >>> advice.to_pandas()[["rank", "title", "round_time_s"]].round(4)
       rank                         title  round_time_s
    0     1  gTop-k 0.001 in 25MB buckets        0.0512
    1     2                  gTop-k 0.001        0.0601
    2     3         dense in 25MB buckets        1.4555
    3     4                         dense        1.4813
    """
    from netsim.analysis.candidates import candidates, not_tried, read_buckets
    from netsim.analysis.recommend import recommend as ranked
    from netsim.analysis.recommend_shown import write_page
    from netsim.study_engine.validated import read_validation

    check_call("netsim.recommend", on_point=on_point)
    model, elements = options.get("model"), options.get("elements")
    if model is not None and elements is not None:
        raise UsageError("both --model and --elements were given; give one")
    if model is None and elements is None:
        raise UsageError("neither --model nor --elements was given; give one, such as --model resnet50")
    named = None if algorithm is None else [text_of(each) for each in _listed(algorithm)]
    check_choice("communicator", communicator, COMMUNICATORS)
    given = options | {"workers": workers, "compute_time": compute_time, "communicator": communicator}
    tried = candidates(named, _densities(density), _listed(topology), given)
    validated = None if validation is None else read_validation(Path(validation))
    untried = [] if named is not None else [not_tried(_listed(topology), given)]
    buckets = None if overlap is None else read_buckets(_listed(overlap))
    folder = None if out is None else made_folder("out", Path(out))
    half = "bf16" if named is None and options.get("dtype") in (None, "fp32") else None
    with shown_points(on_point, progress) as told:
        found = ranked(
            tried, given, buckets=buckets, half=half, validation=validated, untried=untried, jobs=jobs, on_point=told
        )
    if folder is not None:
        try:
            write_page(found, folder)
        except NetsimError as error:
            raise UnwrittenError(str(error), found) from error
    return found


def _listed(value: Any) -> list[Any]:
    """Return several values as a list: those of text with commas, of a sequence, or a single one."""
    if isinstance(value, str):
        return several(value)
    return list(value) if isinstance(value, list | tuple) else [value]


def _densities(value: str | float | Sequence[float]) -> list[float]:
    numbers: list[Any] = [read_number(each) if isinstance(each, str) else in_python(each) for each in _listed(value)]
    if not numbers or not all(map(is_number, numbers)):
        raise UsageError(f"density {shown(value)} must be numbers, separated by commas, such as 0.001,0.01")
    return numbers
