"""The Inception family as its publishers have it: each one's names follow by a rule from a layer's place in the table.

docs/names.md has what no file states, and the sources.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import spec
from harness.weights.schemes.scheme import CANONICAL, CHANNELS_LAST, COUNTER, GLUON, PLAIN, Scheme
from spec.network import Block, Conv, Head, Operation, Residual

V3 = ("inception-v3", "inception-v3-tf", "inception-v3-fid")


@dataclass(frozen=True)
class Place:
    """Where a convolution or dense layer stands in the table."""

    stage: str
    leaf: str = ""  # its name in the stage; empty where it is the stage
    kernel: int = 1
    branch: int = 0  # its branch in the block, from 0
    step: int = 0  # its place in the branch, from 0, pools counted
    count: int = 0  # the same, convolutions alone counted
    half: int | None = None  # 0 or 1 where two convolutions read one map
    splits: bool = False  # whether its branch ends in such two
    alone: bool = False  # whether it is all of its branch

    @property
    def layer(self) -> str:
        """Its canonical name."""
        return f"{self.stage}.{self.leaf}" if self.leaf else self.stage

    @property
    def side(self) -> str:
        """``a`` or ``b`` where two convolutions read one map."""
        return "" if self.half is None else "ab"[self.half]

    @property
    def position(self) -> str:
        """``1.0`` is the first convolution of the second branch; ``0`` one that is all of the first branch."""
        return f"{self.branch}" if self.alone else f"{self.branch}.{self.step}"


def places(config: spec.Config) -> Iterator[Place]:
    """Every convolution and dense layer in forward order, a head's where it branches off."""
    nodes = spec.nodes(config)
    for stage, part in config.stages:
        if isinstance(part, Block):
            yield from _branches(stage, part)
        elif isinstance(part, Residual):
            for leaf, inner in part.chain:
                yield from _branches(stage, inner) if isinstance(inner, Block) else (Place(stage, leaf),)
        elif isinstance(part, Head):
            yield from (Place(stage, leaf) for leaf, _ in part.chain if nodes[f"{stage}.{leaf}"].has_weights)
        elif nodes[stage].has_weights:
            yield Place(stage, kernel=max(nodes[stage].weight_shape[2:], default=1))


def _branches(stage: str, block: Block) -> Iterator[Place]:
    for branch, chain in enumerate(block.branches):
        splits = any(isinstance(part, Block) for _, part in chain)
        count = 0
        for step, (leaf, part) in enumerate(chain):
            ends = list(_ends(leaf, part))
            for half, end in enumerate(ends):
                yield Place(
                    stage,
                    end,
                    branch=branch,
                    step=step,
                    count=count,
                    half=half if len(ends) > 1 else None,
                    splits=splits,
                    alone=len(chain) == 1,
                )
            count += bool(ends)


def _ends(leaf: str, part: Operation | Block | Residual) -> Iterable[str]:
    """The convolutions that stand side by side: mostly one; none of a pool."""
    if isinstance(part, Block):
        return [end for chain in part.branches for end, _ in chain]
    return [leaf] if isinstance(part, Conv) else []


# ------------------------------------------------------------------------------------------------ in PyTorch's files


def _torchvision(place: Place) -> str:
    """``Mixed_5b.branch5x5_1``; pytorch-fid, torch-fidelity and timm's v3 have the same."""
    if place.stage == "aux1":
        return f"AuxLogits.{place.leaf.replace('conv2', 'conv1') if place.leaf != 'conv' else 'conv0'}"
    if not place.leaf:
        side = place.kernel
        return place.stage.replace("conv", "Conv2d_") + f"_{side}x{side}" if place.stage != "fc" else "fc"
    branch = re.sub(r"_(reduce|\d|a|b)$", "", place.leaf).replace("pool_proj", "branch_pool")
    number = "" if place.alone or place.leaf == "pool_proj" else f"_{place.count + 1}{place.side}"
    return f"{place.stage.replace('mixed', 'Mixed_')}.{branch}{number}"


def _timm_v4(place: Place) -> str:
    """``features.6.branch1.0``: stages are numbered."""
    if place.stage == "fc":
        return "last_linear"
    name = f"features.{spec.stage_names(spec.PRESETS['inception-v4']).index(place.stage)}"
    if not place.leaf:
        return name
    if place.stage in ("mixed3a", "mixed5a"):
        return f"{name}.conv"
    if place.splits:
        return f"{name}.branch{place.branch}_{place.step}{place.side}"
    return f"{name}.branch{place.position}"


_RESIDUALS = {"block35": "repeat", "block17": "repeat_1", "block8": "repeat_2"}


def _timm_resnet(place: Place) -> str:
    """``repeat.0.branch1.0``: residual blocks of a kind are numbered."""
    kind, _, number = place.stage.partition("_")
    if kind in _RESIDUALS:
        name = "block8" if place.stage == "block8_10" else f"{_RESIDUALS[kind]}.{int(number) - 1}"
        return f"{name}.conv2d" if place.leaf == "up" else f"{name}.branch{place.position}"
    name = place.stage.replace("conv", "conv2d_").replace("mixed", "mixed_").replace("fc", "classif")
    return f"{name}.branch{place.position}" if place.leaf else name


def _caffe_bn(place: Place) -> str:
    """``inception_3a_double_3x3_1``, as in Caffe."""
    outside = {"conv1": "conv1_7x7_s2", "conv2_reduce": "conv2_3x3_reduce", "conv2": "conv2_3x3", "fc": "last_linear"}
    if not place.leaf:
        return outside[place.stage]
    leaf = place.leaf.removeprefix("branch").replace("3x3dbl", "double_3x3")
    return f"{place.stage.replace('inception', 'inception_')}_{leaf}"


# -------------------------------------------------------------------------------------------------- in MXNet's files


def _symbol_bn(place: Place) -> str:
    """``3a_double_3x3_0``."""
    if not place.leaf:
        return place.stage.removeprefix("conv").replace("reduce", "red")
    leaf = place.leaf.removeprefix("branch").replace("pool_proj", "proj")
    leaf = re.sub(r"3x3dbl_(\d)", lambda part: f"double_3x3_{int(part[1]) - 1}", leaf)
    return f"{place.stage.removeprefix('inception')}_{leaf.replace('3x3dbl', 'double_3x3')}"


def _gluon_zoo(place: Place) -> str:
    """``features.7.1.0``: stages, branches and layers are numbered."""
    if place.stage == "fc":
        return "output"
    stages = spec.stage_names(spec.preset("inception-v3", aux=False))
    name = f"features.{stages.index(place.stage)}"
    if not place.leaf:
        return name
    if place.splits:
        inner = f"1.{place.half}.0" if place.side else f"0.{place.step}"
        return f"{name}.{place.branch}.{inner}"
    return f"{name}.{place.branch}.{place.step}"


_ZOO_BLOCKS = {"mixed6a": "B", "mixed7a": "D"} | {
    f"mixed{group}{letter}": f"{prefix}{i + 1}"
    for group, letters, prefix in (("5", "bcd", "A"), ("6", "bcde", "C"), ("7", "bc", "E"))
    for i, letter in enumerate(letters)
}


def _gluon_zoo_prefixed() -> dict[str, str]:
    """``inception30_A1_conv0``: layers of a kind are numbered in their block."""
    counts: Counter[str] = Counter()
    layers = {}
    for place in places(spec.preset("inception-v3", aux=False)):
        block = f"inception30_{_ZOO_BLOCKS[place.stage]}_" if place.leaf else "inception30_"
        if place.stage == "fc":
            layers["fc"] = f"{block}dense0"
            continue
        layers[place.layer] = f"{block}conv{counts[block]}"
        layers[f"{place.layer}.norm"] = f"{block}batchnorm{counts[block]}"
        counts[block] += 1
    return layers


# --------------------------------------------------------------------------------------------- in TensorFlow's graphs


def _numbered(name: str, number: int) -> str:
    """``conv``, ``conv_1``, ``conv_2``: a name that is there already gets a number."""
    return f"{name}_{number}" if number else name


_STEM = ("conv1a", "conv2a", "conv2b", "conv3b", "conv4a")
_BLOCKS = tuple(stage for stage, part in spec.PRESETS["inception-v3-fid"].stages if isinstance(part, Block))


def _graph_2015(place: Place) -> str:
    """``mixed_9/tower_1/mixed/conv_1``: the graph of 2015-12-05, which FID's weights come from."""
    if place.stage == "fc":
        return "softmax"
    if not place.leaf:
        return _numbered("conv", _STEM.index(place.stage))
    # A branch of one convolution has no tower; mixed7a's first branch has two.
    tower = "" if place.alone else f"/{_numbered('tower', place.branch - (place.stage != 'mixed7a'))}"
    conv = _numbered("conv", place.count) if place.half is None else f"mixed/{_numbered('conv', place.half)}"
    return f"{_numbered('mixed', _BLOCKS.index(place.stage))}{tower}/{conv}"


# -------------------------------------------------------------------------------------------------------- the schemes


def _with_norms(
    preset: str, rule: Callable[[Place], str], conv: str = "{}.conv", norm: str = "{}.bn", *, heads: bool = True
) -> dict[str, dict[str, str]]:
    """The rule's names by preset: of layers, with what stands behind them where batch norm follows, and of this."""
    config = spec.preset(preset, aux=None if heads else False)
    layers = {}
    for place, layer in zip(places(config), spec.layers(config), strict=True):
        name = rule(place)
        layers[layer.name] = conv.format(name) if layer.norm else name
        if layer.norm:
            layers[f"{layer.name}.norm"] = norm.format(name)
    return {preset: layers}


_RESNET = _with_norms("inception-resnet-v2", _timm_resnet)
_CADENE_RESNET = {preset: names | {"fc": "last_linear"} for preset, names in _RESNET.items()}
_MOVING = {"norm.running_mean": "norm.moving_mean", "norm.running_var": "norm.moving_var"}
_SYMBOL_BN = _with_norms("inception-bn-mxnet", _symbol_bn, "conv_{}", "bn_{}")
_SYMBOL_V3 = _with_norms(
    "inception-v3-fid", lambda place: _graph_2015(place).replace("/", "_"), "{}_conv2d", "{}_batchnorm"
)


def _in_torch(name: str, layers: dict[str, dict[str, str]], rows: str = "") -> Scheme:
    return Scheme(name, "torch", layers, PLAIN, PLAIN, CANONICAL, COUNTER, fixed=True, rows=rows)


def _symbol(name: str, networks: dict[str, dict[str, str]], fc: str) -> Scheme:
    layers = {preset: names | {"fc": fc} for preset, names in networks.items()}
    return Scheme(name, "symbol", layers, GLUON | _MOVING, GLUON, CANONICAL, fixed=True, heads=False, separator="_")


INCEPTION_SCHEMES = (
    _in_torch(
        "torchvision-v3", {preset: names for v3 in V3 for preset, names in _with_norms(v3, _torchvision).items()}
    ),
    _in_torch("cadene", _with_norms("inception-bn", _caffe_bn, "{}", "{}_bn") | _CADENE_RESNET, rows="_bn"),
    _in_torch("timm", _with_norms("inception-v4", _timm_v4) | _RESNET),
    Scheme(
        "gluon-zoo",
        "gluon",
        _with_norms("inception-v3", _gluon_zoo, "{}.0", "{}.1", heads=False),
        GLUON,
        GLUON,
        CANONICAL,
        fixed=True,
        heads=False,
    ),
    Scheme(
        "gluon-zoo-prefixed",
        "gluon",
        {"inception-v3": _gluon_zoo_prefixed()},
        GLUON,
        GLUON,
        CANONICAL,
        fixed=True,
        heads=False,
        separator="_",
    ),
    _symbol("mxnet-symbol", _SYMBOL_BN | _SYMBOL_V3, fc="fc1"),
    _symbol("mxnet-symbol-unnamed", _SYMBOL_BN, fc="fullyconnected0"),
    Scheme(
        "tensorflow-2015",
        "tensorflow",
        _with_norms("inception-v3-fid", _graph_2015, "{}", "{}/batchnorm"),
        {
            "weight": "conv2d_params",
            "norm.weight": "norm.gamma",
            "norm.bias": "norm.beta",
            "norm.running_mean": "norm.moving_mean",
            "norm.running_var": "norm.moving_variance",
        },
        {"weight": "weights", "bias": "biases"},
        CHANNELS_LAST,
        fixed=True,
        heads=False,
        separator="/",
    ),
)
