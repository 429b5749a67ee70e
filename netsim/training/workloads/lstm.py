"""Recurrent networks. There is no dropout: a gradient depends on the parameters and the batch alone."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from netsim.training.workloads.data import SampleShape

# On a GPU, cuDNN would rather have its weights in one piece of its own; ours are in the vector of all parameters.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")


class Lstm(nn.LSTM):
    """An LSTM over (n, length, inputs) that leaves its parameters where they are."""

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(inputs, hidden, layers, batch_first=True)

    def flatten_parameters(self) -> None:
        """Do nothing: the parameters are views of one vector, which nobody may change."""


class LanguageModel(nn.Module):
    """From (n, length) tokens to the scores (n, length, vocabulary) of the token that follows each."""

    def __init__(self, shape: SampleShape, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        # Not nn.Embedding(...): its initial values, which nobody uses, would import all of torch._dynamo.
        self.embedding = nn.Embedding.from_pretrained(torch.empty(shape.classes, embedding), freeze=False)  # type: ignore[no-untyped-call]
        self.lstm = Lstm(embedding, hidden, layers)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        scores: torch.Tensor = self.head(states)
        return scores


class FrameTagger(nn.Module):
    """From (n, length, features) frames to the scores (n, length, classes) of each frame."""

    def __init__(self, shape: SampleShape, hidden: int, layers: int) -> None:
        super().__init__()
        self.lstm = Lstm(shape.sample[1], hidden, layers)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(frames)
        scores: torch.Tensor = self.head(states)
        return scores


def lstm_ptb(shape: SampleShape) -> nn.Module:
    """Return two layers of 1,500 over a vocabulary of 10,000 words: 66,034,000 parameters."""
    return LanguageModel(shape, 1500, 1500, 2)


def lstm_an4(shape: SampleShape) -> nn.Module:
    """Return five layers of 800 over frames of 161 frequencies, 29 classes: 23,610,429 parameters.

    A stand-in for the speech recogniser of the gTop-k paper: there is no AN4 reader and no CTC loss
    here, only frames made up in the shape of spectrograms, and a cross-entropy for each frame. Its
    time and its gradients' size are those of such a network; its accuracy says nothing about speech.
    """
    return FrameTagger(shape, 800, 5)


def char_lstm(shape: SampleShape) -> nn.Module:
    """Return one layer of 256 over characters: with 97 of them 360,865 parameters."""
    return LanguageModel(shape, 64, 256, 1)
