"""The textbooks' and the publishers' networks in every framework are the referee's too, and refuse to be others."""

from __future__ import annotations

import importlib
import shutil

import numpy as np
import pytest
from short import narrow
from support import TESTED, Case, Material, material

import spec
from harness.agreement import probe_params, relative_error, relative_errors
from harness.backends.registry import load
from harness.bench.worker.operations import to_numpy
from spec import reference
from spec.tolerances import TOLERANCES

CASE = Case("d2l", 28, 2)
RATE = float(np.float32(0.03))  # MXNet's own SGD rounds it to float32


@pytest.fixture
def textbook(backend):
    return importlib.import_module(f"{backend.__name__}.textbook")


@pytest.fixture
def published(backend):
    return importlib.import_module(f"{backend.__name__}.published")


def _inception() -> Material:
    """A narrow Inception-BN: a whole network of the family at the smallest cost."""
    config = narrow(spec.preset("inception-bn", num_classes=10, dropout=0.0))
    rng = np.random.default_rng(5)
    images, labels = rng.normal(size=(4, 3, 64, 64)), rng.integers(0, 10, 4)
    return Material(config, probe_params(config, seed=3), images, labels)


def _agrees(textbook, backend, given: Material, dtype: str, *, compiled: bool = False) -> None:
    config, params, images, labels = given
    model = textbook.build(config, dtype, "cpu", params)
    if compiled:
        model = textbook.compiled(model)
    bounds, expected = TOLERANCES[dtype], reference.loss_and_grads(config, params, images, labels)
    logits = reference.predict(config, params, images)
    plain = spec.SGD(rate=RATE, momentum=0.0)

    predicted = textbook.predict(model, images)
    x = backend.images_to_device(model, images)
    timed = to_numpy(textbook.predictor(model, x)(x))
    loss, grads = textbook.loss_and_grads(model, images, labels)
    x, y = backend.to_device(model, images, labels)
    step = textbook.update(model, textbook.make_optimizer(model, plain), x, y, {})

    assert predicted.dtype == dtype
    assert max(relative_error(predicted, logits), relative_error(timed, logits)) <= bounds.logits
    assert abs(loss - expected.loss) <= bounds.loss * expected.loss
    assert abs(float(step.loss) - expected.loss) <= bounds.loss * expected.loss
    assert int(step.correct) == expected.correct
    assert max(relative_errors(grads, expected.grads).values()) <= bounds.gradients
    after = {**params, **plain.update(params, expected.grads, {}), **expected.statistics}
    errors = relative_errors(textbook.dump_params(model), after)
    if textbook.__name__ == "googlenet_jax.published":  # Flax's own batch norm keeps the biased variance
        errors = {name: error for name, error in errors.items() if not name.endswith("running_var")}
    assert max(errors.values()) <= bounds.step


@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.slow if name == "jax" else ()) for name in TESTED],
    indirect=True,
)
def test_the_textbooks_network_equals_the_referees(textbook, backend):
    """Slow in JAX, which takes a minute to draw its first weights and to compile it."""
    _agrees(textbook, backend, material(CASE), "float64")


@pytest.mark.parametrize(
    "backend",
    [pytest.param(name, marks=pytest.mark.slow if name == "jax" else ()) for name in TESTED],
    indirect=True,
)
def test_the_publishers_network_equals_the_referees(published, backend):
    _agrees(published, backend, _inception(), "float64")


@pytest.mark.skipif("pt" not in TESTED, reason="PyTorch is not tested")
def test_nothing_is_tuned_in_the_publishers_network():
    from googlenet_pt import published

    config, params, _, _ = _inception()
    weights = [x for x in published.build(config, "float32", "cpu", params).parameters() if x.dim() == 4]
    assert all(x.is_contiguous() for x in weights)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
def test_the_textbooks_network_equals_the_referees_in_float32(textbook, backend):
    """Where it is not compiled for a minute."""
    _agrees(textbook, backend, material(CASE, "float32"), "float32")


@pytest.mark.slow  # PyTorch compiles for half a minute
@pytest.mark.filterwarnings("ignore")  # torch.compile uses what PyTorch deprecates
def test_the_compiled_network_of_the_textbooks_equals_the_referees(textbook, backend):
    if not hasattr(textbook, "compiled"):
        pytest.skip("it is compiled anyway")
    if textbook.__name__.startswith("googlenet_pt") and not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("PyTorch wants a C++ compiler for it")
    _agrees(textbook, backend, material(CASE, "float32"), "float32", compiled=True)


@pytest.mark.skipif("mx" not in TESTED, reason="MXNet is not tested")
def test_the_compiled_network_of_the_publishers_equals_the_referees():
    """In MXNet: PyTorch compiles it for minutes."""
    from googlenet_mx import published

    _agrees(published, load("mx"), _inception(), "float64", compiled=True)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (spec.preset("bvlc"), "dropout, aux"),
        (spec.preset("torchvision", dropout=0.0, aux=False), "batch_norm"),
        (spec.preset("lenet"), "family, input_size, conv1, pool1"),
        (spec.preset("cnblogs", dropout=0.0), "pool5"),
        (spec.preset("d2lzh"), "conv2_reduce, conv2"),
        (spec.preset("d2lzh-misprint"), "conv2, inception4a, inception4c"),
        (spec.preset("d2l", label_smoothing=0.1), "label_smoothing"),
    ],
    ids=lambda x: x.preset if isinstance(x, spec.Config) else "",
)
def test_another_network_is_refused(textbook, config, named):
    with pytest.raises(spec.InvalidInput, match="use --variant tuned") as refused:
        textbook.build(config, "float32", "cpu", {})
    assert named in str(refused.value)


def test_another_dtype_is_refused(textbook, published):
    with pytest.raises(spec.InvalidInput, match="in bfloat16 differs from d2l in dtype; use --variant tuned"):
        textbook.build(spec.preset("d2l"), "bfloat16", "cpu", {})
    with pytest.raises(spec.InvalidInput, match=r"inception-v3 .* in bfloat16 .* use --variant tuned"):
        published.build(spec.preset("inception-v3"), "bfloat16", "cpu", {})


def test_another_optimizer_is_refused(textbook):
    for row in (spec.SGD(0.1), spec.SGD(0.1, momentum=0.0, weight_decay=0.1), spec.Adam(0.1)):
        with pytest.raises(spec.InvalidInput, match="plain SGD"):
            textbook.make_optimizer(None, row)  # refused before the model is looked at


def test_the_textbook_has_functions_that_the_package_has_too(textbook, published, backend):
    names = {"build", "dump_params", "loss_and_grads", "make_optimizer", "predict", "predictor", "update"}
    assert names <= set(backend.__all__) & set(vars(textbook)) & set(vars(published))
    assert set(published.__all__) == names | ({"compiled"} & set(vars(textbook)))
