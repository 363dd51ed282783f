"""Answers in Gluon."""

from __future__ import annotations

from answers.answer import ALL, Table, add, differs, missing

ANSWERS: Table = {}

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

add(
    ANSWERS,
    "port-the-stem",
    "mx",
    _MX
    + """
Stem = chain(
    conv(64, 7, 3, 2), nn.MaxPool2D(3, 2, 1), conv(64), conv(192, 3, 1), nn.MaxPool2D(3, 2, padding=1),
)
""",
    ("conv(64), ", "nn.Conv2D(64, 1), ", missing("conv2_reduce")),
    (
        "nn.MaxPool2D(3, 2, padding=1)",
        "nn.MaxPool2D(3, 2, ceil_mode=True)",
        differs("pool2", "3 x 3 max pool, stride 2, rounded up"),
    ),
)
add(
    ANSWERS,
    "port-an-inception-block",
    "mx",
    _MX + "Block = inception(64, (96, 128), (16, 32), 32)\n",
    ("five[1], 5, 2)", "five[1], 3, 1)", differs("inception3a.branch5x5", "kernel 3 x 3, padding 1")),
    (
        "nn.MaxPool2D(3, 1, 1)",
        "nn.AvgPool2D(3, 1, 1)",
        differs("inception3a.pool", "3 x 3 average pool, stride 1, padding 1"),
    ),
)
add(
    ANSWERS,
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
    ("(96, 208)", "(96, 108)", differs("inception4a.branch3x3", "108 channels")),
    ("pool(), conv(64), ", "pool(), nn.Conv2D(64, 1), ", missing("conv2_reduce")),
)
add(
    ANSWERS,
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
    ("norm(k=1),", "norm(k=2),", differs("norm1", "local response norm with k 2")),
    (
        "norm(), nn.MaxPool2D(3, 2, ceil_mode=True)",
        "norm(), nn.MaxPool2D(3, 2, padding=1)",
        differs("pool2", "3 x 3 max pool, stride 2, padding 1"),
    ),
)
add(
    ANSWERS,
    "batch-norm",
    "mx",
    _MX_NORM + "Block = inception(64, (96, 128), (16, 32), 32)\n",
    ("epsilon=1e-3, ", "", differs(ALL, "epsilon 1e-05")),
    ("momentum=0.9", "momentum=0.1", differs(ALL, "momentum 0.9")),
)
add(
    ANSWERS,
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
        differs("mixed6b.pool", "padding that does not count"),
    ),
    (
        "conv(128, *COLUMN), conv(128, *ROW), conv(128, *COLUMN), ",
        "conv(128, *COLUMN), ",
        tuple(missing(f"mixed6b.branch7x7dbl_{part}")[0] for part in ("reduce", "1", "2")),
    ),
)
add(
    ANSWERS,
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
    ("x + 0.17 * y", "x + y", missing("block35_1")),
    ("nn.Conv2D(320, 1)", "nn.Conv2D(320, 1, use_bias=False)", differs("block35_1.up", "no bias")),
)
