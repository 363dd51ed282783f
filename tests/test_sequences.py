"""The textbook ancestors: what the spec says of them, and every backend against the referee on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import DATA, loaded

import spec
from harness.compare import probe_params, relative_error, relative_errors
from harness.data import load_batch
from spec import reference
from spec.checkpoint import config_table
from spec.shapes import input_sizes
from spec.table import render
from spec.tolerances import TOLERANCES, TRAJECTORY

SEQUENCES = [name for name, config in spec.PRESETS.items() if isinstance(config, spec.SequenceConfig)]
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


class Given(NamedTuple):
    config: spec.Config
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray


def given(name: str, size: int, batch: int, dtype: str = "float64", **settings: Any) -> Given:
    config = spec.preset(name, **settings)
    rng = np.random.default_rng(7)
    images = rng.normal(size=(batch, config.in_channels, size, size)).astype(dtype)
    params = {key: x.astype(dtype) for key, x in probe_params(config, seed=3).items()}
    return Given(config, params, images, rng.integers(0, config.num_classes, batch))


@pytest.mark.parametrize(("name", "size"), [*((name, 28) for name in SEQUENCES[:4]), ("nin", 67)])
def test_the_referees_gradients_are_differences(name, size):
    """One value of every array moved up and down, with dropout where the network has it."""
    config, params, images, labels = given(name, size, 3)
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
    config, params, images, labels = given("lenet-bn", 28, 4)
    grads = reference.loss_and_grads(config, params, images, labels).grads
    for layer in ("conv1", "conv2", "fc3", "fc4"):
        assert np.abs(grads[f"{layer}.bias"]).max() < 1e-12 * np.abs(grads[f"{layer}.weight"]).max()
    assert np.abs(grads["fc5.bias"]).max() > 1e-3


@pytest.mark.parametrize("name", NORMED)
def test_the_running_statistics_are_those_of_the_batch(name):
    """Of conv1, computed apart: the notebook keeps the batch's own biased variance, the library a tenth of it."""
    config, params, images, labels = given(name, 28, 5)
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


# --------------------------------------------------------------------------------- every backend against the referee

# The default size and an odd one, or another, that fits; what takes gigabytes or minutes is left to the slow run.
QUICK = [*((name, size) for name in SEQUENCES[:4] for size in (28, 29)), ("nin", 97), ("vgg11-narrow", 225)]
SLOW = [("nin", 224), ("vgg11-narrow", 224), ("alexnet", 193), ("alexnet", 224), ("vgg11", 224), ("vgg11", 225)]
CASES = [
    *(pytest.param(*case, id="-".join(map(str, case))) for case in QUICK),
    *(pytest.param(*case, id="-".join(map(str, case)), marks=pytest.mark.slow) for case in SLOW),
]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_stages_loss_and_gradients_in_float64(name, size, backend):
    config, params, images, labels = given(name, size, 1 if size > 100 else 4, dropout=0.0)
    model = loaded(backend, config, params)

    stages = backend.activations(model, images)
    expected = reference.activations(config, params, images)
    assert list(stages) == list(expected) == list(spec.stage_names(config))
    errors = {stage: relative_error(stages[stage], expected[stage]) for stage in expected}
    assert {stage: error for stage, error in errors.items() if error > BOUNDS.activations} == {}
    assert relative_error(backend.predict(model, images), expected[config.logits]) <= BOUNDS.logits

    loss, grads = backend.loss_and_grads(model, images, labels)
    training = reference.loss_and_grads(config, params, images, labels)
    assert abs(loss - training.loss) <= BOUNDS.loss * training.loss
    assert list(grads) == list(training.grads)
    wrong = {array: e for array, e in relative_errors(grads, training.grads).items() if e > BOUNDS.gradients}
    assert wrong == {}


def turns(config: spec.Config, size: int, batch: int, steps: int) -> Iterator[tuple[Any, ...]]:
    """Images, labels and what dropout keeps, for every step others."""
    found = load_batch(["digits" if DATA is None else "fashion-mnist"], config, size, batch * steps, DATA)
    images = (found.images - found.images.mean()) / found.images.std()
    for step in range(steps):
        part = slice(step * batch, (step + 1) * batch)
        masks = spec.dropout_masks(config, images[part].shape, 11, step)
        yield images[part], found.labels[part], masks


# SGD at rates at which the loss falls; with momentum where its arrays fit into memory beside the others. The largest
# network trains at its own size only, and for five steps, which take minutes; at 225 pixels the narrow one does.
TRAININGS = [
    *(pytest.param(name, size, 8, spec.SGD(0.05), id=f"{name}-{size}") for name, size in QUICK[:8]),
    pytest.param("nin", 97, 2, spec.SGD(0.005), id="nin-97"),
    *(
        pytest.param(name, size, 1 if name == "vgg11" else 2, optimizer, id=f"{name}-{size}", marks=pytest.mark.slow)
        for name, size, optimizer in [
            ("nin", 224, spec.SGD(0.005)),
            ("vgg11-narrow", 224, spec.SGD(0.0005)),
            ("vgg11-narrow", 225, spec.SGD(0.0005)),
            ("alexnet", 224, spec.SGD(0.0002)),
            ("vgg11", 224, spec.SGD(0.002, momentum=0.0)),
        ]
    ),
]


class Training(NamedTuple):
    """What it came to."""

    losses: list[float]
    correct: list[int]
    params: dict[str, np.ndarray]


def initial(config: spec.Config) -> dict[str, np.ndarray]:
    return spec.init_params(config, 3, "xavier" if config.batch_norm else "he")


@lru_cache(maxsize=2)
def expected_training(name: str, size: int, batch: int, optimizer: spec.Optimizer, steps: int = 20) -> Training:
    """The referee's."""
    config, state = spec.preset(name), {}
    params, losses, correct = initial(config), [], []
    for images, labels, masks in turns(config, size, batch, steps):
        step, params = reference.train_step(config, params, state, optimizer, images, labels, masks)
        losses.append(step.loss)
        correct.append(step.correct)
    return Training(losses, correct, params)


@pytest.mark.parametrize(("name", "size", "batch", "optimizer"), TRAININGS)
def test_twenty_steps_equal_the_referees(name, size, batch, optimizer, backend):
    """With dropout, as in training."""
    steps = 5 if name == "vgg11" else 20
    config, expected = spec.preset(name), expected_training(name, size, batch, optimizer, steps)
    model = loaded(backend, config, initial(config))
    native = backend.make_optimizer(model, optimizer)
    found = [backend.train_step(model, native, *turn) for turn in turns(config, size, batch, steps)]
    assert [int(step.correct) for step in found] == expected.correct
    # Of the largest: of a single image a network may be so sure that of its loss nothing is left but rounding.
    differences = [abs(float(step.loss) - loss) for step, loss in zip(found, expected.losses, strict=True)]
    assert max(differences) <= TRAJECTORY.losses * max(expected.losses)
    errors = relative_errors(backend.dump_params(model), expected.params)
    assert {array: error for array, error in errors.items() if error > TRAJECTORY.parameters} == {}


@pytest.mark.parametrize("name", ["lenet", "lenet-bn"])
def test_the_training_that_is_compared_is_one(name):
    """The loss falls, and every array moves but the biases that batch norm takes away."""
    config, found = spec.preset(name), expected_training(name, 28, 8, spec.SGD(0.05))
    moved = relative_errors(initial(config), found.params)
    assert all(error > 1e-4 for array, error in moved.items() if not _cancels(config, array))
    images, labels, _ = next(turns(config, 28, 8, steps=20))
    assert reference.loss_and_grads(config, found.params, images, labels).loss < 0.95 * found.losses[0]


@pytest.mark.parametrize(("name", "size"), [("lenet", 28), ("lenet-bn-scratch", 28), ("nin", 67)])
def test_float32(name, size, backend):
    # Batch norm of four images a channel of a dense layer would be four times as far off.
    config, params, images, labels = given(name, size, 32, "float32", dropout=0.0)
    model, bounds = loaded(backend, config, params, "float32"), TOLERANCES["float32"]
    stages, expected = backend.activations(model, images), reference.activations(config, params, images)
    assert {x.dtype for x in stages.values()} == {np.dtype("float32")}
    assert max(relative_errors(stages, expected).values()) <= bounds.activations
    loss, grads = backend.loss_and_grads(model, images, labels)
    training = reference.loss_and_grads(config, params, images, labels)
    assert abs(loss - training.loss) <= bounds.loss * training.loss
    learned = {array: x for array, x in training.grads.items() if not _cancels(config, array)}
    assert max(relative_errors({array: grads[array] for array in learned}, learned).values()) <= bounds.gradients


def _cancels(config: spec.Config, array: str) -> bool:
    """Whether it is a bias that batch norm takes away again: in float32 what rounding leaves is all that there is."""
    layer = next(layer for layer in spec.layers(config) if array.startswith(f"{layer.name}."))
    return layer.norm is not None and array == f"{layer.name}.bias"


# ------------------------------------------------------------------------------------------------------------ teeth


def _first_difference(backend: Any, model: Any, case: Given) -> str | None:
    """The first stage that is out of bounds."""
    got, expected = (
        backend.activations(model, case.images),
        reference.activations(case.config, case.params, case.images),
    )
    return next((x for x in expected if relative_error(got[x], expected[x]) > BOUNDS.activations), None)


@pytest.mark.parametrize(("name", "size", "dense"), [("lenet", 28, "fc3"), ("vgg11-narrow", 224, "fc6")])
def test_a_map_flattened_in_another_order_is_noticed(name, size, dense, backend):
    """(H, W, C) for (C, H, W): the same number of values, so that no shape is wrong."""
    case = given(name, size, 2)
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
    case = given("lenet-bn", 28, 4)
    swapped = case.params | {"fc4.norm.running_mean": case.params["fc4.norm.running_mean"][::-1].copy()}
    assert _first_difference(backend, loaded(backend, case.config, swapped), case) == "fc4"


def test_the_library_and_the_notebook_store_other_variances(backend):
    """They agree in all else: a step of one, judged by the other's settings, differs in the statistics alone."""
    config, params, images, labels = given("lenet-bn-scratch", 28, 4, norm_momentum=0.1)
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
