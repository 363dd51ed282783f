"""Whole trainings in float64: every backend's losses and final parameters against the referee's own training.

Real images, another batch in every step, and a rate that drops half way. A difference in the last digit of one step is
an input of all that follow, so that this also shows what no single step can: that none of them grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import DATA, SEQUENCES, loaded

import spec
from harness.compare import relative_errors
from harness.data import load_batch
from spec import reference
from spec.tolerances import TRAJECTORY


class Run(NamedTuple):
    """A training: a network, what it starts from, and what it is trained with."""

    preset: str
    size: int
    batch: int
    optimizer: spec.Optimizer  # with the rate of the first half; in the second it is a tenth
    scheme: str = "he"  # of the initial weights
    steps: int = 20
    aux: bool = False
    dropout: float | None = 0.0  # None for the preset's own
    aux_weight: float | None = None
    label_smoothing: float | None = None
    noise: float = 0.0  # standard deviation of what is added to the pictures, in units of theirs

    def __str__(self) -> str:
        heads, drops = ("-aux" if self.aux else ""), ("" if self.dropout == 0 else "-dropout")
        return f"{self.preset}{heads}{drops}-{self.size}-{type(self.optimizer).__name__}"

    @property
    def config(self) -> spec.Config:
        return spec.preset(
            self.preset,
            num_classes=10,
            aux=None if self.aux else False,
            dropout=self.dropout,
            aux_weight=self.aux_weight,
            label_smoothing=self.label_smoothing,
        )


class Turn(NamedTuple):
    """What one step is given."""

    rate: float
    images: np.ndarray
    labels: np.ndarray
    masks: dict[str, np.ndarray]


class Result(NamedTuple):
    losses: list[float]
    correct: list[int]  # of every step
    params: dict[str, np.ndarray]


def initial(run: Run) -> dict[str, np.ndarray]:
    return spec.init_params(run.config, 3, run.scheme)


@lru_cache(maxsize=2)
def turns(run: Run) -> list[Turn]:
    """Every step's own images, in the order of the data set, brought to mean 0 and deviation 1."""
    config, source = run.config, "digits" if DATA is None else "fashion-mnist"
    found = load_batch([source], config, run.size, run.batch * run.steps, DATA)
    images = (found.images - found.images.mean()) / found.images.std()
    images = images + run.noise * np.random.default_rng(5).normal(size=images.shape)
    parts = [slice(i * run.batch, (i + 1) * run.batch) for i in range(run.steps)]
    return [
        Turn(
            run.optimizer.rate * (1 if i < run.steps // 2 else 0.1),
            images[part],
            found.labels[part],
            spec.dropout_masks(config, images[part].shape, seed=11, step=i),
        )
        for i, part in enumerate(parts)
    ]


def referee_goes_on(
    config: spec.Config,
    params: dict[str, np.ndarray],
    state: dict[str, np.ndarray],
    optimizer: spec.Optimizer,
    given: Sequence[Turn],
) -> Result:
    """The referee's training from there; `state` is changed in place."""
    losses, correct = [], []
    for turn in given:
        row = replace(optimizer, rate=turn.rate)
        step, params = reference.train_step(config, params, state, row, turn.images, turn.labels, turn.masks)
        losses.append(step.loss)
        correct.append(step.correct)
    return Result(losses, correct, params)


def goes_on(backend: ModuleType, model: Any, native: Any, given: Sequence[Turn]) -> Result:
    """A backend's training from there."""
    losses, correct = [], []
    for turn in given:
        backend.set_rate(native, turn.rate)
        step = backend.train_step(model, native, turn.images, turn.labels, turn.masks)
        losses.append(float(step.loss))
        correct.append(int(step.correct))
    return Result(losses, correct, backend.dump_params(model))


def referee_result(run: Run) -> Result:
    return referee_goes_on(run.config, initial(run), {}, run.optimizer, turns(run))


expected_result = lru_cache(maxsize=1)(referee_result)  # conftest.py has the tests of a run one after another


def start(backend: ModuleType, run: Run, dtype: str = "float64") -> tuple[Any, Any]:
    """A model and its optimizer, before the first step."""
    model = loaded(backend, run.config, initial(run), dtype)
    return model, backend.make_optimizer(model, run.optimizer)


def result(backend: ModuleType, run: Run) -> Result:
    return goes_on(backend, *start(backend, run), turns(run))


def loss_error(got: Result, expected: Result) -> float:
    return max(abs(a - b) / b for a, b in zip(got.losses, expected.losses, strict=True))


def parameter_error(got: Result, expected: Result) -> float:
    return max(relative_errors(got.params, expected.params).values())


D2L_SGD = Run("d2l", 28, 8, spec.SGD(0.002))
D2L_ADAM = Run("d2l", 28, 8, spec.Adam(1e-4), dropout=0.4)  # dropout along with it, as JAX takes long to compile
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
