"""Download of published data sets through torchvision, into the folders that the readers search."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from netsim._util.errors import InfeasibleError, NetsimError, check_choice

CLASSES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""The class of ``torchvision.datasets`` that downloads a data set and checks its published MD5."""


def fetch(data: str, data_dir: Path) -> None:
    """Download the data set `data` to a folder in `data_dir`; existing files are checked and kept.

    Raises
    ------
    UsageError
        For a data set that torchvision does not have.
    InfeasibleError
        Without a working torchvision.
    NetsimError
        If the download fails.
    """
    check_choice("data to fetch", data, CLASSES)
    download = getattr(_torchvision_datasets(), CLASSES[data])
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        download(str(data_dir), download=True)
    except (OSError, RuntimeError) as error:
        raise NetsimError(
            f"data {data} could not be downloaded to {str(data_dir)!r}: {' '.join(str(error).split())}; "
            "check the network, or copy its files there from another machine"
        ) from error


def _torchvision_datasets() -> ModuleType:
    try:
        return importlib.import_module("torchvision.datasets")
    except ImportError:
        raise InfeasibleError(
            "downloading needs torchvision, which is not installed; pip install 'torchvision', the build that "
            "belongs to your torch (the extra 'data' names it)"
        ) from None
    except RuntimeError as error:  # torchvision's compiled operators need a matching build of torch
        import torch

        raise InfeasibleError(
            f"torchvision does not fit torch {torch.__version__} ({error}); install the build of torchvision "
            "that belongs to it"
        ) from None
