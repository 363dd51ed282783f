"""What only a GPU can show. A backend that finds none is skipped here, and `googlenet doctor` says why."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from support import TESTED, Case, expected_activations, expected_training, material

import spec
from harness.agreement import relative_error, relative_errors
from harness.bench.worker.operations import to_numpy
from harness.compare.comparison import OPTIMIZER
from harness.images.batches import pixel_table, pixels
from spec.tolerances import TOLERANCES, picture_tolerances

pytestmark = pytest.mark.gpu

CASE = Case("d2l", 96, 4)
NORMALIZED = Case("torchvision", 64, 4)
ANCESTORS = [Case("lenet-bn", 28, 4), Case("lenet-bn-scratch", 28, 4), Case("nin", 97, 4)]


@pytest.fixture(autouse=True)
def gpu(backend) -> None:
    """Skips before anything is computed that a GPU would be held against."""
    try:
        backend.describe("gpu")
    except spec.InvalidInput as no_gpu:
        pytest.skip(str(no_gpu))


def _model(backend, case: Case, dtype: str = "float32"):
    """A model on the GPU with the case's parameters."""
    config, params, _, _ = material(case, dtype)
    model = backend.build(config, dtype=dtype, device="gpu")
    backend.load_params(model, params)
    return model


@pytest.mark.parametrize("case", [CASE, NORMALIZED, *ANCESTORS], ids=str)
def test_every_stage_in_float32_is_not_rounded_to_tf32(backend, case):
    model, images = _model(backend, case), material(case, "float32").images
    expected = expected_activations(case, "float32")
    for name, found in backend.activations(model, images).items():
        assert relative_error(found, expected[name]) <= TOLERANCES["float32"].activations, name


@pytest.mark.parametrize("case", [CASE, *ANCESTORS], ids=str)
def test_loss_and_gradients_agree_in_float64(backend, case):
    """At 1e-12 a compiler's mistake shows: XLA made one of JAX's matrix products side by side (JAX 0.11.2, H100)."""
    _, _, images, labels = material(case)
    model, bounds, expected = _model(backend, case, "float64"), TOLERANCES["float64"], expected_training(case)
    loss, grads = backend.loss_and_grads(model, images, labels)
    assert abs(loss - expected.loss) <= bounds.loss * expected.loss
    errors = relative_errors(grads, expected.grads)
    assert {name: error for name, error in errors.items() if error > bounds.gradients} == {}


def test_gradients_agree_and_a_step_changes_the_weights(backend):
    config, params, images, labels = material(CASE, "float32")
    model, expected = _model(backend, CASE), expected_training(CASE, "float32")
    bounds = picture_tolerances(config, "float32", images.shape)
    loss, grads = backend.loss_and_grads(model, images, labels)
    assert abs(loss - expected.loss) / expected.loss <= bounds.loss
    for name, grad in grads.items():
        assert relative_error(grad, expected.grads[name]) <= bounds.gradients, name
    backend.wait(backend.train_step(model, backend.make_optimizer(model, OPTIMIZER), images, labels), model)
    assert any((x != params[name]).any() for name, x in backend.dump_params(model).items())


def test_predictor_computes_the_logits(backend):
    model, images = _model(backend, CASE), material(CASE, "float32").images
    x = backend.images_to_device(model, images)
    logits = backend.predictor(model, x)(x)
    backend.wait(logits)
    expected = expected_activations(CASE, "float32")["fc"]
    assert relative_error(backend.predict(model, images), expected) <= TOLERANCES["float32"].logits
    assert relative_error(to_numpy(logits), expected) <= TOLERANCES["float32"].logits


def test_tf32_rounds_what_float32_does_not(backend):
    config, params, images, _ = material(CASE, "float32")
    try:
        model = backend.build(config, dtype="tf32", device="gpu", params=params)
    except spec.InvalidInput as refusal:
        pytest.skip(str(refusal))
    found, expected = backend.activations(model, images), expected_activations(CASE, "float32")
    errors = [relative_error(x, expected[name]) for name, x in found.items()]
    assert TOLERANCES["float32"].activations < max(errors) < TOLERANCES["tf32"].activations
    again = backend.activations(_model(backend, CASE), images)  # beside it, float32 is as it was
    assert max(relative_error(x, expected[name]) for name, x in again.items()) <= TOLERANCES["float32"].activations


# Bounds of the last step's loss and of the parameters: ten times, or at least thrice, what float32 on a CPU is off from
# float64. Adam divides by gradients of no size, and batch norm by small deviations.
REPLAYED = [
    (CASE, spec.SGD(0.01, 0.9, nesterov=True, clip_norm=1.0), 1e-5, 1e-4),
    (CASE, spec.RMSProp(0.001, momentum=0.5, average=0.9), 1e-5, 1e-4),
    (CASE, spec.AdamW(1e-4, weight_decay=0.1), 1e-5, 5e-2),
    (NORMALIZED, spec.SGD(0.01, 0.9), 1e-2, 0.5),
]


@pytest.mark.parametrize("backend", [name for name in TESTED if name == "pt"], indirect=True)
@pytest.mark.parametrize(("case", "settings", "of_loss", "of_parameters"), REPLAYED, ids=str)
def test_steps_that_are_replayed_are_the_plain_ones(case, settings, of_loss, of_parameters, backend):
    """PyTorch's CUDA graphs, with a rate of its own in each step."""
    config, params, images, labels = material(case, "float32")
    results = []
    for captures in (False, True):
        model = _model(backend, case)
        optimizer = backend.make_optimizer(model, settings)
        if not captures:
            optimizer.graph = None
        for number in range(8):
            backend.set_rate(optimizer, settings.rate / (1 + number))
            masks = spec.dropout_masks(config, images.shape, seed=1, step=number)
            shown = np.roll(images, number, axis=0), np.roll(labels, number)
            step = backend.train_step(model, optimizer, *shown, masks)
        results.append((float(step.loss), backend.dump_params(model)))
    (plain, expected), (replayed, got) = results
    assert replayed == pytest.approx(plain, rel=of_loss)
    assert max(relative_errors(got, expected).values()) < of_parameters
    assert max(relative_error(x, params[name]) for name, x in expected.items()) > 1e-2


def test_batches_of_a_dataset_on_the_device_are_the_hosts(backend):
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 29, 28), dtype=np.uint8)
    labels, rows, table = np.arange(9), np.array([7, 0, 0, 8]), pixel_table("float32", (0.4, 0.5, 0.6), 0.25)
    model = backend.build(spec.preset("lenet-bn", in_channels=3), device="gpu")
    right = backend.to_device(model, pixels(images[rows], "float32", (0.4, 0.5, 0.6), 0.25), labels[rows])
    for got, expected in zip(backend.dataset_to_device(model, images, labels, table)(rows), right, strict=True):
        np.testing.assert_array_equal(to_numpy(got), to_numpy(expected))
    assert backend.free_memory("gpu") > images.nbytes


def test_memory_is_measured_and_ceilings_can_be(backend):
    model, images = _model(backend, CASE), material(CASE, "float32").images
    backend.predict(model, images)
    memory = backend.peak_memory("gpu")
    assert memory is None or memory > sum(x.nbytes for x in backend.dump_params(model).values())
    for name, amount, call in importlib.import_module(f"{backend.__name__}.peak").workloads("gpu", "float32"):
        call()
        assert amount > 0, name


def test_every_stage_can_be_timed(backend):
    model, images = _model(backend, CASE), material(CASE, "float32").images
    stages = importlib.import_module(f"{backend.__name__}.profile").stages(model, images)
    names = []
    for name, forward, gradients in stages:
        forward()
        gradients()
        names.append(name)
    assert tuple(names) == spec.stage_names(model.config)
