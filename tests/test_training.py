"""Optimizer steps, running statistics, dropout and modes, in every backend against the referee."""

from __future__ import annotations

import numpy as np
import pytest
from support import Case, loaded, material

import spec
from harness.compare import relative_error, relative_errors
from spec import reference
from spec.tolerances import TOLERANCES


# Other steps, and whole trainings: test_trajectory.py and test_backend_optimizers.py.
def test_steps_with_batch_norm_in_float64(backend):
    case, optimizer = Case("torchvision", 97, 4), spec.SGD(0.05, 0.9)
    config, params, images, labels = material(case)
    model = loaded(backend, config, params)
    native, state = backend.make_optimizer(model, optimizer), {}
    bounds = TOLERANCES["float64"]
    for _ in range(2):
        expected, params = reference.train_step(config, params, state, optimizer, images, labels)
        got = backend.train_step(model, native, images, labels)
        assert abs(float(got.loss) - expected.loss) <= bounds.loss * expected.loss
        assert int(got.correct) == expected.correct
    errors = relative_errors(backend.dump_params(model), params)
    assert {name: error for name, error in errors.items() if error > bounds.step} == {}


def test_running_variance_is_the_unbiased_one(backend):
    case = Case("torchvision", 28, 4)
    config, params, images, labels = material(case)
    model = loaded(backend, config, params)
    backend.train_step(model, backend.make_optimizer(model, spec.SGD()), images, labels)  # the next test's program
    name = "inception5b.pool_proj.norm.running_var"  # 1 x 1 maps: of 4 values, so that unbiased is 4/3 of biased
    got, expected = backend.dump_params(model)[name], reference.loss_and_grads(*material(case)).statistics[name]
    assert relative_error(got, expected) < 1e-10
    biased = params[name] * 0.9 + (expected - params[name] * 0.9) * 3 / 4
    assert relative_error(got, biased) > 1e-3


def test_looking_at_a_model_does_not_change_it(backend):
    case = Case("torchvision", 28, 4)
    config, params, images, labels = material(case)
    model = loaded(backend, config, params)
    backend.train_step(model, backend.make_optimizer(model, spec.SGD()), images, labels)  # now in training mode
    before = backend.dump_params(model)
    logits = backend.predict(model, images)
    backend.activations(model, images)
    backend.loss_and_grads(model, images, labels)
    after = backend.dump_params(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(logits, backend.predict(model, images))
    np.testing.assert_allclose(
        logits, reference.predict(config, before, images), rtol=0, atol=1e-12 * abs(logits).max()
    )


def _recovered_masks(grads: dict[str, np.ndarray], classifiers: dict[str, str]) -> dict[str, np.ndarray]:
    """What dropout kept of one image: the classifier's weights that read a dropped value get no gradient at all.

    A value that is zero anyway looks dropped, and makes no difference to the loss or to any gradient.
    """
    return {head: np.any(grads[f"{layer}.weight"] != 0, axis=0)[None] for head, layer in classifiers.items()}


@pytest.mark.parametrize(
    ("preset", "size", "classifiers"),
    [("cnblogs", 193, {"fc": "fc"}), ("bvlc", 231, {"fc": "fc", "aux1": "aux1.fc2", "aux2": "aux2.fc2"})],
)
def test_dropout_drops_the_right_share_and_scales_the_rest(preset, size, classifiers, backend):
    config, case = spec.preset(preset), Case(preset, size, 1)
    _, params, images, labels = material(case)
    model = loaded(backend, config, params)

    loss, grads = backend.loss_and_grads(model, images, labels)

    masks = _recovered_masks(grads, classifiers)
    expected = reference.loss_and_grads(config, params, images, labels, masks)
    assert abs(loss - expected.loss) <= 1e-12 * expected.loss
    assert max(relative_errors(grads, expected.grads).values()) <= TOLERANCES["float64"].gradients
    nothing_dropped = reference.loss_and_grads(config, params, images, labels).grads
    for head, kept in masks.items():
        alive = np.any(nothing_dropped[f"{classifiers[head]}.weight"] != 0, axis=0)
        share = 1 - kept[0][alive].mean()
        assert abs(share - (config.dropout if head == "fc" else config.aux_dropout)) < 0.1  # of about 1,000: 6 sigma


def test_inference_drops_nothing(backend):
    config, case = spec.preset("cnblogs", dropout=0.9), Case("cnblogs", 193, 1)
    _, params, images, _ = material(case)
    logits = backend.predict(loaded(backend, config, params), images)
    assert relative_error(logits, reference.predict(config, params, images)) <= TOLERANCES["float64"].logits
