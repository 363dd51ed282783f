"""The Inception family after GoogLeNet as data: Inception-BN, v3, v4 and Inception-ResNet-v2.

Sources: Ioffe and Szegedy, "Batch Normalization", 2015; Szegedy et al., "Rethinking the Inception Architecture for
Computer Vision", 2015; Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning", 2016. Where code and paper differ, the code that published the weights counts; each preset names it.
Comments give each stage's output for the preset's own size, height x width x channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spec.network import (
    CLASSES,
    AdaptiveAverage,
    AveragePool,
    BatchNorm,
    Block,
    Config,
    Conv,
    Dense,
    Head,
    MaxPool,
    Operation,
    Pair,
    Residual,
    Stages,
    named,
)

ROW, COLUMN = (1, 7), (7, 1)  # a 7x7 kernel in two factors
SHORT_ROW, SHORT_COLUMN = (1, 3), (3, 1)  # a 3x3 kernel in two factors
AVERAGE_9 = AveragePool(3, stride=1, pad=1)  # divides by nine at the borders, too
AVERAGE = AveragePool(3, stride=1, pad=1, count_pad=False)  # divides by the pixels in the window
LARGEST = MaxPool(3, stride=1, pad=1)
HALVE = MaxPool(3, stride=2)
WHOLE_MAP = AdaptiveAverage(1)


def _same(channels: int, kernel: int | Pair = 3) -> Conv:
    """A convolution that keeps the map's size."""
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return Conv(channels, kernel, pad=(height // 2, width // 2))


def _halve(channels: int) -> Conv:
    """A 3x3 convolution with stride 2 and without padding."""
    return Conv(channels, 3, stride=2)


def _split(channels: int, name: str) -> Block:
    """A 1x3 and a 3x1 convolution of the same map, side by side."""
    across, down = _same(channels, SHORT_ROW), _same(channels, SHORT_COLUMN)
    return Block((named(**{f"{name}_a": across}), named(**{f"{name}_b": down})))


# ------------------------------------------------------------------------------------------------------ Inception-BN

BNWidths = tuple[int | None, tuple[int, int], tuple[int, int], int | None]

# fmt: off
BN_TABLE: dict[str, BNWidths] = {  # 1x1   3x3 red., 3x3   double 3x3 red., 3x3   pool proj
    "inception3a":               (    64, (  64,  64),    (  64,  96),                32),
    "inception3b":               (    64, (  64,  96),    (  64,  96),                64),
    "inception3c":               (  None, ( 128, 160),    (  64,  96),              None),
    "inception4a":               (   224, (  64,  96),    (  96, 128),               128),
    "inception4b":               (   192, (  96, 128),    (  96, 128),               128),
    "inception4c":               (   160, ( 128, 160),    ( 128, 160),               128),
    "inception4d":               (    96, ( 128, 192),    ( 160, 192),               128),
    "inception4e":               (  None, ( 128, 192),    ( 192, 256),              None),
    "inception5a":               (   352, ( 192, 320),    ( 160, 224),               128),
    "inception5b":               (   352, ( 192, 320),    ( 192, 224),               128),
}
# fmt: on


def _bn_block(widths: BNWidths, pool: Operation, halve: MaxPool) -> Block:
    """Four branches; three that halve the map where there is no 1x1 branch."""
    one, (three_reduce, three), (double_reduce, double), proj = widths
    stride = 2 if one is None else 1
    three_by_three = named(
        branch3x3_reduce=Conv(three_reduce),
        branch3x3=Conv(three, 3, stride=stride, pad=1),
    )
    double_three = named(
        branch3x3dbl_reduce=Conv(double_reduce),
        branch3x3dbl_1=_same(double),
        branch3x3dbl_2=Conv(double, 3, stride=stride, pad=1),
    )
    if one is None or proj is None:
        return Block((three_by_three, double_three, named(pool=halve)))
    return Block((named(branch1x1=Conv(one)), three_by_three, double_three, named(pool=pool, pool_proj=Conv(proj))))


def _inception_bn(*, stem_pool: MaxPool, block_pool: MaxPool, **settings: Any) -> Config:
    block = {
        name: _bn_block(row, LARGEST if name == "inception5b" else AVERAGE_9, block_pool)
        for name, row in BN_TABLE.items()
    }
    stages: Stages = named(
        conv1=Conv(64, 7, stride=2, pad=3),  # 112 x 112 x 64
        pool1=stem_pool,  # 56 x 56 x 64
        conv2_reduce=Conv(64),  # 56 x 56 x 64
        conv2=_same(192),  # 56 x 56 x 192
        pool2=stem_pool,  # 28 x 28 x 192
        inception3a=block["inception3a"],  # 28 x 28 x 256
        inception3b=block["inception3b"],  # 28 x 28 x 320
        inception3c=block["inception3c"],  # 14 x 14 x 576
        inception4a=block["inception4a"],  # 14 x 14 x 576
        inception4b=block["inception4b"],  # 14 x 14 x 576
        inception4c=block["inception4c"],  # 14 x 14 x 608
        inception4d=block["inception4d"],  # 14 x 14 x 608
        inception4e=block["inception4e"],  # 7 x 7 x 1056
        inception5a=block["inception5a"],  # 7 x 7 x 1024
        inception5b=block["inception5b"],  # 7 x 7 x 1024
        pool5=WHOLE_MAP,  # 1 x 1 x 1024
        fc=Dense(CLASSES, activation=None, drop_input=True),
    )
    norm = BatchNorm(epsilon=1e-5, after_bias=True)
    return Config(
        family="InceptionBN",
        table=stages,
        in_channels=3,
        num_classes=1000,
        input_size=224,
        batch_norm=norm,
        **settings,
    )


# ------------------------------------------------------------------------------------------------------ Inception v3

STEM: Stages = named(
    conv1a=_halve(32),  # 149 x 149 x 32
    conv2a=Conv(32, 3),  # 147 x 147 x 32
    conv2b=_same(64),  # 147 x 147 x 64
    pool1=HALVE,  # 73 x 73 x 64
    conv3b=Conv(80),  # 73 x 73 x 80
    conv4a=Conv(192, 3),  # 71 x 71 x 192
    pool2=HALVE,  # 35 x 35 x 192
)


def _v3_mixed5(proj: int, average: AveragePool) -> Block:
    return Block(
        (
            named(branch1x1=Conv(64)),
            named(branch5x5_reduce=Conv(48), branch5x5=_same(64, 5)),
            named(branch3x3dbl_reduce=Conv(64), branch3x3dbl_1=_same(96), branch3x3dbl_2=_same(96)),
            named(pool=average, pool_proj=Conv(proj)),
        )
    )


def _v3_mixed6(channels: int, average: AveragePool) -> Block:
    return Block(
        (
            named(branch1x1=Conv(192)),
            named(
                branch7x7_reduce=Conv(channels),
                branch7x7_1=_same(channels, ROW),
                branch7x7_2=_same(192, COLUMN),
            ),
            named(
                branch7x7dbl_reduce=Conv(channels),
                branch7x7dbl_1=_same(channels, COLUMN),
                branch7x7dbl_2=_same(channels, ROW),
                branch7x7dbl_3=_same(channels, COLUMN),
                branch7x7dbl_4=_same(192, ROW),
            ),
            named(pool=average, pool_proj=Conv(192)),
        )
    )


def _v3_mixed7(pool: AveragePool | MaxPool) -> Block:
    return Block(
        (
            named(branch1x1=Conv(320)),
            named(branch3x3_reduce=Conv(384), branch3x3=_split(384, "branch3x3")),
            named(branch3x3dbl_reduce=Conv(448), branch3x3dbl_1=_same(384), branch3x3dbl=_split(384, "branch3x3dbl")),
            named(pool=pool, pool_proj=Conv(192)),
        )
    )


_V3_MIXED6A = Block(
    (
        named(branch3x3=_halve(384)),
        named(branch3x3dbl_reduce=Conv(64), branch3x3dbl_1=_same(96), branch3x3dbl_2=_halve(96)),
        named(pool=HALVE),
    )
)
_V3_MIXED7A = Block(
    (
        named(branch3x3_reduce=Conv(192), branch3x3=_halve(320)),
        named(
            branch7x7x3_reduce=Conv(192),
            branch7x7x3_1=_same(192, ROW),
            branch7x7x3_2=_same(192, COLUMN),
            branch7x7x3=_halve(192),
        ),
        named(pool=HALVE),
    )
)
_V3_HEAD = Head(
    named(
        pool=AveragePool(5, stride=3),  # 5 x 5 x 768
        conv=Conv(128),  # 5 x 5 x 128
        conv2=Conv(768, 5),  # 1 x 1 x 768
        mean=WHOLE_MAP,
        fc=Dense(CLASSES, activation=None),
    )
)


def _inception_v3(
    *,
    average: AveragePool,
    last_pool: AveragePool | MaxPool,
    head: bool = False,
    num_classes: int = 1000,
    **settings: Any,
) -> Config:
    stages: Stages = (
        *STEM,
        *named(
            mixed5b=_v3_mixed5(32, average),  # 35 x 35 x 256
            mixed5c=_v3_mixed5(64, average),  # 35 x 35 x 288
            mixed5d=_v3_mixed5(64, average),  # 35 x 35 x 288
            mixed6a=_V3_MIXED6A,  # 17 x 17 x 768
            mixed6b=_v3_mixed6(128, average),  # 17 x 17 x 768
            mixed6c=_v3_mixed6(160, average),  # 17 x 17 x 768
            mixed6d=_v3_mixed6(160, average),  # 17 x 17 x 768
            mixed6e=_v3_mixed6(192, average),  # 17 x 17 x 768
        ),
        *([("aux1", _V3_HEAD)] if head else []),
        *named(
            mixed7a=_V3_MIXED7A,  # 8 x 8 x 1280
            mixed7b=_v3_mixed7(average),  # 8 x 8 x 2048
            mixed7c=_v3_mixed7(last_pool),  # 8 x 8 x 2048
            pool3=WHOLE_MAP,  # 1 x 1 x 2048
            fc=Dense(CLASSES, activation=None, drop_input=True),
        ),
    )
    return Config(
        family="InceptionV3",
        table=stages,
        in_channels=3,
        num_classes=num_classes,
        input_size=299,
        aux=head,
        aux_weight=0.4,
        **settings,
    )


# ------------------------------------------------------------------------------------------------------ Inception v4

_V4_MIXED3A = Block((named(pool=HALVE), named(branch3x3=_halve(96))))  # the pool comes first
_V4_MIXED4A = Block(
    (
        named(branch3x3_reduce=Conv(64), branch3x3=Conv(96, 3)),
        named(
            branch7x7x3_reduce=Conv(64),
            branch7x7x3_1=_same(64, ROW),
            branch7x7x3_2=_same(64, COLUMN),
            branch7x7x3=Conv(96, 3),
        ),
    )
)
_V4_MIXED5A = Block((named(branch3x3=_halve(192)), named(pool=HALVE)))
_V4_MIXED5 = Block(
    (
        named(branch1x1=Conv(96)),
        named(branch3x3_reduce=Conv(64), branch3x3=_same(96)),
        named(branch3x3dbl_reduce=Conv(64), branch3x3dbl_1=_same(96), branch3x3dbl_2=_same(96)),
        named(pool=AVERAGE, pool_proj=Conv(96)),
    )
)
_V4_MIXED6A = Block(
    (
        named(branch3x3=_halve(384)),
        named(branch3x3dbl_reduce=Conv(192), branch3x3dbl_1=_same(224), branch3x3dbl_2=_halve(256)),
        named(pool=HALVE),
    )
)
_V4_MIXED6 = Block(
    (
        named(branch1x1=Conv(384)),
        named(branch7x7_reduce=Conv(192), branch7x7_1=_same(224, ROW), branch7x7_2=_same(256, COLUMN)),
        named(
            branch7x7dbl_reduce=Conv(192),
            branch7x7dbl_1=_same(192, COLUMN),
            branch7x7dbl_2=_same(224, ROW),
            branch7x7dbl_3=_same(224, COLUMN),
            branch7x7dbl_4=_same(256, ROW),
        ),
        named(pool=AVERAGE, pool_proj=Conv(128)),
    )
)
_V4_MIXED7A = Block(
    (
        named(branch3x3_reduce=Conv(192), branch3x3=_halve(192)),
        named(
            branch7x7x3_reduce=Conv(256),
            branch7x7x3_1=_same(256, ROW),
            branch7x7x3_2=_same(320, COLUMN),
            branch7x7x3=_halve(320),
        ),
        named(pool=HALVE),
    )
)
_V4_MIXED7 = Block(
    (
        named(branch1x1=Conv(256)),
        named(branch3x3_reduce=Conv(384), branch3x3=_split(256, "branch3x3")),
        named(
            branch3x3dbl_reduce=Conv(384),
            branch3x3dbl_1=_same(448, SHORT_COLUMN),
            branch3x3dbl_2=_same(512, SHORT_ROW),
            branch3x3dbl=_split(256, "branch3x3dbl"),
        ),
        named(pool=AVERAGE, pool_proj=Conv(256)),
    )
)


def _inception_v4(**settings: Any) -> Config:
    stages: Stages = named(
        conv1a=_halve(32),  # 149 x 149 x 32
        conv2a=Conv(32, 3),  # 147 x 147 x 32
        conv2b=_same(64),  # 147 x 147 x 64
        mixed3a=_V4_MIXED3A,  # 73 x 73 x 160
        mixed4a=_V4_MIXED4A,  # 71 x 71 x 192
        mixed5a=_V4_MIXED5A,  # 35 x 35 x 384
        **{f"mixed5{letter}": _V4_MIXED5 for letter in "bcde"},  # 35 x 35 x 384
        mixed6a=_V4_MIXED6A,  # 17 x 17 x 1024
        **{f"mixed6{letter}": _V4_MIXED6 for letter in "bcdefgh"},  # 17 x 17 x 1024
        mixed7a=_V4_MIXED7A,  # 8 x 8 x 1536
        **{f"mixed7{letter}": _V4_MIXED7 for letter in "bcd"},  # 8 x 8 x 1536
        pool=WHOLE_MAP,  # 1 x 1 x 1536
        fc=Dense(CLASSES, activation=None, drop_input=True),
    )
    return Config(family="InceptionV4", table=stages, in_channels=3, num_classes=1000, input_size=299, **settings)


# ----------------------------------------------------------------------------------------------- Inception-ResNet-v2


def _residual(branches: Block, channels: int, scale: float) -> Residual:
    """ReLU(x + scale · up(branches)); `up` has a bias, and neither batch norm nor activation."""
    return Residual(named(branches=branches, up=Conv(channels, norm=False, activation=None)), scale)


_RESNET_MIXED5B = Block(
    (
        named(branch1x1=Conv(96)),
        named(branch5x5_reduce=Conv(48), branch5x5=_same(64, 5)),
        named(branch3x3dbl_reduce=Conv(64), branch3x3dbl_1=_same(96), branch3x3dbl_2=_same(96)),
        named(pool=AVERAGE, pool_proj=Conv(64)),
    )
)
_BLOCK35 = _residual(
    Block(
        (
            named(branch1x1=Conv(32)),
            named(branch3x3_reduce=Conv(32), branch3x3=_same(32)),
            named(branch3x3dbl_reduce=Conv(32), branch3x3dbl_1=_same(48), branch3x3dbl_2=_same(64)),
        )
    ),
    320,
    scale=0.17,
)
_RESNET_MIXED6A = Block(
    (
        named(branch3x3=_halve(384)),
        named(branch3x3dbl_reduce=Conv(256), branch3x3dbl_1=_same(256), branch3x3dbl_2=_halve(384)),
        named(pool=HALVE),
    )
)
_BLOCK17 = _residual(
    Block(
        (
            named(branch1x1=Conv(192)),
            named(branch7x7_reduce=Conv(128), branch7x7_1=_same(160, ROW), branch7x7_2=_same(192, COLUMN)),
        )
    ),
    1088,
    scale=0.1,
)
_RESNET_MIXED7A = Block(
    (
        named(branch3x3a_reduce=Conv(256), branch3x3a=_halve(384)),
        named(branch3x3b_reduce=Conv(256), branch3x3b=_halve(288)),
        named(branch3x3dbl_reduce=Conv(256), branch3x3dbl_1=_same(288), branch3x3dbl_2=_halve(320)),
        named(pool=HALVE),
    )
)
_BLOCK8 = _residual(
    Block(
        (
            named(branch1x1=Conv(192)),
            named(
                branch3x3_reduce=Conv(192),
                branch3x3_1=_same(224, SHORT_ROW),
                branch3x3_2=_same(256, SHORT_COLUMN),
            ),
        )
    ),
    2080,
    scale=0.2,
)


def _inception_resnet_v2(**settings: Any) -> Config:
    stages: Stages = (
        *STEM,
        *named(
            mixed5b=_RESNET_MIXED5B,  # 35 x 35 x 320
            **{f"block35_{i}": _BLOCK35 for i in range(1, 11)},  # 35 x 35 x 320
            mixed6a=_RESNET_MIXED6A,  # 17 x 17 x 1088
            **{f"block17_{i}": _BLOCK17 for i in range(1, 21)},  # 17 x 17 x 1088
            mixed7a=_RESNET_MIXED7A,  # 8 x 8 x 2080
            **{f"block8_{i}": _BLOCK8 for i in range(1, 10)},  # 8 x 8 x 2080
            block8_10=replace(_BLOCK8, scale=1.0, activation=None),  # 8 x 8 x 2080
            conv7b=Conv(1536),  # 8 x 8 x 1536
            pool3=WHOLE_MAP,  # 1 x 1 x 1536
            fc=Dense(CLASSES, activation=None, drop_input=True),
        ),
    )
    return Config(family="InceptionResNetV2", table=stages, in_channels=3, num_classes=1000, input_size=299, **settings)


INCEPTIONS = (
    _inception_bn(
        preset="inception-bn",
        source="Inception-BN as Caffe and Cadene/pretrained-models.pytorch have it: ceiling pools, biases before norm",
        stem_pool=MaxPool(3, stride=2, ceil=True),
        block_pool=MaxPool(3, stride=2, ceil=True),
    ),
    _inception_bn(
        preset="inception-bn-mxnet",
        source="MXNet's symbol inception-bn: the same arrays, pools that round down",
        stem_pool=HALVE,
        block_pool=MaxPool(3, stride=2, pad=1),
    ),
    _inception_v3(
        preset="inception-v3",
        source="torchvision/models/inception.py 0.28, and Gluon's model zoo: averages divide by nine",
        average=AVERAGE_9,
        last_pool=AVERAGE_9,
        head=True,
        batch_norm=BatchNorm(),
        dropout=0.5,
    ),
    _inception_v3(
        preset="inception-v3-tf",
        source="TF-slim and keras.applications: averages divide by the pixels, batch norm has no scale",
        average=AVERAGE,
        last_pool=AVERAGE,
        batch_norm=BatchNorm(scale=False),
    ),
    _inception_v3(
        preset="inception-v3-fid",
        source="FID's network, as pytorch-fid has it: averages divide by the pixels, a max pool in mixed7c",
        average=AVERAGE,
        last_pool=LARGEST,
        num_classes=1008,
        batch_norm=BatchNorm(),
    ),
    _inception_v4(
        preset="inception-v4",
        source="timm and Cadene/pretrained-models.pytorch, after TF-slim",
        batch_norm=BatchNorm(),
    ),
    _inception_resnet_v2(
        preset="inception-resnet-v2",
        source="timm and Cadene/pretrained-models.pytorch, after TF-slim",
        batch_norm=BatchNorm(),
    ),
)
