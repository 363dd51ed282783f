"""What a use of each of MXNet's operators is as an operation of a graph.

Source: MXNet 1.9.1, src/operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

import spec
from googlenet_mx.operators.values import Call, Unmoved, numbers_of
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
from harness.check.readers.rewriting import ChannelSum, Power, Product
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair

if TYPE_CHECKING:
    from googlenet_mx.operators.recorder import Recorder


Made = Any  # an operation, and its arrays by role where it has some; the number of a node; None: it is unknown


def _layer(r: Recorder, call: Call, *roles: str) -> dict[str, NDArray]:
    """The arrays of a layer by role, whose first input comes from the images."""
    arrays = dict(zip(roles, call.inputs[1:], strict=False))
    if id(call.inputs[0]) not in r.known or any(id(x) in r.known for x in arrays.values()):
        raise ValueError("weights that come from the images")
    return arrays


def _pair(x: Any) -> Pair:
    height, width = (x, x) if isinstance(x, int) else x
    return int(height), int(width)


def _pads(x: Any) -> Pads:
    height, width = _pair(x)
    return (height, height), (width, width)


def _in_order(call: Call) -> bool:
    return bool(call.get("layout", "NCHW") == "NCHW")


def _convolution(r: Recorder, call: Call) -> Made:
    arrays = _layer(r, call, "weight", "bias")
    kernel, stride, dilation = (_pair(call.get(name, None) or 1) for name in ("kernel", "stride", "dilate"))
    pads, groups = _pads(call.get("pad", None) or 0), int(call.get("num_group", 1))
    op = Convolution(len(call.inputs[1]), kernel, stride, pads, dilation, groups, "bias" in arrays)
    return (op, arrays) if _in_order(call) else None


def _dense(r: Recorder, call: Call) -> Made:
    arrays = _layer(r, call, "weight", "bias")
    whole = call.get("flatten", True) or call.inputs[0].ndim == 2
    return (Linear(len(call.inputs[1]), "bias" in arrays), arrays) if whole else None


def _pooling(r: Recorder, call: Call) -> Made:
    x, kind = call.inputs[0], call.get("pool_type", "max")
    if x.ndim != 4 or not _in_order(call) or kind not in ("max", "avg", "sum"):
        return None
    if call.get("global_pool", False):
        return {"avg": (spec.AdaptiveAverage(1),), "max": (spec.MaxPool(x.shape[2:], 1),)}.get(kind)
    kernel, stride = _pair(call.get("kernel", 1)), _pair(call.get("stride", None) or 1)
    pads, counted = _pads(call.get("pad", None) or 0), bool(call.get("count_include_pad", True))
    if r.before(x).op == _ROWS:
        return _channel_sum(r, call, kernel, pads) if stride == (1, 1) and counted and kind != "max" else None
    if kind == "sum":
        return None
    sizes = call.y.shape[2:]
    if kind == "max":
        ops = [
            spec.MaxPool(kernel, stride, pads, ceil=ceil)
            for ceil in (call.get("pooling_convention", "valid") == "full", False)
        ]
    else:
        ops = [AveragePool(kernel, stride, pads, counted)]
        over = [
            max((count - 1) * step + side - size, 0)
            for count, step, side, size in zip(sizes, stride, kernel, x.shape[2:], strict=True)
        ]
        if pads == _pads(0):  # a last window that hangs over the edge is divided by its pixels
            ops.append(AveragePool(kernel, stride, ((0, over[0]), (0, over[1])), count_pad=False))
    exact = [op for op in ops if op.output_sizes(x.shape[1:]) == sizes]
    return (exact[0],) if exact else None


_ROWS = Unknown("the channels as rows")


def _channel_sum(r: Recorder, call: Call, kernel: Pair, pads: Pads) -> Made:
    """A pool over the channels, which are the rows of the only map."""
    size, (before, after) = kernel[0], pads[0]
    map_ = r.before(call.inputs[0]).reads[0]
    if kernel[1] != 1 or before + after != size - 1 or pads[1] != (0, 0):
        return None
    op = ChannelSum(size=size, before=before, factor=1.0 if call.get("pool_type", "max") == "sum" else 1 / size)
    return r.node(op, [map_], call.y, shape=r.nodes[map_].shape)


def _adaptive(r: Recorder, call: Call) -> Made:
    height, width = call.y.shape[2:]
    return (spec.AdaptiveAverage(int(height)),) if height == width else None


def _mean(r: Recorder, call: Call) -> Made:
    x, axis = call.inputs[0], call.get("axis", ())
    axes = {int(side) % 4 for side in ((axis,) if isinstance(axis, int) else axis)}
    if x.ndim != 4 or axes != {2, 3} or call.get("exclude", False):
        return None
    whole = r.node(spec.AdaptiveAverage(1), [r.known[id(x)]], call.y, shape=(x.shape[1], 1, 1))
    return whole if call.y.ndim == 4 else r.node(Flatten(), [whole], call.y)


def _batch_norm(r: Recorder, call: Call) -> Made:
    arrays = _layer(r, call, "weight", "bias", "mean", "var")
    x, mean = call.inputs[0], arrays["mean"]
    if call.get("axis", 1) % x.ndim != 1:
        return None
    for role, neutral in (("weight", 1), ("bias", 0)):
        fixed = role == "weight" and call.get("fix_gamma", True)
        if fixed or not r.learned(arrays[role], neutral):
            del arrays[role]
    kept = float(call.get("momentum", 0.9))
    of_batch = r.training and not call.get("use_global_stats", False)
    if of_batch and kept == 1 and not isinstance(r.model, gluon.SymbolBlock):  # as our own symbols have it
        batch = numbers_of(x).mean((0, *range(2, x.ndim)))
        r.unmoved.append(Unmoved(len(r.nodes), mean, numbers_of(mean), batch))
    momentum = None if kept == 1 else round(1 - kept, 12)
    epsilon = float(call.get("eps", np.float32(1e-3)))  # its default is a number in float32
    return Norm(epsilon, momentum, "weight" in arrays, "bias" in arrays, of_batch=of_batch), arrays


def _lrn(r: Recorder, call: Call) -> Made:
    size = int(call.settings["nsize"])
    numbers = (float(call.get(name, usual)) for name, usual in (("alpha", 1e-4), ("beta", 0.75), ("knorm", 2)))
    return (LRN(size, *numbers),) if size % 2 else None


def _dropout(r: Recorder, call: Call) -> Made:
    x, always = call.inputs[0], call.get("mode", "training") == "always"
    axes = call.get("axes", ())
    if not (always or r.training):  # a symbol says what it drops in training, and at inference it is nothing
        return r.known[id(x)]
    channels = bool(axes) and {axis % x.ndim for axis in axes} == {2, 3}
    op = Dropout(float(call.get("p", 0.5)), always=always and not r.training, channels=channels)
    return (op,) if channels or not axes else None


def _concat(r: Recorder, call: Call) -> Made:
    axis = call.get("dim", call.get("axis", 1))
    joins = all(id(x) in r.known for x in call.inputs) and call.y.ndim in (2, 4) and axis % call.y.ndim == 1
    return (Concat(),) if joins else None


def _same_maps(r: Recorder, call: Call) -> bool:
    return all(id(x) in r.known and x.shape == call.y.shape for x in call.inputs)


def _add(r: Recorder, call: Call) -> Made:
    return (Add(activation=None),) if _same_maps(r, call) else None


def _product(*, inverted: bool = False) -> Callable[[Recorder, Call], Made]:
    def made(r: Recorder, call: Call) -> Made:
        if _same_maps(r, call):
            return (Product(inverted=inverted),)
        x, mask = call.inputs if id(call.inputs[0]) in r.known else call.inputs[::-1]
        if inverted or id(mask) not in r.masks or mask.shape[:2] != x.shape[:2]:
            return None
        channels = mask.shape != x.shape
        dropped = r.node(Dropout(r.masks[id(mask)], always=not r.training, channels=channels), [r.known[id(x)]], x)
        factor = str(mask.asnumpy().reshape(-1)[0])  # 0.6 is 0.6 in float32 too
        return r.node(Scale(float(factor)), [dropped], call.y)

    return made


def _scalar(made: Callable[[float], Any]) -> Callable[[Recorder, Call], Made]:
    return lambda r, call: (made(float(call.settings["scalar"])),)


def _pad(r: Recorder, call: Call) -> Made:
    *others, above, below, left, right = call.settings["pad_width"]
    if call.settings["mode"] != "constant" or any(others) or len(others) != 4:
        return None
    value = call.get("constant_value", 0.0)
    return (Padding(((above, below), (left, right)), float(value)),)


def _softmax(*, log: bool = False) -> Callable[[Recorder, Call], Made]:
    def made(r: Recorder, call: Call) -> Made:
        plain = call.y.ndim == 2 and call.get("axis", -1) in (1, -1) and call.get("temperature", 1.0) == 1
        return (Softmax(log),) if plain else None

    return made


def _clip(r: Recorder, call: Call) -> Made:
    kind = {(0, 6): "relu6"}.get((call.get("a_min", None), call.get("a_max", None)))
    return (Activation(kind),) if kind else None


def _activation(r: Recorder, call: Call) -> Made:
    kind = call.settings["act_type"]
    return (Activation(kind),) if kind in ("relu", "sigmoid", "tanh") else None


def _leaky(r: Recorder, call: Call) -> Made:
    leaky = call.get("act_type", "leaky") == "leaky"
    if not leaky:
        return None
    r.single = True  # MXNet computes it in float32, whatever the dtype of its arrays
    return (Activation("leaky_relu", float(call.get("slope", 0.25))),)


def _pointwise(op: Any) -> Callable[[Recorder, Call], Made]:
    return lambda r, call: (op,)


def _same(r: Recorder, call: Call) -> Made:
    """What changes no number."""
    return r.known[id(call.inputs[0])]


def _reshaped(r: Recorder, call: Call) -> Made:
    """Another shape of the same numbers in the same order."""
    x, y = call.inputs[0], call.y
    before = r.before(x)
    if len(y) != len(x):
        return None
    if y.ndim == 2 and before.op == _TO_HWC:
        return r.node(Flatten(last=True), before.reads, y)
    if y.shape == x.shape or (isinstance(before.op, ChannelSum) and y.shape[1:] == before.shape):
        return r.known[id(x)]
    if x.ndim == 4 and y.ndim == 4 and y.shape[1:3] == (1, x.shape[1]):
        return (_ROWS,)
    if y.ndim == 2 and x.ndim == 4:
        return (Flatten(),)
    return (Flatten(),) if y.ndim == 4 and x.ndim == 2 and y.shape[2:] == (1, 1) else None


_TO_HWC = Unknown("to HWC")


def _transpose(r: Recorder, call: Call) -> Made:
    return (_TO_HWC if tuple(call.get("axes", ())) == (0, 2, 3, 1) else Unknown("transpose"),)


HANDLERS: dict[str, Callable[[Recorder, Call], Made]] = {
    "Convolution": _convolution,
    "FullyConnected": _dense,
    "Pooling": _pooling,
    "_contrib_AdaptiveAvgPooling2D": _adaptive,
    "BatchNorm": _batch_norm,
    "LRN": _lrn,
    "Dropout": _dropout,
    "Activation": _activation,
    "LeakyReLU": _leaky,
    "clip": _clip,
    "Pad": _pad,
    "SoftmaxOutput": _softmax(),
    "SoftmaxActivation": _softmax(),
    "softmax": _softmax(),
    "log_softmax": _softmax(log=True),
    "transpose": _transpose,
    "_np_transpose": _transpose,
    "square": _pointwise(Power(exponent=2.0)),
    "sqrt": _pointwise(Power(exponent=0.5)),
    "rsqrt": _pointwise(Power(exponent=-0.5)),
    **{
        name: _pointwise(Activation(name.removeprefix("_npx_")))
        for name in ("relu", "sigmoid", "tanh", "_npx_relu", "_npx_sigmoid")
    },
    **dict.fromkeys(("Concat", "_npi_concatenate"), _concat),
    **dict.fromkeys(("mean", "_npi_mean"), _mean),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add", "add_n"), _add),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), _product()),
    **dict.fromkeys(("elemwise_div", "broadcast_div", "_npi_true_divide"), _product(inverted=True)),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _scalar(lambda number: Scale(shift=number))),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _scalar(lambda number: Scale(shift=-number))),
    **dict.fromkeys(("_rminus_scalar", "_npi_rsubtract_scalar"), _scalar(lambda number: Scale(-1.0, number))),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _scalar(lambda number: Scale(number))),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _scalar(lambda number: Scale(1 / number))),
    **dict.fromkeys(("_power_scalar", "_npi_power_scalar"), _scalar(lambda number: Power(exponent=number))),
    **dict.fromkeys(("_copy", "_copyto", "_np_copy", "BlockGrad", "Cast", "amp_cast"), _same),
    **dict.fromkeys(("Flatten", "Reshape", "reshape_like", "_npx_reshape", "_np_reshape"), _reshaped),
    **dict.fromkeys(("expand_dims", "squeeze", "_np_squeeze"), _reshaped),
}
