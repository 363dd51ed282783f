"""GoogLeNet's textbook ancestors as data: LeNet, AlexNet, VGG-11 and NiN, each a plain sequence of rows.

Source: Zhang et al., Dive into Deep Learning, chapters 7.6, 8.1 to 8.3 and 8.5; each preset names its own source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from spec.network import Activation, BatchNorm, Config, Layer, Pool, Shape

CLASSES = None  # as a number of channels: one for each class


@dataclass(frozen=True)
class Conv:
    """A convolution, batch norm where the preset has it, and an activation."""

    name: str
    out_channels: int | None
    kernel: int  # pixels
    stride: int = 1
    pad: int = 0
    activation: Activation = "relu"
    drop: bool = False  # what it reads, in training

    def output(self, shape: Shape, channels: int) -> Shape:
        """(channels, height, width) of (channels, height, width)."""
        height, width = ((size + 2 * self.pad - self.kernel) // self.stride + 1 for size in shape[1:])
        return channels, height, width


@dataclass(frozen=True)
class Dense:
    """A dense layer on all values of a map, in the order (C, H, W); batch norm and activation as `Conv` has them."""

    name: str
    out_channels: int | None
    activation: Activation = "relu"
    drop: bool = False

    def output(self, shape: Shape, channels: int) -> Shape:
        """(channels,)."""
        return (channels,)


@dataclass(frozen=True)
class MaxPool:
    """A max pool."""

    name: str
    pool: Pool

    def output(self, shape: Shape, channels: int) -> Shape:
        """(channels, height, width) of (channels, height, width)."""
        height, width = map(self.pool.output_size, shape[1:])
        return channels, height, width


@dataclass(frozen=True)
class GlobalAverage:
    """The mean of every channel."""

    name: str

    def output(self, shape: Shape, channels: int) -> Shape:
        """(channels,)."""
        return (channels,)


Row = Conv | Dense | MaxPool | GlobalAverage


@dataclass(frozen=True, kw_only=True)
class SequenceConfig(Config):
    """One complete sequence: every row reads what the one before it puts out. Make it with `preset`."""

    rows: tuple[Row, ...]

    @property
    def logits(self) -> str:
        """The last row."""
        return self.rows[-1].name

    def layers(self) -> Iterator[Layer]:
        """Every layer with weights, in forward order."""
        shape: Shape = (self.in_channels, self.input_size, self.input_size)
        for row in self.rows:
            channels = self._channels(row, shape)
            if isinstance(row, Conv | Dense):
                yield self._layer(row, shape, channels)
            shape = row.output(shape, channels)

    def _channels(self, row: Row, shape: Shape) -> int:
        """How many the row puts out."""
        if isinstance(row, Conv | Dense):
            return self.num_classes if row.out_channels is CLASSES else row.out_channels
        return shape[0]

    def _layer(self, row: Conv | Dense, shape: Shape, channels: int) -> Layer:
        into = shape[0] if isinstance(row, Conv) else math.prod(shape)
        norm = None if row.name == self.logits else self.batch_norm
        dropout = self.dropout if row.drop else None
        layer = Layer(row.name, into, channels, norm=norm, activation=row.activation, dropout=dropout)
        if isinstance(row, Dense):
            return layer
        return replace(layer, kernel=row.kernel, stride=row.stride, pad=row.pad)

    def maps(self, height: int, width: int) -> dict[str, Shape]:
        """Every stage's output for one image, without asking whether the sizes make sense."""
        shape: Shape = (self.in_channels, height, width)
        maps = {}
        for row in self.rows:
            shape = maps[row.name] = row.output(shape, self._channels(row, shape))
        return maps

    def misfit(self, height: int, width: int) -> str | None:
        """Why an image of that size does not fit; None when it does."""
        if min(height, width) < 1:
            return "it is empty"
        maps, usual = self.maps(height, width), self.maps(self.input_size, self.input_size)
        got: Shape = (self.in_channels, height, width)
        expected: Shape = (self.in_channels, self.input_size, self.input_size)
        for row in self.rows:
            if min(maps[row.name]) < 1:
                return f"nothing is left at {row.name}"
            if isinstance(row, Dense) and got != expected:
                sizes = [" x ".join(map(str, shape[1:])) for shape in (expected, got)]
                return f"the dense layer {row.name} needs maps of {sizes[0]} and gets {sizes[1]}"
            got, expected = maps[row.name], usual[row.name]
        return None


def _max(name: str, kernel: int, stride: int) -> MaxPool:
    return MaxPool(name, Pool(kernel, stride))


_LENET = (
    Conv("conv1", 6, kernel=5, activation="sigmoid"),
    _max("pool1", 2, 2),
    Conv("conv2", 16, kernel=5, activation="sigmoid"),
    _max("pool2", 2, 2),
    Dense("fc3", 120, activation="sigmoid"),
    Dense("fc4", 84, activation="sigmoid"),
    Dense("fc5", CLASSES, activation=None),
)
_ALEXNET = (
    Conv("conv1", 96, kernel=11, stride=4, pad=1),
    _max("pool1", 3, 2),
    Conv("conv2", 256, kernel=5, pad=2),
    _max("pool2", 3, 2),
    Conv("conv3", 384, kernel=3, pad=1),
    Conv("conv4", 384, kernel=3, pad=1),
    Conv("conv5", 256, kernel=3, pad=1),
    _max("pool5", 3, 2),
    Dense("fc6", 4096),
    Dense("fc7", 4096, drop=True),
    Dense("fc8", CLASSES, activation=None, drop=True),
)


def _vgg11(width: int) -> tuple[Row, ...]:
    """VGG's configuration A; `width` is the number of its first convolution's channels."""

    def block(number: int, channels: int, convolutions: int) -> Iterator[Row]:
        for i in range(1, convolutions + 1):
            yield Conv(f"conv{number}_{i}", channels, kernel=3, pad=1)
        yield _max(f"pool{number}", 2, 2)

    return (
        *block(1, width, 1),
        *block(2, 2 * width, 1),
        *block(3, 4 * width, 2),
        *block(4, 8 * width, 2),
        *block(5, 8 * width, 2),
        Dense("fc6", 4096),
        Dense("fc7", 4096, drop=True),
        Dense("fc8", CLASSES, activation=None, drop=True),
    )


def _mlp_conv(
    number: int, channels: int | None, kernel: int, stride: int = 1, pad: int = 0, drop: bool = False
) -> tuple[Row, ...]:
    """A convolution, and a small network of two 1x1 convolutions that slides over its map (Lin et al. 2014, 3.1)."""
    return (
        Conv(f"conv{number}", channels, kernel, stride, pad, drop=drop),
        Conv(f"conv{number}_mlp1", channels, kernel=1),
        Conv(f"conv{number}_mlp2", channels, kernel=1),
    )


_NIN = (
    *_mlp_conv(1, 96, kernel=11, stride=4),
    _max("pool1", 3, 2),
    *_mlp_conv(2, 256, kernel=5, pad=2),
    _max("pool2", 3, 2),
    *_mlp_conv(3, 384, kernel=3, pad=1),
    _max("pool3", 3, 2),
    *_mlp_conv(4, CLASSES, kernel=3, pad=1, drop=True),
    GlobalAverage("pool4"),
)

_LIBRARY = BatchNorm(epsilon=1e-5)
_NOTEBOOK = BatchNorm(epsilon=1e-5, momentum=1.0, unbiased=False, written_out=True)


def _lenet(preset: str, source: str, batch_norm: BatchNorm | None = None) -> SequenceConfig:
    return SequenceConfig(
        preset=preset,
        source=source,
        in_channels=1,
        num_classes=10,
        input_size=28,
        batch_norm=batch_norm,
        rows=_LENET,
    )


def _large(preset: str, source: str, rows: tuple[Row, ...]) -> SequenceConfig:
    return SequenceConfig(
        preset=preset, source=source, in_channels=1, num_classes=10, input_size=224, dropout=0.5, rows=rows
    )


SEQUENCES = (
    _lenet("lenet", "Dive into Deep Learning, first Chinese edition: no padding, max pools, sigmoid"),
    _lenet("lenet-bn", "a published MXNet notebook after d2lzh, with the library's batch norm", _LIBRARY),
    _lenet(
        "lenet-bn-scratch",
        "a published MXNet notebook after d2lzh: batch norm written out, running statistics those of the last batch",
        _NOTEBOOK,
    ),
    _lenet(
        "lenet-bn-frozen",
        "a published MXNet notebook after d2lzh: batch norm whose scale and shift are not learned",
        replace(_LIBRARY, affine=False),
    ),
    _large(
        "alexnet", "Dive into Deep Learning, chapter 8.1, PyTorch and JAX tabs: padding 1 at first, no LRN", _ALEXNET
    ),
    _large("vgg11", "Dive into Deep Learning, chapter 8.2: configuration A of Simonyan and Zisserman", _vgg11(64)),
    _large("vgg11-narrow", "a published MXNet notebook after d2lzh: one eighth of the channels", _vgg11(8)),
    _large("nin", "Dive into Deep Learning, chapter 8.3, after Lin et al. 2014", _NIN),
)
