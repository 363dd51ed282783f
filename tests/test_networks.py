"""Whole networks in every backend against the referee: how the layers are wired. What a layer computes is proven in
test_operations.py, and every preset at its own widths and sizes in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from networks import Case, answer, expected, forward_only, masked_loss, material
from support import loaded

import spec
from harness.agreement import relative_error, relative_errors
from spec import reference
from spec.tolerances import TOLERANCES

# Even sizes tell 'same' from symmetric padding, and 32 pixels a ceiling from a floor in every pool of bvlc. JAX takes
# 15 to 30 s for the gradients of a GoogLeNet: test_operations.py has those of its blocks, test_parity.py of the whole,
# d2l's among them.
CASES = [
    Case("bvlc", 32, 2, backward_in_jax=False),
    Case("torchvision", 33, 4, backward_in_jax=False),
    Case("lenet", 28, 4),
    Case("lenet-bn", 29, 4),
    Case("lenet-bn-scratch", 28, 3, backward_in_jax=False),
    Case("lenet-bn-frozen", 28, 4, backward_in_jax=False),
    Case("alexnet", 67, 2, backward_in_jax=False),
    Case("vgg11", 33, 2, backward_in_jax=False),
    Case("nin", 67, 4, backward_in_jax=False),
    Case("lenet", 28, 4, dtype="float32"),
    Case("nin", 67, 4, backward_in_jax=False, dtype="float32"),
]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def answered(case, backend):
    """The backend's answer; compiled and computed once for the tests of a case."""
    return answer(backend, case)


@pytest.fixture
def bounds(case):
    return TOLERANCES[case.dtype]


def test_stages_and_logits_equal_the_referees(case, answered, bounds):
    config, right = material(case).config, expected(case)
    assert answered.facts["parameters"] == right.parameters
    assert answered.facts["stages"] == list(right.stages) == list(spec.stage_names(config))
    errors = {name: relative_error(answered.arrays[f"stage/{name}"], x) for name, x in right.stages.items()}
    assert {name: error for name, error in errors.items() if error > bounds.activations} == {}
    assert {answered.arrays[f"stage/{name}"].dtype for name in errors} == {material(case).images.dtype}
    assert relative_error(answered.arrays["logits"], right.stages[config.logits]) <= bounds.logits


def test_the_loss_equals_the_referees(case, answered, bounds, backend):
    """Where JAX computes forward only, with dropout by given masks."""
    right = masked_loss(case) if forward_only(backend, case) else expected(case).loss
    assert answered.facts["loss"] == pytest.approx(right, rel=bounds.loss, abs=0)


def _nudged(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to eight float32 roundings."""
    return x.astype(np.float64) * (1 + rng.uniform(-1, 1, x.shape) * 2.0**-21)


@pytest.mark.parametrize("case", [case for case in CASES if case.dtype == "float32"], ids=str, scope="module")
def test_the_images_for_float32_gradients_are_free_of_ties(case):
    """Nudging everything by some float32 roundings moves the referee's own gradients no further than that."""
    config, params, images, labels = material(case)
    rng = np.random.default_rng(1)
    nudged = {name: _nudged(x, rng) for name, x in params.items()}
    moved = reference.loss_and_grads(config, nudged, _nudged(images, rng), labels)
    assert max(relative_errors(moved.grads, expected(case).grads).values()) < 1e-5


def _group(answered, kind: str) -> dict:
    """The answer's arrays of a kind, by name."""
    return {key.removeprefix(f"{kind}/"): x for key, x in answered.arrays.items() if key.startswith(f"{kind}/")}


def test_gradients_equal_the_referees(case, answered, bounds):
    grads = _group(answered, "gradient")
    if not grads:
        pytest.skip("forward only, for what JAX takes to compile: test_parity.py has the gradients")
    errors = relative_errors(grads, expected(case).grads)
    assert {name: error for name, error in errors.items() if error > bounds.gradients} == {}
    assert {x.dtype for x in grads.values()} == {material(case).images.dtype}


def test_parameters_and_statistics_after_a_step_equal_the_referees(case, answered, bounds):
    """Without gradients the running statistics are what a training pass changes."""
    trained = bool(_group(answered, "gradient"))
    right = {name: x for name, x in expected(case).step.items() if trained or spec.is_statistic(name)}
    after = {name: x for name, x in _group(answered, "step").items() if trained or spec.is_statistic(name)}
    if not right:
        pytest.skip("forward only, and there is no batch norm")
    errors = relative_errors(after, right)
    assert {name: error for name, error in errors.items() if error > bounds.step} == {}


def test_batch_norm_refuses_to_train_on_a_single_small_image(backend):
    config, params, images, labels = material(Case("torchvision", 28, 1))
    with pytest.raises(spec.InvalidInput, match="a single value per channel at inception4a"):
        backend.loss_and_grads(loaded(backend, config, params), images, labels)


def test_a_float32_model_computes_in_float32_after_a_float64_model(backend):
    config = spec.preset("lenet")
    backend.build(config, dtype="float64", device="cpu")
    model = backend.build(config, dtype="float32", device="cpu")
    assert backend.predict(model, np.zeros((1, 1, 28, 28))).dtype == np.float32
    assert {x.dtype for x in backend.dump_params(model).values()} == {np.dtype("float32")}
