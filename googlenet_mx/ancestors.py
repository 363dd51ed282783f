"""GoogLeNet's ancestors as Gluon blocks. Arrays are (N, C, H, W); attribute names are the canonical names.

Source: each preset's own. Each layer takes its numbers from the table of its preset, `spec/ancestors.py`.
"""

from __future__ import annotations

from typing import Any

from mxnet.ndarray import NDArray

import spec
from googlenet_mx.layers import AveragePool, Conv, Dense, MaxPool
from googlenet_mx.network import Masks, Network, Watch, ignore


class LeNet(Network):
    """LeNet (LeCun et al. 1998) as the textbooks have it; the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1 = Conv(nodes["conv1"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv2 = Conv(nodes["conv2"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.fc3 = Dense(nodes["fc3"])
        self.fc4 = Dense(nodes["fc4"])
        self.fc5 = Dense(nodes["fc5"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1", self.conv1(x))  # 24 x 24 x 6
        x = watch("pool1", self.pool1(x))  # 12 x 12 x 6
        x = watch("conv2", self.conv2(x))  # 8 x 8 x 16
        x = watch("pool2", self.pool2(x))  # 4 x 4 x 16
        x = watch("fc3", self.fc3(x))  # 120
        x = watch("fc4", self.fc4(x))  # 84
        x = watch("fc5", self.fc5(x))  # num_classes
        return spec.Outputs(x)


class AlexNet(Network):
    """AlexNet (Krizhevsky et al. 2012) as the textbooks have it; the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1 = Conv(nodes["conv1"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv2 = Conv(nodes["conv2"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.conv3 = Conv(nodes["conv3"])
        self.conv4 = Conv(nodes["conv4"])
        self.conv5 = Conv(nodes["conv5"])
        self.pool5 = MaxPool(nodes["pool5"])
        self.fc6 = Dense(nodes["fc6"])
        self.fc7 = Dense(nodes["fc7"])
        self.fc8 = Dense(nodes["fc8"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1", self.conv1(x))  # 54 x 54 x 96
        x = watch("pool1", self.pool1(x))  # 26 x 26 x 96
        x = watch("conv2", self.conv2(x))  # 26 x 26 x 256
        x = watch("pool2", self.pool2(x))  # 12 x 12 x 256
        x = watch("conv3", self.conv3(x))  # 12 x 12 x 384
        x = watch("conv4", self.conv4(x))  # 12 x 12 x 384
        x = watch("conv5", self.conv5(x))  # 12 x 12 x 256
        x = watch("pool5", self.pool5(x))  # 5 x 5 x 256
        x = watch("fc6", self.fc6(x))  # 4096
        x = watch("fc7", self.fc7(x, masks.get("fc7")))  # 4096
        x = watch("fc8", self.fc8(x, masks.get("fc8")))  # num_classes
        return spec.Outputs(x)


class VGG(Network):
    """VGG-11 (Simonyan and Zisserman 2015, configuration A); the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1_1 = Conv(nodes["conv1_1"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv2_1 = Conv(nodes["conv2_1"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.conv3_1 = Conv(nodes["conv3_1"])
        self.conv3_2 = Conv(nodes["conv3_2"])
        self.pool3 = MaxPool(nodes["pool3"])
        self.conv4_1 = Conv(nodes["conv4_1"])
        self.conv4_2 = Conv(nodes["conv4_2"])
        self.pool4 = MaxPool(nodes["pool4"])
        self.conv5_1 = Conv(nodes["conv5_1"])
        self.conv5_2 = Conv(nodes["conv5_2"])
        self.pool5 = MaxPool(nodes["pool5"])
        self.fc6 = Dense(nodes["fc6"])
        self.fc7 = Dense(nodes["fc7"])
        self.fc8 = Dense(nodes["fc8"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1_1", self.conv1_1(x))  # 224 x 224 x 64
        x = watch("pool1", self.pool1(x))  # 112 x 112 x 64
        x = watch("conv2_1", self.conv2_1(x))  # 112 x 112 x 128
        x = watch("pool2", self.pool2(x))  # 56 x 56 x 128
        x = watch("conv3_1", self.conv3_1(x))  # 56 x 56 x 256
        x = watch("conv3_2", self.conv3_2(x))  # 56 x 56 x 256
        x = watch("pool3", self.pool3(x))  # 28 x 28 x 256
        x = watch("conv4_1", self.conv4_1(x))  # 28 x 28 x 512
        x = watch("conv4_2", self.conv4_2(x))  # 28 x 28 x 512
        x = watch("pool4", self.pool4(x))  # 14 x 14 x 512
        x = watch("conv5_1", self.conv5_1(x))  # 14 x 14 x 512
        x = watch("conv5_2", self.conv5_2(x))  # 14 x 14 x 512
        x = watch("pool5", self.pool5(x))  # 7 x 7 x 512
        x = watch("fc6", self.fc6(x))  # 4096
        x = watch("fc7", self.fc7(x, masks.get("fc7")))  # 4096
        x = watch("fc8", self.fc8(x, masks.get("fc8")))  # num_classes
        return spec.Outputs(x)


class NiN(Network):
    """Network in Network (Lin et al. 2014) as the textbooks have it; the settings are those of `Network.finish`."""

    def __init__(self, config: spec.Config, **settings: Any) -> None:
        super().__init__(config)
        nodes = spec.nodes(config)
        self.conv1 = Conv(nodes["conv1"])
        self.conv1_mlp1 = Conv(nodes["conv1_mlp1"])
        self.conv1_mlp2 = Conv(nodes["conv1_mlp2"])
        self.pool1 = MaxPool(nodes["pool1"])
        self.conv2 = Conv(nodes["conv2"])
        self.conv2_mlp1 = Conv(nodes["conv2_mlp1"])
        self.conv2_mlp2 = Conv(nodes["conv2_mlp2"])
        self.pool2 = MaxPool(nodes["pool2"])
        self.conv3 = Conv(nodes["conv3"])
        self.conv3_mlp1 = Conv(nodes["conv3_mlp1"])
        self.conv3_mlp2 = Conv(nodes["conv3_mlp2"])
        self.pool3 = MaxPool(nodes["pool3"])
        self.conv4 = Conv(nodes["conv4"])
        self.conv4_mlp1 = Conv(nodes["conv4_mlp1"])
        self.conv4_mlp2 = Conv(nodes["conv4_mlp2"])
        self.pool4 = AveragePool(nodes["pool4"])
        self.finish(**settings)

    def forward(self, x: NDArray, masks: Masks, watch: Watch = ignore) -> spec.Outputs:
        x = watch("conv1", self.conv1(x))  # 54 x 54 x 96
        x = watch("conv1_mlp1", self.conv1_mlp1(x))  # 54 x 54 x 96
        x = watch("conv1_mlp2", self.conv1_mlp2(x))  # 54 x 54 x 96
        x = watch("pool1", self.pool1(x))  # 26 x 26 x 96
        x = watch("conv2", self.conv2(x))  # 26 x 26 x 256
        x = watch("conv2_mlp1", self.conv2_mlp1(x))  # 26 x 26 x 256
        x = watch("conv2_mlp2", self.conv2_mlp2(x))  # 26 x 26 x 256
        x = watch("pool2", self.pool2(x))  # 12 x 12 x 256
        x = watch("conv3", self.conv3(x))  # 12 x 12 x 384
        x = watch("conv3_mlp1", self.conv3_mlp1(x))  # 12 x 12 x 384
        x = watch("conv3_mlp2", self.conv3_mlp2(x))  # 12 x 12 x 384
        x = watch("pool3", self.pool3(x))  # 5 x 5 x 384
        x = watch("conv4", self.conv4(x, masks.get("conv4")))  # 5 x 5 x num_classes
        x = watch("conv4_mlp1", self.conv4_mlp1(x))  # 5 x 5 x num_classes
        x = watch("conv4_mlp2", self.conv4_mlp2(x))  # 5 x 5 x num_classes
        x = watch("pool4", self.pool4(x))  # num_classes
        return spec.Outputs(x)
