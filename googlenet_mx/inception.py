"""The Inception family after GoogLeNet as Gluon blocks. Arrays are (N, C, H, W); attributes bear canonical names.

Sources: see `spec/inception.py`, from whose tables each layer takes its numbers. Comments give each stage's output for
images of the preset's own size, height x width x channels.
"""

from __future__ import annotations

from typing import Any

from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

import spec
from googlenet_mx.layers import ACTIVATIONS, AveragePool, Conv, Dense, MaxPool
from googlenet_mx.network import Masks, Network, Watch, ignore


def pool_of(node: spec.Node) -> MaxPool | AveragePool:
    """The pool that the table has there: publishers differ in it."""
    return MaxPool(node) if isinstance(node.op, spec.MaxPool) else AveragePool(node)


class Mixed(HybridBlock):
    """1x1, 3x3, two 3x3, and a pool: Inception-BN, and v4 at 35 x 35."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.pool = pool_of(nodes[f"{name}.pool"])
        self.pool_proj = Conv(nodes[f"{name}.pool_proj"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
                self.pool_proj(self.pool(x)),
            ],
            dim=1,
        )


class Halving(HybridBlock):
    """3x3, two 3x3, and a pool, each with stride 2: Inception-BN."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.pool = MaxPool(nodes[f"{name}.pool"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
                self.pool(x),
            ],
            dim=1,
        )


class Mixed5(HybridBlock):
    """1x1, 5x5, two 3x3, and a pool: v3 and Inception-ResNet-v2 at 35 x 35."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch5x5_reduce = Conv(nodes[f"{name}.branch5x5_reduce"])
        self.branch5x5 = Conv(nodes[f"{name}.branch5x5"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.pool = AveragePool(nodes[f"{name}.pool"])
        self.pool_proj = Conv(nodes[f"{name}.pool_proj"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch5x5(self.branch5x5_reduce(x)),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
                self.pool_proj(self.pool(x)),
            ],
            dim=1,
        )


class Mixed6a(HybridBlock):
    """3x3, two 3x3, and a pool, each with stride 2, the first without a reduction: from 35 x 35 to 17 x 17."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.pool = MaxPool(nodes[f"{name}.pool"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch3x3(x),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
                self.pool(x),
            ],
            dim=1,
        )


class Mixed6(HybridBlock):
    """1x1, a 7x7 in two factors, two 7x7 in four, and a pool: v3 and v4 at 17 x 17."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch7x7_reduce = Conv(nodes[f"{name}.branch7x7_reduce"])
        self.branch7x7_1 = Conv(nodes[f"{name}.branch7x7_1"])
        self.branch7x7_2 = Conv(nodes[f"{name}.branch7x7_2"])
        self.branch7x7dbl_reduce = Conv(nodes[f"{name}.branch7x7dbl_reduce"])
        self.branch7x7dbl_1 = Conv(nodes[f"{name}.branch7x7dbl_1"])
        self.branch7x7dbl_2 = Conv(nodes[f"{name}.branch7x7dbl_2"])
        self.branch7x7dbl_3 = Conv(nodes[f"{name}.branch7x7dbl_3"])
        self.branch7x7dbl_4 = Conv(nodes[f"{name}.branch7x7dbl_4"])
        self.pool = AveragePool(nodes[f"{name}.pool"])
        self.pool_proj = Conv(nodes[f"{name}.pool_proj"])

    def hybrid_forward(self, F, x):
        double = self.branch7x7dbl_2(self.branch7x7dbl_1(self.branch7x7dbl_reduce(x)))
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch7x7_2(self.branch7x7_1(self.branch7x7_reduce(x))),
                self.branch7x7dbl_4(self.branch7x7dbl_3(double)),
                self.pool_proj(self.pool(x)),
            ],
            dim=1,
        )


class Mixed7a(HybridBlock):
    """3x3, a 7x7 in two factors and a 3x3, and a pool, each with stride 2: v3 and v4 from 17 x 17 to 8 x 8."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch7x7x3_reduce = Conv(nodes[f"{name}.branch7x7x3_reduce"])
        self.branch7x7x3_1 = Conv(nodes[f"{name}.branch7x7x3_1"])
        self.branch7x7x3_2 = Conv(nodes[f"{name}.branch7x7x3_2"])
        self.branch7x7x3 = Conv(nodes[f"{name}.branch7x7x3"])
        self.pool = MaxPool(nodes[f"{name}.pool"])

    def hybrid_forward(self, F, x):
        factors = self.branch7x7x3_2(self.branch7x7x3_1(self.branch7x7x3_reduce(x)))
        return F.concat(
            *[
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch7x7x3(factors),
                self.pool(x),
            ],
            dim=1,
        )


class Mixed7(HybridBlock):
    """1x1, a split 3x3, a 3x3 and a split one, and a pool: v3 and v4 at 8 x 8; v4's 3x3 is in two factors."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3_a = Conv(nodes[f"{name}.branch3x3_a"])
        self.branch3x3_b = Conv(nodes[f"{name}.branch3x3_b"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        second = f"{name}.branch3x3dbl_2"
        self.branch3x3dbl_2 = Conv(nodes[second]) if second in nodes else None
        self.branch3x3dbl_a = Conv(nodes[f"{name}.branch3x3dbl_a"])
        self.branch3x3dbl_b = Conv(nodes[f"{name}.branch3x3dbl_b"])
        self.pool = pool_of(nodes[f"{name}.pool"])
        self.pool_proj = Conv(nodes[f"{name}.pool_proj"])

    def hybrid_forward(self, F, x):
        single = self.branch3x3_reduce(x)
        double = self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))
        if self.branch3x3dbl_2 is not None:
            double = self.branch3x3dbl_2(double)
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3_a(single),
                self.branch3x3_b(single),
                self.branch3x3dbl_a(double),
                self.branch3x3dbl_b(double),
                self.pool_proj(self.pool(x)),
            ],
            dim=1,
        )


class AuxHead(HybridBlock):
    """A classifier on an early stage, used in training only."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.pool = AveragePool(nodes[f"{name}.pool"])
        self.conv = Conv(nodes[f"{name}.conv"])
        self.conv2 = Conv(nodes[f"{name}.conv2"])
        self.mean = AveragePool(nodes[f"{name}.mean"])
        self.fc = Dense(nodes[f"{name}.fc"])

    def hybrid_forward(self, F, x):
        x = self.pool(x)  # 5 x 5 x 768
        x = self.conv(x)  # 5 x 5 x 128
        x = self.conv2(x)  # 1 x 1 x 768
        x = self.mean(x)  # 1 x 1 x 768
        return self.fc(x)


# --------------------------------------------------------------------------------------------------- the blocks of v4


class PoolFirst(HybridBlock):
    """A pool and a 3x3, each with stride 2, the pool first: v4's mixed3a."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.pool = MaxPool(nodes[f"{name}.pool"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])

    def hybrid_forward(self, F, x):
        return F.concat(*[self.pool(x), self.branch3x3(x)], dim=1)


class PoolLast(HybridBlock):
    """A 3x3 and a pool, each with stride 2, the pool last: v4's mixed5a."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.pool = MaxPool(nodes[f"{name}.pool"])

    def hybrid_forward(self, F, x):
        return F.concat(*[self.branch3x3(x), self.pool(x)], dim=1)


class Mixed4a(HybridBlock):
    """3x3, and a 7x7 in two factors before a 3x3: v4 from 73 x 73 to 71 x 71."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch7x7x3_reduce = Conv(nodes[f"{name}.branch7x7x3_reduce"])
        self.branch7x7x3_1 = Conv(nodes[f"{name}.branch7x7x3_1"])
        self.branch7x7x3_2 = Conv(nodes[f"{name}.branch7x7x3_2"])
        self.branch7x7x3 = Conv(nodes[f"{name}.branch7x7x3"])

    def hybrid_forward(self, F, x):
        factors = self.branch7x7x3_2(self.branch7x7x3_1(self.branch7x7x3_reduce(x)))
        return F.concat(*[self.branch3x3(self.branch3x3_reduce(x)), self.branch7x7x3(factors)], dim=1)


# ----------------------------------------------------------------------------------- the blocks of Inception-ResNet-v2


class Add(HybridBlock):
    """ReLU(x + scale · y), without the ReLU or without x where the table says so."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op, self.shortcut = node.op, len(node.reads) == 2

    def hybrid_forward(self, F, x, y):
        y = self.op.scale * y
        if self.shortcut:
            y = x + y
        return ACTIVATIONS[self.op.activation](F, y)


class Block35(HybridBlock):
    """1x1, 3x3 and two 3x3, beside the shortcut, at 35 x 35."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.up = Conv(nodes[f"{name}.up"])
        self.add = Add(nodes[name])

    def hybrid_forward(self, F, x):
        y = F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
            ],
            dim=1,
        )
        return self.add(x, self.up(y))


class Block17(HybridBlock):
    """1x1 and a 7x7 in two factors, beside the shortcut, at 17 x 17."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch7x7_reduce = Conv(nodes[f"{name}.branch7x7_reduce"])
        self.branch7x7_1 = Conv(nodes[f"{name}.branch7x7_1"])
        self.branch7x7_2 = Conv(nodes[f"{name}.branch7x7_2"])
        self.up = Conv(nodes[f"{name}.up"])
        self.add = Add(nodes[name])

    def hybrid_forward(self, F, x):
        y = F.concat(*[self.branch1x1(x), self.branch7x7_2(self.branch7x7_1(self.branch7x7_reduce(x)))], dim=1)
        return self.add(x, self.up(y))


class Block8(HybridBlock):
    """1x1 and a 3x3 in two factors, beside the shortcut, at 8 x 8."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3_1 = Conv(nodes[f"{name}.branch3x3_1"])
        self.branch3x3_2 = Conv(nodes[f"{name}.branch3x3_2"])
        self.up = Conv(nodes[f"{name}.up"])
        self.add = Add(nodes[name])

    def hybrid_forward(self, F, x):
        y = F.concat(*[self.branch1x1(x), self.branch3x3_2(self.branch3x3_1(self.branch3x3_reduce(x)))], dim=1)
        return self.add(x, self.up(y))


class ResNetMixed7a(HybridBlock):
    """3x3 twice, two 3x3, and a pool, each with stride 2: from 17 x 17 to 8 x 8."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch3x3a_reduce = Conv(nodes[f"{name}.branch3x3a_reduce"])
        self.branch3x3a = Conv(nodes[f"{name}.branch3x3a"])
        self.branch3x3b_reduce = Conv(nodes[f"{name}.branch3x3b_reduce"])
        self.branch3x3b = Conv(nodes[f"{name}.branch3x3b"])
        self.branch3x3dbl_reduce = Conv(nodes[f"{name}.branch3x3dbl_reduce"])
        self.branch3x3dbl_1 = Conv(nodes[f"{name}.branch3x3dbl_1"])
        self.branch3x3dbl_2 = Conv(nodes[f"{name}.branch3x3dbl_2"])
        self.pool = MaxPool(nodes[f"{name}.pool"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch3x3a(self.branch3x3a_reduce(x)),
                self.branch3x3b(self.branch3x3b_reduce(x)),
                self.branch3x3dbl_2(self.branch3x3dbl_1(self.branch3x3dbl_reduce(x))),
                self.pool(x),
            ],
            dim=1,
        )


# ------------------------------------------------------------------------------------------------------- the networks


class InceptionBN(Network):
    """Inception with batch norm (Ioffe and Szegedy 2015); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1 = Conv(nodes["conv1"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv2_reduce = Conv(nodes["conv2_reduce"])
        self.conv2 = Conv(nodes["conv2"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.inception3a = Mixed(nodes, "inception3a")
        self.inception3b = Mixed(nodes, "inception3b")
        self.inception3c = Halving(nodes, "inception3c")
        self.inception4a = Mixed(nodes, "inception4a")
        self.inception4b = Mixed(nodes, "inception4b")
        self.inception4c = Mixed(nodes, "inception4c")
        self.inception4d = Mixed(nodes, "inception4d")
        self.inception4e = Halving(nodes, "inception4e")
        self.inception5a = Mixed(nodes, "inception5a")
        self.inception5b = Mixed(nodes, "inception5b")
        self.pool5 = AveragePool(nodes["pool5"])
        self.fc = Dense(nodes["fc"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1", self.conv1(x))  # 112 x 112 x 64
        x = watch("pool1", self.pool1(x))  # 56 x 56 x 64
        x = watch("conv2_reduce", self.conv2_reduce(x))  # 56 x 56 x 64
        x = watch("conv2", self.conv2(x))  # 56 x 56 x 192
        x = watch("pool2", self.pool2(x))  # 28 x 28 x 192
        x = watch("inception3a", self.inception3a(x))  # 28 x 28 x 256
        x = watch("inception3b", self.inception3b(x))  # 28 x 28 x 320
        x = watch("inception3c", self.inception3c(x))  # 14 x 14 x 576
        x = watch("inception4a", self.inception4a(x))  # 14 x 14 x 576
        x = watch("inception4b", self.inception4b(x))  # 14 x 14 x 576
        x = watch("inception4c", self.inception4c(x))  # 14 x 14 x 608
        x = watch("inception4d", self.inception4d(x))  # 14 x 14 x 608
        x = watch("inception4e", self.inception4e(x))  # 7 x 7 x 1056
        x = watch("inception5a", self.inception5a(x))  # 7 x 7 x 1024
        x = watch("inception5b", self.inception5b(x))  # 7 x 7 x 1024
        x = watch("pool5", self.pool5(x))  # 1 x 1 x 1024
        x = watch("fc", self.fc(x, masks.get("fc")))  # num_classes
        return spec.Outputs(x)


class InceptionV3(Network):
    """Inception v3 (Szegedy et al. 2015); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1a = Conv(nodes["conv1a"])
        self.conv2a = Conv(nodes["conv2a"])
        self.conv2b = Conv(nodes["conv2b"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv3b = Conv(nodes["conv3b"])
        self.conv4a = Conv(nodes["conv4a"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.mixed5b = Mixed5(nodes, "mixed5b")
        self.mixed5c = Mixed5(nodes, "mixed5c")
        self.mixed5d = Mixed5(nodes, "mixed5d")
        self.mixed6a = Mixed6a(nodes, "mixed6a")
        self.mixed6b = Mixed6(nodes, "mixed6b")
        self.mixed6c = Mixed6(nodes, "mixed6c")
        self.mixed6d = Mixed6(nodes, "mixed6d")
        self.mixed6e = Mixed6(nodes, "mixed6e")
        self.aux1 = AuxHead(nodes, "aux1") if config.aux else None
        self.mixed7a = Mixed7a(nodes, "mixed7a")
        self.mixed7b = Mixed7(nodes, "mixed7b")
        self.mixed7c = Mixed7(nodes, "mixed7c")
        self.pool3 = AveragePool(nodes["pool3"])
        self.fc = Dense(nodes["fc"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        heads = {}
        x = watch("conv1a", self.conv1a(x))  # 149 x 149 x 32
        x = watch("conv2a", self.conv2a(x))  # 147 x 147 x 32
        x = watch("conv2b", self.conv2b(x))  # 147 x 147 x 64
        x = watch("pool1", self.pool1(x))  # 73 x 73 x 64
        x = watch("conv3b", self.conv3b(x))  # 73 x 73 x 80
        x = watch("conv4a", self.conv4a(x))  # 71 x 71 x 192
        x = watch("pool2", self.pool2(x))  # 35 x 35 x 192
        x = watch("mixed5b", self.mixed5b(x))  # 35 x 35 x 256
        x = watch("mixed5c", self.mixed5c(x))  # 35 x 35 x 288
        x = watch("mixed5d", self.mixed5d(x))  # 35 x 35 x 288
        x = watch("mixed6a", self.mixed6a(x))  # 17 x 17 x 768
        x = watch("mixed6b", self.mixed6b(x))  # 17 x 17 x 768
        x = watch("mixed6c", self.mixed6c(x))  # 17 x 17 x 768
        x = watch("mixed6d", self.mixed6d(x))  # 17 x 17 x 768
        x = watch("mixed6e", self.mixed6e(x))  # 17 x 17 x 768
        if self.runs_heads(watch):
            heads["aux1"] = watch("aux1", self.aux1(x))  # num_classes
        x = watch("mixed7a", self.mixed7a(x))  # 8 x 8 x 1280
        x = watch("mixed7b", self.mixed7b(x))  # 8 x 8 x 2048
        x = watch("mixed7c", self.mixed7c(x))  # 8 x 8 x 2048
        x = watch("pool3", self.pool3(x))  # 1 x 1 x 2048
        x = watch("fc", self.fc(x, masks.get("fc")))  # num_classes
        return spec.Outputs(x, heads)


class InceptionV4(Network):
    """Inception v4 (Szegedy et al. 2016); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1a = Conv(nodes["conv1a"])
        self.conv2a = Conv(nodes["conv2a"])
        self.conv2b = Conv(nodes["conv2b"])
        self.mixed3a = PoolFirst(nodes, "mixed3a")
        self.mixed4a = Mixed4a(nodes, "mixed4a")
        self.mixed5a = PoolLast(nodes, "mixed5a")
        self.mixed5b = Mixed(nodes, "mixed5b")
        self.mixed5c = Mixed(nodes, "mixed5c")
        self.mixed5d = Mixed(nodes, "mixed5d")
        self.mixed5e = Mixed(nodes, "mixed5e")
        self.mixed6a = Mixed6a(nodes, "mixed6a")
        self.mixed6b = Mixed6(nodes, "mixed6b")
        self.mixed6c = Mixed6(nodes, "mixed6c")
        self.mixed6d = Mixed6(nodes, "mixed6d")
        self.mixed6e = Mixed6(nodes, "mixed6e")
        self.mixed6f = Mixed6(nodes, "mixed6f")
        self.mixed6g = Mixed6(nodes, "mixed6g")
        self.mixed6h = Mixed6(nodes, "mixed6h")
        self.mixed7a = Mixed7a(nodes, "mixed7a")
        self.mixed7b = Mixed7(nodes, "mixed7b")
        self.mixed7c = Mixed7(nodes, "mixed7c")
        self.mixed7d = Mixed7(nodes, "mixed7d")
        self.pool = AveragePool(nodes["pool"])
        self.fc = Dense(nodes["fc"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1a", self.conv1a(x))  # 149 x 149 x 32
        x = watch("conv2a", self.conv2a(x))  # 147 x 147 x 32
        x = watch("conv2b", self.conv2b(x))  # 147 x 147 x 64
        x = watch("mixed3a", self.mixed3a(x))  # 73 x 73 x 160
        x = watch("mixed4a", self.mixed4a(x))  # 71 x 71 x 192
        x = watch("mixed5a", self.mixed5a(x))  # 35 x 35 x 384
        x = watch("mixed5b", self.mixed5b(x))  # 35 x 35 x 384
        x = watch("mixed5c", self.mixed5c(x))  # 35 x 35 x 384
        x = watch("mixed5d", self.mixed5d(x))  # 35 x 35 x 384
        x = watch("mixed5e", self.mixed5e(x))  # 35 x 35 x 384
        x = watch("mixed6a", self.mixed6a(x))  # 17 x 17 x 1024
        x = watch("mixed6b", self.mixed6b(x))  # 17 x 17 x 1024
        x = watch("mixed6c", self.mixed6c(x))  # 17 x 17 x 1024
        x = watch("mixed6d", self.mixed6d(x))  # 17 x 17 x 1024
        x = watch("mixed6e", self.mixed6e(x))  # 17 x 17 x 1024
        x = watch("mixed6f", self.mixed6f(x))  # 17 x 17 x 1024
        x = watch("mixed6g", self.mixed6g(x))  # 17 x 17 x 1024
        x = watch("mixed6h", self.mixed6h(x))  # 17 x 17 x 1024
        x = watch("mixed7a", self.mixed7a(x))  # 8 x 8 x 1536
        x = watch("mixed7b", self.mixed7b(x))  # 8 x 8 x 1536
        x = watch("mixed7c", self.mixed7c(x))  # 8 x 8 x 1536
        x = watch("mixed7d", self.mixed7d(x))  # 8 x 8 x 1536
        x = watch("pool", self.pool(x))  # 1 x 1 x 1536
        x = watch("fc", self.fc(x, masks.get("fc")))  # num_classes
        return spec.Outputs(x)


class InceptionResNetV2(Network):
    """Inception-ResNet-v2 (Szegedy et al. 2016); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1a = Conv(nodes["conv1a"])
        self.conv2a = Conv(nodes["conv2a"])
        self.conv2b = Conv(nodes["conv2b"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv3b = Conv(nodes["conv3b"])
        self.conv4a = Conv(nodes["conv4a"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.mixed5b = Mixed5(nodes, "mixed5b")
        for i in range(1, 11):
            setattr(self, f"block35_{i}", Block35(nodes, f"block35_{i}"))
        self.mixed6a = Mixed6a(nodes, "mixed6a")
        for i in range(1, 21):
            setattr(self, f"block17_{i}", Block17(nodes, f"block17_{i}"))
        self.mixed7a = ResNetMixed7a(nodes, "mixed7a")
        for i in range(1, 11):
            setattr(self, f"block8_{i}", Block8(nodes, f"block8_{i}"))
        self.conv7b = Conv(nodes["conv7b"])
        self.pool3 = AveragePool(nodes["pool3"])
        self.fc = Dense(nodes["fc"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1a", self.conv1a(x))  # 149 x 149 x 32
        x = watch("conv2a", self.conv2a(x))  # 147 x 147 x 32
        x = watch("conv2b", self.conv2b(x))  # 147 x 147 x 64
        x = watch("pool1", self.pool1(x))  # 73 x 73 x 64
        x = watch("conv3b", self.conv3b(x))  # 73 x 73 x 80
        x = watch("conv4a", self.conv4a(x))  # 71 x 71 x 192
        x = watch("pool2", self.pool2(x))  # 35 x 35 x 192
        x = watch("mixed5b", self.mixed5b(x))  # 35 x 35 x 320
        for i in range(1, 11):
            x = watch(f"block35_{i}", getattr(self, f"block35_{i}")(x))  # 35 x 35 x 320
        x = watch("mixed6a", self.mixed6a(x))  # 17 x 17 x 1088
        for i in range(1, 21):
            x = watch(f"block17_{i}", getattr(self, f"block17_{i}")(x))  # 17 x 17 x 1088
        x = watch("mixed7a", self.mixed7a(x))  # 8 x 8 x 2080
        for i in range(1, 11):
            x = watch(f"block8_{i}", getattr(self, f"block8_{i}")(x))  # 8 x 8 x 2080
        x = watch("conv7b", self.conv7b(x))  # 8 x 8 x 1536
        x = watch("pool3", self.pool3(x))  # 1 x 1 x 1536
        x = watch("fc", self.fc(x, masks.get("fc")))  # num_classes
        return spec.Outputs(x)
