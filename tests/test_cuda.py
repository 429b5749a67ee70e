"""The same on a GPU. Skipped where there is none, which is said."""

from __future__ import annotations

import pytest
import torch

import netsim

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: torch.cuda.is_available() is False")


def test_gradients_come_from_the_gpu() -> None:
    report = netsim.simulate(workers=3, algorithm="gtopk,dense", rounds=3, device="cuda:0")
    assert report.environment["device"] == "cuda:0"
    on_cpu = netsim.simulate(workers=3, algorithm="gtopk,dense", rounds=3, device="cpu")
    for gpu, cpu in zip(report.results, on_cpu.results, strict=True):
        assert gpu.compute_provenance == "MEASURED"
        assert gpu.bytes_sent_by_rank == cpu.bytes_sent_by_rank
        assert gpu.final_loss == pytest.approx(cpu.final_loss, rel=1e-3)


def test_the_same_gpu_gives_the_same_parameters_twice() -> None:
    hashes = {
        netsim.simulate(workers=2, algorithm="topk", rounds=3, device="cuda").results[0].parameters_sha256
        for _ in range(2)
    }
    assert len(hashes) == 1


@pytest.mark.real
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nccl needs a GPU a rank: fewer than two are here")
def test_nccl_ranks_agree_with_the_simulation() -> None:
    options = {"algorithm": "dense,dense-tree,ps,topk,gtopk", "rounds": 3, "device": "cuda"}
    simulated = netsim.simulate(workers=2, **options).results
    real = netsim.run(workers=2, backend="nccl", **options).results
    assert [one.parameters_sha256 for one in simulated] == [other.parameters_sha256 for other in real]
