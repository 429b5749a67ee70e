"""Text as sequences of tokens: Penn Treebank by words, Python's documentation by characters.

The label of a sequence is the same sequence, shifted by one token. Every sequence starts from a zero state, because a
gradient must depend on the parameters and the batch only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from netsim.training.workloads.data import SampleShape
from netsim.training.workloads.data.files import find_files, malformed, opened
from netsim.training.workloads.data.load import Data, described
from netsim.training.workloads.samples import Samples

END_OF_LINE = "<eos>"
UNKNOWN = "<unk>"
PTB_FOLDERS = ("ptb", "simple-examples/data", ".")
CHARACTERS = "\n" + "".join(chr(code) for code in range(32, 127))
"""Characters of a character model; all other characters count as one more, so that the model size is fixed."""


def load_ptb(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return ptb.train.txt and ptb.test.txt as sequences of words, numbered by frequency."""
    advice = "put ptb.train.txt and ptb.test.txt (Mikolov's simple-examples) into DIR/ptb and give --data-dir DIR"
    paths = find_files(name, ["ptb.train.txt", "ptb.test.txt"], PTB_FOLDERS, data_dir, advice)
    training_at, test_at = paths.values()
    training, test = _read_words(training_at), _read_words(test_at)
    counts = Counter(training)
    if len(counts) > shape.classes:
        raise malformed(training_at, f"{len(counts)} different words, expected the {shape.classes} of the usual file")
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    numbers = {word: number for number, word in enumerate(ordered)}
    unseen = sorted(set(test) - numbers.keys())
    if unseen and UNKNOWN not in numbers:
        raise malformed(test_at, f"word {unseen[0]!r} is not in ptb.train.txt, nor is {UNKNOWN}")
    unknown = numbers.get(UNKNOWN, 0)
    (length,) = shape.sample

    def sequences(words: list[str], path: Path) -> Samples:
        tokens = np.array([numbers.get(word, unknown) for word in words], np.int64)
        return _sequences(tokens, length, path)

    made = f"{len(training):,} + {len(test):,} words, "
    return described(name, sequences(training, training_at), sequences(test, test_at), made)


def _read_words(path: Path) -> list[str]:
    try:
        with opened(path) as file:
            lines = file.read().decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise malformed(path, f"cannot be read as text ({' '.join(str(error).split())})") from error
    return [word for line in lines for word in (*line.split(), END_OF_LINE)]


def load_python_docs(name: str, shape: SampleShape, seed: int, data_dir: Path | None) -> Data:
    """Return Python's help texts as characters, the first nine tenths for training.

    The text is ``pydoc_data.topics`` in the order of sorted keys, concatenated. It differs between versions of Python;
    the note contains its SHA-256.
    """
    from pydoc_data.topics import topics

    text = "".join(topics[key] for key in sorted(topics))
    numbers = {character: number for number, character in enumerate(CHARACTERS)}
    tokens = np.array([numbers.get(character, len(CHARACTERS)) for character in text], np.int64)
    (length,) = shape.sample
    cut = len(tokens) * 9 // 10
    where = Path("pydoc_data.topics")
    digest = hashlib.sha256(text.encode()).hexdigest()
    made = f"{len(text):,} characters of pydoc_data.topics (SHA-256 {digest}), "
    return described(name, _sequences(tokens[:cut], length, where), _sequences(tokens[cut:], length, where), made)


def _sequences(tokens: np.ndarray, length: int, path: Path) -> Samples:
    """Cut tokens (n,) into sequences without overlap; labels are the sequences one token later."""
    count = (len(tokens) - 1) // length
    if count < 1:
        raise malformed(path, f"{len(tokens)} tokens, expected more than {length}")
    inputs = torch.from_numpy(tokens[: count * length].reshape(count, length))
    return Samples(inputs, torch.from_numpy(tokens[1 : count * length + 1].reshape(count, length)))
