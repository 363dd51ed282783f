"""Which name an array has in other people's files, and which network a set of arrays is.

A scheme is one way to name and lay out a network's arrays. docs/names.md has what no file states, and the sources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np

import spec
from harness.shown import shown
from spec import Array, Arrays, InvalidInput
from spec.network import Block, Head, Shape

# ------------------------------------------------------------------------------------------------------- the tables

# fmt: off
# The last part of a name.
_LEAVES = {
    #                     canonical             gluon                nnx            torchvision's convolutions
    "weight":            ("weight",            "weight",            "kernel",      "conv.weight"),
    "bias":              ("bias",              "bias",              "bias",        "conv.bias"),
    "norm.weight":       ("norm.weight",       "norm.gamma",        "norm.scale",  "bn.weight"),
    "norm.bias":         ("norm.bias",         "norm.beta",         "norm.bias",   "bn.bias"),
    "norm.running_mean": ("norm.running_mean", "norm.running_mean", "norm.mean",   "bn.running_mean"),
    "norm.running_var":  ("norm.running_var",  "norm.running_var",  "norm.var",    "bn.running_var"),
}

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

# Gluon stores a scale and a shift even where batch norm does not learn them.
_FIXED = {"norm.weight": 1, "norm.bias": 0}

# The order of the axes, by how many there are: O(ut), I(n), H(eight), W(idth).
_CANONICAL = {1: "O", 2: "OI", 4: "OIHW"}
_JAX = {1: "O", 2: "IO", 4: "HWIO"}
_ORDERS = {1: ("O",), 2: ("OI", "IO"), 4: ("OIHW", "HWIO", "OHWI")}  # all orders that files have

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_FEW = 3  # differences of each kind in an error


Kind = Literal["torch", "gluon", "nnx", "linen"]


@dataclass(frozen=True, eq=False)
class Scheme:
    """One way to name and lay out the arrays of a network."""

    name: str
    kind: Kind  # the library whose files have such names
    # By preset, in the order of `spec.PRESETS`, then by canonical name. None: all layers have their canonical names.
    layers: Mapping[str, Mapping[str, str]] | None = field(repr=False)
    convolution: Mapping[str, str] = field(repr=False)  # the last part of a convolution's names, by the canonical one
    dense: Mapping[str, str] = field(repr=False)  # the same for a dense layer
    layout: Mapping[int, str] = field(repr=False)  # the order of the axes, by their number
    counter: str | None = field(default=None, repr=False)  # PyTorch's count of batches, which is ignored
    fixed: bool = field(default=False, repr=False)  # whether files hold scales and shifts that are not learned
    heads: bool = field(default=True, repr=False)  # whether the auxiliary heads have names
    separator: str = field(default=".", repr=False)  # before the last part of a name
    repeated: Mapping[str, str] = field(default_factory=dict, repr=False)  # layers that files hold twice: names of both
    whole: Mapping[str, Mapping[str, str]] | None = field(default=None, repr=False)  # all names, of one file

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets that have such files, in the order of `spec.PRESETS`."""
        return tuple(self.whole or self.layers or spec.PRESETS)

    def array(self, preset: str, layer: str, leaf: str) -> str:
        """The name of an array: ``1.gamma`` of layer ``conv1`` and the scheme's ``norm.gamma``.

        Where batch norm is a layer of its own, ``norm`` stands for that layer; else it is a part of the name.
        """
        if self.layers is None:
            return f"{layer}.{leaf}"
        layers = self.layers[preset]
        norm = f"{layer}.norm"
        if leaf.startswith("norm.") and norm in layers:
            return f"{layers[norm]}{self.separator}{leaf.removeprefix('norm.')}"
        return f"{layers[layer]}{self.separator}{leaf}"


def _leaves(column: int) -> dict[str, str]:
    return {leaf: columns[column] for leaf, columns in _LEAVES.items()}


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
_PLAIN, _GLUON, _NNX, _TORCHVISION_CONV = map(_leaves, range(4))
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
    for preset in spec.PRESETS
    if preset != "lenet-bn-scratch" and not preset.startswith("inception")
}
_COUNTER = "norm.num_batches_tracked"
_SCHEMES = (
    Scheme("canonical", "torch", None, _PLAIN, _PLAIN, _CANONICAL, _COUNTER),
    Scheme("gluon", "gluon", None, _GLUON, _GLUON, _CANONICAL, fixed=True),
    Scheme("nnx", "nnx", None, _NNX, _NNX, _JAX),
    Scheme(
        "torchvision",
        "torch",
        {"torchvision": _named("torchvision", _TORCHVISION, column=0)},
        _TORCHVISION_CONV,
        _PLAIN,
        _CANONICAL,
        "bn.num_batches_tracked",
    ),
    Scheme("d2l-sequential", "torch", _D2L, _PLAIN, _PLAIN, _CANONICAL, _COUNTER),
    Scheme("d2lzh-sequential", "torch", _D2LZH, _PLAIN, _PLAIN, _CANONICAL),
    Scheme("gluon-sequential", "gluon", _D2LZH_GLUON, _GLUON, _GLUON, _CANONICAL, fixed=True),
    Scheme("d2l-today", "torch", _within("net.", _TODAY), _PLAIN, _PLAIN, _CANONICAL, _COUNTER),
    Scheme("d2l-today-sequential", "torch", {"d2l": _TODAY["d2l"]}, _PLAIN, _PLAIN, _CANONICAL),
    Scheme("d2l-attributes", "torch", {"d2l": _attributes(_D2L["d2l"])}, _PLAIN, _PLAIN, _CANONICAL),
    Scheme("d2l-today-attributes", "torch", {"d2l": _attributes(_TODAY["d2l"])}, _PLAIN, _PLAIN, _CANONICAL),
    Scheme("gluon-today", "gluon", _within("net.", _TODAY_GLUON), _GLUON, _GLUON, _CANONICAL, fixed=True),
    Scheme("gluon-today-sequential", "gluon", {"d2l": _TODAY_GLUON["d2l"]}, _GLUON, _GLUON, _CANONICAL),
    Scheme(
        "gluon-prefixed",
        "gluon",
        _within("googlenet0_", _PREFIXED),
        _GLUON,
        _GLUON,
        _CANONICAL,
        fixed=True,
        heads=False,
        separator="_",
    ),
    Scheme(
        "gluoncv",
        "gluon",
        {"torchvision": _gluoncv("torchvision")},
        _GLUON,
        _GLUON,
        _CANONICAL,
        repeated={"head.2": "output"},
    ),
    Scheme(
        "hand-written", "torch", {"cnblogs": _named("cnblogs", _HAND_WRITTEN, column=2)}, _PLAIN, _PLAIN, _CANONICAL
    ),
    Scheme("caffe", "torch", {"bvlc": _named("bvlc", _CAFFE, column=3, separator="/")}, _PLAIN, _PLAIN, _CANONICAL),
    Scheme(
        "linen",
        "linen",
        {preset: _numbered(preset, "Conv_{}", "BatchNorm_{}", "Dense_{}", "Inception_{}.") for preset in _LINEN},
        _NNX,
        _NNX,
        _JAX,
        heads=False,
    ),
    Scheme("linen-today", "linen", _within("net.", _LINEN_TODAY), _NNX, _NNX, _JAX),
)
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _SCHEMES}


def scheme_of_file(name: str, whole: Mapping[str, Mapping[str, str]]) -> Scheme:
    """A scheme of one file's names, for the presets that it may be: names by canonical name, by preset."""
    file_names = [file_name for names in whole.values() for file_name in names.values()]
    if any(file_name.endswith("kernel") for file_name in file_names):
        return Scheme(name, "linen", None, {}, {}, _JAX, heads=False, whole=whole)
    gluon = any(file_name.endswith(("gamma", "_weight")) for file_name in file_names)
    return Scheme(name, "gluon" if gluon else "torch", None, {}, {}, _CANONICAL, heads=False, whole=whole)


# --------------------------------------------------------------------------------------------------------- renaming


@lru_cache(maxsize=1024)  # recognizing a file asks for each hundreds of times
def foreign_names(scheme: Scheme, config: spec.Config) -> Mapping[str, str]:
    """The scheme's name for every array of the network, by canonical name, in forward order.

    Raises:
        InvalidInput: when the preset has no such files.
    """
    if config.preset not in scheme.presets:
        known = ", ".join(other.name for other in _SCHEMES if config.preset in other.presets)
        raise InvalidInput(f"preset {config.preset} has no names in scheme {scheme.name}: expected one of {known}")
    if config.aux and not scheme.heads:
        raise InvalidInput(f"the auxiliary heads have no names in scheme {scheme.name}: leave them out with --no-aux")
    if scheme.whole:
        return scheme.whole[config.preset]
    shapes = spec.param_shapes(config)
    return {
        f"{layer.name}.{leaf}": scheme.array(config.preset, layer.name, foreign_leaf)
        for layer in spec.layers(config)
        for leaf, foreign_leaf in (scheme.dense if layer.is_dense else scheme.convolution).items()
        if f"{layer.name}.{leaf}" in shapes
    }


def _fixed(scheme: Scheme, config: spec.Config) -> dict[str, tuple[str, int]]:
    """The scales and shifts that the scheme's files hold although they are not learned, by the file's names.

    For each the canonical name of an array of the same shape, and its one value.
    """
    return {
        scheme.array(config.preset, layer.name, scheme.convolution[leaf]): (f"{layer.name}.norm.running_mean", value)
        for layer in spec.layers(config)
        if scheme.fixed and layer.norm
        for leaf, value in _FIXED.items()
        if leaf.removeprefix("norm.") not in layer.norm.learned
    }


def rename(arrays: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """Views of a file's arrays by canonical name, in canonical layout and forward order. Dtypes stay.

    Raises:
        InvalidInput: when the arrays do not fit the scheme and the network, in one line.
    """
    _check(arrays, scheme, config)
    return {
        name: _turned(arrays[foreign_name], scheme.layout, _CANONICAL)
        for name, foreign_name in foreign_names(scheme, config).items()
    }


def foreign(params: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """The inverse of `rename`: views by the scheme's names, in its layout and in forward order.

    After them come new arrays, where the scheme has a scale and a shift that the network does not learn.

    Raises:
        InvalidInput: when the parameters do not fit the network, or its preset has no such files.
    """
    _check(params, SCHEMES["canonical"], config)
    arrays = {
        foreign_name: _turned(params[name], _CANONICAL, scheme.layout)
        for name, foreign_name in foreign_names(scheme, config).items()
    }
    fixed = _fixed(scheme, config).items()
    return arrays | {foreign_name: np.full_like(params[like], value) for foreign_name, (like, value) in fixed}


def _turned(x: Array, source: Mapping[int, str], target: Mapping[int, str]) -> Array:
    """The array with its axes led from one layout to the other."""
    return x.transpose([source[x.ndim].index(side) for side in target[x.ndim]])


# ------------------------------------------------------------------------------------------------------ recognizing


@dataclass(frozen=True)
class Candidate:
    """One candidate (scheme, network) for a set of arrays, with every mismatch, in the scheme's names."""

    scheme: Scheme
    config: spec.Config
    arrays: Arrays  # the file's
    wanted: int  # how many arrays the network has
    known: set[str]  # their names, and those of counters that are ignored
    missing: list[str]
    wrong: dict[str, list[str]]  # other mismatches, by kind
    advice: list[str]

    @property
    def distance(self) -> tuple[float, int]:
        """Share of arrays that differ, then how many are unexpected: missing arrays are likelier.

        With a count in place of the share, arrays unlike every network would be nearest to the smallest one.
        """
        unexpected = len(self.arrays) - sum(name in self.arrays for name in self.known)  # a file may have very many
        differences = len(self.missing) + unexpected + sum(map(len, self.wrong.values()))
        return differences / (len(self.arrays) + self.wanted), unexpected

    @property
    def fits(self) -> bool:
        return self.distance == (0, 0)

    def differences(self) -> dict[str, list[str]]:
        """All of them, by kind."""
        unexpected = [name for name in self.arrays if name not in self.known]
        return {"missing": self.missing, "unexpected": unexpected, **self.wrong}

    def lines(self) -> list[str]:
        """Every difference on a line, then the advice."""
        differences = [f"{kind}: {_short(text)}" for kind, texts in self.differences().items() for text in texts]
        return differences + self.advice

    def __str__(self) -> str:
        """All in one line, with a few differences of each kind."""
        few = [f"{kind}: {_few(texts)}" for kind, texts in self.differences().items() if texts]
        return f"scheme {self.scheme.name}, {self.config}: {'; '.join([*few, *self.advice])}"


def accepted(fits: list[Candidate], preset: str | None) -> tuple[Scheme, list[spec.Config]]:
    """The first scheme of the candidates, and all its networks among them; those of the preset where there is one.

    Raises:
        InvalidInput: when none is of that preset.
    """
    chosen = [candidate for candidate in fits if preset in (None, candidate.config.preset)]
    if not chosen:
        others = ", ".join(dict.fromkeys(candidate.config.preset for candidate in fits))
        raise InvalidInput(f"expected arrays of preset {preset}, got ones of {others} (scheme {fits[0].scheme.name})")
    scheme = chosen[0].scheme
    return scheme, [candidate.config for candidate in chosen if candidate.scheme is scheme]


def misfit(arrays: Arrays, every: Iterable[Candidate], preset: str | None) -> InvalidInput:
    """The error for arrays that fit nothing, with the nearest."""
    what = "any preset" if preset is None else f"preset {preset}"
    best = closest(candidate for candidate in every if preset in (None, candidate.config.preset))
    return InvalidInput(f"these {len(arrays)} arrays do not fit {what}; nearest is {best}")


def closest(every: Iterable[Candidate]) -> Candidate:
    """The one from which the arrays differ least."""
    return min(every, key=lambda candidate: candidate.distance)


def fitting(arrays: Arrays) -> list[Candidate]:
    """The candidates that fit."""
    named = (
        (scheme, config)
        for scheme, config in _networks(arrays)
        if all(name in arrays for name in foreign_names(scheme, config).values())
    )
    return [candidate for scheme, config in named if (candidate := candidate_of(arrays, scheme, config)).fits]


def candidates(arrays: Arrays) -> Iterator[Candidate]:
    """How the arrays differ from every network in every scheme."""
    return (candidate_of(arrays, scheme, config) for scheme, config in _networks(arrays))


def _networks(arrays: Arrays) -> Iterator[tuple[Scheme, spec.Config]]:
    """Every scheme and preset, with and without heads, with the channels and classes of the arrays."""
    for scheme in _SCHEMES:
        for preset in scheme.presets:
            for aux in (True, False) if spec.PRESETS[preset].aux and scheme.heads else (False,):
                yield scheme, _config(arrays, scheme, preset, aux)


def _config(arrays: Arrays, scheme: Scheme, preset: str, aux: bool) -> spec.Config:
    """The preset with the channels and classes of the arrays, or its own where the arrays do not tell."""
    config = spec.preset(preset, aux=aux)
    foreign_name, layers = foreign_names(scheme, config), spec.layers(config)
    first = layers[0]
    # NiN's last convolutions map classes to classes, so that neither side tells the other.
    last = next(layer for layer in reversed(layers) if layer.in_channels != layer.out_channels)

    def side(layer: spec.Node, *sides: int | None) -> int | None:
        return _open_side(arrays.get(foreign_name[f"{layer.name}.weight"]), (*sides, *layer.weight_shape[2:]))

    return spec.preset(
        preset,
        aux=aux,
        in_channels=side(first, first.out_channels, None),
        num_classes=side(last, None, last.in_channels),
    )


def _open_side(x: Array | None, sides: tuple[int | None, ...]) -> int | None:
    """The length of the side that is None in `sides`, in any order of the axes; None where the others do not fit."""
    if x is None or x.ndim != len(sides):
        return None
    for order in _ORDERS[x.ndim]:
        shape = _turned(x, {x.ndim: order}, _CANONICAL).shape
        length = shape[sides.index(None)]
        if length > 0 and shape == tuple(length if side is None else side for side in sides):
            return length
    return None


def candidate_of(arrays: Arrays, scheme: Scheme, config: spec.Config) -> Candidate:
    """How the arrays differ from a network in a scheme."""
    names, shapes, fixed = foreign_names(scheme, config), spec.param_shapes(config), _fixed(scheme, config)
    wanted = {names[name]: shape for name, shape in shapes.items()}
    wanted |= {name: shapes[like] for name, (like, _) in fixed.items()}
    missing: list[str] = []
    wrong: dict[str, list[str]] = {"wrong shape": [], "wrong type": [], "wrong value": []}
    advice: list[str] = []
    for name, canonical in wanted.items():
        order = scheme.layout[len(canonical)]
        expected = _shape_in(canonical, order)
        x = arrays.get(name)
        if x is None:
            missing.append(f"{name} {expected}")
            continue
        if x.shape != expected:
            wrong["wrong shape"].append(f"{name}: expected {expected}, got {x.shape}")
            advice += [
                f"shapes look like {other}: expected {order} (O out, I in), transpose them"
                for other in _ORDERS[len(canonical)]
                if x.shape == _shape_in(canonical, other)
            ]
        if x.dtype.name not in _DTYPES:
            wrong["wrong type"].append(f"{name}: expected floating point of 16 to 64 bits, got {x.dtype.name}")
        elif name in fixed and not (x == (value := fixed[name][1])).all():
            wrong["wrong value"].append(f"{name}: expected {value} everywhere, as it is not learned")
    if _has_part_of_the_heads(arrays, scheme, config):
        advice.append("auxiliary heads are there in part: expected both or neither")
    counters = {
        scheme.array(config.preset, layer.name, scheme.counter)
        for layer in spec.layers(config)
        # PyTorch's own batch norm counts batches; it stores the unbiased variance, and no other.
        if scheme.counter and layer.norm and layer.norm.unbiased
    }
    known = counters | wanted.keys()
    for second, first in scheme.repeated.items():
        for leaf in scheme.dense.values():
            name, like = f"{second}.{leaf}", f"{first}.{leaf}"
            known.add(name)
            if name in arrays and like in arrays and arrays[name].tobytes() != arrays[like].tobytes():
                wrong["wrong value"].append(f"{name}: expected the numbers of {like}, which is the same layer")
    return Candidate(scheme, config, arrays, len(wanted), known, missing, wrong, list(dict.fromkeys(advice)))


def _shape_in(canonical: Shape, order: str) -> Shape:
    """A canonical shape with its sides in another order."""
    return tuple(canonical[_CANONICAL[len(canonical)].index(side)] for side in order)


def _has_part_of_the_heads(arrays: Arrays, scheme: Scheme, config: spec.Config) -> bool:
    """Whether all of the trunk is there, but only a part of the auxiliary heads."""
    if not scheme.heads:
        return False
    whole = foreign_names(scheme, spec.PRESETS[config.preset])
    trunk = foreign_names(scheme, spec.preset(config.preset, aux=False))
    heads = [foreign_name in arrays for name, foreign_name in whole.items() if name not in trunk]
    return any(heads) and not all(heads) and all(foreign_name in arrays for foreign_name in trunk.values())


def _check(arrays: Arrays, scheme: Scheme, config: spec.Config) -> None:
    candidate = candidate_of(arrays, scheme, config)
    if not candidate.fits:
        raise InvalidInput(f"these {len(arrays)} arrays do not fit {candidate}")


def _few(texts: list[str]) -> str:
    """The first few texts, and how many more there are."""
    few = [_short(text) for text in texts[:_FEW]]
    return ", ".join(few) + (f" and {len(texts) - _FEW} more" if len(texts) > _FEW else "")


def _short(text: str) -> str:
    """At most 120 characters: a name from a file can have a million."""
    return shown(text if len(text) <= 120 else text[:117] + "...")
