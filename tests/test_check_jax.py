"""`googlenet check` on models of JAX's libraries: what they compute is read, and every mistake in it is named."""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from networks import thin
from safetensors.numpy import save_file
from stranger_table import small, small_with_norm
from support import TESTED, here

import spec
from harness.agreement import relative_error
from harness.check.align import align, weights
from harness.check.arithmetic import Run
from harness.check.checking import TOLERANCES, Report, check, understood
from harness.check.conversion import converted, transferred
from harness.check.differences import differences
from harness.check.graph import (
    Activation,
    Convolution,
    Dropout,
    Flatten,
    Linear,
    Norm,
    NotUnderstood,
    Padding,
    Recording,
    Scale,
    Softmax,
    Unknown,
    enlarged,
    probe_images,
)
from harness.check.readers.rewriting import rewritten
from harness.check.reference import Effects, Reference
from harness.check.tree import read
from harness.check.trial import LARGER, Refused, Task, Trial, attempt
from harness.weights import names
from harness.weights.checkpoint import save
from harness.weights.formats import flax
from spec.network import Add, AveragePool, Concat
from spec.reference import adaptive_windows, averaging_matrix

if "jax" not in TESTED:
    pytest.skip("these models are JAX's", allow_module_level=True)

import jax
import jax.numpy as jnp
from flax import nnx

from googlenet_jax import build, recording
from googlenet_jax.jaxpr.libraries import Function

slow = pytest.mark.slow
PLAIN, NORM = small(aux=False), small_with_norm()
NORM = replace(NORM, aux=False)
BARE = replace(PLAIN, table=tuple((name, part) for name, part in PLAIN.table if name[:4] != "norm"))


def trial(
    made: Any, arguments: dict[str, Any], shape: spec.Shape, *, larger: bool = False, training: bool = False
) -> Trial:
    """What `run_trial` gives, in this process."""
    model = recording.settle(recording.build(made, arguments), "float32", 0, probe_images(shape))
    sizes = {"inference": shape} | ({LARGER: enlarged(shape)} if larger else {})
    sizes |= {"training": shape} if training else {}
    passes = {
        kind: recording.record(model, probe_images(size), training=kind == "training") for kind, size in sizes.items()
    }
    return Trial(shape, "flax", "float32", recording.parameters(model), passes)


def held(done: Trial, config: spec.Config, *, inference: bool) -> Report:
    """The report against a network that takes a preset's place."""
    with mock.patch.dict(spec.PRESETS, {config.preset: config}, clear=True):
        return check(done, config.preset, inference=inference)


class Mistake(NamedTuple):
    """What is wrong in a stranger's network, and what is said of it."""

    library: str
    name: str
    places: tuple[str, ...]
    text: str
    effect: str = "off by"

    def __str__(self) -> str:
        return f"{self.library} {self.name}"


CONVS = tuple(node.name for node in spec.layers(NORM) if node.norm)
BLOCKS = ("inception3a", "inception3b", "inception4a", "inception4b")
POOLS = tuple(f"{block}.pool" for block in BLOCKS)
POOL = "3 x 3 max pool, stride 1, padding 1"
RELU, LRN = "ReLU is missing", "local response norm"
MISTAKES = [
    Mistake("nnx", "no-relu", ("conv2",), RELU),
    Mistake("nnx", "same-conv", ("conv1",), "padding (2, 3), bvlc has padding 3"),
    Mistake("nnx", "lrn-alpha", ("norm1", "norm2"), f"{LRN} with alpha 0.0005, bvlc has {LRN} with alpha 0.0001"),
    Mistake("nnx", "softmax", ("fc",), "softmax is extra"),
    Mistake("lenet", "flatten", ("pool2",), "flattening with the channels last is extra"),
    Mistake("linen", "epsilon", CONVS, "epsilon 1e-05, bvlc has epsilon 0.001"),
    Mistake("linen", "pool-unused", POOLS, f"{POOL} is missing"),
    Mistake(
        "linen",
        "block-average",
        POOLS,
        f"3 x 3 average pool, stride 1, padding 1, padding not counted, bvlc has {POOL}",
    ),
    Mistake("equinox", "pad", ("conv1",), "padding (2, 3), bvlc has padding 3"),
    Mistake("equinox", "floor", ("pool1",), "size rounded down, bvlc has size rounded up"),
    Mistake("equinox", "no-relu-branch", tuple(f"{block}.branch1x1" for block in BLOCKS), RELU),
    Mistake("keras", "same-conv", ("conv1",), "padding (2, 3), bvlc has padding 3"),
    Mistake("keras", "no-norm", ("conv1",), "batch norm is missing", "other weights"),
    Mistake("keras", "order", BLOCKS, "the order of its branches is 1, 2, 4, 3"),
]
QUICK = ("lenet flatten",)
LIBRARIES = {  # modules, the names of what makes a network in them, and its table
    "nnx": ("strangers_flax", "Stranger", PLAIN),
    "lenet": ("strangers_flax", "LeNet", spec.preset("lenet")),
    "linen": ("strangers_flax", "Linen", NORM),
    "equinox": ("strangers_equinox", "Stranger", BARE),
    "keras": ("strangers_keras", "stranger", NORM),
}


def named(module: str, name: str) -> Any:
    """What a module of strangers has by this name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a library says of the versions of others
        return getattr(importlib.import_module(module), name)


def of(library: str, mistake: str, **passes: bool) -> tuple[Trial, spec.Config]:
    """A stranger's network, and the table that it should be."""
    module, name, config = LIBRARIES[library]
    made, side = named(module, name), config.input_size
    return trial(made, {"mistake": mistake}, (config.in_channels, side, side), **passes), config


@pytest.mark.parametrize(
    "mistake", [pytest.param(x, id=str(x), marks=() if str(x) in QUICK else slow) for x in MISTAKES]
)
def test_mistake_is_found_and_nothing_else(mistake):
    done, config = of(mistake.library, mistake.name)
    report = held(done, config, inference=True)
    assert report.not_understood is None
    assert [(line.places, line.text) for line in report.lines] == [(mistake.places, mistake.text)]
    assert mistake.effect in report.lines[0].effect
    if mistake.effect == "off by":
        assert report.lines[0].measured[config.input_size] == pytest.approx(both(done, config), rel=1e-6)


def both(done: Trial, config: spec.Config) -> float:
    """How far the model's logits are from the table's, both with the weights that effects are measured on."""
    shape, graph = done.shape, done.recordings["inference"].graph
    with mock.patch.dict(spec.PRESETS, {config.preset: config}, clear=True):
        reference = Reference(spec.preset(config.preset, in_channels=config.in_channels, num_classes=10))
        effects = Effects(reference, shape)
        tree = read(graph, heads=False)
        _, alignment = align(reference.tree(shape), tree)
        arrays = {own: effects.arrays[name] for name, own in weights(alignment).items()}
        right = Run(effects.arrays).chain(reference.tree(shape), effects.x)
    return relative_error(Run(arrays).chain(tree, effects.x), right)


@slow
@pytest.mark.parametrize("library", LIBRARIES)
def test_right_network_is_the_same_at_both_sizes_and_in_training(library):
    done, config = of(library, "", larger=library != "keras", training=True)  # larger, its SAME is another padding
    report = held(done, config, inference=False)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)
    assert report.parameters == spec.parameter_count(config)
    assert "training" in report.compared


@slow
def test_same_padding_of_a_pool_is_told_where_it_differs():
    """SAME is ceiling at an even size."""
    done, config = of("nnx", "same-pool", larger=True)
    (line,) = held(done, config, inference=False).lines
    pools = "3 x 3 max pool, stride 2, padding 1, bvlc has 3 x 3 max pool, stride 2, rounded up"
    assert (line.places, line.text) == (("pool1", "pool2"), pools)
    assert line.effect.startswith("none at 64, one pixel larger logits off by")


@slow
def test_unknown_operation_is_named():
    done, config = of("nnx", "odd")
    report = held(done, config, inference=True)
    assert (report.status, report.not_understood) == (3, "the operation sin at blocks.3.one")


# ------------------------------------------------------------------------------------- what is read, without running it


def squares(x: jax.Array) -> jax.Array:
    """Of what is zero around the channels."""
    return jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (1, 1)))


def windows(p: Any, x: jax.Array) -> jax.Array:
    """A 3 x 2 convolution with stride 2 as a product."""
    x = jnp.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)))
    parts = [jax.lax.slice(x, (0, i, j, 0), (2, i + 5, j + 5, 4), (1, 2, 2, 1)) for i in range(3) for j in range(2)]
    return jnp.concatenate(parts, axis=-1) @ p["kernel"].reshape(-1, 7)


def side_by_side(p: Any, x: jax.Array) -> jax.Array:
    """Two 1 x 1 convolutions of a map as one product."""
    one, other = jnp.split(x @ jnp.concatenate([p["one"][0, 0], p["other"][0, 0]], axis=-1), [4], axis=-1)
    return jnp.concatenate([other, one + p["b"]], axis=-1)


MEANS = averaging_matrix(6, adaptive_windows(6, 4)).astype("float32")
CHANNELS = {name: np.linspace(1, 2, 4, dtype="float32") + i for i, name in enumerate(("g", "b", "m", "v"))}
KERNELS = {
    "kernel": np.ones((3, 2, 4, 7), "float32"),
    "one": np.ones((1, 1, 4, 4), "float32"),
    "other": np.ones((1, 1, 4, 5), "float32"),
}
NORMED = Norm(pytest.approx(1e-3), None)
LRN3 = spec.network.LRN(3, pytest.approx(0.3), 0.5, 2.0)
ADAPTIVE = [spec.AdaptiveAverage(4)]
READ = {  # of parameters by name and a map of 4 channels with 6 x 6 pixels
    "norm": (lambda p, x: (x - p["m"]) * (jax.lax.rsqrt(p["v"] + 1e-3) * p["g"]) + p["b"], [NORMED]),
    "norm divided": (lambda p, x: p["b"] + p["g"] * ((x - p["m"]) / jnp.sqrt(p["v"] + 1e-3)), [NORMED]),
    "norm folded": (lambda p, x: x * (s := p["g"] * (p["v"] + 1e-3) ** -0.5) + (p["b"] - s * p["m"]), [NORMED]),
    "norm bare": (
        lambda p, x: (p["m"] - x) / -jnp.sqrt(p["v"] + 1e-3),
        [Norm(pytest.approx(1e-3), None, scale=False, shift=False)],
    ),
    "no norm": (lambda p, x: (x - p["m"]) * p["g"] + p["b"], [Unknown("add")]),
    "lrn": (lambda p, x: x / (2 + 0.1 * sum(squares(x)[..., i : i + 4] for i in range(3))) ** 0.5, [LRN3]),
    "lrn by a pool": (
        lambda p, x: x * (2 + 0.3 * nnx.avg_pool(x[..., None] ** 2, (1, 1, 3), (1, 1, 1), "SAME")[..., 0]) ** -0.5,
        [LRN3],
    ),
    "silu": (lambda p, x: nnx.silu(x), [Activation("silu")]),
    "leaky": (lambda p, x: nnx.leaky_relu(x + 1, 0.25), [Scale(1, 1), Activation("leaky_relu", 0.25)]),
    "relu": (lambda p, x: jnp.where(x > 0, x, 0), [Activation("relu")]),
    "relu6": (lambda p, x: nnx.relu6(x), [Activation("relu6")]),
    "clip": (lambda p, x: jax.lax.clamp(np.float32(0), x, np.float32(6)), [Activation("relu6")]),
    "softmax": (lambda p, x: nnx.softmax(x.mean((1, 2))), [spec.AdaptiveAverage(1), Softmax()]),
    "log softmax": (lambda p, x: nnx.log_softmax(x.mean((1, 2))), [spec.AdaptiveAverage(1), Softmax(log=True)]),
    "log of softmax": (lambda p, x: jnp.log(nnx.softmax(x.mean((1, 2)))), [spec.AdaptiveAverage(1), Softmax(log=True)]),
    "counted": (
        lambda p, x: nnx.avg_pool(x, (3, 3), (2, 2), "SAME"),
        [AveragePool((3, 3), (2, 2), ((0, 1), (0, 1)))],
    ),
    "not counted": (
        lambda p, x: nnx.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
        [AveragePool((3, 3), (2, 2), ((0, 1), (0, 1)), count_pad=False)],
    ),
    "adaptive": (lambda p, x: jnp.einsum("ih,jw,nhwc->nijc", MEANS, MEANS, x), ADAPTIVE),
    "no average": (lambda p, x: jnp.einsum("ih,jw,nhwc->nijc", MEANS, MEANS * 2, x), [Unknown("dot_general")]),
    "windows": (
        windows,
        [Padding(((1, 0), (0, 1))), Convolution(7, (3, 2), (2, 2), bias=False)],
    ),
    "side by side": (side_by_side, [Convolution(5, bias=False), Convolution(4), Concat()]),
    "residual": (lambda p, x: x + 0.5 * x, [Scale(0.5), Add(activation=None)]),
    "flattened": (lambda p, x: x.reshape(2, -1), [Flatten(last=True)]),
    "flattened by channels": (lambda p, x: x.transpose(0, 3, 1, 2).reshape(2, -1), [Flatten()]),
    "mixed up": (lambda p, x: x.transpose(0, 2, 1, 3).reshape(2, -1), [Unknown("reshape")]),
    "one by one": (jax.vmap(lambda p, x: jnp.ravel(x.transpose(2, 0, 1)), (None, 0)), [Flatten()]),
}


@pytest.mark.parametrize("name", READ)
def test_arithmetic_is_read_as_the_layer_that_it_is(name):
    call, ops = READ[name]
    arrays = {name: jnp.asarray(x) for name, x in (CHANNELS | KERNELS).items()}
    model = Function(arrays, frozenset(), lambda arrays, x, training: (call(arrays, x), {}))
    graph = recording.read(model, np.zeros((2, 4, 6, 6)), training=False).graph
    graph = rewritten(Recording(graph, [], [np.zeros(0)] * len(graph.nodes))).graph
    used = [graph.nodes[i] for i in sorted(graph.needed(graph.outputs))]
    assert [node.op for node in used][-len(ops) :] == ops
    for node in used:
        assert (CHANNELS | KERNELS).keys() >= set(node.arrays.values())
        if isinstance(node.op, Norm):
            roles = {"weight": "g", "bias": "b", "mean": "m", "var": "v"}
            assert node.arrays == {role: roles[role] for role in node.arrays}


# ----------------------------------------------------------------------------------------------------------- training


NORMED_MODELS = {
    "nnx": ("strangers_flax", "NormedNnx", {}, ("conv.kernel", "norm.mean", "norm.var")),
    "nnx slowly": ("strangers_flax", "NormedNnx", {"fast": False}, ("conv.kernel", "norm.mean", "norm.var")),
    "nnx called": ("strangers_flax", "CalledNnx", {}, ("conv.kernel", "norm.mean", "norm.var")),
    "linen": ("strangers_flax", "NormedLinen", {}, ("Conv_0.kernel", "BatchNorm_0.mean", "BatchNorm_0.var")),
    "linen field": ("strangers_flax", "FieldLinen", {}, ("Conv_0.kernel", "BatchNorm_0.mean", "BatchNorm_0.var")),
    "equinox": ("strangers_equinox", "Normed", {}, ("conv.weight", "state.1.0", "state.1.1")),
    "keras": ("strangers_keras", "normed", {}, ("conv.kernel", "norm.moving_mean", "norm.moving_variance")),
}


@pytest.mark.parametrize("model", [pytest.param(x, marks=slow if x == "keras" else ()) for x in NORMED_MODELS])
def test_training_is_read_with_the_statistics_of_the_batch_and_dropout(model):
    module, name, settings, (kernel, mean, var) = NORMED_MODELS[model]
    images = probe_images((3, 6, 6))
    settled = recording.settle(recording.build(named(module, name), settings), "float32", 0, images)
    before = dict(settled.arrays)
    kinds = {training: recording.record(settled, images, training=training) for training in (False, True)}
    ops = {training: [node.op for node in kind.graph.nodes[1:]] for training, kind in kinds.items()}
    one, norm = Convolution(4, (3, 3)), Norm(pytest.approx(1e-3), None)
    average, dense = spec.AdaptiveAverage(1), Linear(10)
    assert ops[False] == [one, norm, average, dense]
    of_batch = replace(norm, momentum=0.2, of_batch=True)
    assert ops[True] == [one, of_batch, average, Dropout(0.3), dense]
    _, layer, normed, *_ = kinds[True].graph.nodes
    assert (layer.arrays["weight"], normed.arrays["mean"], normed.arrays["var"]) == (kernel, mean, var)
    _, error = understood(kinds[True], images, "float32", heads=True)
    assert error <= 10 * max(1e-6, kinds[True].nudge)
    assert all(settled.arrays[name] is x for name, x in before.items())  # a pass changes nothing


def test_running_statistics_that_blend_into_training_are_not_read_as_batch_norm():
    """Equinox's ``ema``, from the second batch on."""
    images = probe_images((3, 6, 6))
    model = recording.build(named("strangers_equinox", "Normed"), {"mode": "ema"})
    seen = recording.record(recording.settle(model, "float32", 0, images), images, training=True)
    with pytest.raises(NotUnderstood, match="the operation add at conv"):
        understood(seen, images, "float32", heads=True)


def uniform(p: Any, x: jax.Array) -> jax.Array:
    """Random numbers, one for each of the map's."""
    return jax.random.uniform(p["key"], x.shape)


DROPPED = Dropout(pytest.approx(0.4))
MASKED = {  # of a key and a map of 4 channels with 6 x 6 pixels
    "where": (lambda p, x: jnp.where(uniform(p, x) < 0.6, x / 0.6, 0), [DROPPED]),
    "what is dropped": (lambda p, x: jnp.where(uniform(p, x) < 0.4, 0, x / 0.6), [DROPPED]),
    "product": (lambda p, x: (uniform(p, x) > 0.4) * x / 0.6, [DROPPED]),
    "mask divided": (lambda p, x: x * ((0.4 <= uniform(p, x)) / 0.6), [DROPPED]),
    "bernoulli": (lambda p, x: jax.random.bernoulli(p["key"], 0.6, x.shape) * x / 0.6, [DROPPED]),
    "of channels": (
        lambda p, x: x / 0.6 * jnp.broadcast_to(jax.random.bernoulli(p["key"], 0.6, (2, 1, 1, 4)), x.shape),
        [Dropout(pytest.approx(0.4), channels=True)],
    ),
    "not scaled": (
        lambda p, x: jnp.where(uniform(p, x) < 0.6, x, 0),
        [DROPPED, Scale(pytest.approx(0.6))],
    ),
    "normal numbers": (
        lambda p, x: jnp.where(jax.random.normal(p["key"], x.shape) < 0.6, x, 0),
        [Unknown("select_n")],
    ),
    "a mask that is no chance": (lambda p, x: jnp.where(p["fixed"] < 0.6, x, 0), [Unknown("select_n")]),
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_of_random_numbers_are_dropout_which_drops_nothing(name):
    call, ops = MASKED[name]
    arrays = {"key": jax.random.key(1), "fixed": jnp.linspace(0, 1, 288).reshape(2, 6, 6, 4)}
    model = Function(arrays, frozenset(), lambda arrays, x, training: (call(arrays, x), {}))
    images = probe_images((4, 6, 6))
    seen = recording.record(model, images, training=True)
    assert [node.op for node in seen.graph.nodes[1:] if node.op != Scale()] == ops
    if isinstance(ops[0], Dropout):
        factor = ops[-1].factor if isinstance(ops[-1], Scale) else 1.0
        np.testing.assert_allclose(seen.outputs[0], float(getattr(factor, "expected", factor)) * images, rtol=1e-6)


def test_dropout_and_momentum_that_differ_are_training_only():
    """Each is one line; Flax's momentum is the share that stays, and 0.99 where nobody says it."""
    done = trial(named("strangers_flax", "NormedLeNet"), {}, (1, 28, 28), training=True)
    report = held(done, spec.preset("lenet-bn"), inference=False)
    assert (report.status, report.not_understood) == (1, None)
    assert [(line.places, line.text, line.effect) for line in report.lines] == [
        (("conv1",), "momentum 0.01, lenet-bn has momentum 0.1", "training only"),
        (("fc5",), "dropout 0.5 is extra", "training only"),
    ]


# ------------------------------------------------------------------------------------------------------------ weights


@pytest.fixture(scope="module")
def lenet() -> Any:
    """LeNet in NNX by canonical names, as a function of its arrays."""
    return lambda: recording.settle(
        recording.build(named("strangers_flax", "NamedLeNet"), {}), "float32", None, probe_images((1, 28, 28))
    )


PARAMS = {name: x.astype("float32") for name, x in spec.init_params(spec.preset("lenet"), 3).items()}
FLAX = {
    name: np.ascontiguousarray(x)  # as it is written
    for name, x in names.foreign(PARAMS, names.SCHEMES["nnx"], spec.preset("lenet")).items()
}


def written(path: Path, kind: str) -> Path:
    """A file of LeNet's weights."""
    if kind == "ours":
        save(path, PARAMS, spec.preset("lenet"), {})
    elif kind == "paths of an array's attribute":
        save_file({f"{name}.value": x for name, x in FLAX.items()}, path)
    elif kind == "msgpack":
        path = path.with_suffix(".msgpack")
        flax.write_tree(path, FLAX)
    else:
        save_file({"canonical": PARAMS, "paths": FLAX}[kind], path)
    return path


@pytest.mark.parametrize("kind", ["ours", "canonical", "paths", "paths of an array's attribute", "msgpack"])
def test_weights_are_loaded_by_paths_or_canonical_names(kind, lenet, tmp_path):
    model = lenet()
    recording.load(model, written(tmp_path / "w.safetensors", kind))
    for name, x in FLAX.items():
        assert np.array_equal(model.arrays[name], x), name


def test_all_weights_that_do_not_fit_are_named(lenet, tmp_path):
    wrong = dict(FLAX) | {"more": np.ones(3, "float32"), "fc4.kernel": np.ones((2, 2), "float32")}
    del wrong["fc5.bias"]
    save_file(wrong, tmp_path / "w.safetensors")
    expected = (
        "it does not hold the model's own arrays: 1 are missing, fc5.bias; 1 are left over, more; "
        "1 have another shape, fc4.kernel is (2, 2), not (120, 84)"
    )
    model = lenet()
    before = dict(model.arrays)
    with pytest.raises(spec.InvalidInput, match=re.escape(expected)):
        recording.load(model, tmp_path / "w.safetensors")
    assert model.arrays == before


def test_a_users_weights_come_out_by_canonical_names(tmp_path):
    """What `check --weights w.msgpack --convert out.npz` does."""
    path = written(tmp_path / "w", "msgpack")
    task = Task("strangers_flax:NamedLeNet", str(tmp_path), {}, ((1, 28, 28),), True, 8, weights=str(path))
    report = check(attempt(task), None, inference=False)
    assert (report.status, report.preset) == (0, "lenet")
    assert converted(report, path, tmp_path / "out.npz", here).passed
    with np.load(tmp_path / "out.npz") as file:
        assert all(np.array_equal(file[name], x) for name, x in PARAMS.items())


@pytest.mark.skipif("pt" not in TESTED, reason="the other model is PyTorch's")
def test_weights_with_the_batchs_statistics_go_to_a_model_of_pytorch(tmp_path):
    """In training two pictures' statistics amplify float32, by as much as a rounding of the pictures shows."""
    import googlenet_pt.recording

    def torchs(weights: str | None) -> Trial:
        model = googlenet_pt.build(spec.preset("lenet-bn"), device="cpu")
        if weights:
            googlenet_pt.recording.load(model, Path(weights))
        model = googlenet_pt.recording.settle(model, "float32", None if weights else 0, probe_images(shape))
        seen = {
            kind: googlenet_pt.recording.record(model, probe_images(shape), training=kind == "training")
            for kind in ("inference", "training")
        }
        return Trial(shape, "torch", "float32", googlenet_pt.recording.parameters(model), seen)

    shape, target = (1, 28, 28), tmp_path / "theirs.safetensors"
    done, other = trial(named("strangers_flax", "NormedLeNet"), {"right": True}, shape, training=True), torchs(None)
    report = check(done, "theirs", inference=False, other=other)
    assert (report.status, report.compared) == (0, ("inference", "training"))
    task = Task("theirs", str(tmp_path), {}, (shape,), True, 8)
    verification = transferred(report, done, other, task, target, lambda task: torchs(task.weights), here)
    assert verification.passed
    assert verification.bound > 10 * TOLERANCES["float32"]
    assert target.exists()


def test_weights_of_another_network_are_refused_whatever_the_size(tmp_path):
    """And not tried at the next one."""
    save_file({"conv1.weight": PARAMS["conv1.weight"]}, tmp_path / "w.safetensors")
    shapes = (1, 28, 28), (1, 32, 32)
    task = Task(
        "strangers_flax:NamedLeNet", str(tmp_path), {}, shapes, True, 8, weights=str(tmp_path / "w.safetensors")
    )
    with pytest.raises(Refused, match=r"^--weights .*: it does not hold the model's own arrays: 10 are missing, "):
        attempt(task)


@slow
def test_keras_own_file_is_loaded_as_keras_does(tmp_path):
    normed, images = named("strangers_keras", "normed"), probe_images((3, 6, 6))
    saved = normed()
    saved.save_weights(tmp_path / "w.weights.h5")
    model = recording.settle(normed(), "float32", None, images)
    recording.load(model, tmp_path / "w.weights.h5")
    for x, own in zip(saved.trainable_variables, model.arrays.values(), strict=False):
        assert np.array_equal(x.value, own)


# ---------------------------------------------------------------------------------------------------- no false alarms


@pytest.mark.parametrize(
    ("preset", "tuned"),
    [
        ("lenet-bn", True),
        pytest.param("bvlc", True, marks=slow),
    ],
)
def test_our_own_thin_network_is_the_same(preset, tuned):
    """Tuned, 1 x 1 convolutions are products side by side, those of small maps products of windows."""
    config = replace(thin(preset), aux=False)

    def made() -> Any:
        model = build(config, device="cpu")
        model.finish(device="cpu", tuned=tuned)
        return model

    side = {"lenet-bn": 28}.get(preset, 64)
    done = trial(made, {}, (config.in_channels, side, side), larger=True, training=True)
    report = held(done, config, inference=False)
    assert (report.status, report.lines, report.not_understood) == (0, (), None)


@slow
@pytest.mark.parametrize("preset", ["torchvision", "inception-v3"])
def test_our_own_thin_network_has_its_heads_in_training(preset):
    """Dropout, heads, and batch norm of the batch in both."""
    config = thin(preset)
    model = build(config, device="cpu")
    images = probe_images((3, *[{"torchvision": 96, "inception-v3": 299}[preset]] * 2))
    seen = recording.read(recording.settle(model, "float32", 0, images), images, training=True)
    graph = rewritten(Recording(seen.graph, [], [np.zeros(0)] * len(seen.graph.nodes))).graph
    table = Reference(config).tree(images.shape[1:], training=True)
    found = differences(align(table, read(graph, heads=True))[1])
    assert [difference for difference in found if not difference.latent] == []
