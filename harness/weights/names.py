"""Which name an array has in other people's files, and which network a set of arrays is.

A scheme is one way to name and lay out a network's arrays; the tables below are the schemes. What no file says:

- torchvision's published weights belong to ``transform_input=True``: images normalized for ImageNet become
  (x - 0.5) / 0.5 of the pixels x from 0 to 1. That is preprocessing, and these networks do not repeat it: give them
  images normalized with mean 0.5 and standard deviation 0.5 in every channel.
- torchvision returned its auxiliary outputs in the wrong order until its pull request 8743; the names were right.
- BVLC's weights take channels in the order blue, green, red, from 0 to 255, less 104, 117 and 123.
- Gluon keeps activations inside convolutions, so its names do not tell a d2l (ReLUs in stage 2) from a d2lzh (none).
- The textbooks' tabs differ in what has no parameters. The AlexNet of the MXNet notebooks does not pad its first
  convolution, and the LeNet with batch norm of Dive into Deep Learning averages where `lenet-bn` takes the maximum:
  other functions with the same arrays. Its LeNet without batch norm pads its first convolution, and the shape of the
  first dense layer shows that. Batch norm written out in a notebook's own class keeps no statistics in Gluon's files.

Source: the state dict of torchvision 0.28; models/bvlc_googlenet/train_val.prototxt of BVLC/caffe; the notebooks that
`spec.PRESETS` names; of the plain sequences, repository d2l-ai/d2l-zh: lenet.md, batch-norm.md, alexnet.md, vgg.md and
nin.md, of the first edition (Gluon) in chapter_convolutional-neural-networks, of the second (PyTorch's tab) in
chapter_convolutional-modern. A `d2l.Classifier` of the English edition holds the same under ``net.``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

import spec
from spec import Array, Arrays, InvalidInput
from spec.network import Shape

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

# What comes before it. The indices of a Sequential count pools too, and in PyTorch ReLUs and Flatten.
_LAYERS = {
    #                torchvision   d2l-          d2lzh-        gluon-        hand-            caffe
    #                              sequential    sequential    sequential    written
    "conv1":        ("conv1",      "0.0",        "0.0",        "0.0",        "conv1.0",       "conv1/7x7_s2"),
    "conv2_reduce": ("conv2",      "1.0",        "1.0",        "1.0",        "conv2.0",       "conv2/3x3_reduce"),
    "conv2":        ("conv3",      "1.2",        "1.1",        "1.1",        "conv2.2",       "conv2/3x3"),
    "aux1.conv":    ("aux1.conv",  "",           "",           "",           "",              "loss1/conv"),
    "aux1.fc1":     ("aux1.fc1",   "",           "",           "",           "",              "loss1/fc"),
    "aux1.fc2":     ("aux1.fc2",   "",           "",           "",           "",              "loss1/classifier"),
    "aux2.conv":    ("aux2.conv",  "",           "",           "",           "",              "loss2/conv"),
    "aux2.fc1":     ("aux2.fc1",   "",           "",           "",           "",              "loss2/fc"),
    "aux2.fc2":     ("aux2.fc2",   "",           "",           "",           "",              "loss2/classifier"),
    "fc":           ("fc",         "5",          "6",          "5",          "fc",            "loss3/classifier"),
}
_BLOCKS = {
    "inception3a": ("inception3a.", "2.0.",      "2.0.",       "2.0.",       "inception_3a.", "inception_3a/"),
    "inception3b": ("inception3b.", "2.1.",      "2.1.",       "2.1.",       "inception_3b.", "inception_3b/"),
    "inception4a": ("inception4a.", "3.0.",      "3.0.",       "3.0.",       "inception_4a.", "inception_4a/"),
    "inception4b": ("inception4b.", "3.1.",      "3.1.",       "3.1.",       "inception_4b.", "inception_4b/"),
    "inception4c": ("inception4c.", "3.2.",      "3.2.",       "3.2.",       "inception_4c.", "inception_4c/"),
    "inception4d": ("inception4d.", "3.3.",      "3.3.",       "3.3.",       "inception_4d.", "inception_4d/"),
    "inception4e": ("inception4e.", "3.4.",      "3.4.",       "3.4.",       "inception_4e.", "inception_4e/"),
    "inception5a": ("inception5a.", "4.0.",      "4.0.",       "4.0.",       "inception_5a.", "inception_5a/"),
    "inception5b": ("inception5b.", "4.1.",      "4.1.",       "4.1.",       "inception_5b.", "inception_5b/"),
}
_BRANCHES = {
    "branch1x1":        ("branch1",   "p1_1",    "p1_1",       "p1_1",       "branch1",       "1x1"),
    "branch3x3_reduce": ("branch2.0", "p2_1",    "p2_1",       "p2_1",       "branch2_1",     "3x3_reduce"),
    "branch3x3":        ("branch2.1", "p2_2",    "p2_2",       "p2_2",       "branch2_2",     "3x3"),
    "branch5x5_reduce": ("branch3.0", "p3_1",    "p3_1",       "p3_1",       "branch3_1",     "5x5_reduce"),
    "branch5x5":        ("branch3.1", "p3_2",    "p3_2",       "p3_2",       "branch3_2",     "5x5"),
    "pool_proj":        ("branch4.1", "p4_2",    "p4_2",       "p4_2",       "branch4_2",     "pool_proj"),
}

# The plain sequences. Batch norm is a layer of its own there; in Gluon an activation is one only behind batch norm.
#                d2l-          gluon-
#                sequential    sequential
_LENET = {
    "conv1":       ("0",       "0"),
    "conv2":       ("3",       "2"),
    "fc3":         ("7",       "4"),
    "fc4":         ("9",       "5"),
    "fc5":         ("11",      "6"),
}
_LENET_BN = {
    "conv1":       ("0",       "0"),
    "conv1.norm":  ("1",       "1"),
    "conv2":       ("4",       "4"),
    "conv2.norm":  ("5",       "5"),
    "fc3":         ("9",       "8"),
    "fc3.norm":    ("10",      "9"),
    "fc4":         ("12",      "11"),
    "fc4.norm":    ("13",      "12"),
    "fc5":         ("15",      "14"),
}
_ALEXNET = {
    "conv1":       ("0",       "0"),
    "conv2":       ("3",       "2"),
    "conv3":       ("6",       "4"),
    "conv4":       ("8",       "5"),
    "conv5":       ("10",      "6"),
    "fc6":         ("14",      "8"),
    "fc7":         ("17",      "10"),
    "fc8":         ("20",      "12"),
}
_VGG11 = {
    "conv1_1":     ("0.0",     "0.0"),
    "conv2_1":     ("1.0",     "1.0"),
    "conv3_1":     ("2.0",     "2.0"),
    "conv3_2":     ("2.2",     "2.1"),
    "conv4_1":     ("3.0",     "3.0"),
    "conv4_2":     ("3.2",     "3.1"),
    "conv5_1":     ("4.0",     "4.0"),
    "conv5_2":     ("4.2",     "4.1"),
    "fc6":         ("6",       "5"),
    "fc7":         ("9",       "7"),
    "fc8":         ("12",      "9"),
}
_NIN = {
    "conv1":       ("0.0",     "0.0"),
    "conv1_mlp1":  ("0.2",     "0.1"),
    "conv1_mlp2":  ("0.4",     "0.2"),
    "conv2":       ("2.0",     "2.0"),
    "conv2_mlp1":  ("2.2",     "2.1"),
    "conv2_mlp2":  ("2.4",     "2.2"),
    "conv3":       ("4.0",     "4.0"),
    "conv3_mlp1":  ("4.2",     "4.1"),
    "conv3_mlp2":  ("4.4",     "4.2"),
    "conv4":       ("7.0",     "7.0"),
    "conv4_mlp1":  ("7.2",     "7.1"),
    "conv4_mlp2":  ("7.4",     "7.2"),
}
_SEQUENCES = {  # not lenet-bn-scratch: batch norm of a notebook's own has other names and shapes
    "lenet":           _LENET,
    "lenet-bn":        _LENET_BN,
    "lenet-bn-frozen": _LENET_BN,
    "alexnet":         _ALEXNET,
    "vgg11":           _VGG11,
    "vgg11-narrow":    _VGG11,
    "nin":             _NIN,
}
# fmt: on

# What Gluon's batch norm holds, and so its files, where scale and shift are not learned.
_FIXED = {"norm.weight": 1, "norm.bias": 0}

# The order of the axes, by how many there are: O(ut), I(n), H(eight), W(idth).
_CANONICAL = {1: "O", 2: "OI", 4: "OIHW"}
_JAX = {1: "O", 2: "IO", 4: "HWIO"}
_ORDERS = {1: ("O",), 2: ("OI", "IO"), 4: ("OIHW", "HWIO", "OHWI")}  # all that files are seen in

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_FEW = 3  # differences of a kind that an error names


@dataclass(frozen=True, eq=False)
class Scheme:
    """One way to name and lay out the arrays of a network."""

    name: str
    # By preset, in the order of `spec.PRESETS`, those that have such files; then by canonical name, as all of these.
    # None: every network's layers have their canonical names.
    layers: Mapping[str, Mapping[str, str]] | None = field(repr=False)
    convolution: Mapping[str, str] = field(repr=False)  # the last part of a convolution's names
    dense: Mapping[str, str] = field(repr=False)  # of a dense layer's
    layout: Mapping[int, str] = field(repr=False)  # the order of the axes, by how many there are
    counter: str | None = field(default=None, repr=False)  # PyTorch's batch norm counts batches: means nothing here
    fixed: bool = field(default=False, repr=False)  # whether it has scale and shift even where they are not learned

    @property
    def presets(self) -> tuple[str, ...]:
        """Those that have such files, in the order of `spec.PRESETS`."""
        return tuple(spec.PRESETS if self.layers is None else self.layers)

    def array(self, preset: str, layer: str, leaf: str) -> str:
        """The name of an array: ``1.gamma`` of layer ``conv1`` and the scheme's ``norm.gamma``.

        Where batch norm is a layer of its own, that is what ``norm`` stands for; else it is a part of the name.
        """
        if self.layers is None:
            return f"{layer}.{leaf}"
        layers, own = self.layers[preset], f"{layer}.norm"
        if leaf.startswith("norm.") and own in layers:
            return f"{layers[own]}.{leaf.removeprefix('norm.')}"
        return f"{layers[layer]}.{leaf}"


def _leaves(column: int) -> dict[str, str]:
    return {leaf: columns[column] for leaf, columns in _LEAVES.items()}


def _layers(column: int, *presets: str) -> dict[str, Mapping[str, str]]:
    names = {layer: columns[column] for layer, columns in _LAYERS.items()}
    for block, blocks in _BLOCKS.items():
        names |= {f"{block}.{branch}": blocks[column] + columns[column] for branch, columns in _BRANCHES.items()}
    return dict.fromkeys(presets, names)


def _sequences(column: int) -> dict[str, Mapping[str, str]]:
    return {
        preset: {layer: columns[column] for layer, columns in table.items()} for preset, table in _SEQUENCES.items()
    }


_D2L = _layers(1, "d2l") | _sequences(0)
_D2LZH = _layers(3, "d2l", "d2lzh", "d2lzh-misprint") | _sequences(1)
_PLAIN, _GLUON, _NNX, _TORCHVISION = map(_leaves, range(4))
_COUNTER = "norm.num_batches_tracked"
_SCHEMES = (
    Scheme("canonical", None, _PLAIN, _PLAIN, _CANONICAL, _COUNTER),
    Scheme("gluon", None, _GLUON, _GLUON, _CANONICAL, fixed=True),
    Scheme("nnx", None, _NNX, _NNX, _JAX),
    Scheme("torchvision", _layers(0, "torchvision"), _TORCHVISION, _PLAIN, _CANONICAL, "bn.num_batches_tracked"),
    Scheme("d2l-sequential", _D2L, _PLAIN, _PLAIN, _CANONICAL, _COUNTER),
    Scheme("d2lzh-sequential", _layers(2, "d2lzh"), _PLAIN, _PLAIN, _CANONICAL),
    Scheme("gluon-sequential", _D2LZH, _GLUON, _GLUON, _CANONICAL, fixed=True),
    Scheme("hand-written", _layers(4, "cnblogs"), _PLAIN, _PLAIN, _CANONICAL),
    Scheme("caffe", _layers(5, "bvlc"), _PLAIN, _PLAIN, _CANONICAL),
)
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _SCHEMES}

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
    shapes = spec.param_shapes(config)
    return {
        f"{layer.name}.{leaf}": scheme.array(config.preset, layer.name, theirs)
        for layer in spec.layers(config)
        for leaf, theirs in (scheme.dense if layer.is_dense else scheme.convolution).items()
        if f"{layer.name}.{leaf}" in shapes
    }


def _fixed(scheme: Scheme, config: spec.Config) -> dict[str, tuple[str, int]]:
    """What a file has in that scheme beside the network's arrays, by its name there.

    Each is a scale or a shift that is not learned: the canonical name of an array of the same shape, and its one value.
    """
    return {
        scheme.array(config.preset, layer.name, scheme.convolution[leaf]): (f"{layer.name}.norm.running_mean", value)
        for layer in spec.layers(config)
        if scheme.fixed and layer.norm and not layer.norm.affine
        for leaf, value in _FIXED.items()
    }


def rename(arrays: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """The arrays by canonical name, in canonical layout and forward order: views, of the dtypes that they have.

    Args:
        arrays: By the scheme's names and in its layout.
        scheme: As `identify` found it.
        config: The network.

    Raises:
        InvalidInput: when they do not fit, in one line.
    """
    _check(arrays, scheme, config)
    return {
        name: arrays[theirs].transpose(_axes(scheme.layout, _CANONICAL, arrays[theirs].ndim))
        for name, theirs in foreign_names(scheme, config).items()
    }


def foreign(params: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """The inverse of `rename`: arrays by the scheme's names, in its layout and in forward order, views too.

    Behind them stand new ones where the scheme has a scale and a shift that the network does not learn.

    Raises:
        InvalidInput: when the parameters do not fit the network, or its preset has no such files.
    """
    _check(params, SCHEMES["canonical"], config)
    arrays = {
        theirs: params[name].transpose(_axes(_CANONICAL, scheme.layout, params[name].ndim))
        for name, theirs in foreign_names(scheme, config).items()
    }
    fixed = _fixed(scheme, config).items()
    return arrays | {theirs: np.full_like(params[like], value) for theirs, (like, value) in fixed}


def _axes(source: Mapping[int, str], target: Mapping[int, str], count: int) -> tuple[int, ...]:
    """With these `transpose` leads an array of so many axes from one layout to the other."""
    return tuple(source[count].index(side) for side in target[count])


# ------------------------------------------------------------------------------------------------------ recognizing


@dataclass(frozen=True)
class _Candidate:
    """A network that a set of arrays may be, and what keeps it from being that, by the names of the scheme."""

    scheme: Scheme
    config: spec.Config
    arrays: Arrays  # of the file
    wanted: Collection[str]  # names that the network has
    known: Collection[str]  # these, and others that mean nothing
    missing: list[str]
    wrong: dict[str, list[str]]  # by kind
    advice: list[str]

    @property
    def distance(self) -> tuple[float, int]:
        """How many differences there are; of as many, arrays that are missing are likelier than ones too many.

        As a share of the arrays: else whatever has nothing in common with any network would be nearest to the smallest.
        """
        unexpected = len(self.arrays) - sum(name in self.arrays for name in self.known)  # a file may have very many
        differences = len(self.missing) + unexpected + sum(map(len, self.wrong.values()))
        return differences / (len(self.arrays) + len(self.wanted)), unexpected

    @property
    def fits(self) -> bool:
        return self.distance == (0, 0)

    def differences(self) -> dict[str, list[str]]:
        """All of them, by kind."""
        unexpected = [name for name in self.arrays if name not in self.known]
        return {"missing": self.missing, "unexpected": unexpected, **self.wrong}

    def lines(self) -> list[str]:
        """Every difference on a line, then the advice."""
        differences = [f"{kind}: {_printable(text)}" for kind, texts in self.differences().items() for text in texts]
        return differences + self.advice

    def __str__(self) -> str:
        """All in one line, with a few differences of each kind."""
        few = [f"{kind}: {_few(texts)}" for kind, texts in self.differences().items() if texts]
        return f"scheme {self.scheme.name}, {self.config}: {'; '.join([*few, *self.advice])}"


def identify(arrays: Arrays, preset: str | None = None) -> tuple[Scheme, list[spec.Config]]:
    """The scheme in which the arrays are named, and every network that has exactly these names and shapes.

    Channels, classes and whether there are auxiliary heads are the arrays' own. Several networks differ in what has no
    weights, and only the user can tell which it is. Where two schemes name a network alike, the first of `SCHEMES`
    counts. No values are looked at but of scales and shifts that are not learned: a square dense layer passes
    transposed, too.

    Args:
        arrays: From a file: any names, shapes and dtypes.
        preset: One of `spec.PRESETS`, to have no other.

    Returns:
        The scheme and at least one configuration, in the order of `spec.PRESETS`.

    Raises:
        InvalidInput: for an unknown preset; when nothing fits, in one line that says what comes nearest and how it
            differs.
    """
    if preset is not None:
        spec.preset(preset)  # refuses an unknown one
    candidates = list(_candidates(arrays))
    fitting = [candidate for candidate in candidates if candidate.fits]
    wanted = [candidate for candidate in fitting if preset in (None, candidate.config.preset)]
    if wanted:
        scheme = wanted[0].scheme
        return scheme, [candidate.config for candidate in wanted if candidate.scheme is scheme]
    if fitting:
        found = ", ".join(dict.fromkeys(candidate.config.preset for candidate in fitting))
        raise InvalidInput(f"expected arrays of preset {preset}, got ones of {found} (scheme {fitting[0].scheme.name})")
    what = "any preset" if preset is None else f"preset {preset}"
    best = _nearest(candidate for candidate in candidates if preset in (None, candidate.config.preset))
    raise InvalidInput(f"these {len(arrays)} arrays do not fit {what}; nearest is {best}")


def nearest(arrays: Arrays) -> tuple[Scheme, spec.Config, list[str]]:
    """The scheme and network from which the arrays differ least, and every difference as a line of text.

    Without differences they are that network; `identify` tells whether they are others too.
    """
    best = _nearest(_candidates(arrays))
    return best.scheme, best.config, best.lines()


def _nearest(candidates: Iterable[_Candidate]) -> _Candidate:
    return min(candidates, key=lambda candidate: candidate.distance)


def _candidates(arrays: Arrays) -> Iterator[_Candidate]:
    """Every scheme and preset, with and without heads, with the channels and classes of the arrays."""
    for scheme in _SCHEMES:
        for preset in scheme.presets:
            for aux in (True, False) if spec.PRESETS[preset].aux else (False,):
                yield _candidate(arrays, scheme, _config(arrays, scheme, preset, aux))


def _config(arrays: Arrays, scheme: Scheme, preset: str, aux: bool) -> spec.Config:
    """The preset with the channels and classes of the arrays; its own where they do not tell."""
    config = spec.preset(preset, aux=aux)
    theirs, layers = foreign_names(scheme, config), spec.layers(config)
    # NiN's last convolutions are from classes to classes: of these one side does not tell the other.
    first, last = layers[0], next(layer for layer in reversed(layers) if layer.in_channels != layer.out_channels)

    def side(layer: spec.Node, *sides: int | None) -> int | None:
        return _open_side(arrays.get(theirs[f"{layer.name}.weight"]), (*sides, *layer.weight_shape[2:]))

    return spec.preset(
        preset,
        aux=aux,
        in_channels=side(first, first.out_channels, None),
        num_classes=side(last, None, last.in_channels),
    )


def _open_side(x: Array | None, sides: tuple[int | None, ...]) -> int | None:
    """The length of the side that `sides` leaves open, in any order of the axes; None where the others do not fit."""
    for order in _ORDERS[len(sides)]:
        if x is not None and x.ndim == len(sides):
            shape = tuple(x.shape[order.index(side)] for side in _CANONICAL[len(sides)])
            length = shape[sides.index(None)]
            if length > 0 and shape == tuple(length if side is None else side for side in sides):
                return length
    return None


def _candidate(arrays: Arrays, scheme: Scheme, config: spec.Config) -> _Candidate:
    theirs, shapes, fixed = foreign_names(scheme, config), spec.param_shapes(config), _fixed(scheme, config)
    wanted = {theirs[name]: shape for name, shape in shapes.items()}
    wanted |= {name: shapes[like] for name, (like, _) in fixed.items()}
    missing, wrong_shape, wrong_type, wrong_value = [], [], [], []
    looks: list[tuple[str, str]] = []  # the order that explains a wrong shape, and the right one
    for name, canonical in wanted.items():
        order = scheme.layout[len(canonical)]
        expected = _shape_in(canonical, order)
        x = arrays.get(name)
        if x is None:
            missing.append(f"{name} {expected}")
            continue
        if x.shape != expected:
            wrong_shape.append(f"{name}: expected {expected}, got {x.shape}")
            looks += [(other, order) for other in _ORDERS[len(canonical)] if x.shape == _shape_in(canonical, other)]
        if x.dtype.name not in _DTYPES:
            wrong_type.append(f"{name}: expected floating point of 16 to 64 bits, got {x.dtype.name}")
        elif name in fixed and not (x == (value := fixed[name][1])).all():
            wrong_value.append(f"{name}: expected {value} everywhere, as it is not learned")
    advice = [
        f"shapes look like {other}: expected {order} (O out, I in), transpose them"
        for other, order in dict.fromkeys(looks)
    ]
    if _only_heads_lack(arrays, scheme, config):
        advice.append("auxiliary heads are there in part: expected both or neither")
    counters = {
        scheme.array(config.preset, layer.name, scheme.counter)
        for layer in spec.layers(config)
        if scheme.counter and layer.norm and layer.norm.unbiased
    }
    wrong = {"wrong shape": wrong_shape, "wrong type": wrong_type, "wrong value": wrong_value}
    return _Candidate(scheme, config, arrays, wanted, wanted.keys() | counters, missing, wrong, advice)


def _shape_in(canonical: Shape, order: str) -> Shape:
    """The shape, with the axes in that order, of what has that canonical shape."""
    return tuple(canonical[_CANONICAL[len(canonical)].index(side)] for side in order)


def _only_heads_lack(arrays: Arrays, scheme: Scheme, config: spec.Config) -> bool:
    """Whether the network is there, but of its auxiliary heads a part only."""
    both = foreign_names(scheme, spec.PRESETS[config.preset])
    without = foreign_names(scheme, spec.preset(config.preset, aux=False))
    heads = [theirs in arrays for name, theirs in both.items() if name not in without]
    return any(heads) and not all(heads) and all(theirs in arrays for theirs in without.values())


def _check(arrays: Arrays, scheme: Scheme, config: spec.Config) -> None:
    candidate = _candidate(arrays, scheme, config)
    if not candidate.fits:
        raise InvalidInput(f"these {len(arrays)} arrays do not fit {candidate}")


def _few(texts: list[str]) -> str:
    """The first few texts, and how many more there are."""
    few = [_printable(text) for text in texts[:_FEW]]
    return ", ".join(few) + (f" and {len(texts) - _FEW} more" if len(texts) > _FEW else "")


def _printable(text: str) -> str:
    """At most 120 characters on one line: names come from files, and must not rule the terminal."""
    short = text if len(text) <= 120 else text[:117] + "..."
    return short if short.isprintable() else ascii(short)
