"""What networks are made of, and what follows from it: layers, names and shapes of parameters.

The networks themselves are in `spec/googlenet.py` and `spec/sequences.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, SupportsFloat, SupportsInt

Shape = tuple[int, ...]
Activation = Literal["relu", "sigmoid"] | None


@dataclass(frozen=True)
class Pool:
    """A max pool: window and stride in pixels, `pad` pixels of minus infinity on every side.

    `ceil` rounds the output size up: a last window that hangs over the edge is kept and clipped.
    """

    kernel: int
    stride: int
    pad: int = 0
    ceil: bool = False

    def output_size(self, size: int) -> int:
        """Windows along one side of `size` pixels; zero or less when not even one fits."""
        span = size + 2 * self.pad - self.kernel
        return (math.ceil(span / self.stride) if self.ceil else span // self.stride) + 1


@dataclass(frozen=True)
class LRN:
    """Local response normalization: x / (k + alpha / size · Σ x²)^beta, the sum over `size` neighbouring channels.

    Source: models/bvlc_googlenet/train_val.prototxt and src/caffe/layers/lrn_layer.cpp of BVLC/caffe (k is 1 there).
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization after a layer, of each channel (Ioffe and Szegedy 2015).

    Training normalizes with the batch's biased variance; the running variance stores the unbiased one (algorithm 2
    there) unless told otherwise: running = (1 - momentum) · running + momentum · batch.
    """

    epsilon: float = 1e-3
    momentum: float = 0.1
    affine: bool = True  # with a scale and a shift that are learned
    unbiased: bool = True  # what the running variance stores
    written_out: bool = False  # each framework's array operations, in place of its own batch norm


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer: everything in the network that has weights."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int | None = None  # pixels; None: a dense layer
    stride: int = 1
    pad: int = 0
    norm: BatchNorm | None = None  # what follows it
    bias: bool = True
    activation: Activation = "relu"  # what follows that
    dropout: float | None = None  # fraction dropped, in training, of what it reads; None: it has no place for that
    reads: str | None = None  # the layer of its stage that it reads; None: it reads what the stage reads, or a pool's

    @property
    def stage(self) -> str:
        """The stage that the layer belongs to: ``inception3a`` of ``inception3a.branch1x1``."""
        return self.name.split(".")[0]

    @property
    def weight_shape(self) -> Shape:
        """(out, in, k, k) of a convolution, (out, in) of a dense layer."""
        sides = () if self.kernel is None else (self.kernel, self.kernel)
        return (self.out_channels, self.in_channels, *sides)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What every network has. Make one with `preset`."""

    preset: str
    source: str
    in_channels: int
    num_classes: int
    input_size: int  # pixels: the default side; other sizes work wherever `stage_shapes` says so
    lrn: LRN | None = None
    batch_norm: BatchNorm | None = None
    dropout: float = 0.0  # fraction dropped, in the trunk
    aux: bool = False
    aux_dropout: float = 0.0
    aux_weight: float = 0.3  # weight of each auxiliary loss
    label_smoothing: float = 0.0  # share of the loss that asks for all classes alike

    def __str__(self) -> str:
        """``preset d2l (in_channels=1, num_classes=10)``."""
        heads = ", with auxiliary heads" if self.aux else ""
        return f"preset {self.preset} (in_channels={self.in_channels}, num_classes={self.num_classes}{heads})"

    @property
    def logits(self) -> str:
        """The stage whose output they are: the last one."""
        raise NotImplementedError

    def layers(self) -> Iterator[Layer]:
        """Every layer with weights, in forward order."""
        raise NotImplementedError

    def maps(self, height: int, width: int) -> dict[str, Shape]:
        """Every stage's output for one image, in forward order, without asking whether the sizes make sense."""
        raise NotImplementedError

    def misfit(self, height: int, width: int) -> str | None:
        """Why an image of that size does not fit; None when it does."""
        raise NotImplementedError


class Step(NamedTuple):
    """What a training step returns: scalars that may still be on the device, where waiting for them costs time."""

    loss: SupportsFloat  # before the step
    correct: SupportsInt  # how many of the batch the classifier got right, before the step


class Outputs(NamedTuple):
    """What a network returns: (N, num_classes) each; the auxiliary ones are None unless it trains with its heads."""

    logits: object
    aux1: object = None
    aux2: object = None


@lru_cache(maxsize=256)  # recognizing a file asks for the layers of every preset a dozen times
def layers(config: Config) -> tuple[Layer, ...]:
    """Every layer with weights, in forward order; the auxiliary heads where they branch off."""
    return tuple(config.layers())


def param_shapes(config: Config) -> dict[str, Shape]:
    """Canonical name and shape of every array of the network, in forward order.

    Convolutions are (out, in, height, width), dense layers (out, in); batch norm adds ``norm.weight`` and
    ``norm.bias``, where they are learned, and the statistics ``norm.running_mean`` and ``norm.running_var``, which are
    not trained.
    """
    shapes: dict[str, Shape] = {}
    for layer in layers(config):
        shapes[f"{layer.name}.weight"] = layer.weight_shape
        if layer.bias:
            shapes[f"{layer.name}.bias"] = (layer.out_channels,)
        if layer.norm:
            learned = ("weight", "bias") if layer.norm.affine else ()
            for leaf in (*learned, "running_mean", "running_var"):
                shapes[f"{layer.name}.norm.{leaf}"] = (layer.out_channels,)
    return shapes


def is_statistic(name: str) -> bool:
    """Whether the array of that canonical name is a running statistic, which gradients do not train."""
    return name.endswith((".running_mean", ".running_var"))


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to the array of that canonical name: to weights, not to biases or batch norm."""
    return name.endswith(".weight") and not name.endswith(".norm.weight")


def parameter_count(config: Config) -> int:
    """Trained scalars: everything in `param_shapes` but the running statistics."""
    return sum(math.prod(shape) for name, shape in param_shapes(config).items() if not is_statistic(name))
