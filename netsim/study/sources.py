"""The version of a measurement: the source that decides its result, and the libraries which that source imports.

Studies reuse a kept point only if the same code would measure it today. The code that counts is every definition that
the measuring function refers to, and that those refer to in turn, in whatever file it stands. What only asks for
points, draws them or talks about them is no part of that. Docstrings and comments are left out: they decide nothing.

Libraries count by their versions. Torch and NumPy decide the bits of a trained point, NetworkX the order of equal
routes, and Python itself how ``sum`` rounds. Which of them a measurement uses is read off its imports.

References are read, not run: a name stands for whatever its module binds to it, and a text that names a module of ours
for that module, because registries import by name. Too much is followed rather than too little.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from netsim._util.system import version

OURS = ("algorithms", "netsim", "studies", "topologies")
HOME = Path(__file__).parents[2]
WHOLE = "*"
EFFECTS = "<effects>"
"""The top-level statements of a module that do more than bind a name."""


class Version(NamedTuple):
    """What decides a measurement besides its point: our code, and the versions of libraries by name."""

    code: str
    libraries: dict[str, str]


class Reference(NamedTuple):
    """A name at the top level of a module; :data:`WHOLE` stands for all names."""

    module: str
    name: str


@lru_cache(maxsize=64)
def version_of(measure: Callable[..., Any]) -> Version:
    """Return the version of a measuring function: a hash of the code it reaches, and the libraries of that code."""
    reached = reach(measure)
    found = hashlib.sha256()
    for reference, text in sorted(reached.texts.items()):
        found.update(f"{reference.module}:{reference.name}\0".encode() + hashlib.sha256(text.encode()).digest())
    libraries = {"python": ".".join(platform.python_version_tuple()[:2])}
    libraries |= {name: _installed(name) for name in sorted(reached.libraries)}
    return Version(f"{version()}+{found.hexdigest()[:16]}", libraries)


class Bound(NamedTuple):
    """What a module binds to a name, as text, and what that refers to."""

    text: str
    references: tuple[Reference, ...]


@dataclass(slots=True)
class Reached:
    """The definitions that a function reaches, as text, and the top-level packages of others that they import."""

    texts: dict[Reference, str] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)


def reach(measure: Callable[..., Any]) -> Reached:
    """Return everything of ours that `measure` refers to, directly or through others."""
    found = Reached()
    beside = _beside(measure)
    name = measure.__qualname__.partition(".")[0]
    waiting = [Reference(measure.__module__, name if name.isidentifier() else WHOLE)]
    seen: set[Reference] = set()
    while waiting:
        reference = waiting.pop()
        if reference in seen:
            continue
        seen.add(reference)
        module = load(reference.module, beside)
        if module is None:
            top = reference.module.partition(".")[0]
            if top not in sys.stdlib_module_names:
                found.libraries.add(top)
            continue
        packages = reference.module.split(".")
        waiting += [Reference(".".join(packages[: depth + 1]), EFFECTS) for depth in range(len(packages))]
        bound = module.bound(reference.name)
        if bound.text:
            found.texts[reference] = bound.text
        waiting += bound.references
    return found


class Module:
    """The source of a module, by the names that it binds at the top level."""

    def __init__(self, name: str, path: Path, beside: Path | None) -> None:
        self.name = name
        self._beside = beside
        self._package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self._bound: dict[str, list[ast.stmt]] = {}
        self._imports: dict[str, Reference] = {}
        self._effects: list[ast.stmt] = []
        self._known: dict[str, Bound] = {}
        tree = _Bare().visit(ast.parse(path.read_bytes()))
        for statement in tree.body:
            self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        for each in ast.walk(statement) if _executed_at_once(statement) else ():
            if isinstance(each, ast.Import | ast.ImportFrom):
                self._imports |= self._imports_of(each)
        for name in _names_bound(statement):
            self._bound.setdefault(name, []).append(statement)
        if _has_effects(statement):
            self._effects.append(statement)

    def bound(self, name: str) -> Bound:
        """Return what `name` stands for: a definition, what is imported, :data:`WHOLE` or :data:`EFFECTS`."""
        if name not in self._known:
            statements, imported = self._statements(name), self._imported(name)
            inner = [each for statement in statements for each in self._references(statement)]
            if name == EFFECTS:  # a function that is entered somewhere counts by its name, too
                imported = [Reference(self.name, each) for statement in statements for each in _names_bound(statement)]
            text = "\n".join([*map(ast.dump, statements), *map(":".join, imported)])
            self._known[name] = Bound(text, tuple(dict.fromkeys([*imported, *inner])))
        return self._known[name]

    def _statements(self, name: str) -> list[ast.stmt]:
        if name == WHOLE:
            every = [each for statements in self._bound.values() for each in statements]
            return list({id(each): each for each in (*every, *self._effects)}.values())
        if name == EFFECTS:
            return self._effects
        return self._bound.get(name, [])

    def _imported(self, name: str) -> list[Reference]:
        """Return what an import binds to `name`; of a name that nothing binds, all that the module holds."""
        if name == EFFECTS:
            return []
        if name == WHOLE:
            return [self._resolved(each) for each in self._imports.values()]
        if name in self._imports:
            return [self._resolved(self._imports[name])]
        return [] if name in self._bound else [Reference(self.name, WHOLE)]

    def _references(self, statement: ast.stmt) -> Iterator[Reference]:
        """Yield what a statement refers to beyond itself."""
        inner: dict[str, Reference] = {}
        for each in ast.walk(statement):
            if isinstance(each, ast.Import | ast.ImportFrom):
                imports = self._imports_of(each)
                inner |= imports
                yield from map(self._resolved, imports.values())
        within: set[int] = set()
        for each in ast.walk(statement):
            if isinstance(each, ast.Attribute):
                base, attributes = _chain(each)
                target = inner.get(base) or self._imports.get(base)
                if target is not None and id(each) not in within:
                    within |= {id(part) for part in ast.walk(each)}
                    yield self._resolved(target, attributes)
            elif isinstance(each, ast.Name) and id(each) not in within:
                if each.id in self._bound or each.id in self._imports:
                    yield Reference(self.name, each.id)
                elif each.id == "globals":
                    yield Reference(self.name, WHOLE)
            elif isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield from self._named(each.value)

    def _named(self, text: str) -> Iterator[Reference]:
        """Yield the module of ours that a text names, as ``package.module`` or ``package.module:name``."""
        module, _, name = text.partition(":")
        if all(part.isidentifier() for part in module.split(".")) and "." in module and load(module, self._beside):
            yield Reference(module, name if name.isidentifier() else WHOLE)

    def _imports_of(self, statement: ast.Import | ast.ImportFrom) -> dict[str, Reference]:
        """Return what an import statement binds; a module that is imported as such is bound whole."""
        if isinstance(statement, ast.Import):
            return {
                each.asname or each.name.partition(".")[0]: Reference(
                    each.name if each.asname else each.name.partition(".")[0], WHOLE
                )
                for each in statement.names
            }
        parent = self._package.split(".")
        above = ".".join(parent[: len(parent) - statement.level + 1]) if statement.level else ""
        module = ".".join(part for part in (above, statement.module or "") if part)
        return {each.asname or each.name: Reference(module, each.name) for each in statement.names}

    def _resolved(self, target: Reference, attributes: Iterable[str] = ()) -> Reference:
        """Return what a reference, followed by attributes, stands for: submodules are modules, not names."""
        module, name = target
        for part in (*(() if name == WHOLE else (name,)), *attributes):
            known = load(module, self._beside)
            if known is None or known.binds(part):
                return Reference(module, part)
            if load(f"{module}.{part}", self._beside) is None:
                return Reference(module, WHOLE)
            module = f"{module}.{part}"
        return Reference(module, WHOLE)

    def binds(self, name: str) -> bool:
        """Return whether the module binds `name` itself; its own submodule, imported, is that module instead."""
        own = self._imports.get(name) == Reference(self.name, name)
        return name in self._bound or (name in self._imports and not own)


def load(name: str, beside: Path | None) -> Module | None:
    """Return a module of ours, or one that lies `beside` the measuring function; None for a library."""
    homes = [HOME] if name.partition(".")[0] in OURS else []
    return _load(name, tuple(homes if beside is None else [*homes, beside]))


@lru_cache(maxsize=4096)
def _load(name: str, homes: tuple[Path, ...]) -> Module | None:
    for home in homes:
        stem = home.joinpath(*name.split("."))
        for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if path.is_file():
                return _parsed(
                    name, path, path.stat().st_mtime_ns, next((each for each in homes if each != HOME), None)
                )
    return None


@lru_cache(maxsize=4096)
def _parsed(name: str, path: Path, changed: int, beside: Path | None) -> Module:
    return Module(name, path, beside)


def _beside(measure: Callable[..., Any]) -> Path | None:
    """Return the folder that the modules of a measuring function of the user's own are imported from.

    None for a function of ours, for one in an installed package, and for one without a file.
    """
    if measure.__module__.partition(".")[0] in OURS:
        return None
    source = inspect.getsourcefile(measure)
    if source is None or measure.__module__ == "__main__":
        return None
    folder = Path(source).resolve().parents[measure.__module__.count(".") + (Path(source).name == "__init__.py")]
    installed = {Path(sysconfig.get_path(each)).resolve() for each in ("purelib", "platlib", "stdlib")}
    return None if folder in installed else folder


class _Bare(ast.NodeTransformer):
    """Takes out what decides nothing: texts that stand alone, and what only type checkers read."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for block in ("body", "orelse", "finalbody"):
            statements = getattr(node, block, None)
            if isinstance(statements, list):
                kept = [each for each in statements if not _decides_nothing(each)]
                setattr(node, block, kept or ([ast.Pass()] if statements else []))
        return node


def _decides_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.If):
        return isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING" and not statement.orelse
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _executed_at_once(statement: ast.stmt) -> bool:
    return not isinstance(statement, DEFINITIONS)


def _names_bound(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a top-level statement binds, imports aside."""
    if isinstance(statement, DEFINITIONS):
        yield statement.name
        return
    for each in ast.walk(statement):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            yield each.id
        elif isinstance(each, DEFINITIONS):
            yield each.name


def _has_effects(statement: ast.stmt) -> bool:
    """Return whether a top-level statement does more than bind names; a decorator may enter a function somewhere."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(isinstance(each, ast.Call) for each in statement.decorator_list)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return any(isinstance(each, ast.Attribute | ast.Subscript) for each in targets)
    return not isinstance(statement, ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass)


def _chain(node: ast.Attribute) -> tuple[str, list[str]]:
    """Return the name that ``name.one.other`` begins with, and its attributes; no name if it begins otherwise."""
    attributes: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        attributes.insert(0, value.attr)
        value = value.value
    return (value.id if isinstance(value, ast.Name) else ""), attributes


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _installed(package: str) -> str:
    """Return the version of the distribution that a top-level package comes from, "none" if it is not installed."""
    for name in (package, *_distributions().get(package, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"
