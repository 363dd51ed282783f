"""Three independent evaluators of ONNX files, whoever wrote them.

ONNX Runtime and OpenVINO compute on the CPU in float32. The reference evaluator of the onnx package is plain NumPy:
slow, and in float64 where the file is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import spec
from harness.atomic import StrPath
from harness.backends.registry import processors
from harness.weights.formats.onnx_file import decode, load_package
from spec import Array, InvalidInput

if TYPE_CHECKING:
    from onnx import ModelProto


def open_session(graph: bytes) -> Any:
    """A session of ONNX Runtime on the CPU, with a thread for each processor that this process may use.

    Raises:
        InvalidInput: when it is not installed. ONNX Runtime raises errors of its own.
    """
    runtime = load_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = processors()
    options.log_severity_level = 4  # errors are raised; the terminal need not show them too
    return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def compile_graph(graph: bytes, dtype: str = "float32") -> Any:
    """A graph that OpenVINO has compiled for the CPU, with a thread for each processor that this process may use.

    It has to be told float32: by itself it takes bfloat16 where the processor can, and falls back where it cannot.

    Args:
        graph: An ONNX file's content.
        dtype: ``float32`` or ``bfloat16``, to compute in.

    Raises:
        InvalidInput: when it is not installed, or this processor cannot compute in bfloat16. OpenVINO raises errors of
            its own.
    """
    core = load_package("openvino").Core()
    if dtype == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InvalidInput("OpenVINO: this processor has no instructions for bfloat16; take float32")
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
        "INFERENCE_NUM_THREADS": processors(),
        "PERFORMANCE_HINT": "LATENCY",  # one request at a time, which all threads compute
    }
    return core.compile_model(core.read_model(graph), "CPU", settings)


def onnx_runtime(file: StrPath | bytes, images: Array, outputs: Sequence[str] = ()) -> dict[str, Array]:
    """Run a graph in ONNX Runtime.

    A file in float64 or float16 is computed in float32: for the CPU, ONNX Runtime has no convolution of float64, and
    one of float16 only through float32, rounding in between. It accepts images that are too small for the network;
    `spec.check_images` does not.

    Args:
        file: An ONNX file, or its content.
        images: (N, C, H, W).
        outputs: Values of the graph, ``logits`` for one. Empty: every stage that it has, in forward order.

    Returns:
        Arrays by name: (N, C, H, W); (N, channels) of dense layers, and (N, num_classes) of all that ends in logits.

    Raises:
        InvalidInput: when it cannot run the file, or the images do not fit it.
    """
    load_package("onnxruntime")  # a missing package is reported before anything else
    model, names = _with_outputs(in_float32(_model(file)), outputs)
    try:
        session = open_session(model.SerializeToString())
        arrays = session.run(names, {model.graph.input[0].name: _in_dtype_of(model, images)})
    except Exception as error:  # it raises many kinds
        raise _refusal("ONNX Runtime", images, error) from error
    return dict(zip(names, arrays, strict=True))


def openvino(file: StrPath | bytes, images: Array, outputs: Sequence[str] = ()) -> dict[str, Array]:
    """Run a graph in OpenVINO, in float32; otherwise as `onnx_runtime`."""
    load_package("openvino")
    model, names = _with_outputs(in_float32(_model(file)), outputs)
    try:
        arrays = compile_graph(model.SerializeToString())([_in_dtype_of(model, images)])
        return {name: np.array(arrays[name]) for name in names}  # its own memory goes with it
    except Exception as error:  # it raises many kinds
        raise _refusal("OpenVINO", images, error) from error


def onnx_reference(file: StrPath | bytes, images: Array, outputs: Sequence[str] = ()) -> dict[str, Array]:
    """Run a graph in the reference evaluator, in the dtype of the file; otherwise as `onnx_runtime`."""
    model, names = _with_outputs(_model(file), outputs)
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):
        """Local response normalization as ONNX defines it: onnx 1.23's own skips most channels (its issue 7805)."""

        op_domain = ""

        def _run(self, x: Array, *, alpha: float, beta: float, bias: float, size: int) -> tuple[Array]:
            before, channels = (size - 1) // 2, x.shape[1]
            squares = np.pad(x**2, ((0, 0), (before, size - 1 - before), (0, 0), (0, 0)))
            total = sum(squares[:, i : i + channels] for i in range(size))
            return ((x / (bias + alpha / size * total) ** beta).astype(x.dtype),)

    try:
        evaluator = ReferenceEvaluator(model, new_ops=[LRN])
        arrays = evaluator.run(names, {model.graph.input[0].name: _in_dtype_of(model, images)})
    except Exception as error:  # it raises many kinds
        raise _refusal("ONNX's reference evaluator", images, error) from error
    return dict(zip(names, arrays, strict=True))


def _model(file: StrPath | bytes) -> ModelProto:
    try:
        model = decode(file if isinstance(file, bytes) else Path(file).read_bytes())
        if len(model.graph.input) != 1:
            raise InvalidInput(f"expected a graph with one input, got {len(model.graph.input)}")
    except OSError as error:
        raise InvalidInput(f"{file!s}: cannot be read ({error.strerror})") from error
    except InvalidInput as error:
        raise InvalidInput(f"{'the graph' if isinstance(file, bytes) else file}: {error}") from error
    return model


def _with_outputs(model: ModelProto, outputs: Sequence[str]) -> tuple[ModelProto, list[str]]:
    """The model with those values, or all its stages, among its outputs; and their names."""
    from onnx import helper

    stages = {name for config in spec.PRESETS.values() for name in spec.stage_names(config)}
    names = list(outputs) or [name for node in model.graph.node for name in node.output if name in stages]
    if not names:
        raise InvalidInput("expected a graph with stages of a preset (conv1, pool1, …), got one without")
    kind = model.graph.input[0].type.tensor_type.elem_type
    present = {output.name for output in model.graph.output}
    missing = [name for name in names if name not in present]
    model.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in missing)
    return model, names


def in_float32(model: ModelProto) -> ModelProto:
    """The model, in float32 where it was in float64 or float16."""
    from onnx import TensorProto, numpy_helper

    others, single = (TensorProto.DOUBLE, TensorProto.FLOAT16), TensorProto.FLOAT
    constants = [x.t for node in model.graph.node if node.op_type == "Constant" for x in node.attribute]
    for tensor in (*model.graph.initializer, *constants):
        if tensor.data_type in others:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in others:
            value.type.tensor_type.elem_type = single
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name) == ("Cast", "to") and attribute.i in others:
                attribute.i = single
    return model


def _in_dtype_of(model: ModelProto, images: Array) -> Array:
    from onnx import helper

    dtype = helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)
    return np.asarray(images, dtype)


def _refusal(evaluator: str, images: Array, error: Exception) -> InvalidInput:
    reason = " ".join(str(error).split())
    return InvalidInput(f"{evaluator} cannot run the graph on images of shape {np.shape(images)}: {reason}")


class Evaluator(NamedTuple):
    """One of the three."""

    title: str
    package: str
    run: Callable[..., dict[str, Array]]
    single: bool  # computes in float32, whatever the file is in

    @property
    def installed(self) -> bool:
        """Whether it can be asked."""
        return find_spec(self.package) is not None


EVALUATORS = {
    "onnx": Evaluator("ONNX Runtime", "onnxruntime", onnx_runtime, single=True),
    "openvino": Evaluator("OpenVINO", "openvino", openvino, single=True),
    "onnx-reference": Evaluator("ONNX reference", "onnx", onnx_reference, single=False),
}
RUNTIMES = ("onnx", "openvino")  # those made for use
