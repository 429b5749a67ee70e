"""The blocks of docs/clusters.md, run with stand-ins for netsim, ssh and schedulers: every shard has its turn."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_cluster_templates import options_of

PAGE = Path(__file__).parents[1] / "docs" / "clusters.md"
pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the tests run away from the sources, without docs")
STAND_INS = {
    "netsim": 'echo "$*" >> "$SAID"',
    "ssh": 'shift 2; "$@"',
    "rsync": "",
    "srun": '"$@"',
    # An array of tasks, or with --wrap a command.
    "sbatch": """
case "$*" in
  *--wrap*) for last; do :; done; sh -c "$last" ;;
  *) tasks=$(sed -n 's/^#SBATCH --array=1-\\([0-9]*\\).*/\\1/p' shards.sbatch)
     for task in $(seq "$tasks"); do SLURM_ARRAY_TASK_ID=$task sh shards.sbatch; done; echo 17 ;;
esac""",
    # The pods of an indexed job, one after the other.
    "kubectl": """
[ "$1" = apply ] || exit 0
job=$(cat)
pods=$(printf %s "$job" | sed -n 's/ *completions: //p')
command=$(printf %s "$job" | sed -n 's/ *command: \\["sh", "-c", "\\(.*\\)"\\]/\\1/p')
for pod in $(seq 0 $((pods - 1))); do JOB_COMPLETION_INDEX=$pod sh -c "$command"; done""",
}
TOOLS = ("bash", "sh", "cat", "mkdir", "sed", "seq")


@pytest.mark.parametrize(("title", "parts"), [("SLURM", 100), ("Kubernetes", 20), ("ssh", 4)])
def test_a_block_runs_every_shard_once_and_then_merges(tmp_path: Path, title: str, parts: int) -> None:
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    # Nothing but the stand-ins and these tools is found, so that no block reaches a network.
    environment = {"PATH": os.fspath(tmp_path), "SAID": os.fspath(tmp_path / "said")}
    section = PAGE.read_text().partition(f"\n## {title}\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    subprocess.run([tmp_path / "bash", "-euc", block[1]], check=True, cwd=tmp_path, env=environment, timeout=60)
    *shards, last = (tmp_path / "said").read_text().splitlines()
    assert sorted(line.rpartition(" --shard ")[2] for line in shards) == sorted(
        f"{part}/{parts}" for part in range(1, parts + 1)
    )
    same = {line.rpartition(" --shard ")[0] for line in shards}
    assert same == {last.removesuffix(" --resume")}
    assert {word for line in (*shards, last) for word in line.split() if word[0] == "-"} <= options_of("study")
