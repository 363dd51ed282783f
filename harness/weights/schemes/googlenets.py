"""GoogLeNet and its ancestors as others have them: the textbooks, torchvision, Caffe, GluonCV and notebooks.

docs/names.md has what no file states, and the sources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import spec
from harness.weights.schemes.scheme import (
    CANONICAL,
    CHANNELS_LAST,
    COUNTER,
    GLUON,
    NNX,
    PLAIN,
    TORCHVISION_CONV,
    Scheme,
)
from spec.ancestors import ANCESTORS
from spec.googlenet import GOOGLENETS
from spec.network import Block, Head

# fmt: off
# The layers of an Inception block.
_BRANCHES = {
    #                    torchvision  d2l     hand-written  caffe
    "branch1x1":        ("branch1",   "p1_1", "branch1",    "1x1"),
    "branch3x3_reduce": ("branch2.0", "p2_1", "branch2_1",  "3x3_reduce"),
    "branch3x3":        ("branch2.1", "p2_2", "branch2_2",  "3x3"),
    "branch5x5_reduce": ("branch3.0", "p3_1", "branch3_1",  "5x5_reduce"),
    "branch5x5":        ("branch3.1", "p3_2", "branch3_2",  "5x5"),
    "pool_proj":        ("branch4.1", "p4_2", "branch4_2",  "pool_proj"),
}
# fmt: on

# The other layers and the blocks, where they do not have their canonical names.
_TORCHVISION = {"conv2_reduce": "conv2", "conv2": "conv3"}
_UNDERSCORED = {
    name: name.replace("inception", "inception_")
    for name, stage in spec.PRESETS["bvlc"].stages
    if isinstance(stage, Block)
}
_HAND_WRITTEN = {"conv1": "conv1.0", "conv2_reduce": "conv2.0", "conv2": "conv2.2", **_UNDERSCORED}
_CAFFE = {
    "conv1": "conv1/7x7_s2",
    "conv2_reduce": "conv2/3x3_reduce",
    "conv2": "conv2/3x3",
    "aux1.conv": "loss1/conv",
    "aux1.fc1": "loss1/fc",
    "aux1.fc2": "loss1/classifier",
    "aux2.conv": "loss2/conv",
    "aux2.fc1": "loss2/fc",
    "aux2.fc2": "loss2/classifier",
    "fc": "loss3/classifier",
    **_UNDERSCORED,
}

# In the notebooks' nn.Sequential, stages that match stand in one Sequential of their own for each number.
_NESTED = {"GoogLeNet": r"(?:conv|inception|pool)(\d)", "VGG": r"(?:conv|pool)(\d)", "NiN": r"conv(\d)"}
# Batch norm that a notebook writes out, as in lenet-bn-scratch, has other names and shapes.
_ANCESTORS = ("lenet", "lenet-bn", "lenet-bn-frozen", "alexnet", "vgg11", "vgg11-narrow", "nin")


def _named(preset: str, names: Mapping[str, str], column: int, separator: str = ".") -> dict[str, str]:
    """The name of every layer, given those of stages and a column of `_BRANCHES`; batch norm's too where it has one."""
    layers = {name: names[name] for name in names if name.endswith(".norm")}
    for layer in spec.layers(spec.PRESETS[preset]):
        block, _, branch = layer.name.rpartition(".")
        if branch in _BRANCHES:
            layers[layer.name] = names.get(block, block) + separator + _BRANCHES[branch][column]
        else:
            layers[layer.name] = names.get(layer.name, layer.name)
    return layers


def _sequential(preset: str, *, activations: bool, flatten: bool) -> dict[str, str]:
    """The name of every layer in a notebook's `nn.Sequential`: its position among the modules.

    Args:
        preset: The network.
        activations: Whether each activation is a module. Gluon keeps it inside the layer, except behind batch norm.
        flatten: Whether a module before the first dense layer flattens the map.
    """
    config = spec.PRESETS[preset]
    nodes = spec.nodes(config)
    modules: list[Any] = []  # canonical names, empty where a module has no weights; a list is a Sequential
    number = None
    for stage, part in config.stages:
        if isinstance(part, Head):
            continue
        node = nodes[stage]
        if node.is_dense and flatten:
            modules.append("")
            flatten = False
        if node.dropout:
            modules.append("")
        nested = re.match(_NESTED.get(config.family, "$"), stage)
        if nested and nested[1] != number:
            number = nested[1]
            modules.append([])
        block = modules[-1] if nested else modules
        block.append(stage)
        if node.norm:
            block += [f"{stage}.norm", ""]
        elif node.has_weights and node.op.activation and activations:
            block.append("")
    positions = {}
    for i, module in enumerate(modules):
        if isinstance(module, str):
            positions[module] = str(i)
        else:
            positions |= {name: f"{i}.{j}" for j, name in enumerate(module)}
    return _named(preset, positions, column=1)


def _numbered(preset: str, convolution: str, norm: str, dense: str, block: str) -> dict[str, str]:
    """The name of every layer by its kind and its number among those of this kind, in its block and outside of blocks.

    The patterns take the number as ``{}``; the block's ends in the separator.
    """
    config = spec.preset(preset, aux=False)
    counts: Counter[str] = Counter()
    layers = {}

    def number(pattern: str) -> str:
        counts[pattern] += 1
        return pattern.format(counts[pattern] - 1)

    blocks = {stage: number(block) for stage, part in config.stages if isinstance(part, Block)}
    for layer in spec.layers(config):
        scope = blocks.get(layer.stage, "")
        layers[layer.name] = number(scope + (dense if layer.is_dense else convolution))
        if layer.norm:
            layers[f"{layer.name}.norm"] = number(scope + norm)
    return layers


def _today(names: Mapping[str, str]) -> dict[str, str]:
    """Names in the book's first editions, as those of today: branch ``b1_1`` for ``p1_1``."""
    return {layer: re.sub(r"\.p(\d_\d)$", r".b\1", name) for layer, name in names.items()}


def _within(prefix: str, layers: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {preset: {layer: prefix + name for layer, name in names.items()} for preset, names in layers.items()}


def _attributes(names: Mapping[str, str]) -> dict[str, str]:
    """The d2l network's parts as ``b1`` to ``b5`` and ``fc`` in place of their numbers."""
    parts = ("b1", "b2", "b3", "b4", "b5", "fc")
    return {layer: re.sub(r"^\d", lambda number: parts[int(number[0])], name) for layer, name in names.items()}


def _gluoncv(preset: str) -> dict[str, str]:
    """GluonCV's names: a convolution and its batch norm are numbers 0 and 1 of a Sequential."""
    layers = {}
    for layer, name in _named(preset, {**_TORCHVISION, "fc": "output"}, column=0).items():
        name = re.sub(r"(\.?)branch(\d)(?:\.(\d))?$", lambda part: f".{int(part[2]) - 1}.{part[3] or 0}", name)
        name = re.sub(r"^(aux\d)\.(conv|fc1|fc2)$", lambda part: f"{part[1]}.{_GLUONCV_HEAD[part[2]]}", name)
        dense = name == "output" or (name.endswith((".3", ".6")) and name.startswith("aux"))
        layers[layer] = name if dense else f"{name}.0"
        if not dense:
            layers[f"{layer}.norm"] = f"{name}.1"
    return layers


_GLUONCV_HEAD = {"conv": "1", "fc1": "3", "fc2": "6"}
# The d2l notebook flattens inside its last block.
_D2L = {preset: _sequential(preset, activations=True, flatten=preset != "d2l") for preset in ("d2l", *_ANCESTORS)}
_D2LZH = {"d2lzh": _sequential("d2lzh", activations=True, flatten=True)}
_D2LZH_GLUON = {
    preset: _sequential(preset, activations=False, flatten=False)
    for preset in ("d2l", "d2lzh", "d2lzh-misprint", *_ANCESTORS)
}
_TODAY = {preset: _today(names) for preset, names in _D2L.items()}
_TODAY_GLUON = {preset: _today(_D2LZH_GLUON[preset]) for preset in ("d2l", *_ANCESTORS)}
# Flax flattens a map in the order (row, column, channel), so that other dense layers behind one are other functions.
_LINEN = tuple(name for name, config in spec.PRESETS.items() if config.family in ("GoogLeNet", "NiN"))
_LINEN_TODAY = {
    preset: {layer: re.sub(r"\b(\d+)\b", r"layers_\1", name) for layer, name in _TODAY[preset].items()}
    for preset in ("d2l", "nin")
}
_PREFIXED = {
    preset: _numbered(preset, "conv{}", "batchnorm{}", "dense{}", "inception{}_")
    for preset in (config.preset for config in (*GOOGLENETS, *ANCESTORS))
    if preset != "lenet-bn-scratch"
}
GOOGLENET_SCHEMES = (
    Scheme(
        "torchvision",
        "torch",
        {"torchvision": _named("torchvision", _TORCHVISION, column=0)},
        TORCHVISION_CONV,
        PLAIN,
        CANONICAL,
        "bn.num_batches_tracked",
    ),
    Scheme("d2l-sequential", "torch", _D2L, PLAIN, PLAIN, CANONICAL, COUNTER),
    Scheme("d2lzh-sequential", "torch", _D2LZH, PLAIN, PLAIN, CANONICAL),
    Scheme("gluon-sequential", "gluon", _D2LZH_GLUON, GLUON, GLUON, CANONICAL, fixed=True),
    Scheme("d2l-today", "torch", _within("net.", _TODAY), PLAIN, PLAIN, CANONICAL, COUNTER),
    Scheme("d2l-today-sequential", "torch", {"d2l": _TODAY["d2l"]}, PLAIN, PLAIN, CANONICAL),
    Scheme("d2l-attributes", "torch", {"d2l": _attributes(_D2L["d2l"])}, PLAIN, PLAIN, CANONICAL),
    Scheme("d2l-today-attributes", "torch", {"d2l": _attributes(_TODAY["d2l"])}, PLAIN, PLAIN, CANONICAL),
    Scheme("gluon-today", "gluon", _within("net.", _TODAY_GLUON), GLUON, GLUON, CANONICAL, fixed=True),
    Scheme("gluon-today-sequential", "gluon", {"d2l": _TODAY_GLUON["d2l"]}, GLUON, GLUON, CANONICAL),
    Scheme(
        "gluon-prefixed",
        "gluon",
        _within("googlenet0_", _PREFIXED),
        GLUON,
        GLUON,
        CANONICAL,
        fixed=True,
        heads=False,
        separator="_",
    ),
    Scheme(
        "gluoncv",
        "gluon",
        {"torchvision": _gluoncv("torchvision")},
        GLUON,
        GLUON,
        CANONICAL,
        repeated={"head.2": "output"},
    ),
    Scheme("hand-written", "torch", {"cnblogs": _named("cnblogs", _HAND_WRITTEN, column=2)}, PLAIN, PLAIN, CANONICAL),
    Scheme("caffe", "torch", {"bvlc": _named("bvlc", _CAFFE, column=3, separator="/")}, PLAIN, PLAIN, CANONICAL),
    Scheme(
        "linen",
        "linen",
        {preset: _numbered(preset, "Conv_{}", "BatchNorm_{}", "Dense_{}", "Inception_{}.") for preset in _LINEN},
        NNX,
        NNX,
        CHANNELS_LAST,
        heads=False,
    ),
    Scheme("linen-today", "linen", _within("net.", _LINEN_TODAY), NNX, NNX, CHANNELS_LAST),
)
