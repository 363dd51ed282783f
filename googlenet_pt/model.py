"""GoogLeNet as PyTorch modules. Memory layout (N, C, H, W); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec
from googlenet_pt.network import Dropout, Layer, Network, max_pool
from spec.googlenet import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL


class Conv(nn.Conv2d):
    """Convolution, then batch norm where the preset has it, then ReLU unless told otherwise."""

    def __init__(
        self, config: spec.Config, into: int, out: int, kernel: int, *, stride: int = 1, pad: int = 0, relu: bool = True
    ) -> None:
        norm = config.batch_norm
        super().__init__(into, out, kernel, stride, pad, bias=norm is None)
        self.norm = nn.BatchNorm2d(out, eps=norm.epsilon, momentum=norm.momentum) if norm else None
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        # In the memory that it has: a training step at 96 pixels is 1.2 times as fast.
        return F.relu(x, inplace=True) if self.relu else x


class Inception(nn.Module):
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

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch5x5(self.branch5x5_reduce(x)),
                self.pool_proj(max_pool(x, BRANCH_POOL)),
            ],
            dim=1,
        )


class AuxHead(nn.Module):
    """A classifier on an early stage, used in training only."""

    def __init__(self, config: spec.GoogLeNetConfig, into: int) -> None:
        super().__init__()
        self.config = config
        self.conv = Conv(config, into, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = Dropout(config.aux_dropout)
        self.fc2 = nn.Linear(1024, config.num_classes)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        if self.config.aux_adaptive:
            x = F.adaptive_avg_pool2d(x, 4)  # 4 x 4 x channels
        else:
            x = F.avg_pool2d(x, AUX_POOL_KERNEL, AUX_POOL_STRIDE)  # 4 x 4 x channels
        x = self.conv(x)  # 4 x 4 x 128
        x = torch.flatten(x, 1)  # 2048, in the order (C, H, W)
        x = F.relu(self.fc1(x))
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
        self.fc = nn.Linear(row("inception5b").out_channels, config.num_classes)

    def layers(self, masks: Mapping[str, Tensor] | None = None) -> list[tuple[str, Layer]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        config, masks = self.config, masks or {}
        pool, pool4 = partial(max_pool, pool=config.pool), partial(max_pool, pool=config.pool4)
        lrn, aux = self.lrn if config.lrn else None, config.aux
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
            ("aux1", partial(self.aux1, kept=masks.get("aux1")) if aux else None),  # num_classes
            ("inception4b", self.inception4b),  # 14 x 14 x 512
            ("inception4c", self.inception4c),  # 14 x 14 x 512
            ("inception4d", self.inception4d),  # 14 x 14 x 528
            ("aux2", partial(self.aux2, kept=masks.get("aux2")) if aux else None),  # num_classes
            ("inception4e", self.inception4e),  # 14 x 14 x 832
            ("pool4", pool4),  # 7 x 7 x 832
            ("inception5a", self.inception5a),  # 7 x 7 x 832
            ("inception5b", self.inception5b),  # 7 x 7 x 1024
            ("pool5", self.head_pool),  # 1 x 1 x 1024
            ("fc", partial(self.classify, kept=masks.get("fc"))),  # num_classes
        ]
        return [(name, layer) for name, layer in layers if layer is not None]

    def lrn(self, x: Tensor) -> Tensor:
        """Local response normalization; PyTorch divides alpha by the size as Caffe does."""
        lrn = self.config.lrn
        return F.local_response_norm(x, lrn.size, lrn.alpha, lrn.beta, lrn.k)

    def head_pool(self, x: Tensor) -> Tensor:
        """The average before the classifier: the whole map, or one window of `head_pool` pixels."""
        side = self.config.head_pool
        return F.adaptive_avg_pool2d(x, 1) if side is None else F.avg_pool2d(x, side)

    def classify(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Dropout and the dense layer on the averaged map."""
        return self.fc(self.dropout(torch.flatten(x, 1), kept))
