"""``netsim fetch``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from netsim.cli.common import say_json, say_lines
from netsim.cli.options import Json, option

SCHEMA = "netsim.fetch/1"


def fetch(
    data: Annotated[str, typer.Argument(help="mnist, fashion-mnist, cifar10 or cifar100.")],
    data_dir: Annotated[
        Path, option("Folder to download to; give it to simulate and run as --data-dir.", metavar="FOLDER")
    ],
    as_json: Json = False,
) -> None:
    """Download a published data set through torchvision."""
    from netsim.training.workloads.data.fetch import fetch as download

    download(data, data_dir)
    if as_json:
        say_json(json.dumps({"schema": SCHEMA, "data": data, "data_dir": str(data_dir)}, indent=2, ensure_ascii=False))
    else:
        say_lines([f"{data} is in {data_dir}; train on it with --data {data} --data-dir {data_dir}"])
