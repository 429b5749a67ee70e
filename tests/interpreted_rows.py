"""The kernels in Triton, executed by Triton's interpreter on vectors in main memory; test_fused_rows.py runs this file.

The interpreter must be asked for before triton is imported: TRITON_INTERPRET=1 pytest tests/interpreted_rows.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import interpreter_builder

import netsim
from algorithms import fused_rows, kernels, triton_kernels
from algorithms.compression import accumulate_and_select_rows
from algorithms.selection import Selector
from netsim.comm.payload import Dense
from netsim.training.sgd import Scaled
from tests import fake_gpu as fake
from tests.test_fake_gpu import USUAL, workload

LONG = 4096 * 8
"""Elements of a vector from which on the k-th largest is guessed from a sample."""
CPU = torch.device("cpu")
Launch = Callable[..., None]


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Select by Triton on every device, run the programs of each kernel from last to first, and list the launches.

    On a GPU programs run in any order; the interpreter runs them in ascending order.
    """
    names: list[str] = []
    monkeypatch.setattr(fused_rows, "is_right_on", lambda _: True)
    set_index, launch = interpreter_builder.set_grid_idx, triton_kernels.launch

    def from_last(*index: int) -> None:
        set_index(*(number - 1 - each for number, each in zip(interpreter_builder.grid_dim, index, strict=True)))

    def listed(kernel: Any, *args: Any, **options: Any) -> None:
        names.append(kernel.fn.__name__)
        launch(kernel, *args, **options)

    monkeypatch.setattr(interpreter_builder, "set_grid_idx", from_last)
    monkeypatch.setattr(triton_kernels, "launch", listed)
    return names


def drawn(kind: str, rows: int, size: int) -> np.ndarray:
    random = np.random.default_rng(1)
    return {
        "normal": lambda: random.standard_normal((rows, size)),
        "equal": lambda: np.full((rows, size), -0.5),  # so many candidates that the list overflows
        "mostly zero": lambda: random.standard_normal((rows, size)) * (random.random((rows, size)) < 2e-3),
        "zero": lambda: np.zeros((rows, size)),
        # What the sample sees is larger than everything else, so the floor is far too high.
        "large at the stride": lambda: np.where(
            np.arange(size) % (size // 4096) == 0, 1e3, random.random((rows, size))
        ),
        "denormal": lambda: random.standard_normal((rows, size)) * 1e-39,
        "not finite": lambda: np.where(
            random.random((rows, size)) < 1e-3, np.resize([[np.nan], [np.inf], [-np.inf]], (rows, 1)), 1.0
        ),
    }[kind]().astype(np.float32)


def laid_out(values: np.ndarray, layout: str) -> list[torch.Tensor]:
    """Return rows as tensors of their own, or as rows of one matrix that begin at multiples of 16 bytes or do not."""
    rows, size = values.shape
    if layout == "own":
        return [torch.from_numpy(row.copy()) for row in values]
    padding = -size % 64 if layout == "padded" else 1 + -size % 4  # which no row but the first begins at a multiple of
    matrix = torch.full((rows, size + padding), torch.nan)
    matrix[:, :size] = torch.from_numpy(values)
    return [row[:size] for row in matrix]


CASES = [
    *[(kind, 3, 2 * LONG, "own") for kind in ("normal", "equal", "mostly zero", "zero", "large at the stride")],
    *[(kind, 3, 2 * LONG, "own") for kind in ("denormal", "not finite")],
    *[("normal", 3, 2 * LONG + 5, layout) for layout in ("own", "padded", "odd")],
    *[("normal", rows, LONG + 4093, "own") for rows in (1, 64)],
]


@pytest.mark.parametrize(("kind", "rows", "size", "layout"), CASES)
def test_rows_are_selected_as_the_compiled_kernels_do(
    launched: list[str], kind: str, rows: int, size: int, layout: str
) -> None:
    k, factors = 150, np.resize([0.1, 0.1, 0.3, 1.0], rows).tolist()
    gradients = np.random.default_rng(2).standard_normal((rows, size)).astype(np.float32)
    if kind in ("equal", "zero", "mostly zero"):
        gradients[:] = 0
    elif kind == "denormal":
        gradients *= np.float32(1e-39)
    residuals = drawn(kind, rows, size)
    there, addends = laid_out(residuals, layout), laid_out(gradients, layout)
    versions = [each._version for each in there]
    vectors = [Scaled(Dense(addend), factor) for addend, factor in zip(addends, factors, strict=True)]
    calls = [(Dense(one), other, Selector(k)) for one, other in zip(there, vectors, strict=True)]

    found = list(accumulate_and_select_rows(calls))

    assert "_accumulate" in launched
    for row, (selected, residual) in enumerate(zip(found, residuals, strict=True)):
        indices, values = kernels.accumulate_select(residual, gradients[row], k, factors[row])
        np.testing.assert_array_equal(selected.local.indices.numpy(), indices)  # type: ignore[union-attr]
        np.testing.assert_array_equal(selected.local.values.numpy(), values)  # type: ignore[union-attr]
        np.testing.assert_array_equal(selected.rest.values.numpy(), residual)  # type: ignore[union-attr]
        assert selected.rest.values.data_ptr() == there[row].data_ptr()  # type: ignore[union-attr]
        assert there[row]._version > versions[row]
        np.testing.assert_array_equal(addends[row].numpy(), gradients[row])
    if layout != "own":  # nothing was written between the rows
        assert there[0]._base is not None
        assert there[0]._base[:, size:].isnan().all()


@pytest.mark.parametrize(
    ("size", "selector"),
    [(LONG - 1, Selector(5)), (LONG, Selector(LONG // 4)), (LONG, Selector(50, ((LONG, 50),)))],
    ids=["short", "many entries", "tensors"],
)
def test_other_vectors_are_left_to_torch(size: int, selector: Selector) -> None:
    rows = [torch.zeros(size)] * 2
    assert fused_rows.is_fused([torch.zeros(LONG)], [Dense(torch.zeros(LONG))], Selector(50))
    assert not fused_rows.is_fused(rows, [Dense(each) for each in rows], selector)


@pytest.mark.parametrize(
    "values", [torch.zeros(LONG, dtype=torch.float64), torch.zeros(2 * LONG)[::2]], ids=["float64", "strided"]
)
def test_other_types_and_strides_are_left_to_torch(values: torch.Tensor) -> None:
    assert not fused_rows.is_fused([values], [Dense(torch.zeros(LONG))], Selector(50))
    assert not fused_rows.is_fused([torch.zeros(LONG)], [Dense(values)], Selector(50))


def test_the_check_accepts_the_kernels(caplog: pytest.LogCaptureFixture, launched: list[str]) -> None:
    with caplog.at_level(logging.WARNING):
        assert fused_rows._check(CPU)
    assert not caplog.records
    assert set(launched) == {"_sample", "_accumulate", "_order", "_clear"}


def leaves_residuals(launch: Launch, kernel: Any, *args: Any, **options: Any) -> None:
    if kernel.fn.__name__ != "_clear":
        launch(kernel, *args, **options)


def leaves_disorder(launch: Launch, kernel: Any, grid: Any, *args: Any, **options: Any) -> None:
    """Copy the lists as they were appended."""
    launch(kernel, grid, *args, **options)
    if kernel.fn.__name__ == "_order":
        ends, lists, ordered = args[2:5]
        for row, number in enumerate(ends[:, -1].clamp(max=lists.shape[1]).tolist()):
            ordered[row, :number] = lists[row, :number]


def adds_other_bits(launch: Launch, kernel: Any, grid: Any, table: Any, *args: Any, **options: Any) -> None:
    """Multiply by the next larger factor, whose products differ in their last bits, as those of an FMA do."""
    if kernel.fn.__name__ == "_accumulate":
        table = table.clone()
        table[:, 2] += 1
    launch(kernel, grid, table, *args, **options)


def leaves_the_end(launch: Launch, kernel: Any, grid: Any, *args: Any, **options: Any) -> None:
    """Leave out the last three elements, as a wrong mask would."""
    if kernel.fn.__name__ == "_accumulate":
        *args, size, room = args  # type: ignore[assignment]
        args = (*args, size - 3, room)
    launch(kernel, grid, *args, **options)


def does_not_compile(launch: Launch, kernel: Any, *args: Any, **options: Any) -> None:
    raise RuntimeError("no C compiler\nwas found")


SABOTAGES = {
    leaves_residuals: "its results for [32768, 65539] elements differ from those of the CPU",
    leaves_disorder: "its results for [32768, 65539] elements differ from those of the CPU",
    adds_other_bits: "its results for [32768, 65539] elements differ from those of the CPU",
    leaves_the_end: "its results for [32768, 65539] elements differ from those of the CPU",
    does_not_compile: "RuntimeError: no C compiler",
}


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__)
def test_the_check_refuses_kernels_that_are_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sabotage: Callable[..., None]
) -> None:
    launch = triton_kernels.launch
    monkeypatch.setattr(triton_kernels, "launch", lambda *args, **options: sabotage(launch, *args, **options))
    with caplog.at_level(logging.WARNING):
        assert not fused_rows._check(CPU)
    assert [record.getMessage() for record in caplog.records] == [
        f"netsim: Triton's kernel is not used on cpu ({SABOTAGES[sabotage]}); torch's operators select instead, "
        "more slowly"
    ]


def let_triton_see_the_fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute kernels on the memory that tensors on the fake GPU hold, and count them as its kernels."""
    launch = triton_kernels.launch

    def counted(kernel: Any, grid: Any, *args: Any, **options: Any) -> None:
        fake._gpu.counts.launched(kernel.fn.__name__)
        launch(kernel, grid, *(arg.held if isinstance(arg, fake.FakeCuda) else arg for arg in args), **options)

    monkeypatch.setattr(fused_rows, "is_right_on", lambda _: True)
    monkeypatch.setattr(triton_kernels, "launch", counted)
    monkeypatch.setattr(triton_kernels, "address", lambda values: values.held.data_ptr())


def test_launches_and_waits_of_a_round_do_not_grow(monkeypatch: pytest.MonkeyPatch, launched: list[str]) -> None:
    workers, size = 64, LONG
    let_triton_see_the_fake_gpu(monkeypatch)
    counts = fake.counts_of_an_exchange(workers, size)
    assert launched.count("_accumulate") == 4  # in each of two rounds, for all workers of a batch at once
    assert counts.launches <= 2 * workers, counts
    assert counts.waits <= 4, counts
    # the residuals; of half of the workers at once the gradients; lists of candidates; the template
    assert workers < counts.most_memory / (4 * size) <= 1.6 * workers, counts


def test_a_run_by_triton_ends_with_the_bits_of_the_cpu(monkeypatch: pytest.MonkeyPatch, launched: list[str]) -> None:
    options: dict[str, Any] = USUAL | {"algorithm": "gtopk,topk", "rounds": 2, "workload": workload()}
    monkeypatch.setattr(fused_rows, "_agrees", {"cuda:0": True})
    with fake.fake_gpu():
        let_triton_see_the_fake_gpu(monkeypatch)
        found = netsim.simulate(**options, device="cuda")
    assert "_accumulate" in launched
    assert found.environment["selection"] == "triton"
    expected = netsim.simulate(**options, device="cpu")
    assert "selection" not in expected.environment
    for one, other in zip(found.results, expected.results, strict=True):
        assert one.parameters_sha256 == other.parameters_sha256


if __name__ == "__main__":
    for at_once in (32, 3):
        with pytest.MonkeyPatch.context() as patch:
            let_triton_see_the_fake_gpu(patch)
            patch.setattr("algorithms.compression.AT_ONCE", at_once * LONG)
            found = fake.counts_of_an_exchange(64, LONG)
        share = found.most_memory / (4 * LONG * 64)
        print(f"{at_once} of 64 at once, memory {share:.2f} times the residuals: {found}")  # noqa: T201
