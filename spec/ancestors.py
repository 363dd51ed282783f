"""GoogLeNet's textbook ancestors as data: LeNet, AlexNet, VGG-11 and NiN.

Source: Zhang et al., Dive into Deep Learning, chapters 7.6, 8.1 to 8.3 and 8.5; each preset names its own source.
"""

from __future__ import annotations

from dataclasses import replace

from spec.network import CLASSES, BatchNorm, Config, Conv, Dense, GlobalAverage, MaxPool, Operation

_LENET: dict[str, Operation] = {
    "conv1": Conv(6, 5, activation="sigmoid"),  # 24 x 24 x 6
    "pool1": MaxPool(2, stride=2),  # 12 x 12 x 6
    "conv2": Conv(16, 5, activation="sigmoid"),  # 8 x 8 x 16
    "pool2": MaxPool(2, stride=2),  # 4 x 4 x 16
    "fc3": Dense(120, norm=True, activation="sigmoid"),
    "fc4": Dense(84, norm=True, activation="sigmoid"),
    "fc5": Dense(CLASSES, activation=None),
}
_ALEXNET: dict[str, Operation] = {
    "conv1": Conv(96, 11, stride=4, pad=1),  # 54 x 54 x 96
    "pool1": MaxPool(3, stride=2),  # 26 x 26 x 96
    "conv2": Conv(256, 5, pad=2),  # 26 x 26 x 256
    "pool2": MaxPool(3, stride=2),  # 12 x 12 x 256
    "conv3": Conv(384, 3, pad=1),  # 12 x 12 x 384
    "conv4": Conv(384, 3, pad=1),  # 12 x 12 x 384
    "conv5": Conv(256, 3, pad=1),  # 12 x 12 x 256
    "pool5": MaxPool(3, stride=2),  # 5 x 5 x 256
    "fc6": Dense(4096),
    "fc7": Dense(4096, drop_input=True),
    "fc8": Dense(CLASSES, activation=None, drop_input=True),
}


def _vgg11(width: int) -> dict[str, Operation]:
    """VGG's configuration A; `width` is the number of its first convolution's channels."""
    return {
        "conv1_1": Conv(width, 3, pad=1),  # 224 x 224 x 64
        "pool1": MaxPool(2, stride=2),  # 112 x 112 x 64
        "conv2_1": Conv(2 * width, 3, pad=1),  # 112 x 112 x 128
        "pool2": MaxPool(2, stride=2),  # 56 x 56 x 128
        "conv3_1": Conv(4 * width, 3, pad=1),  # 56 x 56 x 256
        "conv3_2": Conv(4 * width, 3, pad=1),  # 56 x 56 x 256
        "pool3": MaxPool(2, stride=2),  # 28 x 28 x 256
        "conv4_1": Conv(8 * width, 3, pad=1),  # 28 x 28 x 512
        "conv4_2": Conv(8 * width, 3, pad=1),  # 28 x 28 x 512
        "pool4": MaxPool(2, stride=2),  # 14 x 14 x 512
        "conv5_1": Conv(8 * width, 3, pad=1),  # 14 x 14 x 512
        "conv5_2": Conv(8 * width, 3, pad=1),  # 14 x 14 x 512
        "pool5": MaxPool(2, stride=2),  # 7 x 7 x 512
        "fc6": Dense(4096),
        "fc7": Dense(4096, drop_input=True),
        "fc8": Dense(CLASSES, activation=None, drop_input=True),
    }


# A convolution, and a small network of two 1x1 convolutions that slides over its map (Lin et al. 2014, 3.1).
_NIN: dict[str, Operation] = {
    "conv1": Conv(96, 11, stride=4),  # 54 x 54 x 96
    "conv1_mlp1": Conv(96),
    "conv1_mlp2": Conv(96),
    "pool1": MaxPool(3, stride=2),  # 26 x 26 x 96
    "conv2": Conv(256, 5, pad=2),  # 26 x 26 x 256
    "conv2_mlp1": Conv(256),
    "conv2_mlp2": Conv(256),
    "pool2": MaxPool(3, stride=2),  # 12 x 12 x 256
    "conv3": Conv(384, 3, pad=1),  # 12 x 12 x 384
    "conv3_mlp1": Conv(384),
    "conv3_mlp2": Conv(384),
    "pool3": MaxPool(3, stride=2),  # 5 x 5 x 384
    "conv4": Conv(CLASSES, 3, pad=1, drop_input=True),  # 5 x 5 x num_classes
    "conv4_mlp1": Conv(CLASSES),
    "conv4_mlp2": Conv(CLASSES),
    "pool4": GlobalAverage(),
}

_LIBRARY = BatchNorm(epsilon=1e-5, after_bias=True)
_NOTEBOOK = replace(_LIBRARY, momentum=1.0, unbiased=False)


def _lenet(preset: str, source: str, batch_norm: BatchNorm | None = None) -> Config:
    return Config(
        preset=preset,
        family="LeNet",
        source=source,
        in_channels=1,
        num_classes=10,
        input_size=28,
        batch_norm=batch_norm,
        table=tuple(_LENET.items()),
    )


def _large(preset: str, family: str, source: str, stages: dict[str, Operation]) -> Config:
    return Config(
        preset=preset,
        family=family,
        source=source,
        in_channels=1,
        num_classes=10,
        input_size=224,
        dropout=0.5,
        table=tuple(stages.items()),
    )


ANCESTORS = (
    _lenet("lenet", "Dive into Deep Learning, first Chinese edition: no padding, max pools, sigmoid"),
    _lenet("lenet-bn", "a published MXNet notebook after d2lzh, with the library's batch norm", _LIBRARY),
    _lenet(
        "lenet-bn-scratch",
        "a published MXNet notebook after d2lzh: batch norm written out, running statistics those of the last batch",
        _NOTEBOOK,
    ),
    _lenet(
        "lenet-bn-frozen",
        "a published MXNet notebook after d2lzh: batch norm whose scale and shift are not learned",
        replace(_LIBRARY, scale=False, shift=False),
    ),
    _large(
        "alexnet",
        "AlexNet",
        "Dive into Deep Learning, chapter 8.1, PyTorch and JAX tabs: padding 1 at first, no LRN",
        _ALEXNET,
    ),
    _large(
        "vgg11",
        "VGG",
        "Dive into Deep Learning, chapter 8.2: configuration A of Simonyan and Zisserman",
        _vgg11(64),
    ),
    _large("vgg11-narrow", "VGG", "a published MXNet notebook after d2lzh: one eighth of the channels", _vgg11(8)),
    _large("nin", "NiN", "Dive into Deep Learning, chapter 8.3, after Lin et al. 2014", _NIN),
)
