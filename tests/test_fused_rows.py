"""The kernels in Triton that select in rows on a GPU: interpreted, compiled, and replaced."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms import fused_rows
from algorithms.selection import Selector
from netsim.comm.payload import Dense

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; it exists for Linux")
INTERPRETED = Path(__file__).with_name("interpreted_rows.py")
NOWHERE = torch.device("cuda:99")
"""A GPU that no machine has."""
TYPES = {"size": "i32", "room": "i32", "stride": "i32", "samples": "i32", "number": "i32"}
TYPES |= dict.fromkeys(("floors", "counts", "starts", "lengths", "ends", "keys"), "*i32")
TYPES |= dict.fromkeys(("table", "lists", "ordered", "places"), "*i64")
"""Types of the kernels' arguments, of which a name has the same everywhere."""


@pytest.mark.slow
@needs_triton
def test_kernels_are_right_in_tritons_interpreter() -> None:
    """A process of its own: what imports triton first decides whether it interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(INTERPRETED)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def compiled(kernel: str, warps: int, **constants: Any) -> Any:
    """Return a kernel as it is compiled for an H100."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from algorithms import triton_kernels

    function = getattr(triton_kernels, kernel)
    types = {name: TYPES.get(name, "constexpr") for name in function.arg_names}
    source = ASTSource(fn=function, signature=types, constexprs=constants)
    return triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": warps, "enable_fp_fusion": False})


@pytest.mark.slow
@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets")
def test_kernels_compile_for_a_gpu_to_what_costs_and_bits_rest_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An addition after a product is no FMA, numbers near zero stay, and vectors are read and written 16 bytes at once.

    A program of 256 threads has 4096 elements: 16 for each thread, in four parts.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled("_sample", 4, chunk=1024)
    compiled("_order", 1, chunk=128)
    compiled("_clear", 4, chunk=1024)
    for aligned in (True, False):
        assembly = compiled("_accumulate", 8, aligned=aligned, width=4096).asm
        ptx, machine_code = assembly["ptx"], assembly["sass"]
        assert "mul.rn.f32" in ptx
        assert "add.rn.f32" in ptx
        assert "FMUL" in machine_code
        assert "FADD" in machine_code
        assert "fma" not in ptx
        assert "FFMA" not in machine_code
        assert "ftz" not in ptx
        assert "FTZ" not in machine_code
        assert ptx.count("ld.global.v4.b32") == machine_code.count("LDG.E.128") == (8 if aligned else 0)
        assert ptx.count("st.global.v4.b32") == machine_code.count("STG.E.128") == (4 if aligned else 0)


@pytest.mark.slow
def test_a_run_on_a_cpu_does_not_import_triton() -> None:
    code = "import sys, netsim; netsim.simulate(workers=2, algorithm='gtopk'); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def built_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch look as if it were built for CUDA, and forget which devices were tried."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(fused_rows, "_agrees", {})


@needs_triton
def test_a_gpu_on_which_triton_fails_is_tried_once_and_leaves_torch(
    built_for_cuda: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not fused_rows.is_right_on(NOWHERE)
        assert not fused_rows.is_right_on(NOWHERE)
    (record,) = caplog.records
    assert record.getMessage().startswith("netsim: Triton's kernel is not used on cuda:99 (")
    assert record.getMessage().endswith("); torch's operators select instead, more slowly")
    assert fused_rows.selection_facts("cuda:99") == {"selection": "torch"}


@needs_triton
def test_a_gpu_is_tried_before_its_first_selection_only(built_for_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[torch.device] = []

    def is_right(device: torch.device) -> bool:
        tried.append(device)
        return True

    monkeypatch.setattr(fused_rows, "_check", is_right)
    assert fused_rows.selection_facts("cuda:99") == {}
    assert [fused_rows.is_right_on(NOWHERE) for _ in range(3)] == [True] * 3
    assert tried == [NOWHERE]
    assert fused_rows.selection_facts("cuda:99") == {"selection": "triton"}


def test_without_triton_or_cuda_nothing_is_tried(built_for_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: torch.device) -> bool:
        raise AssertionError("tried")

    monkeypatch.setattr(fused_rows, "_check", never)
    assert not fused_rows.is_right_on(torch.device("cpu"))
    with monkeypatch.context() as without:
        without.setattr(fused_rows, "find_spec", lambda _: None)
        assert not fused_rows.is_right_on(NOWHERE)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not fused_rows.is_right_on(NOWHERE)
    rows = [torch.zeros(2**16)]
    assert not fused_rows.is_fused(rows, [Dense(rows[0])], Selector(50))
