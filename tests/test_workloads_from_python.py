"""Workloads given from Python: a model, a loss and a data set as objects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import netsim
from netsim._util.errors import UsageError
from netsim.training.workloads import text_of
from netsim.training.workloads.samples import EVERY

CHARGES: dict[str, Any] = {"compute_time": "1ms", "select_time": "0s", "merge_time": "0s"}
SAMPLES, FEATURES = 60, 4


def numbers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    inputs = torch.randn(SAMPLES, FEATURES, generator=random)
    return inputs, inputs.sum(1, keepdim=True)


class Pairs(Dataset[Any]):
    """A data set that returns its samples one by one."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inputs[number], self.labels[number]


def line() -> nn.Linear:
    model = nn.Linear(FEATURES, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.25)
    return model


def mean_square(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(outputs, labels)


@pytest.mark.parametrize("kind", [TensorDataset, Pairs])
def test_a_loss_of_the_user_is_minimised_from_the_values_that_the_model_has(kind: Any) -> None:
    """One worker whose batch is all training data takes steps of gradient descent, which plain torch takes here."""
    torch.set_num_threads(1)
    inputs, labels = numbers()
    trained = torch.arange(SAMPLES) % EVERY != EVERY - 1
    model = line()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.25)
    for _ in range(3):
        optimiser.zero_grad()
        mean_square(model(inputs[trained]), labels[trained]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.no_grad():
        expected = float(mean_square(model(inputs[trained]), labels[trained]))
    workload = netsim.Workload(model=line(), loss=mean_square, data=kind(inputs, labels))
    batch = int(trained.sum())
    options = CHARGES | {"lr": 0.25, "rounds": 3, "batch_size": batch, "sampling": "epochs"}
    [result] = netsim.simulate(workers=1, algorithm="dense", workload=workload, **options).results
    assert result.final_loss == pytest.approx(expected, rel=1e-5)  # float32 sums in another order
    assert result.final_accuracy is None
    assert result.elements == FEATURES + 1


def test_classes_need_no_loss_and_a_test_set_may_be_given() -> None:
    inputs, sums = numbers()
    classes = (sums[:, 0] > 0).long()
    data = TensorDataset(inputs, classes)
    both = {"workers": 2, "algorithm": ["dense", "gtopk"], "rounds": 40, "density": 0.5, **CHARGES}
    for loss in (None, nn.functional.cross_entropy):
        workload = netsim.Workload(model=nn.Linear(FEATURES, 2), data=data, test=data, loss=loss)
        for result in netsim.simulate(workload=workload, **both).results:
            assert result.final_accuracy is not None
            assert result.final_accuracy > 0.8
    assert len(workload.training) == len(workload.test) == SAMPLES
    alone = netsim.Workload(model=nn.Linear(FEATURES, 2), data=data)
    assert (len(alone.training), len(alone.test)) == (SAMPLES - SAMPLES // EVERY, SAMPLES // EVERY)


def test_a_factory_serves_as_its_name_does() -> None:
    from tests.own import sparse

    results = [
        netsim.simulate(workers=2, algorithm="dense", rounds=2, workload=each, **CHARGES).results[0]
        for each in (sparse, "tests.own:sparse")
    ]
    assert results[0].parameters_sha256 == results[1].parameters_sha256


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": nn.Flatten()}, "the model has no trainable parameter"),
        ({"loss": 3}, "loss is int, expected a function of outputs and labels"),
        ({"data": [1, 2]}, "training is list, expected"),
        ({"data": TensorDataset(torch.zeros(3, 4), torch.zeros(3, 1))}, "3 samples are too few to test on some"),
        ({"loss": None}, "training labels are float32, expected int64"),
        ({"data": TensorDataset(*numbers()), "training": TensorDataset(*numbers())}, "both data and training were"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    parts = {"model": line(), "loss": mean_square, "data": TensorDataset(*numbers())} | given
    with pytest.raises(UsageError) as raised:
        netsim.Workload(**parts)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_loss_that_is_no_mean_is_refused_before_the_run() -> None:
    workload = netsim.Workload(model=line(), loss=lambda outputs, labels: outputs - labels, data=Pairs(*numbers()))
    with pytest.raises(UsageError, match=r"its loss returned shape \(16, 1\), expected the mean as one number"):
        netsim.simulate(workers=2, algorithm="dense", workload=workload, **CHARGES)
    failing = netsim.Workload(model=line(), loss=lambda outputs, labels: outputs.nothing, data=Pairs(*numbers()))
    with pytest.raises(UsageError, match=r"in its loss, at .*test_workloads_from_python\.py:"):
        netsim.simulate(workers=2, algorithm="dense", workload=failing, **CHARGES)


def test_ranks_of_a_real_run_get_no_object() -> None:
    workload = netsim.Workload(model=line(), loss=mean_square, data=Pairs(*numbers()))
    with pytest.raises(UsageError, match=r"give FILE\.py:FUNCTION$"):
        netsim.run(workers=2, algorithm="dense", workload=workload)


def test_a_name_of_an_installed_package_is_its_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netsim.training.workloads.PLUGINS", {"theirs": "tests.own:sparse"})
    assert text_of("theirs") == "tests.own:sparse"
    netsim.simulate(workers=2, algorithm="dense", rounds=1, workload="theirs", **CHARGES)
