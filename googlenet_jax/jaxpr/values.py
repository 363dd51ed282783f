"""What there is in a jaxpr: arrays that do not come from the images, and maps that do, whose axes have names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

import spec


@dataclass(frozen=True, eq=False)
class Known:
    """A number or an array that does not come from the images, by its name or by the operation that made it."""

    value: Any
    name: str = ""
    made_by: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    operands: tuple[Known, ...] = ()

    @cached_property
    def leaves(self) -> dict[str, Known]:
        """The parameters in an expression, by name."""
        if self.name:
            return {self.name: self}
        return {name: leaf for operand in self.operands for name, leaf in operand.leaves.items()}

    @property
    def plain(self) -> float | None:
        """The number, where it is one and the same everywhere and belongs to no parameter."""
        numbers = np.ravel(self.value)
        same = numbers.size and (numbers == numbers[0]).all() and not self.leaves
        return float(numbers[0]) if same else None


@dataclass(frozen=True, eq=False)
class Traced:
    """What comes from the images.

    `axes` has a letter an axis: N, C, H, W; 1: one number long and nothing in particular; ?: it is not known.
    """

    whole: spec.Shape
    node: int
    axes: str

    @property
    def shape(self) -> spec.Shape:
        """Of one image, in the canonical order."""
        if "?" in self.axes:
            return self.whole[1:]
        sizes = dict(zip(self.axes, self.whole, strict=True))
        return tuple(sizes.get(axis, 1) for axis in ("CHW" if "H" in sizes or "W" in sizes else "C"))

    def has(self, axes: str) -> bool:
        """Whether these are its axes; one that is one number long may stand for any."""
        pairs = zip(self.axes, axes, self.whole, strict=False)
        return len(self.axes) == len(axes) and all(own == axis or (own == "1" and n == 1) for own, axis, n in pairs)

    def only(self, letters: str) -> bool:
        """Whether it has these axes and no others but those one number long."""
        return sorted(self.axes.replace("1", "")) == sorted(letters)

    def along(self, other: Traced) -> bool:
        """Whether it lies on the other one as it is, repeated where it is one number long."""
        pairs = zip(self.axes, other.axes, self.whole, other.whole, strict=False)
        return len(self.axes) == len(other.axes) and all(
            (n == 1 and m != n) or (axis == own and m == n) or (n == m == 1) for axis, own, n, m in pairs
        )


def reshaped(axes: str, before: Sequence[int], after: Sequence[int]) -> str | None:
    """The axes' letters where only axes one number long came and went; None where it is another reshaping."""
    if [n for n in before if n != 1] != [n for n in after if n != 1]:
        return None
    letters, i = "", 0
    for n in after:
        if n != 1:
            while before[i] == 1:
                i += 1
        if n == 1 and (i == len(before) or before[i] != 1):
            letters += "1"
        else:
            letters += axes[i]
            i += 1
    return letters


# ---------------------------------------------------------------------------------------------------------- constants

_LAYOUT = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "slice", "convert_element_type", "copy")


def computed(equation: Any, read: Sequence[Known]) -> list[Known]:
    """What an operation makes of constants; by NumPy where that is easy, since JAX compiles for every shape."""
    name, params = equation.primitive.name, equation.params
    if name == "select_n" and (chosen := read[0].plain) is not None:
        return [read[1 + int(chosen)]]
    if name in _IN_NUMPY and all(isinstance(x.value, np.ndarray | np.generic | float | int) for x in read):
        values = [_IN_NUMPY[name](params, *(np.asarray(x.value) for x in read))]
    else:
        made = equation.primitive.bind(*(x.value for x in read), **params)
        values = list(made) if equation.primitive.multiple_results else [made]
    if name in _LAYOUT and np.size(values[0]) == np.size(read[0].value):
        return [replace(read[0], value=values[0])]  # the same numbers
    return [Known(value, "", name, params, tuple(read)) for value in values]


def _broadcast(p: Any, x: spec.Array) -> spec.Array:
    axes = list(p["broadcast_dimensions"])
    sides = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(p["shape"]))]
    return np.broadcast_to(x.reshape(sides), p["shape"])


def _slice(p: Any, x: spec.Array) -> spec.Array:
    steps = p["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], steps))]


_ELEMENTWISE: dict[str, Callable[..., spec.Array]] = {
    "add": lambda p, x, y: x + y,
    "sub": lambda p, x, y: x - y,
    "mul": lambda p, x, y: x * y,
    "div": lambda p, x, y: x / y,
    "neg": lambda p, x: -x,
    "sqrt": lambda p, x: np.sqrt(x),
    "rsqrt": lambda p, x: 1 / np.sqrt(x),
    "pow": lambda p, x, y: x**y,
    "integer_pow": lambda p, x: x ** p["y"],
    "square": lambda p, x: x * x,
    "max": lambda p, x, y: np.maximum(x, y),
}
_COMPARISONS = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal}
_IN_NUMPY: dict[str, Callable[..., spec.Array]] = {
    **_ELEMENTWISE,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "slice": _slice,
    "concatenate": lambda p, *parts: np.concatenate(parts, p["dimension"]),
    "shift_right_logical": lambda p, x, y: x >> y,
    "or": lambda p, x, y: x | y,
    "bitcast_convert_type": lambda p, x: x.view(p["new_dtype"]),
    **{name: lambda p, x, y, compare=compare: compare(x, y) for name, compare in _COMPARISONS.items()},
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "copy": lambda p, x: x,
}


def part(x: Known, axis: int, start: int, stop: int) -> Known:
    """A piece of an array; one of those that it was put together from, where it is that."""
    if x.made_by == "concatenate" and x.params["dimension"] == axis:
        begin = 0
        for operand in x.operands:
            end = begin + np.shape(operand.value)[axis]
            if (begin, end) == (start, stop):
                return operand
            begin = end
    return Known(np.take(np.asarray(x.value), range(start, stop), axis))


# ----------------------------------------------------------------------------------------------- numbers by channel


def by_channel(x: Traced, constant: Known) -> Known | None:
    """One number for each channel of x, or one for all, where the constant is that."""
    value = np.asarray(constant.value, np.float64)
    if value.size == 1:
        return replace(constant, value=value.reshape(1))
    if "C" not in x.axes:
        return None
    full = np.broadcast_to(value, x.whole)
    channels = x.axes.index("C")
    lines = np.moveaxis(full, channels, 0).reshape(full.shape[channels], -1)
    return replace(constant, value=lines[:, 0].copy()) if (lines == lines[:, :1]).all() else None


def arithmetic(name: str, *operands: Known) -> Known:
    """Of numbers by channel."""
    return Known(_ELEMENTWISE[name]({}, *(x.value for x in operands)), "", name, {}, operands)


def evaluated(x: Known, values: Mapping[str, spec.Array]) -> spec.Array:
    """An expression with other numbers in its parameters' places.

    Raises:
        ValueError: where it is no arithmetic of single numbers.
    """
    if x.name:
        return values[x.name]
    if not x.leaves:
        numbers = np.ravel(np.asarray(x.value, np.float64))
        return numbers[:1] if (numbers == numbers[:1]).all() else numbers
    if x.made_by == "broadcast_in_dim":  # repeated over the map
        return evaluated(x.operands[0], values)
    if x.made_by not in _ELEMENTWISE:
        raise ValueError(f"{x.made_by} of parameters")
    return _ELEMENTWISE[x.made_by](x.params, *(evaluated(operand, values) for operand in x.operands))


def size(x: Traced, letters: str) -> int:
    """The number of places along some axes."""
    return math.prod(n for n, axis in zip(x.whole, x.axes, strict=True) if axis in letters)


def depends(x: Known, name: str, values: Mapping[str, spec.Array]) -> bool:
    """Whether an expression has other numbers where a parameter has."""
    return not np.allclose(evaluated(x, values), evaluated(x, {**values, name: values[name] + 1}), rtol=1e-9)
