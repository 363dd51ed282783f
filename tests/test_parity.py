"""Every preset at its own widths, in every backend against the referee: activations, logits, loss, gradients, a step.

Thin networks show the wiring in seconds (test_networks.py); here are the sizes, widths and pictures that users have.
"""

from __future__ import annotations

import numpy as np
import pytest
from networks import answer_of
from support import DATA, GOOGLENETS, Case, loaded, material

import spec
from harness.agreement import relative_errors
from harness.compare.comparison import Expected, expect, judge
from spec import reference
from spec.tolerances import TOLERANCES, picture_tolerances

REAL = "digits" if DATA is None else "fashion-mnist"
CASES = [
    Case("d2l", 96, 2, REAL),
    Case("d2lzh", 97, 4),
    Case("d2lzh-misprint", 96, 1),
    Case("cnblogs", 224, 1),
    Case("bvlc", 224, 2),  # with the heads
    Case("bvlc", 231, 1, REAL),
    Case("torchvision", 97, 4, "digits"),
    Case("nin", 224, 1),
    Case("vgg11-narrow", 225, 1),
]
LARGE = [Case("alexnet", 193, 1), Case("alexnet", 224, 1), Case("vgg11", 224, 1), Case("vgg11", 225, 1)]


def test_every_googlenet_is_a_case():
    assert {case.preset for case in CASES} >= set(GOOGLENETS)


def _expected(case: Case, dtype: str) -> Expected:
    return expect(*material(case, dtype))


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in CASES),
        *(pytest.param(case, id=str(case), marks=pytest.mark.large) for case in LARGE),
    ],
)
def test_everything_equals_the_referees_in_float64(case, backend):
    config, params, images, labels = material(case)
    bounds = TOLERANCES["float64"] if case.images == "random" else picture_tolerances(config, "float64", images.shape)
    got = answer_of(backend, loaded(backend, config, params), images, labels)
    report = judge(got, _expected(case, "float64"), bounds)
    assert report.first_difference is None, report
    assert report.passed


# On random images of these no two values in a pool or around a ReLU's corner tie: see the next test.
NO_TIES = [Case("d2l", 28, 4)]


def _nudged(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to eight float32 roundings."""
    return x.astype(np.float64) * (1 + rng.uniform(-1, 1, x.shape) * 2.0**-21)


@pytest.mark.slow
@pytest.mark.parametrize("case", NO_TIES, ids=str)
def test_the_images_for_float32_gradients_are_free_of_ties(case):
    """Nudging everything by some float32 roundings moves the referee's own gradients no further than that."""
    config, params, images, labels = material(case, "float32")
    rng = np.random.default_rng(1)
    nudged = {name: _nudged(x, rng) for name, x in params.items()}
    moved = reference.loss_and_grads(config, nudged, _nudged(images, rng), labels)
    assert max(relative_errors(moved.grads, _expected(case, "float32").grads).values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", [*NO_TIES, Case("bvlc", 97, 1), Case("torchvision", 97, 2)], ids=str)
def test_everything_equals_the_referees_in_float32(case, backend):
    config, params, images, labels = material(case, "float32")
    bounds = TOLERANCES["float32"] if case in NO_TIES else picture_tolerances(config, "float32", images.shape)
    got = answer_of(backend, loaded(backend, config, params, "float32"), images, labels)
    assert {x.dtype for x in got.arrays.values()} == {np.dtype("float32")}
    report = judge(got, _expected(case, "float32"), bounds)
    assert report.first_difference is None, report


def test_presets_with_equal_shapes_compute_different_functions():
    """d2l and d2lzh have equal shapes and counts; two ReLUs tell them apart."""
    config, params, images, _ = material(Case("d2l", 28, 1))
    other = spec.preset("d2lzh")
    assert spec.param_shapes(other) == spec.param_shapes(config)
    one, two = (reference.predict(x, params, images) for x in (config, other))
    assert np.abs(one - two).max() > 1e-4 * np.abs(one).max()  # 100 million times the bound
