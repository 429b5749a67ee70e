"""Recurrent networks, without dropout: a gradient must depend on the parameters and the batch only."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from netsim.training.workloads.data import SampleShape


class Lstm(nn.LSTM):
    """An LSTM over (n, length, inputs) that keeps its parameters in place."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers, batch_first=True)

    def forward(self, *args: Any) -> Any:
        """Return states and the last state, as torch's LSTM does, without its warning on a GPU.

        cuDNN prefers weights in one piece of memory; here they are parts of the vector of all parameters.
        """
        if not args[0].is_cuda:
            return super().forward(*args)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
            return super().forward(*args)

    def flatten_parameters(self) -> None:
        """Do nothing: the parameters are views of one vector, which must not be copied."""


class LanguageModel(nn.Module):
    """A language model: from tokens (n, length) to scores (n, length, vocabulary) of each next token."""

    def __init__(self, shape: SampleShape, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        # Not nn.Embedding(...): drawing its initial values, which are not used, imports all of torch._dynamo.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(shape.classes, embedding), freeze=False)  # type: ignore[no-untyped-call]
        self.lstm = Lstm(embedding, hidden, layers)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores (n, length, vocabulary) for tokens (n, length)."""
        states, _ = self.lstm(self.embedding(tokens))
        scores: torch.Tensor = self.head(states)
        return scores


class FrameTagger(nn.Module):
    """A classifier of frames: from (n, length, features) to scores (n, length, classes)."""

    def __init__(self, shape: SampleShape, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = Lstm(shape.sample[1], hidden, layers)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return scores (n, length, classes) for frames (n, length, features)."""
        states, _ = self.lstm(frames)
        scores: torch.Tensor = self.head(states)
        return scores


def lstm_ptb(shape: SampleShape) -> nn.Module:
    """Return a language model with two LSTM layers of 1,500 and 10,000 words: 66,034,000 parameters."""
    return LanguageModel(shape, 1500, 1500, 2)


def lstm_an4(shape: SampleShape) -> nn.Module:
    """Return five LSTM layers of 800 over frames of 161 frequencies with 29 classes: 23,610,429 parameters.

    The network stands in for the speech recogniser of the gTop-k paper. netsim has no reader for AN4 and no CTC loss,
    so the data are synthetic frames in the shape of spectrograms, with a cross-entropy per frame. Time and gradient
    size are realistic; the accuracy has no meaning for speech.
    """
    return FrameTagger(shape, 800, 5)


def char_lstm(shape: SampleShape) -> nn.Module:
    """Return a language model with one LSTM layer of 256 over characters: 360,865 parameters for 97 characters."""
    return LanguageModel(shape, 64, 256, 1)
