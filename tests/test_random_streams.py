"""Everything random has a stream of its own: no two generators are the same, and nothing else is one."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import netsim
from algorithms.randk import random_positions
from netsim._util.errors import UsageError
from netsim._util.random_streams import Stream, generator
from netsim.experiment.configuration import Experiment

ROOT = Path(netsim.__file__).parent.parent
ROOMS = ("netsim", "algorithms", "topologies", "studies")
DRAWS_FOR_USERS = {ROOT / "netsim/training/workloads/user_code.py"}
"""The file keeps the global generators that a user's own model may draw from, and draws nothing."""

SEEDS = (0, 1, 2, 4, 5, 101, 103, 2**32 - 1)
SMALL = (0, 1, 4, 101, 2**32 - 1)
LARGE = (2**32, 2**32 + 1, 2**33 + 4, 2**60)


def keys(stream: Stream) -> Iterator[tuple[int, ...]]:
    """Keys of a stream: small and large numbers in every place, the numbers of streams among them."""
    if not stream.parts:
        yield ()
        return
    first = SMALL if len(stream.parts) < 4 else SMALL[:3]
    yield from itertools.product(*[first] * (len(stream.parts) - 1), (*first, *LARGE))


def test_no_two_keys_give_the_same_generator() -> None:
    """NumPy's own seeding says which keys are one to it: it cuts large numbers, and appends zeros to short keys."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for seed, stream in itertools.product(SEEDS, Stream):
        for key in keys(stream):
            words = (seed, stream.number, *key)
            state = np.random.SeedSequence(words).generate_state(8).tobytes()
            assert state not in found, f"{words} and {found[state]}"
            found[state] = words
    assert len(found) > 5000


def test_no_two_streams_have_the_same_number() -> None:
    assert len({stream.number for stream in Stream}) == len(Stream)


def test_keys_that_could_be_another_are_refused() -> None:
    with pytest.raises(UsageError, match="seed 4294967296 must be less than"):
        generator(2**32, Stream.SPLIT)
    with pytest.raises(UsageError, match="seed 4294967296 must be less than"):
        netsim.simulate(timing_only=True, elements=10, seed=2**32)
    for stream, key in ((Stream.BATCHES, (2**32, 0)), (Stream.BATCHES, (1,)), (Stream.SPLIT, (0,))):
        with pytest.raises(ValueError, match="must be"):
            generator(0, stream, *key)


def test_data_batches_and_initial_values_are_drawn_as_they_always_were() -> None:
    streams = [Stream.INITIAL_VALUES, Stream.SPLIT, Stream.BATCHES, Stream.DIGITS, Stream.JUDGED_SAMPLES,
               Stream.SYNTHETIC_DATA]  # fmt: skip
    assert [stream.number for stream in streams] == [0, 1, 2, 3, 4, 5]
    assert generator(7, Stream.BATCHES, 3, 9).random() == np.random.default_rng((7, 2, 3, 9)).random()


MAKERS = {"default_rng", "RandomState", "PCG64", "Generator", "SeedSequence", "manual_seed", "Random", "seed"}


def made(path: Path) -> list[str]:
    """The calls of a file that make or seed a generator, and what it imports of `random`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    imported = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    ]
    return [name for name in names if name in MAKERS] + [name for name in imported if name == "random"]


def test_every_generator_is_of_a_stream() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py") if path not in DRAWS_FOR_USERS]
    found = {str(path.relative_to(ROOT)): calls for path in files if (calls := made(path))}
    assert found == {"netsim/_util/random_streams.py": ["Generator", "PCG64"]}


# Random-k


def picked(k: int, **options: Any) -> tuple[int, ...]:
    """The entries that all four workers send of vectors without zeros."""
    vectors = np.random.default_rng(0).uniform(1, 2, (4, 200))
    done = netsim.exchange("randk", vectors, k=k, **options)
    chosen = done.aggregated.nonzero().flatten()
    np.testing.assert_allclose(done.aggregated[chosen], vectors.sum(0)[chosen], rtol=1e-12)
    assert (done.residuals[:, chosen] == 0).all()
    assert len(chosen) == k
    return tuple(chosen.tolist())


def test_random_k_is_the_same_at_all_workers_and_another_for_each_seed_and_bucket() -> None:
    assert picked(10, seed=3) == picked(10, seed=3)
    drawn = {picked(10, seed=seed, bucket=bucket) for seed in range(5) for bucket in range(5)}
    assert len(drawn) == 25


@pytest.mark.slow
def test_random_k_picks_every_entry_alike() -> None:
    """600 draws of 20 of 200: an entry is picked 60 times, with a deviation of 7.35; five of those are not exceeded."""
    counts = Counter(entry for seed in range(600) for entry in picked(20, seed=seed))
    assert all(abs(counts[entry] - 60) < 5 * 7.35 for entry in range(200))


TINY: dict[str, Any] = {"algorithm": "randk", "workload": "tests.tiny:tiny", "density": 0.2, "rounds": 4}


def test_bytes_and_times_of_random_k_do_not_depend_on_the_seed() -> None:
    results = [netsim.exchange("randk", np.ones((2, 50)), k=5, seed=seed).bytes_sent for seed in (0, 1)]
    assert results[0] == results[1]
    sizes = [
        netsim.simulate(algorithm="randk", timing_only=True, elements=999, seed=seed).results[0] for seed in (0, 1)
    ]
    assert sizes[0] == sizes[1]


def test_buckets_of_one_size_pick_different_entries() -> None:
    overlapped: Any = Experiment.of(algorithm="randk", overlap="tensor", density=0.1).algorithm("randk", (50, 50, 50))
    draws = [bucket.algorithm.draw(50, 3) for bucket in overlapped.buckets]
    assert len({tuple(random_positions(50, draw).tolist()) for draw in draws}) == 3


@pytest.mark.real
@pytest.mark.slow
def test_random_k_picks_for_real_what_it_picks_in_simulation() -> None:
    real = netsim.run(workers=2, seed=5, **TINY).results[0]
    shas = [netsim.simulate(workers=2, seed=seed, **TINY).results[0].parameters_sha256 for seed in (5, 6)]
    assert real.parameters_sha256 == shas[0] != shas[1]
