"""What a Flax NNX model does at inference, whoever wrote it: its jaxpr is read as a `harness.check.graph.Graph`.

What does not come from the images, such as arithmetic on parameters, is computed on the way; an expression of it is
kept, in which batch norm's epsilon stands.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from flax import nnx

import spec
from harness.check.graph import (
    Activation,
    Convolution,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Norm,
    Recording,
    Scale,
    Unknown,
)
from spec.network import Add, AveragePool, Concat

DTYPES = ("float32",)  # to try: XLA's convolutions of float64 take minutes on a CPU
TRAINING = False  # a jaxpr does not show batch norm's momentum, and dropout in it is arithmetic on random bits


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function; where it wants random numbers it gets some."""
    called = made.__init__ if isinstance(made, type) else made  # its metaclass takes anything
    wants = "rngs" in inspect.signature(called).parameters and "rngs" not in arguments
    return made(**arguments, **({"rngs": nnx.Rngs(0)} if wants else {}))


def settle(model: nnx.Module, dtype: str, seed: int | None) -> nnx.Module:
    """Give a model its dtype. With a seed no parameter and no statistic stays neutral: what ignores one would pass."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    rng = np.random.default_rng(seed)

    def settled(x: Any) -> Any:
        if not isinstance(x, jax.Array) or not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return x
        numbers = np.asarray(x, dtype)
        if seed is not None and numbers.size and (numbers == numbers.reshape(-1)[0]).all():
            numbers = (numbers + 0.1 * rng.random(x.shape)).astype(dtype)
        return jax.numpy.asarray(numbers)

    nnx.update(model, jax.tree.map(settled, nnx.state(model)))
    for _, module in nnx.iter_graph(model):
        for name in ("dtype", "param_dtype"):
            if isinstance(module, nnx.Module) and getattr(module, name, None) in (jax.numpy.float32, np.float32):
                setattr(module, name, jax.numpy.dtype(dtype))
    return model


def load(model: nnx.Module, path: Path) -> NoReturn:
    """Refuse."""
    raise spec.InvalidInput("weights are loaded into PyTorch's models only, so far")


def parameters(model: nnx.Module) -> int:
    """How many numbers are trained."""
    return sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))


def record(model: nnx.Module, images: spec.Array, *, training: bool) -> Recording:
    """Run a model once on images (N, C, H, W), which it takes as (N, H, W, C), in evaluation mode."""
    model.eval()
    leaves = nnx.to_flat_state(nnx.state(model))
    names = {id(leaf[...]): ".".join(map(str, path)) for path, leaf in leaves if isinstance(leaf[...], jax.Array)}
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    x = jax.numpy.asarray(images.transpose(0, 2, 3, 1), dtype)

    def run(x: jax.Array) -> list[Any]:
        return [leaf for leaf in jax.tree.leaves(model(x)) if isinstance(leaf, jax.Array)]

    closed = jax.make_jaxpr(run)(x)
    reader = _Reader(images, x.shape)
    constants = [_Constant(np.asarray(array), names.get(id(array), "")) for array in closed.consts]
    ends = reader.run(closed.jaxpr, constants, [reader.images])
    outputs = [
        (end.number, _canonical(np.asarray(y, np.float64), end.axes))
        for end, y in zip(ends, jax.jit(run)(x), strict=True)
        if isinstance(end, _Traced)
    ]
    nodes = [replace(node, op=Unknown(node.op.name)) if isinstance(node.op, Unknown) else node for node in reader.nodes]
    graph = Graph(tuple(nodes), tuple(number for number, _ in outputs), reader.arrays)
    return Recording(graph, [y for _, y in outputs], [np.zeros(0)] * len(nodes))


def _canonical(x: spec.Array, axes: str) -> spec.Array:
    """(N, C, H, W), or as it is."""
    return x.transpose([axes.index(axis) for axis in "NCHW"]) if sorted(axes) == sorted("NCHW") else x


@dataclass(frozen=True, eq=False)
class _Constant:
    """What does not come from the images: a number or an array, by its name or by the operation that made it."""

    value: Any
    name: str = ""
    operation: str = ""
    operands: tuple[_Constant, ...] = ()


@dataclass(frozen=True, eq=False)
class _Traced:
    """What comes from the images: its shape, and what each of its axes is: ``NHWC``, ``NC``; ``?``: it is not known."""

    whole: spec.Shape
    number: int  # of the node
    axes: str

    @property
    def shape(self) -> spec.Shape:
        """Of one image, in the canonical order."""
        order = "NCHW" if sorted(self.axes) == sorted("NCHW") else self.axes
        return self.whole[1:] if "?" in order else tuple(self.whole[self.axes.index(axis)] for axis in order)[1:]


@dataclass(frozen=True)
class _Sum(Unknown):
    """A sum that becomes an average once it is divided by the number of its pixels."""

    name: str = "sum"
    average: Any = None
    area: int = 0


@dataclass(frozen=True)
class _Centered(Unknown):
    """What becomes batch norm once it is multiplied."""

    name: str = "sub"


class _Reader:
    def __init__(self, images: spec.Array, shape: spec.Shape) -> None:
        self.nodes = [Node(Input(), (), "", images.shape[1:])]
        self.arrays: dict[str, spec.Array] = {}
        self.images = _Traced(shape, 0, "NHWC")
        self.place = ""

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Go through a jaxpr; those inside others are a part of it."""
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            read = [_Constant(x.val) if hasattr(x, "val") else known[x] for x in equation.invars]
            inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params), None)
            if inner is not None:
                constants = [_Constant(np.asarray(x)) for x in getattr(inner, "consts", ())]
                out = self.run(getattr(inner, "jaxpr", inner), constants, read)
            elif all(isinstance(x, _Constant) for x in read):
                out = _computed(equation, read)
            else:
                out = [self.operation(equation, read, variable.aval.shape) for variable in equation.outvars]
            known |= dict(zip(equation.outvars, out, strict=True))
        return [_Constant(x.val) if hasattr(x, "val") else known[x] for x in jaxpr.outvars]

    def operation(self, equation: Any, read: list[Any], whole: spec.Shape) -> _Traced:
        """Note an operation on what comes from the images."""
        name = equation.primitive.name
        handler = _HANDLERS.get(name)
        try:
            made = handler and handler(self, equation.params, read, whole)
        except (ValueError, IndexError, AttributeError, TypeError):
            made = None
        traced = [x for x in read if isinstance(x, _Traced)]
        return made or self.node(Unknown(name), traced, whole, "?" * len(whole))

    def node(
        self,
        op: Any,
        read: Sequence[_Traced],
        whole: spec.Shape,
        axes: str,
        shape: spec.Shape | None = None,
        **arrays: str,
    ) -> _Traced:
        """Note an operation and what it puts out."""
        made = _Traced(whole, len(self.nodes), axes)
        numbers = tuple(x.number for x in read)
        self.nodes.append(Node(op, numbers, self.placed(arrays), shape or made.shape, arrays))
        return made

    def placed(self, arrays: dict[str, str]) -> str:
        """The name of the module that the arrays belong to; without arrays that of the last one."""
        self.place = next(iter(arrays.values()), self.place + ".").rpartition(".")[0] or self.place
        return self.place

    def changed(self, before: _Traced, op: Any, **arrays: str) -> _Traced:
        """The last node with one more setting."""
        node = self.nodes[before.number]
        arrays = {**node.arrays, **arrays}
        self.nodes[before.number] = replace(node, op=op, arrays=arrays, place=self.placed(arrays))
        return before

    def array(self, constant: _Constant, value: Any) -> str:
        """Keep an array in the canonical layout, under its name."""
        name = constant.name or f"constant {len(self.arrays)}"
        self.arrays[name] = np.asarray(value, np.float64)
        return name

    def last(self, x: _Traced) -> Any:
        """The operation that puts this out, if nothing can have read it so far."""
        return self.nodes[x.number].op if x.number == len(self.nodes) - 1 else None


_RESHAPING = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy")


def _computed(equation: Any, read: list[_Constant]) -> list[_Constant]:
    """What an operation makes of constants; by NumPy where that is easy, since JAX compiles for every shape."""
    name = equation.primitive.name
    if name in _IN_NUMPY:
        values = [_IN_NUMPY[name](equation.params, *(np.asarray(x.value) for x in read))]
    else:
        made = equation.primitive.bind(*(x.value for x in read), **equation.params)
        values = list(made) if equation.primitive.multiple_results else [made]
    if name in _RESHAPING and np.size(values[0]) == np.size(read[0].value):
        return [replace(read[0], value=values[0])]
    return [_Constant(value, "", name, tuple(read)) for value in values]


def _broadcast(p: Any, x: spec.Array) -> spec.Array:
    axes = list(p["broadcast_dimensions"])
    sides = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(p["shape"]))]
    return np.broadcast_to(x.reshape(sides), p["shape"])


_IN_NUMPY: dict[str, Callable[..., spec.Array]] = {
    "add": lambda p, x, y: x + y,
    "sub": lambda p, x, y: x - y,
    "mul": lambda p, x, y: x * y,
    "rsqrt": lambda p, x: 1 / np.sqrt(x),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "copy": lambda p, x: x,
}


def _conv(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    x, kernel = read
    lhs, rhs, out = p["dimension_numbers"]
    plain = isinstance(kernel, _Constant) and set(p["lhs_dilation"]) == {1} and p["batch_group_count"] == 1
    if not plain or "".join(x.axes[i] for i in lhs) != "NCHW":
        return None
    weight = np.asarray(kernel.value).transpose(rhs)
    axes = "".join("NCHW"[out.index(i)] for i in range(4))
    pads = tuple((int(a), int(b)) for a, b in p["padding"])
    stride, dilation = tuple(p["window_strides"]), tuple(p["rhs_dilation"])
    op = Convolution(len(weight), weight.shape[2:], stride, pads, dilation, p["feature_group_count"], bias=False)
    return r.node(op, [x], whole, axes, weight=r.array(kernel, weight))


def _dot(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    x, kernel = read
    ((left, right), (batch, _)) = p["dimension_numbers"]
    if not isinstance(kernel, _Constant) or batch or x.axes != "NC" or tuple(left) != (1,):
        return None
    weight = np.asarray(kernel.value)
    weight = weight if tuple(right) == (1,) else weight.T
    return r.node(Linear(len(weight), bias=False), [x], whole, "NC", weight=r.array(kernel, weight))


def _sides(x: _Traced, numbers: Sequence[Any]) -> Any:
    """Those for height and width, where the others are one."""
    h, w = x.axes.index("H"), x.axes.index("W")
    others = [n for i, n in enumerate(numbers) if i not in (h, w)]
    if any(n not in (1, (0, 0)) for n in others):
        raise ValueError("windows over other axes")
    return numbers[h], numbers[w]


def _window(x: _Traced, p: Any) -> tuple[Any, Any, Any]:
    if set(p["base_dilation"]) | set(p["window_dilation"]) != {1}:
        raise ValueError("dilated windows")
    kernel, stride, pads = (
        _sides(x, tuple(map(_plain, p[key]))) for key in ("window_dimensions", "window_strides", "padding")
    )
    return kernel, stride, pads


def _plain(n: Any) -> Any:
    return tuple(map(int, n)) if isinstance(n, tuple | list) else int(n)


def _max_pool(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced:
    return r.node(spec.MaxPool(*_window(read[0], p)), read, whole, read[0].axes)


def _window_sum(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced:
    kernel, stride, pads = _window(read[0], p)
    return r.node(_Sum(average=AveragePool(kernel, stride, pads), area=math.prod(kernel)), read, whole, read[0].axes)


def _reduce_sum(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    (x,) = read
    if {x.axes[axis] for axis in p["axes"]} != {"H", "W"}:
        return None
    area = math.prod(n for n, axis in zip(x.whole, x.axes, strict=True) if axis in "HW")
    return r.node(_Sum(average=spec.AdaptiveAverage(1), area=area), read, whole, "NC", (whole[1], 1, 1))


def _with_constant(name: str) -> Callable[..., Any]:
    """Arithmetic of two: with a number, or with one number for each channel."""

    def made(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> Any:
        if all(isinstance(x, _Traced) for x in read):
            same = read[0].axes == read[1].axes and read[0].shape == read[1].shape
            return r.node(Add(activation=None), read, whole, read[0].axes) if name == "add" and same else None
        x, constant = read if isinstance(read[0], _Traced) else read[::-1]
        first = x is read[0]
        numbers = _by_channel(x, constant)
        if numbers is None or (name in ("sub", "div") and not first):
            return None
        before, single = r.last(x), numbers.min() == numbers.max() and not constant.name and not constant.operands
        if name == "div" and single and isinstance(before, _Sum) and numbers[0] == before.area:
            return r.changed(x, before.average)
        if name == "add" and isinstance(before, Convolution | Linear) and not before.bias and not single:
            return r.changed(x, replace(before, bias=True), bias=r.array(constant, numbers))
        if name == "sub" and constant.name:
            return r.node(_Centered(), [x], whole, x.axes, mean=r.array(constant, numbers))
        if name == "mul" and isinstance(before, _Centered):
            return _normed(r, x, constant, numbers)
        if name == "add" and isinstance(before, Norm) and not before.shift and constant.name:
            return r.changed(x, replace(before, shift=True), bias=r.array(constant, numbers))
        if not single:
            return None
        n = float(numbers[0])
        ops = {"add": Scale(shift=n), "sub": Scale(shift=-n), "mul": Scale(factor=n), "div": Scale(factor=1 / n)}
        return r.node(ops[name], [x], whole, x.axes)

    return made


def _by_channel(x: _Traced, constant: _Constant) -> spec.Array | None:
    """One number for each channel of x, where the constant is that."""
    if "C" not in x.axes:
        return None
    full = np.broadcast_to(np.asarray(constant.value, np.float64), x.whole)
    lines = np.moveaxis(full, x.axes.index("C"), 0).reshape(full.shape[x.axes.index("C")], -1)
    return lines[:, 0].copy() if (lines == lines[:, :1]).all() else None


def _normed(r: _Reader, x: _Traced, constant: _Constant, numbers: spec.Array) -> _Traced | None:
    """Batch norm, whose factor is rsqrt(var + epsilon), or that times the scale."""
    factors = constant.operands if constant.operation == "mul" else (constant,)
    roots = [f for f in factors if f.operation == "rsqrt"]
    scales = [f for f in factors if f.operation != "rsqrt"]
    if len(roots) != 1 or len(scales) > 1 or roots[0].operands[0].operation != "add":
        return None
    variance, epsilon = sorted(roots[0].operands[0].operands, key=lambda x: not x.name)
    if not variance.name or np.size(epsilon.value) != 1 or any(not scale.name for scale in scales):
        return None
    arrays = {"var": r.array(variance, np.reshape(variance.value, -1))}
    if scales:
        arrays["weight"] = r.array(scales[0], np.reshape(scales[0].value, -1))
    op = Norm(float(np.reshape(epsilon.value, -1)[0]), None, scale=bool(scales), shift=False)
    return r.changed(x, op, **arrays)


def _maximum(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    x, constant = read if isinstance(read[0], _Traced) else read[::-1]
    zero = isinstance(constant, _Constant) and not np.asarray(constant.value).any()
    return r.node(Activation("relu"), [x], whole, x.axes) if zero else None


def _pointwise(kind: str) -> Callable[..., Any]:
    return lambda r, p, read, whole: r.node(Activation(kind), read, whole, read[0].axes)


def _concatenate(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    axes = {getattr(x, "axes", "") for x in read}
    same = len(axes) == 1 and p["dimension"] == next(iter(axes)).find("C")
    return r.node(Concat(), read, whole, next(iter(axes))) if same else None


def _transpose(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced:
    """The same numbers: only what an axis is has another place."""
    return replace(read[0], whole=whole, axes="".join(read[0].axes[i] for i in p["permutation"]))


def _reshape(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    x = read[0]
    if whole == x.whole:
        return replace(x, whole=whole)
    if len(whole) != 2 or len(x.axes) != 4 or whole[0] != x.whole[0] or x.axes[0] != "N":
        return None
    pixel = math.prod(x.shape[1:]) == 1
    if not pixel and x.axes not in ("NHWC", "NCHW"):
        return None
    return r.node(Flatten(last=not pixel and x.axes == "NHWC"), [x], whole, "NC")


def _same(r: _Reader, p: Any, read: list[Any], whole: spec.Shape) -> _Traced | None:
    return replace(read[0], whole=whole) if whole == read[0].whole else None


_HANDLERS: dict[str, Callable[..., Any]] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _window_sum,
    "reduce_sum": _reduce_sum,
    "max": _maximum,
    "logistic": _pointwise("sigmoid"),
    "tanh": _pointwise("tanh"),
    "concatenate": _concatenate,
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _reshape,
    **{name: _with_constant(name) for name in ("add", "sub", "mul", "div")},
    **dict.fromkeys(("convert_element_type", "copy", "stop_gradient", "optimization_barrier"), _same),
}
