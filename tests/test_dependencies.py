"""What is imported is declared, what is declared is imported, and the tested versions are among those allowed."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = ("netsim", "algorithms", "topologies", "studies")
OPTIONAL = {"distributed": "cluster", "numba": "fast", "triton": "dev"}
"""What is imported only where it is installed, and the extra that installs it."""
OF_NOTEBOOKS = {"ipython"}
"""What is imported only in a notebook, which has it."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def declared(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


def imports(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a text imports when it runs, at whatever depth; not those that only checkers see."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (each.name for each in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        yield str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from imports(child)


def imported(folder: Path) -> set[str]:
    """Return the distributions, or else modules, that the files of a folder import."""
    names = {name.partition(".")[0] for path in folder.rglob("*.py") for name in imports(ast.parse(path.read_text()))}
    of = packages_distributions()
    return {canonicalize_name(of.get(each, [each])[0]) for each in names - sys.stdlib_module_names - {*OURS, "tests"}}


def installed(names: set[str]) -> set[str]:
    """Return those that are distributions: tests also write modules, and import them."""
    return names & {canonicalize_name(each) for of in packages_distributions().values() for each in of}


def of_ours() -> set[str]:
    folders = [Path(str(spec.origin)).parent for name in OURS if (spec := find_spec(name)) is not None]
    assert len(folders) == len(OURS)
    return set().union(*map(imported, folders))


def test_what_the_packages_import_is_what_is_declared() -> None:
    assert of_ours() - set(OPTIONAL) - OF_NOTEBOOKS == set(declared(PROJECT["dependencies"]))
    for name, extra in OPTIONAL.items():
        assert name in declared(EXTRAS[extra])


def test_what_tests_and_benchmarks_import_is_declared_for_development() -> None:
    everything = declared([line for lines in [PROJECT["dependencies"], *EXTRAS.values()] for line in lines])
    for folder in (ROOT / "tests", ROOT / "benchmarks"):
        assert installed(imported(folder)) <= {*everything, "packaging"}  # which pytest depends on


def test_no_torch_is_allowed_that_runs_code_of_a_checkpoint() -> None:
    """CVE-2025-32434: torch.load(weights_only=True) of 2.5.1 and before runs code; 2.6.0 does not."""
    torch = declared(PROJECT["dependencies"])["torch"].specifier
    assert [each for each in ("2.4.0", "2.4.1", "2.5.0", "2.5.1") if each in torch] == []
    assert "2.6.0" in torch


def test_every_file_of_torch_is_read_without_running_what_it_says() -> None:
    """Ruff sees the other calls that could run code: pickle, marshal, eval, yaml.load, a shell."""
    loads = []
    for name in OURS:
        for path in Path(str(find_spec(name).origin)).parent.rglob("*.py"):  # type: ignore[union-attr]
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            loads += [call for call in calls if ast.unparse(call.func) == "torch.load"]
    assert loads
    for call in loads:
        assert "weights_only=True" in ast.unparse(call)


def test_tested_versions_are_among_those_allowed() -> None:
    path = ROOT / "constraints.txt"
    if not path.exists():
        pytest.skip("constraints.txt is not beside these tests")
    tested = declared([line for line in path.read_text().splitlines() if not line.startswith("#")])
    for lines in [PROJECT["dependencies"], *EXTRAS.values()]:
        for name, allowed in declared(lines).items():
            if name == canonicalize_name(PROJECT["name"]):
                continue
            assert str(tested[name].specifier).removeprefix("==") in allowed.specifier, name
