"""Whole trainings in float64: every backend's losses and final parameters against the referee's own training.

Real images, another batch in every step, and a rate that drops half way. A difference in the last digit of one step is
an input of all that follow, so that this also shows what no single step can: that none of them grows.
"""

from __future__ import annotations

import pytest
from support import SEQUENCES
from trajectories import D2L_ADAM, D2L_SGD, Run, expected_result, initial, loss_error, result, turns

import spec
from harness.compare import relative_errors
from spec import reference
from spec.tolerances import TRAJECTORY

# Batch norm divides by the deviation of its maps, which is small where pictures are flat: what cancels there costs
# PyTorch ten times as many digits as the referee, and noise gives them back. The rates are small and Adam's epsilon is
# large because nothing could be compared otherwise, not even the referee with itself: see `spec/tolerances.py`.
BATCH_NORM_SGD = Run("torchvision", 80, 8, spec.SGD(1e-4), noise=0.5, dropout=None)
BATCH_NORM_ADAM = Run("torchvision", 80, 8, spec.Adam(3e-4, epsilon=1e-3), noise=0.5)

# Of the ancestors the size of their own and another, with dropout where they have it; Adam would make steps of what
# rounding leaves of the gradients of biases before batch norm.
LENET, LENET_BN, *_ = LENETS = [
    Run(name, size, 8, spec.SGD(0.05), "xavier") for size in (28, 29) for name in SEQUENCES if name.startswith("lenet")
]

RUNS = [
    D2L_SGD,
    D2L_ADAM,
    Run("bvlc", 64, 4, spec.SGD(0.002), scheme="caffe"),
    *LENETS,
    Run("nin", 97, 2, spec.SGD(0.005), dropout=None),
]
SLOW_RUNS = [
    Run("bvlc", 64, 4, spec.Adam(1e-4), scheme="caffe"),
    Run(
        "bvlc",
        224,
        2,
        spec.SGD(0.002),
        "caffe",
        steps=6,
        aux=True,
        dropout=None,
        aux_weight=0.5,
        label_smoothing=0.1,
    ),
    Run("cnblogs", 193, 2, spec.SGD(0.002), steps=3, dropout=None),
    BATCH_NORM_SGD,
    BATCH_NORM_ADAM,
    Run("vgg11-narrow", 224, 2, spec.SGD(0.0005), dropout=None),
    Run("vgg11-narrow", 225, 2, spec.SGD(0.0005), dropout=None),
]
LARGE_RUNS = [
    Run("nin", 224, 2, spec.SGD(0.005), dropout=None),
    Run("alexnet", 193, 2, spec.SGD(0.0002), dropout=None),
    Run("alexnet", 224, 2, spec.SGD(0.0002), dropout=None),
    Run("vgg11", 224, 2, spec.SGD(0.0002, momentum=0.0), dropout=None),  # without a gigabyte of momentum
]


@pytest.mark.parametrize(
    "run",
    [
        *(pytest.param(run, id=str(run)) for run in RUNS),
        *(pytest.param(run, id=str(run), marks=pytest.mark.slow) for run in SLOW_RUNS),
        *(pytest.param(run, id=str(run), marks=pytest.mark.large) for run in LARGE_RUNS),
    ],
)
def test_a_training_equals_the_referees(run, backend):
    expected = expected_result(run)

    got = result(backend, run)

    assert loss_error(got, expected) <= TRAJECTORY.losses
    assert got.correct == expected.correct
    errors = relative_errors(got.params, expected.params)
    assert {name: error for name, error in errors.items() if error > TRAJECTORY.parameters} == {}


@pytest.mark.parametrize("run", [D2L_SGD, D2L_ADAM, LENET, LENET_BN], ids=str)
def test_the_training_that_is_compared_is_one(run):
    """Every array is far from where it started, and the loss of the first pictures has fallen.

    Biases that batch norm takes away again stay where they are.
    """
    (losses, _, params), config, first = expected_result(run), run.config, turns(run)[0]
    idle = {f"{layer.name}.bias" for layer in spec.layers(config) if layer.norm}
    moved = relative_errors(initial(run), params)
    assert min(error for name, error in moved.items() if name not in idle) > 1e-4
    assert reference.loss_and_grads(config, params, first.images, first.labels).loss < 0.9 * losses[0]
