"""The version of a measurement: a hash of the source code that it runs, and the versions of the libraries it imports.

A study reuses a stored point only if the same code would measure it today. The hash covers every definition that the
measuring function refers to, directly or through other definitions, in any file of this project. It does not cover code
that requests points, draws them or words a conclusion. Docstrings and comments are left out, because they do not affect
a result.

Libraries count by version: torch and NumPy affect the bits of a trained point, NetworkX the order of equal routes, and
Python the rounding of ``sum``. The imports of the covered code determine which libraries count.

References are found in the syntax tree; no code is run. A name refers to everything that its module binds to it. A text
that names a module of this project refers to the module, because registries import by name. In doubt, a reference is
followed: a hash that covers too much measures a point again, and one that covers too little would reuse a wrong point.
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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from netsim._util.system import version

OURS = ("algorithms", "netsim", "studies", "topologies")
HOME = Path(__file__).parents[2]
WHOLE = "*"
EFFECTS = "<effects>"
"""Stands for the top-level statements of a module that do more than bind a name."""


class Version(NamedTuple):
    """The version of a measurement: the version and hash of our code, and the versions of libraries by name."""

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
    digest = hashlib.sha256()
    for reference, text in sorted(reached.texts.items()):
        digest.update(f"{reference.module}:{reference.name}\0".encode() + hashlib.sha256(text.encode()).digest())
    libraries = {name: _installed(name) for name in ("python", *sorted(reached.libraries))}
    return Version(f"{version()}+{digest.hexdigest()[:16]}", libraries)


@lru_cache(maxsize=1)
def digest_of_files() -> str:
    """Return a hash of all files with code of this project: a hundred times faster than a version, and changes more."""
    digest = hashlib.sha256()
    for package in OURS:
        for path in sorted((HOME / package).rglob("*.py")):
            digest.update(f"{path.relative_to(HOME)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def version_where_measured(measure: Callable[..., Any], asked: Version, digest: str) -> Version:
    """Return the version of a measuring function in the process that measures.

    Parameters
    ----------
    measure
        The function.
    asked, digest
        Its version and :func:`digest_of_files` in the process that asks. Where the files are the same, the code is.
    """
    if measure.__module__.partition(".")[0] not in OURS or digest != digest_of_files():
        return version_of(measure)
    return Version(asked.code, {name: _installed(name) for name in asked.libraries})


class Bound(NamedTuple):
    """The definition that a module binds to a name, as text, and the references in it."""

    text: str
    references: tuple[Reference, ...]


@dataclass(slots=True)
class Reached:
    """The definitions that a function reaches, as text, and the external packages that they import."""

    texts: dict[Reference, str] = field(default_factory=dict)
    libraries: set[str] = field(default_factory=set)


def reach(measure: Callable[..., Any]) -> Reached:
    """Return all definitions of this project that `measure` refers to, directly or through other definitions."""
    reached = Reached()
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
                reached.libraries.add(top)
            continue
        packages = reference.module.split(".")
        waiting += [Reference(".".join(packages[: depth + 1]), EFFECTS) for depth in range(len(packages))]
        bound = module.bound(reference.name)
        if bound.text:
            reached.texts[reference] = bound.text
        waiting += bound.references
    return reached


class Module:
    """The source of a module, by the names bound at its top level."""

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
        """Return the definition or import bound to `name`, which may also be :data:`WHOLE` or :data:`EFFECTS`."""
        if name not in self._known:
            statements, imported = self._statements(name), self._imported(name)
            inner = [each for statement in statements for each in self._references(statement)]
            if name == EFFECTS:  # a registered function also counts by its name
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
        """Return the import bound to `name`; if nothing binds the name, the whole module."""
        if name == EFFECTS:
            return []
        if name == WHOLE:
            return [self._resolved(each) for each in self._imports.values()]
        if name in self._imports:
            return [self._resolved(self._imports[name])]
        return [] if name in self._bound else [Reference(self.name, WHOLE)]

    def _references(self, statement: ast.stmt) -> Iterator[Reference]:
        """Yield the references in a statement."""
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
        """Yield the module of this project that a text names: ``package.module`` or ``package.module:name``."""
        module, _, name = text.partition(":")
        if all(part.isidentifier() for part in module.split(".")) and "." in module and load(module, self._beside):
            yield Reference(module, name if name.isidentifier() else WHOLE)

    def _imports_of(self, statement: ast.Import | ast.ImportFrom) -> dict[str, Reference]:
        """Return the names that an import statement binds; an imported module is bound as a whole."""
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
        """Follow attributes from a reference through submodules; return the name or module that they lead to."""
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
    """Return the folder from which the modules of a user's own measuring function are imported.

    The result is None for a function of this project, of an installed package, or without a source file.
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
    """Removes statements without effect on a result: docstrings, and imports for type checkers only."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Visit the children of a node, then remove its statements without effect."""
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
    """Return whether a top-level statement may do more than bind names, such as a decorator that registers."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(isinstance(each, ast.Call) for each in statement.decorator_list)
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return any(isinstance(each, ast.Attribute | ast.Subscript) for each in targets)
    return not isinstance(statement, ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass)


def _chain(node: ast.Attribute) -> tuple[str, list[str]]:
    """Return the name and the attributes of ``name.one.other``; an empty name for any other expression."""
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
    """Return the installed version of the distribution of a top-level package; "none" if there is none."""
    if package == "python":
        return ".".join(platform.python_version_tuple()[:2])
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    for name in _distributions().get(package, ()):  # which takes long to find
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "none"
