"""GoogLeNet as data: the channel table, the presets, and the layers and parameters that follow from them.

Each number of the architecture that forms a table stands here, once.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, Table 1; each preset names its own source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import NamedTuple, SupportsFloat, SupportsInt

from spec.errors import InvalidInput

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Inception:
    """One Inception row of Table 1: the output channels of its six convolutions."""

    name: str
    in_channels: int
    branch1x1: int
    branch3x3_reduce: int
    branch3x3: int
    branch5x5_reduce: int
    branch5x5: int
    pool_proj: int

    @property
    def out_channels(self) -> int:
        """Channels of the concatenation, in the order 1x1, 3x3, 5x5, pool."""
        return self.branch1x1 + self.branch3x3 + self.branch5x5 + self.pool_proj


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
    """Batch normalization after each convolution, which then has no bias.

    Training normalizes with the batch's biased variance; the running variance stores the unbiased one (Ioffe and
    Szegedy 2015, algorithm 2): running = (1 - momentum) · running + momentum · batch.
    """

    epsilon: float = 1e-3
    momentum: float = 0.1


BRANCH_POOL = Pool(kernel=3, stride=1, pad=1)  # the pool inside every Inception block
AUX_POOL_KERNEL, AUX_POOL_STRIDE = 5, 3  # pixels, no padding, rounded down: the paper's "5x5+3(V)"
AUX_SIDE = 4  # pixels: the auxiliary heads' dense layer reads 128 x 4 x 4
AUX_CHANNELS, AUX_HIDDEN = 128, 1024
AUX_AFTER = {"inception4a": "aux1", "inception4d": "aux2"}
POOL_BEFORE = {"inception3a": "pool2", "inception4a": "pool3", "inception5a": "pool4"}


@dataclass(frozen=True)
class Config:
    """One complete network. Make it with `preset`; the defaults of the fields are the `d2l` preset's."""

    preset: str
    source: str
    in_channels: int
    num_classes: int
    input_size: int  # pixels: the default side; other sizes work wherever `stage_shapes` says so
    inceptions: tuple[Inception, ...]
    stem_relu: bool = True  # ReLU after the two convolutions of stage 2
    pool: Pool = Pool(kernel=3, stride=2, pad=1)  # between the stages
    pool4: Pool = Pool(kernel=3, stride=2, pad=1)  # the fourth of them
    branch5x5_kernel: int = 5
    lrn: LRN | None = None
    batch_norm: BatchNorm | None = None
    head_pool: int | None = None  # side and stride of the last average pool in pixels; None: the whole map
    dropout: float = 0.0  # fraction dropped before the classifier
    aux: bool = False
    aux_adaptive: bool = False  # average the auxiliary heads' input to 4 x 4 whatever its size
    aux_dropout: float = 0.0
    aux_weight: float = 0.3  # weight of each auxiliary loss
    label_smoothing: float = 0.0  # share of the loss that asks for all classes alike

    def __str__(self) -> str:
        """``preset d2l (in_channels=1, num_classes=10)``."""
        heads = ", with auxiliary heads" if self.aux else ""
        return f"preset {self.preset} (in_channels={self.in_channels}, num_classes={self.num_classes}{heads})"

    def inception(self, name: str) -> Inception:
        """The row of that name, for instance ``inception4a``."""
        return next(row for row in self.inceptions if row.name == name)


class Step(NamedTuple):
    """What a training step returns: scalars that may still be on the device, where waiting for them costs time."""

    loss: SupportsFloat  # before the step
    correct: SupportsInt  # how many of the batch the classifier got right, before the step


class Outputs(NamedTuple):
    """What a network returns: (N, num_classes) each; the auxiliary ones are None unless it trains with its heads."""

    logits: object
    aux1: object = None
    aux2: object = None


# fmt: off
_TABLE = {  # Table 1:   1x1  3x3 red.  3x3  5x5 red.  5x5  pool proj
    "inception3a": (      64,       96, 128,       16,  32,        32),
    "inception3b": (     128,      128, 192,       32,  96,        64),
    "inception4a": (     192,       96, 208,       16,  48,        64),
    "inception4b": (     160,      112, 224,       24,  64,        64),
    "inception4c": (     128,      128, 256,       24,  64,        64),
    "inception4d": (     112,      144, 288,       32,  64,        64),
    "inception4e": (     256,      160, 320,       32, 128,       128),
    "inception5a": (     256,      160, 320,       32, 128,       128),
    "inception5b": (     384,      192, 384,       48, 128,       128),
}
_MISPRINT = {
    "inception4a": (     192,       96, 108,       16,  48,        64),  # 108 for 208
    "inception4c": (     128,      128, 256,       34,  64,        64),  # 34 for 24
}
# fmt: on
STEM_CHANNELS, STAGE2_CHANNELS = 64, 192


def _rows(**changed: tuple[int, int, int, int, int, int]) -> tuple[Inception, ...]:
    """The table with the channels that each block receives filled in."""
    rows: list[Inception] = []
    for name, widths in (_TABLE | changed).items():
        rows.append(Inception(name, rows[-1].out_channels if rows else STAGE2_CHANNELS, *widths))
    return tuple(rows)


_CEIL = Pool(kernel=3, stride=2, ceil=True)
_PRESETS = (
    Config(
        preset="d2l",
        source="Dive into Deep Learning, chapter 8.4, PyTorch and MXNet tabs",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(),
    ),
    Config(
        preset="d2lzh",
        source="Dive into Deep Learning, first Chinese edition: no activation in stage 2",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(),
        stem_relu=False,
    ),
    Config(
        preset="d2lzh-misprint",
        source="a published MXNet notebook after d2lzh, with two misprinted widths (4a: 108 for 208, 4c: 34 for 24)",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(**_MISPRINT),
        stem_relu=False,
    ),
    Config(
        preset="cnblogs",
        source="a published PyTorch notebook: 7x7 average pool and dropout before the classifier",
        in_channels=1,
        num_classes=10,
        input_size=224,
        inceptions=_rows(),
        head_pool=7,
        dropout=0.4,
    ),
    Config(
        preset="bvlc",
        source="the paper's network as BVLC/caffe trained it: models/bvlc_googlenet/train_val.prototxt",
        in_channels=3,
        num_classes=1000,
        input_size=224,
        inceptions=_rows(),
        pool=_CEIL,
        pool4=_CEIL,
        lrn=LRN(),
        dropout=0.4,
        aux=True,
        aux_dropout=0.7,
    ),
    Config(
        preset="torchvision",
        source="torchvision/models/googlenet.py, 0.28: batch norm, 3x3 in the '5x5' branch, 2x2 fourth pool",
        in_channels=3,
        num_classes=1000,
        input_size=224,
        inceptions=_rows(),
        pool=_CEIL,
        pool4=replace(_CEIL, kernel=2),
        branch5x5_kernel=3,
        batch_norm=BatchNorm(),
        dropout=0.2,
        aux=True,
        aux_adaptive=True,
        aux_dropout=0.7,
    ),
)
PRESETS: dict[str, Config] = {config.preset: config for config in _PRESETS}


def preset(
    name: str,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    aux: bool | None = None,
    dropout: float | None = None,
    aux_weight: float | None = None,
    label_smoothing: float | None = None,
) -> Config:
    """A preset's configuration, with the given settings in place of its own.

    Args:
        name: One of `PRESETS`.
        in_channels: Channels of the images.
        num_classes: Length of the logits.
        aux: False leaves the auxiliary heads out; True is for presets that have them.
        dropout: Fraction dropped, 0 to below 1, before the classifier and in the auxiliary heads alike.
        aux_weight: Weight of each auxiliary loss, at least 0.
        label_smoothing: Share of the loss, 0 to below 1, that asks for all classes alike.

    Raises:
        InvalidInput: for an unknown name or a setting that no network can have.
    """
    if name not in PRESETS:
        raise InvalidInput(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    if in_channels is not None:
        config = replace(config, in_channels=_at_least_one("in_channels", in_channels))
    if num_classes is not None:
        config = replace(config, num_classes=_at_least_one("num_classes", num_classes))
    if aux is not None:
        if not isinstance(aux, bool):
            raise InvalidInput(f"aux: expected True or False, got {aux!r}")
        if aux and not config.aux:
            having = ", ".join(known.preset for known in _PRESETS if known.aux)
            raise InvalidInput(f"preset {name} has no auxiliary heads: leave aux out, or take one of {having}")
        config = replace(config, aux=aux)
    if dropout is not None:
        if not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise InvalidInput(f"dropout: expected a fraction from 0 to below 1, got {dropout!r}")
        config = replace(config, dropout=float(dropout), aux_dropout=float(dropout))
    if aux_weight is not None:
        if not isinstance(aux_weight, Real) or not 0 <= aux_weight < math.inf:
            raise InvalidInput(f"aux_weight: expected a number of at least 0, got {aux_weight!r}")
        config = replace(config, aux_weight=float(aux_weight))
    if label_smoothing is not None:
        if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing < 1:
            raise InvalidInput(f"label_smoothing: expected a share from 0 to below 1, got {label_smoothing!r}")
        config = replace(config, label_smoothing=float(label_smoothing))
    return config


def _at_least_one(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InvalidInput(f"{what}: expected a whole number of at least 1, got {value!r}")
    return int(value)


@dataclass(frozen=True)
class Layer:
    """A convolution or dense layer: everything in the network that has weights."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int | None = None  # pixels; None: a dense layer
    stride: int = 1
    pad: int = 0
    norm: bool = False  # batch norm follows, and the layer itself has no bias
    relu: bool = True

    @property
    def stage(self) -> str:
        """The stage that the layer belongs to: ``inception3a`` of ``inception3a.branch1x1``."""
        return self.name.split(".")[0]

    @property
    def weight_shape(self) -> Shape:
        """(out, in, k, k) of a convolution, (out, in) of a dense layer."""
        sides = () if self.kernel is None else (self.kernel, self.kernel)
        return (self.out_channels, self.in_channels, *sides)


def layers(config: Config) -> tuple[Layer, ...]:
    """Every layer with weights, in forward order; the auxiliary heads where they branch off."""
    return tuple(_layers(config))


def _layers(config: Config) -> Iterator[Layer]:
    norm = config.batch_norm is not None
    stem, stage2, relu = STEM_CHANNELS, STAGE2_CHANNELS, config.stem_relu
    yield Layer("conv1", config.in_channels, stem, kernel=7, stride=2, pad=3, norm=norm)
    yield Layer("conv2_reduce", stem, stem, kernel=1, norm=norm, relu=relu)
    yield Layer("conv2", stem, stage2, kernel=3, pad=1, norm=norm, relu=relu)
    for row in config.inceptions:
        name, into, k = row.name, row.in_channels, config.branch5x5_kernel
        yield Layer(f"{name}.branch1x1", into, row.branch1x1, kernel=1, norm=norm)
        yield Layer(f"{name}.branch3x3_reduce", into, row.branch3x3_reduce, kernel=1, norm=norm)
        yield Layer(f"{name}.branch3x3", row.branch3x3_reduce, row.branch3x3, kernel=3, pad=1, norm=norm)
        yield Layer(f"{name}.branch5x5_reduce", into, row.branch5x5_reduce, kernel=1, norm=norm)
        yield Layer(f"{name}.branch5x5", row.branch5x5_reduce, row.branch5x5, kernel=k, pad=k // 2, norm=norm)
        yield Layer(f"{name}.pool_proj", into, row.pool_proj, kernel=1, norm=norm)
        if config.aux and name in AUX_AFTER:
            head = AUX_AFTER[name]
            yield Layer(f"{head}.conv", row.out_channels, AUX_CHANNELS, kernel=1, norm=norm)
            yield Layer(f"{head}.fc1", AUX_CHANNELS * AUX_SIDE**2, AUX_HIDDEN)
            yield Layer(f"{head}.fc2", AUX_HIDDEN, config.num_classes, relu=False)
    yield Layer("fc", config.inceptions[-1].out_channels, config.num_classes, relu=False)


def param_shapes(config: Config) -> dict[str, Shape]:
    """Canonical name and shape of every array of the network, in forward order.

    Convolutions are (out, in, height, width), dense layers (out, in); batch norm adds ``norm.weight``, ``norm.bias``
    and the statistics ``norm.running_mean`` and ``norm.running_var``, which are not trained.
    """
    shapes: dict[str, Shape] = {}
    for layer in layers(config):
        shapes[f"{layer.name}.weight"] = layer.weight_shape
        if layer.norm:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{layer.name}.norm.{leaf}"] = (layer.out_channels,)
        else:
            shapes[f"{layer.name}.bias"] = (layer.out_channels,)
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
