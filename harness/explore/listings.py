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
    """Lines of a file, and which of them matter."""

    file: str  # from the project's root
    first: int  # the number of the first line
    lines: tuple[str, ...]  # without the indentation that all have
    marked: tuple[int, ...] = ()  # numbers of lines


@dataclass(frozen=True)
class Source:
    """One of a backend's files."""

    path: str
    text: tuple[str, ...]
    definitions: dict[str, ast.ClassDef | ast.FunctionDef]

    def whole(self, name: str, marked: tuple[int, ...] = ()) -> Listing:
        """A class or a function."""
        node = self.definitions[name]
        return self.cut(list(range(node.lineno, (node.end_lineno or node.lineno) + 1)), marked)

    def cut(self, numbers: list[int], marked: tuple[int, ...] = ()) -> Listing:
        """The lines of these numbers, which follow one another."""
        lines = [self.text[number - 1] for number in numbers]
        margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
        return Listing(self.path, numbers[0], tuple(line[margin:].rstrip() for line in lines), marked)


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
        self.definitions: dict[str, Listing] = {}

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        stages: dict[str, list[Any]] = {}
        nodes: dict[str, list[str]] = {}
        marks: dict[str, dict[str, list[int]]] = {}
        family = self.network.definitions[self.config.family]
        for stage, part in self.config.stages:
            found = [node for node in _statements(family) if _mentions(node, stage)]
            stages[stage] = [asdict(self.network.cut(numbers)) for numbers in map(_numbers, found)]
            made = self.made_by(found)
            nodes[stage] = made
            if isinstance(part, Operation) or not made or (source := self.source(made[0])) is None:
                continue
            block = source.definitions[made[0]]
            for node in spec.walk(self.config):
                leaf = node.name.removeprefix(f"{stage}.")
                if node.stage != stage or leaf == node.name:
                    continue
                lines = [statement for statement in _statements(block) if _mentions(statement, leaf)]
                nodes[node.name] = [made[0], *self.made_by(lines)]
                mentioned = {number for line in lines for number in _lines_with(source, line, leaf)}
                marks[node.name] = {made[0]: sorted(mentioned)}
        return {
            "stages": stages,
            "nodes": nodes,
            "marks": marks,
            "definitions": {name: asdict(listing) for name, listing in self.definitions.items()},
        }

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
    """The statements in a definition, of loops and conditions the whole where they say the names in turn."""
    for node in ast.iter_child_nodes(definition):
        if isinstance(node, ast.FunctionDef | ast.If | ast.With):
            yield from _statements(node)
        elif isinstance(node, ast.stmt):
            yield node


def _mentions(statement: ast.stmt, name: str) -> bool:
    """Whether an attribute or a text in it is the name; a number may be put in, as in ``block35_{i}``."""
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
