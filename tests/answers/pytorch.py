"""Answers in PyTorch."""

from __future__ import annotations

from answers.answer import ALL, Table, add, differs, missing

ANSWERS: Table = {}

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

add(
    ANSWERS,
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
        differs("pool2", "3 x 3 max pool, stride 2, rounded up"),
    ),
    ("nn.Conv2d(64, 64, 1), nn.ReLU()", "nn.Conv2d(64, 64, 1)", missing("conv2_reduce")),
    (
        "192, 3, 1)",
        "192, 3)",
        (
            ("the whole", "it puts out 192 x 11 x 11, and 192 x 12 x 12 is asked for"),
            *differs("conv2", "padding 0"),
        ),
    ),
)
add(
    ANSWERS,
    "port-an-inception-block",
    "pt",
    _PT + "Block = inception(192, 64, (96, 128), (16, 32), 32)\n",
    ("five[1], 5, 2)", "five[1], 3, 1)", differs("inception3a.branch5x5", "kernel 3 x 3, padding 1")),
    (
        "        conv(into, one),\n",
        "        nn.Conv2d(into, one, 1),\n",
        missing("inception3a.branch1x1"),
    ),
    (
        "torch.cat([branch(x) for branch in self]",
        "torch.cat([self[i](x) for i in (0, 2, 1, 3)]",
        (("inception3a", "its branches are joined in another order"),),
    ),
)
add(
    ANSWERS,
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
    ("conv(64, 64),", "nn.Conv2d(64, 64, 1),", missing("conv2_reduce")),
    ("nn.Flatten(), ", "nn.Flatten(), nn.Dropout(0.4), ", (("fc", "dropout 0.4 is extra"),)),
    (
        "(24, 64), 64), inception(512, 112",
        "(34, 64), 64), inception(512, 112",
        differs("inception4c.branch5x5_reduce", "34 channels"),
    ),
)
add(
    ANSWERS,
    "port-caffes-stem",
    "pt",
    _PT
    + """
Stem = nn.Sequential(
    conv(3, 64, 7, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5),
    conv(64, 64), conv(64, 192, 3, 1), nn.LocalResponseNorm(5, alpha=1e-4, k=1), nn.MaxPool2d(3, 2, ceil_mode=True),
)
""",
    ("alpha=1e-4, k=1", "alpha=1e-4, k=2", differs("norm2", "local response norm with k 2")),
    (
        "nn.LocalResponseNorm(5, alpha=1e-4, k=1), nn.MaxPool2d(3, 2, ceil_mode=True)",
        "nn.MaxPool2d(3, 2, ceil_mode=True)",
        missing("norm2"),
    ),
)
add(
    ANSWERS,
    "batch-norm",
    "pt",
    _PT_NORM + "Block = inception(192, 64, (96, 128), (16, 32), 32)\n",
    (
        "nn.BatchNorm2d(out, eps=1e-3)",
        "nn.BatchNorm2d(out)",
        differs(
            ALL,
            "epsilon 1e-05",
        ),
    ),
    (
        "eps=1e-3)",
        "eps=1e-3, momentum=0.9)",
        differs(
            ALL,
            "momentum 0.9",
        ),
    ),
)
add(
    ANSWERS,
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
        differs("mixed6b.pool", "padding that does not count"),
    ),
    (
        "conv(128, 128, *ROW), conv(128, 192, *COLUMN)),",
        "conv(128, 128, *COLUMN), conv(128, 192, *ROW)),",
        (
            *differs("mixed6b.branch7x7_1", "kernel 7 x 1, padding ((3, 3), (0, 0))"),
            *differs("mixed6b.branch7x7_2", "kernel 1 x 7, padding ((0, 0), (3, 3))"),
        ),
    ),
)
add(
    ANSWERS,
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
    ("0.17 * ", "0.1 * ", differs("block35_1", "factor 0.1")),
    ("torch.relu(x + 0.17 * self.up(self.branches(x)))", "x + 0.17 * self.up(self.branches(x))", missing("block35_1")),
    ("self.up(self.branches(x))", "torch.relu(self.up(self.branches(x)))", (("block35_1.up", "ReLU is extra"),)),
)
