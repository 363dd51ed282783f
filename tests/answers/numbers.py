"""Answers that are numbers, or functions of some."""

from __future__ import annotations

from answers.answer import Said, Table, add

ANSWERS: Table = {}

add(
    ANSWERS,
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
add(
    ANSWERS,
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
add(
    ANSWERS,
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


add(
    ANSWERS,
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

add(
    ANSWERS,
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
add(
    ANSWERS,
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
