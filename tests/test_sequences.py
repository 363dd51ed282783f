"""The textbook ancestors: what the spec says of them, and every backend against the referee on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import Case, answer, expected, material, thin
from support import INCEPTIONS, SEQUENCES

import spec
from harness.agreement import relative_error, relative_errors
from harness.weights.checkpoint import config_table
from spec import reference
from spec.shapes import input_sizes
from spec.table import render
from spec.tolerances import TOLERANCES

NORMED = [name for name in SEQUENCES if spec.PRESETS[name].batch_norm]

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
def test_networks_have_the_published_parameter_counts(name, count):
    assert spec.parameter_count(spec.preset(name)) == count


def test_blocks_of_nin_have_the_published_parameter_counts():
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
def test_maps_have_the_published_sizes(name, sides, flat):
    config = spec.preset(name)
    shapes = spec.stage_shapes(config, (config.in_channels, config.input_size, config.input_size))
    assert {stage: shapes[stage][1:] for stage in sides} == {stage: (side, side) for stage, side in sides.items()}
    assert {layer.name: layer.in_channels for layer in spec.layers(config) if layer.name in flat} == flat
    assert shapes[config.logits] == (config.num_classes,)


def test_layers_have_the_published_channels():
    def channels(name: str) -> list[int]:
        return [layer.out_channels for layer in spec.layers(spec.preset(name))]

    assert channels("vgg11") == [64, 128, 256, 256, 512, 512, 512, 512, 4096, 4096, 10]
    assert channels("vgg11-narrow") == [8, 16, 32, 32, 64, 64, 64, 64, 4096, 4096, 10]
    assert channels("nin") == [96] * 3 + [256] * 3 + [384] * 3 + [10] * 3
    assert channels("alexnet") == [96, 256, 384, 384, 256, 4096, 4096, 10]
    assert {layer.out_channels for layer in spec.layers(spec.preset("nin", num_classes=7))} == {96, 256, 384, 7}


def test_lenet_has_sigmoids_and_the_others_relus():
    """LeNet's are sigmoids, the others' ReLUs, NiN's last one too; no classifier that is dense has one."""
    for name in SEQUENCES:
        kinds = {layer.name: layer.op.activation for layer in spec.layers(spec.preset(name))}
        last = list(kinds)[-1]
        assert kinds.pop(last) == ("relu" if name == "nin" else None)
        assert set(kinds.values()) == {"sigmoid" if name.startswith("lenet") else "relu"}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("lenet", 28, 31), ("lenet-bn", 28, 31), ("alexnet", 193, 224), ("vgg11", 224, 255), ("nin", 67, None)],
)
def test_images_fit_from_the_smallest_to_the_largest_size(name, low, high):
    config = spec.preset(name)
    assert input_sizes(config) == (low, high, None)
    for size in (low - 1, *([high + 1] if high else [])):
        with pytest.raises(spec.InvalidInput, match=f"cannot take {size} x {size} pixels"):
            spec.stage_shapes(config, (1, size, size))


def test_an_image_that_does_not_fit_is_refused_with_the_reason():
    with pytest.raises(spec.InvalidInput, match=r"fc3 needs maps of 4 x 4 and gets 21 x 4; .* 28 to 31 pixels"):
        spec.stage_shapes(spec.preset("lenet"), (1, 96, 28))
    with pytest.raises(spec.InvalidInput, match=r"nothing is left at pool3; expected .* 67 or more pixels"):
        spec.stage_shapes(spec.preset("nin"), (1, 66, 66))
    with pytest.raises(spec.InvalidInput, match="it is empty"):
        spec.stage_shapes(spec.preset("nin"), (1, 0, 66))


def test_batch_norm_follows_every_layer_but_the_last_and_biases_stay():
    for name in NORMED:
        layers = spec.layers(spec.preset(name))
        assert [bool(layer.norm) for layer in layers] == [True] * 4 + [False]
        assert all(layer.has_bias for layer in layers)


def test_epsilon_of_batch_norm_is_the_published_one():
    epsilons = {name: config.batch_norm.epsilon for name, config in spec.PRESETS.items() if config.batch_norm}
    inceptions = {name: 1e-5 if name.startswith("inception-bn") else 1e-3 for name in INCEPTIONS}
    assert epsilons == inceptions | {
        "torchvision": 1e-3,
        "lenet-bn": 1e-5,
        "lenet-bn-scratch": 1e-5,
        "lenet-bn-frozen": 1e-5,
    }


def test_what_is_not_learned_has_no_arrays():
    frozen, learned = (spec.param_shapes(spec.preset(name)) for name in ("lenet-bn-frozen", "lenet-bn"))
    extra = {f"{layer}.norm.{leaf}" for layer in ("conv1", "conv2", "fc3", "fc4") for leaf in ("weight", "bias")}
    assert learned.keys() - frozen.keys() == extra
    assert frozen.keys() <= learned.keys()


def test_the_momentum_is_one_in_the_notebook_and_may_be_set():
    scratch = spec.preset("lenet-bn-scratch")
    assert (scratch.batch_norm.momentum, scratch.batch_norm.unbiased) == (1, False)
    book = spec.preset("lenet-bn-scratch", norm_momentum=0.1)
    assert book == replace(scratch, batch_norm=replace(scratch.batch_norm, momentum=0.1))
    assert spec.preset(**config_table(book)) == book
    assert "norm_momentum" not in config_table(scratch)
    assert spec.preset("torchvision", norm_momentum=0.01).batch_norm.momentum == 0.01


@pytest.mark.parametrize("momentum", [0, -0.1, 1.1, "0.1", float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(spec.InvalidInput, match="norm_momentum: expected a share from above 0 to 1"):
        spec.preset("lenet-bn", norm_momentum=momentum)


def test_a_momentum_without_batch_norm_is_refused():
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
    names = list(spec.stage_names(config))
    assert [line.split()[0] for line in lines if line.split()[:1] in [[name] for name in names]] == names
    assert f"{spec.parameter_count(config):,}" in lines[-1]


# ----------------------------------------------------------------------------------------------------- the referee


@pytest.mark.parametrize(("name", "size"), [*((name, 28) for name in SEQUENCES[:4]), ("nin", 67)])
def test_gradients_of_the_referee_are_central_differences(name, size):
    """One value of every array moved up and down, with dropout where the network has it."""
    _, params, images, labels = material(Case(name, size, 3))
    config = thin(name, size)
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
        right = mean, var
    else:
        right = 0.9 * before[0] + 0.1 * mean, 0.9 * before[1] + 0.1 * var * count / (count - 1)
    np.testing.assert_allclose(statistics["conv1.norm.running_mean"], right[0], rtol=1e-12)
    np.testing.assert_allclose(statistics["conv1.norm.running_var"], right[1], rtol=1e-12)


def test_the_sigmoid_does_not_overflow():
    y, back = reference.sigmoid(np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0]))
    np.testing.assert_allclose(y, [0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1], rtol=1e-15)
    np.testing.assert_allclose(back(np.ones(5)), y * (1 - y))


def test_a_dense_row_reads_maps_channel_by_channel():
    """The order is (C, H, W); what it flattens is 16 maps of 4 x 4."""
    config, params, images, _ = material(Case("lenet", 28, 2))
    stages = reference.activations(config, params, images)
    weight = params["fc3.weight"].reshape(-1, 16, 4, 4)
    y = np.einsum("nchw,ochw->no", stages["pool2"], weight) + params["fc3.bias"]
    np.testing.assert_allclose(stages["fc3"], 1 / (1 + np.exp(-y)), rtol=1e-12)


def test_the_library_and_the_notebook_store_different_variances():
    """They agree in all else."""
    _, params, images, labels = material(Case("lenet-bn", 28, 4))
    library, notebook = thin("lenet-bn", 28), thin("lenet-bn-scratch", 28, norm_momentum=0.1)
    one, other = (reference.loss_and_grads(config, params, images, labels) for config in (library, notebook))
    assert one.loss == other.loss
    assert not any(relative_errors(one.grads, other.grads).values())
    different = {array for array, error in relative_errors(one.statistics, other.statistics).items() if error > 0}
    assert different == {array for array in one.statistics if array.endswith("running_var")}


def test_the_padding_of_the_first_convolution_shows_in_logits_and_not_in_shapes():
    """Published AlexNets differ in it (Dive into Deep Learning, chapter 8.1)."""
    for config, size in ((spec.preset("alexnet"), 224), (thin("alexnet", 67, dropout=0.0), 67)):
        (name, first), *rest = config.table
        other = replace(config, table=((name, replace(first, pad=0)), *rest))
        assert spec.param_shapes(other) == spec.param_shapes(config)
        assert spec.stage_shapes(other, (1, size, size)) == spec.stage_shapes(config, (1, size, size))
    params = spec.init_params(config, 0, "he")
    images = np.random.default_rng(0).normal(size=(1, 1, 67, 67))
    logits = [reference.predict(each, params, images) for each in (config, other)]
    assert relative_error(*logits) > 1e-2


# ---------------------------------------------------- the backends, beside test_networks.py and test_operations.py


@pytest.fixture(scope="module", params=["lenet-bn", pytest.param("lenet-bn-scratch", marks=pytest.mark.slow)])
def answered(request, backend):
    """Of 32 images: batch norm of four makes the gradients four times as inexact."""
    case = Case(request.param, 28, 32, dtype="float32")
    return case, answer(backend, case)


def test_float32_stays_within_its_bounds_with_batch_norm(answered):
    """Biases before batch norm are all rounding.

    The gradient of a scale is a sum over the batch that nearly cancels: `fc3.norm.weight` is off by 1.0e-5 in PyTorch
    and MXNet, and by 2.4e-5 in JAX on a processor with AVX-512, everything else by 8.5e-6.
    """
    case, got = answered
    right, bounds = expected(case), TOLERANCES["float32"]
    bounds = replace(bounds, gradients=5e-5)
    errors = {stage: relative_error(got.arrays[f"stage/{stage}"], x) for stage, x in right.stages.items()}
    assert {stage: error for stage, error in errors.items() if error > bounds.activations} == {}
    assert abs(got.facts["loss"] - right.loss) <= bounds.loss * right.loss
    idle = {f"{layer.name}.bias" for layer in spec.layers(material(case).config) if layer.norm}
    learned = {array: x for array, x in right.grads.items() if array not in idle}
    errors = relative_errors({array: got.arrays[f"gradient/{array}"] for array in learned}, learned)
    assert {array: error for array, error in errors.items() if error > bounds.gradients} == {}


def test_a_network_of_the_other_kind_is_refused(backend):
    with pytest.raises(spec.InvalidInput, match=r"GoogLeNet is not the network of preset lenet .* build\(config\)"):
        backend.GoogLeNet(spec.preset("lenet"), device="cpu")
    with pytest.raises(spec.InvalidInput, match="LeNet is not the network of preset d2l"):
        backend.LeNet(spec.preset("d2l"), device="cpu")


def test_a_network_is_of_the_class_of_its_family(backend):
    for name in ("lenet", "alexnet", "vgg11", "nin", "d2l"):
        config = thin(name, 33 if name == "vgg11" else 67)
        assert type(backend.build(config, device="cpu")).__name__ == config.family
