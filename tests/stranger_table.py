"""The table of the small GoogLeNet that strangers write in every framework."""

from __future__ import annotations

from dataclasses import replace

import spec
from spec.network import CLASSES, LRN, AdaptiveAverage, AveragePool, BatchNorm, Block, Conv, Dense, Head, MaxPool, named

SIZE = 64
WIDTHS = {"inception3a": (4, 3, 5, 2, 6, 3), "inception3b": (5, 4, 6, 3, 4, 4), "inception4a": (6, 5, 7, 4, 8, 5)}
WIDTHS |= {"inception4b": (7, 5, 8, 4, 5, 6)}


def _block(one: int, reduce3: int, three: int, reduce5: int, five: int, proj: int) -> Block:
    return Block(
        (
            named(branch1x1=Conv(one)),
            named(branch3x3_reduce=Conv(reduce3), branch3x3=Conv(three, 3, pad=1)),
            named(branch5x5_reduce=Conv(reduce5), branch5x5=Conv(five, 5, pad=2)),
            named(pool=MaxPool(3, stride=1, pad=1), pool_proj=Conv(proj)),
        )
    )


def small(**settings: object) -> spec.Config:
    """A network with everything that bvlc has, once or a few times: `SIZE` pixels, three channels, ten classes."""
    up = MaxPool(3, stride=2, ceil=True)
    head = named(
        pool=AveragePool(5, stride=3),
        conv=Conv(6),
        fc1=Dense(12),
        fc2=Dense(CLASSES, activation=None, drop_input=True),
    )
    table = (
        ("conv1", Conv(8, 7, stride=2, pad=3)),  # 32
        ("pool1", up),  # 16
        ("norm1", LRN()),
        ("conv2_reduce", Conv(8)),
        ("conv2", Conv(12, 3, pad=1)),
        ("norm2", LRN()),
        ("pool2", up),  # 8
        *((name, _block(*widths)) for name, widths in list(WIDTHS.items())[:3]),
        ("aux1", Head(head)),
        ("inception4b", _block(*WIDTHS["inception4b"])),
        ("pool5", AdaptiveAverage(1)),
        ("fc", Dense(CLASSES, activation=None, drop_input=True)),
    )
    config = spec.Config(
        preset="bvlc",
        family="GoogLeNet",
        source="",
        in_channels=3,
        num_classes=10,
        input_size=SIZE,
        table=table,
        dropout=0.4,
        aux=True,
        aux_dropout=0.7,
    )
    return replace(config, **settings)


def small_with_norm() -> spec.Config:
    """The same with batch norm, and without local response normalization."""
    config = small(batch_norm=BatchNorm())
    return replace(config, table=tuple((name, part) for name, part in config.table if not isinstance(part, LRN)))
