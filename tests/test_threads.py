"""Simulations in threads, in forked processes and in loops: the same bytes, the same settings, the same memory."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import netsim
from netsim._util.system import old_objects_set_aside

PROGRAM = """
import ctypes, gc, multiprocessing
from concurrent.futures import ThreadPoolExecutor

import netsim

SIZES = {"workers": 4, "timing_only": True, "elements": 10_000, "algorithm": "dense,gtopk", "density": 0.01}
DATA = {"workers": 3, "rounds": 2, "algorithm": "dense,gtopk", "compute_time": "1ms"}
DATA |= {"select_time": "0s", "merge_time": "0s"}

def simulate(seed):
    options = DATA if seed % 2 else SIZES | {"engine": "event", "topology": "ring"}
    return netsim.simulate(**options, seed=seed).to_json()
"""
THREADS_AND_FORKS = """
import torch
expected = [simulate(seed) for seed in range(8)]
before = torch.get_num_threads(), gc.get_threshold(), gc.get_freeze_count()
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(simulate, range(8))) == expected, "threads"
assert (torch.get_num_threads(), gc.get_threshold(), gc.get_freeze_count()) == before
torch.arange(10**6).sum()  # starts OpenMP's threads, which a forked process does not have
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map_async(simulate, range(8)).get(120) == expected, "forks"
"""
LOOP = """
class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

malloc_info = ctypes.CDLL(None).mallinfo2
malloc_info.restype = Info

def in_use():
    gc.collect()
    info = malloc_info()
    return info.uordblks + info.hblkhd

for repeat in range(20):
    simulate(repeat % 5)
before = in_use()
for seed in range(5, 55):
    simulate(seed if seed % 10 == 1 else 0)
print(in_use() - before)
"""


def run(program: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_threads_and_forked_processes_give_the_same_bytes() -> None:
    run(THREADS_AND_FORKS)


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="memory in use is read from glibc 2.33 or later"
)
def test_fifty_simulations_do_not_grow_in_memory() -> None:
    """Memory in use, of Python, NumPy and torch: a vector of digits-mlp kept of each of the five that train is 1 MB."""
    assert int(run(LOOP)) < 200_000


def test_simulations_of_sizes_in_threads_give_the_same_bytes() -> None:
    def simulate(seed: int) -> str:
        return netsim.simulate(timing_only=True, elements=100, workers=3, algorithm="gtopk,ps", seed=seed).to_json()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(simulate, range(8))) == [simulate(seed) for seed in range(8)]


def test_the_garbage_collector_is_restored_after_the_last_of_overlapping_simulations() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    first_may_end, second_began = threading.Event(), threading.Event()

    def first() -> None:
        with old_objects_set_aside():
            second_began.wait(10)
        first_may_end.set()

    thread = threading.Thread(target=first)
    thread.start()
    while not gc.get_freeze_count():
        pass
    with old_objects_set_aside():
        second_began.set()
        thread.join(10)
        assert first_may_end.is_set()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() != before[0]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_objects_that_the_caller_froze_stay_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with old_objects_set_aside():
            pass
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
