"""Every backend against the referee: activations, logits, loss and gradients."""

from __future__ import annotations

import numpy as np
import pytest
from support import DATA, GOOGLENETS, SEQUENCES, Case, expected_activations, expected_training, loaded, material

import spec
from harness.compare import relative_error, relative_errors
from spec import reference
from spec.tolerances import TOLERANCES, on_pictures

QUICK = [
    Case("d2l", 28, 4),
    Case("d2l", 97, 1, "digits"),
    Case("d2lzh", 96, 1),
    Case("d2lzh-misprint", 97, 4),
    Case("cnblogs", 193, 1),
    Case("bvlc", 97, 4),
    Case("bvlc", 231, 1),
    Case("torchvision", 28, 4),
    Case("torchvision", 97, 1, "digits"),
    # Of the ancestors the size of their own and another.
    *(Case(name, size, 4) for name in SEQUENCES if name.startswith("lenet") for size in (28, 29)),
    Case("nin", 97, 4),
    Case("vgg11-narrow", 225, 1),
]
LARGE = [Case("alexnet", 193, 1), Case("alexnet", 224, 1), Case("vgg11", 224, 1), Case("vgg11", 225, 1)]


def _thorough() -> list[Case]:
    """Every GoogLeNet at every size of the claim, one image or some, random and real ones; ancestors at their own.

    Of the random and the real ones the shapes are the same, so that JAX compiles for both at once. At 224 pixels real
    ones would take another five minutes of every run, and `bvlc` has some at 231.
    """
    real = "digits" if DATA is None else "fashion-mnist"
    cases = [Case("nin", 224, 1), Case("vgg11-narrow", 224, 1), Case("bvlc", 231, 1, real)]
    for preset in GOOGLENETS:
        for size, batch in ((28, 4), (96, 1), (97, 4), (224, 2), (231, 1)):
            kinds = ("random", real) if size < 224 else ("random",)
            case = Case(preset, size, batch)
            try:
                spec.stage_shapes(case.config, (case.config.in_channels, size, size))
            except spec.InvalidInput:
                continue
            cases += [case._replace(images=kind) for kind in kinds]
    return [case for case in cases if case not in QUICK]


CASES = [
    *(pytest.param(case, id=str(case)) for case in QUICK),
    *(pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in _thorough()),
    *(pytest.param(case, id=str(case), marks=pytest.mark.large) for case in LARGE),
]


@pytest.mark.parametrize("case", CASES)
def test_stages_and_logits_in_float64(case, backend):
    config, params, images, _ = material(case)
    model, bounds = loaded(backend, config, params), TOLERANCES["float64"]
    expected = expected_activations(case)

    stages = backend.activations(model, images)

    assert list(stages) == list(expected) == list(spec.stage_names(config))
    errors = {name: relative_error(stages[name], expected[name]) for name in expected}
    assert {name: error for name, error in errors.items() if error > bounds.activations} == {}
    assert all(x.dtype == np.float64 for x in stages.values())
    assert relative_error(backend.predict(model, images), expected[config.logits]) <= bounds.logits


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_in_float64(case, backend):
    config, params, images, labels = material(case)
    model = loaded(backend, config, params)
    bounds = TOLERANCES["float64"] if case.images == "random" else on_pictures(config, "float64")
    expected = expected_training(case)

    loss, grads = backend.loss_and_grads(model, images, labels)

    assert isinstance(loss, float)
    assert abs(loss - expected.loss) <= bounds.loss * expected.loss
    assert list(grads) == list(expected.grads)
    errors = relative_errors(grads, expected.grads)
    assert {name: error for name, error in errors.items() if error > bounds.gradients} == {}


def test_batch_norm_cannot_train_on_a_single_small_image(backend):
    config, params, images, labels = material(Case("torchvision", 28, 1))
    with pytest.raises(spec.InvalidInput, match="a single value per channel at inception4a"):
        backend.loss_and_grads(loaded(backend, config, params), images, labels)


def _nudged(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to eight float32 roundings."""
    return x.astype(np.float64) * (1 + rng.uniform(-1, 1, x.shape) * 2.0**-21)


def _worst(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    return max(relative_errors(got, expected).values())


# Random images, of these the ones on which no two values in a pool or around a ReLU's corner tie: see the next test.
NO_TIES = [Case("d2l", 28, 4), Case("d2lzh", 28, 4), Case("bvlc", 97, 1), Case("lenet", 28, 4), Case("nin", 67, 4)]


@pytest.mark.parametrize("case", NO_TIES, ids=str)
def test_the_images_for_float32_gradients_are_free_of_ties(case):
    """Nudging everything by a few float32 roundings moves the referee's own gradients no further than that."""
    config, params, images, labels = material(case, "float32")
    rng = np.random.default_rng(1)
    nudged = {name: _nudged(x, rng) for name, x in params.items()}
    moved = reference.loss_and_grads(config, nudged, _nudged(images, rng), labels)
    assert _worst(moved.grads, expected_training(case, "float32").grads) < 1e-5


@pytest.mark.parametrize("case", [*NO_TIES, Case("torchvision", 97, 2)], ids=str)
def test_float32(case, backend):
    config, params, images, labels = material(case, "float32")
    model = loaded(backend, config, params, "float32")
    bounds = TOLERANCES["float32"] if case in NO_TIES else on_pictures(config, "float32")
    expected, training = expected_activations(case, "float32"), expected_training(case, "float32")

    stages = backend.activations(model, images)
    loss, grads = backend.loss_and_grads(model, images, labels)

    assert {x.dtype for x in (*stages.values(), *grads.values())} == {np.dtype("float32")}
    assert _worst(stages, expected) <= bounds.activations
    assert relative_error(backend.predict(model, images), expected[config.logits]) <= bounds.logits
    assert abs(loss - training.loss) <= bounds.loss * training.loss
    assert _worst(grads, training.grads) <= bounds.gradients


def test_float32_stays_float32_after_a_float64_model(backend):
    config = spec.preset("d2l")
    backend.GoogLeNet(config, dtype="float64", device="cpu")
    model = backend.GoogLeNet(config, dtype="float32", device="cpu")
    images = np.zeros((1, 1, 28, 28))
    assert backend.predict(model, images).dtype == np.float32
    assert {x.dtype for x in backend.dump_params(model).values()} == {np.dtype("float32")}


def test_ties_of_a_max_pool_go_to_the_first(backend):
    """A flat image ties in every window of the first pool; the referee gives the gradient to the first maximum."""
    case = Case("d2lzh", 28, 1)
    config, params, images, labels = material(case)
    flat = np.full_like(images, 0.5)
    expected = reference.loss_and_grads(config, params, flat, labels)
    _, grads = backend.loss_and_grads(loaded(backend, config, params), flat, labels)
    assert _worst(grads, expected.grads) <= TOLERANCES["float64"].gradients
