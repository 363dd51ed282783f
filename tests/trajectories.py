"""Trainings in float64: the same steps by the referee and by a backend, and how far the two are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from networks import thin
from support import DATA, loaded

import spec
from harness.agreement import relative_errors
from harness.images.sources import load_batch
from spec import reference


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
    thin: bool = False  # few channels
    pictures: str = "digits"

    def __str__(self) -> str:
        heads, drops = ("-aux" if self.aux else ""), ("" if self.dropout == 0 else "-dropout")
        width = "thin-" if self.thin else ""
        return f"{width}{self.preset}{heads}{drops}-{self.size}-{type(self.optimizer).__name__}"

    @property
    def config(self) -> spec.Config:
        return (partial(thin, size=self.size) if self.thin else spec.preset)(
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
    config = run.config
    found = load_batch([run.pictures], config, run.size, run.batch * run.steps, DATA)
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


SGD = Run("lenet", 28, 8, spec.SGD(0.9), "xavier", steps=4)
ADAM = Run("lenet", 28, 8, spec.Adam(1e-3), "xavier", steps=4)
RMSPROP = Run(
    "lenet",
    28,
    8,
    spec.RMSProp(0.01, momentum=0.9, epsilon=0.01, weight_decay=0.1, clip_norm=0.05, clip_value=0.01, average=0.5),
    "xavier",
    steps=4,
)
THIN_SGD = Run("d2l", 28, 8, spec.SGD(0.002), steps=8, thin=True)
THIN_ADAM = Run("d2l", 28, 8, spec.Adam(1e-3), steps=8, dropout=0.4, thin=True)
THIN_RMSPROP = Run(
    "d2l", 28, 8, spec.RMSProp(0.01, momentum=0.9, clip_value=0.05, average=0.9), steps=4, dropout=0.4, thin=True
)
