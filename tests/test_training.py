"""Training steps with batch norm, dropout and heads together, and modes, in every backend against the referee."""

from __future__ import annotations

import numpy as np
import pytest
from networks import thin
from support import NOT_QUICK_IN_JAX, loaded

import spec
from harness.agreement import probe_params, relative_error, relative_errors
from spec import reference
from spec.tolerances import TOLERANCES

BOUNDS = TOLERANCES["float64"]


def _batch(config: spec.Config, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.normal(size=(count, config.in_channels, size, size)), rng.integers(0, config.num_classes, count)


# Steps with other optimizers, and whole trainings: test_trajectory.py and test_backend_optimizers.py.
# JAX takes half a minute to compile a step of a GoogLeNet with batch norm.
@NOT_QUICK_IN_JAX
def test_steps_with_batch_norm_heads_and_given_dropout_masks_equal_the_referees(backend):
    config, optimizer = thin("torchvision", label_smoothing=0.1, aux_weight=0.5), spec.SGD(0.05, 0.9)
    params, state = probe_params(config, 3), {}
    images, labels = _batch(config, 97, 4)
    model = loaded(backend, config, params)
    native = backend.make_optimizer(model, optimizer)
    for step in range(2):
        masks = spec.dropout_masks(config, images.shape, seed=11, step=step)
        assert set(masks) == {"fc", "aux1", "aux2"}
        expected, params = reference.train_step(config, params, state, optimizer, images, labels, masks)
        got = backend.train_step(model, native, images, labels, masks)
        assert abs(float(got.loss) - expected.loss) <= BOUNDS.loss * expected.loss
        assert int(got.correct) == expected.correct
    errors = relative_errors(backend.dump_params(model), params)
    assert {name: error for name, error in errors.items() if error > BOUNDS.step} == {}


def test_looking_at_a_model_does_not_change_it(backend):
    config = spec.preset("lenet-bn")
    images, labels = _batch(config, 28, 4)
    model = loaded(backend, config, probe_params(config, 3))
    backend.train_step(model, backend.make_optimizer(model, spec.SGD()), images, labels)  # now in training mode
    before = backend.dump_params(model)
    logits = backend.predict(model, images)
    backend.activations(model, images)
    backend.loss_and_grads(model, images, labels)
    after = backend.dump_params(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(logits, backend.predict(model, images))
    assert relative_error(logits, reference.predict(config, before, images)) <= BOUNDS.logits


def _kept(grads: dict[str, np.ndarray], classifiers: dict[str, str]) -> dict[str, np.ndarray]:
    """What dropout kept of one image: the classifier's weights that read a dropped value get no gradient at all.

    A value that is zero anyway looks dropped, and makes no difference to the loss or to any gradient.
    """
    return {head: np.any(grads[f"{layer}.weight"] != 0, axis=0)[None] for head, layer in classifiers.items()}


@NOT_QUICK_IN_JAX
@pytest.mark.parametrize(
    ("config", "size", "classifiers"),
    [
        (spec.preset("d2l", dropout=0.4), 28, {"fc": "fc"}),
        pytest.param(
            thin("bvlc"), 231, {"fc": "fc", "aux1": "aux1.fc2", "aux2": "aux2.fc2"}, marks=pytest.mark.slow, id="bvlc"
        ),
    ],
    ids=lambda value: value.preset if isinstance(value, spec.Config) else "",
)
def test_without_masks_dropout_drops_the_right_share_and_scales_the_rest(config, size, classifiers, backend):
    params = probe_params(config, 3)
    images, labels = _batch(config, size, 1)
    model = loaded(backend, config, params)

    loss, grads = backend.loss_and_grads(model, images, labels)

    masks = _kept(grads, classifiers)
    expected = reference.loss_and_grads(config, params, images, labels, masks)
    assert abs(loss - expected.loss) <= BOUNDS.loss * expected.loss
    assert max(relative_errors(grads, expected.grads).values()) <= BOUNDS.gradients
    nothing_dropped = reference.loss_and_grads(config, params, images, labels).grads
    for head, kept in masks.items():
        alive = np.any(nothing_dropped[f"{classifiers[head]}.weight"] != 0, axis=0)
        if alive.sum() > 300:  # of so many the share is right within 0.1: 3 sigma and more
            share = 1 - kept[0][alive].mean()
            assert abs(share - (config.dropout if head == "fc" else config.aux_dropout)) < 0.1


def test_inference_drops_nothing(backend):
    config = thin("nin", 67, dropout=0.9)
    params = probe_params(config, 3)
    images, _ = _batch(config, 67, 2)
    logits = backend.predict(loaded(backend, config, params), images)
    assert relative_error(logits, reference.predict(config, params, images)) <= BOUNDS.logits
