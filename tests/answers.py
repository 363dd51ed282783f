"""Answers to the exercises: for each a right one and wrong ones, in every framework that it takes.

A wrong answer is the right one with a text in it replaced; beside it stands what has to be said of it, and nothing else
may be. The solutions are here, and in no file that is installed.
"""

from __future__ import annotations

from typing import NamedTuple

Said = tuple[tuple[str, str], ...]  # of each finding its place and its text


class Wrong(NamedTuple):
    """A mistake, and the findings that it makes."""

    old: str
    new: str
    said: Said


class Answers(NamedTuple):
    """A right file, and mistakes in it."""

    right: str
    wrong: tuple[Wrong, ...]


ANSWERS: dict[tuple[str, str], Answers] = {}  # by exercise and framework


def _add(name: str, framework: str, right: str, *wrong: tuple[str, str, Said]) -> None:
    ANSWERS[name, framework] = Answers(right, tuple(Wrong(*row) for row in wrong))


def _not(place: str, text: str) -> Said:
    return ((place, f"{text} is not what is asked for"),)


def _missing(place: str) -> Said:
    return ((place, "something is missing here"),)


_ALL = ", ".join(
    f"inception3a.{part}"
    for part in ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")
)

# ------------------------------------------------------------------------------------------------------------ PyTorch

_PT = """
import torch
from torch import nn

def conv(into, out, kernel=1, pad=0, stride=1):
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, pad), nn.ReLU())

class Branches(nn.ModuleList):
    def forward(self, x):
        return torch.cat([branch(x) for branch in self], dim=1)

def inception(into, one, three, five, proj):
    return Branches([
        conv(into, one),
        nn.Sequential(conv(into, three[0]), conv(three[0], three[1], 3, 1)),
        nn.Sequential(conv(into, five[0]), conv(five[0], five[1], 5, 2)),
        nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(into, proj)),
    ])
"""
_PT_NORM = _PT.replace(
    "nn.Conv2d(into, out, kernel, stride, pad), ",
    "nn.Conv2d(into, out, kernel, stride, pad, bias=False), nn.BatchNorm2d(out, eps=1e-3), ",
)

_add(
    "port-the-stem",
    "pt",
    _PT
    + """
Stem = nn.Sequential(
    conv(1, 64, 7, 3, 2),
    nn.MaxPool2d(3, 2, 1),
    nn.Conv2d(64, 64, 1), nn.ReLU(),
    conv(64, 192, 3, 1),
    nn.MaxPool2d(3, 2, padding=1),
)
""",
    (
        "nn.MaxPool2d(3, 2, padding=1)",
        "nn.MaxPool2d(3, 2, ceil_mode=True)",
        _not("pool2", "3 x 3 max pool, stride 2, rounded up"),
    ),
    ("nn.Conv2d(64, 64, 1), nn.ReLU()", "nn.Conv2d(64, 64, 1)", _missing("conv2_reduce")),
    (
        "192, 3, 1)",
        "192, 3)",
        (
            ("the whole", "it puts out 192 x 11 x 11, and 192 x 12 x 12 is asked for"),
            *_not("conv2", "padding 0"),
        ),
    ),
)
_add(
    "port-an-inception-block",
    "pt",
    _PT + "Block = inception(192, 64, (96, 128), (16, 32), 32)\n",
    ("five[1], 5, 2)", "five[1], 3, 1)", _not("inception3a.branch5x5", "kernel 3 x 3, padding 1")),
    (
        "        conv(into, one),\n",
        "        nn.Conv2d(into, one, 1),\n",
        _missing("inception3a.branch1x1"),
    ),
    (
        "torch.cat([branch(x) for branch in self]",
        "torch.cat([self[i](x) for i in (0, 2, 1, 3)]",
        (("inception3a", "its branches are joined in another order"),),
    ),
)
_add(
    "port-the-network",
    "pt",
    _PT
    + """
def GoogLeNet():
    pool = lambda: nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(
        conv(1, 64, 7, 3, 2), pool(), conv(64, 64), conv(64, 192, 3, 1), pool(),
        inception(192, 64, (96, 128), (16, 32), 32), inception(256, 128, (128, 192), (32, 96), 64), pool(),
        inception(480, 192, (96, 208), (16, 48), 64), inception(512, 160, (112, 224), (24, 64), 64),
        inception(512, 128, (128, 256), (24, 64), 64), inception(512, 112, (144, 288), (32, 64), 64),
        inception(528, 256, (160, 320), (32, 128), 128), pool(),
        inception(832, 256, (160, 320), (32, 128), 128), inception(832, 384, (192, 384), (48, 128), 128),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 10),
    )
""",
    ("conv(64, 64),", "nn.Conv2d(64, 64, 1),", _missing("conv2_reduce")),
    ("nn.Flatten(), ", "nn.Flatten(), nn.Dropout(0.4), ", (("fc", "dropout 0.4 is extra"),)),
    (
        "(24, 64), 64), inception(512, 112",
        "(34, 64), 64), inception(512, 112",
        _not("inception4c.branch5x5_reduce", "34 channels"),
    ),
)
_add(
    "port-caffes-stem",
    "pt",
    _PT
    + """
Stem = nn.Sequential(
    conv(3, 64, 7, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5),
    conv(64, 64), conv(64, 192, 3, 1), nn.LocalResponseNorm(5, alpha=1e-4, k=1), nn.MaxPool2d(3, 2, ceil_mode=True),
)
""",
    ("alpha=1e-4, k=1", "alpha=1e-4, k=2", _not("norm2", "local response norm with k 2")),
    (
        "nn.LocalResponseNorm(5, alpha=1e-4, k=1), nn.MaxPool2d(3, 2, ceil_mode=True)",
        "nn.MaxPool2d(3, 2, ceil_mode=True)",
        _missing("norm2"),
    ),
)
_add(
    "batch-norm",
    "pt",
    _PT_NORM + "Block = inception(192, 64, (96, 128), (16, 32), 32)\n",
    (
        "nn.BatchNorm2d(out, eps=1e-3)",
        "nn.BatchNorm2d(out)",
        _not(
            _ALL,
            "epsilon 1e-05",
        ),
    ),
    (
        "eps=1e-3)",
        "eps=1e-3, momentum=0.9)",
        _not(
            _ALL,
            "momentum 0.9",
        ),
    ),
)
_add(
    "factorization",
    "pt",
    _PT_NORM
    + """
ROW, COLUMN = ((1, 7), (0, 3)), ((7, 1), (3, 0))
Mixed = Branches([
    conv(768, 192),
    nn.Sequential(conv(768, 128), conv(128, 128, *ROW), conv(128, 192, *COLUMN)),
    nn.Sequential(
        conv(768, 128), conv(128, 128, *COLUMN), conv(128, 128, *ROW), conv(128, 128, *COLUMN), conv(128, 192, *ROW),
    ),
    nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(768, 192)),
])
""",
    (
        "AvgPool2d(3, 1, 1)",
        "AvgPool2d(3, 1, 1, count_include_pad=False)",
        _not("mixed6b.pool", "padding that does not count"),
    ),
    (
        "conv(128, 128, *ROW), conv(128, 192, *COLUMN)),",
        "conv(128, 128, *COLUMN), conv(128, 192, *ROW)),",
        (
            *_not("mixed6b.branch7x7_1", "kernel 7 x 1, padding ((3, 3), (0, 0))"),
            *_not("mixed6b.branch7x7_2", "kernel 1 x 7, padding ((0, 0), (3, 3))"),
        ),
    ),
)
_add(
    "residual-connection",
    "pt",
    _PT_NORM
    + """
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = Branches([
            conv(320, 32),
            nn.Sequential(conv(320, 32), conv(32, 32, 3, 1)),
            nn.Sequential(conv(320, 32), conv(32, 48, 3, 1), conv(48, 64, 3, 1)),
        ])
        self.up = nn.Conv2d(128, 320, 1)

    def forward(self, x):
        return torch.relu(x + 0.17 * self.up(self.branches(x)))
""",
    ("0.17 * ", "0.1 * ", _not("block35_1", "factor 0.1")),
    ("torch.relu(x + 0.17 * self.up(self.branches(x)))", "x + 0.17 * self.up(self.branches(x))", _missing("block35_1")),
    ("self.up(self.branches(x))", "torch.relu(self.up(self.branches(x)))", (("block35_1.up", "ReLU is extra"),)),
)


# -------------------------------------------------------------------------------------------------------------- Gluon

_MX = """
from mxnet.gluon import nn

def conv(out, kernel=1, pad=0, stride=1):
    return nn.Conv2D(out, kernel, stride, pad, activation="relu")

def chain(*layers):
    net = nn.HybridSequential()
    net.add(*layers)
    return net

class Branches(nn.HybridSequential):
    def hybrid_forward(self, F, x):
        return F.concat(*[branch(x) for branch in self._children.values()], dim=1)

def branches(*parts):
    net = Branches()
    net.add(*parts)
    return net

def inception(one, three, five, proj):
    return branches(
        conv(one),
        chain(conv(three[0]), conv(three[1], 3, 1)),
        chain(conv(five[0]), conv(five[1], 5, 2)),
        chain(nn.MaxPool2D(3, 1, 1), conv(proj)),
    )
"""
_MX_NORM = _MX.replace(
    'return nn.Conv2D(out, kernel, stride, pad, activation="relu")',
    "return chain(nn.Conv2D(out, kernel, stride, pad, use_bias=False), "
    'nn.BatchNorm(epsilon=1e-3, momentum=0.9), nn.Activation("relu"))',
)

_add(
    "port-the-stem",
    "mx",
    _MX
    + """
Stem = chain(
    conv(64, 7, 3, 2), nn.MaxPool2D(3, 2, 1), conv(64), conv(192, 3, 1), nn.MaxPool2D(3, 2, padding=1),
)
""",
    ("conv(64), ", "nn.Conv2D(64, 1), ", _missing("conv2_reduce")),
    (
        "nn.MaxPool2D(3, 2, padding=1)",
        "nn.MaxPool2D(3, 2, ceil_mode=True)",
        _not("pool2", "3 x 3 max pool, stride 2, rounded up"),
    ),
)
_add(
    "port-an-inception-block",
    "mx",
    _MX + "Block = inception(64, (96, 128), (16, 32), 32)\n",
    ("five[1], 5, 2)", "five[1], 3, 1)", _not("inception3a.branch5x5", "kernel 3 x 3, padding 1")),
    (
        "nn.MaxPool2D(3, 1, 1)",
        "nn.AvgPool2D(3, 1, 1)",
        _not("inception3a.pool", "3 x 3 average pool, stride 1, padding 1"),
    ),
)
_add(
    "port-the-network",
    "mx",
    _MX
    + """
def GoogLeNet():
    pool = lambda: nn.MaxPool2D(3, 2, 1)
    return chain(
        conv(64, 7, 3, 2), pool(), conv(64), conv(192, 3, 1), pool(),
        inception(64, (96, 128), (16, 32), 32), inception(128, (128, 192), (32, 96), 64), pool(),
        inception(192, (96, 208), (16, 48), 64), inception(160, (112, 224), (24, 64), 64),
        inception(128, (128, 256), (24, 64), 64), inception(112, (144, 288), (32, 64), 64),
        inception(256, (160, 320), (32, 128), 128), pool(),
        inception(256, (160, 320), (32, 128), 128), inception(384, (192, 384), (48, 128), 128),
        nn.GlobalAvgPool2D(), nn.Dense(10),
    )
""",
    ("(96, 208)", "(96, 108)", _not("inception4a.branch3x3", "108 channels")),
    ("pool(), conv(64), ", "pool(), nn.Conv2D(64, 1), ", _missing("conv2_reduce")),
)
_add(
    "port-caffes-stem",
    "mx",
    _MX
    + """
def norm(k=1):
    return nn.HybridLambda(lambda F, x: F.LRN(x, nsize=5, alpha=1e-4, beta=0.75, knorm=k))

Stem = chain(
    conv(64, 7, 3, 2), nn.MaxPool2D(3, 2, ceil_mode=True), norm(k=1),
    conv(64), conv(192, 3, 1), norm(), nn.MaxPool2D(3, 2, ceil_mode=True),
)
""",
    ("norm(k=1),", "norm(k=2),", _not("norm1", "local response norm with k 2")),
    (
        "norm(), nn.MaxPool2D(3, 2, ceil_mode=True)",
        "norm(), nn.MaxPool2D(3, 2, padding=1)",
        _not("pool2", "3 x 3 max pool, stride 2, padding 1"),
    ),
)
_add(
    "batch-norm",
    "mx",
    _MX_NORM + "Block = inception(64, (96, 128), (16, 32), 32)\n",
    ("epsilon=1e-3, ", "", _not(_ALL, "epsilon 1e-05")),
    ("momentum=0.9", "momentum=0.1", _not(_ALL, "momentum 0.9")),
)
_add(
    "factorization",
    "mx",
    _MX_NORM
    + """
ROW, COLUMN = ((1, 7), (0, 3)), ((7, 1), (3, 0))
Mixed = branches(
    conv(192),
    chain(conv(128), conv(128, *ROW), conv(192, *COLUMN)),
    chain(conv(128), conv(128, *COLUMN), conv(128, *ROW), conv(128, *COLUMN), conv(192, *ROW)),
    chain(nn.AvgPool2D(3, 1, 1), conv(192)),
)
""",
    (
        "nn.AvgPool2D(3, 1, 1)",
        "nn.AvgPool2D(3, 1, 1, count_include_pad=False)",
        _not("mixed6b.pool", "padding that does not count"),
    ),
    (
        "conv(128, *COLUMN), conv(128, *ROW), conv(128, *COLUMN), ",
        "conv(128, *COLUMN), ",
        tuple(_missing(f"mixed6b.branch7x7dbl_{part}")[0] for part in ("reduce", "1", "2")),
    ),
)
_add(
    "residual-connection",
    "mx",
    _MX_NORM
    + """
class Block(nn.HybridSequential):
    def __init__(self):
        super().__init__()
        self.add(
            branches(
                conv(32),
                chain(conv(32), conv(32, 3, 1)),
                chain(conv(32), conv(48, 3, 1), conv(64, 3, 1)),
            ),
            nn.Conv2D(320, 1),
        )

    def hybrid_forward(self, F, x):
        y = x
        for layer in self._children.values():
            y = layer(y)
        return F.relu(x + 0.17 * y)
""",
    ("x + 0.17 * y", "x + y", _missing("block35_1")),
    ("nn.Conv2D(320, 1)", "nn.Conv2D(320, 1, use_bias=False)", _not("block35_1.up", "no bias")),
)

# --------------------------------------------------------------------------------------------------------------- Flax

_JAX = """
import jax.numpy as jnp
from flax import nnx

class Conv(nnx.Module):
    def __init__(self, into, out, kernel=(1, 1), pad=0, stride=1, *, rngs):
        self.conv = nnx.Conv(into, out, kernel, strides=stride, padding=pad, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x))

def pool(x, stride=2, pad=((1, 1), (1, 1))):
    return nnx.max_pool(x, (3, 3), (stride, stride), pad)

class Inception(nnx.Module):
    def __init__(self, into, one, three, five, proj, *, rngs):
        self.one = Conv(into, one, rngs=rngs)
        self.reduce3 = Conv(into, three[0], rngs=rngs)
        self.three = Conv(three[0], three[1], (3, 3), 1, rngs=rngs)
        self.reduce5 = Conv(into, five[0], rngs=rngs)
        self.five = Conv(five[0], five[1], (5, 5), 2, rngs=rngs)
        self.proj = Conv(into, proj, rngs=rngs)

    def __call__(self, x):
        three, five = self.three(self.reduce3(x)), self.five(self.reduce5(x))
        return jnp.concatenate([self.one(x), three, five, self.proj(pool(x, 1))], axis=-1)
"""
_JAX_NORM = _JAX.replace("padding=pad, rngs", "padding=pad, use_bias=False, rngs").replace(
    """
    def __call__(self, x):
        return nnx.relu(self.conv(x))
""",
    """        self.norm = nnx.BatchNorm(out, momentum=0.9, epsilon=1e-3, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.norm(self.conv(x)))
""",
)
_STEM_JAX = """
class Stem(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = Conv(1, 64, (7, 7), 3, 2, rngs=rngs)
        self.reduce = Conv(64, 64, rngs=rngs)
        self.conv2 = Conv(64, 192, (3, 3), 1, rngs=rngs)

    def __call__(self, x):
        return pool(self.conv2(self.reduce(pool(self.conv1(x)))))
"""

_add(
    "port-the-stem",
    "jax",
    _JAX + _STEM_JAX,
    ("(7, 7), 3, 2", '(7, 7), "SAME", 2', _not("conv1", "padding (2, 3)")),
    ("self.reduce = Conv(64, 64, rngs", "self.reduce = nnx.Conv(64, 64, (1, 1), rngs", _missing("conv2_reduce")),
)
_add(
    "port-an-inception-block",
    "jax",
    _JAX
    + """
def Block(rngs):
    return Inception(192, 64, (96, 128), (16, 32), 32, rngs=rngs)
""",
    (
        "[self.one(x), three, five,",
        "[three, self.one(x), five,",
        (("inception3a", "its branches are joined in another order"),),
    ),
    (
        "self.one = Conv(into, one, rngs",
        "self.one = nnx.Conv(into, one, (1, 1), rngs",
        _missing("inception3a.branch1x1"),
    ),
)
_add(
    "port-the-network",
    "jax",
    _JAX
    + _STEM_JAX
    + """
ROWS = [
    (192, 64, (96, 128), (16, 32), 32), (256, 128, (128, 192), (32, 96), 64), None,
    (480, 192, (96, 208), (16, 48), 64), (512, 160, (112, 224), (24, 64), 64), (512, 128, (128, 256), (24, 64), 64),
    (512, 112, (144, 288), (32, 64), 64), (528, 256, (160, 320), (32, 128), 128), None,
    (832, 256, (160, 320), (32, 128), 128), (832, 384, (192, 384), (48, 128), 128),
]

class GoogLeNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = Stem(rngs)
        self.blocks = nnx.List([pool if row is None else Inception(*row, rngs=rngs) for row in ROWS])
        self.fc = nnx.Linear(1024, 10, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean((1, 2)))
""",
    ("self.fc(x.mean((1, 2)))", "nnx.softmax(self.fc(x.mean((1, 2))))", (("fc", "softmax is extra"),)),
    ("(7, 7), 3, 2", '(7, 7), "SAME", 2', _not("conv1", "padding (2, 3)")),
)
_add(
    "port-caffes-stem",
    "jax",
    _JAX.replace("pad=((1, 1), (1, 1))):", "pad=((0, 1), (0, 1))):")
    + """
def lrn(x, k=1):
    squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
    sums = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (k + 1e-4 / 5 * sums) ** 0.75
"""
    + _STEM_JAX.replace("Conv(1, 64", "Conv(3, 64").replace(
        "pool(self.conv2(self.reduce(pool(self.conv1(x)))))",
        "pool(lrn(self.conv2(self.reduce(lrn(pool(self.conv1(x)))))))",
    ),
    ("1e-4 / 5 * sums", "1e-4 * sums", _not("norm1, norm2", "local response norm with alpha 0.0005")),
    ("pool(lrn(self.conv2", "pool((self.conv2", _missing("norm2")),
)
_add(
    "batch-norm",
    "jax",
    _JAX_NORM
    + """
def Block(rngs):
    return Inception(192, 64, (96, 128), (16, 32), 32, rngs=rngs)
""",
    ("epsilon=1e-3", "epsilon=1e-5", _not(_ALL, "epsilon 1e-05")),
    ("momentum=0.9, ", "", _not(_ALL, "momentum 0.01")),
    (
        "return nnx.relu(self.norm(self.conv(x)))",
        "return self.norm(nnx.relu(self.conv(x)))",
        ((_ALL, "ReLU is extra"), *_missing(_ALL)),
    ),
)
_add(
    "factorization",
    "jax",
    _JAX_NORM
    + """
ROW, COLUMN = ((1, 7), (0, 3)), ((7, 1), (3, 0))

class Mixed(nnx.Module):
    def __init__(self, rngs):
        self.one = Conv(768, 192, rngs=rngs)
        self.single = nnx.Sequential(
            Conv(768, 128, rngs=rngs), Conv(128, 128, *ROW, rngs=rngs), Conv(128, 192, *COLUMN, rngs=rngs),
        )
        self.double = nnx.Sequential(
            Conv(768, 128, rngs=rngs), Conv(128, 128, *COLUMN, rngs=rngs), Conv(128, 128, *ROW, rngs=rngs),
            Conv(128, 128, *COLUMN, rngs=rngs), Conv(128, 192, *ROW, rngs=rngs),
        )
        self.proj = Conv(768, 192, rngs=rngs)

    def __call__(self, x):
        means = nnx.avg_pool(x, (3, 3), (1, 1), "SAME")
        return jnp.concatenate([self.one(x), self.single(x), self.double(x), self.proj(means)], axis=-1)
""",
    (
        '(1, 1), "SAME")',
        '(1, 1), "SAME", count_include_pad=False)',
        _not("mixed6b.pool", "padding that does not count"),
    ),
    (
        "self.single(x), self.double(x)",
        "self.double(x), self.single(x)",
        (("mixed6b", "its branches are joined in another order"),),
    ),
)
_add(
    "residual-connection",
    "jax",
    _JAX_NORM
    + """
class Block(nnx.Module):
    def __init__(self, rngs):
        self.one = Conv(320, 32, rngs=rngs)
        self.reduce = Conv(320, 32, rngs=rngs)
        self.three = Conv(32, 32, (3, 3), 1, rngs=rngs)
        self.double = nnx.Sequential(
            Conv(320, 32, rngs=rngs), Conv(32, 48, (3, 3), 1, rngs=rngs), Conv(48, 64, (3, 3), 1, rngs=rngs),
        )
        self.up = nnx.Conv(128, 320, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = jnp.concatenate([self.one(x), self.three(self.reduce(x)), self.double(x)], axis=-1)
        return nnx.relu(x + 0.17 * self.up(y))
""",
    ("0.17 * ", "0.1 * ", _not("block35_1", "factor 0.1")),
    ("self.up(y)", "nnx.relu(self.up(y))", (("block35_1.up", "ReLU is extra"),)),
)

# -------------------------------------------------------------------------------------------------------------- numbers

_add(
    "sizes",
    "numpy",
    """
PARAMETERS = {"alexnet": 46_764_746, "vgg11": 128_806_154, "nin": 1_992_166, "googlenet": 5_977_530}
""",
    ("5_977_530", "5_983_802", (("googlenet", "this is that of color pictures"),)),
    ("46_764_746, ", "46_764_746 * 4, ", (("alexnet", "this is a number of bytes"),)),
    ('"vgg11": 128_806_154, ', '"vgg": 128_806_154, ', (("vgg11", "it is missing"), ("vgg", "nobody asked for it"))),
    ("1_992_166", "1_992_167", (("nin", "it is too large"),)),
)
_add(
    "count-a-block",
    "numpy",
    """
def conv(into, out, kernel=1):
    return into * out * kernel**2 + out

def parameters(channels, c1, c2, c3, c4):
    three = conv(channels, c2[0]) + conv(c2[0], c2[1], 3)
    five = conv(channels, c3[0]) + conv(c3[0], c3[1], 5)
    return conv(channels, c1) + three + five + conv(channels, c4)
""",
    (
        "conv(c3[0], c3[1], 5)",
        "conv(c3[0], c3[1], 3)",
        (
            ("all 9 blocks", "too few parameters"),
            ("c3[0]", "one channel more adds too few of them"),
            ("c3[1]", "one channel more adds too few of them"),
        ),
    ),
    (
        "three + five + conv(channels, c4)",
        "three + five + conv(channels, c4) + 1",
        (
            ("all 9 blocks", "too many parameters"),
            ("the whole", "it is off by the same number whatever the widths are"),
        ),
    ),
)
_add(
    "smallest-picture",
    "numpy",
    """
SMALLEST = {"d2l": 1, "cnblogs": 193, "torchvision": 15, "bvlc": 223, "alexnet": 193, "nin": 67}
""",
    ('"d2l": 1,', '"d2l": 32,', (("d2l", "it fits, and a smaller one does too"),)),
    ('"torchvision": 15', '"torchvision": 14', (("torchvision", "it does not fit: nothing is left at pool3"),)),
)


def _smoothed(text: str) -> Said:
    return ("smoothing 0.1", text), ("smoothing 0.5", text)


_add(
    "label-smoothing",
    "numpy",
    """
import numpy as np

def loss(logits, labels, share):
    n, classes = logits.shape
    targets = np.full((n, classes), share / classes)
    targets[np.arange(n), labels] += 1 - share
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -(targets * logs).sum(1).mean()
""",
    (
        ".sum(1).mean()",
        ".sum()",
        tuple((f"smoothing {x}", "it is the sum over the pictures") for x in ("0", "0.1", "0.5")),
    ),
    ("+= 1 - share", "= 1 - share", _smoothed("the label has no part in what all classes share")),
    (
        "share / classes)",
        "share / (classes - 1))\n    targets[np.arange(n), labels] = 0",
        _smoothed("the share goes to the other classes alone"),
    ),
    ("share / classes)", "0.0 * share)", _smoothed("no class gets its share")),
    ("+= 1 - share", "+= 1", _smoothed("the label keeps all of its weight: the targets add up to more than 1")),
    ("share / classes)", "0.0)\n    share = 0", _smoothed("the labels are not smoothed")),
)
_ODD = (("96, kernel 7", 2), ("48, kernel 3", 2), ("7, kernel 2", 2), ("224, kernel 11", 4))

_add(
    "same-padding",
    "numpy",
    """
def same(size, kernel, stride):
    windows = -(-size // stride)
    missing = max((windows - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2
""",
    (
        "missing // 2, missing - missing // 2",
        "missing - missing // 2, missing // 2",
        tuple((f"size {x}, stride {y}", "the odd pixel is on the other side") for x, y in _ODD),
    ),
    (
        "missing // 2, missing - missing // 2",
        "(kernel - 1) // 2, (kernel - 1) // 2",
        tuple(
            (
                f"size {x}, stride {y}",
                "that makes 3 windows, and 4 are asked for"
                if x == "7, kernel 2"
                else "as many windows as there have to be, and they do not begin there",
            )
            for x, y in _ODD
        ),
    ),
    (
        "max((windows - 1) * stride + kernel - size, 0)",
        "(windows - 1) * stride + kernel - size",
        (("size 10, kernel 1, stride 4", "a pad cannot be negative"),),
    ),
)
_add(
    "carry-the-weights",
    "numpy",
    """
def to_flax(arrays):
    fc = arrays["fc.weight"].reshape(5, 4, 2, 3)
    return {
        "conv.kernel": arrays["conv.weight"].transpose(2, 3, 1, 0),
        "conv.bias": arrays["conv.bias"],
        "norm.scale": arrays["norm.weight"],
        "norm.bias": arrays["norm.bias"],
        "norm.mean": arrays["norm.running_mean"],
        "norm.var": arrays["norm.running_var"],
        "fc.kernel": fc.transpose(2, 3, 1, 0).reshape(24, 5),
        "fc.bias": arrays["fc.bias"],
    }
""",
    (
        "fc.transpose(2, 3, 1, 0).reshape(24, 5)",
        'arrays["fc.weight"].T',
        (("fc.kernel", "the right numbers in another order: think of the map that was flattened before it"),),
    ),
    (
        'arrays["conv.weight"].transpose(2, 3, 1, 0)',
        'arrays["conv.weight"].T',
        (("conv.kernel", "the right numbers, and 2 x 5 x 3 x 4 is not its shape"),),
    ),
    (
        'arrays["norm.running_var"]',
        'arrays["norm.running_mean"]',
        (("norm.var", "other numbers than those of the array that belongs here"),),
    ),
)
