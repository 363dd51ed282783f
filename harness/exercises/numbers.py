"""Exercises whose answer is numbers: constants, or functions that are called.

Each mistake that is often made is known by what it gives. Others are told by where they are and by their direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

import spec
from harness.exercises.exercise import Answer, Exercise, Finding, Verdict
from harness.exercises.values import Value, values
from spec import Array
from spec.googlenet import BRANCH_POOL, TABLE
from spec.network import Block, Conv, named
from spec.reference import softmax_cross_entropy
from spec.shapes import find_misfit

CLOSE = 1e-5  # relative: what a framework computes may be float32
NETWORKS = {"alexnet": "alexnet", "vgg11": "vgg11", "nin": "nin", "googlenet": "d2l"}  # presets, by an answer's names


@dataclass(frozen=True, kw_only=True)
class Numbers(Exercise):
    """A constant, or a function that is called with each of these lists of arguments."""

    calls: tuple[tuple[Any, ...], ...] = ((),)
    find: Callable[[list[Value]], Iterator[Finding]]  # the mistakes in what the calls gave

    def judge(self, answer: Answer) -> Verdict:
        """Compute the answer's numbers, and hold them against the spec's."""
        return Verdict(tuple(self.find(values(answer, self.calls))))


def _named(got: Value, expected: Mapping[str, Any]) -> Iterator[Finding]:
    """What is missing, and what nobody asked for; `expected` has the names."""
    yield from (Finding(name, "it is missing") for name in expected if name not in got)
    yield from (Finding(name or "the whole", "nobody asked for it") for name in got if name not in expected)


def _number(got: Value, name: str) -> float | None:
    """A single number of an answer."""
    array = got.get(name)
    return float(array) if array is not None and array.ndim == 0 else None


def _direction(got: float, right: float) -> str:
    if not math.isfinite(got):
        return "it is no number"
    return "it is too large" if got > right else "it is too small"


# --------------------------------------------------------------------------------------------------------- parameters


def find_sizes(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in the numbers of parameters of `NETWORKS`."""
    (answer,) = got
    yield from _named(answer, NETWORKS)
    for name, preset in NETWORKS.items():
        number = _number(answer, name)
        if name in answer and number is None:
            yield Finding(name, "one number is asked for")
        elif number is not None and number != (right := spec.parameter_count(spec.preset(preset))):
            meant = next((text for text, count in _other_sizes(preset).items() if count == number), None)
            yield Finding(name, f"this is {meant}" if meant else _direction(number, right))


@cache
def _other_sizes(preset: str) -> dict[str, int]:
    """What else may have been counted."""
    config = spec.preset(preset)
    shapes, layers, right = spec.param_shapes(config), spec.layers(config), spec.parameter_count(config)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    made = {
        "that of color pictures": spec.parameter_count(spec.preset(preset, in_channels=3)),
        "that of 1000 classes": spec.parameter_count(spec.preset(preset, num_classes=1000)),
        "that of color pictures and 1000 classes": spec.parameter_count(
            spec.preset(preset, in_channels=3, num_classes=1000)
        ),
        "that of the weights alone, without biases": sum(sizes[f"{node.name}.weight"] for node in layers),
        "that of the convolutions alone": sum(
            sizes[f"{node.name}.{leaf}"] for node in layers if not node.is_dense for leaf in ("weight", "bias")
        ),
        "a number of bytes": 4 * right,
        "the number of layers": len(layers),
    }
    return {text: count for text, count in made.items() if count != right}


Widths = tuple[int, int, tuple[int, int], tuple[int, int], int]  # channels that come in, and those of the four branches
_ARGUMENTS = ("channels", "c1", "c2[0]", "c2[1]", "c3[0]", "c3[1]", "c4")


def _blocks() -> dict[str, Widths]:
    into, found = 192, {}
    for name, (one, reduce3, three, reduce5, five, proj) in TABLE.items():
        found[name] = (into, one, (reduce3, three), (reduce5, five), proj)
        into = one + three + five + proj
    return found


def _one_more(widths: Widths, position: int) -> Widths:
    """The widths with one channel more at one of `_ARGUMENTS`."""
    channels, one, (a, b), (c, d), proj = widths
    flat = [channels, one, a, b, c, d, proj]
    flat[position] += 1
    return flat[0], flat[1], (flat[2], flat[3]), (flat[4], flat[5]), flat[6]


_BLOCKS = _blocks()
_FIRST = _BLOCKS["inception3a"]
BLOCK_CALLS: tuple[Widths, ...] = (*_BLOCKS.values(), *(_one_more(_FIRST, i) for i in range(len(_ARGUMENTS))))


def block_parameters(channels: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> int:
    """The parameters of an Inception block, weights and biases, from the spec's own table and count."""
    stage = Block(
        (
            named(one=Conv(c1)),
            named(reduce=Conv(c2[0]), three=Conv(c2[1], 3, pad=1)),
            named(reduce5=Conv(c3[0]), five=Conv(c3[1], 5, pad=2)),
            named(pool=BRANCH_POOL, proj=Conv(c4)),
        )
    )
    config = replace(spec.preset("d2l"), in_channels=channels, input_size=12, table=(("block", stage),))
    return spec.parameter_count(config)


def find_block(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in a function that counts a block's parameters; which argument is wrong shows by adding one to it."""
    numbers = [_number(answer, "") for answer in got]
    if None in numbers:
        yield Finding("the whole", "one number is asked for")
        return
    counts = [float(number) for number in numbers if number is not None]
    right = [float(block_parameters(*widths)) for widths in BLOCK_CALLS]
    for text, sign in {"too many parameters": 1, "too few parameters": -1}.items():
        off = [name for name, x, y in zip(_BLOCKS, counts, right, strict=False) if (x > y) - (x < y) == sign]
        if off:
            yield Finding(", ".join(off) if len(off) < len(_BLOCKS) else f"all {len(off)} blocks", text)
    rises = [count - counts[0] for count in counts[len(_BLOCKS) :]]
    expected_rises = [count - right[0] for count in right[len(_BLOCKS) :]]
    for argument, rise, expected in zip(_ARGUMENTS, rises, expected_rises, strict=True):
        if rise != expected:
            yield Finding(argument, f"one channel more adds too {'many' if rise > expected else 'few'} of them")
    if counts != right and rises == expected_rises:
        yield Finding("the whole", "it is off by the same number whatever the widths are")


# -------------------------------------------------------------------------------------------------------------- sizes

SMALLEST = ("d2l", "cnblogs", "torchvision", "bvlc", "alexnet", "nin")  # presets


def find_smallest(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in the sides of the smallest square pictures that networks take, heads included."""
    (answer,) = got
    yield from _named(answer, dict.fromkeys(SMALLEST))
    for name in SMALLEST:
        side, config = _number(answer, name), spec.preset(name)
        if name in answer and (side is None or side not in range(1, 4097)):
            yield Finding(name, "a whole number of pixels is asked for")
        elif side is not None and side != spec.minimum_input_size(config):
            misfit = find_misfit(config, (config.in_channels, int(side), int(side)))
            text = f"it does not fit: {misfit.problem}" if misfit else "it fits, and a smaller one does too"
            yield Finding(name, text)


SAME_CALLS = (
    (96, 7, 2),
    (35, 3, 2),
    (48, 3, 2),
    (12, 3, 1),
    (12, 5, 1),
    (7, 2, 2),
    (6, 2, 2),
    (224, 11, 4),
    (10, 1, 4),
)


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """What "SAME" puts before and after an axis: as many windows as strides, the odd pixel behind.

    Source: XLA's and TensorFlow's documentation of padding.
    """
    missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def find_same(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in a function of size, kernel and stride that gives the pads of "SAME"."""
    for (size, kernel, stride), answer in zip(SAME_CALLS, got, strict=True):
        place, pads = f"size {size}, kernel {kernel}, stride {stride}", answer.get("")
        if pads is None or pads.shape != (2,):
            yield Finding(place, "two numbers are asked for, before and after")
            continue
        before, after = (float(x) for x in pads)
        right = same_pads(size, kernel, stride)
        if (before, after) == right:
            continue
        windows, asked = (size + before + after - kernel) // stride + 1, math.ceil(size / stride)
        if min(before, after) < 0:
            text = "a pad cannot be negative"
        elif windows != asked:
            text = f"that makes {windows:g} windows, and {asked} are asked for"
        elif (after, before) == right:
            text = "the odd pixel is on the other side"
        elif before + after == sum(right):
            text = "as many pixels as there have to be, and not on these sides"
        else:
            text = "as many windows as there have to be, and they do not begin there"
        yield Finding(place, text)


# --------------------------------------------------------------------------------------------------------------- loss

_LOGITS = np.array([[2.0, -1.0, 0.5, 0.0], [0.25, 1.5, -0.75, 3.0], [40.0, -3.0, 1.0, 0.0]])
_LABELS = np.array([0, 1, 3])
SHARES = (0.0, 0.1, 0.5)
LOSS_CALLS = tuple((_LOGITS, _LABELS, share) for share in SHARES)


def find_loss(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in the mean cross-entropy of smoothed labels."""
    for share, answer in zip(SHARES, got, strict=True):
        number = _number(answer, "")
        right, _ = softmax_cross_entropy(_LOGITS, _LABELS, share)
        if number is None:
            yield Finding(f"smoothing {share:g}", "one number is asked for, the mean over the pictures")
        elif not math.isclose(number, right, rel_tol=CLOSE):
            known = (text for text, loss in _other_losses(share).items() if math.isclose(number, loss, rel_tol=CLOSE))
            yield Finding(f"smoothing {share:g}", next(known, _direction(number, right)))


def _other_losses(share: float) -> dict[str, float]:
    """What else may have been computed, by what is then wrong."""
    n, classes = _LOGITS.shape
    right, _ = softmax_cross_entropy(_LOGITS, _LABELS, share)
    plain, _ = softmax_cross_entropy(_LOGITS, _LABELS)
    others, _ = softmax_cross_entropy(_LOGITS, _LABELS, share * classes / (classes - 1))
    uniform = softmax_cross_entropy(_LOGITS, _LABELS, 1.0)[0]
    return {
        "it is the sum over the pictures": right * n,
        "the labels are not smoothed": plain,
        "the share goes to the other classes alone": others,
        "the label keeps all of its weight: the targets add up to more than 1": plain + share * uniform,
        "the label has no part in what all classes share": right - share / classes * plain,
        "no class gets its share": (1 - share) * plain,
    }


# ------------------------------------------------------------------------------------------------------------ weights


def _network() -> dict[str, Array]:
    """A network's arrays as PyTorch has them: a convolution with batch norm, and a dense layer on its 2 x 3 map."""
    shapes = {"conv.weight": (4, 3, 5, 2), "conv.bias": (4,), "norm.weight": (4,), "norm.bias": (4,)}
    shapes |= {"norm.running_mean": (4,), "norm.running_var": (4,), "fc.weight": (5, 24), "fc.bias": (5,)}
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes.values())])
    rows = zip(shapes.items(), starts, strict=False)
    return {name: (start + np.arange(math.prod(shape))).reshape(shape) / 8 for (name, shape), start in rows}


ARRAYS = _network()
_MAP = (4, 2, 3)  # (channels, height, width) of what the dense layer reads


def to_flax(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same as Flax has them: names, layouts, and the order in which a map is flattened there."""
    fc = arrays["fc.weight"].reshape(-1, *_MAP).transpose(2, 3, 1, 0)
    return {
        "conv.kernel": arrays["conv.weight"].transpose(2, 3, 1, 0),
        "conv.bias": arrays["conv.bias"],
        "norm.scale": arrays["norm.weight"],
        "norm.bias": arrays["norm.bias"],
        "norm.mean": arrays["norm.running_mean"],
        "norm.var": arrays["norm.running_var"],
        "fc.kernel": fc.reshape(-1, fc.shape[-1]),
        "fc.bias": arrays["fc.bias"],
    }


def find_carried(got: list[Value]) -> Iterator[Finding]:
    """Mistakes in a function that carries `ARRAYS` to Flax."""
    (answer,), expected = got, to_flax(ARRAYS)
    yield from _named(answer, expected)
    for name, right in expected.items():
        array = answer.get(name)
        if array is None or np.array_equal(array, right):
            continue
        if sorted(array.flat) != sorted(right.flat):
            yield Finding(name, "other numbers than those of the array that belongs here")
        elif array.shape != right.shape:
            yield Finding(name, f"the right numbers, and {' x '.join(map(str, array.shape))} is not its shape")
        elif name == "fc.kernel":
            yield Finding(name, "the right numbers in another order: think of the map that was flattened before it")
        else:
            yield Finding(name, "the right numbers in another order")
