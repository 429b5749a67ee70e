"""The code blocks of README and docs run, and show what their commands print today."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]
RUNNER = ROOT / ".ci" / "examples.py"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md")])
FENCE = re.compile(r"^( *)```(\S+)$", re.MULTILINE)
pytestmark = pytest.mark.skipif(not RUNNER.exists(), reason="the tests run away from the sources, without docs")


def with_blocks() -> list[str]:
    return [
        str(page.relative_to(ROOT)) for page in PAGES if re.search(r"^```(sh|python|text\n\$ )", page.read_text(), re.M)
    ]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("page", with_blocks())
def test_every_block_of_a_page_runs_and_shows_what_its_commands_print(page: str) -> None:
    command = [sys.executable, RUNNER, "--check", page]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_no_block_escapes_the_runner_by_its_form() -> None:
    for page in PAGES:
        for indent, language in FENCE.findall(page.read_text()):
            assert (indent, language) in {("", each) for each in ("sh", "python", "toml", "text", "{toctree}")}, page


def test_few_blocks_cannot_run_and_each_has_a_reason() -> None:
    pages = [page.read_text() for page in PAGES]
    reasons = [reason for text in pages for reason in re.findall(r"^<!-- not run: (.+) -->\n```", text, re.MULTILINE)]
    assert sum(len(re.findall(r"^<!-- not run", text, re.MULTILINE)) for text in pages) == len(reasons)
    assert len(reasons) <= 26, "\n".join(reasons)


def test_pages_of_algorithms_have_all_of_them() -> None:
    """The page of algorithms and that of momentum: one row for each, and each class describes itself."""
    for page in ("algorithms", "recipe"):
        text, *_ = (ROOT / "docs" / f"{page}.md").read_text().partition("<!-- counts:")
        rows = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
        assert sorted(re.findall(r"`([a-z][^`]+)`", " ".join(rows))) == sorted(ALGORITHMS)
    for kind in ALGORITHMS.values():
        assert {"exchanges", "sends"} <= vars(kind).keys()


def test_a_release_has_one_version_and_one_date() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    said = re.search(r"^version: (\S+)\ndate-released: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert said is not None
    assert said[1] == version
    assert re.findall(r"^## \[(.+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == said.groups()
