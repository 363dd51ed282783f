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
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

import spec
from harness.atomic import StrPath, write_atomically
from harness.backends.registry import BACKENDS
from harness.training.recipe import Recipe, validator
from harness.weights.checkpoint import CHECKPOINT as CHECKPOINT
from harness.weights.checkpoint import Checkpoint, read_metadata
from spec import InvalidInput

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
    weights: str = ""  # SHA-256 of the weights that it started from; empty: of the seed's

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
    losses: list[float] = field(default_factory=list)  # of each step since the last logged one
    lineage: list[dict[str, Any]] = field(default_factory=list)  # {"backend", "from_step"} of each backend that trained


@dataclass(frozen=True)
class _Metadata:
    """The metadata in the checkpoint of a training run."""

    run: Settings
    position: Position


@dataclass(frozen=True)
class _Step:
    """A line of ``metrics.jsonl`` about a logged step; a line may hold more."""

    kind: Literal["step"]
    step: int
    loss: float
    accuracy: float
    images_per_second: float | None
    seconds: float
    losses: list[float] = field(default_factory=list)  # earlier versions wrote none


@dataclass(frozen=True)
class _Epoch:
    """A line of ``metrics.jsonl`` about an epoch."""

    kind: Literal["epoch"]
    step: int
    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


_RECORD: TypeAdapter[_Step | _Epoch] = TypeAdapter(_Step | _Epoch)


@dataclass(frozen=True)
class _Beginning:
    """What ``config.json`` holds beside the settings."""

    devices: Annotated[int, Field(ge=1)] = 1


def _validated(kind: type[_Kind], content: str | bytes) -> _Kind:
    try:
        made: _Kind = validator(kind).validate_json(content)  # type: ignore[arg-type]  # a class is hashable
        return made
    except ValidationError as error:
        problems = [": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in error.errors()]
        raise InvalidInput("; ".join(problems)) from error


def settings_of(table: Any) -> Settings:
    """The settings in a ``config.json`` or a checkpoint.

    Raises:
        InvalidInput: when they are incomplete or damaged.
    """
    return _validated(Settings, json.dumps(table))


def of_checkpoint(checkpoint: Checkpoint, path: StrPath) -> tuple[Settings, Position]:
    """Settings and position of the run that wrote a checkpoint.

    Raises:
        InvalidInput: when it holds weights only.
    """
    path = Path(path)
    return _of_metadata(checkpoint.metadata, path)


def read_state(folder: StrPath) -> tuple[Settings, Position] | None:
    """Settings and position in the checkpoint of one backend's run; None where nothing has been saved yet.

    Raises:
        InvalidInput: when it is damaged.
    """
    folder = Path(folder)
    path = folder / CHECKPOINT
    return _of_metadata(read_metadata(path), path) if path.exists() else None


def _of_metadata(table: dict[str, Any], path: Path) -> tuple[Settings, Position]:
    try:
        metadata = _validated(_Metadata, json.dumps(table))
    except InvalidInput as error:
        raise InvalidInput(
            f"{path}: expected a training run's checkpoint, got a file without its state ({error})"
        ) from error
    return metadata.run, metadata.position


def read_metrics(folder: StrPath, damaged: list[str] | None = None) -> list[dict[str, Any]]:
    """The records of one backend's run, without the unfinished last line that a killed process may leave.

    Raises:
        InvalidInput: naming every line that is no record, unless `damaged` takes what would be said.
    """
    folder = Path(folder)
    path = folder / METRICS
    try:
        lines = path.read_text(errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    records, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            _RECORD.validate_json(line)
            records.append(json.loads(line))
        except ValueError:
            problems.append(f"{path}, line {number}: expected the record of a step or an epoch, got {line[:60]!r}")
    if problems and damaged is None:
        raise InvalidInput("\n".join(problems))
    if damaged is not None:
        damaged += problems
    return records


def is_past(record: dict[str, Any], position: Position) -> bool:
    """Whether a record is from before the checkpoint. The steps of the other records will be trained again."""
    if record["kind"] == "epoch":
        return bool(record["epoch"] <= position.evaluated)
    return bool(record["step"] <= position.step)


def write_json(path: StrPath, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    path = Path(path)
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def read_settings(folder: StrPath) -> Settings:
    """The settings of one backend's run.

    Raises:
        InvalidInput: when the folder is not one, or its ``config.json`` is damaged.
    """
    folder = Path(folder)
    return _read_config(folder, Settings)


def read_devices(folder: StrPath) -> int:
    """The number of devices on each machine when the run began; it may go on with another number.

    Raises:
        InvalidInput: as `read_settings`.
    """
    folder = Path(folder)
    return _read_config(folder, _Beginning).devices


def read_starts(folder: StrPath) -> list[dict[str, Any]]:
    """The entries about each start of one backend's run; none where there is no file yet.

    Raises:
        InvalidInput: when the file is damaged.
    """
    folder = Path(folder)
    try:
        return _read(folder / ENVIRONMENT, list[dict[str, Any]])
    except FileNotFoundError:
        return []


def _read_config(folder: Path, kind: type[_Kind]) -> _Kind:
    try:
        return _read(folder / CONFIG, kind)
    except FileNotFoundError:
        raise InvalidInput(f"{folder}: expected the folder of a run, with a {CONFIG}, and there is none") from None


def _read(path: Path, kind: type[_Kind]) -> _Kind:
    """The content of a JSON file of that kind."""
    try:
        return _validated(kind, path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    except InvalidInput as error:
        raise InvalidInput(f"{path}: damaged ({error}); restore it from a copy") from error


def is_begun(folder: StrPath) -> bool:
    """Whether a folder is one backend's run."""
    folder = Path(folder)
    return (folder / CONFIG).is_file() or (folder / CHECKPOINT).is_file()


def backend_folders(run: StrPath) -> dict[str, Path]:
    """The folders of a run's backends, in the order of `BACKENDS`."""
    run = Path(run)
    return {name: run / name for name in BACKENDS if is_begun(run / name)}
