"""JAX's operations on what comes from the images, each as a node of the graph, or as a part of one to come.

A function takes the reader, the operation's parameters, its operands and the shape that it puts out. It gives None for
what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import spec
from googlenet_jax.jaxpr import layers
from googlenet_jax.jaxpr.affine import Affine
from googlenet_jax.jaxpr.layers import EXP, EXP_SUM, LARGEST, LOG_SUM, LOWERED, Cut, Cuts, Sum, average, axes_at, ints
from googlenet_jax.jaxpr.masks import Mask, mask_of
from googlenet_jax.jaxpr.reader import Reader
from googlenet_jax.jaxpr.values import Known, Traced, by_channel, reshaped, size
from harness.check.graph import Activation, Convolution, Dropout, Flatten, Linear, Padding, Softmax, Unknown
from harness.check.readers.rewriting import Channels, Power, Product
from spec.network import Add, Concat

Made = Traced | None


@dataclass(frozen=True)
class Sign(Unknown):
    """Where a number is above zero."""

    name: str = "compare"


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
        if name == "div" and first and isinstance(before, Sum) and (mean := average(r, x, before, constant)):
            return mean
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


def _neg(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    return _arithmetic("mul")(r, p, [read[0], Known(-1.0)], whole)


def _sum_of_two(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    return r.node(Add(activation=None), [x, y], whole, x.axes) if _alike(x, y) else None


def _difference(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    if x.whole != whole or not y.along(x):
        return None
    if r.op(y) == LARGEST and r.nodes[y.node].reads == (x.node,):
        return r.node(LOWERED, [x], whole, x.axes)
    if r.op(y) == LOG_SUM and _base(r, x) == _base(r, y):
        return r.node(Softmax(log=True), [replace(x, node=_base(r, x))], whole, x.axes)
    return None


def _base(r: Reader, x: Traced) -> int:
    """What a part of a softmax is made from: its node."""
    number = x.node
    while r.nodes[number].op in (LOWERED, EXP, EXP_SUM, LOG_SUM):
        (number,) = r.nodes[number].reads
    return number


def _quotient(r: Reader, x: Traced, y: Traced, whole: spec.Shape) -> Made:
    if x.whole != whole:
        return None
    if r.op(x) == EXP and r.op(y) == EXP_SUM and y.along(x) and r.nodes[y.node].reads == (x.node,):
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
    return r.node(EXP, read, whole, read[0].axes)


def _log(r: Reader, p: Any, read: list[Any], whole: spec.Shape) -> Made:
    (x,) = read
    if r.op(x) == Softmax():
        return r.instead(x, Softmax(log=True))
    return r.node(LOG_SUM, read, whole, x.axes) if r.op(x) == EXP_SUM else None


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
    return replace(read[0], whole=whole, axes=axes_at(read[0].axes, p["permutation"]))


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
    sides = {axis: ints(sides) for axis, sides in zip(x.axes, p["padding_config"], strict=True) if any(sides)}
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
    **layers.HANDLERS,
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
