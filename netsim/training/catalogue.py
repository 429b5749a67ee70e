"""Names and shapes of the tensors of well-known models, without values.

This suffices to simulate an exchange of their gradients: ``netsim simulate --timing-only --model resnet50``. To add a
model: a function that returns its tensors, and a line in MODELS. Models of torchvision and transformers, which have
names such as ``torchvision:resnet50``, are built by these libraries (:mod:`netsim.training.library_models`).

Convolutional networks classify the 1,000 classes of ImageNet, as in torchvision. The recurrent networks are those of
the gTop-k paper. Transformers are BERT (Devlin et al. 2019), GPT-2 (Radford et al. 2019) and ViT (Dosovitskiy et al.
2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from netsim._util.errors import unknown
from netsim.training.library_models import LIBRARIES, library_of, shapes_of

CLASSES = 1000


class Tensor(NamedTuple):
    """The name and the shape of a trained tensor, as in torch: the output dimension comes first."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> list[Tensor]:
    """Return the tensors of a fully connected layer."""
    return [Tensor(f"{name}.weight", (outputs, inputs)), *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def convolution(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = False) -> list[Tensor]:
    """Return the tensors of a two-dimensional convolution; a single `kernel` size applies to both dimensions."""
    size = kernel * 2 if len(kernel) == 1 else kernel
    weight = Tensor(f"{name}.weight", (outputs, inputs, *size))
    return [weight, *([Tensor(f"{name}.bias", (outputs,))] if bias else [])]


def norm(name: str, width: int) -> list[Tensor]:
    """Return scale and shift of a batch or layer normalisation; running statistics are not trained."""
    return [Tensor(f"{name}.weight", (width,)), Tensor(f"{name}.bias", (width,))]


def lstm(name: str, layer: int, inputs: int, hidden: int) -> list[Tensor]:
    """Return the tensors of one LSTM layer as in torch: four gates, with separate biases for input and state."""
    gates = 4 * hidden
    shapes = {"weight_ih": (gates, inputs), "weight_hh": (gates, hidden), "bias_ih": (gates,), "bias_hh": (gates,)}
    return [Tensor(f"{name}.{kind}_l{layer}", shape) for kind, shape in shapes.items()]


def alexnet() -> list[Tensor]:
    """Return AlexNet in the variant for one device (Krizhevsky 2014)."""
    layers = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))
    tensors = []
    for position, inputs, outputs, kernel in layers:
        tensors += convolution(f"features.{position}", inputs, outputs, kernel, bias=True)
    return tensors + _classifier({1: 256 * 6 * 6, 4: 4096, 6: 4096})


def vgg16() -> list[Tensor]:
    """Return VGG-16, configuration D (Simonyan and Zisserman 2014)."""
    tensors, position, inputs = [], 0, 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            tensors += convolution(f"features.{position}", inputs, width, 3, bias=True)
            position, inputs = position + 2, width
        position += 1
    return tensors + _classifier({0: 512 * 7 * 7, 3: 4096, 6: 4096})


def _classifier(inputs: dict[int, int]) -> list[Tensor]:
    """Return three fully connected layers, given their positions and input widths."""
    outputs = (4096, 4096, CLASSES)
    return [
        tensor
        for (position, width), out in zip(inputs.items(), outputs, strict=True)
        for tensor in linear(f"classifier.{position}", width, out)
    ]


def resnet(blocks: Sequence[int], *, bottleneck: bool) -> list[Tensor]:
    """Return a residual network; `blocks` gives the blocks of each of its four stages (He et al. 2016)."""
    expansion = 4 if bottleneck else 1
    tensors = convolution("conv1", 3, 64, 7) + norm("bn1", 64)
    inputs = 64
    for stage, repeats in enumerate(blocks, start=1):
        width = 32 * 2**stage
        for block in range(repeats):
            name = f"layer{stage}.{block}"
            tensors += _block(name, inputs, width, expansion)
            if block == 0 and (stage > 1 or bottleneck):
                tensors += convolution(f"{name}.downsample.0", inputs, width * expansion, 1)
                tensors += norm(f"{name}.downsample.1", width * expansion)
            inputs = width * expansion
    return tensors + linear("fc", inputs, CLASSES)


def _block(name: str, inputs: int, width: int, expansion: int) -> list[Tensor]:
    """Return a basic block of two convolutions, or a bottleneck block of three, with batch normalisation."""
    layers = [(inputs, width, 3), (width, width, 3)]
    if expansion > 1:
        layers = [(inputs, width, 1), (width, width, 3), (width, width * expansion, 1)]
    tensors = []
    for index, (from_width, to_width, kernel) in enumerate(layers, start=1):
        tensors += convolution(f"{name}.conv{index}", from_width, to_width, kernel)
        tensors += norm(f"{name}.bn{index}", to_width)
    return tensors


def lstm_ptb(vocabulary: int = 10_000, hidden: int = 1500, layers: int = 2) -> list[Tensor]:
    """Return the language model with two LSTM layers of 1,500 (Zaremba et al. 2014), as in torch."""
    tensors = [Tensor("encoder.weight", (vocabulary, hidden))]
    for layer in range(layers):
        tensors += lstm("rnn", layer, hidden, hidden)
    return tensors + linear("decoder", hidden, vocabulary)


def lstm_an4(hidden: int = 800, layers: int = 5, labels: int = 29) -> list[Tensor]:
    """Return a speech recogniser like Deep Speech 2, with one-directional layers and a look-ahead of 20 frames.

    Two convolutions with stride 2 reduce the 161 frequencies of a spectrogram to 41.
    """
    channels, frequencies, lookahead = 32, 41, 20
    tensors = convolution("conv.0", 1, channels, 41, 11, bias=True) + norm("conv.1", channels)
    tensors += convolution("conv.3", channels, channels, 21, 11, bias=True) + norm("conv.4", channels)
    for layer in range(layers):
        inputs = hidden if layer else channels * frequencies
        tensors += norm(f"rnns.{layer}.batch_norm", hidden) if layer else []
        tensors += lstm(f"rnns.{layer}.rnn", 0, inputs, hidden)
    tensors += [Tensor("lookahead.weight", (hidden, lookahead + 1))]
    return tensors + norm("fc.0", hidden) + linear("fc.1", hidden, labels, bias=False)


def bert(width: int, layers: int, vocabulary: int = 30_522, positions: int = 512) -> list[Tensor]:
    """Return the encoder of BERT (uncased) with its pooler, without a task-specific head."""
    sizes = {"word": vocabulary, "position": positions, "token_type": 2}
    tensors = [Tensor(f"embeddings.{kind}_embeddings.weight", (size, width)) for kind, size in sizes.items()]
    tensors += norm("embeddings.LayerNorm", width)
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            tensors += linear(f"{name}.attention.self.{part}", width, width)
        tensors += linear(f"{name}.attention.output.dense", width, width)
        tensors += norm(f"{name}.attention.output.LayerNorm", width)
        tensors += linear(f"{name}.intermediate.dense", width, 4 * width)
        tensors += linear(f"{name}.output.dense", 4 * width, width)
        tensors += norm(f"{name}.output.LayerNorm", width)
    return tensors + linear("pooler.dense", width, width)


def gpt2(width: int, layers: int, vocabulary: int = 50_257, positions: int = 1024) -> list[Tensor]:
    """Return GPT-2; the output layer shares its weights with the word embedding."""
    tensors = [Tensor("wte.weight", (vocabulary, width)), Tensor("wpe.weight", (positions, width))]
    for layer in range(layers):
        name = f"h.{layer}"
        tensors += norm(f"{name}.ln_1", width)
        tensors += linear(f"{name}.attn.c_attn", width, 3 * width)
        tensors += linear(f"{name}.attn.c_proj", width, width)
        tensors += norm(f"{name}.ln_2", width)
        tensors += linear(f"{name}.mlp.c_fc", width, 4 * width)
        tensors += linear(f"{name}.mlp.c_proj", 4 * width, width)
    return tensors + norm("ln_f", width)


def vit(width: int, layers: int, patch: int, image: int = 224, classes: int = 1000) -> list[Tensor]:
    """Return a vision transformer as in torchvision."""
    tensors = [Tensor("class_token", (1, 1, width))]
    tensors += convolution("conv_proj", 3, width, patch, bias=True)
    tensors += [Tensor("encoder.pos_embedding", (1, (image // patch) ** 2 + 1, width))]
    for layer in range(layers):
        name = f"encoder.layers.encoder_layer_{layer}"
        tensors += norm(f"{name}.ln_1", width)
        tensors += [Tensor(f"{name}.self_attention.in_proj_weight", (3 * width, width))]
        tensors += [Tensor(f"{name}.self_attention.in_proj_bias", (3 * width,))]
        tensors += linear(f"{name}.self_attention.out_proj", width, width)
        tensors += norm(f"{name}.ln_2", width)
        tensors += linear(f"{name}.mlp.0", width, 4 * width)
        tensors += linear(f"{name}.mlp.3", 4 * width, width)
    return tensors + norm("encoder.ln", width) + linear("heads.head", width, classes)


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


def check_model(model: str) -> None:
    """Raise UsageError unless a model is one of the catalogue, or has the prefix of a library."""
    if model not in MODELS and library_of(model) is None:
        raise unknown("model", model, [*MODELS, *(f"{prefix}:NAME" for prefix in LIBRARIES)])


def tensors_of(model: str) -> tuple[Tensor, ...]:
    """Return the trained tensors of a model in the order of its layers.

    Raises
    ------
    UsageError
        For an unknown model.
    InfeasibleError
        If the library of the model is not installed, or cannot build the model without values.
    """
    check_model(model)
    return _tensors_of(model) if model in MODELS else tuple(Tensor(*each) for each in shapes_of(model))


@lru_cache(maxsize=len(MODELS))
def _tensors_of(model: str) -> tuple[Tensor, ...]:
    return tuple(MODELS[model]())


def parameters_of(model: str) -> int:
    """Return the number of parameters of a model."""
    return sum(tensor.size for tensor in tensors_of(model))
