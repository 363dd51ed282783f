"""What a call of each of PyTorch's functions is as an operation of a graph.

Source: PyTorch 2.13, torch/nn/functional.py and torch/_torch_docs.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

import spec
from harness.check.graph import (
    Activation,
    Convolution,
    Dropout,
    Flatten,
    Linear,
    Norm,
    Padding,
    Scale,
    Softmax,
    Unknown,
)
from harness.check.readers.rewriting import Channels, ChannelSum, Power, Product
from harness.check.readers.written_norm import NUMBERS, ByChannel
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair

if TYPE_CHECKING:
    from googlenet_pt.functions.recorder import Recorder


Made = Any  # an operation, and its arrays by role where it has some; the number of a node; None: it is unknown


def _pair(x: Any) -> Pair:
    height, width = (x, x) if isinstance(x, int) else (x[0], x[-1])
    return int(height), int(width)


def _pads(x: Any) -> Pads:
    height, width = _pair(x)
    return (height, height), (width, width)


def _arrays(**roles: Tensor | None) -> dict[str, Tensor]:
    return {role: array for role, array in roles.items() if array is not None}


def _conv2d(
    r: Recorder, y: Tensor, input: Tensor, weight: Tensor, bias=None, stride=1, padding=0, dilation=1, groups=1
) -> Made:
    kernel, dilation = _pair(weight.shape[2:]), _pair(dilation)
    if padding == "same":
        whole = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
        pads = tuple((n // 2, n - n // 2) for n in whole)
    else:
        pads = _pads(0 if padding == "valid" else padding)
    op = Convolution(len(weight), kernel, _pair(stride), pads, dilation, groups, bias is not None)
    return op, _arrays(weight=weight, bias=bias)


def _linear(r: Recorder, y: Tensor, input: Tensor, weight: Tensor, bias=None) -> Made:
    return (Linear(len(weight), bias is not None), _arrays(weight=weight, bias=bias)) if input.dim() == 2 else None


def _max_pool2d(
    r, y, input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
) -> Made:
    if _pair(dilation) != (1, 1):
        return None
    kernel = _pair(kernel_size)
    made = spec.MaxPool(kernel, _pair(stride or kernel), _pads(padding), ceil=bool(ceil_mode))
    # PyTorch leaves out a last window that would begin behind the map and its padding.
    size = tuple(y.shape[2:])
    exact = [op for op in (made, spec.MaxPool(*_settings(made))) if op.output_sizes(tuple(input.shape[1:])) == size]
    return (exact[0],) if exact else None


def _settings(pool: Any) -> tuple[Any, ...]:
    return pool.kernel, pool.stride, pool.pad


def _avg_pool2d(
    r, y, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
) -> Made:
    kernel, padding = _pair(kernel_size), _pair(padding)
    op = AveragePool(kernel, _pair(stride or kernel), _pads(padding), bool(count_include_pad))
    sizes = zip(y.shape[2:], op.strides, op.sides, padding, input.shape[2:], strict=True)
    # A last window may hang over the edge.
    over = [max((count - 1) * step + side - pad - size, pad) for count, step, side, pad, size in sizes]
    pads = ((padding[0], over[0]), (padding[1], over[1]))
    if divisor_override is not None:  # of every window
        area = math.prod(kernel)
        mean = r.node(AveragePool(kernel, op.stride, pads), [r.known[id(input)]], y * (divisor_override / area))
        return r.node(Scale(area / divisor_override), [mean], y)
    if op.output_sizes(tuple(input.shape[1:])) == tuple(y.shape[2:]):
        return (op,)
    # It is divided by its pixels then.
    return (AveragePool(kernel, op.stride, pads, count_pad=False),) if padding == (0, 0) else None


def _adaptive_avg_pool2d(r, y, input, output_size) -> Made:
    height, width = y.shape[2:]
    return (spec.AdaptiveAverage(int(height)),) if height == width else None


def _mean(r, y, input, dim=None, keepdim=False, dtype=None) -> Made:
    axes = {axis % 4 for axis in ([dim] if isinstance(dim, int) else dim or ())}
    if input.dim() != 4 or axes != {2, 3}:
        return None
    whole = r.node(spec.AdaptiveAverage(1), [r.known[id(input)]], y.reshape(*y.shape[:2], 1, 1))
    return whole if keepdim else r.node(Flatten(), [whole], y)


def _batch_norm(
    r, y, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Made:
    op = Norm(eps, momentum, weight is not None, bias is not None, of_batch=bool(training))
    return op, _arrays(weight=weight, bias=bias, mean=running_mean, var=running_var)


def _local_response_norm(r, y, input, size, alpha=1e-4, beta=0.75, k=1.0) -> Made:
    return (LRN(int(size), float(alpha), float(beta), float(k)),) if size % 2 else None


def _dropout(r, y, input, p=0.5, training=True, inplace=False) -> Made:
    return (Dropout(float(p), always=not r.training),) if training else r.known[id(input)]


def _dropout2d(r, y, input, p=0.5, training=True, inplace=False) -> Made:
    return (
        (Dropout(float(p), always=not r.training, channels=math.prod(y.shape[2:]) > 1),)
        if training
        else r.known[id(input)]
    )


def _cat(r, y, tensors, dim=0) -> Made:
    traced = all(id(x) in r.known for x in tensors)
    return (Concat(),) if traced and dim % y.dim() == 1 and y.dim() in (2, 4) else None


def _concat(r, y, tensors, dim=0, axis=None) -> Made:
    return _cat(r, y, tensors, dim if axis is None else axis)


def _number(x: Any) -> float | None:
    """A number, which may be a tensor of its own."""
    return float(x) if not isinstance(x, Tensor) or (x.dim() == 0 and not x.requires_grad) else None


def _by_channel(r: Recorder, name: str, input: Any, other: Any) -> Made:
    """Arithmetic with one number for each channel."""
    x, numbers = (input, other) if id(input) in r.known else (other, input)
    if id(numbers) in r.known or (x is other and name in ("sub", "div")):
        return None
    shape = (*(1,) * (x.dim() - numbers.dim()), *numbers.shape)
    if shape[1] != x.shape[1] or math.prod(shape) != x.shape[1]:
        return None
    return ByChannel(name), {NUMBERS: numbers, **r.named_in(numbers)}


def _add(r, y, input, other, alpha=1) -> Made:
    if id(input) in r.known and id(other) in r.known:
        return (Add(activation=None),) if alpha == 1 and input.shape == other.shape else None
    number = _number(other)
    return _by_channel(r, "add", input, other) if number is None else (Scale(shift=number * alpha),)


def _sub(r, y, input, other) -> Made:
    number = _number(other)
    return _by_channel(r, "sub", input, other) if number is None else (Scale(shift=-number),)


def _mul(r, y, input, other) -> Made:
    return _of_two(r, input, other, inverted=False)


def _truediv(r, y, input, other, rounding_mode=None) -> Made:
    return _of_two(r, input, other, inverted=True) if rounding_mode is None else None


def _of_two(r: Recorder, input: Any, other: Any, *, inverted: bool) -> Made:
    if (number := _number(other)) is not None:
        return (Scale(factor=1 / number if inverted else number),)
    if id(input) in r.known and id(other) in r.known:
        return (Product(inverted=inverted),) if input.shape == other.shape else None
    return _by_channel(r, "div" if inverted else "mul", input, other)


def _power(exponent: float | None = None) -> Callable[..., Made]:
    """Numbers to the same power; without an `exponent` that is the second argument."""

    def made(r, y, input, *others) -> Made:
        power = _number(*others) if exponent is None else exponent
        return None if power is None or id(input) not in r.known else (Power(exponent=power),)

    return made


def _pad(r, y, input, pad, mode="constant", value=None) -> Made:
    left, right, above, below, before, behind = [*pad, *[0] * 6][:6]
    if mode != "constant" or len(pad) > 6 or min(pad) < 0:
        return None
    if before or behind:  # around the channels
        alone = not (value or left or right or above or below)
        return _over_channels(r, y, input, Channels(start=-before)) if alone else None
    return (Padding(((above, below), (left, right)), float(value or 0)),)


def _index(r, y, input, index) -> Made:
    """Neighboring channels of all pictures."""
    slices = index if isinstance(index, tuple) else (index,)
    if len(slices) < 2 or any(not isinstance(x, slice) or x.step not in (None, 1) for x in slices):
        return None
    return _slice(r, y, input, 1, slices[1].start or 0)


def _slice(r, y, input, dim=0, start=0, end=None, step=1) -> Made:
    if y.shape == input.shape:
        return r.known[id(input)]
    alone = dim == 1 and step == 1 and (y.shape[0], *y.shape[2:]) == (input.shape[0], *input.shape[2:])
    start = start + input.shape[1] if start < 0 else start
    return (Channels(start=int(start)),) if alone else None


def _avg_pool3d(
    r, y, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
) -> Made:
    """A sum over channels, where these are the depth."""
    (size, *kernel), (pad, *pads) = ([x] * 3 if isinstance(x, int) else list(x) for x in (kernel_size, padding))
    single = (stride if isinstance(stride, int) else {*(stride or kernel_size)}) in (1, {1})
    if not single or kernel != [1, 1] or pads != [0, 0] or ceil_mode or (pad and not count_include_pad):
        return None
    return _over_channels(r, y, input, ChannelSum(size=size, before=pad, factor=1 / (divisor_override or size)))


def _over_channels(r: Recorder, y: Tensor, input: Tensor, op: Any) -> Made:
    """An operation over the channels, which may be the depth of one channel."""
    if y.dim() == 4:
        return (op,)
    return r.node(op, [r.known[id(input)]], y[:, 0]) if y.dim() == 5 and y.shape[1] == 1 else None


def _softmax(r, y, input, dim=None, *_, **__) -> Made:
    return (Softmax(),) if y.dim() == 2 and dim in (None, 1, -1) else None


def _log_softmax(r, y, input, dim=None, *_, **__) -> Made:
    return (Softmax(log=True),) if y.dim() == 2 and dim in (None, 1, -1) else None


def _clamp(r, y, input, min=None, max=None, inplace=False) -> Made:
    kind = {(0, None): "relu", (0, 6): "relu6"}.get((min, max))
    return (Activation(kind),) if kind else None


def _leaky_relu(r, y, input, negative_slope=0.01, inplace=False) -> Made:
    return (Activation("leaky_relu", float(negative_slope)),)


def _pointwise(kind: str) -> Callable[..., Made]:
    return lambda r, y, input, inplace=False: (Activation(kind),)


def _same(r, y, input, *_, **__) -> Made:
    """What changes no number."""
    return r.known[id(input)] if y.shape == input.shape else None


def _reshaped(r, y, input, *_, **__) -> Made:
    """Another shape of the same numbers in the same order."""
    before = r.before(input)
    if len(y) != len(input) or math.prod(y.shape) != math.prod(input.shape):
        return None
    if y.dim() == 2 and isinstance(before.op, Unknown) and before.op.name == "to HWC":
        return r.node(Flatten(last=True), list(before.reads), y)
    depth = {4: input.shape[1:], 5: input.shape[2:]}.get(input.dim()), {4: y.shape[1:], 5: y.shape[2:]}.get(y.dim())
    if y.shape == input.shape or (y.dim() + input.dim() == 9 and depth[0] == depth[1]):  # channels as the depth of one
        return r.known[id(input)]
    if y.dim() == 2 and input.dim() == 4:
        return (Flatten(),)
    return (Flatten(),) if y.dim() == 4 and input.dim() == 2 and y.shape[2:] == (1, 1) else None


def _permute(r, y, input, *dims) -> Made:
    order = tuple(dims[0]) if len(dims) == 1 else dims
    return (Unknown("to HWC" if order == (0, 2, 3, 1) else "permute"),)


HANDLERS: dict[str, Callable[..., Made]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "batch_norm": _batch_norm,
    "local_response_norm": _local_response_norm,
    "dropout": _dropout,
    "dropout2d": _dropout2d,
    "feature_dropout": _dropout2d,
    "cat": _concat,
    "concat": _concat,
    "concatenate": _concat,
    "add": _add,
    "radd": _add,
    "sub": _sub,
    "mul": _mul,
    "rmul": _mul,
    "multiply": _mul,
    "divide": _truediv,
    "pow": _power(),
    "square": _power(2.0),
    "sqrt": _power(0.5),
    "rsqrt": _power(-0.5),
    "reciprocal": _power(-1.0),
    "index": _index,
    "slice": _slice,
    "narrow": lambda r, y, input, dim, start, length: _slice(r, y, input, dim, start),
    "avg_pool3d": _avg_pool3d,
    "truediv": _truediv,
    "div": _truediv,
    "pad": _pad,
    "constant_pad_nd": lambda r, y, input, pad, value=0: _pad(r, y, input, pad, "constant", value),
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "clamp": _clamp,
    "clip": _clamp,
    "hardtanh": _clamp,
    "leaky_relu": _leaky_relu,
    "permute": _permute,
    **{kind: _pointwise(kind) for kind in ("relu", "relu6", "sigmoid", "silu", "tanh")},
    **dict.fromkeys(("contiguous", "clone", "to", "float", "double", "type", "detach", "data", "requires_grad"), _same),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze"), _reshaped),
}
