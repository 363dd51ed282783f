"""Whole trainings in float64: every backend's losses and final parameters against the referee's own training.

Real images, another batch in every step, and a rate that drops half way. A difference in the last digit of one step is
an input of all that follow, so that this also shows what no single step can: that none of them grows.
"""

from __future__ import annotations

from types import ModuleType

import pytest
from support import DATA, TESTED
from trajectories import (
    ADAM,
    SGD,
    THIN_ADAM,
    THIN_RMSPROP,
    THIN_SGD,
    Run,
    expected_result,
    initial,
    loss_error,
    result,
    turns,
)

import spec
from harness.agreement import relative_errors
from spec import reference
from spec.tolerances import TRAJECTORY

REAL = "digits" if DATA is None else "fashion-mnist"

# Batch norm divides by the deviation of its maps, which is small where pictures are flat: what cancels there costs
# PyTorch ten times as many digits as the referee, and noise gives them back. The rates are small and Adam's epsilon is
# large because nothing could be compared otherwise, not even the referee with itself: see `spec/tolerances.py`.
BATCH_NORM_SGD = Run("torchvision", 80, 8, spec.SGD(1e-4), steps=6, noise=1.0, dropout=None, pictures=REAL)
BATCH_NORM_ADAM = Run("torchvision", 80, 8, spec.Adam(3e-4, epsilon=1e-3), steps=8, noise=1.0, thin=True, pictures=REAL)

# Of the ancestors the size of their own and another. Adam would make steps of what rounding leaves of the gradients of
# biases before batch norm.
LENET, LENET_ADAM, LENET_BN = RUNS = [
    SGD._replace(steps=20),
    ADAM._replace(steps=20),
    Run("lenet-bn", 29, 8, spec.SGD(0.05), "xavier"),
]
OTHERS = [
    Run("lenet-bn-scratch", 28, 8, spec.SGD(0.05), "xavier"),
    Run("lenet-bn-frozen", 29, 8, spec.SGD(0.05), "xavier"),
    Run("nin", 67, 2, spec.SGD(0.005), dropout=None, thin=True),
    Run("alexnet", 67, 2, spec.SGD(0.005), dropout=None, thin=True, steps=4),
    Run("vgg11", 33, 2, spec.SGD(0.005), dropout=None, thin=True, steps=4),
]
SLOW_RUNS = [
    Run("d2l", 28, 8, spec.Adam(1e-4), dropout=0.4, pictures=REAL),
    Run("bvlc", 64, 4, spec.Adam(1e-4), scheme="caffe", steps=10),
    Run(
        "bvlc",
        224,
        2,
        spec.SGD(0.002),
        "caffe",
        steps=4,
        aux=True,
        dropout=None,
        aux_weight=0.5,
        label_smoothing=0.1,
        thin=True,
    ),
    BATCH_NORM_SGD,
    Run("vgg11-narrow", 225, 2, spec.SGD(0.0005), dropout=None, steps=4),
]
LARGE_RUNS = [
    Run("nin", 224, 2, spec.SGD(0.005), dropout=None),
    Run("alexnet", 193, 2, spec.SGD(0.0002), dropout=None),
    Run("alexnet", 224, 2, spec.SGD(0.0002), dropout=None),
    Run("vgg11", 224, 2, spec.SGD(0.0002, momentum=0.0), dropout=None),  # without a gigabyte of momentum
]


def _assert_equal_trainings(run: Run, backend: ModuleType) -> None:
    expected = expected_result(run)
    got = result(backend, run)
    assert loss_error(got, expected) <= TRAJECTORY.losses
    assert got.correct == expected.correct
    errors = relative_errors(got.params, expected.params)
    assert {name: error for name, error in errors.items() if error > TRAJECTORY.parameters} == {}


@pytest.mark.parametrize(
    "run",
    [
        *(pytest.param(run, id=str(run)) for run in RUNS),
        *(pytest.param(run, id=str(run), marks=pytest.mark.slow) for run in SLOW_RUNS),
        *(pytest.param(run, id=str(run), marks=pytest.mark.large) for run in LARGE_RUNS),
    ],
)
def test_a_training_equals_the_referees(run, backend):
    _assert_equal_trainings(run, backend)


@pytest.mark.parametrize(
    "run",
    [
        *(THIN_SGD, *OTHERS),
        *(pytest.param(run, marks=pytest.mark.slow) for run in (THIN_ADAM, THIN_RMSPROP, BATCH_NORM_ADAM)),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", [name for name in TESTED if name != "jax"], indirect=True)
def test_a_training_that_jax_compiles_slowly_equals_the_referees(run, backend):
    _assert_equal_trainings(run, backend)


@pytest.mark.slow
@pytest.mark.parametrize("run", OTHERS, ids=str)
@pytest.mark.parametrize("backend", [name for name in TESTED if name == "jax"], indirect=True)
def test_a_training_that_jax_compiles_slowly_equals_the_referees_there_too(run, backend):
    _assert_equal_trainings(run, backend)


@pytest.mark.parametrize("run", [LENET, LENET_BN, THIN_SGD], ids=str)
def test_a_compared_training_moves_every_array_and_lowers_the_loss(run):
    """Every array is far from where it started, and the loss of the first pictures has fallen.

    Biases that batch norm takes away again stay where they are.
    """
    (losses, _, params), config, first = expected_result(run), run.config, turns(run)[0]
    idle = {f"{layer.name}.bias" for layer in spec.layers(config) if layer.norm}
    moved = relative_errors(initial(run), params)
    assert min(error for name, error in moved.items() if name not in idle) > 1e-4
    assert reference.loss_and_grads(config, params, first.images, first.labels).loss < 0.9 * losses[0]
