"""GoogLeNet as data: the channel table, and the layers and maps that follow from it.

Each number of the architecture that forms a table stands here, once.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, Table 1; each preset names its own source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from spec.network import LRN, Activation, BatchNorm, Config, Layer, Pool, Shape


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


BRANCH_POOL = Pool(kernel=3, stride=1, pad=1)  # the pool inside every Inception block
STAGE_POOL = Pool(kernel=3, stride=2, pad=1)  # the one between the stages, in most presets
AUX_POOL_KERNEL, AUX_POOL_STRIDE = 5, 3  # pixels, no padding, rounded down: the paper's "5x5+3(V)"
AUX_SIDE = 4  # pixels: the auxiliary heads' dense layer reads 128 x 4 x 4
AUX_CHANNELS, AUX_HIDDEN = 128, 1024
AUX_AFTER = {"inception4a": "aux1", "inception4d": "aux2"}
POOL_BEFORE = {"inception3a": "pool2", "inception4a": "pool3", "inception5a": "pool4"}


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig(Config):
    """One complete GoogLeNet. Make it with `preset`; the defaults of the fields are the `d2l` preset's."""

    inceptions: tuple[Inception, ...]
    stem_relu: bool = True  # ReLU after the two convolutions of stage 2
    pool: Pool = STAGE_POOL  # between the stages
    pool4: Pool = STAGE_POOL  # the fourth of them
    branch5x5_kernel: int = 5
    head_pool: int | None = None  # side and stride of the last average pool in pixels; None: the whole map
    aux_adaptive: bool = False  # average the auxiliary heads' input to 4 x 4 whatever its size

    def inception(self, name: str) -> Inception:
        """The row of that name, for instance ``inception4a``."""
        return next(row for row in self.inceptions if row.name == name)

    @property
    def logits(self) -> str:
        """The classifier."""
        return "fc"

    def layers(self) -> Iterator[Layer]:
        """Every layer with weights, in forward order; the auxiliary heads where they branch off."""
        conv = partial(Layer, norm=self.batch_norm, bias=self.batch_norm is None)
        stem, stage2 = STEM_CHANNELS, STAGE2_CHANNELS
        activation: Activation = "relu" if self.stem_relu else None
        yield conv("conv1", self.in_channels, stem, kernel=7, stride=2, pad=3)
        yield conv("conv2_reduce", stem, stem, kernel=1, activation=activation)
        yield conv("conv2", stem, stage2, kernel=3, pad=1, activation=activation)
        for row in self.inceptions:
            name, into, k = row.name, row.in_channels, self.branch5x5_kernel
            reduce3, reduce5 = f"{name}.branch3x3_reduce", f"{name}.branch5x5_reduce"
            yield conv(f"{name}.branch1x1", into, row.branch1x1, kernel=1)
            yield conv(reduce3, into, row.branch3x3_reduce, kernel=1)
            yield conv(f"{name}.branch3x3", row.branch3x3_reduce, row.branch3x3, kernel=3, pad=1, reads=reduce3)
            yield conv(reduce5, into, row.branch5x5_reduce, kernel=1)
            yield conv(f"{name}.branch5x5", row.branch5x5_reduce, row.branch5x5, kernel=k, pad=k // 2, reads=reduce5)
            yield conv(f"{name}.pool_proj", into, row.pool_proj, kernel=1)
            if self.aux and name in AUX_AFTER:
                head = AUX_AFTER[name]
                yield conv(f"{head}.conv", row.out_channels, AUX_CHANNELS, kernel=1)
                yield Layer(f"{head}.fc1", AUX_CHANNELS * AUX_SIDE**2, AUX_HIDDEN, reads=f"{head}.conv")
                classifier = partial(Layer, activation=None, dropout=self.aux_dropout)
                yield classifier(f"{head}.fc2", AUX_HIDDEN, self.num_classes, reads=f"{head}.fc1")
        into = self.inceptions[-1].out_channels
        yield Layer("fc", into, self.num_classes, activation=None, dropout=self.dropout)

    def maps(self, height: int, width: int) -> dict[str, Shape]:
        """Every stage as (channels, height, width), without asking whether the sizes make sense."""
        maps: dict[str, Shape] = {}

        def pooled(pool: Pool) -> None:
            nonlocal height, width
            height, width = pool.output_size(height), pool.output_size(width)

        height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1  # 7x7, stride 2, padding 3
        maps["conv1"] = (STEM_CHANNELS, height, width)
        pooled(self.pool)
        maps["pool1"] = (STEM_CHANNELS, height, width)
        if self.lrn:
            maps["norm1"] = maps["pool1"]
        maps["conv2_reduce"] = (STEM_CHANNELS, height, width)
        maps["conv2"] = (STAGE2_CHANNELS, height, width)
        if self.lrn:
            maps["norm2"] = maps["conv2"]
        for row in self.inceptions:
            if name := POOL_BEFORE.get(row.name):
                pooled(self.pool4 if name == "pool4" else self.pool)
                maps[name] = (row.in_channels, height, width)
            maps[row.name] = (row.out_channels, height, width)
            if self.aux and row.name in AUX_AFTER:
                maps[AUX_AFTER[row.name]] = (self.num_classes, self._aux_side(height), self._aux_side(width))
        maps["pool5"] = (row.out_channels, self._head_side(height), self._head_side(width))
        maps["fc"] = (self.num_classes, 1, 1)
        return maps

    def _head_side(self, size: int) -> int:
        return 1 if self.head_pool is None else size // self.head_pool

    def _aux_side(self, size: int) -> int:
        return AUX_SIDE if self.aux_adaptive else (size - AUX_POOL_KERNEL) // AUX_POOL_STRIDE + 1

    def misfit(self, height: int, width: int) -> str | None:
        """Why an image of that size does not fit; None when it does."""
        if min(height, width) < 1:
            return "it is empty"
        maps = self.maps(height, width)
        for name, (_, h, w) in maps.items():
            if name.startswith("pool") and name != "pool5" and min(h, w) < 1:
                return f"nothing is left at {name}"
        for name in AUX_AFTER.values():
            if name in maps and maps[name][1:] != (AUX_SIDE, AUX_SIDE):
                _, h, w = maps[name]
                return (
                    f"the auxiliary head {name} needs a {AUX_SIDE} x {AUX_SIDE} map after its pool and gets {h} x {w}"
                )
        _, h, w = maps["pool5"]
        if (h, w) != (1, 1):
            side = self.head_pool
            return f"the {side}x{side} average pool before the classifier must leave a 1 x 1 map and leaves {h} x {w}"
        return None


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
GOOGLENETS = (
    GoogLeNetConfig(
        preset="d2l",
        source="Dive into Deep Learning, chapter 8.4, PyTorch and MXNet tabs",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(),
    ),
    GoogLeNetConfig(
        preset="d2lzh",
        source="Dive into Deep Learning, first Chinese edition: no activation in stage 2",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(),
        stem_relu=False,
    ),
    GoogLeNetConfig(
        preset="d2lzh-misprint",
        source="a published MXNet notebook after d2lzh, with two misprinted widths (4a: 108 for 208, 4c: 34 for 24)",
        in_channels=1,
        num_classes=10,
        input_size=96,
        inceptions=_rows(**_MISPRINT),
        stem_relu=False,
    ),
    GoogLeNetConfig(
        preset="cnblogs",
        source="a published PyTorch notebook: 7x7 average pool and dropout before the classifier",
        in_channels=1,
        num_classes=10,
        input_size=224,
        inceptions=_rows(),
        head_pool=7,
        dropout=0.4,
    ),
    GoogLeNetConfig(
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
    GoogLeNetConfig(
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
