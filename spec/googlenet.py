"""GoogLeNet as data: the channel table, and the stages that it is part of.

Each number of the architecture that forms a table stands here, once.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, Table 1; each preset names its own source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from spec.network import (
    CLASSES,
    LRN,
    Activation,
    AdaptiveAverage,
    AveragePool,
    BatchNorm,
    Block,
    Config,
    Conv,
    Dense,
    Head,
    MaxPool,
    Stages,
    named,
)


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


BRANCH_POOL = MaxPool(3, stride=1, pad=1)  # the pool inside every Inception block
STAGE_POOL = MaxPool(3, stride=2, pad=1)  # the one between the stages, in most presets
AUX_POOL = AveragePool(5, stride=3)  # before the auxiliary heads, rounded down: the paper's "5x5+3(V)"


@dataclass(frozen=True, kw_only=True)
class GoogLeNetConfig(Config):
    """One complete GoogLeNet. Make it with `preset`; the defaults of the fields are the `d2l` preset's."""

    family: str = "GoogLeNet"
    inceptions: tuple[Inception, ...]
    stem_relu: bool = True  # ReLU after the two convolutions of stage 2
    pool: MaxPool = STAGE_POOL  # between the stages
    pool4: MaxPool = STAGE_POOL  # the fourth of them
    branch5x5_kernel: int = 5
    head_pool: int | None = None  # side and stride of the last average pool in pixels; None: the whole map
    aux_adaptive: bool = False  # average the auxiliary heads' input to 4 x 4 whatever its size

    def inception(self, name: str) -> Inception:
        """The row of that name, for instance ``inception4a``."""
        return next(row for row in self.inceptions if row.name == name)

    @property
    def stages(self) -> Stages:
        """Table 1, and the stem, the heads and the classifier around it."""
        activation: Activation = "relu" if self.stem_relu else None
        block = {row.name: self._block(row) for row in self.inceptions}
        stages = {
            "conv1": Conv(STEM_CHANNELS, 7, stride=2, pad=3),  # 112 x 112 x 64
            "pool1": self.pool,  # 56 x 56 x 64
            "norm1": self.lrn,
            "conv2_reduce": Conv(STEM_CHANNELS, activation=activation),  # 56 x 56 x 64
            "conv2": Conv(STAGE2_CHANNELS, 3, pad=1, activation=activation),  # 56 x 56 x 192
            "norm2": self.lrn,
            "pool2": self.pool,  # 28 x 28 x 192
            "inception3a": block["inception3a"],  # 28 x 28 x 256
            "inception3b": block["inception3b"],  # 28 x 28 x 480
            "pool3": self.pool,  # 14 x 14 x 480
            "inception4a": block["inception4a"],  # 14 x 14 x 512
            "aux1": self._head(),
            "inception4b": block["inception4b"],  # 14 x 14 x 512
            "inception4c": block["inception4c"],  # 14 x 14 x 512
            "inception4d": block["inception4d"],  # 14 x 14 x 528
            "aux2": self._head(),
            "inception4e": block["inception4e"],  # 14 x 14 x 832
            "pool4": self.pool4,  # 7 x 7 x 832
            "inception5a": block["inception5a"],  # 7 x 7 x 832
            "inception5b": block["inception5b"],  # 7 x 7 x 1024
            "pool5": AdaptiveAverage(1) if self.head_pool is None else AveragePool(self.head_pool, self.head_pool),
            "fc": Dense(CLASSES, activation=None, drop_input=True),
        }
        return tuple((name, part) for name, part in stages.items() if part is not None)

    def _block(self, row: Inception) -> Block:
        k = self.branch5x5_kernel
        return Block(
            (
                named(branch1x1=Conv(row.branch1x1)),
                named(branch3x3_reduce=Conv(row.branch3x3_reduce), branch3x3=Conv(row.branch3x3, 3, pad=1)),
                named(branch5x5_reduce=Conv(row.branch5x5_reduce), branch5x5=Conv(row.branch5x5, k, pad=k // 2)),
                named(pool=BRANCH_POOL, pool_proj=Conv(row.pool_proj)),
            )
        )

    def _head(self) -> Head | None:
        if not self.aux:
            return None
        chain = named(
            pool=AdaptiveAverage(4) if self.aux_adaptive else AUX_POOL,  # 4 x 4 x channels
            conv=Conv(128),  # 4 x 4 x 128
            fc1=Dense(1024),
            fc2=Dense(CLASSES, activation=None, drop_input=True),
        )
        return Head(chain)


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


_CEIL = MaxPool(3, stride=2, ceil=True)
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
