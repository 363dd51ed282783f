"""What the backends do for speed computes what the referee does, and is there to be timed."""

from __future__ import annotations

import gc
import importlib

import numpy as np
import pytest
from support import GOOGLENETS, TESTED, Case, expected_activations, expected_training, loaded, material

import spec
from harness import ceilings
from harness.backend import load
from harness.bench.subject import to_numpy
from harness.compare import relative_error, relative_errors
from spec import reference
from spec.googlenet import BRANCH_POOL
from spec.tolerances import TOLERANCES

CASE = Case("d2l", 28, 4)
NORMALIZED = Case("torchvision", 33, 4)
OTHERS = [Case("d2lzh", 28, 2), Case("cnblogs", 193, 1), Case("bvlc", 97, 2)]
LARGER = [Case("torchvision", 97, 4), Case("bvlc", 97, 1)]
PLAIN = spec.SGD(rate=0.05, momentum=0.0)
POOLS = {BRANCH_POOL, *(pool for config in map(spec.preset, GOOGLENETS) for pool in (config.pool, config.pool4))}

# Measured, pt: logits 4e-3, loss 1.4e-3 (with batch norm, on four images; else 8e-6), gradients as one vector 1.5e-2.
# Batch norm on four images amplifies a rounding of 4e-3 until its gradients prove nothing (0.9).
BFLOAT16 = {"logits": 1.2e-2, "loss": 5e-3, "gradients": 5e-2}


# ------------------------------------------------------------------------------------------------------ predictors


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (CASE, "float32"),
        (CASE, "float64"),
        (NORMALIZED, "float32"),
        *(pytest.param(case, "float32", marks=pytest.mark.slow) for case in OTHERS),
    ],
    ids=str,
)
def test_the_predictor_computes_what_the_referee_does(case, dtype, backend):
    config, params, images, _ = material(case, dtype)
    model, bound = loaded(backend, config, params, dtype), TOLERANCES[dtype].logits
    x = backend.images_to_device(model, images)
    predict = backend.predictor(model, x)
    logits, expected = predict(x), expected_activations(case, dtype)["fc"]
    backend.wait(logits)
    other = predict(backend.images_to_device(model, 3 * images))
    assert to_numpy(logits).dtype == dtype
    assert relative_error(to_numpy(logits), expected) <= bound  # and so it stays, whatever is computed after it
    assert relative_error(to_numpy(other), expected) > 10 * bound


def test_the_predictor_keeps_the_weights_that_it_was_made_with(backend):
    config, params, images, labels = material(CASE, "float32")
    model = loaded(backend, config, params, "float32")
    x = backend.images_to_device(model, images)
    predict = backend.predictor(model, x)
    before = to_numpy(predict(x))
    # A step may take the memory of the model's parameters.
    backend.train_step(model, backend.make_optimizer(model, spec.SGD(rate=1.0, momentum=0.0)), images, labels)
    assert np.array_equal(to_numpy(predict(x)), before)
    assert relative_error(backend.predict(model, images), before) > 1e-4


def test_batches_of_changing_sizes(backend):
    """A compiled graph has the memory of one shape: another shape, and the first one again, must not meet it."""
    if backend.__name__ == "googlenet_jax":
        pytest.skip("JAX compiles a program for each shape")
    config, params, images, labels = material(CASE)
    model, bounds = loaded(backend, config, params), TOLERANCES["float64"]
    for part in (slice(0, 4), slice(0, 1), slice(1, 4), slice(0, 4)):
        logits = backend.predict(model, images[part])
        assert relative_error(logits, expected_activations(CASE)["fc"][part]) <= bounds.logits
        _, grads = backend.loss_and_grads(model, images[part], labels[part])
        training = reference.loss_and_grads(config, params, images[part], labels[part])
        assert max(relative_errors(grads, training.grads).values()) <= bounds.gradients


# -------------------------------------------------------------------------------------------------------- bfloat16


@pytest.mark.parametrize("case", [CASE, *(pytest.param(case, marks=pytest.mark.slow) for case in LARGER)], ids=str)
def test_bfloat16_computes_so_and_keeps_float32(case, backend):
    config, params, images, labels = material(case, "float32")
    if backend.__name__ == "googlenet_mx":
        with pytest.raises(spec.InvalidInput, match="take float32, or the backend pt or jax"):
            backend.GoogLeNet(config, dtype="bfloat16", device="cpu")
        return
    if backend.__name__ == "googlenet_jax" and case in LARGER:
        pytest.skip("JAX compiles for minutes")
    model = loaded(backend, config, params, "bfloat16")
    x = backend.images_to_device(model, images)
    expected, logits = expected_training(case, "float32"), expected_activations(case, "float32")["fc"]

    predictions = [backend.predict(model, images), to_numpy(backend.predictor(model, x)(x))]
    loss, grads = backend.loss_and_grads(model, images, labels)
    step = backend.train_step(model, backend.make_optimizer(model, PLAIN), images, labels)

    arrays = [*predictions, to_numpy(step.loss), *grads.values(), *backend.dump_params(model).values()]
    assert {x.dtype for x in arrays} == {np.dtype("float32")}
    for predicted in predictions:
        assert 1e-4 < relative_error(predicted, logits) < BFLOAT16["logits"]  # float32 would be below
    assert abs(loss - expected.loss) < BFLOAT16["loss"] * expected.loss
    if config.batch_norm is None:
        assert _distance(grads, expected.grads) < BFLOAT16["gradients"]


def _distance(got: spec.Arrays, expected: spec.Arrays) -> float:
    """Of two sets of arrays, each taken as one vector, relative to the length of the second."""
    off = sum(float(((got[name] - x) ** 2).sum()) for name, x in expected.items())
    return (off / sum(float((x**2).sum()) for x in expected.values())) ** 0.5


# --------------------------------------------------------------------------------- another program for another device


@pytest.mark.skipif("jax" not in TESTED, reason="only JAX's network is another one on GPUs")
def test_what_jax_does_on_a_gpu_is_right_on_a_cpu_too():
    """A GPU is needed to see that its compiler agrees: test_gpu.py."""
    jax_backend = load("jax")
    from googlenet_jax.network import convolution, leave_to_xla

    config, params, images, labels = material(CASE)
    model, expected = loaded(jax_backend, config, params), expected_training(CASE)
    leave_to_xla(model)
    assert model.conv1.conv_general_dilated is not convolution
    assert model.inception5b.branch5x5.conv_general_dilated is not convolution
    loss, grads = jax_backend.loss_and_grads(model, images, labels)
    assert abs(loss - expected.loss) <= TOLERANCES["float64"].loss * expected.loss
    assert max(relative_errors(grads, expected.grads).values()) <= TOLERANCES["float64"].gradients


@pytest.mark.skipif("jax" not in TESTED, reason="only JAX keeps what a model and its optimizer make of a step")
def test_a_step_that_jax_keeps_is_of_that_model_and_goes_with_its_optimizer():
    jax_backend = load("jax")
    from googlenet_jax import train

    config, params, images, labels = material(Case("lenet", 28, 4))
    first, second = (loaded(jax_backend, config, params) for _ in range(2))
    kept, optimizer = len(train._steps), jax_backend.make_optimizer(first, PLAIN)
    jax_backend.train_step(first, optimizer, images, labels)
    once = jax_backend.dump_params(first)
    first.eval()  # as an evaluation between two steps leaves it
    jax_backend.train_step(second, optimizer, images, labels)
    assert all(np.array_equal(x, once[name]) for name, x in jax_backend.dump_params(first).items())
    assert all(np.array_equal(x, once[name]) for name, x in jax_backend.dump_params(second).items())
    assert len(train._steps) == kept + 1
    del optimizer
    gc.collect()
    assert len(train._steps) <= kept


# -------------------------------------------------------------------------------------------------------- max pools


@pytest.mark.skipif("jax" not in TESTED, reason="the other frameworks' gradients are their own")
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 7)], ids=str)
@pytest.mark.parametrize("pool", sorted(POOLS, key=str), ids=str)
def test_the_first_maximum_of_a_window_takes_the_gradient_in_jax(pool, size):
    """Whole numbers of which most tie; so all sums are exact, and nothing may differ."""
    import jax

    from googlenet_jax.model import max_pool

    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (2, 3, *size)).astype(np.float32)
    if min(map(pool.output_size, size)) < 1:
        pytest.skip("no window fits")
    expected, back = reference.max_pool(x, pool)
    dy = rng.integers(-8, 9, expected.shape).astype(np.float32)

    @jax.jit
    def both(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, back = jax.vjp(lambda x: max_pool(x, pool), x)
        return y, back(dy)[0]

    y, dx = (np.asarray(a).transpose(0, 3, 1, 2) for a in both(x.transpose(0, 2, 3, 1), dy.transpose(0, 2, 3, 1)))
    assert np.array_equal(y, expected)
    assert np.array_equal(dx, back(dy))


# --------------------------------------------------------------------------------------------------- what is timed


@pytest.mark.parametrize("case", [CASE, pytest.param(NORMALIZED, marks=pytest.mark.slow)], ids=str)
def test_every_stage_can_be_timed(case, backend):
    if backend.__name__ == "googlenet_jax" and case is NORMALIZED:
        pytest.skip("JAX compiles for minutes")
    config, params, images, _ = material(case, "float32")
    model = loaded(backend, config, params, "float32")
    names = []
    for name, forward, gradients in importlib.import_module(f"{backend.__name__}.profile").stages(model, images):
        forward()
        gradients()
        names.append(name)
    assert tuple(names) == spec.stage_names(config)
    found = backend.dump_params(model)
    assert all(np.array_equal(found[name], x) for name, x in params.items() if not spec.is_statistic(name))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ceilings_can_be_measured(dtype, backend):
    workloads = importlib.import_module(f"{backend.__name__}.peak").workloads
    if (backend.__name__, dtype) == ("googlenet_mx", "bfloat16"):
        with pytest.raises(spec.InvalidInput, match="bfloat16"):
            workloads("cpu", dtype)
        return
    found = workloads("cpu", dtype)
    amounts = [ceilings.PRODUCT, ceilings.CONVOLUTION, ceilings.COPY]
    assert [(name, n) for name, n, _ in found] == list(
        zip(("matrix product", "convolution", "copy"), amounts, strict=True)
    )
    for _, _, call in found:
        call()
