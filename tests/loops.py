"""Short trainings through `harness.training.loop`, without a process, and the referee's own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import spec
from harness.images.batches import open_dataset, training_batches
from harness.training import loop
from harness.training.recipe import OneCycle, Recipe
from harness.training.runs import CHECKPOINT, of_checkpoint, read_metrics
from harness.training.train import settings_for
from harness.weights import checkpoint
from spec import reference

SEED = 5
# 5 steps an epoch (9, 9, 9, 9 and 4 images): momentum, decay, a rate that changes at every step. A small network will
# do: the loop is the same for all of them.
RECIPE = Recipe(
    preset="lenet",
    size=28,
    batch=9,
    epochs=2,
    optimizer=spec.SGD(rate=0.05, momentum=0.9, weight_decay=1e-3),
    schedule=OneCycle(),
    init="he",
    mean=0.25,
    std=0.5,
    label_smoothing=0.1,
)
DROPPING = replace(RECIPE, preset="nin", size=67, batch=5, dropout=0.4)  # the smallest that drops anything
AVERAGING = replace(
    RECIPE,
    preset="lenet-bn",
    optimizer=spec.RMSProp(rate=0.02, momentum=0.9, epsilon=0.1, clip_value=0.5, average=0.5),
)
GOOGLENET = replace(RECIPE, preset="d2l", batch=4, dropout=0.4)


def run(
    package: ModuleType, dataset: Path, folder: Path, *, log_every: int = 1, save_every: float = 1e9, **options: Any
) -> bool:
    """As `train`, with a record after so many steps and a checkpoint after so many seconds."""
    with mock.patch.multiple(loop, LOG_EVERY=log_every, SAVE_EVERY=save_every):
        return train(package, dataset, folder, **options)


def train(
    package: ModuleType,
    dataset: Path,
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    stop_after: int | None = None,
    start: Path | None = None,
    messages: list | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Train in a folder, or go on in it; whether the run is complete."""
    task = {
        "folder": str(folder),
        "settings": settings_for(recipe, dataset, seed=SEED, dtype="float64", device="cpu").as_json(),
        "dataset": str(dataset),
        "start": str(start) if start else None,
        "stop_after": stop_after,
        "devices": 1,
    }
    task = json.loads(json.dumps(task))  # as it reaches the loop in a process of its own
    tell = (lambda message: None) if messages is None else messages.append
    step, complete, _ = loop.train(package, package.__name__.split("_")[1], task, tell, stopped)
    _, position = of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)
    assert step == position.step
    return complete


class Trained(NamedTuple):
    """What the referee's training comes to."""

    losses: list[float]  # of every step
    accuracies: list[float]
    params: dict[str, np.ndarray]  # after the last one
    state: dict[str, np.ndarray]


def referee(dataset: Path, recipe: Recipe, steps: int) -> Trained:
    """That many steps, as the spec has them."""
    opened = open_dataset(dataset)
    config = recipe.config(num_classes=len(opened.classes))
    params, state = spec.init_params(config, SEED, recipe.init), {}
    rounded = math.floor if recipe.partial_batch == "drop" else math.ceil
    losses, accuracies, batches = [], [], rounded(len(opened.train) / recipe.batch)
    per_epoch = min(batches, recipe.epoch_steps or batches)
    while len(losses) < steps:
        epoch = len(losses) // per_epoch
        given = training_batches(
            opened.train, recipe.batch, seed=SEED, epoch=epoch, dtype="float64", mean=recipe.mean, std=recipe.std
        )
        for images, labels in islice(given, per_epoch):
            number = len(losses)
            optimizer = replace(recipe.optimizer, rate=recipe.rate(number, per_epoch))
            masks = spec.dropout_masks(config, images.shape, SEED, number)
            scale = len(images) / recipe.batch if recipe.partial_batch == "nominal" else 1.0
            step, params = reference.train_step(config, params, state, optimizer, images, labels, masks, scale)
            losses.append(step.loss)
            accuracies.append(step.correct / len(images))
            if len(losses) == steps:
                break
    return Trained(losses, accuracies, params, state)


def records(folder: Path, kind: str) -> list[dict]:
    """The records of a run that are of that kind: ``step`` or ``epoch``."""
    return [record for record in read_metrics(folder) if record["kind"] == kind]


def records_without_clock(folder: Path) -> list[dict]:
    """All records, but for what depends on the time of day."""
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "images_per_second")}
        for record in read_metrics(folder)
    ]
