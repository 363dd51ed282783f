"""What the backends do for speed computes what the referee does, and is there to be timed."""

from __future__ import annotations

import gc
import importlib
from unittest import mock

import numpy as np
import pytest
from networks import Case, expected, material
from short import model as short_model
from short import short
from support import TESTED, expected_activations, loaded
from support import Case as Wide
from support import material as wide_material

import spec
from harness.agreement import probe_params, relative_error, relative_errors
from harness.backends import ceilings
from harness.backends.registry import load
from harness.bench.worker.operations import to_numpy
from harness.compare.comparison import Expected, expect
from spec import reference
from spec.tolerances import TOLERANCES

LENET = Case("lenet", 28, 4, dtype="float32")
WIDE = Wide("d2l", 28, 4)
NORMALIZED = Wide("torchvision", 97, 4)
PLAIN = spec.SGD(rate=0.05, momentum=0.0)

# Measured, pt: logits 4e-3, loss 1.4e-3 (with batch norm, on four images; else 8e-6), gradients as one vector 1.5e-2.
# Batch norm on four images amplifies a rounding of 4e-3 until its gradients prove nothing (0.9).
BFLOAT16 = {"logits": 1.2e-2, "loss": 5e-3, "gradients": 5e-2}


# ------------------------------------------------------------------------------------------------------ predictors


def _quick(**cases: list[Case]) -> pytest.MarkDecorator:
    """The cases of each backend: JAX compiles a LeNet in a second and a GoogLeNet in many."""
    pairs = [(name, case) for name in TESTED for case in cases[name]]
    return pytest.mark.parametrize(
        ("backend", "case"), [pytest.param(*pair, id="-".join(map(str, pair))) for pair in pairs], indirect=["backend"]
    )


def _assert_predictor_computes(backend, model, images: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    bound = TOLERANCES[dtype].logits
    x = backend.images_to_device(model, images)
    predict = backend.predictor(model, x)
    logits = predict(x)
    backend.wait(logits)
    other = predict(backend.images_to_device(model, 3 * images))
    assert to_numpy(logits).dtype == dtype
    assert relative_error(to_numpy(logits), expected) <= bound  # and so it stays, whatever is computed after it
    assert relative_error(to_numpy(other), expected) > 10 * bound


THIN = [Case("d2l", 28, 4), Case("bvlc", 32, 2, dtype="float32"), Case("torchvision", 33, 4, dtype="float32")]


# PyTorch's predictor of NiN has no parameters left; AlexNet's has those of its dense layers.
ANCESTORS = [LENET, Case("nin", 67, 2, dtype="float32"), Case("alexnet", 67, 2, dtype="float32")]


@_quick(pt=[*THIN, *ANCESTORS], mx=THIN, jax=[LENET, Case("lenet-bn", 29, 4)])
def test_the_predictor_computes_what_the_referee_does(backend, case):
    config, params, images, _ = material(case)
    model = loaded(backend, config, params, case.dtype)
    logits = expected(case).stages[config.logits]
    _assert_predictor_computes(backend, model, images, logits, case.dtype)


@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
@pytest.mark.parametrize("preset", ["inception-v3", "inception-resnet-v2"])
def test_the_predictor_of_a_short_inception_computes_what_the_referee_does(preset, backend):
    """JAX has none of its own for these: it compiles the network."""
    config = short(preset, aux=False if preset == "inception-v3" else None)
    params = {name: x.astype("float32") for name, x in probe_params(config, seed=3).items()}
    images = np.random.default_rng(7).normal(size=(2, 3, 107, 75)).astype("float32")
    model = short_model(backend, config, params, "float32")
    _assert_predictor_computes(backend, model, images, reference.predict(config, params, images), "float32")


@pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
def test_every_convolution_of_pytorch_s_predictor_is_fused():
    from torch import nn

    from googlenet_pt.predict import _fuse

    config = short("inception-resnet-v2")
    model = short_model(load("pt"), config, probe_params(config, seed=3), "float32")
    _fuse(model, model.dtype)
    assert not any(isinstance(part, nn.Conv2d | nn.BatchNorm2d) for part in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("case", [WIDE, NORMALIZED], ids=str)
def test_the_predictor_of_a_wide_network_computes_what_the_referee_does(case, backend):
    config, params, images, _ = wide_material(case, "float32")
    model = loaded(backend, config, params, "float32")
    _assert_predictor_computes(backend, model, images, expected_activations(case, "float32")["fc"], "float32")


def test_the_predictor_keeps_the_weights_that_it_was_made_with(backend):
    config, params, images, labels = material(LENET)
    model = loaded(backend, config, params, "float32")
    x = backend.images_to_device(model, images)
    predict = backend.predictor(model, x)
    before = to_numpy(predict(x))
    # A step may take the memory of the model's parameters.
    backend.train_step(model, backend.make_optimizer(model, spec.SGD(rate=1.0, momentum=0.0)), images, labels)
    assert np.array_equal(to_numpy(predict(x)), before)
    assert relative_error(backend.predict(model, images), before) > 1e-4


@_quick(pt=THIN[:1], mx=THIN[:1], jax=[])
def test_batches_of_changing_sizes_are_computed_right(backend, case):
    """A compiled graph has the memory of one shape: another shape, and the first one again, must not meet it.

    JAX compiles a program for each shape.
    """
    config, params, images, labels = material(case)
    model, bounds = loaded(backend, config, params), TOLERANCES["float64"]
    for part in (slice(0, 4), slice(0, 1), slice(1, 4), slice(0, 4)):
        logits = backend.predict(model, images[part])
        assert relative_error(logits, expected(case).stages["fc"][part]) <= bounds.logits
        _, grads = backend.loss_and_grads(model, images[part], labels[part])
        training = reference.loss_and_grads(config, params, images[part], labels[part])
        assert max(relative_errors(grads, training.grads).values()) <= bounds.gradients


# -------------------------------------------------------------------------------------------------------- bfloat16


@pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
def test_bfloat16_is_refused_by_mxnet():
    with pytest.raises(spec.InvalidInput, match="take float32, or the backend pt or jax"):
        load("mx").build(spec.preset("lenet"), dtype="bfloat16", device="cpu")


def _assert_computes_in_bfloat16(backend, config, params, images, labels, right: Expected) -> None:
    """Logits between float32's rounding and bfloat16's, and every array that comes out is float32."""
    model = loaded(backend, config, params, "bfloat16")
    x = backend.images_to_device(model, images)

    predictions = [backend.predict(model, images), to_numpy(backend.predictor(model, x)(x))]
    loss, grads = backend.loss_and_grads(model, images, labels)
    step = backend.train_step(model, backend.make_optimizer(model, PLAIN), images, labels)

    arrays = [*predictions, to_numpy(step.loss), *grads.values(), *backend.dump_params(model).values()]
    assert {x.dtype for x in arrays} == {np.dtype("float32")}
    for predicted in predictions:
        assert 1e-4 < relative_error(predicted, right.stages[config.logits]) < BFLOAT16["logits"]
    assert abs(loss - right.loss) < BFLOAT16["loss"] * right.loss
    if config.batch_norm is None:
        assert _distance(grads, right.grads) < BFLOAT16["gradients"]


@_quick(pt=[Case("d2l", 28, 4, dtype="float32")], mx=[], jax=[LENET])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32(backend, case):
    _assert_computes_in_bfloat16(backend, *material(case), expected(case))


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in TESTED if name == "pt"], indirect=True)
def test_bfloat16_of_a_wide_network_computes_in_bfloat16_and_keeps_float32(backend):
    """PyTorch's kernels depend on the widths. JAX compiles it for a minute, and by the rules that LeNet shows."""
    given = wide_material(WIDE, "float32")
    _assert_computes_in_bfloat16(backend, *given, expect(*given))


def _distance(got: spec.Arrays, expected: spec.Arrays) -> float:
    """Of two sets of arrays, each taken as one vector, relative to the length of the second."""
    off = sum(float(((got[name] - x) ** 2).sum()) for name, x in expected.items())
    return (off / sum(float((x**2).sum()) for x in expected.values())) ** 0.5


# --------------------------------------------------------------------------------- another program for another device


@pytest.mark.skipif("jax" not in TESTED, reason="only JAX's network is another one on GPUs")
@pytest.mark.parametrize(
    "case", [Case("nin", 67, 2), pytest.param(Case("d2l", 28, 4), marks=pytest.mark.slow)], ids=str
)
def test_jax_network_for_gpus_agrees_with_the_referee_on_the_cpu(case):
    """A GPU is needed to see that its compiler agrees: test_gpu.py."""
    jax_backend = load("jax")
    from flax import nnx

    from googlenet_jax import fast_cpu

    config, params, images, labels = material(case)
    with mock.patch.object(fast_cpu, "make_fast"):
        model = loaded(jax_backend, config, params)
    parts = [part for _, part in nnx.iter_graph(model) if isinstance(part, nnx.Module)]
    assert not any(type(part).__module__ == fast_cpu.__name__ for part in parts)
    assert fast_cpu.convolution not in [part.conv_general_dilated for part in parts if isinstance(part, nnx.Conv)]
    loss, grads = jax_backend.loss_and_grads(model, images, labels)
    assert abs(loss - expected(case).loss) <= TOLERANCES["float64"].loss * expected(case).loss
    assert max(relative_errors(grads, expected(case).grads).values()) <= TOLERANCES["float64"].gradients


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


# --------------------------------------------------------------------------------------------------- what is timed


@_quick(pt=THIN[1:], mx=THIN[1:], jax=[LENET])
def test_every_stage_can_be_timed(backend, case):
    config, params, images, _ = material(case)
    model = loaded(backend, config, params, "float32")
    names = []
    for name, forward, gradients in importlib.import_module(f"{backend.__name__}.profile").stages(model, images):
        forward()
        gradients()
        names.append(name)
    assert tuple(names) == spec.stage_names(config)
    found = backend.dump_params(model)
    assert all(np.array_equal(found[name], x) for name, x in params.items() if not spec.is_statistic(name))


@pytest.mark.slow
def test_the_ceilings_can_be_measured(backend):
    found = importlib.import_module(f"{backend.__name__}.peak").workloads("cpu", "float32")
    amounts = [ceilings.PRODUCT, ceilings.CONVOLUTION, ceilings.COPY]
    assert [(name, n) for name, n, _ in found] == list(
        zip(("matrix product", "convolution", "copy"), amounts, strict=True)
    )
    for _, _, call in found:
        call()
