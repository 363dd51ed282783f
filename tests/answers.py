"""Answers to the exercises: for each a right one and wrong ones, in every framework that it takes.

A wrong answer is the right one with a text in it replaced; beside it stands what has to be said of it, and nothing else
may be. The solutions are here, and in no file that is installed.
"""

from __future__ import annotations

from typing import NamedTuple


class Wrong(NamedTuple):
    """A mistake, and the findings that it makes: their places and texts."""

    old: str
    new: str
    said: tuple[tuple[str, str], ...]


class Answers(NamedTuple):
    """A right file, and mistakes in it."""

    right: str
    wrong: tuple[Wrong, ...]


_NOT_ASKED = " is not what is asked for"
_MISSING = "something is missing here"

ANSWERS: dict[tuple[str, str], Answers] = {}  # by exercise and framework

ANSWERS["port-the-stem", "pt"] = Answers(
    """
from torch import nn

Stem = nn.Sequential(
    nn.Conv2d(1, 64, 7, stride=2, padding=3), nn.ReLU(),
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.Conv2d(64, 64, 1), nn.ReLU(),
    nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(),
    nn.MaxPool2d(3, stride=2, padding=1),
)
""",
    (
        Wrong(
            "nn.MaxPool2d(3, stride=2, padding=1),\n    nn",
            "nn.MaxPool2d(3, stride=2, ceil_mode=True),\n    nn",
            (("pool1", "3 x 3 max pool, stride 2, rounded up" + _NOT_ASKED),),
        ),
        Wrong("nn.Conv2d(64, 64, 1), nn.ReLU()", "nn.Conv2d(64, 64, 1)", (("conv2_reduce", _MISSING),)),
        Wrong(
            "192, 3, padding=1",
            "192, 3",
            (
                ("the whole", "it puts out 192 x 11 x 11, and 192 x 12 x 12 is asked for"),
                ("conv2", "padding 0" + _NOT_ASKED),
            ),
        ),
    ),
)
ANSWERS["port-the-stem", "mx"] = Answers(
    """
from mxnet.gluon import nn

def Stem():
    net = nn.HybridSequential()
    net.add(
        nn.Conv2D(64, 7, strides=2, padding=3, activation="relu"),
        nn.MaxPool2D(3, strides=2, padding=1),
        nn.Conv2D(64, 1, activation="relu"),
        nn.Conv2D(192, 3, padding=1, activation="relu"),
        nn.MaxPool2D(3, strides=2, padding=1),
    )
    return net
""",
    (
        Wrong('nn.Conv2D(64, 1, activation="relu")', "nn.Conv2D(64, 1)", (("conv2_reduce", _MISSING),)),
        Wrong(
            "nn.MaxPool2D(3, strides=2, padding=1),\n    )",
            "nn.MaxPool2D(3, strides=2, ceil_mode=True),\n    )",
            (("pool2", "3 x 3 max pool, stride 2, rounded up" + _NOT_ASKED),),
        ),
    ),
)
ANSWERS["port-the-stem", "jax"] = Answers(
    """
from flax import nnx

class Stem(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 64, (7, 7), strides=2, padding=3, rngs=rngs)
        self.reduce = nnx.Conv(64, 64, (1, 1), rngs=rngs)
        self.conv2 = nnx.Conv(64, 192, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x):
        pad = ((1, 1), (1, 1))
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (3, 3), (2, 2), pad)
        x = nnx.relu(self.conv2(nnx.relu(self.reduce(x))))
        return nnx.max_pool(x, (3, 3), (2, 2), pad)
""",
    (
        Wrong("strides=2, padding=3", "strides=2", (("conv1", "padding (2, 3)" + _NOT_ASKED),)),
        Wrong("nnx.relu(self.reduce(x))", "self.reduce(x)", (("conv2_reduce", _MISSING),)),
    ),
)
