"""JAX's operations that read windows or whole maps: layers with weights, pools, and sums, which become averages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import spec
from googlenet_jax.jaxpr.reader import Reader
from googlenet_jax.jaxpr.values import Known, Traced, arithmetic, part, size
from harness.check.graph import Convolution, Linear, Unknown
from harness.check.readers.rewriting import ChannelSum
from spec.network import AveragePool
from spec.reference import adaptive_windows

Made = Traced | None

# ----------------------------------------------------------------------------------------- parts of operations to come


@dataclass(frozen=True)
class Sum(Unknown):
    """Of windows, or of the whole map: an average once it is divided by the number of its pixels."""

    name: str = "sum"
    average: Any = None
    counts: int = 0  # the pixels


class Cut(NamedTuple):
    """Some rows and columns of a map: from these on, in these steps."""

    start: tuple[int, int]
    step: tuple[int, int]


@dataclass(frozen=True)
class Cuts(Unknown):
    """Parts of a map side by side, as channels. A product with a kernel makes them its convolution."""

    name: str = "slice"
    cuts: tuple[Cut, ...] = ()

    def windows(self) -> Convolution | None:
        """The convolution that reads these pixels, one of each of its windows in each part, in a kernel's order."""
        rows, columns = (sorted({cut.start[axis] for cut in self.cuts}) for axis in (0, 1))
        dilation = tuple(starts[1] - starts[0] if starts[1:] else 1 for starts in (rows, columns))
        steps = {cut.step for cut in self.cuts}
        grid = [(i * dilation[0], j * dilation[1]) for i in range(len(rows)) for j in range(len(columns))]
        if len(steps) != 1 or [cut.start for cut in self.cuts] != grid:
            return None
        return Convolution(0, (len(rows), len(columns)), steps.pop(), dilation=dilation, bias=False)


@dataclass(frozen=True)
class Part(Unknown):
    """Of a softmax, or of an average along both axes."""


# The largest number of an image, what is left over it, its exponentials, their sum, and that sum's logarithm.
LARGEST, LOWERED, EXP, EXP_SUM, LOG_SUM = map(Part, ("reduce_max", "sub", "exp", "reduce_sum", "log"))
_MEANS = {axis: Part(f"means along {axis}") for axis in "HW"}

# ------------------------------------------------------------------------------------------------ layers with weights


def _conv(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, kernel = read
    lhs, rhs, out = p["dimension_numbers"]
    plain = isinstance(kernel, Known) and set(p["lhs_dilation"]) == {1} and p["batch_group_count"] == 1
    if not plain or not replace(x, whole=tuple(x.whole[i] for i in lhs), axes=axes_at(x.axes, lhs)).has("NCHW"):
        return None
    axes = "".join("NCHW"[out.index(i)] for i in range(4))
    pads = tuple(map(ints, p["padding"]))
    stride, dilation, groups = ints(p["window_strides"]), ints(p["rhs_dilation"]), int(p["feature_group_count"])

    def made(kernel: Known, whole: spec.Shape) -> Traced:
        weight = np.asarray(kernel.value).transpose(rhs)
        op = Convolution(len(weight), weight.shape[2:], stride, pads, dilation, groups, bias=False)
        return r.node(op, [x], whole, axes, weight=r.array(kernel, weight))

    return _divisible(r, made, kernel, rhs[0], whole) if groups == 1 else made(kernel, whole)


def ints(numbers: Sequence[Any]) -> tuple[int, ...]:
    """Python's own: libraries pass NumPy's along."""
    return tuple(map(int, numbers))


def axes_at(axes: str, order: Sequence[int]) -> str:
    return "".join(axes[i] for i in order)


def _divisible(
    r: Reader, made: Callable[[Known, spec.Shape], Traced], kernel: Known, axis: int, whole: spec.Shape
) -> Traced:
    """A layer, some of whose channels are a layer as well."""
    layer = made(kernel, whole)
    r.parts[layer.node] = lambda start, stop, whole: made(part(kernel, axis, start, stop), whole)
    return layer


def _dot(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    """A product over the channels: a dense layer, or the 1 x 1 convolution of a map, or one of windows side by side."""
    ((left, right), (batch, _)) = p["dimension_numbers"]
    first = isinstance(read[0], Traced)
    (x, over), (kernel, rows) = ((read[0], left), (read[1], right))[:: 1 if first else -1]
    if not (isinstance(x, Traced) and isinstance(kernel, Known)) or batch or len(over) != 1:
        return None
    (over,), (rows,) = over, rows
    if x.axes[over] in "HW":
        return _averaged(r, x, over, np.asarray(kernel.value), rows, whole, first=first)
    kept = x.axes[:over] + x.axes[over + 1 :]
    if np.ndim(kernel.value) != 2 or not (x.axes[over] == "C" or x.whole[over] == 1) or "C" in kept:
        return None
    axes = kept + "C" if first else "C" + kept
    cuts = r.op(x)
    windows = cuts.windows() if isinstance(cuts, Cuts) else Convolution(0, bias=False)
    source = replace(x, node=r.nodes[x.node].reads[0]) if isinstance(cuts, Cuts) else x
    if windows is None:
        return None

    def made(kernel: Known, whole: spec.Shape) -> Traced:
        weight = np.moveaxis(np.asarray(kernel.value), 1 - rows, 0)
        if "H" not in axes and "W" not in axes:
            return r.node(Linear(len(weight), bias=False), [x], whole, axes, weight=r.array(kernel, weight))
        weight = np.moveaxis(weight.reshape(len(weight), *windows.kernel, -1), 3, 1)
        op = replace(windows, channels=len(weight))
        return r.node(op, [source], whole, axes, weight=r.array(kernel, weight))

    return _divisible(r, made, kernel, 1 - rows, whole)


def _averaged(r: Reader, x: Traced, over: int, matrix: Any, rows: int, whole: Any, *, first: bool) -> Made:
    """A product with the means of rows or columns: an adaptive average along one axis, then along both."""
    side, length = matrix.shape[1 - rows], x.whole[over]
    means = np.zeros((side, length))
    for row, (start, stop) in zip(means, adaptive_windows(length, side), strict=True):
        row[start:stop] = 1 / (stop - start)
    if not np.allclose(np.moveaxis(matrix, rows, 1), means, rtol=1e-6):
        return None
    letter, kept = x.axes[over], x.axes[:over] + x.axes[over + 1 :]
    axes = kept + letter if first else letter + kept
    if r.op(x) == _MEANS["W" if letter == "H" else "H"]:
        return replace(r.instead(x, spec.AdaptiveAverage(side)), whole=whole, axes=axes)
    return r.node(_MEANS[letter], [x], whole, axes)


# --------------------------------------------------------------------------------------------------------------- pools


def _window(x: Traced, p: Any) -> tuple[Any, Any, Any]:
    """Kernel, stride and padding along height and width.

    Raises:
        ValueError: where the windows have several pixels along other axes.
    """
    if set(p["base_dilation"]) | set(p["window_dilation"]) != {1}:
        raise ValueError("dilated windows")
    height, width = x.axes.index("H"), x.axes.index("W")
    for i, (side, pad) in enumerate(zip(p["window_dimensions"], p["padding"], strict=True)):
        if i not in (height, width) and (side, tuple(pad)) != (1, (0, 0)):
            raise ValueError("windows over other axes")
    dimensions, strides = ints(p["window_dimensions"]), ints(p["window_strides"])
    pads = tuple(ints(p["padding"][axis]) for axis in (height, width))
    return (dimensions[height], dimensions[width]), (strides[height], strides[width]), pads


def _max_pool(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Traced:
    return r.node(spec.MaxPool(*_window(read[0], p)), read, whole, read[0].axes)


def _window_sum(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    (x,) = read
    channels = x.axes.find("C")
    if channels >= 0 and p["window_dimensions"][channels] > 1:
        before, behind = p["padding"][channels]
        alone = math.prod(p["window_dimensions"]) == p["window_dimensions"][channels] and whole == x.whole
        return r.node(ChannelSum(size=before + behind + 1, before=before), read, whole, x.axes) if alone else None
    pool = AveragePool(*_window(x, p))
    return r.node(Sum(average=pool, counts=math.prod(pool.sides)), read, whole, x.axes)


def _counts(pool: Any, sides: tuple[int, int]) -> Any:
    """Pixels of the map in each window of a pool, (rows, columns)."""
    along = []
    for axis, length in enumerate(sides):
        starts = np.arange(pool.output_size(length, axis)) * pool.strides[axis] - pool.pads[axis][0]
        along.append(np.minimum(starts + pool.sides[axis], length) - np.maximum(starts, 0))
    return np.outer(*along)


def _reduce_sum(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    (x,) = read
    reduced, axes = _reduced(x, p["axes"])
    if "N" in reduced:
        return _batch_sum(r, x, reduced, axes, whole)
    if not reduced:
        return replace(x, whole=whole, axes=axes)
    if set(reduced) == {"H", "W"}:
        op = Sum(average=spec.AdaptiveAverage(1), counts=size(x, "HW"))
        return r.node(op, read, whole, axes, (size(x, "C"), 1, 1))
    return r.node(EXP_SUM, read, whole, axes) if reduced == "C" and r.op(x) == EXP else None


def _batch_sum(r: Reader, x: Traced, reduced: str, axes: str, whole: spec.Shape) -> Known | None:
    """Over the batch and the whole map, by channel: a statistic, which is a number as a parameter is."""
    node = r.nodes[x.node]
    if axes.replace("1", "") != "C":
        return None
    if isinstance(node.op, Sum):
        if node.op.average != spec.AdaptiveAverage(1):
            return None
        mean, count = r.expected(node.reads[0]), size(x, reduced) * node.op.counts
    else:
        mean, count = r.expected(x.node), size(x, reduced)
        if node.op == spec.AdaptiveAverage(1):  # of each map before
            r.absorbed.add(x.node)
    total = arithmetic("mul", mean, Known(np.array([float(count)])))
    return replace(total, value=np.broadcast_to(total.value, (size(x, "C"),)).reshape(whole))


def _reduced(x: Traced, over: Sequence[int]) -> tuple[str, str]:
    """The letters of the axes that go, but for those one number long, and of those that stay."""
    gone = "".join(x.axes[i] for i in over if x.axes[i] != "1")
    return gone, "".join(axis for i, axis in enumerate(x.axes) if i not in over)


def _reduce_max(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    reduced, axes = _reduced(read[0], p["axes"])
    return r.node(LARGEST, read, whole, axes) if reduced == "C" else None


def average(r: Reader, x: Traced, before: Sum, divisor: Known) -> Made:
    """The average, where a sum is divided by the number of its pixels; by that of the map's own, where they differ."""
    value = np.asarray(divisor.value)
    if (value == before.counts).all():
        return r.instead(x, before.average)
    if not isinstance(before.average, AveragePool) or value.ndim != len(x.axes):
        return None
    counts = _counts(before.average, r.nodes[r.nodes[x.node].reads[0]].shape[1:])
    shape = [n if axis in "HW" else 1 for n, axis in zip(x.whole, x.axes, strict=True)]
    own = counts if x.axes.index("H") < x.axes.index("W") else counts.T
    same = np.array_equal(value, np.broadcast_to(own.reshape(shape), value.shape))
    return r.instead(x, replace(before.average, count_pad=False)) if same else None


HANDLERS: dict[str, Callable[..., Any]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _window_sum,
    **dict.fromkeys(("reduce_sum", "psum"), _reduce_sum),  # the second one over the images of a `vmap`
    "reduce_max": _reduce_max,
}
