"""Rows that last, and rows that are used again once nobody holds them."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from netsim.training.buffers import BLOCK, passing_row, zero_row

STATM = Path("/proc/self/statm")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0, 1, 17, 407_050, 1_000_001])
def test_lasting_rows_are_zero_and_apart(size: int, dtype: torch.dtype) -> None:
    template = torch.empty(size, dtype=dtype)
    rows = [zero_row(template) for _ in range(3)]
    for number, row in enumerate(rows):
        assert (row.shape, row.dtype) == (template.shape, dtype)
        assert not row.any()
        row.fill_(number + 1)
    assert [row.unique().tolist() for row in rows] == [[number + 1.0] if size else [] for number in range(3)]


def test_a_passing_row_is_used_again_only_when_nobody_holds_any_of_it() -> None:
    template = torch.empty(1013)
    row = passing_row(template)
    place = row.data_ptr()
    part = row[5:7]
    del row
    assert passing_row(template).data_ptr() != place
    values = part.numpy()
    del part
    assert passing_row(template).data_ptr() != place
    del values
    assert place in {each.data_ptr() for each in [passing_row(template) for _ in range(3)]}


def test_the_row_of_a_dropped_residual_is_used_again_and_is_zero() -> None:
    template = torch.empty(1019)
    residual = zero_row(template)
    place = residual.data_ptr()
    residual.fill_(5)
    del residual
    again = zero_row(template)
    assert again.data_ptr() == place
    assert not again.any()


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says how much memory a process has now")
def test_rows_of_another_size_are_given_back_before_more_memory_is_taken() -> None:
    """Otherwise a notebook that trains one model after another would keep the rows of all."""

    def memory() -> int:
        return int(STATM.read_text().split()[1]) * mmap.PAGESIZE

    row = passing_row(torch.empty(BLOCK // 4))  # a whole block of float32
    row.fill_(1)
    del row
    before = memory()
    larger = passing_row(torch.empty(BLOCK // 4 + 1))  # no page of it is in use
    assert before - memory() > BLOCK // 2
    del larger


def test_threads_never_share_a_row() -> None:
    template = torch.empty(2048)

    def work(number: int) -> bool:
        for _ in range(200):
            row = passing_row(template)
            row.fill_(number)
            if not bool((row == number).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
