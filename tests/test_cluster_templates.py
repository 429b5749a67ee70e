"""The templates of docs/cluster: options that exist, scripts that parse, an interface that is throttled and freed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from netsim.cli.app import app
from tests.cluster import why_no_cluster

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the tests run away from the sources, without docs")


def options_of(command: str) -> set[str]:
    group = typer.main.get_command(app)
    return {name for parameter in group.commands[command].params for name in parameter.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["slurm.sbatch", "kubernetes.yaml"])
def test_templates_give_netsim_options_that_it_has(name: str) -> None:
    text = (FOLDER / name).read_text()
    if name.endswith("yaml"):
        words = [line.strip().removeprefix("- ") for line in text.splitlines() if line.strip().startswith("- ")]
    else:
        words = shlex.split(re.sub(r"#.*", "", text.replace("\\\n", " ")))
    after = words[words.index("netsim") :]
    assert after[1] == "validate"
    given = {word.partition("=")[0] for word in after if word.startswith("--")}
    assert given
    assert given <= options_of("validate")


def test_scripts_parse() -> None:
    for script in ("slurm.sbatch", "throttle.sh"):
        subprocess.run(["bash", "-n", str(FOLDER / script)], check=True)


THROTTLED = """
import subprocess, sys
from netsim.cluster.namespaces import become_owner
def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.returncode, " ".join((done.stdout + done.stderr).split()))
become_owner()
for command in ("ip link add a0 type veth peer name b0", "ip link set a0 up", "ip link set b0 up"):
    run(*command.split())
for rate in ("10mbit", "10mbit", "off"):
    run("sh", sys.argv[1], "a0", rate)
    run("tc", "qdisc", "show", "dev", "a0")
run("ip", "-br", "link")
"""


@pytest.mark.skipif(bool(why_no_cluster()), reason=why_no_cluster())
def test_an_interface_is_throttled_both_ways_and_freed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/sbin:/sbin", prepend=":")
    command = [sys.executable, "-c", THROTTLED, str(FOLDER / "throttle.sh")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[3:]
    if "Unknown device type" in said[0] or "not supported" in said[0]:
        pytest.skip(f"this kernel has no ifb: {said[0]}")
    throttled, shown, again, _, freed, after, links = said
    assert throttled.startswith("0")
    assert "tbf" in shown
    assert "rate 10Mbit" in shown
    assert "ingress" in shown
    assert again.startswith("1")
    assert "throttled already" in again
    assert freed.startswith("0")
    assert "tbf" not in after
    assert "ingress" not in after
    assert "ns-a0" not in links
