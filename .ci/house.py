"""Check the plan of the house: no circle of folders, one meaning for a type's name, a docstring for every public name.

python .ci/house.py
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("netsim", "algorithms", "topologies", "studies")


def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module by its dotted name."""
    files = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return {_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """Return the room of a module: a folder of netsim, or a package beside it."""
    parts = module.split(".")
    return (
        ".".join(parts[:2]) if parts[0] == "netsim" and len(parts) > 2 else parts[0] if parts[0] != "netsim" else module
    )


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield every module that a tree imports, for types alone included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def circles(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Yield a line for a circle of rooms that import each other."""
    known = {room(module) for module in trees}
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        for target in imports(tree):
            if target in trees and room(target) in known and room(target) != room(module):
                arrows[room(module)].add(room(target))
    arrows.pop("netsim", None)  # it re-exports, lazily
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        yield f"rooms import each other: {' -> '.join(error.args[1])}"


def types(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Yield a line for each type's name that is defined more than once."""
    where: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                where[node.name].append(module)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                where[_alias(node)].append(module)
    for name, found in sorted(where.items()):
        if name and len(found) > 1:
            yield f"type {name} is defined in {', '.join(found)}"


def _alias(node: ast.AnnAssign | ast.Assign) -> str:
    """Return the name of a type alias, and nothing for another assignment."""
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    name = target.id if isinstance(target, ast.Name) else ""
    return name if name[:1].isupper() and name != name.upper() and not name.startswith("_") else ""


def undocumented(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Yield a line for each public module, class, function and method without a docstring."""
    for module, tree in trees.items():
        if ast.get_docstring(tree) is None and tree.body:
            yield f"{module} has no docstring"
        for owner, node in _public(tree):
            if ast.get_docstring(node) is None:
                yield f"{module}:{node.lineno} {owner}{node.name} has no docstring"


def _public(tree: ast.Module) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield "", node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.", inner


def main() -> int:
    """Print what is wrong; return 1 if anything is."""
    trees = modules()
    found = [*circles(trees), *types(trees), *undocumented(trees)]
    print(
        "\n".join(
            [*found, f"{len(trees)} modules, {len({room(module) for module in trees})} rooms, {len(found)} faults"]
        )
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
