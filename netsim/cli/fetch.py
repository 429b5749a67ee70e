"""``netsim fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netsim.cli.options import option


def fetch(
    data: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or cifar100.")],
    data_dir: Annotated[
        Path, option("Folder to download to; give it to simulate and run as --data-dir.", metavar="FOLDER")
    ],
) -> None:
    """Download a published data set through torchvision."""
    from netsim.training.workloads.data.fetch import fetch as download

    download(data, data_dir)
    typer.echo(f"{data} is in {data_dir}; train on it with --data {data} --data-dir {data_dir}")
