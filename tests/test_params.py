"""Parameters in and out of every backend."""

from __future__ import annotations

import numpy as np
import pytest
from support import Case, loaded, material

import spec
from harness.compare import SGD, probe_params

LARGE = ("alexnet", "vgg11")  # 0.4 and 1 GB in float64, named and shaped by the same rows as the others
NETWORKS = [
    (name, aux)
    for name, config in spec.PRESETS.items()
    if name not in LARGE
    for aux in ([True, False] if config.aux else [False])
]


@pytest.mark.parametrize(("preset", "aux"), NETWORKS)
def test_names_shapes_and_round_trip(preset, aux, backend):
    config = spec.preset(preset, aux=aux, in_channels=2, num_classes=7)
    params = {name: x.astype(np.float32) for name, x in probe_params(config, seed=1).items()}
    model = loaded(backend, config, params, "float32")
    dumped = backend.dump_params(model)
    assert {name: x.shape for name, x in dumped.items()} == spec.param_shapes(config)
    assert list(dumped) == list(params)
    assert all(np.array_equal(dumped[name], params[name]) and dumped[name].dtype == np.float32 for name in params)


def test_round_trip_is_exact_in_float64(backend):
    config = spec.preset("bvlc")
    params = probe_params(config, seed=2)
    dumped = backend.dump_params(loaded(backend, config, params))
    assert all(np.array_equal(dumped[name], params[name]) for name in params)


def test_a_new_model_starts_from_the_spec(backend):
    config = spec.preset("torchvision")
    for seed in (0, 5):
        expected = spec.init_params(config, seed)
        dumped = backend.dump_params(backend.GoogLeNet(config, dtype="float64", device="cpu", seed=seed))
        assert all(np.array_equal(dumped[name], expected[name]) for name in expected)


def test_nothing_is_shared_with_the_caller(backend):
    case = Case("d2l", 28, 4)
    config, params, images, labels = material(case)
    given = {name: x.copy() for name, x in params.items()}
    model = loaded(backend, config, given)
    logits = backend.predict(model, images)
    for x in given.values():
        x[...] = 7
    assert np.array_equal(backend.predict(model, images), logits)
    dumped = backend.dump_params(model)
    kept = {name: x.copy() for name, x in dumped.items()}
    backend.train_step(model, backend.make_optimizer(model, SGD), images, labels)  # the program of test_teeth.py
    assert all(np.array_equal(dumped[name], kept[name]) for name in kept)
    for x in dumped.values():
        x[...] = 7  # the arrays are the caller's, and writable
    assert not np.array_equal(backend.dump_params(model)["conv1.weight"], dumped["conv1.weight"])


def test_parameters_that_do_not_fit_are_all_named_and_change_nothing(backend):
    config = spec.preset("d2l")
    model = backend.GoogLeNet(config, device="cpu")
    before = backend.dump_params(model)
    params = spec.init_params(config, seed=9)
    params["conv1.weight"] = params["conv1.weight"].transpose(2, 3, 1, 0)
    params["fc.weight"] = params["fc.weight"].T
    params["conv2.kernel"] = params.pop("conv2.weight")
    params["inception3a.branch1x1.bias"] = np.full(64, np.nan)
    with pytest.raises(spec.InvalidInput) as refused:
        backend.load_params(model, params)
    for part in (
        "missing (1):\n    conv2.weight (192, 64, 3, 3)",
        "unexpected (1):\n    conv2.kernel (192, 64, 3, 3)",
        "conv1.weight: expected (64, 1, 7, 7), got (7, 7, 1, 64); this looks like HWIO",
        "fc.weight: expected (10, 1024), got (1024, 10); this looks like (in, out)",
        "NaN or infinity (1):\n    inception3a.branch1x1.bias",
    ):
        assert part in str(refused.value)
    after = backend.dump_params(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 28, 28)), "expected images of 1 channels, got 3"),
        (np.zeros((28, 28)), r"expected \(N, channels, height, width\)"),
        (np.zeros((0, 1, 28, 28)), "N at least 1"),
        (np.full((2, 1, 28, 28), np.nan), "NaN or infinity in 2 of 2 images"),
        (np.full((2, 1, 28, 28), "a"), "expected numbers, got an array of <U1"),
    ],
)
def test_images_that_do_not_fit(images, message, backend):
    model = backend.GoogLeNet(spec.preset("d2l"), device="cpu")
    for look in (backend.predict, backend.activations, lambda *a: backend.loss_and_grads(*a, np.zeros(2, int))):
        with pytest.raises(spec.InvalidInput, match=message):
            look(model, images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], r"expected classes from 0 to 9, got \[10\]"),
        ([0, -1], r"expected classes from 0 to 9, got \[-1\]"),
        ([0], "one for each of the 2 images"),
        ([0.5, 1.0], "expected whole numbers"),
    ],
)
def test_labels_that_do_not_fit(labels, message, backend):
    model = backend.GoogLeNet(spec.preset("d2l"), device="cpu")
    optimizer = backend.make_optimizer(model, spec.SGD())
    images, labels = np.zeros((2, 1, 28, 28)), np.array(labels)
    with pytest.raises(spec.InvalidInput, match=message):
        backend.loss_and_grads(model, images, labels)
    with pytest.raises(spec.InvalidInput, match=message):
        backend.train_step(model, optimizer, images, labels)


@pytest.mark.parametrize(("setting", "value"), [("device", "tpu"), ("dtype", "float16")])
def test_unknown_device_and_dtype(setting, value, backend):
    with pytest.raises(spec.InvalidInput, match=f"{setting}: expected .* got '{value}'"):
        backend.GoogLeNet(spec.preset("d2l"), **{setting: value})
