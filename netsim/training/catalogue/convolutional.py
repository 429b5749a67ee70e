"""Convolutional networks for the 1,000 classes of ImageNet, as in torchvision."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.training.catalogue.tensors import Tensor, convolution, linear, norm

CLASSES = 1000


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
