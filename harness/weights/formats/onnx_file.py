"""ONNX: a network as a graph of ONNX's own operators, written operator by operator, and read back.

Memory layout is (N, C, H, W), the mode is inference, and dropout is left out. The input is ``images``. The outputs are
``logits`` and the auxiliary heads: ONNX Runtime drops arrays that no node uses, with a warning each. Number, height and
width of the images are free; ONNX Runtime does not notice when they are too small. A value that ends a stage has the
stage's name, and an initializer its canonical name. Our texts are in the model's metadata.

ONNX keeps the numbers of an operator in float32 whatever its arrays are: epsilon of batch norm, alpha and beta of LRN.
In float64 that shows from the eleventh digit on.

Source: onnx/docs/Operators.md and onnx/onnx.proto; every operator is held against `spec.reference`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

import spec
from harness.atomic import StrPath, write_atomically
from harness.backends.registry import NotInstalled
from harness.shown import shown
from harness.weights.checkpoint import config_of, describe, plain
from harness.weights.formats.contents import Contents
from spec import Array, Arrays, InvalidInput
from spec.network import (
    IMAGES,
    LRN,
    AdaptiveAverage,
    Add,
    AveragePool,
    Concat,
    Conv,
    Dense,
    GlobalAverage,
    MaxPool,
    Node,
)

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR_VERSION = 17, 8  # from 2022, so that every current runtime knows them
_DTYPES = ("float16", "float32", "float64")
_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid"}
_TEXTS = ("format", "config", "metadata", "sha256")  # as in `harness.weights.checkpoint.describe`
_LARGEST_FILE = 2**31 - 1  # bytes; protobuf's own limit
_LARGEST_SHELL = 2**20  # bytes of everything but the arrays; nodes and names take 60,000
_SIZED = 2  # protobuf's wire type of messages, texts and bytes, which begin with their size


def load_package(name: str) -> ModuleType:
    """Import a package or module of the extras ``onnx`` and ``openvino``.

    OpenVINO comes with a package that tells its makers, over the network, of every import; without it, it does not.

    Raises:
        NotInstalled: when it is not there.
    """
    if name == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        what, extra = ("OpenVINO", "openvino") if name == "openvino" else ("ONNX", "onnx")
        raise NotInstalled(f"{what} is not installed (no module {error.name!r}): pip install '.[{extra}]'") from error


# ------------------------------------------------------------------------------------------------------- the graph


class _Graph:
    """The nodes of a network, in forward order.

    Every method adds nodes and returns the name of the value that they make.
    """

    def __init__(self, config: spec.Config, dtype: str) -> None:
        self.config = config
        self.dtype = dtype
        self.nodes: list[Any] = []
        made = {IMAGES: "images"}  # the value that each operation of the network makes
        operations = spec.walk(config)
        ends = {node.stage: node for node in operations}
        for node in operations:
            read = [made[name] for name in node.reads]
            made[node.name] = self.join(node, *read) if isinstance(node.op, Concat | Add) else self.compute(node, *read)
            if ends[node.stage] is node:  # its value has the stage's name
                made[node.name] = self.nodes[-1].output[0] = node.stage
        self.node("Identity", "logits", config.logits)

    def node(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add one node, named as the value that it makes."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def join(self, node: Node, *read: str) -> str:
        """Concatenate branches, or end a residual."""
        if isinstance(node.op, Concat):
            return self.node("Concat", f"{node.name}.concat", *read, axis=1)
        scale = self.constant(f"{node.name}.scale", np.array(node.op.scale, self.dtype))
        *shortcut, branch = read
        y = self.node("Mul", f"{node.name}.scaled", branch, scale)
        return self.activation(node, self.node("Add", f"{node.name}.sum", *shortcut, y) if shortcut else y)

    def compute(self, node: Node, x: str) -> str:
        """An operation on one input."""
        return _OPERATORS[type(node.op)](self, node, x)

    def conv(self, node: Node, x: str) -> str:
        """Convolution, then batch norm and activation where the layer has them."""
        x = self.node("Conv", f"{node.name}.conv", x, *self.weights(node), **_window(node.op))
        return self.activation(node, self.batch_norm(node, x))

    def dense(self, node: Node, x: str) -> str:
        """Dense layer on the map as (C, H, W), then batch norm and activation where the layer has them."""
        if len(node.into) == 3 or not node.in_head:
            # These names must not change: a graph that is read must be the one that `build` makes.
            flat = "flatten" if self.config.family == "GoogLeNet" and not node.in_head else f"{node.stage}.flatten"
            x = self.node("Flatten", flat, x, axis=1)
        x = self.node("Gemm", f"{node.name}.dense", x, *self.weights(node), transB=1)
        return self.activation(node, self.batch_norm(node, x))

    def weights(self, node: Node) -> list[str]:
        """The layer's own arrays."""
        return [f"{node.name}.{leaf}" for leaf in (["weight", "bias"] if node.has_bias else ["weight"])]

    def batch_norm(self, node: Node, x: str) -> str:
        """Batch norm of each channel, of maps and of dense layers' outputs alike."""
        if node.norm is None:
            return x
        name = f"{node.name}.norm"
        arrays = [f"{name}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
        if not node.norm.scale:  # the operator requires one
            arrays[0] = self.constant(f"{name}.scale", np.ones(node.out_channels, self.dtype))
        if not node.norm.shift:  # and this, too
            arrays[1] = self.constant(f"{name}.shift", np.zeros(node.out_channels, self.dtype))
        return self.node("BatchNormalization", name, x, *arrays, epsilon=node.norm.epsilon)

    def activation(self, node: Node, x: str) -> str:
        """Activation of the layer, where it has one."""
        kind = node.op.activation
        return x if kind is None else self.node(_ACTIVATIONS[kind], f"{node.name}.{kind}", x)

    def max_pool(self, node: Node, x: str) -> str:
        """Largest value of each window; ONNX pads with minus infinity.

        To round up, pad by stride - 1 more pixels below and to the right and round down. Versions of ONNX differ in
        what `ceil_mode` does at the edge.
        """
        window = _window(node.op)
        if node.op.ceil:
            more = (0, 0, *(stride - 1 for stride in node.op.strides))
            window["pads"] = [pad + extra for pad, extra in zip(window["pads"], more, strict=True)]
        return self.node("MaxPool", node.name, x, **window)

    def average_pool(self, node: Node, x: str) -> str:
        """Mean of each window, rounded down."""
        window = _window(node.op)
        if any(window["pads"]):
            window["count_include_pad"] = int(node.op.count_pad)
        return self.node("AveragePool", node.name, x, **window)

    def lrn(self, node: Node, x: str) -> str:
        """Local response normalization; ONNX divides alpha by the size as Caffe does."""
        lrn = node.op
        return self.node("LRN", node.name, x, size=lrn.size, alpha=lrn.alpha, beta=lrn.beta, bias=lrn.k)

    def global_average(self, node: Node, x: str) -> str:
        """(N, C): the mean of every map."""
        return self.node("Flatten", node.name, self.node("GlobalAveragePool", f"{node.name}.average", x), axis=1)

    def adaptive_average(self, node: Node, x: str) -> str:
        """Means of windows that cover the map: a matrix of weights for its rows, one for its columns."""
        name, side = node.name, node.op.side
        if side == 1:
            return self.node("GlobalAveragePool", name, x)
        rows = self.averaging_matrix(f"{name}.rows", x, axis=2, side=side)
        columns = self.node("Transpose", f"{name}.across", self.averaging_matrix(f"{name}.columns", x, 3, side))
        return self.node("MatMul", f"{name}.mean", rows, self.node("MatMul", f"{name}.row_means", x, columns))

    def averaging_matrix(self, name: str, x: str, axis: int, side: int) -> str:
        """(side, size) as in `spec.reference.averaging_matrix`, for a size that the graph finds out when it runs.

        Pixel p is in window i, floor(i·size / side) <= p < ceil((i + 1)·size / side), where
        -side < side·p - i·size < size.
        """
        from onnx import helper

        node, value = self.node, self.integers
        size = node("Shape", f"{name}.size", x, start=axis, end=axis + 1)
        end = node("Squeeze", f"{name}.end", node("Mul", f"{name}.sides", size, value(f"{name}.side", [side])))
        pixels = node("Range", f"{name}.pixels", value(f"{name}.first", 0), end, value(f"{name}.step", side))
        windows = value(f"{name}.windows", [[i] for i in range(side)])
        offsets = node("Sub", f"{name}.offsets", pixels, node("Mul", f"{name}.starts", windows, size))
        after = node("Greater", f"{name}.after", offsets, value(f"{name}.before_first", -side))
        inside = node("And", f"{name}.inside", after, node("Less", f"{name}.before", offsets, size))
        ones = node("Cast", f"{name}.ones", inside, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype)))
        length = node("ReduceSum", f"{name}.length", ones, value(f"{name}.across", [1]), keepdims=1)
        return node("Div", f"{name}.matrix", ones, length)

    def integers(self, name: str, value: Any) -> str:
        """Constant whole numbers."""
        return self.constant(name, np.array(value, np.int64))

    def constant(self, name: str, value: Array) -> str:
        """A constant."""
        from onnx import numpy_helper

        return self.node("Constant", name, value=numpy_helper.from_array(plain(value)))


_OPERATORS: dict[type, Callable[[_Graph, Node, str], str]] = {
    Conv: _Graph.conv,
    Dense: _Graph.dense,
    MaxPool: _Graph.max_pool,
    AveragePool: _Graph.average_pool,
    AdaptiveAverage: _Graph.adaptive_average,
    GlobalAverage: _Graph.global_average,
    LRN: _Graph.lrn,
}


def _window(op: Conv | MaxPool | AveragePool) -> dict[str, Any]:
    """ONNX's attributes of a sliding window."""
    (above, below), (left, right) = op.pads
    return {"kernel_shape": list(op.sides), "strides": list(op.strides), "pads": [above, left, below, right]}


def build(config: spec.Config, params: Arrays) -> ModelProto:
    """The network as an ONNX model, in the dtype of its parameters.

    Raises:
        InvalidInput: when the parameters do not fit, are not all float16, all float32 or all float64, or when onnx is
            not installed.
    """
    load_package("onnx")
    spec.check_params(config, params)
    model = _without_weights(config, _dtype(params))
    for tensor in model.graph.initializer:
        tensor.raw_data = plain(params[tensor.name]).tobytes()
    return model


def _without_weights(config: spec.Config, dtype: str) -> ModelProto:
    """The model of `build`, with empty initializers."""
    from onnx import TensorProto, helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = ["logits", *spec.head_names(config)]
    images = helper.make_tensor_value_info("images", kind, ["batch", config.in_channels, "height", "width"])
    graph = helper.make_graph(
        _Graph(config, dtype).nodes,
        "googlenet" if config.family == "GoogLeNet" else config.preset,
        inputs=[images],
        outputs=[helper.make_tensor_value_info(name, kind, ["batch", config.num_classes]) for name in ends],
        initializer=[
            TensorProto(name=name, data_type=kind, dims=shape, raw_data=b"")
            for name, shape in spec.param_shapes(config).items()
        ],
    )
    operators = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, producer_name="googlenet", ir_version=IR_VERSION, opset_imports=operators)


def _dtype(params: Arrays) -> str:
    """The one dtype of all arrays."""
    dtypes = sorted({x.dtype.name for x in params.values()})
    if len(dtypes) != 1 or dtypes[0] not in _DTYPES:
        raise InvalidInput(f"ONNX: expected arrays of one dtype out of {', '.join(_DTYPES)}, got {', '.join(dtypes)}")
    return dtypes[0]


def write(path: StrPath, params: Arrays, config: spec.Config, metadata: dict[str, Any]) -> None:
    """Write a network to ``*.onnx``. An older file stays whole until the new one is whole too.

    Raises:
        InvalidInput: when the arrays do not fit the network or an ONNX file (see `build`), or it cannot be written.
    """
    path = Path(path)
    arrays = {name: plain(x) for name, x in params.items()}
    weights = sum(x.nbytes for x in arrays.values())
    try:
        if weights > _LARGEST_FILE - _LARGEST_SHELL:
            raise InvalidInput(f"expected arrays of 2 GB at most, all that an ONNX file takes, got {weights} bytes")
        model = build(config, arrays)
        for key, text in describe(arrays, config, metadata).items():
            model.metadata_props.add(key=key, value=text)
        content = model.SerializeToString(deterministic=True)
        if (shell := len(content) - weights) > _LARGEST_SHELL:
            raise InvalidInput(
                f"expected {_LARGEST_SHELL} bytes at most beside the arrays, got {shell}; cut the metadata"
            )
    except InvalidInput as error:
        raise _in_file(path, error) from error
    write_atomically(path, content)


def read(path: StrPath) -> Contents:
    """Read an ONNX file of ours: its arrays by canonical name, and its texts.

    The graph must be the one that `build` makes for the network that the texts name. No other file is opened, whatever
    this one says.

    Raises:
        InvalidInput: when it is damaged, of another program, or was changed.
    """
    path = Path(path)
    load_package("onnx")
    try:
        if (size := path.stat().st_size) > _LARGEST_FILE:
            raise InvalidInput(f"expected an ONNX file of {_LARGEST_FILE} bytes at most, got one of {size}")
        content = path.read_bytes()
        _check_shell(content)
        model = decode(content)
        texts = _texts(model)
        config = config_of(texts)
        arrays = _take_arrays(model)
        spec.check_params(config, arrays)
        _check_graph(model, config, _dtype(arrays))
        return Contents(arrays, texts)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    except InvalidInput as error:
        raise _in_file(path, error) from error


def _in_file(path: Path, error: InvalidInput) -> InvalidInput:
    """The error in one line that names the file, with what a terminal would not print escaped."""
    line = " ".join(str(error).split())
    return InvalidInput(f"{path}: {shown(line)}")


def decode(content: bytes) -> ModelProto:
    """Parse an ONNX file whose arrays are in the file itself.

    Raises:
        InvalidInput: when it is none, or names other files, or onnx is not installed.
    """
    onnx = load_package("onnx")
    model: ModelProto = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except load_package("google.protobuf.message").DecodeError as error:
        raise InvalidInput(f"not an ONNX file, or a truncated one ({error}); restore a copy") from error
    if not model.HasField("graph"):
        raise InvalidInput("not an ONNX file: it has no graph; restore a copy")
    if any(tensor.external_data or tensor.data_location for tensor in model.graph.initializer):
        raise InvalidInput("expected its arrays in the file, and it names other files; save it as one")
    return model


def _check_shell(content: bytes) -> None:
    """Refuse a file with much beside its arrays: protobuf takes up to 80 bytes of memory for each byte of that.

    Raises:
        InvalidInput: then, and where this is no protobuf message.
    """
    from onnx import GraphProto, ModelProto, TensorProto

    path = (ModelProto.GRAPH_FIELD_NUMBER, GraphProto.INITIALIZER_FIELD_NUMBER, TensorProto.RAW_DATA_FIELD_NUMBER)
    try:
        _add_shell(memoryview(content), [number << 3 | _SIZED for number in path], 0)
    except IndexError as error:
        raise InvalidInput("not an ONNX file, or a truncated one; restore a copy") from error


def _add_shell(message: memoryview, path: list[int], shell: int) -> int:
    """Add the bytes of a message outside of the fields at the end of the path of tags, and refuse too many."""
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        match tag & 7:  # the wire type
            case 0:
                _, end = _varint(message, at)
            case 1:
                end = at + 8
            case 5:
                end = at + 4
            case 2:
                size, at = _varint(message, at)
                end = at + size
            case _:
                raise IndexError
        if end > len(message):
            raise IndexError
        if tag != path[0]:
            shell += end - start
        else:
            shell += at - start
            if path[1:]:
                shell = _add_shell(message[at:end], path[1:], shell)
        if shell > _LARGEST_SHELL:
            raise InvalidInput(f"expected {_LARGEST_SHELL} bytes at most beside its arrays, and it has more")
        at = end
    return shell


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """protobuf's integer that begins there, and where it ends: seven bits a byte, the lowest first."""
    number = 0
    for i in range(10):
        byte = message[at + i]
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise IndexError


def _texts(model: ModelProto) -> dict[str, str]:
    """Our texts in the model's metadata."""
    pairs = [(pair.key, pair.value) for pair in model.metadata_props if pair.key in _TEXTS]
    texts = dict(pairs)
    if len(texts) < len(_TEXTS) or len(pairs) > len(texts) or not all(isinstance(text, str) for text in texts.values()):
        raise InvalidInput(
            f"an ONNX graph of another program: expected {', '.join(_TEXTS)} in its metadata, each once, as this "
            f"program writes them, got {', '.join(key for key, _ in pairs) or 'none'}; convert the weights that it was "
            "exported from, in the format of their own framework"
        )
    return texts


def _take_arrays(model: ModelProto) -> dict[str, Array]:
    """The initializers as arrays of their own, by name; leaves them empty in the model."""
    from onnx import TensorProto

    dtypes = {TensorProto.FLOAT16: "<f2", TensorProto.FLOAT: "<f4", TensorProto.DOUBLE: "<f8"}
    arrays: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        what = f"initializer {str(tensor.name)[:60]}"
        if tensor.data_type not in dtypes:
            raise InvalidInput(f"{what}: expected {', '.join(_DTYPES)}, got ONNX's data type {tensor.data_type}")
        content = tensor.raw_data
        shape = tuple(tensor.dims[:5])
        try:
            array = np.frombuffer(content, dtypes[tensor.data_type]).reshape(shape)
        except ValueError as error:
            raise InvalidInput(f"{what}: expected raw_data of shape {shape}, got {len(content)} bytes") from error
        arrays[tensor.name] = array.copy()  # aligned, and free of the model's memory
        tensor.raw_data = b""
    return arrays


def _check_graph(model: ModelProto, config: spec.Config, dtype: str) -> None:
    """Check that the model, with empty initializers, is the one that `build` makes. Changes the model.

    Comments may differ, and so may the author and the date.

    Raises:
        InvalidInput: naming the first difference.
    """
    expected = _without_weights(config, dtype)
    for proto in (model, expected):
        for field in ("producer_name", "producer_version", "domain", "model_version", "ir_version"):
            proto.ClearField(field)
        graph = proto.graph
        graph.ClearField("value_info")  # shapes that a program has inferred
        for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
    if (difference := _difference(model, expected)) is not None:
        raise InvalidInput(f"its graph is not the one of preset {config.preset}: {difference}; write it anew")


def _difference(model: ModelProto, expected: ModelProto) -> str | None:
    """The first difference; None where there is none."""
    for kind in ("node", "initializer", "input", "output"):
        for got, wanted in zip_longest(getattr(model.graph, kind), getattr(expected.graph, kind)):
            if wanted is None:
                return f"{kind} {str(got.name)[:60]!r} is one too many"
            if got is None:
                return f"{kind} {wanted.name} is missing"
            if got != wanted:
                names = [field.name for field in wanted.DESCRIPTOR.fields]
                differing = [name for name in names if getattr(got, name) != getattr(wanted, name)]
                return f"{kind} {wanted.name} differs (in {', '.join(differing) or 'what ONNX did not have before'})"
    return None if model == expected else "it has functions, other versions of operators, or something else of its own"
