"""Data sets read from files that the test writes itself; splits and sampling as laws."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim._util.errors import InfeasibleError, UsageError
from netsim.training.workloads import WORKLOADS, load_workload
from netsim.training.workloads.data import files
from netsim.training.workloads.data.files import SYSTEM
from netsim.training.workloads.samples import Samples
from netsim.training.workloads.splits import EPOCHS, RANDOM, Divisible, Sampler, divide
from netsim.training.workloads.task import DataParallelTask

FASHION = SYSTEM / "fashion-mnist"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Have no data installed on the system."""
    monkeypatch.setattr(files, "SYSTEM", tmp_path / "system")
    return tmp_path / "system"


def one_line(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


# IDX files: two zero bytes, 8 for unsigned bytes, the number of dimensions, the dimensions, the bytes.


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def some_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(256, size=(count, 28, 28)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)


def write_mnist(folder: Path, *, compressed: bool = False, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {"train": some_images(40, seed), "t10k": some_images(20, seed + 1)}
    for part, arrays in written.items():
        for array, kind in zip(arrays, ("images-idx3-ubyte", "labels-idx1-ubyte"), strict=True):
            content = idx(array)
            name = f"{part}-{kind}" + (".gz" if compressed else "")
            (folder / name).write_bytes(gzip.compress(content) if compressed else content)
    return written


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_files_are_read_and_standardised(tmp_path: Path, data: str, folder: str, compressed: bool) -> None:
    written = write_mnist(tmp_path / folder, compressed=compressed)
    workload = load_workload("fc-mnist", 0, data, tmp_path)
    pixels = written["train"][0].astype(np.float64)
    for samples, (images, labels) in ((workload.training, written["train"]), (workload.test, written["t10k"])):
        inputs, found = samples.take(torch.arange(len(labels)))
        assert inputs.shape == (len(labels), 1, 28, 28)
        assert np.array_equal(found.numpy(), labels)
        np.testing.assert_allclose(inputs[:, 0].numpy(), (images - pixels.mean()) / pixels.std(), rtol=1e-5, atol=1e-6)
    assert workload.note.startswith(f"{data}: 40 training and 20 test samples of 1×28×28")
    task = DataParallelTask(workload, 4, 5, 0, "cpu")
    assert task.gradient(task.initial_parameters(), 0, 0).size == 407_050


def break_magic(content: bytes) -> bytes:
    return b"\x00\x00\x0d" + content[3:]


@pytest.mark.parametrize(
    ("file", "change", "what"),
    [
        ("train-images-idx3-ubyte", break_magic, "starts with 00000d03, expected 00000803"),
        ("t10k-labels-idx1-ubyte", lambda content: b"", "starts with nothing, expected 00000801"),
        ("train-images-idx3-ubyte", lambda content: content[:9], "ends inside its header"),
        ("train-images-idx3-ubyte", lambda content: content[:-1], "has 31359 bytes after its header, expected 31360"),
        ("t10k-images-idx3-ubyte", lambda content: content + b"x", "has more bytes after its header, expected 15680"),
        ("t10k-labels-idx1-ubyte", lambda content: idx(np.zeros(19, np.uint8)), "19 labels for the 20 images"),
        ("t10k-labels-idx1-ubyte", lambda content: idx(np.full(20, 10, np.uint8)), "label 10, expected 0 to 9"),
        ("train-images-idx3-ubyte", lambda content: idx(np.zeros((4, 8, 8), np.uint8)), "items of 8×8, expected 28×28"),
        (
            "train-images-idx3-ubyte",
            lambda content: content[:4] + b"\xff" * 4 + content[8:],
            "claims 4294967295 items, expected 1 to 1000000",
        ),
        ("t10k-images-idx3-ubyte", lambda content: content[:4] + b"\0" * 4 + content[8:], "claims 0 items"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_malformed_idx_file_is_named_with_what_is_wrong(
    tmp_path: Path, file: str, change: Callable[[bytes], bytes], what: str, compressed: bool
) -> None:
    write_mnist(tmp_path / "mnist", compressed=compressed)
    path = tmp_path / "mnist" / (file + (".gz" if compressed else ""))
    content = change(gzip.decompress(path.read_bytes()) if compressed else path.read_bytes())
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(InfeasibleError) as raised:
        load_workload("fc-mnist", 0, "mnist", tmp_path)
    one_line(raised, str(path), what)


@pytest.mark.parametrize("change", [lambda packed: packed[:60], lambda packed: b"not gzip", lambda packed: b""])
def test_a_broken_gzip_file_is_named(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write_mnist(tmp_path / "mnist", compressed=True)
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InfeasibleError) as raised:
        load_workload("fc-mnist", 0, "mnist", tmp_path)
    one_line(raised, str(path))


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"Debian's dataset-fashion-mnist is not installed: no {FASHION}")
def test_the_installed_fashion_mnist_is_the_published_one() -> None:
    workload = load_workload("resnet20", 0, "fashion-mnist")
    assert workload.training.inputs.shape == (60_000, 1, 28, 28)
    assert np.bincount(workload.training.labels.numpy()).tolist() == [6000] * 10
    assert np.bincount(workload.test.labels.numpy()).tolist() == [1000] * 10
    assert workload.training.mean is not None
    assert float(workload.training.mean) / 255 == pytest.approx(0.2860, abs=5e-5)  # the usual constants
    assert float(workload.training.deviation) / 255 == pytest.approx(0.3530, abs=5e-5)  # type: ignore[arg-type]
    task = DataParallelTask(workload, 4, 2, 0, "cpu")
    assert bool(task.gradient(task.initial_parameters(), 3, 0).values.isfinite().all())


# CIFAR: pickles.


def write_cifar(root: Path, data: str, *, protocol: int = 2, rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    folder, names, key, classes = {
        "cifar10": ("cifar-10-batches-py", [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"], b"labels", 10),
        "cifar100": ("cifar-100-python", ["train", "test"], b"fine_labels", 100),
    }[data]
    (root / folder).mkdir(parents=True)
    pixels = random.integers(256, size=(len(names) * rows, 3072)).astype(np.uint8)
    labels = random.integers(classes, size=len(names) * rows)
    for number, name in enumerate(names):
        part = slice(number * rows, (number + 1) * rows)
        content = {b"data": pixels[part], key: labels[part].tolist(), b"batch_label": b"some", b"filenames": [b"x"]}
        (root / folder / name).write_bytes(pickle.dumps(content, protocol))
    return pixels.reshape(-1, 3, 32, 32), labels


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_cifar_batches_are_read(tmp_path: Path, data: str) -> None:
    pixels, labels = write_cifar(tmp_path, data)
    workload = load_workload("resnet20", 0, data, tmp_path)
    found = torch.cat([workload.training.inputs, workload.test.inputs]).numpy()
    assert np.array_equal(found, pixels)
    assert torch.cat([workload.training.labels, workload.test.labels]).tolist() == labels.tolist()
    assert len(workload.test) == 8
    training = pixels[: len(workload.training)].astype(np.float64)
    inputs, _ = workload.test.take(torch.arange(8))
    axes = (0, 2, 3)
    expected = (pixels[-8:] - training.mean(axes, keepdims=True)) / training.std(axes, keepdims=True)
    np.testing.assert_allclose(inputs.numpy(), expected, rtol=1e-5, atol=1e-5)


def python2_pickle(rows: np.ndarray, labels: list[int], key: bytes) -> bytes:
    """Return the pickle that Python 2 and its NumPy wrote of {'data': rows, key: labels}, opcode by opcode."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    content = b"T" + struct.pack("<i", rows.nbytes) + rows.tobytes()
    shape = b"(" + b"".join(number(extent) for extent in rows.shape) + b"t"
    array += b"(" + number(1) + shape + dtype + b"I00\n" + content + b"tb"
    listed = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + listed + b"u."


def test_a_batch_as_python_2_wrote_it_is_read(tmp_path: Path) -> None:
    pixels, labels = write_cifar(tmp_path, "cifar100")
    rows = pixels[:8].reshape(8, 3072)
    content = python2_pickle(rows, labels[:8].tolist(), b"fine_labels")
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], rows)  # as NumPy itself reads it
    (tmp_path / "cifar-100-python" / "train").write_bytes(content)
    workload = load_workload("resnet18", 0, "cifar100", tmp_path)
    assert np.array_equal(workload.training.inputs.numpy(), pixels[:8])
    assert workload.training.labels.tolist() == labels[:8].tolist()


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def without(key: bytes) -> Callable[[dict[bytes, Any]], object]:
    return lambda content: {name: value for name, value in content.items() if name != key}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (without(b"data"), "has no b'data' array and b'fine_labels' list"),
        (without(b"fine_labels"), "has no b'data' array and b'fine_labels' list"),
        (lambda content: [content], "holds a list, expected a dictionary"),
        (lambda content: content | {b"fine_labels": [0] * 7}, "for 7 labels, expected 3072 unsigned bytes each"),
        (lambda content: content | {b"fine_labels": [0] * 7 + [100]}, "a label is not in 0 to 99"),
        (lambda content: content | {b"fine_labels": [0] * 7 + ["1"]}, "a label is not in 0 to 99"),
        (lambda content: content | {b"data": content[b"data"].astype(np.float32)}, "type 'f4'"),
        (lambda content: content | {b"data": content[b"data"][:, :-1]}, "shape (8, 3071)"),
        (lambda content: content | {b"data": np.array([[None] * 3072] * 8)}, "type 'O8' with 0 bytes"),
        (lambda content: content | {b"extra": {1, 2}}, "names __builtin__.set, which it has no need of"),
        (lambda content: content | {b"extra": eval}, "names __builtin__.eval, which it has no need of"),
        (lambda content: content | {b"extra": np.random.default_rng(0)}, "which it has no need of"),
    ],
)
def test_a_malformed_cifar_batch_is_named_with_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[bytes, Any]], object], what: str
) -> None:
    write_cifar(tmp_path, "cifar100")
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes())), 2))
    with pytest.raises(InfeasibleError) as raised:
        load_workload("resnet20", 0, "cifar100", tmp_path)
    one_line(raised, str(path), what)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_does_not(tmp_path: Path, protocol: int) -> None:
    write_cifar(tmp_path, "cifar10")
    path, trace = tmp_path / "cifar-10-batches-py" / "data_batch_3", tmp_path / "was-here"
    path.write_bytes(pickle.dumps({b"data": Attack(trace)}, protocol))
    with pytest.raises(InfeasibleError) as raised:
        load_workload("resnet20", 0, "cifar10", tmp_path)
    one_line(raised, str(path), "posix.mkdir, which it has no need of")
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the attack is a real one
    assert trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        b"\x80\x02}",
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibtR.",
        b"\x80\x02c_codecs\nencode\n}U\x01a]sb.",
        b"\x80\x02U\x01aQ.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R]b.",
    ],
)
def test_bytes_that_are_no_batch_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    write_cifar(tmp_path, "cifar100")
    path = tmp_path / "cifar-100-python" / "test"
    path.write_bytes(content)
    with pytest.raises(InfeasibleError) as raised:
        load_workload("resnet20", 0, "cifar100", tmp_path)
    one_line(raised, str(path))


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_the_pickle_reader_raise_anything_else(content: bytes) -> None:
    from netsim.training.workloads.data.cifar import read_batch

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"netsim-batch-{os.getpid()}"
    path.write_bytes(b"\x80\x02" + content)
    try:
        with pytest.raises(InfeasibleError):
            read_batch(path, b"labels", WORKLOADS["resnet20"].shape("cifar10"))
    finally:
        path.unlink()


# Text.


def write_ptb(folder: Path) -> tuple[str, str]:
    random = np.random.default_rng(2)
    words = np.array(["<unk>", "N", "the", "a", "of", "board"])
    lines = [" " + " ".join(random.choice(words, 9)) + " \n" for _ in range(100)]
    training, test = "".join(lines[:80]), "".join(lines[80:]) + " a stranger came \n"
    folder.mkdir(parents=True)
    (folder / "ptb.train.txt").write_text(training)
    (folder / "ptb.test.txt").write_text(test)
    return training, test


@pytest.mark.parametrize("folder", ["ptb", "simple-examples/data", "."])
def test_penn_treebank_is_read_as_words_numbered_by_frequency(tmp_path: Path, folder: str) -> None:
    training, test = write_ptb(tmp_path / "there" / folder if folder != "." else tmp_path / "there")
    workload = load_workload("lstm-ptb", 0, "ptb", tmp_path / "there")
    words = training.replace("\n", " <eos> ").split()
    names = sorted(set(words), key=lambda word: (-words.count(word), word))
    read = [names[number] for number in workload.training.inputs.flatten()]
    assert read == words[: len(words) - 1 - (len(words) - 1) % 35]
    following = [names[number] for number in workload.training.labels.flatten()]
    assert following == words[1 : len(read) + 1]
    assert workload.training.inputs.shape[1] == 35
    known = [word if word in names else "<unk>" for word in test.replace("\n", " <eos> ").split()]
    assert [names[number] for number in workload.test.inputs.flatten()] == known[: workload.test.inputs.numel()]
    assert "800 + 204 words" in workload.note


def test_other_text_than_penn_treebank_is_refused(tmp_path: Path) -> None:
    write_ptb(tmp_path / "ptb")
    path = tmp_path / "ptb" / "ptb.train.txt"
    for content, what in (
        (" ".join(map(str, range(10_001))).encode(), "10002 different words, expected the 10000"),
        (b"\xff\xfe\x00", "cannot be read as text"),
        (b"too short\n", "is not in ptb.train.txt"),
    ):
        path.write_bytes(content)
        with pytest.raises(InfeasibleError) as raised:
            load_workload("lstm-ptb", 0, "ptb", tmp_path)
        one_line(raised, str(tmp_path / "ptb"), what)


@pytest.mark.slow
def test_the_documentation_of_python_is_read_character_by_character() -> None:
    from pydoc_data.topics import topics

    text = "".join(topics[key] for key in sorted(topics))
    workload = load_workload("char-lstm", 0)
    assert workload.source == "python-docs"
    assert hashlib.sha256(text.encode()).hexdigest() in workload.note
    known = "\n" + "".join(map(chr, range(32, 127))) + "\N{REPLACEMENT CHARACTER}"
    assert len(known) == 97
    cut = len(text) * 9 // 10
    for samples, expected in ((workload.training, text[:cut]), (workload.test, text[cut:])):
        assert samples.inputs.shape[1] == 64
        assert samples.inputs.numel() > len(expected) - 66
        for tokens, shifted in ((samples.inputs, 0), (samples.labels, 1)):
            read = "".join(known[number] for number in tokens.flatten())
            plain = "".join(character if character in known else known[-1] for character in expected[shifted:])
            assert plain.startswith(read)


# What is not here, and what is made up.


@pytest.mark.parametrize(
    ("workload", "data", "parts"),
    [
        ("fc-mnist", None, ["data mnist: ", "train-images-idx3-ubyte", "/mnist", "/MNIST/raw", "give --data-dir DIR"]),
        ("resnet20", "fashion-mnist", ["data fashion-mnist: ", "apt install dataset-fashion-mnist"]),
        ("resnet18", None, ["data cifar10: ", "data_batch_1", "cifar-10-batches-py", "cifar-10-python.tar.gz"]),
        ("resnet18", "cifar100", ["data cifar100: ", "/cifar-100-python", "unpack cifar-100-python.tar.gz"]),
        ("lstm-ptb", None, ["data ptb: ", "ptb.train.txt", "/ptb"]),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_missing_data_is_said_with_where_it_was_looked_for_and_what_to_do(
    nowhere: Path, tmp_path: Path, workload: str, data: str | None, parts: list[str], given: bool
) -> None:
    place = tmp_path / "my data"
    with pytest.raises(InfeasibleError) as raised:
        load_workload(workload, 0, data, place if given else None)
    one_line(raised, *parts, str(nowhere), "or use --data synthetic")
    assert (str(place) in str(raised.value)) == given


def test_a_folder_with_a_file_missing_is_named_with_the_file(nowhere: Path, tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InfeasibleError) as raised:
        load_workload("fc-mnist", 0, "mnist", tmp_path)
    one_line(raised, f"{tmp_path / 'mnist'} lacks t10k-labels-idx1-ubyte")


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_synthetic_data_is_a_function_of_the_seed_in_the_shape_that_the_model_wants(name: str) -> None:
    recipe = WORKLOADS[name]
    one, same, other = (recipe(seed, "synthetic") for seed in (1, 1, 2))
    assert one.data_sha256() == same.data_sha256() != other.data_sha256()
    assert len({*one.data_sha256(), *other.data_sha256()}) == 4
    shape = recipe.shape("synthetic")
    assert one.training.inputs.shape[1:] == shape.sample
    assert 0 <= int(one.training.labels.min()) <= int(one.training.labels.max()) < shape.classes
    assert "synthetic: made up" in one.note
    assert one.source == "synthetic"
    assert one.elements == recipe.elements()


# Two data sets side by side.


def test_mixed_data_sets_are_padded_coloured_and_each_standardised_by_itself(tmp_path: Path) -> None:
    colour, _ = write_cifar(tmp_path, "cifar10")
    grey = write_mnist(tmp_path / "mnist")["train"][0]
    workload = load_workload("resnet18", 0, "cifar10+mnist", tmp_path)
    training = workload.training
    assert training.inputs.shape == (80, 3, 32, 32)
    assert training.inputs.dtype == torch.uint8
    assert training.part is not None
    assert training.part.tolist() == [0] * 40 + [1] * 40
    padded = np.zeros((40, 3, 32, 32), np.uint8)
    padded[:, :, 2:30, 2:30] = grey[:, None]
    assert np.array_equal(training.inputs.numpy(), np.concatenate([colour[:40], padded]))
    inputs, _ = training.take(torch.tensor([79, 3]))
    own = grey.astype(np.float64)
    np.testing.assert_allclose(inputs[0].numpy(), (padded[39] - own.mean()) / own.std(), rtol=1e-5, atol=1e-5)
    plain, _ = load_workload("resnet18", 0, "cifar10", tmp_path).training.take(torch.tensor([3]))
    assert torch.equal(inputs[1], plain[0])
    task = DataParallelTask(workload, 5, 3, 0, "cpu", split="mix")
    for rank, shard in enumerate(task.shards):
        assert set(training.part.numpy()[shard]) == {rank % 2}
    assert "cifar10: " in workload.note
    assert "mnist: " in workload.note


def test_a_data_set_may_be_mixed_with_synthetic_data() -> None:
    workload = load_workload("digits-mlp", 0, "digits+synthetic")
    alone = load_workload("digits-mlp", 0, "digits")
    assert workload.training.inputs.dtype == torch.float32
    assert torch.equal(workload.training.inputs[:1438], alone.training.inputs)
    task = DataParallelTask(workload, 3, 4, 0, "cpu", split="mix")
    assert sorted(task.shards[1]) == list(range(1438, len(workload.training)))


# Splits: every sample to exactly one worker, and at least one to each.


@st.composite
def divisible(draw: st.DrawFn) -> tuple[Divisible, int]:
    workers = draw(st.integers(1, 12))
    count = draw(st.integers(workers, 80))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    classes = random.integers(draw(st.integers(1, 12)), size=count)
    return Divisible("some", count, classes, np.arange(count) // -(-count // 2)), workers


@given(
    divisible(),
    st.sampled_from(["iid", "by-class", "mix", "dirichlet:1e-9", "dirichlet:0.3", "dirichlet:1e6"]),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_every_sample_goes_to_exactly_one_worker_and_every_worker_gets_one(
    drawn: tuple[Divisible, int], split: str, seed: int
) -> None:
    samples, workers = drawn
    if split == "mix" and (workers < 2 or samples.count < 2 * workers):
        return
    shards = divide(samples, workers, split, seed)
    assert len(shards) == workers
    assert sorted(np.concatenate(shards)) == list(range(samples.count))
    assert min(len(shard) for shard in shards) > 0
    for shard, again in zip(shards, divide(samples, workers, split, seed), strict=True):
        assert np.array_equal(shard, again)
        assert list(shard) == sorted(shard)
    assert samples.classes is not None
    assert samples.part is not None
    sizes = {len(shard) for shard in shards}
    if split in ("iid", "by-class"):
        assert max(sizes) - min(sizes) <= 1
    if split == "by-class":
        held = [samples.classes[shard] for shard in shards]
        assert all(one.max() <= other.min() for one, other in itertools.pairwise(held))
    if split == "mix":
        assert all(set(samples.part[shard]) == {rank % 2} for rank, shard in enumerate(shards))


def class_counts(alpha: str, seed: int = 0) -> np.ndarray:
    classes = np.arange(20_000) % 10
    shards = divide(Divisible("some", 20_000, classes, None), 8, f"dirichlet:{alpha}", seed)
    return np.array([np.bincount(classes[shard], minlength=10) for shard in shards])


def test_a_large_alpha_is_nearly_iid_and_a_small_one_nearly_by_class() -> None:
    assert abs(class_counts("1e6") - 250).max() < 10  # 2,000 of each class over 8 workers
    few = class_counts("0.001")
    assert ((few > 1990).sum(axis=0) == 1).sum() >= 9  # nearly every class is all with one worker


def test_shares_have_the_variance_of_a_dirichlet_distribution() -> None:
    shares = np.concatenate([class_counts("0.5", seed) / 2000 for seed in range(30)])
    # Var = (1/P)(1 - 1/P)/(P α + 1); 2,400 shares give its standard deviation to some 3 %.
    assert shares.std() == pytest.approx(((1 / 8) * (7 / 8) / (8 * 0.5 + 1)) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    ("samples", "workers", "split", "error", "what"),
    [
        (Divisible("few", 3, np.zeros(3, int), None), 4, "iid", InfeasibleError, "4 workers but few has 3 training"),
        (Divisible("few", 3, np.zeros(3, int), None), 4, "dirichlet:1", InfeasibleError, "use at most 3 workers"),
        (Divisible("text", 9, None, None), 2, "by-class", UsageError, "text is sequences: use --split iid"),
        (Divisible("text", 9, None, None), 2, "dirichlet:1", UsageError, "text is sequences: use --split iid"),
        (Divisible("one", 9, np.zeros(9, int), None), 2, "mix", UsageError, "split mix needs two data sets"),
        (Divisible("two", 9, None, np.arange(9) % 2), 1, "mix", InfeasibleError, "at least 2 workers"),
        (Divisible("two", 9, None, np.arange(9) // 8), 4, "mix", InfeasibleError, "2 workers share a data set of 1"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    samples: Divisible, workers: int, split: str, error: type[Exception], what: str
) -> None:
    with pytest.raises(error) as raised:
        divide(samples, workers, split, 0)
    one_line(raised, what)


# Sampling.


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 5), st.integers(0, 3))
def test_in_an_epoch_every_sample_comes_once(size: int, batch_size: int, seed: int, rank: int) -> None:
    shards = [np.arange(size) + 100 * number for number in range(4)]
    sampler = Sampler(shards, batch_size, seed, EPOCHS)
    steps = -(-3 * size // batch_size)
    batches = [sampler.batch(rank, step) for step in range(steps)]
    assert {len(batch) for batch in batches} == {batch_size}
    stream = np.concatenate(batches)
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == sorted(shards[rank])
    expected = np.random.default_rng((seed, 2, rank, 0)).permutation(shards[rank])
    assert np.array_equal(stream[:size], expected)
    for step in reversed(range(steps)):  # a function of the step, whatever was asked before
        assert np.array_equal(sampler.batch(rank, step), batches[step])


def test_epochs_differ_between_each_other_and_between_workers() -> None:
    sampler = Sampler([np.arange(50), np.arange(50)], 50, 0, EPOCHS)
    orders = {tuple(sampler.batch(rank, step)) for rank in (0, 1) for step in (0, 1, 2)}
    assert len(orders) == 6


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9))
def test_random_batches_repeat_nothing_where_the_shard_is_large_enough(size: int, batch_size: int, step: int) -> None:
    batch = Sampler([np.arange(size)], batch_size, 0, RANDOM).batch(0, step)
    assert len(batch) == batch_size
    assert set(batch) <= set(range(size))
    if size >= batch_size:
        assert len(set(batch)) == batch_size


def test_samples_take_what_they_are_asked_for() -> None:
    inputs = torch.arange(24, dtype=torch.float32).view(6, 4)
    samples = Samples(inputs, torch.arange(6))
    taken, labels = samples.take(torch.tensor([5, 0]))
    assert taken.tolist() == [[20, 21, 22, 23], [0, 1, 2, 3]]
    assert labels.tolist() == [5, 0]
    changed = Samples(inputs.clone(), torch.tensor([0, 1, 2, 3, 4, 4]))
    assert samples.sha256() != changed.sha256()


# Names that unpacking gives.


def moved_files(tmp_path: Path, renamed: Callable[[str], str], compressed: bool = False) -> Path:
    write_mnist(tmp_path / "written", compressed=compressed)
    root = tmp_path / "data"
    for path in (tmp_path / "written").iterdir():
        target = root / renamed(path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return root


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "renamed",
    [
        lambda name: f"mnist/{name.replace('-idx', '.idx')}",  # WinZip, 7-Zip
        lambda name: f"mnist/{name.removesuffix('.gz')}/{name}",  # a folder for each
        lambda name: f"mnist/{name.removesuffix('.gz').replace('-idx', '.idx')}/{name.removesuffix('.gz')}",
        lambda name: f"MNIST/{name.upper()}",
        lambda name: f"archive/mnist_dataset/{name}",
        lambda name: f"mnist/mnist/raw/{name}",
        lambda name: f"mnist/{name.removesuffix('.gz')}",  # compressed, without its suffix
        lambda name: f"mnist/{name.removesuffix('.gz')}.gz",  # with it, but plain
    ],
)
@pytest.mark.usefixtures("nowhere")
def test_idx_files_are_found_under_the_names_that_unpacking_gives(
    tmp_path: Path, renamed: Callable[[str], str], compressed: bool
) -> None:
    workload = load_workload("fc-mnist", 0, "mnist", moved_files(tmp_path, renamed, compressed))
    assert torch.equal(workload.training.inputs[:, 0], torch.from_numpy(some_images(40, 0)[0]))
    assert torch.equal(workload.test.inputs[:, 0], torch.from_numpy(some_images(20, 1)[0]))


@pytest.mark.usefixtures("nowhere")
def test_a_folder_that_is_named_like_the_data_may_itself_be_given(tmp_path: Path) -> None:
    root = moved_files(tmp_path, lambda name: f"fashion-mnist/{name}")
    assert len(load_workload("fc-mnist", 0, "fashion-mnist", root / "fashion-mnist").training) == 40


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("folder", ["", "raw/", "kmnist/"])
@pytest.mark.usefixtures("nowhere")
def test_files_that_may_be_another_data_sets_are_not_taken(tmp_path: Path, data: str, folder: str) -> None:
    root = moved_files(tmp_path, lambda name: folder + name)
    with pytest.raises(InfeasibleError) as raised:
        load_workload("fc-mnist", 0, data, root)
    one_line(raised, "holds files of these names, but its name does not show", f"name it {data}")


@pytest.mark.usefixtures("nowhere")
def test_fashion_is_not_taken_for_mnist_nor_the_other_way_round(tmp_path: Path) -> None:
    for theirs, wanted in (("fashion-mnist", "mnist"), ("mnist", "fashion-mnist")):
        root = moved_files(tmp_path / theirs, lambda name, folder=theirs: f"{folder}/{name}")  # type: ignore[misc]
        with pytest.raises(InfeasibleError):
            load_workload("fc-mnist", 0, wanted, root)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "move",
    [
        lambda folder, root: folder.rename(root / "itself"),
        lambda folder, root: shutil.copytree(folder, root / folder.name / folder.name),
        lambda folder, root: shutil.copytree(folder, root / f"{folder.name.split('-py')[0]}-python" / folder.name),
        lambda folder, root: shutil.copytree(folder, root / f"CIFAR_100 {folder.name.split('-')[1]}"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.usefixtures("nowhere")
def test_cifar_is_found_where_unpacking_nests_it(
    tmp_path: Path, data: str, move: Callable[[Path, Path], Any], compressed: bool
) -> None:
    write_cifar(tmp_path / "written", data)
    (folder,) = (tmp_path / "written").iterdir()
    if compressed:
        for path in list(folder.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    plain = load_workload("resnet20", 0, data, tmp_path / "written").data_sha256()
    root = tmp_path / "data"
    root.mkdir()
    move(folder, root)
    given = root / "itself" if (root / "itself").exists() else root
    if data == "cifar100" and given != root:
        given = given.rename(root / "cifar-100")
    assert load_workload("resnet20", 0, data, given).data_sha256() == plain


@pytest.mark.usefixtures("nowhere")
def test_what_is_there_instead_is_listed(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    (tmp_path / "other").mkdir()
    with pytest.raises(InfeasibleError) as raised:
        load_workload("resnet20", 0, "cifar10", tmp_path)
    one_line(
        raised, "data_batch_5, test_batch not found", f"nor in {tmp_path}, which holds cifar-10-python.tar.gz, other/;"
    )
    with pytest.raises(InfeasibleError) as raised:
        load_workload("resnet20", 0, "cifar10", tmp_path / "missing")
    one_line(raised, "which cannot be read (No such file or directory)")
