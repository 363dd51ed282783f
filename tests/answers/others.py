"""An answer in Equinox, and one in Keras."""

from __future__ import annotations

from answers.answer import Table, add, differs, missing

ANSWERS: Table = {}

add(
    ANSWERS,
    "port-the-stem",
    "equinox",
    """
import equinox as eqx
import jax
from equinox import nn

class Stem(eqx.Module):
    layers: list

    def __init__(self, key):
        one, two, three = jax.random.split(key, 3)
        relu = jax.nn.relu
        self.layers = [
            nn.Conv2d(1, 64, 7, 2, 3, key=one), relu, nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(64, 64, 1, key=two), relu,
            nn.Conv2d(64, 192, 3, padding=1, key=three), relu, nn.MaxPool2d(3, 2, 1),
        ]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
""",
    ("key=two), relu,", "key=two),", missing("conv2_reduce")),
    (
        "nn.MaxPool2d(3, 2, 1)",
        "nn.MaxPool2d(3, 2, use_ceil=True)",
        differs("pool2", "padding 0"),
    ),
)
add(
    ANSWERS,
    "port-the-stem",
    "keras",
    """
import keras
from keras import layers

def Stem():
    def same(kernel):
        return layers.ZeroPadding2D(kernel // 2)

    return keras.Sequential([
        keras.Input((None, None, 1)),
        same(7), layers.Conv2D(64, 7, 2, activation="relu"), same(3), layers.MaxPooling2D(3, 2),
        layers.Conv2D(64, 1, activation="relu"), layers.Conv2D(192, 3, padding="same", activation="relu"),
        layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2),
    ])
""",
    (
        'same(7), layers.Conv2D(64, 7, 2, activation="relu")',
        'layers.Conv2D(64, 7, 2, padding="same", activation="relu")',
        differs("conv1", "padding (2, 3)"),
    ),
    ('layers.Conv2D(64, 1, activation="relu")', "layers.Conv2D(64, 1)", missing("conv2_reduce")),
)
