"""The wheel, in an empty directory: a user's algorithm from its file to DDP, without the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TRAIN = """
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import netsim
from mine import Mine

dist.init_process_group("gloo")
torch.manual_seed(0)
net = torch.nn.Linear(20, 10)
model = DistributedDataParallel(net)
hook = netsim.ddp.register(model, Mine(fraction=0.5))
given = torch.zeros(210)
applied = torch.zeros(210)
for step in range(3):
    inputs = torch.randn(8, 20, generator=torch.Generator().manual_seed(10 * step + dist.get_rank()))
    alone = torch.autograd.grad(net(inputs).square().sum(), net.parameters())
    given += torch.cat([gradient.flatten() for gradient in alone])
    model(inputs).square().sum().backward()
    applied += 2 * torch.cat([parameter.grad.flatten() for parameter in net.parameters()])
    model.zero_grad()
memory = hook.state_dict()["memory"]
held = torch.cat([vector.flatten() for of_parameter in memory.values() for vector in of_parameter.values()])
for vector in (given, held):
    dist.all_reduce(vector)
torch.testing.assert_close(applied + held, given, atol=1e-3, rtol=1e-5)  # no gradient is lost
assert 0 < held.abs().sum()
dist.destroy_process_group()
print("trained", flush=True)
os._exit(0)  # gloo's thread may still free the last vector; if Python ends meanwhile, PyTorch 2.13 aborts the process
"""


class Installed:
    """An environment with the wheel and what netsim needs, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.environment, self.cwd = folder / "environment", folder / "empty"
        self.cwd.mkdir()
        built = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if built.returncode:
            pytest.skip(f"no wheel could be built here: {built.stderr.strip().splitlines()[-1]}")
        (wheel,) = folder.glob("*.whl")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.environment)], check=True)
        self.python = self.environment / "bin" / "python"
        (self.packages,) = self.environment.glob("lib/python*/site-packages")
        install = ["pip", "--python", str(self.python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
        subprocess.run([sys.executable, "-m", *install], check=True)
        others = [path for path in sys.path if Path(path).name == "site-packages"]
        (self.packages / "others.pth").write_text("\n".join(others))

    def run(self, *command: str) -> str:
        """Return what a program of the environment prints."""
        program, *arguments = command
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ran = subprocess.run(
            [str(self.environment / "bin" / program), *arguments],
            cwd=self.cwd, env=variables | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def results(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the results of a command of netsim."""
        found: list[dict[str, Any]] = json.loads(self.run("netsim", *arguments, "--json"))["results"]
        return found

    def install_plugin(self) -> None:
        """Install mine.py as a package that adds the algorithm "theirs" by its entry point."""
        (self.packages / "theirs.py").write_text((self.cwd / "mine.py").read_text())
        about = self.packages / "theirs-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[netsim.algorithms]\ntheirs = theirs:Mine\n")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not (ROOT / "netsim").is_dir(), reason="the sources of netsim are not here")
def test_an_algorithm_of_ones_own_from_its_file_to_ddp(tmp_path: Path) -> None:
    installed = Installed(tmp_path)
    where = installed.run("python", "-c", "import netsim; print(netsim.__file__)").strip()
    assert Path(where).is_relative_to(installed.packages)
    installed.run("netsim", "new", "algorithm", "mine.py")
    # P-1 messages of a tenth of 640,000 values and indices, 4 bytes each, at 1 Gbit/s, after 50 µs each.
    sizes = ("--workers", "64", "--timing-only", "--elements", "640000", "--latency", "50us")
    own, gtopk = installed.results("simulate", "--algorithm", "./mine.py:Mine:fraction=0.1,gtopk", *sizes)
    assert own["round_time_s"] == pytest.approx(63 * (50e-6 + 64_000 * 64 / 1e9))
    assert gtopk["algorithm"] == "gtopk"
    assert (installed.cwd / "test_mine.py").exists()  # docs/own-algorithm.md runs it
    steps = ("--algorithm", "./mine.py:Mine:fraction=0.5", "--rounds", "3")
    (real,) = installed.results("run", "--nproc", "2", *steps)
    costs = ("--compute-time", "1ms", "--select-time", "0s", "--merge-time", "0s")
    (simulated,) = installed.results("simulate", "--workers", "2", *steps, *costs)
    assert real["parameters_sha256"] == simulated["parameters_sha256"]
    (installed.cwd / "train.py").write_text(TRAIN)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = installed.run("python", *torchrun, "train.py")
    assert "".join(said.split()) == "trained" * 2  # the ranks share one pipe
    installed.install_plugin()
    (plugin,) = installed.results("simulate", "--algorithm", "theirs:fraction=0.1", *sizes)
    assert plugin["round_time_s"] == own["round_time_s"]
    said = " ".join(installed.run("netsim", "simulate", "--help").split())
    assert "theirs, or your own" in said
    assert "fraction=X theirs: Fraction of the entries that a rank sends." in said
