"""The small GoogLeNet of `stranger_table` as a stranger writes it in Keras, with batch norm and without heads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from stranger_table import WIDTHS

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("KERAS_HOME", str(Path(tempfile.gettempdir(), "keras")))  # it writes there when it is imported

import keras
from keras import layers


def conv(x: Any, channels: int, kernel: int, mistake: str, stride: int = 1) -> Any:
    """Convolution, batch norm and ReLU."""
    if stride == 2 and mistake != "same-conv":
        x = layers.ZeroPadding2D(kernel // 2)(x)
    padding = "valid" if stride == 2 and mistake != "same-conv" else "same"
    x = layers.Conv2D(channels, kernel, stride, padding=padding, use_bias=False)(x)
    if mistake != "no-norm" or stride != 2:
        x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation("relu")(x)


def pool(x: Any) -> Any:
    """3 x 3 maxima with stride 2: at an even size SAME is rounding up."""
    return layers.MaxPooling2D(3, 2, padding="same")(x)


def stranger(mistake: str = "") -> Any:
    """The network; `mistake` names one."""
    images = x = keras.Input((None, None, 3))
    x = pool(conv(x, 8, 7, mistake, 2))
    x = pool(conv(conv(x, 8, 1, mistake), 12, 3, mistake))
    for one, reduce3, three, reduce5, five, proj in WIDTHS.values():
        parts = [
            conv(x, one, 1, mistake),
            conv(conv(x, reduce3, 1, mistake), three, 3, mistake),
            conv(conv(x, reduce5, 1, mistake), five, 5, mistake),
            conv(layers.MaxPooling2D(3, 1, padding="same")(x), proj, 1, mistake),
        ]
        x = layers.Concatenate()([parts[i] for i in ((0, 1, 3, 2) if mistake == "order" else range(4))])
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.4)(x)
    return keras.Model(images, layers.Dense(10)(x))


def normed() -> Any:
    """A convolution, batch norm, dropout and a dense layer."""
    images = keras.Input((None, None, 3))
    x = layers.BatchNormalization(momentum=0.8, name="norm")(layers.Conv2D(4, 3, name="conv")(images))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(10)(x))
