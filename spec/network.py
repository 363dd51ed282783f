"""The parts of a network's table, and `walk`, which yields every operation with its name and its shapes.

A network is a table of named stages in forward order. A stage is an operation, a block of branches side by side, a
residual around a chain of operations, or a head beside the trunk. Nothing here computes: parameters, shapes, costs,
the referee and the ONNX writer are loops over `walk`. The tables are in `spec/googlenet.py` and `spec/ancestors.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, SupportsFloat, SupportsInt

from spec.errors import InvalidInput

Shape = tuple[int, ...]
Pair = tuple[int, int]  # (height, width), or (before, after) along one side
Pads = tuple[Pair, Pair]  # ((above, below), (left, right)), pixels
Activation = Literal["relu", "sigmoid"] | None
CLASSES = None  # as a number of channels: one for each class
IMAGES = "images"  # the input of the first operation

# -------------------------------------------------------------------------------------------------------- operations


class Sliding:
    """An operation on the windows of a map.

    Kernel and stride are pixels, one number or (height, width). Pads are pixels on every side, or (above and below,
    left and right), or ((above, below), (left, right)). `ceil` rounds the output size up: a last window that hangs over
    the edge is kept and clipped.
    """

    kernel: int | Pair
    stride: int | Pair
    pad: int | Pair | Pads
    ceil: bool = False

    @property
    def sides(self) -> Pair:
        """(height, width) of the window."""
        return pair(self.kernel)

    @property
    def strides(self) -> Pair:
        """(down, across)."""
        return pair(self.stride)

    @property
    def pads(self) -> Pads:
        """((above, below), (left, right))."""
        return pads(self.pad)

    @property
    def symmetric_pads(self) -> Pair:
        """(above and below, left and right), for frameworks that know nothing else.

        Raises:
            InvalidInput: when opposite sides differ.
        """
        (above, below), (left, right) = self.pads
        if (above, left) != (below, right):
            raise InvalidInput(f"pads {self.pads}: this framework needs as much above as below, and left as right")
        return above, left

    def output_size(self, size: int, axis: int = 0) -> int:
        """Windows along one axis, 0 for the height, of `size` pixels; zero or less when not even one fits."""
        span = size + sum(self.pads[axis]) - self.sides[axis]
        steps = math.ceil(span / self.strides[axis]) if self.ceil else span // self.strides[axis]
        return steps + 1

    def output_sizes(self, shape: Shape) -> Pair:
        """(height, width) of the output for an input of (channels, height, width)."""
        return self.output_size(shape[1], 0), self.output_size(shape[2], 1)


@dataclass(frozen=True)
class Conv(Sliding):
    """A convolution, the network's batch norm, and an activation."""

    channels: int | None
    kernel: int | Pair = 1
    stride: int | Pair = 1
    pad: int | Pair | Pads = 0
    norm: bool = True  # where the network has batch norm
    activation: Activation = "relu"
    drop_input: bool = False  # the network's dropout before it

    def output(self, shape: Shape) -> Shape:
        """(channels, height, width) of (channels, height, width)."""
        return (self.channels or 0, *self.output_sizes(shape))


@dataclass(frozen=True)
class Dense:
    """A dense layer on all values of a map, in the order (C, H, W), then batch norm and activation as in `Conv`."""

    channels: int | None
    norm: bool = False
    activation: Activation = "relu"
    drop_input: bool = False

    def output(self, shape: Shape) -> Shape:
        """(channels,)."""
        return (self.channels or 0,)


@dataclass(frozen=True)
class MaxPool(Sliding):
    """The largest value of each window; minus infinity outside the image."""

    kernel: int | Pair
    stride: int | Pair
    pad: int | Pair | Pads = 0
    ceil: bool = False

    def output(self, shape: Shape) -> Shape:
        """(channels, height, width) of (channels, height, width)."""
        return (shape[0], *self.output_sizes(shape))


@dataclass(frozen=True)
class AveragePool(Sliding):
    """The mean of each window; zeros outside the image, which count or do not."""

    kernel: int | Pair
    stride: int | Pair
    pad: int | Pair | Pads = 0
    count_pad: bool = True

    def output(self, shape: Shape) -> Shape:
        """(channels, height, width) of (channels, height, width)."""
        return (shape[0], *self.output_sizes(shape))


@dataclass(frozen=True)
class AdaptiveAverage:
    """A side x side grid of means that covers the map, whatever its size, divided as PyTorch does it."""

    side: int

    def output(self, shape: Shape) -> Shape:
        """(channels, side, side)."""
        return (shape[0], self.side, self.side)


@dataclass(frozen=True)
class GlobalAverage:
    """The mean of every channel, without its map."""

    def output(self, shape: Shape) -> Shape:
        """(channels,)."""
        return shape[:1]


@dataclass(frozen=True)
class LRN:
    """Local response normalization: x / (k + alpha / size · Σ x²)^beta, the sum over `size` neighboring channels.

    Source: models/bvlc_googlenet/train_val.prototxt and src/caffe/layers/lrn_layer.cpp of BVLC/caffe (k is 1 there).
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def output(self, shape: Shape) -> Shape:
        """The same."""
        return shape


@dataclass(frozen=True)
class Concat:
    """The end of a `Block`: its branches joined over the channels."""

    def output(self, *shapes: Shape) -> Shape:
        """(channels of all, height, width)."""
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@dataclass(frozen=True)
class Add:
    """The end of a `Residual`: activation(x + scale · y), or activation(scale · y) where it reads y alone."""

    scale: float = 1.0
    activation: Activation = "relu"

    def output(self, *shapes: Shape) -> Shape:
        """The same."""
        return shapes[0]


Operation = Conv | Dense | MaxPool | AveragePool | AdaptiveAverage | GlobalAverage | LRN
Joint = Concat | Add

# ------------------------------------------------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Block:
    """Branches that read the same map, joined over the channels in this order."""

    branches: tuple[Chain, ...]


@dataclass(frozen=True)
class Residual:
    """activation(x + scale · chain(x)); without its shortcut activation(scale · chain(x))."""

    chain: Chain
    scale: float = 1.0
    activation: Activation = "relu"
    shortcut: bool = True


@dataclass(frozen=True)
class Head:
    """An auxiliary classifier beside the trunk, for training only. The trunk goes on with what the head reads."""

    chain: Chain


Chain = tuple[tuple[str, Operation | Block | Residual], ...]  # one reads what the one before it puts out
Stages = tuple[tuple[str, Operation | Block | Residual | Head], ...]


def named(**parts: Operation | Block | Residual) -> Chain:
    """A chain of operations by name. The canonical name of one is the stage's name, a dot, and its name here."""
    return tuple(parts.items())


# ---------------------------------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalization after a layer, of each channel (Ioffe and Szegedy 2015).

    Training normalizes with the batch's biased variance; the running variance stores the unbiased one (algorithm 2
    there) unless told otherwise: running = (1 - momentum) · running + momentum · batch.
    """

    epsilon: float = 1e-3
    momentum: float = 0.1
    scale: bool = True  # a factor of each channel is learned ("gamma")
    shift: bool = True  # a summand of each channel is learned ("beta")
    unbiased: bool = True  # the running variance stores the unbiased one
    after_bias: bool = False  # the layer before it has a bias too

    @property
    def learned(self) -> tuple[str, ...]:
        """The leaves of the arrays that are trained: ``weight`` is the scale, ``bias`` the shift."""
        return ("weight",) * self.scale + ("bias",) * self.shift


@dataclass(frozen=True, kw_only=True)
class Config:
    """A network: its table and its settings. Make one with `preset`."""

    preset: str
    family: str  # the class of the network in every backend
    source: str
    in_channels: int
    num_classes: int
    input_size: int  # pixels: the default side; other sizes work wherever `stage_shapes` says so
    table: Stages = field(hash=False)  # it is slow to hash; equality compares it
    batch_norm: BatchNorm | None = None  # of every layer that the table gives one
    dropout: float = 0.0  # fraction dropped in training where the table says so, in the trunk
    aux: bool = False  # whether the table's heads are part of it
    aux_dropout: float = 0.0
    aux_weight: float = 0.3  # weight of each auxiliary loss
    label_smoothing: float = 0.0  # share of the loss that asks for all classes alike

    def __str__(self) -> str:
        """``preset d2l (in_channels=1, num_classes=10)``."""
        heads = ", with auxiliary heads" if self.aux else ""
        return f"preset {self.preset} (in_channels={self.in_channels}, num_classes={self.num_classes}{heads})"

    @property
    def stages(self) -> Stages:
        """The table, without its heads if the network has none."""
        return tuple((name, part) for name, part in self.table if self.aux or not isinstance(part, Head))

    @property
    def shortcuts(self) -> bool | None:
        """Whether the residuals have their shortcuts; None: there are none."""
        return next((part.shortcut for _, part in self.table if isinstance(part, Residual)), None)

    @property
    def logits(self) -> str:
        """The stage that puts out the logits: the last one."""
        return self.stages[-1][0]


class Step(NamedTuple):
    """The result of a training step: scalars that may still be on the device, where waiting for them costs time."""

    loss: SupportsFloat  # before the step
    correct: SupportsInt  # how many of the batch the classifier got right, before the step


class Outputs(NamedTuple):
    """The result of a network: logits (N, num_classes), and those of its auxiliary heads, by name, where they ran."""

    logits: Any
    heads: Mapping[str, Any] = {}


# -------------------------------------------------------------------------------------------------------------- walk


@dataclass(frozen=True)
class Node:
    """An operation at its place in a network, for one image."""

    name: str  # canonical; the last node of a stage has the stage's name, except in a head
    stage: str
    op: Any  # an Operation or a Joint
    reads: tuple[str, ...]  # the nodes, or `IMAGES`
    into: Shape  # output of the first of these
    out: Shape
    in_head: bool
    norm: BatchNorm | None  # after a convolution or dense layer, before the activation
    dropout: float | None  # fraction of the input dropped in training; None: dropout has no place here

    @property
    def has_weights(self) -> bool:
        """Whether it is a convolution or a dense layer."""
        return isinstance(self.op, Conv | Dense)

    @property
    def is_dense(self) -> bool:
        """Whether it is a dense layer."""
        return isinstance(self.op, Dense)

    @property
    def has_bias(self) -> bool:
        """Whether this layer adds one to its sums."""
        return self.has_weights and (self.norm is None or self.norm.after_bias)

    @property
    def in_channels(self) -> int:
        """Channels of a convolution's input; of a dense layer the number of input values."""
        return math.prod(self.into) if self.is_dense else self.into[0]

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.out[0]

    @property
    def weight_shape(self) -> Shape:
        """(out, in, height, width) of a convolution, (out, in) of a dense layer."""
        sides = self.op.sides if isinstance(self.op, Conv) else ()
        return (self.out_channels, self.in_channels, *sides)


Nodes = Mapping[str, Node]  # by canonical name


@lru_cache(maxsize=512)  # recognizing a file walks through every preset a dozen times
def walk(config: Config, shape: Shape | None = None) -> tuple[Node, ...]:
    """Every operation of the network in forward order, the heads' where they branch off.

    Args:
        config: The network.
        shape: (channels, height, width) of the image; None for the preset's own. Whether it fits is checked in
            `spec.shapes`, not here.
    """
    return tuple(steps(config, shape or (config.in_channels, config.input_size, config.input_size)))


def steps(config: Config, shape: Shape) -> Iterator[Node]:
    """The same one by one, for whoever may not go all the way."""
    return _Walk(config, shape).nodes()


class _Walk:
    def __init__(self, config: Config, shape: Shape) -> None:
        self.config = config
        self.outputs: dict[str, Shape] = {IMAGES: shape}

    def nodes(self) -> Iterator[Node]:
        x = IMAGES
        for stage, part in self.config.stages:
            if isinstance(part, Head):
                yield from self.chain(stage, part.chain, x, in_head=True)
            else:
                yield from self.part(stage, stage, part, x, in_head=False)
                x = stage

    def chain(self, stage: str, chain: Chain, x: str, *, in_head: bool) -> Iterator[Node]:
        for leaf, part in chain:
            name = f"{stage}.{leaf}"
            yield from self.part(name, stage, part, x, in_head=in_head)
            x = name

    def part(
        self, name: str, stage: str, part: Operation | Block | Residual, x: str, *, in_head: bool
    ) -> Iterator[Node]:
        if isinstance(part, Block):
            for branch in part.branches:
                yield from self.chain(stage, branch, x, in_head=in_head)
            yield self.node(name, stage, Concat(), *(_end(stage, branch) for branch in part.branches), in_head=in_head)
        elif isinstance(part, Residual):
            yield from self.chain(stage, part.chain, x, in_head=in_head)
            add, end = Add(part.scale, part.activation), _end(stage, part.chain)
            yield self.node(name, stage, add, *((x, end) if part.shortcut else (end,)), in_head=in_head)
        else:
            yield self.node(name, stage, part, x, in_head=in_head)

    def node(self, name: str, stage: str, op: Operation | Joint, *reads: str, in_head: bool) -> Node:
        config, into = self.config, [self.outputs[read] for read in reads]
        out, norm, dropout = op.output(*into), None, None
        if isinstance(op, Conv | Dense):
            out = out if op.channels is not CLASSES else (config.num_classes, *out[1:])
            norm = config.batch_norm if op.norm else None
            dropout = None if not op.drop_input else config.aux_dropout if in_head else config.dropout
        self.outputs[name] = out
        return Node(name, stage, op, reads, into[0], out, in_head, norm, dropout)


def _end(stage: str, chain: Chain) -> str:
    """The last operation's name."""
    return f"{stage}.{chain[-1][0]}"


def pair(x: int | Pair) -> Pair:
    """One number for both sides, or one for each."""
    return (x, x) if isinstance(x, int) else x


def pads(x: int | Pair | Pads) -> Pads:
    """((above, below), (left, right)) of what `Sliding` takes."""
    down, across = pair(x)  # type: ignore[arg-type]  # of numbers or of pairs
    return pair(down), pair(across)


# ----------------------------------------------------------------------------------- independent of the image's size


def nodes(config: Config) -> Nodes:
    """Every operation by its canonical name, for an image of the preset's own size."""
    return {node.name: node for node in walk(config)}


@lru_cache(maxsize=512)
def layers(config: Config) -> tuple[Node, ...]:
    """Every convolution and dense layer, in forward order; the auxiliary heads' where they branch off."""
    return tuple(node for node in walk(config) if node.has_weights)


def head_names(config: Config) -> tuple[str, ...]:
    """The auxiliary heads' stages, in forward order."""
    return tuple(stage for stage, part in config.stages if isinstance(part, Head))


def loss_weights(config: Config) -> dict[str, float]:
    """The weight in the loss of each stage that ends in logits: 1 for the classifier."""
    return {config.logits: 1.0} | dict.fromkeys(head_names(config), config.aux_weight)


def param_shapes(config: Config) -> dict[str, Shape]:
    """Canonical name and shape of every array of the network, in forward order.

    Convolutions are (out, in, height, width), dense layers (out, in); batch norm adds ``norm.weight`` and
    ``norm.bias``, where they are learned, and the statistics ``norm.running_mean`` and ``norm.running_var``, which are
    not trained.
    """
    return dict(_arrays(config))


@lru_cache(maxsize=512)
def _arrays(config: Config) -> tuple[tuple[str, Shape], ...]:
    shapes: dict[str, Shape] = {}
    for layer in layers(config):
        shapes[f"{layer.name}.weight"] = layer.weight_shape
        if layer.has_bias:
            shapes[f"{layer.name}.bias"] = (layer.out_channels,)
        if layer.norm:
            for leaf in (*layer.norm.learned, "running_mean", "running_var"):
                shapes[f"{layer.name}.norm.{leaf}"] = (layer.out_channels,)
    return tuple(shapes.items())


def is_statistic(name: str) -> bool:
    """Whether the array of that canonical name is a running statistic, which gradients do not train."""
    return name.endswith((".running_mean", ".running_var"))


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to the array of that canonical name: to weights, not to biases or batch norm."""
    return name.endswith(".weight") and not name.endswith(".norm.weight")


def parameter_count(config: Config) -> int:
    """Trained scalars: everything in `param_shapes` but the running statistics."""
    return sum(math.prod(shape) for name, shape in param_shapes(config).items() if not is_statistic(name))
