"""JAX's operations on what comes from the images, each as a node of the graph, or as a part of one to come.

A function takes the reader, the operation's parameters, its operands and the shape that it puts out. It gives None for
what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

import spec
from googlenet_jax.jaxpr.affine import Affine
from googlenet_jax.jaxpr.masks import Mask, mask_of
from googlenet_jax.jaxpr.reader import Reader
from googlenet_jax.jaxpr.values import Known, Traced, arithmetic, by_channel, part, reshaped, size
from harness.check.graph import Activation, Convolution, Dropout, Flatten, Linear, Padding, Softmax, Unknown
from harness.check.readers.rewriting import Channels, ChannelSum, Power, Product
from spec.network import Add, AveragePool, Concat
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
class Sign(Unknown):
    """Where a number is above zero."""

    name: str = "compare"


@dataclass(frozen=True)
class Part(Unknown):
    """Of a softmax, or of an average along both axes."""


# The largest number of an image, what is left over it, its exponentials, their sum, and that sum's logarithm.
_LARGEST, _LOWERED, _EXP, _EXP_SUM, _LOG_SUM = map(Part, ("reduce_max", "sub", "exp", "reduce_sum", "log"))
_MEANS = {axis: Part(f"means along {axis}") for axis in "HW"}

# ------------------------------------------------------------------------------------------------ layers with weights


def _conv(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, kernel = read
    lhs, rhs, out = p["dimension_numbers"]
    plain = isinstance(kernel, Known) and set(p["lhs_dilation"]) == {1} and p["batch_group_count"] == 1
    if not plain or not replace(x, whole=tuple(x.whole[i] for i in lhs), axes=_at(x.axes, lhs)).has("NCHW"):
        return None
    axes = "".join("NCHW"[out.index(i)] for i in range(4))
    pads = tuple(map(_ints, p["padding"]))
    stride, dilation, groups = _ints(p["window_strides"]), _ints(p["rhs_dilation"]), int(p["feature_group_count"])

    def made(kernel: Known, whole: spec.Shape) -> Traced:
        weight = np.asarray(kernel.value).transpose(rhs)
        op = Convolution(len(weight), weight.shape[2:], stride, pads, dilation, groups, bias=False)
        return r.node(op, [x], whole, axes, weight=r.array(kernel, weight))

    return _divisible(r, made, kernel, rhs[0], whole) if groups == 1 else made(kernel, whole)


def _ints(numbers: Sequence[Any]) -> tuple[int, ...]:
    """Python's own: libraries pass NumPy's along."""
    return tuple(map(int, numbers))


def _at(axes: str, order: Sequence[int]) -> str:
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
    dimensions, strides = _ints(p["window_dimensions"]), _ints(p["window_strides"])
    pads = tuple(_ints(p["padding"][axis]) for axis in (height, width))
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
    return r.node(_EXP_SUM, read, whole, axes) if reduced == "C" and r.op(x) == _EXP else None


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
    return r.node(_LARGEST, read, whole, axes) if reduced == "C" else None


# ---------------------------------------------------------------------------------------------------------- arithmetic


def _arithmetic(name: str) -> Callable[..., Any]:
    """Of two: of what comes from the images with a number for each channel, or with another one of these."""

    def made(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
        if all(isinstance(x, Traced) for x in read):
            return _OF_TWO[name](r, read[0], read[1], whole)
        first = isinstance(read[0], Traced)
        x, constant = read if first else read[::-1]
        if x.whole != whole:
            return None
        if name == "mul" and (mask := mask_of(constant)):
            return _dropped(r, x, mask, 0 if first else 1)
        before = r.op(x)
        if name == "div" and first and isinstance(before, Sum) and (average := _average(r, x, before, constant)):
            return average
        numbers = by_channel(x, constant)
        if numbers is None or (name == "div" and not first):
            return None
        plain = numbers.plain
        if name == "mul" and isinstance(before, Sum) and plain and np.isclose(plain * before.counts, 1, 1e-6):
            return r.instead(x, before.average)
        if plain == (1 if name in ("mul", "div") else 0) and (first or name != "sub"):
            return x
        if name == "add" and isinstance(before, Convolution | Linear) and not before.bias and plain is None:
            if constant.name or not constant.leaves:
                return r.instead(x, replace(before, bias=True), bias=r.array(constant, _whole(x, numbers)))
        if isinstance(before, Affine) and not before.plain and plain is None:
            return r.instead(x, before.then(name, numbers, first=first))
        return r.node(Affine(name).then(name, numbers, first=first), [x], whole, x.axes)

    return made


def _whole(x: Traced, numbers: Known) -> Any:
    return np.broadcast_to(numbers.value, (size(x, "C"),))


def _average(r: Reader, x: Traced, before: Sum, divisor: Known) -> Made:
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


def _neg(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    return _arithmetic("mul")(r, p, [read[0], Known(-1.0)], whole)


def _sum_of_two(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    return r.node(Add(activation=None), [x, y], whole, x.axes) if _alike(x, y) else None


def _difference(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    if x.whole != whole or not y.along(x):
        return None
    if r.op(y) == _LARGEST and r.nodes[y.node].reads == (x.node,):
        return r.node(_LOWERED, [x], whole, x.axes)
    if r.op(y) == _LOG_SUM and _base(r, x) == _base(r, y):
        return r.node(Softmax(log=True), [replace(x, node=_base(r, x))], whole, x.axes)
    return None


def _base(r: Reader, x: Traced) -> int:
    """What a part of a softmax is made from: its node."""
    number = x.node
    while r.nodes[number].op in (_LOWERED, _EXP, _EXP_SUM, _LOG_SUM):
        (number,) = r.nodes[number].reads
    return number


def _quotient(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    if x.whole != whole:
        return None
    if r.op(x) == _EXP and r.op(y) == _EXP_SUM and y.along(x) and r.nodes[y.node].reads == (x.node,):
        return r.node(Softmax(), [replace(x, node=_base(r, x))], whole, x.axes)
    return r.node(Product(inverted=True), [x, y], whole, x.axes) if _alike(x, y) else None


def _product(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    return r.node(Product(), [x, y], whole, x.axes) if _alike(x, y) else None


def _alike(x: Traced, y: Traced) -> bool:
    return (x.whole, x.axes) == (y.whole, y.axes) and "?" not in x.axes


_OF_TWO = {"add": _sum_of_two, "sub": _difference, "mul": _product, "div": _quotient}


def _power(exponent: float | None = None) -> Callable[..., Any]:
    def made(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
        n = exponent or (p["y"] if len(read) == 1 else read[1].plain)
        return r.node(Power(exponent=float(n)), read[:1], whole, read[0].axes)

    return made


def _exp(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    return r.node(_EXP, read, whole, read[0].axes)


def _log(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    (x,) = read
    if r.op(x) == Softmax():
        return r.instead(x, Softmax(log=True))
    return r.node(_LOG_SUM, read, whole, x.axes) if r.op(x) == _EXP_SUM else None


# --------------------------------------------------------------------------------------------------------- activations


def _maximum(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, constant = read if isinstance(read[0], Traced) else read[::-1]
    limit = constant.plain
    if limit == -math.inf:
        return x
    return r.node(Activation("relu"), [x], whole, x.axes) if limit == 0 else None


def _minimum(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, constant = read if isinstance(read[0], Traced) else read[::-1]
    six = constant.plain == 6 and r.op(x) == Activation("relu")
    return r.instead(x, Activation("relu6")) if six else None


def _clamp(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    low, x, high = read
    six = (low.plain, high.plain) == (0, 6)
    return r.node(Activation("relu6"), [x], whole, x.axes) if six else None


def _compare(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, constant = read
    return r.node(Sign(), [x], whole, x.axes) if constant.plain == 0 else None


def _select(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    """One number where another is above zero, one else: ReLU and leaky ReLU."""
    which, negative, x = read
    if isinstance(which, Known):
        return _masked(r, which, negative, x)
    if not isinstance(r.op(which), Sign) or r.nodes[which.node].reads != (x.node,):
        return None
    if isinstance(negative, Known):
        return r.node(Activation("relu"), [x], whole, x.axes) if negative.plain == 0 else None
    scaled = r.op(negative)
    if not isinstance(scaled, Affine) or r.nodes[negative.node].reads != (x.node,) or scaled.shift.plain != 0:
        return None
    slope = scaled.factor.plain
    return None if slope is None else r.node(Activation("leaky_relu", slope), [x], whole, x.axes)


def _masked(r: Reader, which: Known, off: Any, on: Any) -> Made:
    """Zero, or what comes from the images, as a mask says."""
    mask = mask_of(which)
    if mask is None:
        return None
    if isinstance(on, Traced) and isinstance(off, Known) and off.plain == 0:
        return _dropped(r, on, mask, 2)
    if isinstance(off, Traced) and isinstance(on, Known) and on.plain == 0:
        return _dropped(r, off, mask._replace(kept=1 - mask.kept, mean=1 - mask.mean), 1)
    return None


def _dropped(r: Reader, x: Traced, mask: Mask, operand: int) -> Made:
    """Dropout, and a factor where the map has not been divided by the share that is kept."""
    channels = mask.size < math.prod(x.whole)
    if channels and mask.size != size(x, "NC"):
        return None
    r.dropped[r.variable] = operand, mask.mean
    op = Dropout(round(1 - mask.kept, 7), always=not r.training, channels=channels)
    before = r.op(x)
    if isinstance(before, Affine) and before.shift.plain == 0 and before.factor.plain is not None:
        if np.isclose(before.factor.plain * mask.mean, 1, rtol=1e-6):
            return r.instead(x, op)
    dropped = r.node(op, [x], x.whole, x.axes)
    return r.node(Affine("mul", Known(np.array([mask.mean]))), [dropped], x.whole, x.axes)


def _pointwise(kind: str) -> Callable[..., Any]:
    return lambda r, p, read, whole: r.node(Activation(kind), read, whole, read[0].axes)


# -------------------------------------------------------------------------------------------------------------- shapes


def _transpose(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Traced:
    """The same numbers: only what an axis is has another place."""
    return replace(read[0], whole=whole, axes=_at(read[0].axes, p["permutation"]))


def _reshape(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    """The same map where only axes one number long came and went; one row of numbers where a map is laid out."""
    x = read[0]
    if (axes := reshaped(x.axes, x.whole, whole)) is not None:
        return replace(x, whole=whole, axes=axes)
    rest = x.axes.replace("1", "")
    order = rest[1:] if rest[:1] == "N" else ""
    if [n for n in whole if n != 1] != [x.whole[x.axes.index("N")], math.prod(x.shape)] or "N" not in rest:
        return None
    if order not in ("CHW", "HWC", "HW"):
        return None
    letters = iter("NC")
    axes = "".join("1" if n == 1 else next(letters) for n in whole)
    return r.node(Flatten(last=order == "HWC" and x.shape[0] > 1), [x], whole, axes, (math.prod(x.shape),))


def _broadcast(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    """The same map with more axes one number long."""
    x, places = read[0], tuple(p["broadcast_dimensions"])
    if math.prod(x.whole) != math.prod(whole):
        return None
    axes = "".join(x.axes[places.index(i)] if i in places else "1" for i in range(len(whole)))
    return replace(x, whole=whole, axes=axes)


def _same(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    return replace(read[0], whole=whole) if whole == read[0].whole else None


def _concatenate(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    axes = {getattr(x, "axes", "?") for x in read}
    if len(axes) != 1 or p["dimension"] != next(iter(axes)).find("C"):
        return None
    (axes,) = axes
    ops = [r.op(x) for x in read]
    if all(isinstance(op, Cuts) for op in ops) and len({r.nodes[x.node].reads for x in read}) == 1:
        return r.instead(replace(read[0], whole=whole), Cuts(cuts=tuple(cut for op in ops for cut in op.cuts)))
    return r.node(Concat(), read, whole, axes)


def _pad(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    x, value = read
    sides = {axis: _ints(sides) for axis, sides in zip(x.axes, p["padding_config"], strict=True) if any(sides)}
    if any(min(each) < 0 or each[2] for each in sides.values()) or value.plain is None:
        return None
    if sides.keys() <= {"H", "W"}:
        pads = tuple(sides.get(axis, (0, 0, 0))[:2] for axis in "HW")
        return r.node(Padding(pads, value.plain), [x], whole, x.axes)
    if sides.keys() == {"C"} and value.plain == 0:
        return r.node(Channels(start=-sides["C"][0]), [x], whole, x.axes)
    return None


def _slice(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    (x,) = read
    starts, steps = p["start_indices"], p["strides"] or (1,) * len(whole)
    if whole == x.whole:
        return x
    shortened = {x.axes[i] for i in range(len(whole)) if whole[i] != x.whole[i]}
    if shortened == {"C"}:
        axis = x.axes.index("C")
        return _some_channels(r, x, starts[axis], whole, axis) if steps[axis] == 1 else None
    if shortened <= {"H", "W"}:
        height, width = x.axes.index("H"), x.axes.index("W")
        cut = Cut((starts[height], starts[width]), (steps[height], steps[width]))
        return r.node(Cuts(cuts=(cut,)), [x], whole, x.axes)
    return None


def _some_channels(r: Reader, x: Traced, start: int, whole: spec.Shape, axis: int) -> Made:
    """Some channels of a layer are a layer."""
    if x.node in r.parts:
        r.absorbed.add(x.node)
        return r.parts[x.node](start, start + whole[axis], whole)
    return r.node(Channels(start=start), [x], whole, x.axes)


def _split(r: Reader, p: Any, read: list[Any], wholes: list[spec.Shape]) -> list[Traced] | None:
    (x,) = read
    axis, start, parts = p["axis"], 0, []
    if x.axes[axis] != "C":
        return None
    for whole in wholes:
        parts.append(_some_channels(r, x, start, whole, axis))
        start += whole[axis]
    return parts if all(parts) else None


HANDLERS: dict[str, Callable[..., Any]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _window_sum,
    **dict.fromkeys(("reduce_sum", "psum"), _reduce_sum),  # the second one over the images of a `vmap`
    "reduce_max": _reduce_max,
    **{name: _arithmetic(name) for name in _OF_TWO},
    "neg": _neg,
    "integer_pow": _power(),
    "pow": _power(),
    "square": _power(2.0),
    "sqrt": _power(0.5),
    "rsqrt": _power(-0.5),
    "exp": _exp,
    "log": _log,
    "max": _maximum,
    "min": _minimum,
    "clamp": _clamp,
    "ge": _compare,
    "gt": _compare,
    "select_n": _select,
    "logistic": _pointwise("sigmoid"),
    "tanh": _pointwise("tanh"),
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _reshape,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "pad": _pad,
    "slice": _slice,
    "split": _split,
    **dict.fromkeys(("convert_element_type", "copy", "stop_gradient", "optimization_barrier"), _same),
}
