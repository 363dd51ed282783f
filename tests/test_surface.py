"""The three packages are translations of one page: same files, names, signatures, order and shape comments."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import itertools
import re
from pathlib import Path
from types import ModuleType

import pytest
from support import TESTED

import spec
from harness.backends.registry import PACKAGES, Backend, load

ROOT = Path(__file__).parent.parent
FILES = {
    "__init__.py",
    "ancestors.py",
    "device.py",
    "files.py",
    "googlenet.py",
    "inception.py",
    "layers.py",
    "network.py",
    "optimizer.py",
    "parallel.py",
    "params.py",
    "peak.py",
    "predict.py",
    "build.py",
    "probe.py",
    "profile.py",
    "published.py",
    "recording.py",
    "textbook.py",
    "train.py",
}
ITS_OWN = {  # what the other frameworks have within their operators, and TorchScript
    "googlenet_jax": {"fast_cpu.py"},
    "googlenet_pt": {"graphs.py", "programs.py"},
}


def _source(package: str, file: str) -> ast.Module:
    return ast.parse((ROOT / package / file).read_text())


def test_every_backend_has_the_same_files():
    assert {package: {path.name for path in (ROOT / package).glob("*.py")} for package in PACKAGES.values()} == {
        package: FILES | ITS_OWN.get(package, set()) for package in PACKAGES.values()
    }


@pytest.mark.parametrize("name", TESTED)
def test_the_package_has_the_functions_of_a_backend(name):
    """mypy holds the harness to `Backend`; this holds the packages, which mypy does not see, to it too."""
    package = load(name)
    declared = {name: value for name, value in vars(Backend).items() if inspect.isfunction(value) and name[0] != "_"}
    assert len(declared) > 15
    for function, expected in declared.items():
        _, *parameters = inspect.signature(expected).parameters.values()
        given = inspect.signature(getattr(package, function)).parameters.values()
        assert [_plain(parameter) for parameter in given] == [_plain(parameter) for parameter in parameters], function


def _plain(parameter: inspect.Parameter) -> tuple[object, ...]:
    return parameter.name, parameter.kind, parameter.default


INCEPTIONS = ["InceptionBN", "InceptionV3", "InceptionV4", "InceptionResNetV2"]
NETWORKS = ["VGG", "AlexNet", "GoogLeNet", "LeNet", "NiN", *INCEPTIONS]
NAMES = [
    "VGG",
    "AlexNet",
    "GoogLeNet",
    "InceptionBN",
    "InceptionResNetV2",
    "InceptionV3",
    "InceptionV4",
    "LeNet",
    "Network",
    "NiN",
    "activations",
    "build",
    "dataset_to_device",
    "describe",
    "dump_optimizer",
    "dump_params",
    "free_memory",
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


SETTINGS = [("dtype", "float32"), ("device", "auto"), ("seed", 0), ("params", None)]


def test_build_and_finish_take_the_documented_settings(backends):
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    for backend in backends:
        settings = [(name, kind, default) for name, default in SETTINGS]
        assert [parameter for parameter in _parameters(backend.build) if parameter[0] != "config"] == settings
        assert _parameters(backend.Network.finish) == [*settings, ("tuned", inspect.Parameter.KEYWORD_ONLY, True)]


def _classes(package: str, file: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _source(package, file).body if isinstance(node, ast.ClassDef)}


def _attributes(package: str, file: str, name: str) -> list[str]:
    """``self.x = ...`` in the order of the class's constructor."""
    methods = {node.name: node for node in _classes(package, file)[name].body if isinstance(node, ast.FunctionDef)}
    targets = [node.targets[0] for node in methods["__init__"].body if isinstance(node, ast.Assign)]
    single = [x for target in targets for x in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [target.attr for target in single if isinstance(target, ast.Attribute)]


BLOCKS = [name for name in _classes("googlenet_pt", "inception.py") if name not in INCEPTIONS]


def _file(network: str) -> str:
    return "googlenet.py" if network == "GoogLeNet" else "inception.py" if network in INCEPTIONS else "ancestors.py"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("layers.py", "Conv"),
        ("layers.py", "Dense"),
        ("googlenet.py", "Inception"),
        ("googlenet.py", "AuxHead"),
        *[("inception.py", name) for name in BLOCKS],
        *[(_file(name), name) for name in NETWORKS],
    ],
)
def test_classes_have_the_same_attributes_in_the_same_order(file, name):
    attributes = {package: _attributes(package, file, name) for package in PACKAGES.values()}
    assert len(set(map(tuple, attributes.values()))) == 1, attributes


SHOWN = {  # by the comments
    "GoogLeNet": "bvlc",
    "LeNet": "lenet",
    "AlexNet": "alexnet",
    "VGG": "vgg11",
    "NiN": "nin",
    "InceptionBN": "inception-bn",
    "InceptionV3": "inception-v3",
    "InceptionV4": "inception-v4",
    "InceptionResNetV2": "inception-resnet-v2",
}


def _shape_comments(package: str, name: str) -> list[tuple[str, str]]:
    """Stage and trailing comment of every line of a forward pass that shows a stage, or in a loop several."""
    text = (ROOT / package / _file(name)).read_text()
    source = ast.get_source_segment(text, _classes(package, _file(name))[name])
    return re.findall(r'watch\(f?"(\w+(?:\{i\})?)", .*\)  # (.+)$', source, flags=re.MULTILINE)


def _as_comment(config: spec.Config, shape: spec.Shape) -> str:
    """``112 x 112 x 64``; a number of channels that is that of the classes is called so."""
    return " x ".join(map(str, [*shape[1:], "num_classes" if shape[0] == config.num_classes else shape[0]]))


@pytest.mark.parametrize("name", NETWORKS)
def test_shape_comments_are_the_same_and_true(name):
    config = spec.preset(SHOWN[name])
    shapes = spec.stage_shapes(config, (config.in_channels, config.input_size, config.input_size))
    numbered = {stage: re.sub(r"^(block\d+_)\d+$", r"\1{i}", stage) for stage in shapes}
    expected = [*dict.fromkeys((numbered[stage], _as_comment(config, shape)) for stage, shape in shapes.items())]
    for package in PACKAGES.values():
        assert _shape_comments(package, name) == expected, package


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(PACKAGES.values(), 2)])
@pytest.mark.parametrize("file", ["googlenet.py", "ancestors.py"])
def test_networks_read_like_translations_of_one_page(file, one, other):
    """Lines that change from one to the other, both sides counted."""
    texts = [(ROOT / package / file).read_text().splitlines() for package in (one, other)]
    changed = [line for line in difflib.ndiff(*texts) if line[0] in "+-"]
    assert len(changed) <= 40, changed


HARNESS = [
    importlib.import_module(f"harness.{'.'.join(path.relative_to(ROOT / 'harness').with_suffix('').parts)}")
    for path in sorted((ROOT / "harness").rglob("*.py"))
    if path.parent.name in ("images", "training", "weights") and path.name != "__init__.py"
] + [importlib.import_module("harness.weights.formats")]


def test_functions_that_take_a_path_take_a_string_too():
    """What a user's program may call says so in its types: `StrPath`, made a `Path` in the first line."""
    functions = {
        f"{module.__name__}.{name}": value
        for module in HARNESS
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }
    assert len(functions) > 60
    taking = {
        name: [str(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
        for name, function in functions.items()
    }
    assert {name: kinds for name, kinds in taking.items() if {"Path", "Path | None", "Path | bytes"} & {*kinds}} == {}
    assert sum("StrPath" in kinds for kinds in taking.values()) > 30
