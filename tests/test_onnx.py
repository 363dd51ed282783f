"""ONNX: the graph by two judges against the referee, and the file against whatever may become of it.

The graphs are of thin networks, which are wired as the presets are; the files are of LeNets, whose arrays are small.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import thin, with_stages
from onnx import ModelProto, TensorProto, helper, numpy_helper
from short import short
from support import here

import spec
from harness.agreement import probe_params, relative_error, relative_errors
from harness.weights.checkpoint import describe, understand
from harness.weights.convert import read_weights
from harness.weights.formats import onnx_file
from harness.weights.formats.onnx_file import build, read, write
from harness.weights.onnx_run import compile_graph, onnx_reference, onnx_runtime, openvino
from spec import Config, InvalidInput, reference
from spec.network import LRN
from spec.tolerances import TOLERANCES

Arrays = dict[str, np.ndarray]
LENET, FROZEN = (spec.preset(name) for name in ("lenet-bn", "lenet-bn-frozen"))
THIN_D2L, THIN_BVLC, THIN_TORCHVISION = (thin(name) for name in ("d2l", "bvlc", "torchvision"))
SINGLE, DOUBLE = TOLERANCES["float32"], TOLERANCES["float64"]


class Case(NamedTuple):
    config: Config
    height: int
    width: int
    batch: int = 1

    def __str__(self) -> str:
        heads = "-heads" if self.config.aux else ""
        return f"{self.config.preset}{heads}-{self.height}x{self.width}-{self.batch}"


CASES = [
    Case(THIN_D2L, 33, 30, 2),
    Case(thin("d2lzh", in_channels=3), 32, 29),
    Case(thin("bvlc", aux=False, in_channels=1), 35, 47, 2),
    Case(THIN_TORCHVISION, 32, 32),
    # Maps whose height and width the auxiliary heads divide in windows of other lengths.
    Case(thin("torchvision", num_classes=3, in_channels=1), 97, 65),
    Case(thin("torchvision", aux=False), 33, 31, 2),
    Case(spec.preset("lenet"), 28, 31, 2),
    Case(spec.preset("lenet-bn", in_channels=3, num_classes=7), 30, 29, 2),
    Case(spec.preset("lenet-bn-scratch"), 28, 28),
    Case(FROZEN, 31, 28, 2),
    Case(thin("alexnet", 67), 67, 67, 2),
    Case(thin("vgg11", 33), 33, 33),
    Case(thin("nin", num_classes=7), 67, 67),
    Case(thin("nin", in_channels=2), 115, 131),  # whose last map has pixels to average
    Case(short("inception-bn"), 31, 64),
    Case(short("inception-bn-mxnet"), 61, 40),
    Case(short("inception-v3", aux=False), 75, 91),
    Case(short("inception-v3-tf"), 75, 76),
    Case(short("inception-v3-fid"), 76, 75),
    Case(short("inception-v4"), 75, 79),
    Case(short("inception-resnet-v2"), 77, 75),
    Case(short("inception-resnet-v2", shortcuts=False, norm_scale=False), 75, 75),
]
WIDE = [  # average pools of fixed windows, which need large maps
    Case(thin("cnblogs"), 225, 194),  # whose last map is one row higher than the window of 7
    Case(THIN_BVLC, 223, 224),
]
PRESETS = [  # at their own widths
    Case(spec.preset("d2lzh-misprint"), 28, 33),
    Case(spec.preset("cnblogs", in_channels=3, num_classes=2), 256, 193),
    Case(spec.preset("bvlc"), 223, 224),
    Case(spec.preset("torchvision"), 224, 224),
    Case(spec.preset("nin"), 224, 224),
    Case(spec.preset("vgg11-narrow"), 224, 225),
    Case(spec.preset("inception-bn"), 224, 224),
    Case(spec.preset("inception-v3"), 299, 299),  # with its head
    Case(spec.preset("inception-v4"), 107, 107),
    Case(spec.preset("inception-resnet-v2"), 107, 107),
]
LARGEST = [  # 47 and 129 million parameters
    pytest.param(Case(spec.preset(preset), 224, 224), marks=pytest.mark.large) for preset in ("alexnet", "vgg11")
]


@cache
def images(case: Case) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(case.batch, case.config.in_channels, case.height, case.width))


def network(config: Config, dtype: str = "float32") -> Arrays:
    return {name: x.astype(dtype) for name, x in probe_params(config, seed=3).items()}


def content(config: Config, dtype: str = "float32") -> bytes:
    return build(config, network(config, dtype)).SerializeToString()


def with_rounded_numbers(config: Config) -> Config:
    """The network with the numbers of its operators as ONNX keeps them, in float32."""

    def rounded(x: float) -> float:
        return float(np.float32(x))

    norms = {name: op for name, op in config.table if isinstance(op, LRN)}
    numbers = ("alpha", "beta", "k")
    onnx_tolerances = {name: replace(op, **{x: rounded(getattr(op, x)) for x in numbers}) for name, op in norms.items()}
    if norm := config.batch_norm:
        norm = replace(norm, epsilon=rounded(norm.epsilon))
    return with_stages(replace(config, batch_norm=norm), **onnx_tolerances)


# ------------------------------------------------------------------------------------------------------ the judges


def assert_runtimes_agree(case: Case) -> None:
    params = network(case.config)
    expected = reference.activations(case.config, params, images(case).astype("float32"))
    graph = build(case.config, params).SerializeToString()
    for runtime in (onnx_runtime, openvino):
        got = runtime(graph, images(case))
        assert list(got) == list(expected) == list(spec.stage_names(case.config))
        assert {x.dtype.name for x in got.values()} == {"float32"}
        errors = relative_errors(got, expected)
        assert max(errors.values()) <= SINGLE.activations, (runtime, errors)


@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=str)
def test_runtimes_agree_with_the_referee(case):
    assert_runtimes_agree(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*PRESETS, *LARGEST], ids=str)
def test_runtimes_agree_with_the_referee_on_the_presets(case):
    assert_runtimes_agree(case)


def test_openvino_computes_in_the_dtype_that_it_is_told():
    """By itself it takes bfloat16 where the processor has that."""
    case = Case(LENET, 28, 28)
    graph, expected = content(LENET), reference.predict(LENET, network(LENET), images(case))
    x = images(case).astype("float32")
    assert relative_error(compile_graph(graph)([x])["logits"], expected) <= SINGLE.logits
    try:
        rounded = compile_graph(graph, "bfloat16")([x])["logits"]
    except InvalidInput:  # this processor has none
        return
    assert 1e-4 < relative_error(rounded, expected) < 5e-2


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in WIDE)],  # it loops over pixels
    ids=str,
)
def test_the_reference_evaluator_agrees_with_the_referee(case):
    params = network(case.config, "float64")
    got = onnx_reference(build(case.config, params).SerializeToString(), images(case))
    expected = reference.activations(with_rounded_numbers(case.config), params, images(case))
    assert list(got) == list(expected)
    assert {x.dtype.name for x in got.values()} == {"float64"}
    errors = relative_errors(got, expected)
    assert max(errors.values()) <= DOUBLE.activations, errors


@pytest.mark.parametrize(("preset", "bound"), [("bvlc", 1e-11), ("torchvision", 2e-10)])
def test_rounding_the_numbers_of_operators_shows_from_the_eleventh_digit(preset, bound):
    """Measured: 5e-12 for alpha and beta of LRN, 7e-11 for epsilon of batch norm."""
    case = Case(spec.preset(preset, num_classes=10, aux=False), 32, 32)
    params = network(case.config, "float64")
    expected = reference.activations(case.config, params, images(case))
    rounded = reference.activations(with_rounded_numbers(case.config), params, images(case))
    assert DOUBLE.activations < max(relative_errors(rounded, expected).values()) < bound


def test_one_file_takes_every_batch_and_size():
    model = content(THIN_TORCHVISION)
    for height, width, batch in ((32, 32, 1), (32, 32, 3), (41, 30, 3)):
        case = Case(THIN_TORCHVISION, height, width, batch)
        expected = reference.activations(THIN_TORCHVISION, network(THIN_TORCHVISION), images(case))
        got = onnx_runtime(model, images(case), ["logits", "aux1", "aux2"])
        for name, stage in (("logits", "fc"), ("aux1", "aux1"), ("aux2", "aux2")):
            assert relative_error(got[name], expected[stage]) <= SINGLE.logits


@pytest.mark.parametrize(("dtype", "bound"), [("float64", SINGLE.activations), ("float16", 5e-3)])
@pytest.mark.parametrize("case", [Case(THIN_TORCHVISION, 32, 32), Case(FROZEN, 28, 28)], ids=str)
def test_runtimes_take_files_of_other_dtypes(case, dtype, bound):
    """Of float64 in float32, constants too. Of float16: measured 6e-4."""
    params = network(case.config, dtype)
    expected = reference.activations(case.config, params, images(case))
    for runtime in (onnx_runtime, openvino):
        errors = relative_errors(runtime(build(case.config, params).SerializeToString(), images(case)), expected)
        assert max(errors.values()) <= bound, errors


def test_the_judges_read_files(tmp_path):
    path, case = tmp_path / "a.onnx", Case(LENET, 28, 28)
    path.write_bytes(content(LENET))
    for judge in (onnx_runtime, openvino, onnx_reference):
        logits = judge(path, images(case), ["logits"])["logits"]
        assert relative_error(logits, reference.predict(LENET, network(LENET), images(case))) <= SINGLE.logits
        with pytest.raises(InvalidInput, match=f"{tmp_path / 'b.onnx'}: cannot be read"):
            judge(tmp_path / "b.onnx", images(case))


@pytest.mark.parametrize("judge", [onnx_runtime, openvino, onnx_reference])
def test_the_judges_refuse_files_and_images_that_they_cannot_run(judge):
    image = np.zeros((1, 1, 28, 28))
    for file, message in {
        b"<html>": "the graph: not an ONNX file",
        b"": "it has no graph",
        foreign_model().SerializeToString(): "stages of a preset",
        doctored(_kept_elsewhere): "names other files",
        doctored(
            lambda model: _set(op_type="Sigmoit")(_node(model, "conv1.sigmoid"))
        ): "cannot run the graph on images",
    }.items():
        with pytest.raises(InvalidInput, match=message):
            judge(file, image)
    with pytest.raises(InvalidInput, match=r"cannot run the graph on images of shape \(1, 3, 28, 28\)"):
        judge(good(), np.zeros((1, 3, 28, 28)))
    with pytest.raises(InvalidInput, match=r"cannot run the graph on images of shape \(1, 28, 28\)"):
        judge(good(), image[0])


def test_onnx_runtime_warns_of_nothing_in_a_file_with_heads(capfd):
    """Arrays that no node uses it would drop, with a warning for each."""
    model = content(THIN_TORCHVISION)
    import onnxruntime

    onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert "initializer" not in capfd.readouterr().err
    unused = onnx.load_model_from_string(model)
    unused.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    onnxruntime.InferenceSession(unused.SerializeToString(), providers=["CPUExecutionProvider"])
    assert "initializer" in capfd.readouterr().err  # that it says so at all


# -------------------------------------------------------------------------------------------------------- the graph


@pytest.mark.parametrize("case", [*CASES, *WIDE], ids=str)
def test_the_graph_is_sound_and_its_shapes_are_those_of_the_spec(case):
    config = case.config
    model = build(config, network(config, "float16"))
    onnx.checker.check_model(model, full_check=True)
    (given_images,) = model.graph.input
    sizes = (case.batch, config.in_channels, case.height, case.width)
    for dimension, size in zip(given_images.type.tensor_type.shape.dim, sizes, strict=True):
        dimension.dim_value = size
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = case.batch
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    shapes = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
    for name, shape in spec.stage_shapes(config, sizes[1:]).items():
        assert shapes[name] == (case.batch, *shape), name
    assert shapes["logits"] == (case.batch, config.num_classes)


@pytest.mark.parametrize(
    "config",
    [THIN_D2L, THIN_BVLC, THIN_TORCHVISION, LENET, FROZEN, thin("nin")],
    ids=lambda config: config.preset,
)
def test_the_graph_uses_every_array_and_leaves_no_window_to_defaults(config):
    graph = build(config, network(config)).graph
    assert {x.name: tuple(x.dims) for x in graph.initializer} == spec.param_shapes(config)
    assert [x.name for x in graph.input] == ["images"]
    assert [x.name for x in graph.output] == (["logits", "aux1", "aux2"] if config.aux else ["logits"])
    made = [name for node in graph.node for name in node.output]
    assert len(set(made)) == len(made)
    assert [name for name in made if name in spec.stage_names(config)] == list(spec.stage_names(config))
    assert {name for node in graph.node for name in node.input} >= set(spec.param_shapes(config))  # all of them used
    free = [dimension.dim_param for dimension in graph.input[0].type.tensor_type.shape.dim]
    assert free == ["batch", "", "height", "width"]
    assert "Dropout" not in {node.op_type for node in graph.node}
    for node in graph.node:  # nothing is left to defaults
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            assert {x.name for x in node.attribute} == {"kernel_shape", "strides", "pads"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: {"fc5.bias": x["fc5.bias"].astype("float64")}, "arrays of one dtype .* got float32, float64"),
        (lambda x: {name: y.astype("longdouble") for name, y in x.items()}, "float16, float32, float64, got"),
        (lambda x: {"fc5.bias": x["fc5.bias"][1:]}, "wrong shape"),
        (lambda x: {"more": x["fc5.bias"]}, "unexpected"),
    ],
)
def test_arrays_that_do_not_fit_are_not_written(changed, message, tmp_path):
    params = network(LENET)
    params |= changed(params)
    with pytest.raises(InvalidInput, match=message):
        build(LENET, params)
    with pytest.raises(InvalidInput, match=message):
        write(tmp_path / "a.onnx", params, LENET, {})
    assert not any(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------------- teeth


def _node(model: ModelProto, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def _pad_shifted(model: ModelProto) -> None:
    pads = next(x for x in _node(model, "pool1").attribute if x.name == "pads")
    assert pads.ints == [1, 1, 1, 1]
    pads.ints[:] = [0, 0, 2, 2]


def _branches_swapped(model: ModelProto) -> None:
    inputs = _node(model, "inception3a.concat").input
    inputs[2], inputs[3] = inputs[3], inputs[2]


def _relu_dropped(model: ModelProto) -> None:
    model.graph.node.remove(_node(model, "conv2.relu"))
    _node(model, "conv2.conv").output[0] = "conv2"


def _kept_elsewhere(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _norm_skipped(model: ModelProto) -> None:
    """Of a dense layer."""
    _node(model, "fc3.sigmoid").input[0] = _node(model, "fc3.norm").input[0]


def _another_activation(model: ModelProto) -> None:
    _node(model, "fc4.sigmoid").op_type = "Tanh"


def _scale_of_two(model: ModelProto) -> None:
    twos = np.full(6, 2, np.float32)
    _node(model, "conv1.norm.scale").attribute[0].t.CopyFrom(numpy_helper.from_array(twos))


@cache
def good(config: Config = LENET, dtype: str = "float16") -> bytes:
    """A whole file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.onnx"
        write(path, network(config, dtype), config, {"epoch": 3})
        return path.read_bytes()


def doctored(change: Callable[[ModelProto], object], config: Config = LENET, dtype: str = "float16") -> bytes:
    """A file that was whole before the change."""
    model = onnx.load_model_from_string(good(config, dtype))
    change(model)
    return model.SerializeToString()


FAULTS = [
    (THIN_D2L, _pad_shifted, "pool1", r"node pool1 differs \(in attribute\)"),
    (THIN_D2L, _branches_swapped, "inception3a", r"node inception3a.concat differs \(in input\)"),
    (THIN_D2L, _relu_dropped, "conv2", r"node conv2.conv differs \(in output\)"),
    (LENET, _norm_skipped, "fc3", r"node fc3.sigmoid differs \(in input\)"),
    (LENET, _another_activation, "fc4", r"node fc4.sigmoid differs \(in op_type\)"),
    (FROZEN, _scale_of_two, "conv1", r"node conv1.norm.scale differs \(in attribute\)"),
]


@pytest.mark.parametrize(("config", "change", "stage", "node"), FAULTS)
def test_a_fault_in_the_graph_shows_in_what_the_judges_compute(config, change, stage, node):
    case = Case(config, 28, 28) if config.preset.startswith("lenet") else Case(config, 33, 30)
    expected = reference.activations(config, network(config), images(case))
    model = build(config, network(config))
    change(model)
    names = list(expected)
    for judge in (onnx_runtime, openvino, onnx_reference):
        got = judge(model.SerializeToString(), images(case))
        assert {name: x.shape for name, x in got.items()} == {name: x.shape for name, x in expected.items()}
        for name, error in relative_errors(got, expected).items():
            assert (error > SINGLE.activations) == (names.index(name) >= names.index(stage)), name


@pytest.mark.parametrize(("config", "change", "stage", "node"), FAULTS)
def test_a_fault_in_the_graph_is_refused(config, change, stage, node, tmp_path):
    config = spec.preset(config.preset)  # a file says which preset it is, and is of that
    (tmp_path / "a.onnx").write_bytes(doctored(change, config))
    with pytest.raises(InvalidInput, match=f"its graph is not the one of preset {config.preset}: {node}"):
        read(tmp_path / "a.onnx")


# ------------------------------------------------------------------------------------------------------ round trips


def assert_same(arrays: Arrays, expected: Arrays) -> None:
    assert list(arrays) == list(expected)
    for name, x in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (x.dtype, x.shape), name
        assert arrays[name].tobytes() == x.tobytes(), name


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (spec.preset("bvlc", num_classes=1, aux_weight=0.5), "float16"),
        (spec.preset("lenet", num_classes=3, label_smoothing=0.1), "float64"),
        (spec.preset("lenet-bn", norm_momentum=0.5), "float32"),
        (spec.preset("lenet-bn-scratch"), "float16"),
        (spec.preset("lenet-bn-frozen", in_channels=3), "float64"),
    ],
)
def test_a_network_comes_back_as_it_was(config, dtype, tmp_path):
    params = network(config, dtype)
    bias = f"{spec.layers(config)[-1].name}.bias"
    params[bias][0] = np.finfo(dtype).smallest_subnormal
    metadata = {"epoch": 3, "history": [{"loss": 0.1}, None], "name": "mañana 日本"}
    write(tmp_path / "a.onnx", params, config, metadata)
    found = read(tmp_path / "a.onnx")
    assert_same(found.arrays, params)
    assert found.texts == describe(params, config, metadata)
    checkpoint = understand(found.arrays, found.texts)
    assert (checkpoint.config, checkpoint.metadata) == (config, metadata)
    found.arrays[bias][:] = 1  # its own memory, and writable
    assert found.arrays[bias].flags.aligned
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_equal_content_makes_equal_bytes(tmp_path):
    """Whatever the order of the arrays and how memory holds them."""
    params = network(LENET, "float16")
    for stored in (
        dict(reversed(params.items())),
        {name: x.astype(x.dtype.newbyteorder(">")) for name, x in params.items()},
        {name: np.asfortranarray(x) for name, x in params.items()},
    ):
        write(tmp_path / "a.onnx", stored, LENET, {"epoch": 3})
        assert (tmp_path / "a.onnx").read_bytes() == good()
    write(tmp_path / "a.onnx", params, LENET, {"epoch": 4})
    assert (tmp_path / "a.onnx").read_bytes() != good()


def test_the_onnx_package_reads_the_same_arrays():
    model = onnx.load_model_from_string(good())
    assert_same({x.name: numpy_helper.to_array(x) for x in model.graph.initializer}, network(LENET, "float16"))
    onnx.checker.check_model(model, full_check=True)


def _annotated(model: ModelProto) -> None:
    model.producer_name, model.producer_version, model.model_version, model.ir_version = "another", "2", 7, 10
    for part in (model, model.graph, model.graph.node[3], model.graph.input[0], model.graph.initializer[5]):
        part.doc_string = "seen"
    model.graph.node[4].metadata_props.add(key="namespace", value="stem")
    model.metadata_props.add(key="license", value="MIT")
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    assert model.graph.value_info


def test_comments_of_other_programs_may_stay(tmp_path):
    (tmp_path / "a.onnx").write_bytes(doctored(_annotated))
    found = read(tmp_path / "a.onnx")
    assert_same(found.arrays, network(LENET, "float16"))
    assert found.texts == describe(found.arrays, LENET, {"epoch": 3})


def test_the_old_file_stays_when_the_new_one_cannot_be_written(tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(good())
    for wrong in ({"x": {1}}, {"x": "y" * 2**20}):
        with pytest.raises(InvalidInput, match=f"{path}: expected .*"):
            write(path, network(LENET, "float16"), LENET, wrong)
    assert path.read_bytes() == good()
    with pytest.raises(InvalidInput, match="cannot be written"):
        write(tmp_path / "none" / "a.onnx", network(LENET, "float16"), LENET, {})


# ---------------------------------------------------------------------------------------------------- hostile files


def foreign_model() -> ModelProto:
    """A sound ONNX model that is none of ours."""
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    two = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [one], [two]))


def refusal(path: Path) -> str:
    """What is said of a file that must be refused: one line, which names the file."""
    started = time.process_time()
    with pytest.raises(InvalidInput) as caught:
        read_weights(path, here, "onnx")
    assert time.process_time() - started < 20
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


NOT_ONNX = {
    "empty": b"",
    "web page": b"<!DOCTYPE html><html><head><title>404</title></head></html>",
    "pickle": pickle.dumps({"conv1.weight": [0.0]}),
    "zeros": bytes(1000),
    "noise": np.random.default_rng(0).bytes(100_000),
    "archive": b"PK\x03\x04" + bytes(100),
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "an endless number": b"\x08" + b"\xff" * 20,
    "a size beyond its end": b"\x3a\xff\xff\xff\xff\x0f" + bytes(10),
    "a size beyond all memory": b"\x3a" + b"\xff" * 9 + b"\x01",
    "a group": b"\x3b\x3c",
    "nested without end": b"\x3a\x7e" * 100,
    "no graph": b"\x08\x08\x12\x09googlenet",
}


@pytest.mark.parametrize("name", NOT_ONNX)
def test_a_file_that_is_not_onnx_is_refused(name, tmp_path):
    (tmp_path / "a.onnx").write_bytes(NOT_ONNX[name])
    assert "not an ONNX file" in refusal(tmp_path / "a.onnx")


def test_a_missing_or_too_large_file_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").mkdir()
    assert "Is a directory" in refusal(tmp_path / "b.onnx")
    with (tmp_path / "c.onnx").open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no room
    assert "2147483647 bytes at most" in refusal(tmp_path / "c.onnx")


@pytest.mark.parametrize("share", [1e-5, 0.001, 0.5, 0.9999])
def test_a_truncated_file_is_refused(share, tmp_path):
    (tmp_path / "a.onnx").write_bytes(good()[: int(share * len(good()))])
    assert "restore a copy" in refusal(tmp_path / "a.onnx")


def test_a_graph_of_another_program_is_refused(tmp_path):
    for model in (foreign_model(), build(LENET, network(LENET, "float16"))):
        (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
        assert "an ONNX graph of another program: expected format, config" in refusal(tmp_path / "a.onnx")


def _tensor(change: Callable[[Any], object], name: str = "conv1.weight") -> Callable[[ModelProto], None]:
    def changed(model: ModelProto) -> None:
        change(next(x for x in model.graph.initializer if x.name == name))

    return changed


def _set(**values: Any) -> Callable[[Any], None]:
    """Sets fields of a message; a list takes the place of what a repeated one holds."""

    def changed(message: Any) -> None:
        for name, value in values.items():
            if isinstance(value, list):
                message.ClearField(name)
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)

    return changed


def _text(key: str, change: Callable[[str], str]) -> Callable[[ModelProto], None]:
    def changed(model: ModelProto) -> None:
        pair = next(pair for pair in model.metadata_props if pair.key == key)
        pair.value = change(pair.value)

    return changed


def _attribute(node: str, name: str, **values: Any) -> Callable[[ModelProto], None]:
    return lambda model: _set(**values)(next(x for x in _node(model, node).attribute if x.name == name))


def _relabeled(config: Config, other: str) -> Callable[[ModelProto], None]:
    """Another network's name on arrays of the same shapes, with the right hash."""

    def changed(model: ModelProto) -> None:
        named = spec.preset(other, num_classes=config.num_classes)
        texts = describe(network(config, "float16"), named, {"epoch": 3})
        for pair in model.metadata_props:
            pair.value = texts[pair.key]

    return changed


def _forged(x: Callable[[Arrays], Arrays]) -> Callable[[ModelProto], None]:
    """Other arrays, with the right hash."""

    def changed(model: ModelProto) -> None:
        arrays = x(network(LENET, "float16"))
        model.graph.ClearField("initializer")
        model.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in arrays.items())
        texts = describe(arrays, LENET, {"epoch": 3})
        for pair in model.metadata_props:
            pair.value = texts[pair.key]

    return changed


def _as_floats(x: Any) -> None:
    x.float_data.extend(numpy_helper.to_array(x).ravel().tolist())
    x.ClearField("raw_data")


def _without(arrays: Arrays, name: str) -> Arrays:
    return {key: x for key, x in arrays.items() if key != name}


CHANGED: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    # The arrays.
    "a bit": (
        _tensor(lambda x: _set(raw_data=x.raw_data[:99] + bytes([x.raw_data[99] ^ 1]) + x.raw_data[100:])(x)),
        "damaged",
    ),
    "a byte less": (
        _tensor(lambda x: _set(raw_data=x.raw_data[:-1])(x)),
        r"conv1.weight: expected raw_data of shape \(6, 1, 5, 5\), got 299 bytes",
    ),
    "an array more": (
        lambda model: model.graph.initializer.add(name="more", data_type=1, dims=[1], raw_data=bytes(4)),
        "unexpected",
    ),
    "an array less": (lambda model: model.graph.initializer.pop(), r"missing \(1\): fc5.bias"),
    "a name twice": (_tensor(_set(name="conv1.bias")), r"missing \(1\): conv1.weight"),
    "a name with a line": (_tensor(_set(name="conv1\nweight\x1b[2J")), r"unexpected \(1\): conv1 weight\\x1b\[2J"),
    "another name": (_tensor(_set(name="conv1.kernel")), "conv1.weight"),
    "a long name": (_tensor(_set(name="x" * 2**19)), "conv1.weight"),
    "no name": (_tensor(_set(name="")), "conv1.weight"),
    "huge": (_tensor(_set(dims=[2**62, 2**62])), r"of shape \(4611686018427387904, 4611686018427387904\)"),
    "negative": (_tensor(_set(dims=[-6, -25])), r"of shape \(-6, -25\)"),
    "no dimension": (_tensor(_set(dims=[])), r"of shape \(\)"),
    "many dimensions": (_tensor(_set(dims=[2**62] * 100_000)), "expected raw_data of shape"),
    "other dimensions": (_tensor(_set(dims=[6, 1, 25])), r"conv1.weight: expected \(6, 1, 5, 5\), got \(6, 1, 25\)"),
    "whole numbers": (_tensor(_set(data_type=TensorProto.INT16)), "ONNX's data type 5"),
    "bfloat16": (_tensor(_set(data_type=TensorProto.BFLOAT16)), "ONNX's data type 16"),
    "no such type": (_tensor(_set(data_type=99)), "ONNX's data type 99"),
    "in another field": (_tensor(_as_floats), "expected raw_data of shape"),
    "in two fields": (
        _tensor(lambda x: x.float_data.extend([1.0])),
        r"initializer conv1.weight differs \(in float_data\)",
    ),
    "in another file": (_kept_elsewhere, "names other files"),
    "in a file and here": (_tensor(lambda x: x.external_data.add(key="location", value="b.bin")), "names other files"),
    "a part": (_tensor(lambda x: _set(begin=0, end=5)(x.segment)), r"initializer conv1.weight differs \(in segment\)"),
    "sparse": (lambda model: model.graph.sparse_initializer.add(), "something else of its own"),
    "another order": (
        lambda model: model.graph.initializer.append(model.graph.initializer.pop(0)),
        "initializer conv1.weight",
    ),
    "not a number, hash and all": (_forged(lambda x: x | {"fc5.bias": np.full(10, np.nan, "f2")}), "NaN or infinity"),
    "less, hash and all": (_forged(lambda x: _without(x, "fc5.bias")), r"missing \(1\): fc5.bias"),
    "more, hash and all": (
        _forged(lambda x: x | {"optimizer/t": np.ones((1,), "f2")}),
        r"unexpected \(1\): optimizer/t",
    ),
    "two dtypes, hash and all": (_forged(lambda x: x | {"fc5.bias": x["fc5.bias"].astype("f4")}), "one dtype"),
    # The texts.
    "no texts": (lambda model: model.ClearField("metadata_props"), "of another program"),
    "a text twice": (lambda model: model.metadata_props.append(model.metadata_props[1]), "each once"),
    "the format": (_text("format", lambda text: text + "0"), "googlenet-10"),
    "the hash": (_text("sha256", lambda text: text[::-1]), "damaged"),
    "a hash for the terminal": (
        _text("sha256", lambda text: text + "\x1b[2J\n"),
        r"and says '\w{64}\\x1b\[2J\\n'; restore",
    ),
    "the metadata": (_text("metadata", lambda text: text.replace("3", "4")), "damaged"),
    "another configuration": (
        _text("config", lambda text: text.replace("lenet-bn", "lenet-bn-scratch")),
        "not the one of preset lenet-bn-scratch",
    ),
    "another configuration, hash and all": (
        _relabeled(LENET, "lenet-bn-scratch"),
        "not the one of preset lenet-bn-scratch: it has functions, other versions of operators, or something else",
    ),
    "no configuration": (_text("config", lambda text: "[" * 10**5), "JSON object as 'config'"),
    "no such preset": (_text("config", lambda text: '{"name": "lenet\\u001b\\n"}'), "unknown preset"),
    "a setting too many": (_text("config", lambda text: '{"name": "lenet-bn", "x": 1}'), "config: "),
    "as many classes": (
        _text("config", lambda text: text.replace('"num_classes": 10', '"num_classes": 1' + "0" * 99)),
        "fc5.weight",
    ),
    # The graph.
    "a pad": (_attribute("conv1.conv", "pads", ints=[0, 0, 1, 1]), r"node conv1.conv differs \(in attribute\)"),
    "a stride": (_attribute("conv1.conv", "strides", ints=[2, 1]), "node conv1.conv differs"),
    "another operator": (
        lambda model: _set(op_type="LeakyRelu")(_node(model, "conv1.sigmoid")),
        "node conv1.sigmoid differs",
    ),
    "a domain": (
        lambda model: _set(domain="x")(_node(model, "conv1.sigmoid")),
        r"node conv1.sigmoid differs \(in domain\)",
    ),
    "an attribute more": (
        lambda model: _node(model, "fc5.dense").attribute.append(helper.make_attribute("alpha", 2.0)),
        "fc5.dense",
    ),
    "a node more": (lambda model: model.graph.node.add(name="\x1bx", op_type="Relu"), "'\\\\x1bx' is one too many"),
    "a node less": (lambda model: model.graph.node.pop(), "node logits is missing"),
    "no nodes": (lambda model: model.graph.ClearField("node"), "node conv1.conv is missing"),
    "another input": (lambda model: _set(name="image")(model.graph.input[0]), "input images differs"),
    "a fixed size": (
        lambda model: _set(dim_value=28)(model.graph.input[0].type.tensor_type.shape.dim[2]),
        "input images",
    ),
    "an output more": (lambda model: model.graph.output.add(name="pool1"), "output 'pool1' is one too many"),
    "another version": (lambda model: _set(version=18)(model.opset_import[0]), "other versions of operators"),
    "a function": (lambda model: model.functions.add(name="Relu", domain=""), "it has functions"),
    "training": (lambda model: model.training_info.add(), "something else of its own"),
    "another graph name": (lambda model: _set(name="x")(model.graph), "something else of its own"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_file_is_refused(name, tmp_path):
    change, expected = CHANGED[name]
    (tmp_path / "b.bin").write_bytes(network(LENET, "float16")["conv1.weight"].tobytes())
    (tmp_path / "a.onnx").write_bytes(doctored(change))
    message = refusal(tmp_path / "a.onnx")
    assert re.search(expected, message), message


def _step_of_5(model: ModelProto) -> None:
    _node(model, "aux1.pool.rows.step").attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(5)))


@pytest.mark.parametrize(
    ("preset", "change", "message"),
    [
        ("bvlc", _attribute("norm1", "alpha", f=2e-5), "node norm1 differs"),
        ("bvlc", lambda model: model.graph.output.pop(), "output aux2 is missing"),
        ("torchvision", _attribute("conv1.norm", "epsilon", f=1e-5), "node conv1.norm differs"),
        ("torchvision", _step_of_5, "node aux1.pool.rows.step differs"),
        ("lenet-bn", _attribute("fc3.norm", "epsilon", f=1e-3), "node fc3.norm differs"),
        ("lenet-bn", lambda model: _set(name="x")(model.graph), "something else of its own"),
        ("nin", _attribute("pool3", "kernel_shape", ints=[2, 2]), "node pool3 differs"),
        ("d2l", _relabeled(spec.preset("d2l"), "d2lzh"), "not the one of preset d2lzh: node conv2_reduce"),
    ],
)
def test_a_changed_node_of_another_preset_is_refused(preset, change, message, tmp_path):
    config = spec.preset(preset, num_classes=10)
    (tmp_path / "a.onnx").write_bytes(doctored(change, config))
    assert message in refusal(tmp_path / "a.onnx")


def field(tag: int, value: bytes) -> bytes:
    """A field of a protobuf message, by hand."""
    size, number = b"", len(value)
    while number > 127:
        size, number = size + bytes([number & 127 | 128]), number >> 7
    return bytes([tag]) + size + bytes([number]) + value


@pytest.mark.parametrize(
    "extra",
    [
        lambda: field(0x3A, b"\x0a\x00" * 4_000_000),  # nodes
        # An initializer with its bytes over and over.
        pytest.param(lambda: field(0x3A, field(0x2A, b"\x4a\x00" * 4_000_000)), marks=pytest.mark.slow),
    ],
    ids=["nodes", "bytes"],
)
def test_eight_megabytes_of_which_protobuf_would_make_hundreds_are_refused(extra, tmp_path):
    (tmp_path / "a.onnx").write_bytes(good() + extra())
    assert "1048576 bytes at most beside its arrays" in refusal(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (field(0x3A, field(0x2A, field(0x42, b"more"))), "initializer more: expected float16"),  # it has no type
        (field(0x3A, field(0x0A, field(0x22, b"Relu"))), "one too many"),  # protobuf joins messages given twice
        (field(0x3A, field(0x12, b"\xff\xfe")), "its graph is not the one"),  # no text in UTF-8
        (field(0x72, field(0x0A, b"\xff") + field(0x12, b"\xff")), None),
        (b"\xfa\x3f\x01\x41", "something else of its own"),  # a field that ONNX does not have
        (b"\x3f", "not an ONNX file"),
    ],
)
def test_a_field_more_is_refused_unless_it_is_a_comment(extra, message, tmp_path):
    (tmp_path / "a.onnx").write_bytes(good() + extra)
    if message is None:
        assert read(tmp_path / "a.onnx").texts == describe(network(LENET, "float16"), LENET, {"epoch": 3})
    else:
        assert message in refusal(tmp_path / "a.onnx")


# ------------------------------------------------------------------------------------------------------------- fuzz


@cache
def places() -> np.ndarray:
    """Where in the file something else than the numbers of an array stands."""
    whole = good()
    outside, at = np.ones(len(whole), bool), 0
    for x in network(LENET, "float16").values():
        at = whole.index(x.tobytes(), at)
        outside[at : at + x.nbytes] = False
        at += x.nbytes
    return np.flatnonzero(outside)


class File(bytes):
    """Shown by its length where a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@st.composite
def edited(draw: st.DrawFn) -> File:
    """The file with some bytes changed, moved, cut out or put in."""
    content, structure = good(), places()
    for _ in range(draw(st.integers(1, 3))):
        at, other = (int(structure[draw(st.integers(0, len(structure) - 1))]) for _ in range(2))
        size = draw(st.sampled_from([1, 2, 16, 300, 10**6]))
        kind = draw(st.sampled_from(["byte", "byte", "byte", "copy", "number", "cut", "insert", "end"]))
        if kind == "byte":
            content = content[:at] + draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :]
        elif kind == "copy":
            content = content[:at] + content[other : other + size] + content[at + size :]
        elif kind == "number":  # of an array
            at = draw(st.integers(0, len(content) - 1))
            content = content[:at] + draw(st.binary(min_size=1, max_size=1)) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at] + content[at + size :]
        elif kind == "insert":
            content = content[:at] + draw(st.binary(max_size=3)) + content[at:]
        else:
            content = content[:at]
    return File(content)


@st.composite
def rewritten(draw: st.DrawFn) -> File:
    """The file with one field of one message in it changed, and every size around it put right."""
    model = onnx.load_model_from_string(good())
    message, field = model, model.DESCRIPTOR.fields_by_name["graph"]
    for _ in range(draw(st.integers(0, 6))):  # down to some message
        inner = [x for x, value in message.ListFields() if x.message_type]
        if not inner:
            break
        field = draw(st.sampled_from(inner))
        value = getattr(message, field.name)
        message = value[draw(st.integers(0, len(value) - 1))] if field.is_repeated and len(value) else value
    field = draw(st.sampled_from(list(message.DESCRIPTOR.fields)))
    value = getattr(message, field.name)
    change = draw(st.sampled_from(["clear", "set", "set", "set"]))
    if change == "clear":
        message.ClearField(field.name)
    elif field.is_repeated and field.message_type:
        value.append(draw(st.sampled_from(list(value)))) if len(value) else value.add()
    elif field.message_type:
        value.SetInParent()
    else:
        new: Any = {float: 0.5, str: draw(st.sampled_from(["x", "pool1", ""])), bytes: b"ab", bool: True}.get(
            type(field.default_value), draw(st.sampled_from([0, 1, 2, -1, 2**31 - 1]))
        )
        try:
            value.append(new) if field.is_repeated else setattr(message, field.name, new)
        except (ValueError, TypeError):  # an enumeration without such a value, or another type
            message.ClearField(field.name)
    return File(model.SerializeToString())


def refused_or_unchanged(path: Path, content: bytes) -> None:
    """Either says in one line why not, or reads just what was written."""
    path.write_bytes(content)
    try:
        params = read_weights(path, here, "onnx").weights.params
    except InvalidInput as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
        return
    assert_same(params, network(LENET, "float16"))
    assert read(path).texts == describe(params, LENET, {"epoch": 3})


FUZZ = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [Phase.generate],
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}


@settings(max_examples=40, **FUZZ)
@given(content=edited())
def test_changed_bytes_are_refused_or_change_nothing(content, tmp_path):
    refused_or_unchanged(tmp_path / "a.onnx", content)


@settings(max_examples=40, **FUZZ)
@given(content=rewritten())
def test_changed_fields_are_refused_or_change_nothing(content, tmp_path):
    refused_or_unchanged(tmp_path / "a.onnx", content)


@pytest.mark.slow
@settings(max_examples=2000, **FUZZ)
@given(content=edited())
def test_changed_bytes_are_refused_or_change_nothing_thousands_of_times(content, tmp_path):
    refused_or_unchanged(tmp_path / "a.onnx", content)


@pytest.mark.slow
@settings(max_examples=2000, **FUZZ)
@given(content=rewritten())
def test_changed_fields_are_refused_or_change_nothing_thousands_of_times(content, tmp_path):
    refused_or_unchanged(tmp_path / "a.onnx", content)


# ------------------------------------------------------------------------------------------------------ the packages


def test_a_package_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for call in (
        lambda: build(LENET, {}),
        lambda: write(tmp_path / "a.onnx", {}, LENET, {}),
        lambda: read(tmp_path / "a.onnx"),
        lambda: onnx_reference(b"", np.zeros((1, 1, 28, 28))),
    ):
        with pytest.raises(InvalidInput, match=r"no module 'onnx'\): pip install '.\[onnx\]'"):
            call()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InvalidInput, match=r"no module 'onnxruntime'\): pip install '.\[onnx\]'"):
        onnx_runtime(b"", np.zeros((1, 1, 28, 28)))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InvalidInput, match=r"OpenVINO is not installed .*: pip install '.\[openvino\]'"):
        openvino(b"", np.zeros((1, 1, 28, 28)))


def test_openvino_tells_nobody_that_it_was_imported():
    """It would do so in a process that it forks."""
    watch = "import os; os.register_at_fork(before=lambda: print('forked'))"
    script = (
        f"{watch}\nfrom harness.weights.formats.onnx_file import load_package; print(load_package('openvino').__name__)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "openvino\n"


def test_the_packages_are_loaded_only_when_needed():
    imports = "import sys, harness.weights.onnx_run, harness.weights.formats.onnx_file"
    script = f"{imports}; print({{'onnx', 'onnxruntime', 'openvino'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert onnx_file.OPSET == 17
