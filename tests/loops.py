"""A short training through `harness.loop`, without a process."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import spec
from harness import loop
from harness.runs import CHECKPOINT, of_checkpoint
from harness.train import settings_for
from spec import checkpoint
from spec.recipe import OneCycle, Recipe

# 5 steps an epoch (9, 9, 9, 9 and 4 images): momentum, decay, dropout, a rate that changes at every step.
RECIPE = Recipe(
    preset="d2l",
    size=28,
    batch=9,
    epochs=2,
    optimizer=spec.SGD(rate=0.05, momentum=0.9, weight_decay=1e-3),
    schedule=OneCycle(),
    init="he",
    mean=0.25,
    std=0.5,
    label_smoothing=0.1,
    dropout=0.4,
)


def run(
    package: ModuleType,
    dataset: Path,
    folder: Path,
    *,
    recipe: Recipe = RECIPE,
    log_every: int = 1,
    stop_after: int | None = None,
    start: Path | None = None,
    messages: list | None = None,
    stopped=lambda: False,
) -> bool:
    """Train in a folder, or go on in it; whether the run is complete."""
    task = {
        "folder": str(folder),
        "settings": settings_for(recipe, dataset, seed=5, dtype="float64", device="cpu").as_json(),
        "dataset": str(dataset),
        "start": str(start) if start else None,
        "log_every": log_every,
        "save_every": 1e9,
        "stop_after": stop_after,
        "devices": 1,
    }
    task = json.loads(json.dumps(task))  # as it reaches the loop in a process of its own
    tell = (lambda message: None) if messages is None else messages.append
    step, complete, _ = loop.train(package, package.__name__.split("_")[1], task, tell, stopped)
    _, position = of_checkpoint(checkpoint.load(folder / CHECKPOINT), folder)
    assert step == position.step
    return complete
