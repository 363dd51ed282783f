"""GoogLeNet as data: the paper's Table 1, and the stages that it is part of.

Source: Szegedy et al., "Going Deeper with Convolutions", 2015, Table 1; each preset names its own source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
    named,
)

Widths = tuple[int, int, int, int, int, int]  # of a block's six convolutions

# fmt: off
TABLE: dict[str, Widths] = {  #  1x1  3x3 red.  3x3  5x5 red.  5x5  pool proj
    "inception3a": (              64,       96, 128,       16,  32,        32),
    "inception3b": (             128,      128, 192,       32,  96,        64),
    "inception4a": (             192,       96, 208,       16,  48,        64),
    "inception4b": (             160,      112, 224,       24,  64,        64),
    "inception4c": (             128,      128, 256,       24,  64,        64),
    "inception4d": (             112,      144, 288,       32,  64,        64),
    "inception4e": (             256,      160, 320,       32, 128,       128),
    "inception5a": (             256,      160, 320,       32, 128,       128),
    "inception5b": (             384,      192, 384,       48, 128,       128),
}
_MISPRINT: dict[str, Widths] = {
    "inception4a": (             192,       96, 108,       16,  48,        64),  # 108 for 208
    "inception4c": (             128,      128, 256,       34,  64,        64),  # 34 for 24
}
# fmt: on

BRANCH_POOL = MaxPool(3, stride=1, pad=1)  # inside every block
STAGE_POOL = MaxPool(3, stride=2, pad=1)  # between the stages, in most presets
WHOLE_MAP = AdaptiveAverage(1)  # before the classifier, in most presets
AUX_POOL = AveragePool(5, stride=3)  # before the auxiliary heads, rounded down: the paper's "5x5+3(V)"
_CEIL = MaxPool(3, stride=2, ceil=True)


def _block(widths: Widths, kernel5: int) -> Block:
    """Four branches; those of the "5x5" one end in a kernel of that many pixels."""
    one, three_reduce, three, five_reduce, five, proj = widths
    return Block(
        (
            named(branch1x1=Conv(one)),
            named(branch3x3_reduce=Conv(three_reduce), branch3x3=Conv(three, 3, pad=1)),
            named(branch5x5_reduce=Conv(five_reduce), branch5x5=Conv(five, kernel5, pad=kernel5 // 2)),
            named(pool=BRANCH_POOL, pool_proj=Conv(proj)),
        )
    )


def _head(pool: AveragePool | AdaptiveAverage) -> Head:
    return Head(
        named(
            pool=pool,  # 4 x 4 x channels
            conv=Conv(128),  # 4 x 4 x 128
            fc1=Dense(1024),
            fc2=Dense(CLASSES, activation=None, drop_input=True),
        )
    )


def _googlenet(
    *,
    widths: Mapping[str, Widths] = TABLE,
    stage2_activation: Activation = "relu",
    kernel5: int = 5,
    pool: MaxPool = STAGE_POOL,
    pool4: MaxPool = STAGE_POOL,
    pool5: AveragePool | AdaptiveAverage = WHOLE_MAP,
    lrn: LRN | None = None,
    aux_pool: AveragePool | AdaptiveAverage | None = None,
    **settings: Any,
) -> Config:
    """A GoogLeNet; what is left out is as in `d2l`."""
    block = {name: _block(row, kernel5) for name, row in widths.items()}
    head = None if aux_pool is None else _head(aux_pool)
    stages = {
        "conv1": Conv(64, 7, stride=2, pad=3),  # 112 x 112 x 64
        "pool1": pool,  # 56 x 56 x 64
        "norm1": lrn,
        "conv2_reduce": Conv(64, activation=stage2_activation),  # 56 x 56 x 64
        "conv2": Conv(192, 3, pad=1, activation=stage2_activation),  # 56 x 56 x 192
        "norm2": lrn,
        "pool2": pool,  # 28 x 28 x 192
        "inception3a": block["inception3a"],  # 28 x 28 x 256
        "inception3b": block["inception3b"],  # 28 x 28 x 480
        "pool3": pool,  # 14 x 14 x 480
        "inception4a": block["inception4a"],  # 14 x 14 x 512
        "aux1": head,
        "inception4b": block["inception4b"],  # 14 x 14 x 512
        "inception4c": block["inception4c"],  # 14 x 14 x 512
        "inception4d": block["inception4d"],  # 14 x 14 x 528
        "aux2": head,
        "inception4e": block["inception4e"],  # 14 x 14 x 832
        "pool4": pool4,  # 7 x 7 x 832
        "inception5a": block["inception5a"],  # 7 x 7 x 832
        "inception5b": block["inception5b"],  # 7 x 7 x 1024
        "pool5": pool5,  # 1 x 1 x 1024
        "fc": Dense(CLASSES, activation=None, drop_input=True),
    }
    table = tuple((name, part) for name, part in stages.items() if part is not None)
    return Config(family="GoogLeNet", table=table, aux=head is not None, **settings)


GOOGLENETS = (
    _googlenet(
        preset="d2l",
        source="Dive into Deep Learning, chapter 8.4, PyTorch and MXNet tabs",
        in_channels=1,
        num_classes=10,
        input_size=96,
    ),
    _googlenet(
        preset="d2lzh",
        source="Dive into Deep Learning, first Chinese edition: no activation in stage 2",
        in_channels=1,
        num_classes=10,
        input_size=96,
        stage2_activation=None,
    ),
    _googlenet(
        preset="d2lzh-misprint",
        source="a published MXNet notebook after d2lzh, with two misprinted widths (4a: 108 for 208, 4c: 34 for 24)",
        in_channels=1,
        num_classes=10,
        input_size=96,
        widths=TABLE | _MISPRINT,
        stage2_activation=None,
    ),
    _googlenet(
        preset="cnblogs",
        source="a published PyTorch notebook: 7x7 average pool and dropout before the classifier",
        in_channels=1,
        num_classes=10,
        input_size=224,
        pool5=AveragePool(7, stride=7),
        dropout=0.4,
    ),
    _googlenet(
        preset="bvlc",
        source="the paper's network as BVLC/caffe trained it: models/bvlc_googlenet/train_val.prototxt",
        in_channels=3,
        num_classes=1000,
        input_size=224,
        pool=_CEIL,
        pool4=_CEIL,
        lrn=LRN(),
        dropout=0.4,
        aux_pool=AUX_POOL,
        aux_dropout=0.7,
    ),
    _googlenet(
        preset="torchvision",
        source="torchvision/models/googlenet.py, 0.28: batch norm, 3x3 in the '5x5' branch, 2x2 fourth pool",
        in_channels=3,
        num_classes=1000,
        input_size=224,
        kernel5=3,
        pool=_CEIL,
        pool4=replace(_CEIL, kernel=2),
        batch_norm=BatchNorm(),
        dropout=0.2,
        aux_pool=AdaptiveAverage(4),
        aux_dropout=0.7,
    ),
)
