"""GoogLeNet as Gluon hybrid blocks. Memory layout (N, C, H, W); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mxnet.gluon import HybridBlock, nn

import spec
from googlenet_mx.network import BatchNorm, Dropout, Network, max_pool, relu
from spec.googlenet import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL


class Conv(nn.Conv2D):
    """Convolution, then batch norm where the preset has it, then ReLU unless told otherwise."""

    def __init__(
        self, config: spec.Config, into: int, out: int, kernel: int, *, stride: int = 1, pad: int = 0, relu: bool = True
    ) -> None:
        norm = config.batch_norm
        super().__init__(out, kernel, stride, pad, in_channels=into, use_bias=norm is None)
        self.norm = BatchNorm(out, norm) if norm else None
        self.relu = relu

    def hybrid_forward(self, F, x, weight, bias=None):
        x = super().hybrid_forward(F, x, weight, bias)
        if self.norm is not None:
            x = self.norm(x)
        return relu(F, x) if self.relu else x


class Inception(HybridBlock):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, config: spec.GoogLeNetConfig, row: spec.Inception) -> None:
        super().__init__()
        conv, into, k = partial(Conv, config), row.in_channels, config.branch5x5_kernel
        self.branch1x1 = conv(into, row.branch1x1, 1)
        self.branch3x3_reduce = conv(into, row.branch3x3_reduce, 1)
        self.branch3x3 = conv(row.branch3x3_reduce, row.branch3x3, 3, pad=1)
        self.branch5x5_reduce = conv(into, row.branch5x5_reduce, 1)
        self.branch5x5 = conv(row.branch5x5_reduce, row.branch5x5, k, pad=k // 2)
        self.pool_proj = conv(into, row.pool_proj, 1)

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch5x5(self.branch5x5_reduce(x)),
                self.pool_proj(max_pool(F, x, BRANCH_POOL)),
            ],
            dim=1,
        )


class AuxHead(HybridBlock):
    """A classifier on an early stage, used in training only."""

    def __init__(self, config: spec.GoogLeNetConfig, into: int) -> None:
        super().__init__()
        self.config = config
        self.conv = Conv(config, into, 128, 1)
        self.fc1 = nn.Dense(1024, in_units=128 * 4 * 4)
        self.dropout = Dropout(config.aux_dropout)
        self.fc2 = nn.Dense(config.num_classes, in_units=1024)

    def hybrid_forward(self, F, x, kept=None):
        if self.config.aux_adaptive:
            x = F.contrib.AdaptiveAvgPooling2D(x, output_size=4)  # 4 x 4 x channels
        else:
            kernel, stride = (AUX_POOL_KERNEL,) * 2, (AUX_POOL_STRIDE,) * 2
            x = F.Pooling(x, kernel=kernel, stride=stride, pool_type="avg")  # 4 x 4 x channels
        x = self.conv(x)  # 4 x 4 x 128
        x = F.flatten(x)  # 2048, in the order (C, H, W)
        x = relu(F, self.fc1(x))
        return self.fc2(self.dropout(x, kept))


class GoogLeNet(Network):
    """The network of a `spec.GoogLeNetConfig`; the rest is as `Network` says."""

    config: spec.GoogLeNetConfig
    takes = spec.GoogLeNetConfig

    def add_layers(self) -> None:
        """Table 1 and the stem, the heads and the classifier around it."""
        config = self.config
        conv, inception, head = partial(Conv, config), partial(Inception, config), partial(AuxHead, config)
        row, relu = config.inception, config.stem_relu
        self.conv1 = conv(config.in_channels, 64, 7, stride=2, pad=3)
        self.conv2_reduce = conv(64, 64, 1, relu=relu)
        self.conv2 = conv(64, 192, 3, pad=1, relu=relu)
        self.inception3a = inception(row("inception3a"))
        self.inception3b = inception(row("inception3b"))
        self.inception4a = inception(row("inception4a"))
        self.aux1 = head(row("inception4a").out_channels) if config.aux else None
        self.inception4b = inception(row("inception4b"))
        self.inception4c = inception(row("inception4c"))
        self.inception4d = inception(row("inception4d"))
        self.aux2 = head(row("inception4d").out_channels) if config.aux else None
        self.inception4e = inception(row("inception4e"))
        self.inception5a = inception(row("inception5a"))
        self.inception5b = inception(row("inception5b"))
        self.dropout = Dropout(config.dropout)
        self.fc = nn.Dense(config.num_classes, in_units=row("inception5b").out_channels)

    def layers(self, F, masks: Mapping | None = None) -> list[tuple[str, Callable]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        config, masks = self.config, masks or {}
        pool, pool4 = partial(max_pool, F, pool=config.pool), partial(max_pool, F, pool=config.pool4)
        lrn, aux = partial(self.lrn, F) if config.lrn else None, config.aux
        layers = [
            ("conv1", self.conv1),  # 112 x 112 x 64
            ("pool1", pool),  # 56 x 56 x 64
            ("norm1", lrn),  # 56 x 56 x 64
            ("conv2_reduce", self.conv2_reduce),  # 56 x 56 x 64
            ("conv2", self.conv2),  # 56 x 56 x 192
            ("norm2", lrn),  # 56 x 56 x 192
            ("pool2", pool),  # 28 x 28 x 192
            ("inception3a", self.inception3a),  # 28 x 28 x 256
            ("inception3b", self.inception3b),  # 28 x 28 x 480
            ("pool3", pool),  # 14 x 14 x 480
            ("inception4a", self.inception4a),  # 14 x 14 x 512
            ("aux1", (lambda x: self.aux1(x, masks.get("aux1"))) if aux else None),  # num_classes
            ("inception4b", self.inception4b),  # 14 x 14 x 512
            ("inception4c", self.inception4c),  # 14 x 14 x 512
            ("inception4d", self.inception4d),  # 14 x 14 x 528
            ("aux2", (lambda x: self.aux2(x, masks.get("aux2"))) if aux else None),  # num_classes
            ("inception4e", self.inception4e),  # 14 x 14 x 832
            ("pool4", pool4),  # 7 x 7 x 832
            ("inception5a", self.inception5a),  # 7 x 7 x 832
            ("inception5b", self.inception5b),  # 7 x 7 x 1024
            ("pool5", partial(self.head_pool, F)),  # 1 x 1 x 1024
            ("fc", partial(self.classify, F, kept=masks.get("fc"))),  # num_classes
        ]
        return [(name, layer) for name, layer in layers if layer is not None]

    def lrn(self, F, x):
        """Local response normalization, written out: MXNet's operator cannot compute in float64."""
        lrn = self.config.lrn
        channels = F.reshape(x**2, shape=(0, -4, 1, -1, -3))  # N x 1 x C x HW: the channels as the rows of a map
        mean = F.Pooling(channels, kernel=(lrn.size, 1), pad=(lrn.size // 2, 0), pool_type="avg")
        return x * (lrn.k + lrn.alpha * F.reshape_like(mean, x)) ** -lrn.beta

    def head_pool(self, F, x):
        """The average before the classifier: the whole map, or one window of `head_pool` pixels."""
        side = self.config.head_pool
        if side is None:
            return F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg")
        return F.Pooling(x, kernel=(side, side), stride=(side, side), pool_type="avg")

    def classify(self, F, x, kept=None):
        """Dropout and the dense layer on the averaged map."""
        return self.fc(self.dropout(F.flatten(x), kept))
