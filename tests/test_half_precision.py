"""Messages of 16-bit values: rounding, sums, bytes and times, against IEEE's arithmetic written out in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import netsim
from algorithms import ALGORITHMS
from netsim._util.errors import NonFiniteGradientError, UsageError
from netsim.comm.collectives import ring_all_reduce
from netsim.comm.payload import Dense, SizeOnly, Sparse, Vector, check_like, nbytes, rounded, template_of, widened
from netsim.ddp import register
from netsim.experiment.configuration import Experiment
from netsim.experiment.results import sha256_of
from netsim.simulator.opening import load_task, open_session
from netsim.training.algorithm import Algorithm
from tests.oracles import gtop_k, top_k
from tests.ranks import on_ranks
from tests.strategies import gradients
from tests.test_real import SMALL

HALVES = ("bf16", "fp16")
HALF = ",".join(name for name, kind in ALGORITHMS.items() if kind.half_precision)
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def half(values: np.ndarray, dtype: str) -> np.ndarray:
    """Round float32 to the nearest value of 16 bits, of two to the even one; as float32."""
    if dtype == "fp16":
        return values.astype(np.float16).astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32)
    # bfloat16 is the upper half of float32. Adding half a unit of it, less one bit if it is even, rounds ties to even.
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def drawn(ranks: int, size: int, seed: int = 0) -> np.ndarray:
    """(P, d) float32 of magnitudes from 1/64 to 64."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((ranks, size)) * 2.0 ** random.integers(-6, 6, (ranks, size))).astype(np.float32)


def ring(vectors: np.ndarray, dtype: str, *, partial_sums: bool) -> np.ndarray:
    """The sum of a ring: chunk c starts at rank c + 1, and every rank adds its own; rounded at each rank, or once."""
    ranks = len(vectors)
    chunks = [np.array_split(half(vector, dtype), ranks) for vector in vectors]
    total = []
    for chunk in range(ranks):
        held = chunks[(chunk + 1) % ranks][chunk]
        for rank in range(chunk + 2, chunk + 1 + ranks):
            held = held + chunks[rank % ranks][chunk]
            held = half(held, dtype) if partial_sums else held
        total.append(half(held, dtype))
    return np.concatenate(total)


@pytest.mark.parametrize("dtype", HALVES)
@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_values_are_rounded_as_ieee_says(dtype: Any, bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    values = values[np.abs(values) < 65504]
    narrow = rounded(Dense(torch.from_numpy(values.copy())), dtype)
    assert narrow.values.dtype == TYPES[dtype]
    np.testing.assert_array_equal(widened(narrow).values.numpy(), half(values, dtype))


def test_a_value_beyond_fp16_is_an_error_that_says_what_to_do() -> None:
    vector = Dense(torch.tensor([1.0, -7e4]))
    with pytest.raises(NonFiniteGradientError, match=r"70000 is beyond the range of fp16.*--dtype bf16"):
        rounded(vector, "fp16")
    assert widened(rounded(vector, "bf16")).values.tolist() == half(np.array([1, -7e4]), "bf16").tolist()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_ring_rounds_each_partial_sum_or_the_sum_once(ranks: int, dtype: Any) -> None:
    vectors = drawn(ranks, 103)
    for in_fp32 in (False, True):
        done = netsim.exchange("dense", vectors, dtype=dtype, fp32_sums=in_fp32, segment="none")
        np.testing.assert_array_equal(done.aggregated.numpy(), ring(vectors, dtype, partial_sums=not in_fp32))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_a_server_adds_in_float32_and_rounds_once(ranks: int, dtype: Any) -> None:
    vectors = drawn(ranks, 40)
    total = np.zeros(40, np.float32)
    for vector in half(vectors, dtype):
        total = total + vector
    done = netsim.exchange("ps", vectors, dtype=dtype)
    np.testing.assert_array_equal(done.aggregated.numpy(), half(total, dtype))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_sparse_messages_are_rounded_and_the_residual_keeps_the_difference(ranks: int, dtype: Any) -> None:
    vectors, k = drawn(ranks, 40), 7
    sent = np.stack([half(top_k(vector, k), dtype) for vector in vectors])
    total = np.zeros(40, np.float32)
    for vector in sent:
        total = total + vector
    done = netsim.exchange("topk", vectors, k=k, dtype=dtype)
    np.testing.assert_array_equal(done.aggregated.numpy(), total)
    np.testing.assert_array_equal(done.residuals.numpy(), vectors - sent)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_gtopk_adds_in_float32_and_rounds_what_it_passes_on(ranks: int, dtype: Any) -> None:
    vectors, k = drawn(ranks, 40, seed=1), 7
    held = [half(top_k(vector, k), dtype) for vector in vectors]
    residuals = [vector - sent for vector, sent in zip(vectors, held, strict=True)]
    distance = 1
    while distance < ranks:
        for rank in range(0, ranks - distance, 2 * distance):
            total = held[rank] + held[rank + distance]
            held[rank] = half(top_k(total, k), dtype)
            residuals[rank] = residuals[rank] + (total - held[rank])
        distance *= 2
    done = netsim.exchange("gtopk", vectors, k=k, dtype=dtype)
    np.testing.assert_array_equal(done.aggregated.numpy(), held[0])
    np.testing.assert_array_equal(done.residuals.numpy(), np.stack(residuals))


@pytest.mark.parametrize("name", ["topk", "topk:gather=bruck", "gtopk", "gtopk-naive", "gtopk-hier:group-size=2"])
@settings(max_examples=25, deadline=None)
@given(vectors=gradients(), k=st.integers(1, 40), dtype=st.sampled_from(HALVES))
def test_rounding_loses_no_gradient_mass_with_error_feedback(
    name: str, vectors: np.ndarray, k: int, dtype: Any
) -> None:
    """Sums of the drawn values are exact in float32, and so is what rounding takes from a value."""
    done = netsim.exchange(name, vectors, k=min(k, vectors.shape[1]), dtype=dtype)
    np.testing.assert_array_equal((done.aggregated + done.residuals.sum(0)).numpy(), vectors.sum(0))


def test_vectors_of_16_bits_are_exchanged_as_they_are() -> None:
    vectors = torch.from_numpy(half(drawn(3, 40), "bf16"))
    for name, k in (("dense", None), ("gtopk", 3)):
        given_as = netsim.exchange(name, vectors.bfloat16(), k=k)
        asked_for = netsim.exchange(name, vectors, k=k, dtype="bf16")
        assert torch.equal(given_as.aggregated, asked_for.aggregated)
        assert given_as.bytes_sent == asked_for.bytes_sent
    expected, _ = gtop_k(vectors.numpy(), 3)
    assert netsim.exchange("gtopk", vectors, k=3).aggregated.tolist() == expected.tolist()


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("engine", ["event", "vectorized"])
def test_an_all_reduce_of_16_bits_takes_half_the_bytes_and_the_time_of_its_formula(workers: int, engine: str) -> None:
    size, latency, bandwidth = 1000 * workers, 50e-6, 10**9
    common = {"workers": workers, "elements": size, "timing_only": True, "engine": engine, "compute_time": "0s"}
    for in_fp32, width in (("false", 4), ("true", 6)):  # bytes a value in reduce-scatter and all-gather together
        (result,) = netsim.simulate(algorithm=f"dense:segment=none,fp32-sums={in_fp32}", dtype="bf16", **common).results
        chunk = size // workers
        assert result.value_bytes_up == (workers - 1) * width * chunk
        drains = 8 * width * chunk / bandwidth
        assert result.round_time_s == pytest.approx((workers - 1) * (2 * latency + drains), rel=1e-6)
        assert result.dtype == "bf16"
    (sparse,) = netsim.simulate(algorithm="topk", dtype="fp16", k=10, **common).results
    assert (sparse.value_bytes_up, sparse.index_bytes_up) == (20 * (workers - 1), 40 * (workers - 1))


def test_formulas_of_a_great_many_workers_count_16_bits() -> None:
    common = {"workers": 65536, "elements": 25_000_000, "timing_only": True, "compute_time": "0s"}
    wide, narrow = (
        netsim.simulate(algorithm="dense:segment=none", dtype=dtype, **common).results[0] for dtype in ("fp32", "bf16")
    )
    assert narrow.way == "closed-form"
    assert narrow.value_bytes_up == wide.value_bytes_up / 2


def test_a_bucket_of_a_size_holds_twice_the_values_of_16_bits() -> None:
    buckets = {"timing_only": True, "elements": 1000, "overlap": "200B"}
    assert Experiment.of(**buckets).known_tensors() == (50,) * 20
    halves = Experiment.of(dtype="fp16", **buckets)
    assert halves.known_tensors() == (100,) * 10
    assert [piece.last - piece.first for piece in halves.pieces((60, 40, 30, 50))] == [80, 100]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_sizes_alone_count_the_bytes_of_real_gradients(dtype: str) -> None:
    """Of every algorithm while all workers upload."""
    common = {"workers": 3, "rounds": 1, "dtype": dtype, "compute_time": "1ms", "merge_time": "0s"}
    large = {"workload": "digits-mlp", "density": 0.01, "overlap": "2MB"}
    for options in (SMALL | {"algorithm": f"{HALF},dense:fp32-sums=true"}, large | {"algorithm": "dense,gtopk"}):
        real = netsim.simulate(**common, **options).results
        for one, other in zip(real, netsim.simulate(**common, **options, timing_only=True).results, strict=True):
            assert one.bytes_sent_by_rank == other.bytes_sent_by_rank, one.title


def test_payloads_of_another_precision_are_told_apart() -> None:
    vector = Dense(torch.zeros(6))
    for one, other in ((vector, rounded(vector, "bf16")), (SizeOnly(6), SizeOnly(6, None, "bf16"))):
        with pytest.raises(Exception, match=r"received a dense vector of 6 elements.*of bf"):
            check_like(one, other, "here")
    sparse = Sparse(torch.tensor([1], dtype=torch.int32), torch.tensor([1.0]), 6)
    assert [nbytes(rounded(each, "fp16")) for each in (vector, sparse, SizeOnly(6), SizeOnly(6, 1))] == [12, 6, 12, 6]
    template = template_of(vector, "bf16")
    check_like(rounded(vector, "bf16"), template, "here")
    assert template.values.untyped_storage().nbytes() == 2


def test_what_cannot_be_sent_in_16_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"dtype 'fp8'.*fp32, bf16"):
        Experiment.of(dtype="fp8")
    monkeypatch.setattr(ALGORITHMS["dense"], "half_precision", False)
    with pytest.raises(UsageError, match=r"dtype 'bf16' was given, but the messages of dense cannot hold.*it out$"):
        Experiment.of(dtype="bf16", algorithm="dense")
    with pytest.raises(UsageError, match=r"the messages of .*Mine cannot hold.*set half_precision = True"):
        netsim.exchange(Mine, np.ones((2, 3)), dtype="fp16")
    assert netsim.exchange(Mine, np.ones((2, 3))).aggregated.tolist() == [2, 2, 2]


class Mine(Algorithm):
    """An algorithm of a user, which says nothing of 16 bits."""

    async def exchange(self, worker: Any, vector: Any, memory: None, template: Vector) -> tuple[Vector, None]:
        return await ring_all_reduce(worker, vector), None


@pytest.mark.usefixtures("warm_host")
@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "algorithms", "model"),
    [("bf16", f"{HALF},dense:fp32-sums=true", SMALL), ("fp16", "dense,gtopk", {"density": 0.01})],
    ids=["bf16", "fp16"],
)
def test_real_ranks_send_16_bits_and_end_as_simulated(dtype: str, algorithms: str, model: dict[str, Any]) -> None:
    options = {"workers": 3, "algorithm": algorithms, "rounds": 3, "dtype": dtype, **model}
    simulated = netsim.simulate(**options, compute_time="5ms", select_time="1ms", merge_time="0s").results
    for one, other in zip(simulated, netsim.run(**options).results, strict=True):
        assert one.parameters_sha256 == other.parameters_sha256, one.title
        assert one.bytes_sent_by_rank == other.bytes_sent_by_rank, one.title
        assert one.dtype == other.dtype == dtype


LR, STEPS = 0.125, 10


def by_hook(rank: int, ranks: int, dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Train digits-mlp by both hooks; return the parameters before, after each, and the bytes of netsim's."""
    compress = {"bf16": default_hooks.bf16_compress_hook, "fp16": default_hooks.fp16_compress_hook}[dtype]
    trained = []
    for own in (False, True):
        task, _, _ = load_task(Experiment.of(workers=ranks), "cpu")
        net = task.workload.model.to_empty(device="cpu")
        nn.utils.vector_to_parameters(task.initial_parameters().values.clone(), net.parameters())
        model = DistributedDataParallel(net, bucket_cap_mb=100)
        if own:
            hook = register(model, "dense", dtype=dtype)
        else:
            # By its name DDP would refuse bf16's without a GPU, though gloo adds bf16.
            model.register_comm_hook(dist.group.WORLD, lambda group, bucket: compress(group, bucket))
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for step in range(STEPS):
            inputs, labels = task.samples(rank, step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        trained.append(nn.utils.parameters_to_vector(net.parameters()).detach())
    return task.initial_parameters().values, *trained, hook.bytes_sent


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
def test_torchs_compress_hook_ends_with_the_same_parameters(dtype: str) -> None:
    """Of two ranks, and at a rate that is a power of two, only fp16's subnormal values are rounded otherwise.

    torch divides by the ranks before it sends, and netsim multiplies by the rate; both scale all other values exactly.
    """
    (start, theirs, hooked, sent), _ = on_ranks(by_hook, 2, dtype)
    options = {"workers": 2, "algorithm": "dense", "lr": LR, "rounds": STEPS, "dtype": dtype, "compute_time": "1ms"}
    (simulated,) = netsim.simulate(**options).results
    with open_session(Experiment.of(**options)) as lab:
        size = lab.elements
        (in_memory, _) = lab.in_memory("dense")
    assert in_memory.parameters_sha256 == simulated.parameters_sha256
    if dtype == "bf16":
        assert torch.equal(theirs, hooked)
        assert sha256_of(Dense(theirs)) == simulated.parameters_sha256
    # Otherwise they differ by less than one rounding of the longest move to the 11 bits of fp16.
    assert (theirs - hooked).abs().max() <= 2.0**-11 * (theirs - start).abs().max()
    assert sent == 2 * STEPS * size  # 2 d (P-1)/P values of two bytes


def test_a_recommendation_and_a_note_know_the_type_of_messages() -> None:
    common = {"workers": 4, "elements": 10**6, "compute_time": "1ms", "algorithm": "dense:segment=none", "jobs": 1}
    wide, narrow = (netsim.recommend(dtype=dtype, **common).ranking[0].comm_time_s for dtype in ("fp32", "bf16"))
    latencies = 6 * 50e-6
    assert narrow - latencies == pytest.approx((wide - latencies) / 2, rel=1e-6)
    report = netsim.simulate(algorithm="dense:fp32-sums=true", timing_only=True, elements=100, compute_time="0s")
    assert any("fp32-sums of dense changed nothing" in note for note in report.notes)


class StoppedError(Exception):
    """Stops a run in a test."""


@pytest.mark.slow
def test_a_checkpoint_keeps_uploads_of_16_bits(tmp_path: Any) -> None:
    """The server of LAG remembers the last upload of every worker."""
    options = {"workers": 2, "algorithm": "lag", "dtype": "bf16", "rounds": 4, "compute_time": "1ms"}

    def stop(name: str, step: int) -> None:
        if step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        netsim.simulate(**options, checkpoint=tmp_path / "run", checkpoint_every=2, on_round=stop)
    resumed = netsim.simulate(**options, checkpoint=tmp_path / "run", checkpoint_every=2, resume=True)
    assert resumed.results[0].parameters_sha256 == netsim.simulate(**options).results[0].parameters_sha256
