"""Convolutional networks for ImageNet's 1,000 classes, as torchvision builds them."""

from __future__ import annotations

from collections.abc import Sequence

from netsim.training.catalogue.tensors import Tensor, convolution, linear, norm

CLASSES = 1000


def alexnet() -> list[Tensor]:
    """Return AlexNet in the variant for one device (Krizhevsky 2014)."""
    layers = ((0, 3, 64, 11), (3, 64, 192, 5), (6, 192, 384, 3), (8, 384, 256, 3), (10, 256, 256, 3))
    tensors = []
    for at, inputs, outputs, kernel in layers:
        tensors += convolution(f"features.{at}", inputs, outputs, kernel, bias=True)
    return tensors + _classifier({1: 256 * 6 * 6, 4: 4096, 6: 4096})


def vgg16() -> list[Tensor]:
    """Return VGG-16, configuration D (Simonyan and Zisserman 2014)."""
    tensors, at, inputs = [], 0, 3
    for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            tensors += convolution(f"features.{at}", inputs, width, 3, bias=True)
            at, inputs = at + 2, width
        at += 1
    return tensors + _classifier({0: 512 * 7 * 7, 3: 4096, 6: 4096})


def _classifier(inputs: dict[int, int]) -> list[Tensor]:
    """Return the three fully connected layers, by their place and their inputs."""
    outputs = (4096, 4096, CLASSES)
    return [
        tensor
        for (at, width), out in zip(inputs.items(), outputs, strict=True)
        for tensor in linear(f"classifier.{at}", width, out)
    ]


def resnet(blocks: Sequence[int], *, bottleneck: bool) -> list[Tensor]:
    """Return a residual network of four stages of so many blocks each (He et al. 2016)."""
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
    """Return a basic block of two convolutions, or a bottleneck of three, each with its batch normalisation."""
    layers = [(inputs, width, 3), (width, width, 3)]
    if expansion > 1:
        layers = [(inputs, width, 1), (width, width, 3), (width, width * expansion, 1)]
    tensors = []
    for number, (from_width, to_width, kernel) in enumerate(layers, start=1):
        tensors += convolution(f"{name}.conv{number}", from_width, to_width, kernel)
        tensors += norm(f"{name}.bn{number}", to_width)
    return tensors
