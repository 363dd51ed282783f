"""One way to name and lay out the arrays of a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import spec

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
# fmt: on


def _leaves(column: int) -> dict[str, str]:
    return {leaf: columns[column] for leaf, columns in _LEAVES.items()}


PLAIN, GLUON, NNX, TORCHVISION_CONV = map(_leaves, range(4))
COUNTER = "norm.num_batches_tracked"

# The order of the axes, by how many there are: O(ut), I(n), H(eight), W(idth).
CANONICAL = {1: "O", 2: "OI", 4: "OIHW"}
CHANNELS_LAST = {1: "O", 2: "IO", 4: "HWIO"}  # JAX's and TensorFlow's

NamesByPreset = Mapping[str, Mapping[str, str]]
Kind = Literal["torch", "gluon", "symbol", "tensorflow", "keras", "nnx", "linen"]


@dataclass(frozen=True, eq=False)
class Scheme:
    """One way to name and lay out the arrays of a network."""

    name: str
    kind: Kind  # the library whose files have such names
    # By preset, in the order of `spec.PRESETS`, then by canonical name. None: all layers have their canonical names.
    layers: NamesByPreset | None = field(repr=False)
    convolution: Mapping[str, str] = field(repr=False)  # the last part of a convolution's names, by the canonical one
    dense: Mapping[str, str] = field(repr=False)  # the same for a dense layer
    layout: Mapping[int, str] = field(repr=False)  # the order of the axes, by their number
    counter: str | None = field(default=None, repr=False)  # PyTorch's count of batches, which is ignored
    fixed: bool = field(default=False, repr=False)  # whether files hold scales and shifts that are not learned
    heads: bool = field(default=True, repr=False)  # whether the auxiliary heads have names
    separator: str = field(default=".", repr=False)  # before the last part of a name
    repeated: Mapping[str, str] = field(default_factory=dict, repr=False)  # layers that files hold twice: names of both
    rows: str = field(default="", repr=False)  # the end of layers whose numbers may stand in a row, (1, out)
    besides: str = field(default="", repr=False)  # a pattern of the names of what files hold besides the network
    whole: NamesByPreset | None = field(default=None, repr=False)  # all names, of one file

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets that have such files, in the order of `spec.PRESETS`."""
        return tuple(self.whole or self.layers or spec.PRESETS)

    def names_all_of(self, config: spec.Config) -> bool:
        """Whether each array of the network has a name."""
        return config.preset in self.presets and (self.heads or not config.aux) and (self.scales or not _scaled(config))

    @property
    def scales(self) -> bool:
        """Whether the scale of batch norm has a name; it needs none where all names are the canonical ones."""
        return "norm.weight" in self.convolution or bool(self.whole)

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


def _scaled(config: spec.Config) -> bool:
    return config.batch_norm is not None and config.batch_norm.scale
