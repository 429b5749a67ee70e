"""Models of torchvision and transformers: the tensors that the library's own module has, in its order."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import netsim
from netsim._util.errors import InfeasibleError, UsageError
from netsim.training.catalogue import parameters_of, tensors_of
from tests.command import run

MODELS = {"torchvision": "torchvision:resnet50", "transformers": "hf:gpt2"}


@pytest.fixture
def torchvision() -> None:
    """Skip without a torchvision that fits torch."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        pytest.skip("torchvision is not installed, or is no build for this torch")


@pytest.fixture
def transformers() -> None:
    pytest.importorskip("transformers")


@pytest.mark.parametrize("package", MODELS)
def test_without_its_package_a_model_is_refused_with_the_command_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    def without(name: str) -> object:
        return None if name == package else find_spec(name)

    monkeypatch.setattr("netsim.training.library_models.find_spec", without)
    monkeypatch.setattr("netsim.training.library_models._shapes_of", _uncached())
    ran = run(capsys, f"simulate --timing-only --model {MODELS[package]}")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.strip().endswith(f"needs {package}, which is not installed: pip install {package}")
    assert len(ran.err.strip().splitlines()) == 1


def _uncached() -> object:
    from netsim.training.library_models import _shapes_of

    return _shapes_of.__wrapped__


def test_a_prefix_that_is_none_of_a_library() -> None:
    with pytest.raises(UsageError, match=r"unknown model 'timm:resnet50'.*torchvision:NAME, hf:NAME"):
        netsim.simulate(timing_only=True, model="timm:resnet50")


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("alexnet", "alexnet"),
        ("vgg16", "vgg16"),
        ("resnet18", "resnet18"),
        ("resnet50", "resnet50"),
        ("resnet101", "resnet101"),
        ("vit-b16", "vit_b_16"),
    ],
)
def test_the_catalogue_has_the_tensors_of_torchvision(ours: str, theirs: str) -> None:
    assert tensors_of(ours) == tensors_of(f"torchvision:{theirs}")


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
def test_a_model_that_computes_with_values_while_it_is_built() -> None:
    """RegNets compute their widths with tensors; torchvision publishes num_params 5,495,976 of regnet_x_400mf."""
    assert parameters_of("torchvision:regnet_x_400mf") == 5_495_976


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
def test_buckets_are_filled_in_the_order_of_the_parameters() -> None:
    """DDP's rule: tensors from the last one on, while the bucket has at most so many bytes."""
    import torchvision

    sizes = [4 * each.numel() for each in torchvision.models.resnet18(weights=None).parameters()]
    buckets = [0]
    for size in reversed(sizes):
        buckets = [*buckets, size] if buckets[-1] and buckets[-1] + size > 10e6 else [*buckets[:-1], buckets[-1] + size]
    report = netsim.simulate(
        timing_only=True, model="torchvision:resnet18", overlap="10MB", workers=2, algorithm="dense", compute_time=0.1
    )
    assert [4 * each["elements"] for each in report.results[0].buckets or ()] == buckets


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision")
def test_an_unknown_model_of_torchvision_has_near_names() -> None:
    with pytest.raises(UsageError, match=r"near names: torchvision:resnet50, .*list_models\(\)"):
        tensors_of("torchvision:resnet5O")


@pytest.mark.slow
@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize(
    ("ours", "theirs"), [("gpt2", "hf:gpt2"), ("bert-base", "hf:bert"), ("gpt2", "hf:GPT2LMHeadModel")]
)
def test_the_catalogue_has_the_tensors_of_transformers(ours: str, theirs: str) -> None:
    """A linear layer of GPT-2 in transformers has its input dimension first, so sizes are compared."""
    assert [each.size for each in tensors_of(ours)] == [each.size for each in tensors_of(theirs)]


@pytest.mark.slow
@pytest.mark.usefixtures("transformers")
def test_a_configuration_describes_another_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    medium = {"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16, "auto_map": {"AutoModel": "a--b.C"}}
    path.write_text(json.dumps(medium | {"architectures": ["GPT2LMHeadModel"]}))
    assert parameters_of(f"hf:{path}") == parameters_of("gpt2-medium")
    path.write_text(json.dumps({"model_type": "none"}))
    with pytest.raises(UsageError, match="model_type 'none', which transformers does not know"):
        parameters_of(f"hf:{path}")
    path.write_text("[")
    with pytest.raises(UsageError, match="is not a JSON object"):
        parameters_of(f"hf:{path}")


@pytest.mark.slow
@pytest.mark.usefixtures("transformers")
def test_nothing_is_downloaded_from_a_hub_and_unknown_names_have_near_ones() -> None:
    with pytest.raises(UsageError, match="is on a hub, from which netsim downloads nothing"):
        tensors_of("hf:openai-community/gpt2")
    with pytest.raises(UsageError, match="near names: hf:gpt2, "):
        tensors_of("hf:gpt22")


@pytest.mark.slow
@pytest.mark.usefixtures("transformers")
def test_a_model_of_more_elements_than_an_index_counts_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="6,607,343,616 parameters"):
        netsim.simulate(timing_only=True, model="hf:llama")
