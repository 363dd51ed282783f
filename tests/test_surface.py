"""The three packages are translations of one page: same files, names, signatures, order and shape comments."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
from support import TESTED

import spec
from harness.backend import PACKAGES, load

ROOT = Path(__file__).parent.parent
FILES = {
    "__init__.py",
    "device.py",
    "files.py",
    "model.py",
    "network.py",
    "optimizer.py",
    "parallel.py",
    "params.py",
    "peak.py",
    "presets.py",
    "probe.py",
    "profile.py",
    "sequence.py",
    "textbook.py",
    "train.py",
}


def _source(package: str, file: str) -> ast.Module:
    return ast.parse((ROOT / package / file).read_text())


def test_every_backend_has_the_same_files():
    assert {package: {path.name for path in (ROOT / package).glob("*.py")} for package in PACKAGES.values()} == {
        package: FILES for package in PACKAGES.values()
    }


NAMES = [
    "GoogLeNet",
    "Network",
    "Sequence",
    "activations",
    "build",
    "describe",
    "dump_optimizer",
    "dump_params",
    "images_to_device",
    "load_optimizer",
    "load_params",
    "loss_and_grads",
    "make_optimizer",
    "masks_to_device",
    "peak_memory",
    "predict",
    "predictor",
    "set_rate",
    "to_device",
    "train_step",
    "update",
    "wait",
]


@pytest.fixture(scope="module")
def backends() -> list[ModuleType]:
    """All backends under test, imported apart from the tests."""
    return [load(name) for name in TESTED]


def test_every_backend_exports_the_same_names(backends):
    assert [backend.__all__ for backend in backends] == [NAMES] * len(backends)


def _parameters(function) -> list[tuple]:
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return [(p.name, p.kind, p.default) for p in parameters]


def _signature(backend: ModuleType, name: str) -> list[tuple]:
    exported = getattr(backend, name)
    return _parameters(exported.__init__ if inspect.isclass(exported) else exported)


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_has_the_same_signatures(name, backends):
    first, *others = (_signature(backend, name) for backend in backends)
    assert all(signature == first for signature in others)


@pytest.mark.parametrize("name", ["GoogLeNet", "Sequence", "build"])
def test_the_constructor_is_the_documented_one(name, backends):
    for backend in backends:
        assert _signature(backend, name)[1:] == [
            ("dtype", inspect.Parameter.POSITIONAL_OR_KEYWORD, "float32"),
            ("device", inspect.Parameter.POSITIONAL_OR_KEYWORD, "auto"),
            ("seed", inspect.Parameter.POSITIONAL_OR_KEYWORD, 0),
        ]


def _attributes(package: str, file: str, name: str) -> list[str]:
    """``self.x = ...`` in the order of the class's constructor, or of where a network makes its layers."""
    classes = {node.name: node for node in _source(package, file).body if isinstance(node, ast.ClassDef)}
    methods = {node.name: node for node in classes[name].body if isinstance(node, ast.FunctionDef)}
    makes = methods.get("add_layers") or methods["__init__"]
    targets = [node.targets[0] for node in makes.body if isinstance(node, ast.Assign)]
    single = [x for target in targets for x in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target.attr for target in single if isinstance(target, ast.Attribute)]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.py", "Conv"),
        ("model.py", "Inception"),
        ("model.py", "AuxHead"),
        ("model.py", "GoogLeNet"),
        ("sequence.py", "ConvLayer"),
        ("sequence.py", "DenseLayer"),
        ("sequence.py", "Sequence"),
    ],
)
def test_classes_have_the_same_attributes_in_the_same_order(file, name):
    attributes = {package: _attributes(package, file, name) for package in PACKAGES.values()}
    assert len(set(map(tuple, attributes.values()))) == 1, attributes


def _shape_comments(package: str) -> list[tuple[str, str]]:
    """Stage and trailing comment of every line of `GoogLeNet.layers` that has one."""
    text = (ROOT / package / "model.py").read_text()
    return re.findall(r'^ +\("(\w+)", .*?\),  # (.+)$', text, flags=re.MULTILINE)


def test_shape_comments_are_the_same_and_true():
    comments = {package: _shape_comments(package) for package in PACKAGES.values()}
    shapes = spec.stage_shapes(spec.preset("bvlc"), (3, 224, 224))
    expected = [
        (name, "num_classes" if len(shape) == 1 else f"{shape[1]} x {shape[2]} x {shape[0]}")
        for name, shape in shapes.items()
    ]
    for package, found in comments.items():
        assert found == expected, package


@pytest.mark.parametrize(("file", "start"), [("model.py", ""), ("sequence.py", "class Sequence(")])
def test_most_lines_of_two_models_are_the_same(file, start):
    """What a reader sees when diffing two: at least half of the lines, from there on, stand in both."""
    lines = {}
    for package in PACKAGES.values():
        text = (ROOT / package / file).read_text()
        lines[package] = [line for line in text[text.index(start) :].splitlines() if line.strip()]
    pt = lines["googlenet_pt"]
    for package, other in lines.items():
        shared = sum(line in set(other) for line in pt)
        assert shared / len(pt) > 0.5, f"{package}: {shared} of {len(pt)}"
