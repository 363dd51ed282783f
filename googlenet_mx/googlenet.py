"""GoogLeNet as Gluon blocks. Arrays are (N, C, H, W); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1. Each layer takes its numbers from the table of its preset, `spec/googlenet.py`.
Comments give each stage's output for images of 224 pixels, height x width x channels.
"""

from __future__ import annotations

from typing import Any

from mxnet.gluon import HybridBlock
from mxnet.ndarray import NDArray

import spec
from googlenet_mx.layers import LRN, AveragePool, Conv, Dense, MaxPool
from googlenet_mx.network import Masks, Network, Watch, ignore


class Inception(HybridBlock):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, nodes: spec.Nodes, name: str) -> None:
        super().__init__()
        self.branch1x1 = Conv(nodes[f"{name}.branch1x1"])
        self.branch3x3_reduce = Conv(nodes[f"{name}.branch3x3_reduce"])
        self.branch3x3 = Conv(nodes[f"{name}.branch3x3"])
        self.branch5x5_reduce = Conv(nodes[f"{name}.branch5x5_reduce"])
        self.branch5x5 = Conv(nodes[f"{name}.branch5x5"])
        self.pool = MaxPool(nodes[f"{name}.pool"])
        self.pool_proj = Conv(nodes[f"{name}.pool_proj"])

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch5x5(self.branch5x5_reduce(x)),
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
        self.fc1 = Dense(nodes[f"{name}.fc1"])
        self.fc2 = Dense(nodes[f"{name}.fc2"])

    def hybrid_forward(self, F, x, mask=None):
        x = self.pool(x)  # 4 x 4 x channels
        x = self.conv(x)  # 4 x 4 x 128
        x = self.fc1(x)  # 1024
        return self.fc2(x, mask)


class GoogLeNet(Network):
    """GoogLeNet (Szegedy et al. 2015, Table 1); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1 = Conv(nodes["conv1"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.norm1 = LRN(nodes["norm1"]) if "norm1" in nodes else None
        self.conv2_reduce = Conv(nodes["conv2_reduce"])
        self.conv2 = Conv(nodes["conv2"])
        self.norm2 = LRN(nodes["norm2"]) if "norm2" in nodes else None
        self.pool2 = MaxPool(nodes["pool2"])
        self.inception3a = Inception(nodes, "inception3a")
        self.inception3b = Inception(nodes, "inception3b")
        self.pool3 = MaxPool(nodes["pool3"])
        self.inception4a = Inception(nodes, "inception4a")
        self.aux1 = AuxHead(nodes, "aux1") if config.aux else None
        self.inception4b = Inception(nodes, "inception4b")
        self.inception4c = Inception(nodes, "inception4c")
        self.inception4d = Inception(nodes, "inception4d")
        self.aux2 = AuxHead(nodes, "aux2") if config.aux else None
        self.inception4e = Inception(nodes, "inception4e")
        self.pool4 = MaxPool(nodes["pool4"])
        self.inception5a = Inception(nodes, "inception5a")
        self.inception5b = Inception(nodes, "inception5b")
        self.pool5 = AveragePool(nodes["pool5"])
        self.fc = Dense(nodes["fc"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        heads = {}
        x = watch("conv1", self.conv1(x))  # 112 x 112 x 64
        x = watch("pool1", self.pool1(x))  # 56 x 56 x 64
        if self.norm1 is not None:
            x = watch("norm1", self.norm1(x))  # 56 x 56 x 64
        x = watch("conv2_reduce", self.conv2_reduce(x))  # 56 x 56 x 64
        x = watch("conv2", self.conv2(x))  # 56 x 56 x 192
        if self.norm2 is not None:
            x = watch("norm2", self.norm2(x))  # 56 x 56 x 192
        x = watch("pool2", self.pool2(x))  # 28 x 28 x 192
        x = watch("inception3a", self.inception3a(x))  # 28 x 28 x 256
        x = watch("inception3b", self.inception3b(x))  # 28 x 28 x 480
        x = watch("pool3", self.pool3(x))  # 14 x 14 x 480
        x = watch("inception4a", self.inception4a(x))  # 14 x 14 x 512
        if self.runs_heads(watch):
            heads["aux1"] = watch("aux1", self.aux1(x, masks.get("aux1")))  # num_classes
        x = watch("inception4b", self.inception4b(x))  # 14 x 14 x 512
        x = watch("inception4c", self.inception4c(x))  # 14 x 14 x 512
        x = watch("inception4d", self.inception4d(x))  # 14 x 14 x 528
        if self.runs_heads(watch):
            heads["aux2"] = watch("aux2", self.aux2(x, masks.get("aux2")))  # num_classes
        x = watch("inception4e", self.inception4e(x))  # 14 x 14 x 832
        x = watch("pool4", self.pool4(x))  # 7 x 7 x 832
        x = watch("inception5a", self.inception5a(x))  # 7 x 7 x 832
        x = watch("inception5b", self.inception5b(x))  # 7 x 7 x 1024
        x = watch("pool5", self.pool5(x))  # 1 x 1 x 1024
        x = watch("fc", self.fc(x, masks.get("fc")))  # num_classes
        return spec.Outputs(x, heads)
