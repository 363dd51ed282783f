"""What the page on porting says is so: its figures are measured again, its names looked up, its code run."""

from __future__ import annotations

import importlib
import inspect
import re
import runpy
import sys
from functools import lru_cache, reduce
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support import ROOT, TESTED
from support import traps as loaded_traps

import spec
from harness.agreement import probe_params, relative_error
from harness.backends.registry import PACKAGES, load
from harness.weights.names import SCHEMES, foreign_names
from spec import reference

PAGE = (ROOT / "docs" / "porting.md").read_text()


traps = loaded_traps()


@pytest.fixture(scope="module", autouse=True)
def frameworks() -> None:
    """All that are tested, imported apart from the tests that look something up in them."""
    for name in TESTED:
        load(name)


def table(first: str) -> list[list[str]]:
    """The cells of the rows of the table whose first header is this, without the header."""
    lines = PAGE[PAGE.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert {len(row) for row in cells[:1] + cells[2:]} == {len(cells[0])}, first
    return cells[2:]


def needs(backend: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(backend not in TESTED, reason=f"{backend} is not listed in GOOGLENET_BACKENDS")


# --------------------------------------------------------------------------------------------------- the traps

TRAPS = {row[0].strip("`"): row for row in table("trap")}
measure = lru_cache(lambda name: traps.measure(traps.TRAPS[name]))


def figure(text: str) -> float:
    return float(text.split()[0])


def agrees(shown: list[str], measured: list[str]) -> bool:
    """All cells are the same, but that two digits are rounded, and the last may differ from machine to machine."""
    error = figure(measured[3])
    others = [i for i in range(len(measured)) if i != 3]
    return abs(figure(shown[3]) - error) <= 0.06 * error and all(shown[i] == measured[i] for i in others)


def cells(name: str) -> list[str]:
    return [cell.strip() for cell in traps.row(traps.TRAPS[name], measure(name)).strip("|").split(" | ")]


def test_every_trap_is_in_the_table():
    assert list(TRAPS) == list(traps.TRAPS)


# Below a second each: a kernel, a pool that changes shapes, a block, the losses.
QUICK = ("kernel-square", "pool-floor", "branch-order", "loss-probabilities", "loss-from-logits")


# What JAX compiles stays together: see conftest.py.
@pytest.mark.parametrize(
    ("backend", "name"),
    [
        pytest.param(trap.backend, name, marks=() if name in QUICK else pytest.mark.slow)
        for name, trap in traps.TRAPS.items()
        if trap.backend in TESTED
    ],
)
def test_figure_of_a_trap_is_the_measured_one(backend, name):
    assert agrees(TRAPS[name], cells(name)), cells(name)
    assert TRAPS[name][3].partition(" ")[2] == cells(name)[3].partition(" ")[2]  # of what it is the error


@needs("pt")
def test_another_figure_stage_or_shape_is_noticed():
    found = cells("pool-floor")
    assert agrees(found, found)
    for column, other in ((3, "0.30"), (3, "2.7"), (4, "`conv1`"), (5, "equal")):
        assert not agrees([*found[:column], other, *found[column + 1 :]], found)


@needs("pt")
@pytest.mark.slow
@pytest.mark.parametrize(("preset", "size"), sorted({tuple(trap.network.split()[:2]) for trap in traps.TRAPS.values()}))
def test_network_without_a_mistake_has_no_error(preset, size):
    """In PyTorch; test_parity.py has the others."""
    right = traps.scene(preset.strip(","), int(size))
    stages, expected = load("pt").activations(right.model("pt"), right.images), right.right()
    assert max(relative_error(stages[stage], expected[stage]) for stage in expected) < 1e-13


def test_table_of_operations_has_the_figures_of_the_traps():
    found = [re.findall(r"`([a-z0-9-]+)` (\d[\d.e-]*\d|\d)", row[-1]) for row in OPERATIONS]
    assert all(found)
    assert {name for row in found for name, _ in row} == set(TRAPS)
    assert all(text == TRAPS[name][3].split()[0] for row in found for name, text in row)


def test_summary_counts_the_traps_of_the_table():
    differ = [name for name, row in TRAPS.items() if row[5] != "equal"]
    assert f"Of the {len(TRAPS)} mistakes" in PAGE
    assert differ == ["pool-floor"]
    errors = {row[3].split()[0]: figure(row[3]) for row in TRAPS.values()}
    assert f"the smallest figure above is {min(errors, key=errors.get)}" in PAGE


@needs("pt")
def test_zeros_around_a_pool_cost_nothing_after_a_relu(monkeypatch):
    d2l = traps.scene("d2l", 96)
    monkeypatch.setattr(traps, "scene", lambda preset, size: d2l)
    assert traps.measure(traps.TRAPS["pool-zeros"]) == traps.Measured(pytest.approx(0, abs=1e-13), "", "")


def test_square_layers_and_misprinted_widths_are_those_named():
    square = {
        preset: {layer.name for layer in spec.layers(config) if layer.in_channels == layer.out_channels}
        for preset, config in spec.PRESETS.items()
    }
    googlenets = {name for name, config in spec.PRESETS.items() if config.family == "GoogLeNet"}
    assert {name for preset in googlenets for name in square[preset]} == {"conv2_reduce"}
    assert {name for name in square["alexnet"] if name.startswith("fc")} == {"fc7"}
    assert {name for name in square["vgg11"] if name.startswith("fc")} == {"fc7"}
    assert square["nin"] == {layer.name for layer in spec.layers(spec.preset("nin")) if layer.op.kernel == 1}
    counts = [spec.parameter_count(spec.preset(name)) for name in ("d2lzh-misprint", "d2lzh")]
    assert f"{counts[0]:,} for {counts[1]:,}" in PAGE


# ------------------------------------------------------------------------------------------------- the operations

OPERATIONS = table("operation")
COLUMNS = {"pt": 1, "mx": 2, "jax": 3, "onnx": 4}
MODULES = {
    "pt": {"torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"},
    "mx": {"nn": "mxnet.gluon.nn", "loss": "mxnet.gluon.loss", "nd": "mxnet.nd", "autograd": "mxnet.autograd"},
    "jax": {"nnx": "flax.nnx", "jnp": "jax.numpy", "optax": "optax"},
}


def named(backend: str) -> list[str]:
    """Everything in a column of the operations that is written as code."""
    return [span for row in OPERATIONS for span in re.findall(r"`([^`]+)`", row[COLUMNS[backend]])]


def module(backend: str, name: str) -> ModuleType:
    load(backend)  # MXNet has to be prepared
    top, *path = MODULES[backend][name].split(".")
    return reduce(getattr, path, importlib.import_module(top))


def options(span: str) -> set[str]:
    return set(re.findall(r"(\w+)=", span.partition("(")[2]))


def resolve(backend: str, span: str) -> None:
    """Find what the code names, and each option that it takes.

    Raises:
        AttributeError, LookupError: when there is no such thing.
    """
    first, *path = span.partition("(")[0].split(".")
    found = module(backend, first)
    for name in path:
        found = getattr(found, name)
    text = found.__doc__ or ""
    known = set(re.findall(r"^(\w+) : ", text, re.MULTILINE))  # as MXNet documents what its operators take
    try:
        known |= set(inspect.signature(found.__init__ if inspect.isclass(found) else found).parameters)
    except ValueError:  # PyTorch's builtins have their signature in their first line only
        known |= set(re.findall(r"(\w+)[=,)]", text.strip().splitlines()[0]))
    if unknown := options(span) - known:
        raise LookupError(f"{span}: no option {', '.join(sorted(unknown))}")


@pytest.mark.parametrize("name", TESTED)
def test_everything_named_in_a_framework_exists(name):
    spans = named(name)
    assert len(spans) >= 16
    for span in spans:
        resolve(name, span)


@pytest.mark.parametrize(
    ("backend", "span"),
    [
        ("pt", "nn.Conv4d"),
        ("pt", "nn.Conv2d(pad=3)"),
        ("pt", "torch.cat(axis_of=1)"),
        ("mx", "nn.MaxPool2D(ceil=True)"),
        ("mx", "nd.LRN(k=1)"),
        ("jax", "nnx.BatchNorm(eps=0.001)"),
        ("jax", "jnp.concat_(axis=1)"),
    ],
)
def test_name_or_option_that_does_not_exist_is_noticed(backend, span):
    if backend in TESTED:
        with pytest.raises((AttributeError, LookupError)):
            resolve(backend, span)


def test_operators_and_attributes_named_in_onnx_exist():
    import onnx

    spans = named("onnx")
    assert len(spans) >= 16
    for span in spans:
        operator = span.partition("(")[0]
        assert onnx.defs.has(operator), span
        assert options(span) <= set(onnx.defs.get_schema(operator).attributes), span
    assert not onnx.defs.has("Conv2d")
    assert "knorm" not in onnx.defs.get_schema("LRN").attributes


# --------------------------------------------------------------------------------------------------- the defaults


def said(column: int) -> dict[str, str]:
    return {row[0]: row[column] for row in table("left out")}


def _stride(rows: int) -> str:
    """Of a pool with a window of 2 that makes so many rows of 4."""
    return {2: "the window", 3: "1"}[rows]


def _weights(weight: Any, bias: Any) -> dict[str, str]:
    """Of a 3x3 kernel, 64 to 192 channels."""
    rows = list(said(1))[-2:]
    largest = [float(abs(np.asarray(x)).max()) for x in (weight, bias)]
    return dict(zip(rows, [f"{x:#.2g}" if x else "0" for x in largest], strict=True))


@needs("pt")
def test_table_has_the_defaults_of_pytorch():
    import torch
    from torch import nn

    torch.manual_seed(0)
    conv, norm = nn.Conv2d(64, 192, 3), nn.BatchNorm2d(1)
    assert said(1) == {
        "padding of a convolution": str(conv.padding[0]),
        "stride of a pool": _stride(nn.MaxPool2d(2)(torch.ones(1, 4, 4)).shape[1]),
        "padding counts in an average": "yes" if nn.AvgPool2d(2).count_include_pad else "no",
        "epsilon of batch norm": str(norm.eps),
        "momentum of batch norm": str(norm.momentum),
        "k of LRN": f"{nn.LocalResponseNorm(5).k:g}",
        "share that dropout drops": str(nn.Dropout().p),
        **_weights(conv.weight.detach(), conv.bias.detach()),
    }
    assert nn.Module().training


@needs("mx")
def test_table_has_the_defaults_of_mxnet():
    load("mx")
    import mxnet
    from mxnet import nd
    from mxnet.gluon import nn

    mxnet.random.seed(0)
    conv = nn.Conv2D(192, 3, in_channels=64)
    conv.initialize()
    norm = inspect.signature(nn.BatchNorm.__init__).parameters
    ones = nd.ones((1, 1, 4, 4))
    assert said(2) == {
        "padding of a convolution": str(conv._kwargs["pad"][0]),
        "stride of a pool": _stride(nn.MaxPool2D(2)(ones).shape[2]),
        "padding counts in an average": "yes" if nn.AvgPool2D(2)._kwargs["count_include_pad"] else "no",
        "epsilon of batch norm": str(norm["epsilon"].default),
        "momentum of batch norm": str(norm["momentum"].default),
        "k of LRN": f"{1 / nd.LRN(nd.ones((1, 1, 1, 1)), nsize=5, alpha=0, beta=1).asscalar().item():g}",
        "share that dropout drops": "no default" if _required(nn.Dropout, "rate") else "",
        **_weights(conv.weight.data().asnumpy(), conv.bias.data().asnumpy()),
    }
    assert _stride(nd.Pooling(ones, kernel=(2, 2), pool_type="max").shape[2]) == "1"


def _required(layer: type, name: str) -> bool:
    return inspect.signature(layer.__init__).parameters[name].default is inspect.Parameter.empty


@needs("jax")
def test_table_has_the_defaults_of_flax():
    load("jax")
    import jax.numpy as jnp
    from flax import nnx

    conv = nnx.Conv(64, 192, (3, 3), rngs=nnx.Rngs(0))
    norm = nnx.BatchNorm(1, rngs=nnx.Rngs(0))
    average = inspect.signature(nnx.avg_pool).parameters["count_include_pad"].default
    assert said(3) == {
        "padding of a convolution": conv.padding,
        "stride of a pool": _stride(nnx.max_pool(jnp.ones((1, 4, 4, 1)), (2, 2)).shape[1]),
        "padding counts in an average": "yes" if average else "no",
        "epsilon of batch norm": str(norm.epsilon),
        "momentum of batch norm": str(norm.momentum),
        "k of LRN": "none",
        "share that dropout drops": "no default" if _required(nnx.Dropout, "rate") else "",
        **_weights(conv.kernel[...], conv.bias[...]),
    }
    assert not norm.use_running_average  # a new model is in training mode
    assert not nnx.Dropout(0.5, rngs=nnx.Rngs(0)).deterministic


def test_table_has_the_defaults_of_onnx():
    import onnx

    def default(operator: str, attribute: str) -> Any:
        found = onnx.defs.get_schema(operator).attributes[attribute].default_value
        return onnx.helper.get_attribute_value(found) if found.name else None

    assert default("Conv", "pads") is None  # its description: 0
    assert default("MaxPool", "strides") is None  # its description: 1
    assert (
        said(4)
        == {
            "padding of a convolution": "0",
            "stride of a pool": "1",
            "padding counts in an average": "yes" if default("AveragePool", "count_include_pad") else "no",
            "epsilon of batch norm": f"{default('BatchNormalization', 'epsilon'):.3g}",
            "momentum of batch norm": f"{default('BatchNormalization', 'momentum'):.3g}",
            "k of LRN": f"{default('LRN', 'bias'):g}",
            "share that dropout drops": "0.5",  # its description of the input `ratio`
            **dict.fromkeys(list(said(4))[-2:], "none"),
        }
    )


# ------------------------------------------------------------------------------------------ single statements


def same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """How many pixels "SAME" adds before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def test_table_of_same_padding_is_true():
    for layer, even, odd, _ in table("layer"):
        kernel, stride = map(int, re.fullmatch(r"(\d)x\d, stride (\d)", layer).groups())
        for sizes, pads in ((range(6, 300, 2), even), (range(7, 300, 2), odd)):
            assert {str(same(size, kernel, stride)) for size in sizes} == {pads}, layer
    d2l, bvlc, torchvision = (dict(spec.PRESETS[name].table) for name in ("d2l", "bvlc", "torchvision"))
    assert d2l["pool1"] == spec.MaxPool(3, stride=2, pad=1)
    assert bvlc["pool1"] == spec.MaxPool(3, stride=2, ceil=True)
    assert torchvision["pool4"] == spec.MaxPool(2, stride=2, ceil=True)
    convolutions = [layer.op for layer in spec.layers(spec.PRESETS["d2l"]) if not layer.is_dense]
    assert {(op.kernel, op.pad) for op in convolutions} == {(7, 3), (1, 0), (3, 1), (5, 2)}


@needs("jax")
def test_same_padding_is_what_jax_does():
    load("jax")
    from flax import nnx
    from jax.lax import padtype_to_pads

    for kernel, stride in ((7, 2), (3, 2), (2, 2), (3, 1), (5, 1)):
        for size in (6, 7, 96, 97):
            assert padtype_to_pads((size,), (kernel,), (stride,), "SAME") == [same(size, kernel, stride)]
    for size, pool in ((6, spec.MaxPool(3, 2, ceil=True)), (7, spec.MaxPool(3, 2, pad=1))):
        x = np.random.default_rng(0).normal(size=(1, 2, size, size)).astype(np.float32)
        got = nnx.max_pool(x.transpose(0, 2, 3, 1), (3, 3), (2, 2), "SAME").transpose(0, 3, 1, 2)
        assert np.array_equal(got, reference.max_pool(x, pool)[0])


NINE = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)


@needs("pt")
def test_pytorch_leaves_out_a_pools_window_within_the_padding():
    import torch

    x = torch.from_numpy(NINE)
    assert torch.nn.functional.max_pool2d(x, 2, 2, 1, ceil_mode=True).shape == (1, 1, 2, 2)


@needs("mx")
def test_mxnet_keeps_a_pools_window_within_the_padding():
    load("mx")
    from mxnet import MXNetError, nd
    from mxnet.gluon import nn

    y = nn.MaxPool2D(2, 2, 1, ceil_mode=True)(nd.array(NINE)).asnumpy()
    assert y.shape == (1, 1, 3, 3)
    assert y[0, 0, 2].tolist() == pytest.approx([-3.4e38] * 3, rel=0.01)
    with pytest.raises(MXNetError, match="exceeds input"):
        nn.MaxPool2D(3, 2, ceil_mode=True)(nd.ones((1, 1, 2, 2))).asnumpy()


def test_onnx_leaves_out_a_pools_window_within_the_padding():
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    window = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    graph = helper.make_graph(
        [helper.make_node("MaxPool", ["x"], ["y"], **window)],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, NINE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    assert ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": NINE})[0].shape == (1, 1, 2, 2)


@needs("mx")
def test_mxnet_moves_statistics_backward_and_its_operator_fixes_gamma():
    """Statistics move in the backward pass, towards the biased variance; the operator fixes gamma and has 1e-3."""
    load("mx")
    from mxnet import autograd, nd
    from mxnet.gluon import nn

    x = nd.array([[1.0], [3.0]])
    norm = nn.BatchNorm(momentum=0, in_channels=1)
    norm.initialize()
    with autograd.record():
        y = norm(x)
    y.wait_to_read()
    assert norm.running_var.data().asscalar() == 1
    y.backward()
    nd.waitall()
    assert norm.running_mean.data().asscalar() == 2
    assert norm.running_var.data().asscalar() == 1  # of 1 and 3: 1 biased, 2 unbiased
    assert np.var([1.0, 3.0]) == 1

    zero, gamma = nd.zeros(1), nd.array([5.0])
    y = nd.BatchNorm(nd.array([[1.0]]), gamma, zero, zero, zero).asscalar()
    assert y == pytest.approx(1 / np.sqrt(1e-3))


def test_running_mean_takes_a_bias():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 4))
    bias, mean, var, weight, shift = rng.random((5, 3)) + 0.5
    expected, _ = reference.batch_norm(x + bias[:, None, None], weight, shift, mean, var, 1e-3, of_batch=False)
    got, _ = reference.batch_norm(x, weight, shift, mean - bias, var, 1e-3, of_batch=False)
    assert relative_error(got, expected) < 1e-14


def test_documented_transposition_brings_dense_weights_into_order():
    assert "`w.reshape(1024, 4, 4, 128).transpose(0, 3, 1, 2).reshape(1024, 2048)`" in PAGE
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(1024, 2048)), rng.normal(size=(1, 128, 4, 4))
    expected = x.transpose(0, 2, 3, 1).reshape(1, -1) @ w.T
    canonical = w.reshape(1024, 4, 4, 128).transpose(0, 3, 1, 2).reshape(1024, 2048)
    assert relative_error(x.reshape(1, -1) @ canonical.T, expected) < 1e-14
    assert relative_error(x.reshape(1, -1) @ w.T, expected) > 0.1


# ------------------------------------------------------------------------------------------------------------ names


def native_arrays(name: str, model: Any) -> dict[str, np.ndarray]:
    """Every array of a model by the framework's own name, in its layout."""
    if name == "pt":
        return {path: x.numpy() for path, x in model.state_dict().items() if "num_batches" not in path}
    if name == "mx":
        return {path: x.data().asnumpy() for path, x in model._collect_params_with_prefix().items()}
    from flax import nnx

    kinds = (nnx.Param, nnx.BatchStat)
    return {".".join(path): np.asarray(x[...]) for path, x in nnx.iter_graph(model) if isinstance(x, kinds)}


def translated(name: str, params: spec.Arrays) -> dict[str, np.ndarray]:
    """The canonical arrays as the table says that a framework has them."""
    rows = {row[0]: row for row in table("canonical")}
    arrays = {}
    for canonical, x in params.items():
        kind = {4: " of a convolution", 2: " of a dense layer"}.get(x.ndim, "")
        layer, leaf = re.fullmatch(r"(.*?)\.((?:norm\.)?\w+)", canonical).groups()
        row = rows[f"`P.{leaf}`{kind}"]
        assert row[4] == f"`P.{leaf}`"  # ONNX: the canonical name
        assert len(row[5].strip("(,)").split(",")) == x.ndim
        if name == "jax" and row[6] != "as it is":
            x = x.transpose(*map(int, re.findall(r"\d", row[6])))
        arrays[row[COLUMNS[name]].strip("`").replace("P", layer, 1)] = x
    return arrays


SLOW = pytest.mark.slow  # no other kind of array than LeNet has


@pytest.mark.parametrize(
    "preset",
    ["lenet-bn", "lenet-bn-frozen", *(pytest.param(name, marks=SLOW) for name in ("d2l", "torchvision", "nin"))],
)
@pytest.mark.parametrize("backend", TESTED)
def test_table_of_names_and_layouts_is_true(backend, preset):
    config = spec.preset(preset, num_classes=10)
    params = {array: x.astype(np.float32) for array, x in probe_params(config, 0).items()}
    model = load(backend).build(config, device="cpu")
    load(backend).load_params(model, params)
    found, expected = native_arrays(backend, model), translated(backend, params)
    if (backend, preset) == ("mx", "lenet-bn-frozen"):  # Gluon has what is fixed as well
        for layer in ("conv1", "conv2", "fc3", "fc4"):
            assert set(found.pop(f"{layer}.norm.gamma")) == {1}
            assert set(found.pop(f"{layer}.norm.beta")) == {0}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path], x) for path, x in expected.items())


def test_another_name_or_layout_is_noticed(monkeypatch):
    right = translated("jax", probe_params(spec.preset("d2l"), 0))
    wrong = PAGE.replace("`P.kernel`", "`P.weight`").replace("transpose(2, 3, 1, 0)", "transpose(3, 2, 1, 0)")
    monkeypatch.setattr(sys.modules[__name__], "PAGE", wrong)
    other = translated("jax", probe_params(spec.preset("d2l"), 0))
    assert "conv1.kernel" in right
    assert "conv1.kernel" not in other
    assert not np.array_equal(other["conv1.weight"], right["conv1.kernel"])


def test_table_of_foreign_names_is_true():
    """Every scheme that is foreign, with its presets and no others; an example in each row is a name that it has."""
    shown: dict[str, set[str]] = {}
    for schemes, whose, presets in table("names"):
        columns = [set(re.findall(r"[a-z0-9-]+", part.replace(" and ", ", "))) for part in presets.split(";")]
        for scheme, column in zip(re.findall(r"`([^`]+)`", schemes), columns, strict=True):
            shown[scheme] = shown.get(scheme, set()) | column
            examples = re.findall(r"`([^`]*\.[^`]*)`", whose.replace("`torchvision.models.googlenet`", ""))
            heads = {name: SCHEMES[scheme].heads and spec.PRESETS[name].aux for name in column}
            scale = None if SCHEMES[scheme].scales else False
            configs = [spec.preset(name, aux=aux, norm_scale=scale) for name, aux in heads.items()]
            known = {x for config in configs for x in foreign_names(SCHEMES[scheme], config).values()}
            assert set(examples) <= known | {"nn.Sequential"}, scheme
    foreign = {name: set(scheme.presets) for name, scheme in SCHEMES.items()}
    assert shown == {name: foreign[name] for name in foreign if name not in ("canonical", "gluon", "nnx")}


@needs("pt")
def test_pytorch_has_a_counter_of_batches_beside_each_norm():
    model = load("pt").GoogLeNet(spec.preset("torchvision", num_classes=10))
    others = [path for path in model.state_dict() if path not in spec.param_shapes(model.config)]
    assert len(others) == 59
    assert all(path.endswith(".norm.num_batches_tracked") for path in others)


@needs("mx")
def test_structural_names_of_gluon_belong_to_the_network_alone():
    first, second = (load("mx").GoogLeNet(spec.preset("d2l")) for _ in range(2))
    assert list(first._collect_params_with_prefix()) == list(second._collect_params_with_prefix())
    assert not set(first.collect_params()) & set(second.collect_params())


def test_transpositions_to_and_from_nnx_are_inverse():
    into, back = ((2, 3, 1, 0), (3, 2, 0, 1))
    assert f"transpose{into}" in PAGE
    assert f"transpose{back}" in PAGE
    x = np.random.default_rng(0).random((2, 3, 4, 5))
    assert np.array_equal(x.transpose(into).transpose(back), x)


# ---------------------------------------------------------------------------------------------- commands and code


def test_shown_commands_name_traps():
    """Those of `googlenet` are tested in test_readme.py."""
    commands = re.findall(r"^\$ python docs/traps.py(.*)$", PAGE, re.MULTILINE)
    assert commands[0] == ""
    assert set(" ".join(commands).split()) <= set(traps.TRAPS)


def test_script_refuses_an_unknown_trap(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["docs/traps.py", "pool-floor", "pool"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "docs" / "traps.py"), run_name="__main__")
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "unknown trap: expected one or more of pixels-255" in err
    assert err.endswith("got pool\n")
    assert not out


@needs("pt")
def test_script_prints_what_it_can_measure(monkeypatch, capsys):
    def without_mxnet(name: str) -> ModuleType:
        if name == "mx":
            raise spec.InvalidInput("backend mx is not installed")
        return load(name)

    monkeypatch.setattr(traps, "load", without_mxnet)
    assert traps.main(["loss-from-logits", "loss-probabilities"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{traps.HEADER}\n{traps.row(traps.TRAPS['loss-probabilities'], measure('loss-probabilities'))}\n"
    assert out.splitlines()[0] in PAGE
    assert err == "loss-from-logits: backend mx is not installed\n"
    assert traps.main(["loss-probabilities"]) == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [(0.294, "0.29"), (0.0796, "0.080"), (1.04, "1.0"), (9.97, "10"), (259.05, "260"), (3.94e-9, "3.9e-09")],
)
def test_figures_have_two_digits(error, text):
    assert traps.two_digits(error) == text


def test_shown_code_proves_a_conversion():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = [name for name in TESTED if name != "jax"] or ["jax"]  # which takes long to compile
    given = {"googlenet_jax": PACKAGES[names[-1]], "googlenet_pt": PACKAGES[names[0]]}
    for shown, tested in given.items():
        assert f"import {shown} as" in code
        code = code.replace(f"import {shown} as", f"import {tested} as")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["same_bits"] is True
    assert scope["first_difference"] is None
    scope["got"]["pool3"] = scope["got"]["pool3"] * (1 + 1e-9)
    exec(code[code.index("errors = ") :], scope)
    assert scope["first_difference"] == "pool3"
