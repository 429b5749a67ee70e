"""Names and shapes of the tensors of well-known models, without values.

This suffices to simulate an exchange of their gradients: ``netsim simulate --timing-only --model resnet50``. To add a
model: a function that returns its tensors, and a line in MODELS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from netsim._util.errors import check_choice
from netsim.training.catalogue.convolutional import alexnet, resnet, vgg16
from netsim.training.catalogue.recurrent import lstm_an4, lstm_ptb
from netsim.training.catalogue.tensors import Tensor
from netsim.training.catalogue.transformers import bert, gpt2, vit

MODELS: dict[str, Callable[[], list[Tensor]]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet18": lambda: resnet((2, 2, 2, 2), bottleneck=False),
    "resnet50": lambda: resnet((3, 4, 6, 3), bottleneck=True),
    "resnet101": lambda: resnet((3, 4, 23, 3), bottleneck=True),
    "vit-b16": lambda: vit(width=768, layers=12, patch=16),
    "bert-base": lambda: bert(width=768, layers=12),
    "bert-large": lambda: bert(width=1024, layers=24),
    "gpt2": lambda: gpt2(width=768, layers=12),
    "gpt2-medium": lambda: gpt2(width=1024, layers=24),
    "gpt2-large": lambda: gpt2(width=1280, layers=36),
    "gpt2-xl": lambda: gpt2(width=1600, layers=48),
    "lstm-ptb": lstm_ptb,
    "lstm-an4": lstm_an4,
}


@lru_cache(maxsize=len(MODELS))
def tensors_of(model: str) -> tuple[Tensor, ...]:
    """Return the trained tensors of a model in the order of its layers; raise UsageError for an unknown model."""
    check_choice("model", model, MODELS)
    return tuple(MODELS[model]())


def parameters_of(model: str) -> int:
    """Return the number of parameters of a model."""
    return sum(tensor.size for tensor in tensors_of(model))


__all__ = ["MODELS", "Tensor", "parameters_of", "tensors_of"]
