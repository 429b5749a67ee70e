"""``netsim recommend``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from netsim._util.standard_streams import reader_may_go
from netsim.analysis import NCCL_COMMUNICATOR, RECOMMEND_CHANGES, RECOMMEND_OPTIONS
from netsim.cli.common import points_progress, rest_delivered, say_json
from netsim.cli.options import COMMON, OUTPUT, Json, option, takes, whole

if TYPE_CHECKING:
    from netsim.analysis.recommend import Recommendation


@takes(
    *RECOMMEND_OPTIONS,
    required=("workers", "compute_time"),
    changed=RECOMMEND_CHANGES,
    fan_out=8,
    communicator=NCCL_COMMUNICATOR,
)
def recommend(
    topology: Annotated[
        str, option("Topology of the network, or several with commas.", panel=COMMON, metavar="NAME,...")
    ] = "star",
    algorithm: Annotated[
        str | None,
        option(
            "Candidates, with commas. [default: dense SGD, also in bf16, methods with error feedback, unbiased "
            "quantisers and local methods]",
            panel=COMMON,
            metavar="NAME,...",
        ),
    ] = None,
    density: Annotated[
        str, option("Densities of sparse candidates, with commas.", panel=COMMON, metavar="X,...")
    ] = "0.001,0.01",
    overlap: Annotated[
        str | None,
        option(
            "Sizes of buckets with which candidates also overlap backward, with commas, or none. [default: 25MB as in "
            "DDP, 10MB and 50MB, where overlap may pay]",
            panel=COMMON,
            metavar="SIZE,...",
        ),
    ] = None,
    validation: Annotated[
        Path | None,
        option("Folder of netsim validate --out, to compare the lead with errors of predictions.", metavar="FOLDER"),
    ] = None,
    jobs: Annotated[int, option("Simulations at the same time; 0: one per core.", parser=whole, metavar="N")] = 0,
    out: Annotated[
        Path | None,
        option(
            "Also write a page with a picture of the ranking, the picture as SVG, the table as CSV, and the JSON "
            "document to this folder.",
            panel=OUTPUT,
            metavar="FOLDER",
        ),
    ] = None,
    commands: Annotated[
        bool, option("Print the command that reproduces each row.", "--commands", panel=OUTPUT)
    ] = False,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Rank algorithms, densities and overlap for a model on a network, and state how robust the ranking is."""
    from netsim.api.grids import recommend as ranked

    given: dict[str, Any] = dict.fromkeys(RECOMMEND_OPTIONS) | options
    show = partial(_show, as_json=as_json, commands=commands)
    with rest_delivered(show), points_progress("simulating") as on_point:
        recommendation = ranked(
            topology=topology,
            algorithm=algorithm or None,
            density=density,
            overlap=overlap,
            validation=validation,
            out=out,
            jobs=jobs,
            on_point=on_point,
            progress=False,
            **given,
        )
    show(recommendation)


def _show(recommendation: Recommendation, *, as_json: bool, commands: bool) -> None:
    if as_json:
        say_json(recommendation.to_json())
        return
    from netsim.analysis.recommend_shown import render
    from netsim.report.text import stdout_console

    with reader_may_go():
        render(recommendation, stdout_console(), commands=commands)
