"""Run folders: what a training run is, where its files are, and what they say.

`runs/NAME/BACKEND/` holds, readable without this program: ``config.json`` (`Settings`), ``metrics.jsonl`` (a line for
each logged step and each epoch), ``checkpoint.safetensors`` (`harness.weights.checkpoint`),
``environment.json`` (a list, an entry for each start), ``curves.png`` and ``events`` (for TensorBoard).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import spec
from harness.atomic import write_atomically
from harness.backends.registry import BACKENDS
from harness.training.recipe import Recipe, recipe_of
from harness.weights.checkpoint import Checkpoint
from spec import InvalidInput

CHECKPOINT, CONFIG, METRICS = "checkpoint.safetensors", "config.json", "metrics.jsonl"
ENVIRONMENT, CURVES, EVENTS = "environment.json", "curves.png", "events"


@dataclass(frozen=True)
class Settings:
    """All that decides a run's numbers, but for the framework and the machine."""

    recipe: Recipe
    data: str  # as `harness.images.prepared.prepare` takes it
    data_sha256: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    seed: int  # of the initial parameters, the order of the images, and dropout
    dtype: str
    device: str

    @property
    def config(self) -> spec.Config:
        """The network."""
        return self.recipe.config(num_classes=len(self.classes))

    @property
    def steps_per_epoch(self) -> int:
        """Batches, the last one of which may be smaller."""
        return math.ceil(self.train_images / self.recipe.batch)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.steps_per_epoch * self.recipe.epochs

    def as_json(self) -> dict[str, Any]:
        """Plain values; `settings_of` makes the same settings of them again."""
        return asdict(self) | {"recipe": self.recipe.as_table(), "classes": list(self.classes)}


def settings_of(table: dict[str, Any]) -> Settings:
    """The settings in a ``config.json`` or a checkpoint.

    Raises:
        InvalidInput: when they are not complete.
    """
    try:
        recipe = recipe_of(table["recipe"])
        rest = {name: table[name] for name in Settings.__dataclass_fields__ if name not in ("recipe", "classes")}
        return Settings(recipe=recipe, classes=tuple(table["classes"]), **rest)
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"the settings of a run are incomplete: {error} is missing") from error


@dataclass
class Tally:
    """Sums over images."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: float, correct: int, images: int) -> None:
        """Count a batch with its mean loss."""
        self.loss += loss * images
        self.correct += correct
        self.seen += images

    def means(self) -> tuple[float, float]:
        """Loss and accuracy."""
        return self.loss / self.seen, self.correct / self.seen


@dataclass
class Position:
    """How far a run has come: with parameters and optimizer state all that is needed to go on.

    No clock is part of it, so that a resumed run ends with the very bytes of one that was not interrupted.
    """

    step: int = 0  # steps done
    evaluated: int = 0  # epochs that have been trained and evaluated
    epoch: Tally = field(default_factory=Tally)  # of the epoch that is being trained
    logged: Tally = field(default_factory=Tally)  # since the last logged step
    lineage: list[dict[str, Any]] = field(default_factory=list)  # {"backend", "from_step"}: who trained what

    def as_json(self) -> dict[str, Any]:
        """Plain values; `position_of` makes the same position of them again."""
        return asdict(self)


def position_of(table: dict[str, Any]) -> Position:
    """The position in a checkpoint's metadata."""
    return Position(**table | {"epoch": Tally(**table["epoch"]), "logged": Tally(**table["logged"])})


def of_checkpoint(checkpoint: Checkpoint, path: Path) -> tuple[Settings, Position]:
    """Settings and position of the run that wrote a checkpoint.

    Raises:
        InvalidInput: when it holds weights only.
    """
    try:
        return settings_of(checkpoint.metadata["run"]), position_of(checkpoint.metadata["position"])
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: expected a training run's checkpoint, got a file without its state") from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of one backend's run; an unfinished last line, as a killed process leaves it, does not count."""
    try:
        lines = (folder / METRICS).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise InvalidInput(f"{folder / METRICS}, line {number}: expected JSON, got {line[:60]!r}") from error
    return records


def write_json(path: Path, value: Any) -> None:
    """Put JSON in place, whole or not at all."""
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_settings(folder: Path) -> Settings:
    """The settings of one backend's run.

    Raises:
        InvalidInput: when the folder is not one, or its ``config.json`` is damaged.
    """
    try:
        return settings_of(json.loads((folder / CONFIG).read_text()))
    except FileNotFoundError:
        raise InvalidInput(f"{folder}: expected the folder of a run, with a {CONFIG}, and there is none") from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder / CONFIG}: {error}") from error


def read_devices(folder: Path) -> int:
    """How many devices one backend's run began with on each machine; it may go on with any other number."""
    return int(json.loads((folder / CONFIG).read_text()).get("devices", 1))


def backend_folders(run: Path) -> dict[str, Path]:
    """The folders of a run's backends, in the usual order."""
    return {name: run / name for name in BACKENDS if (run / name / CONFIG).is_file()}
