"""The folder of a training run: its files and their contents.

`runs/NAME/BACKEND/` can be read without this program. It holds

- ``config.json``: the `Settings`
- ``metrics.jsonl``: a line for each logged step and each epoch
- ``checkpoint.safetensors``: see `harness.weights.checkpoint`
- ``environment.json``: a list with an entry for each start
- ``curves.png``, and ``events`` for TensorBoard
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

import spec
from harness.atomic import write_atomically
from harness.backends.registry import BACKENDS
from harness.training.recipe import Recipe
from harness.weights.checkpoint import Checkpoint
from spec import InvalidInput

CHECKPOINT = "checkpoint.safetensors"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
CURVES = "curves.png"
EVENTS = "events"
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the numbers of a run, except the framework and the machine."""

    recipe: Recipe
    data: str  # source, for `harness.images.prepared.prepare`
    data_sha256: str
    classes: tuple[str, ...]
    train_images: int
    test_images: int
    seed: int  # decides initial parameters, order of the images, dropout
    dtype: str
    device: str

    @property
    def config(self) -> spec.Config:
        """The network."""
        return self.recipe.config(num_classes=len(self.classes))

    @property
    def normalization(self) -> dict[str, Any]:
        """The arguments of `harness.images.batches.pixels`."""
        return {"dtype": self.dtype, "mean": self.recipe.mean, "std": self.recipe.std}

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.recipe.steps_per_epoch(self.train_images)

    @property
    def last_batch(self) -> int:
        """Images in an epoch's last batch, which may be fewer than in the others."""
        return min(self.recipe.batch, self.train_images - (self.steps_per_epoch - 1) * self.recipe.batch)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.recipe.epochs

    def as_json(self) -> dict[str, Any]:
        """Plain values; `settings_of` makes the same settings of them again."""
        return asdict(self) | {"recipe": self.recipe.as_table(), "classes": list(self.classes)}


@dataclass
class Tally:
    """Sums over images."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0

    def add(self, loss: float, correct: int, images: int) -> None:
        """Count a batch; `loss` is its mean."""
        self.loss += loss * images
        self.correct += correct
        self.seen += images

    def means(self) -> tuple[float, float]:
        """Loss and accuracy."""
        return self.loss / self.seen, self.correct / self.seen


@dataclass
class Position:
    """The progress of a run. A resumed run needs parameters, optimizer state and position, and nothing else.

    The position holds no time, so that a resumed run ends with the same bytes as an uninterrupted one.
    """

    step: int = 0  # steps done
    evaluated: int = 0  # epochs that have been trained and evaluated
    epoch: Tally = field(default_factory=Tally)  # the current epoch
    logged: Tally = field(default_factory=Tally)  # since the last logged step
    lineage: list[dict[str, Any]] = field(default_factory=list)  # {"backend", "from_step"} of each backend that trained


@dataclass(frozen=True)
class _Metadata:
    """The metadata in the checkpoint of a training run."""

    run: Settings
    position: Position


def _validated(kind: type[_Kind], table: Any) -> _Kind:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(table))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise InvalidInput("; ".join(problems)) from error


def settings_of(table: Any) -> Settings:
    """The settings in a ``config.json`` or a checkpoint.

    Raises:
        InvalidInput: when they are incomplete or damaged.
    """
    return _validated(Settings, table)


def of_checkpoint(checkpoint: Checkpoint, path: Path) -> tuple[Settings, Position]:
    """Settings and position of the run that wrote a checkpoint.

    Raises:
        InvalidInput: when it holds weights only.
    """
    try:
        metadata = _validated(_Metadata, checkpoint.metadata)
    except InvalidInput as error:
        raise InvalidInput(
            f"{path}: expected a training run's checkpoint, got a file without its state ({error})"
        ) from error
    return metadata.run, metadata.position


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of one backend's run, without the unfinished last line that a killed process may leave."""
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
    """Write a JSON file, whole or not at all."""
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
    """The number of devices on each machine when the run began; it may go on with another number."""
    return int(json.loads((folder / CONFIG).read_text()).get("devices", 1))


def backend_folders(run: Path) -> dict[str, Path]:
    """The folders of a run's backends, in the order of `BACKENDS`."""
    return {name: run / name for name in BACKENDS if (run / name / CONFIG).is_file()}
