"""Downloads: a stand-in for torchvision writes what it would, and our readers find it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from netsim._util.errors import InfeasibleError, NetsimError, UsageError
from netsim.cli.main import main
from netsim.training.workloads import load_workload
from netsim.training.workloads.data import fetch as fetching
from netsim.training.workloads.data.fetch import CLASSES, fetch
from tests.test_data import write_cifar, write_mnist


def stand_in(monkeypatch: pytest.MonkeyPatch, **datasets: object) -> None:
    package = ModuleType("torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(**datasets))  # type: ignore[arg-type]


def test_what_is_fetched_is_found_by_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torchvision's own places: MNIST/raw below the root for MNIST, cifar-10-batches-py for CIFAR-10.
    def mnist(root: str, download: bool) -> None:
        assert download
        write_mnist(Path(root) / "MNIST" / "raw")

    def cifar10(root: str, download: bool) -> None:
        assert download
        write_cifar(Path(root), "cifar10")

    stand_in(monkeypatch, MNIST=mnist, CIFAR10=cifar10)
    for data, workload in (("mnist", "fc-mnist"), ("cifar10", "resnet20")):
        fetch(data, tmp_path / "new folder")
        assert data in load_workload(workload, 0, data, tmp_path / "new folder").note


def test_a_download_that_fails_is_one_line_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(root: str, download: bool) -> None:
        raise RuntimeError("Error downloading\ntrain-images-idx3-ubyte.gz")

    stand_in(monkeypatch, MNIST=unreachable)
    with pytest.raises(NetsimError, match=r"data mnist could not be downloaded .*check the network") as raised:
        fetch("mnist", tmp_path)
    assert "\n" not in str(raised.value)


def test_without_torchvision_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(InfeasibleError, match="needs torchvision"):
        fetch("mnist", tmp_path)


def test_a_torchvision_of_another_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")  # what 0.28 says on a CPU build of torch

    monkeypatch.setattr(fetching.importlib, "import_module", broken)
    with pytest.raises(InfeasibleError, match=r"does not fit torch .*nms does not exist"):
        fetch("cifar10", tmp_path)


def test_names_that_torchvision_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown data to fetch 'cifar-10' \(did you mean 'cifar10'\?\)"):
        fetch("cifar-10", tmp_path)
    assert set(CLASSES) == {"mnist", "fashion-mnist", "cifar10", "cifar100"}


def test_the_command_says_how_to_train_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, MNIST=lambda root, download: None)
    assert main(["fetch", "mnist", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"mnist is in {tmp_path}; train on it with --data mnist --data-dir {tmp_path}\n"
    assert main(["fetch", "mnist", "--data-dir", str(tmp_path), "--json"]) == 0
    document = {"schema": "netsim.fetch/1", "data": "mnist", "data_dir": str(tmp_path)}
    assert json.loads(capsys.readouterr().out) == document
    assert main(["fetch", "mnits", "--data-dir", str(tmp_path)]) == 2
    assert "did you mean 'mnist'?" in capsys.readouterr().err
