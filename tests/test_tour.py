"""The notebook of the examples: its cells run from the first to the last, and it is stored without outputs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOUR = Path(__file__).parents[1] / "examples" / "tour.ipynb"
pytestmark = pytest.mark.skipif(not TOUR.exists(), reason="the tests run away from the sources, without examples")
KERNEL = """
import ast, json, sys

cells = json.loads(sys.stdin.read())
for number, source in enumerate(cells):
    tree = ast.parse(source, f"cell {number}")
    *statements, last = tree.body
    shown = isinstance(last, ast.Expr) and not source.rstrip().endswith(";")
    exec(compile(ast.Module(statements if shown else tree.body, []), f"cell {number}", "exec"), globals())
    if shown:
        value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), globals())
        html = value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)
        print(f"[{number}] {len(html)} {type(value).__name__}")
"""
"""What a kernel does with cells: it runs them in the module __main__, and shows the last expression of each."""


def notebook() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TOUR.read_text(encoding="utf-8"))
    return found


def sources() -> list[str]:
    return ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_is_stored_without_outputs() -> None:
    assert notebook()["nbformat"] == 4
    for cell in notebook()["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert all(ast.parse(source) for source in sources())


@pytest.mark.slow
def test_the_cells_of_the_notebook_run(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", KERNEL],
        input=json.dumps(sources()),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MPLBACKEND": "agg", "PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(TOUR.parents[1])},
    )
    assert ran.returncode == 0, ran.stderr
    shown = [line.split()[-1] for line in ran.stdout.splitlines() if line.startswith("[")]
    assert shown == ["Report", "DataFrame", "DataFrame", "ExchangeResult", "DataFrame", "Report", "str", "DataFrame"]
    assert (tmp_path / "rows.csv").exists()
