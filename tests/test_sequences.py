"""The textbook ancestors: what the spec says of them, and every backend against the referee on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import SEQUENCES, Case, Material, loaded, material

import spec
from harness.compare import relative_error, relative_errors
from spec import reference
from spec.checkpoint import config_table
from spec.shapes import input_sizes
from spec.table import render
from spec.tolerances import TOLERANCES

NORMED = [name for name in SEQUENCES if spec.PRESETS[name].batch_norm]
BOUNDS = TOLERANCES["float64"]

# ------------------------------------------------------------------------------------------------------- the spec


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lenet", 44_426),
        ("lenet-bn", 44_878),
        ("lenet-bn-scratch", 44_878),
        ("lenet-bn-frozen", 44_426),
        ("alexnet", 46_764_746),
        ("vgg11", 128_806_154),
        ("vgg11-narrow", 29_815_850),
        ("nin", 1_992_166),
    ],
)
def test_parameters(name, count):
    assert spec.parameter_count(spec.preset(name)) == count


def test_parameters_of_nins_blocks():
    shapes, counts = spec.param_shapes(spec.preset("nin")), {}
    for name, shape in shapes.items():
        block = name[:5]
        counts[block] = counts.get(block, 0) + int(np.prod(shape))
    assert counts == {"conv1": 30_336, "conv2": 746_240, "conv3": 1_180_800, "conv4": 34_790}


@pytest.mark.parametrize(
    ("name", "sides", "flat"),
    [
        ("lenet", {"conv1": 24, "pool1": 12, "conv2": 8, "pool2": 4}, {"fc3": 256, "fc4": 120, "fc5": 84}),
        (
            "alexnet",
            {"conv1": 54, "pool1": 26, "conv2": 26, "pool2": 12, "conv5": 12, "pool5": 5},
            {"fc6": 6400, "fc7": 4096, "fc8": 4096},
        ),
        (
            "vgg11",
            {"conv1_1": 224, "pool1": 112, "pool2": 56, "conv3_2": 56, "pool3": 28, "pool4": 14, "pool5": 7},
            {"fc6": 25_088, "fc7": 4096, "fc8": 4096},
        ),
        ("vgg11-narrow", {"pool5": 7}, {"fc6": 3136}),
        (
            "nin",
            {"conv1": 54, "pool1": 26, "conv2_mlp2": 26, "pool2": 12, "conv3": 12, "pool3": 5, "conv4_mlp2": 5},
            {},
        ),
    ],
)
def test_sizes_of_the_maps(name, sides, flat):
    config = spec.preset(name)
    shapes = spec.stage_shapes(config, (config.in_channels, config.input_size, config.input_size))
    assert {stage: shapes[stage][1:] for stage in sides} == {stage: (side, side) for stage, side in sides.items()}
    assert {layer.name: layer.in_channels for layer in spec.layers(config) if layer.name in flat} == flat
    assert shapes[config.logits] == (config.num_classes,)


def test_channels():
    def channels(name: str) -> list[int]:
        return [layer.out_channels for layer in spec.layers(spec.preset(name))]

    assert channels("vgg11") == [64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096, 10]
    assert channels("vgg11-narrow") == [8, 16, 32, 32, 64, 64, 64, 64, 4096, 4096, 10]
    assert channels("nin") == [96] * 3 + [256] * 3 + [384] * 3 + [10] * 3
    assert channels("alexnet") == [96, 256, 384, 384, 256, 4096, 4096, 10]
    assert {layer.out_channels for layer in spec.layers(spec.preset("nin", num_classes=7))} == {96, 256, 384, 7}


def test_activations():
    """LeNet's are sigmoids, the others' ReLUs, NiN's last one too; no classifier that is dense has one."""
    for name in SEQUENCES:
        kinds = {layer.name: layer.activation for layer in spec.layers(spec.preset(name))}
        last = list(kinds)[-1]
        assert kinds.pop(last) == ("relu" if name == "nin" else None)
        assert set(kinds.values()) == {"sigmoid" if name.startswith("lenet") else "relu"}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("lenet", 28, 31), ("lenet-bn", 28, 31), ("alexnet", 193, 224), ("vgg11", 224, 255), ("nin", 67, None)],
)
def test_sizes_that_fit(name, low, high):
    config = spec.preset(name)
    assert input_sizes(config) == (low, high)
    for size in (low - 1, *([high + 1] if high else [])):
        with pytest.raises(spec.InvalidInput, match=f"cannot take {size} x {size} pixels"):
            spec.stage_shapes(config, (1, size, size))


def test_why_a_size_does_not_fit():
    with pytest.raises(spec.InvalidInput, match=r"fc3 needs maps of 4 x 4 and gets 21 x 4; .* 28 to 31 pixels"):
        spec.stage_shapes(spec.preset("lenet"), (1, 96, 28))
    with pytest.raises(spec.InvalidInput, match=r"nothing is left at pool3; expected .* 67 pixels or more"):
        spec.stage_shapes(spec.preset("nin"), (1, 66, 66))
    with pytest.raises(spec.InvalidInput, match="it is empty"):
        spec.stage_shapes(spec.preset("nin"), (1, 0, 66))


def test_batch_norm_follows_every_layer_but_the_last_and_biases_stay():
    for name in NORMED:
        layers = spec.layers(spec.preset(name))
        assert [bool(layer.norm) for layer in layers] == [True] * 4 + [False]
        assert all(layer.bias for layer in layers)


def test_what_is_not_learned_has_no_arrays():
    frozen, learned = (spec.param_shapes(spec.preset(name)) for name in ("lenet-bn-frozen", "lenet-bn"))
    extra = {f"{layer}.norm.{leaf}" for layer in ("conv1", "conv2", "fc3", "fc4") for leaf in ("weight", "bias")}
    assert learned.keys() - frozen.keys() == extra
    assert frozen.keys() <= learned.keys()


def test_the_momentum_of_the_notebook_and_of_the_book():
    scratch = spec.preset("lenet-bn-scratch")
    assert (scratch.batch_norm.momentum, scratch.batch_norm.unbiased, scratch.batch_norm.written_out) == (
        1,
        False,
        True,
    )
    book = spec.preset("lenet-bn-scratch", norm_momentum=0.1)
    assert book == replace(scratch, batch_norm=replace(scratch.batch_norm, momentum=0.1))
    assert spec.preset(**config_table(book)) == book
    assert "norm_momentum" not in config_table(scratch)
    assert spec.preset("torchvision", norm_momentum=0.01).batch_norm.momentum == 0.01


@pytest.mark.parametrize("momentum", [0, -0.1, 1.1, "0.1", float("nan")])
def test_a_momentum_that_is_none_is_refused(momentum):
    with pytest.raises(spec.InvalidInput, match="norm_momentum: expected a share from above 0 to 1"):
        spec.preset("lenet-bn", norm_momentum=momentum)


def test_a_momentum_is_for_networks_with_batch_norm():
    with pytest.raises(spec.InvalidInput, match=r"lenet has no batch norm: .* take one of torchvision, lenet-bn"):
        spec.preset("lenet", norm_momentum=0.5)


@pytest.mark.parametrize("name", NORMED)
def test_batch_norm_cannot_train_on_one_image(name):
    config = spec.preset(name)
    with pytest.raises(spec.InvalidInput, match=r"a single value per channel at fc3; take a batch of at least 2$"):
        spec.check_training_batch(config, (1, 1, 28, 28))
    spec.check_training_batch(config, (2, 1, 28, 28))


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_table_shows_every_row(name):
    config = spec.preset(name)
    lines = render(config, (1, config.input_size, config.input_size)).splitlines()
    assert [line.split()[0] for line in lines if line.split()[:1] in [[row.name] for row in config.rows]] == [
        row.name for row in config.rows
    ]
    assert f"{spec.parameter_count(config):,}" in lines[-1]


# ----------------------------------------------------------------------------------------------------- the referee


@pytest.mark.parametrize(("name", "size"), [*((name, 28) for name in SEQUENCES[:4]), ("nin", 67)])
def test_the_referees_gradients_are_differences(name, size):
    """One value of every array moved up and down, with dropout where the network has it."""
    _, params, images, labels = material(Case(name, size, 3))
    config = spec.preset(name)
    masks = spec.dropout_masks(config, images.shape, 1, 0)
    assert bool(masks) == (name == "nin")
    grads, step = reference.loss_and_grads(config, params, images, labels, masks).grads, 1e-5
    rng = np.random.default_rng(0)
    for array, grad in grads.items():
        place = np.unravel_index(np.abs(grad).argmax(), grad.shape) if rng.random() < 0.5 else (0,) * grad.ndim
        losses = []
        for sign in (1, -1):
            moved = params[array].copy()
            moved[place] += sign * step
            losses.append(reference.loss_and_grads(config, params | {array: moved}, images, labels, masks).loss)
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(grad[place], rel=2e-5, abs=2e-9), array


def test_a_bias_before_batch_norm_has_no_gradient():
    config, params, images, labels = material(Case("lenet-bn", 28, 4))
    grads = reference.loss_and_grads(config, params, images, labels).grads
    for layer in ("conv1", "conv2", "fc3", "fc4"):
        assert np.abs(grads[f"{layer}.bias"]).max() < 1e-12 * np.abs(grads[f"{layer}.weight"]).max()
    assert np.abs(grads["fc5.bias"]).max() > 1e-3


@pytest.mark.parametrize("name", NORMED)
def test_the_running_statistics_are_those_of_the_batch(name):
    """Of conv1, computed apart: the notebook keeps the batch's own biased variance, the library a tenth of it."""
    config, params, images, labels = material(Case(name, 28, 5))
    statistics = reference.loss_and_grads(config, params, images, labels).statistics
    assert list(statistics) == [array for array in spec.param_shapes(config) if spec.is_statistic(array)]
    x = images.reshape(5, 28, 28)
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(1, 2))
    y = np.einsum("nhwij,cij->nchw", windows, params["conv1.weight"][:, 0]) + params["conv1.bias"][:, None, None]
    mean, var, count = y.mean((0, 2, 3)), y.var((0, 2, 3)), 5 * 24 * 24
    before = params["conv1.norm.running_mean"], params["conv1.norm.running_var"]
    if name == "lenet-bn-scratch":
        expected = mean, var
    else:
        expected = 0.9 * before[0] + 0.1 * mean, 0.9 * before[1] + 0.1 * var * count / (count - 1)
    np.testing.assert_allclose(statistics["conv1.norm.running_mean"], expected[0], rtol=1e-12)
    np.testing.assert_allclose(statistics["conv1.norm.running_var"], expected[1], rtol=1e-12)


def test_the_sigmoid_does_not_overflow():
    y, back = reference.sigmoid(np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0]))
    np.testing.assert_allclose(y, [0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1], rtol=1e-15)
    np.testing.assert_allclose(back(np.ones(5)), y * (1 - y))


# ------------------------------------------------------- the backends, beside test_parity.py and test_trajectory.py


@pytest.mark.parametrize("name", NORMED)
def test_float32_with_batch_norm(name, backend):
    """Of 32 images: batch norm of four makes the gradients four times as inexact. Biases before it are all rounding."""
    config, params, images, labels = material(Case(name, 28, 32), "float32")
    model, bounds = loaded(backend, config, params, "float32"), TOLERANCES["float32"]
    stages, expected = backend.activations(model, images), reference.activations(config, params, images)
    assert max(relative_errors(stages, expected).values()) <= bounds.activations
    loss, grads = backend.loss_and_grads(model, images, labels)
    training = reference.loss_and_grads(config, params, images, labels)
    assert abs(loss - training.loss) <= bounds.loss * training.loss
    idle = {f"{layer.name}.bias" for layer in spec.layers(config) if layer.norm}
    learned = {array: x for array, x in training.grads.items() if array not in idle}
    assert max(relative_errors({array: grads[array] for array in learned}, learned).values()) <= bounds.gradients


# ------------------------------------------------------------------------------------------------------------ teeth


def _first_difference(backend: Any, model: Any, case: Material) -> str | None:
    """The first stage that is out of bounds."""
    got, expected = (
        backend.activations(model, case.images),
        reference.activations(case.config, case.params, case.images),
    )
    return next((x for x in expected if relative_error(got[x], expected[x]) > BOUNDS.activations), None)


@pytest.mark.parametrize(("name", "size", "dense"), [("lenet", 28, "fc3"), ("vgg11-narrow", 224, "fc6")])
def test_a_map_flattened_in_another_order_is_noticed(name, size, dense, backend):
    """(H, W, C) for (C, H, W): the same number of values, so that no shape is wrong."""
    case = material(Case(name, size, 2))
    maps = spec.stage_shapes(case.config, (1, size, size))[{"fc3": "pool2", "fc6": "pool5"}[dense]]
    weight = case.params[f"{dense}.weight"]
    other = weight.reshape(-1, *maps).transpose(0, 2, 3, 1).reshape(weight.shape)
    right = loaded(backend, case.config, case.params)
    assert _first_difference(backend, right, case) is None
    wrong = loaded(backend, case.config, case.params | {f"{dense}.weight": other})
    assert _first_difference(backend, wrong, case) == dense


def test_a_network_of_the_other_kind_is_refused(backend):
    with pytest.raises(spec.InvalidInput, match=r"GoogLeNet is not the network of preset lenet .* build\(config\)"):
        backend.GoogLeNet(spec.preset("lenet"), device="cpu")
    with pytest.raises(spec.InvalidInput, match="Sequence is not the network of preset d2l"):
        backend.Sequence(spec.preset("d2l"), device="cpu")
    assert type(backend.build(spec.preset("lenet"), device="cpu")) is backend.Sequence
    assert type(backend.build(spec.preset("d2l"), device="cpu")) is backend.GoogLeNet


def test_batch_norm_on_the_wrong_statistics_is_noticed(backend):
    case = material(Case("lenet-bn", 28, 4))
    swapped = case.params | {"fc4.norm.running_mean": case.params["fc4.norm.running_mean"][::-1].copy()}
    assert _first_difference(backend, loaded(backend, case.config, swapped), case) == "fc4"


def test_the_library_and_the_notebook_store_other_variances(backend):
    """They agree in all else: a step of one, judged by the other's settings, differs in the statistics alone."""
    _, params, images, labels = material(Case("lenet-bn-scratch", 28, 4))
    config = spec.preset("lenet-bn-scratch", norm_momentum=0.1)
    expected = reference.loss_and_grads(config, params, images, labels)
    other = spec.preset("lenet-bn")
    model = loaded(backend, other, params)
    backend.train_step(model, backend.make_optimizer(model, spec.SGD(0.0)), images, labels)
    errors = relative_errors(backend.dump_params(model), {**params, **expected.statistics})
    wrong = {array for array, error in errors.items() if error > BOUNDS.step}
    assert wrong == {array for array in params if array.endswith("running_var")}


def test_the_padding_of_alexnets_first_convolution_matters():
    """Published versions differ in it; shapes and counts do not show it (Dive into Deep Learning, chapter 8.1)."""
    config = spec.preset("alexnet", dropout=0.0)
    first, *rest = config.rows
    other = replace(config, rows=(replace(first, pad=0), *rest))
    assert spec.param_shapes(other) == spec.param_shapes(config)
    assert spec.stage_shapes(other, (1, 224, 224)) == spec.stage_shapes(config, (1, 224, 224))
    params = spec.init_params(config, 0, "he")
    images = np.random.default_rng(0).normal(size=(1, 1, 224, 224))
    logits = [reference.predict(each, params, images) for each in (config, other)]
    assert relative_error(*logits) > 1e-2
