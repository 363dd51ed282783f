"""Parameters in and out of every backend."""

from __future__ import annotations

import numpy as np
import pytest
from networks import thin
from support import loaded, numbered

import spec
from harness.agreement import probe_params

LENET = spec.preset("lenet-bn", num_classes=7)
# Every topology; the other presets have the rows of one of these, in other widths.
NETWORKS = [
    (name, aux)
    for name in ("lenet", "bvlc", "torchvision", "lenet-bn-scratch", "lenet-bn-frozen", "alexnet", "vgg11", "nin")
    for aux in ([True, False] if spec.PRESETS[name].aux else [False])
]


def assert_equal(arrays: spec.Arrays, expected: spec.Arrays) -> None:
    assert list(arrays) == list(expected)
    for name, x in expected.items():
        np.testing.assert_array_equal(arrays[name], x, strict=True, err_msg=name)


@pytest.mark.parametrize(("preset", "aux"), NETWORKS)
def test_a_model_dumps_what_it_was_given_by_name_and_in_forward_order(preset, aux, backend):
    config = thin(preset, aux=aux, in_channels=2, num_classes=7)
    params = numbered(config, "float32")
    dumped = backend.dump_params(loaded(backend, config, params, "float32"))
    assert {name: x.shape for name, x in dumped.items()} == spec.param_shapes(config)
    assert_equal(dumped, params)


def test_float64_is_kept_exactly(backend):
    params = probe_params(LENET, seed=2)
    assert_equal(backend.dump_params(loaded(backend, LENET, params)), params)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_new_model_starts_from_the_spec(seed, backend):
    model = backend.build(LENET, dtype="float64", device="cpu", seed=seed)
    assert_equal(backend.dump_params(model), spec.init_params(LENET, seed))


def test_a_model_shares_no_memory_with_the_caller(backend):
    params, others = numbered(LENET), probe_params(LENET, seed=3)
    given = {name: x.copy() for name, x in params.items()}
    model = loaded(backend, LENET, given)
    for x in given.values():
        x[...] = 7
    dumped = backend.dump_params(model)
    assert_equal(dumped, params)
    backend.load_params(model, others)
    assert_equal(dumped, params)
    for x in dumped.values():
        x[...] = 7  # the arrays are the caller's, and writable
    assert_equal(backend.dump_params(model), others)


def test_parameters_that_do_not_fit_are_all_named_and_change_nothing(backend):
    model = backend.build(LENET, device="cpu")
    before = backend.dump_params(model)
    params = spec.init_params(LENET, seed=9)
    params["conv1.weight"] = params["conv1.weight"].transpose(2, 3, 1, 0)
    params["fc5.weight"] = params["fc5.weight"].T
    params["conv2.kernel"] = params.pop("conv2.weight")
    params["fc3.bias"] = np.full(120, np.nan)
    params["fc4.bias"] = np.zeros(84, np.int64)
    with pytest.raises(spec.InvalidInput) as refused:
        backend.load_params(model, params)
    for part in (
        "missing (1):\n    conv2.weight (16, 6, 5, 5)",
        "unexpected (1):\n    conv2.kernel (16, 6, 5, 5)",
        "conv1.weight: expected (6, 1, 5, 5), got (5, 5, 1, 6); this looks like HWIO",
        "fc5.weight: expected (7, 84), got (84, 7); this looks like (in, out)",
        "fc4.bias: expected floating point, got int64",
        "NaN or infinity (1):\n    fc3.bias",
    ):
        assert part in str(refused.value)
    assert_equal(backend.dump_params(model), before)


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
def test_images_that_do_not_fit_are_refused(images, message, backend):
    model = backend.build(LENET, device="cpu")
    for look in (backend.predict, backend.activations, lambda *a: backend.loss_and_grads(*a, np.zeros(2, int))):
        with pytest.raises(spec.InvalidInput, match=message):
            look(model, images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 7], r"expected classes from 0 to 6, got \[7\]"),
        ([0, -1], r"expected classes from 0 to 6, got \[-1\]"),
        ([0], "one for each of the 2 images"),
        ([0.5, 1.0], "expected whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message, backend):
    model = backend.build(LENET, device="cpu")
    optimizer = backend.make_optimizer(model, spec.SGD())
    images, labels = np.zeros((2, 1, 28, 28)), np.array(labels)
    with pytest.raises(spec.InvalidInput, match=message):
        backend.loss_and_grads(model, images, labels)
    with pytest.raises(spec.InvalidInput, match=message):
        backend.train_step(model, optimizer, images, labels)


@pytest.mark.parametrize(("setting", "value"), [("device", "tpu"), ("dtype", "float16")])
def test_an_unknown_device_or_dtype_is_refused(setting, value, backend):
    with pytest.raises(spec.InvalidInput, match=f"{setting}: expected .* got '{value}'"):
        backend.build(LENET, **{setting: value})
