"""The recurrent networks of the gTop-k paper."""

from __future__ import annotations

from netsim.training.catalogue.tensors import Tensor, convolution, linear, lstm, norm


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
