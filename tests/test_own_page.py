"""The page on users' own algorithms, tried as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "own-algorithm.md"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not PAGE.exists(), reason="the tests run away from the sources")
def test_every_command_and_every_block_of_python_works_in_an_empty_folder(tmp_path: Path) -> None:
    text = PAGE.read_text()
    [commands] = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    scripts = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(scripts) == 2
    folder = os.fspath(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTEST_ADDOPTS": ""}
    for line in commands.splitlines():
        subprocess.run(line, shell=True, cwd=tmp_path, env=environment, check=True, timeout=300)  # noqa: S602
    for number, script in enumerate(scripts):
        (tmp_path / f"script{number}.py").write_text(script)
        subprocess.run([sys.executable, f"script{number}.py"], cwd=tmp_path, env=environment, check=True, timeout=300)
