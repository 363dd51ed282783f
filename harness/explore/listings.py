"""The lines of a network in each framework, cut from the files that run. No framework is imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import spec
from harness.backends.registry import PACKAGES
from spec.network import Operation

FRAMEWORKS = {"pt": "PyTorch", "mx": "Gluon", "jax": "Flax"}
_FILES = ("googlenet.py", "ancestors.py", "inception.py")  # of networks, in every backend's package
_LAYERS = "layers.py"
_ROOT = Path(spec.__file__).parent.parent


@dataclass(frozen=True)
class Listing:
    """Lines of a file."""

    file: str  # from the project's root
    first: int  # the number of the first line
    lines: tuple[str, ...]  # without the indentation that all have


@dataclass(frozen=True)
class Source:
    """One of a backend's files."""

    path: str
    text: tuple[str, ...]
    definitions: dict[str, ast.ClassDef | ast.FunctionDef]

    def whole(self, name: str) -> Listing:
        """A class or a function."""
        node = self.definitions[name]
        return self.cut(list(range(node.lineno, (node.end_lineno or node.lineno) + 1)))

    def cut(self, numbers: list[int]) -> Listing:
        """The lines of these numbers, which follow one another."""
        lines = [self.text[number - 1] for number in numbers]
        margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        return Listing(self.path, numbers[0], tuple(line[margin:].rstrip() for line in lines))


@lru_cache
def _source(package: str, name: str) -> Source:
    path = _ROOT / package / name
    text = path.read_text(encoding="utf-8")
    found = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return Source(f"{package}/{name}", tuple(text.splitlines()), {node.name: node for node in found})


def listings(config: spec.Config) -> dict[str, Any]:
    """By framework: for each stage its lines in the network, and for each operation the definitions that make it.

    Returns:
        JSON values: ``{"pt": {"stages": {stage: [listing, ...]}, "nodes": {name: [definition, ...]},
        "definitions": {definition: listing}}}``. Lines that make the operation are marked in ``marks``, by operation
        and definition.
    """
    return {backend: _Cut(config, package).as_json() for backend, package in PACKAGES.items()}


class _Cut:
    def __init__(self, config: spec.Config, package: str) -> None:
        sources = [_source(package, name) for name in _FILES]
        self.config = config
        self.network = next(source for source in sources if config.family in source.definitions)
        self.layers = _source(package, _LAYERS)
        self.stages: dict[str, list[Listing]] = {}
        self.nodes: dict[str, list[str]] = {}
        self.marks: dict[str, dict[str, list[int]]] = {}
        self.definitions: dict[str, Listing] = {}

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        family = self.network.definitions[self.config.family]
        for stage, part in self.config.stages:
            found = [statement for statement in _statements(family) if _mentions(statement, stage)]
            self.stages[stage] = [self.network.cut(_numbers(statement)) for statement in found]
            self.nodes[stage] = self.made_by(found)
            if not isinstance(part, Operation):
                self.inside(stage, self.nodes[stage][0])
        return {
            "stages": {stage: [asdict(listing) for listing in found] for stage, found in self.stages.items()},
            "nodes": self.nodes,
            "marks": self.marks,
            "definitions": {name: asdict(listing) for name, listing in self.definitions.items()},
        }

    def inside(self, stage: str, name: str) -> None:
        """The operations in a block, a residual or a head, which that class makes."""
        source = self.source(name)
        if source is None:
            return
        statements = list(_statements(source.definitions[name]))
        for node in spec.walk(self.config):
            if node.stage == stage and node.name != stage:
                leaf = node.name.removeprefix(f"{stage}.")
                found = [statement for statement in statements if _mentions(statement, leaf)]
                self.nodes[node.name] = [name, *self.made_by(found)]
                lines = {number for statement in found for number in _lines_with(source, statement, leaf)}
                self.marks[node.name] = {name: sorted(lines)}

    def source(self, name: str) -> Source | None:
        """Where a class or a function is defined."""
        return next((source for source in (self.network, self.layers) if name in source.definitions), None)

    def made_by(self, statements: list[ast.stmt]) -> list[str]:
        """What is called to make it, where that is ours: ``Inception`` of ``x = Inception(nodes, "inception3a")``."""
        calls = (node for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Call))
        for call in calls:
            if isinstance(call.func, ast.Name) and (source := self.source(call.func.id)):
                self.definitions.setdefault(call.func.id, source.whole(call.func.id))
                return [call.func.id]
        return []


def _statements(definition: ast.AST) -> Iterator[ast.stmt]:
    """The statements in a definition, in its functions and conditions; a loop is one."""
    for node in ast.iter_child_nodes(definition):
        if isinstance(node, ast.FunctionDef | ast.If | ast.With):
            yield from _statements(node)
        elif isinstance(node, ast.stmt):
            yield node


def _mentions(statement: ast.stmt, name: str) -> bool:
    """Whether an attribute in it is the name, or a text into which something is put, as ``block35_{i}``."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and node.attr == name:
            return True
        if isinstance(node, ast.JoinedStr):
            parts = [re.escape(str(x.value)) if isinstance(x, ast.Constant) else r"\w+" for x in node.values]
            if re.fullmatch("".join(parts), name):
                return True
    return False


def _numbers(statement: ast.stmt) -> list[int]:
    return list(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))


def _lines_with(source: Source, statement: ast.stmt, name: str) -> list[int]:
    """Of a statement of many lines those with the name."""
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return [number for number in _numbers(statement) if word.search(source.text[number - 1])]
