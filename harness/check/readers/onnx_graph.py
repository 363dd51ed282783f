"""An ONNX file, whoever wrote it, as a graph; ONNX Runtime says what it puts out, and what every operation does.

Source: onnx/docs/Operators.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.check.graph import (
    Activation,
    Convolution,
    Dropout,
    Flatten,
    Graph,
    Input,
    Linear,
    Node,
    Norm,
    Padding,
    Recording,
    Scale,
    Softmax,
    Unknown,
    enlarged,
    probe_images,
    samples,
)
from harness.check.trial import LARGER, Trial
from harness.weights.formats.onnx_file import decode, load_package
from harness.weights.onnx_run import in_float32, open_session
from spec import Array, InvalidInput
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair


def read_onnx(path: Path, shapes: Sequence[spec.Shape], *, exactly: bool = False) -> Trial:
    """Record a file at the first of these shapes, (channels, height, width), that it takes.

    Unless it is to be `exactly` one of them, the file's own sizes take the place of theirs where it says them.

    Raises:
        InvalidInput: when it cannot be read, or ONNX Runtime runs it at none of them.
    """
    load_package("onnxruntime")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    model = _decoded(path, content)
    if len(model.graph.input) != 1:
        raise InvalidInput(f"{path}: expected a graph with one input, got {len(model.graph.input)}")
    sizes = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    if len(sizes) != 4:
        raise InvalidInput(f"{path}: expected images (N, C, H, W), got an input of {len(sizes)} axes")
    fixed = [0, 0, 0] if exactly else sizes[1:]
    own = [tuple(side or free for side, free in zip(fixed, shape, strict=True)) for shape in shapes]
    batch = sizes[0] or 2
    refused = ""
    for shape in dict.fromkeys(own):
        try:
            recording = _record(model, content, probe_images(shape, batch))
        except InvalidInput as error:
            refused = refused or str(error)
            continue
        recordings, failed = {"inference": recording}, {}
        try:
            recordings[LARGER] = _record(model, content, probe_images(enlarged(shape), batch))
        except InvalidInput as error:
            failed[LARGER] = str(error)
        return Trial(shape, "onnx", "float32", recording.graph.trained(), recordings, failed, batch)
    raise InvalidInput(f"{path}: {refused}")


def _decoded(path: Path, content: bytes) -> Any:
    try:
        return decode(content)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def _record(model: Any, content: bytes, images: Array) -> Recording:
    from onnx import numpy_helper

    constants = {x.name: numpy_helper.to_array(x) for x in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    traced = {model.graph.input[0].name}
    computed = []
    for node in model.graph.node:
        if traced & set(node.input):
            traced |= set(node.output)
            computed.append(node)
    values = [node.output[0] for node in computed]
    outputs = _run(content, images, values)
    reader = _Reader(model.graph.input[0].name, images, constants, outputs)
    for node in computed:
        reader.add(node)
    ends = [value.name for value in model.graph.output if value.name in reader.ends]
    graph = Graph(tuple(reader.nodes), tuple(reader.ends[name] for name in ends), reader.arrays)
    return Recording(graph, [outputs[name] for name in ends], reader.samples)


def _run(content: bytes, images: Array, values: list[str]) -> dict[str, Array]:
    """All these values of a graph, shapes among them, in float32."""
    import onnx

    model = in_float32(decode(content))
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in values if name not in present)
    try:
        session = open_session(model.SerializeToString())
        arrays = session.run(values, {model.graph.input[0].name: images.astype(np.float32)})
    except Exception as error:  # it raises many kinds
        raise InvalidInput(
            f"ONNX Runtime cannot run it on images of {images.shape}: {' '.join(str(error).split())[:300]}"
        ) from error
    return dict(zip(values, arrays, strict=True))


class _Reader:
    def __init__(self, name: str, images: Array, constants: dict[str, Array], outputs: dict[str, Array]) -> None:
        self.constants = constants
        self.outputs = outputs
        self.shapes = {name: images.shape} | {value: np.shape(x) for value, x in outputs.items()}
        self.arrays: dict[str, Array] = {}
        self.nodes = [Node(Input(), (), "", images.shape[1:])]
        self.samples = [samples(images)]
        self.ends = {name: 0}

    def add(self, node: Any) -> None:
        """Note an operation."""
        from onnx import helper

        name = node.output[0]
        settings = {x.name: helper.get_attribute_value(x) for x in node.attribute}
        read = [self.ends[value] for value in node.input if value in self.ends]
        handler = _HANDLERS.get(node.op_type)
        try:
            made = handler and handler(self, node, settings)
        except (KeyError, ValueError, IndexError, TypeError):
            made = None
        if isinstance(made, int):
            self.ends[name] = made
            return
        op, arrays = made or (Unknown(node.op_type), {})
        self.nodes.append(Node(op, tuple(read), node.name or name, tuple(self.shapes[name][1:]), arrays))
        self.samples.append(samples(np.asarray(self.outputs[name], np.float64)))
        self.ends[name] = len(self.nodes) - 1

    def array(self, name: str, transposed: bool = False) -> str:
        """Keep an array under its own name."""
        x = np.asarray(self.constants[name], np.float64)
        self.arrays[name] = x.T if transposed else x
        return name

    def into(self, node: Any) -> spec.Shape:
        """The shape of what it reads, with the number of images."""
        return tuple(self.shapes[node.input[0]])


def _pads(settings: dict[str, Any], into: spec.Shape, sides: Sequence[int], strides: Sequence[int]) -> Pads:
    kind = settings.get("auto_pad", b"NOTSET").decode()
    if kind.startswith("SAME"):
        whole = [
            max((-(-size // step) - 1) * step + side - size, 0)
            for size, side, step in zip(into[2:], sides, strides, strict=True)
        ]
        less = [(n // 2, n - n // 2) for n in whole]
        (a, b), (c, d) = less
        return ((a, b), (c, d)) if kind == "SAME_UPPER" else ((b, a), (d, c))
    above, left, below, right = settings.get("pads", (0, 0, 0, 0))
    return (above, below), (left, right)


def _conv(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    weight = r.constants[node.input[1]]
    kernel: Pair = weight.shape[2], weight.shape[3]
    stride = tuple(settings.get("strides", (1, 1)))
    dilation = tuple(settings.get("dilations", (1, 1)))
    sides = [(side - 1) * step + 1 for side, step in zip(kernel, dilation, strict=True)]
    pad = _pads(settings, r.into(node), sides, stride)
    bias = len(node.input) > 2
    arrays = {role: r.array(name) for role, name in zip(("weight", "bias"), node.input[1:], strict=False)}
    return Convolution(len(weight), kernel, stride, pad, dilation, settings.get("group", 1), bias), arrays


def _gemm(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    if settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1 or settings.get("transA", 0):
        return None
    arrays = {"weight": r.array(node.input[1], not settings.get("transB", 0))}
    if len(node.input) > 2:
        arrays["bias"] = r.array(node.input[2])
    return Linear(len(r.arrays[node.input[1]]), len(node.input) > 2), arrays


def _matmul(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    return Linear(r.constants[node.input[1]].shape[1], bias=False), {"weight": r.array(node.input[1], transposed=True)}


def _max_pool(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    if settings.get("dilations", [1, 1]) != [1, 1]:
        return None
    kernel, stride = tuple(settings["kernel_shape"]), tuple(settings.get("strides", (1, 1)))
    pad = _pads(settings, r.into(node), kernel, stride)
    made = [spec.MaxPool(kernel, stride, pad, ceil=ceil) for ceil in (bool(settings.get("ceil_mode", 0)), False)]
    exact = [op for op in made if op.output_sizes(r.into(node)[1:]) == r.shapes[node.output[0]][2:]]
    return exact[0], {}


def _average_pool(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    kernel, stride = tuple(settings["kernel_shape"]), tuple(settings.get("strides", (1, 1)))
    pad = _pads(settings, r.into(node), kernel, stride)
    op = AveragePool(kernel, stride, pad, bool(settings.get("count_include_pad", 0)))
    return (op, {}) if op.output_sizes(r.into(node)[1:]) == r.shapes[node.output[0]][2:] else None


def _mean(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    axes = settings.get("axes") or list(r.constants[node.input[1]])
    if len(r.into(node)) != 4 or {int(axis) % 4 for axis in axes} != {2, 3}:
        return None
    return spec.AdaptiveAverage(1), {}


def _norm(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    arrays = {role: r.array(name) for role, name in zip(("weight", "bias", "mean", "var"), node.input[1:], strict=True)}
    # The operator always has both: whether they are learned is not to be seen where they change nothing.
    scale = None if (r.arrays[arrays["weight"]] == 1).all() else True
    shift = None if (r.arrays[arrays["bias"]] == 0).all() else True
    return Norm(settings.get("epsilon", 1e-5), None, scale, shift), arrays


def _lrn(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    numbers = [settings.get(name, usual) for name, usual in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    return (LRN(settings["size"], *numbers), {}) if settings["size"] % 2 else None


def _concat(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    return (Concat(), {}) if settings["axis"] in (1, -3) and all(name in r.ends for name in node.input) else None


def _number(r: _Reader, node: Any) -> float | None:
    """The number that it computes with, where that is one."""
    numbers = [r.constants[name] for name in node.input if name in r.constants]
    return float(numbers[0].reshape(-1)[0]) if len(numbers) == 1 and numbers[0].size == 1 else None


def _add(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    if all(name in r.ends for name in node.input):
        same = r.shapes[node.input[0]] == r.shapes[node.input[1]]
        return (Add(activation=None), {}) if same else None
    if (number := _number(r, node)) is not None:
        return Scale(shift=number), {}
    other = next(name for name in node.input if name in r.constants)
    before = r.ends[next(name for name in node.input if name in r.ends)]
    layer = r.nodes[before]
    if not isinstance(layer.op, Linear) or layer.op.bias or before != len(r.nodes) - 1:
        return None
    r.arrays[other] = np.asarray(r.constants[other], np.float64).reshape(-1)
    r.nodes[before] = Node(
        Linear(layer.op.channels), layer.reads, layer.place, layer.shape, {**layer.arrays, "bias": other}
    )
    r.samples[before] = samples(np.asarray(r.outputs[node.output[0]], np.float64))
    return before


def _scale(kind: str) -> Callable[..., Any]:
    def made(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
        number = _number(r, node)
        if number is None or (kind in ("Sub", "Div") and node.input[0] not in r.ends):
            return None
        ops = {"Mul": Scale(factor=number), "Sub": Scale(shift=-number), "Div": Scale(factor=1 / number)}
        return ops[kind], {}

    return made


def _padding(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    if settings.get("mode", b"constant") != b"constant" or len(node.input) > 3:
        return None
    pads = [int(x) for x in r.constants[node.input[1]]] if len(node.input) > 1 else list(settings["pads"])
    value = float(r.constants[node.input[2]]) if len(node.input) > 2 and node.input[2] else settings.get("value", 0.0)
    if len(pads) != 8 or any(pads[i] for i in (0, 1, 4, 5)) or min(pads) < 0:
        return None
    return Padding(((pads[2], pads[6]), (pads[3], pads[7])), value), {}


def _reshaped(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    """Another shape of the same numbers in the same order."""
    into, out = r.into(node), r.shapes[node.output[0]]
    if into == out:
        return r.ends[node.input[0]]
    if into[0] != out[0] or math.prod(into) != math.prod(out):
        return None
    before = r.nodes[r.ends[node.input[0]]]
    if isinstance(before.op, Unknown) and before.op.name == "to HWC" and len(out) == 2:
        r.nodes.append(Node(Flatten(last=True), before.reads, node.name, tuple(out[1:])))
        r.samples.append(samples(np.asarray(r.outputs[node.output[0]], np.float64)))
        return len(r.nodes) - 1
    return (Flatten(), {}) if len(out) == 2 or out[2:] == (1, 1) else None


def _transpose(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    return Unknown("to HWC" if list(settings.get("perm", ())) == [0, 2, 3, 1] else "Transpose"), {}


def _softmax(log: bool) -> Callable[..., Any]:
    return lambda r, node, settings: (Softmax(log), {}) if settings.get("axis", -1) in (1, -1) else None


def _pointwise(kind: str) -> Callable[..., Any]:
    return lambda r, node, settings: (Activation(kind, settings.get("alpha", 0.01) * (kind == "leaky_relu")), {})


def _clip(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    limits = [float(r.constants[name]) if name else None for name in [*node.input[1:], "", ""][:2]]
    kind = "relu" if limits == [0, None] else "relu6" if limits == [0, 6] else None
    return (Activation(kind), {}) if kind else None


def _same(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    return r.ends[node.input[0]]


def _dropout(r: _Reader, node: Any, settings: dict[str, Any]) -> Any:
    """In inference it is none, unless the graph says that it is in training."""
    training = len(node.input) > 2 and bool(r.constants[node.input[2]])
    return (Dropout(0.5, always=True), {}) if training else r.ends[node.input[0]]


_HANDLERS: dict[str, Callable[..., Any]] = {
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _norm,
    "Cast": _same,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _scale("Div"),
    "Dropout": _dropout,
    "Flatten": _reshaped,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda r, node, settings: (spec.AdaptiveAverage(1), {}),
    "Identity": _same,
    "LRN": _lrn,
    "LeakyRelu": _pointwise("leaky_relu"),
    "LogSoftmax": _softmax(log=True),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _scale("Mul"),
    "Pad": _padding,
    "ReduceMean": _mean,
    "Relu": _pointwise("relu"),
    "Reshape": _reshaped,
    "Sigmoid": _pointwise("sigmoid"),
    "Softmax": _softmax(log=False),
    "Squeeze": _reshaped,
    "Sub": _scale("Sub"),
    "Tanh": _pointwise("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _reshaped,
}
