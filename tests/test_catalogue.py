"""The catalogue of models: as many parameters as were published, in tensors of the shapes that make them."""

from __future__ import annotations

from math import prod

import pytest

import netsim
from netsim.training.catalogue import MODELS, parameters_of, tensors_of
from tests.command import run

PUBLISHED = {
    # torchvision, `num_params` of the weights for ImageNet-1k
    "alexnet": 61_100_840,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "vit-b16": 86_567_656,
    # Hugging Face transformers, `BertModel` of bert-base-uncased and bert-large-uncased
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    # Hugging Face transformers, `GPT2LMHeadModel` of gpt2, -medium, -large and -xl; OpenAI say 124M to 1.5B
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    # Tables of models in the later papers of the authors of gTop-k (Shi et al.)
    "lstm-ptb": 66_034_000,
    "lstm-an4": 27_569_568,
}


@pytest.mark.parametrize("model", MODELS)
def test_published_parameter_counts(model: str) -> None:
    assert parameters_of(model) == PUBLISHED[model]


@pytest.mark.parametrize("model", MODELS)
def test_tensors_have_names_of_their_own_and_something_in_them(model: str) -> None:
    names = [tensor.name for tensor in tensors_of(model)]
    assert len(set(names)) == len(names)
    assert all(min(tensor.shape) >= 1 for tensor in tensors_of(model))


@pytest.mark.parametrize(
    ("model", "tensors", "name", "shape"),
    [
        # As `state_dict()` of the published implementations has them, running statistics apart.
        ("resnet50", 161, "layer3.0.downsample.0.weight", (1024, 512, 1, 1)),
        ("resnet18", 62, "layer4.1.conv2.weight", (512, 512, 3, 3)),
        ("vgg16", 32, "features.28.weight", (512, 512, 3, 3)),
        ("alexnet", 16, "classifier.1.weight", (4096, 9216)),
        ("vit-b16", 152, "encoder.pos_embedding", (1, 197, 768)),
        ("bert-base", 199, "encoder.layer.11.intermediate.dense.weight", (3072, 768)),
        ("gpt2", 148, "wpe.weight", (1024, 768)),
    ],
)
def test_tensors_known_from_elsewhere(model: str, tensors: int, name: str, shape: tuple[int, ...]) -> None:
    assert len(tensors_of(model)) == tensors
    assert dict(tensors_of(model))[name] == shape


def test_lstm_ptb_is_the_workload_of_that_name() -> None:
    """The workload is built of torch's own modules, and counts its parameters itself."""
    from netsim.training.workloads import WORKLOADS

    trained = sorted(map(prod, WORKLOADS["lstm-ptb"].shapes("ptb")))
    assert sorted(tensor.size for tensor in tensors_of("lstm-ptb")) == trained


def test_a_model_is_simulated_by_its_sizes() -> None:
    """Dense ring of two workers: each sends all values once, half in each of two messages, one way at a time."""
    report = netsim.simulate(
        timing_only=True, model="resnet50", workers=2, algorithm="dense", latency="1us", bandwidth="32Mbps"
    )
    (result,) = report.results
    assert result.elements == PUBLISHED["resnet50"]
    assert result.round_time_s == pytest.approx(2 * (1e-6 + 1e-6 * PUBLISHED["resnet50"] / 2))


def test_selection_per_tensor_takes_at_least_one_of_each() -> None:
    options = {"timing_only": True, "model": "resnet18", "workers": 2, "algorithm": "topk", "density": 0.01}
    whole = netsim.simulate(**options).results[0]
    each = netsim.simulate(**options, per_tensor=True).results[0]
    assert whole.k == PUBLISHED["resnet18"] // 100
    assert each.k == sum(max(1, tensor.size // 100) for tensor in tensors_of("resnet18"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("simulate --timing-only --model resnet5O", "did you mean 'resnet50'?"),
        ("simulate --model resnet50", "--timing-only"),
        ("simulate --timing-only --model resnet50 --elements 10", "give one of them"),
        ("simulate --timing-only --model resnet50 --k 25557033", "k 25557033 is more than the 25557032 elements"),
    ],
)
def test_models_that_are_refused(capsys: pytest.CaptureFixture[str], arguments: str, said: str) -> None:
    ran = run(capsys, arguments)
    assert ran.code == 2
    assert said in ran.err
