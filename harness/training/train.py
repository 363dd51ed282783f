"""Training runs as the command sees them: make one, resume one, train the backends in turn, summarize."""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from harness.atomic import StrPath
from harness.backends.process import run_worker
from harness.backends.registry import BACKENDS, check_names
from harness.backends.team import processes, started_here
from harness.images.batches import open_dataset
from harness.shown import as_text, shown
from harness.training import runs
from harness.training.recipe import Recipe
from harness.training.runs import CHECKPOINT, CONFIG, Position, Settings
from harness.weights import checkpoint
from spec import Arrays, InvalidInput


@dataclass(frozen=True)
class Part:
    """One backend's share of a run."""

    backend: str
    folder: Path
    settings: Settings
    start: Path | None = None  # the folder of another backend whose checkpoint is to be used
    devices: int = 1  # devices that the run began with
    note: str | None = None  # what is to be said when it begins


@dataclass
class Result:
    """The results of one backend's part."""

    backend: str
    step: int = 0
    steps: int = 0
    complete: bool = False
    problem: str | None = None  # why it ended early without having been told to
    train_loss: float | None = None  # mean over the last epoch while it was trained
    train_accuracy: float | None = None
    test_loss: float | None = None  # after the last epoch
    test_accuracy: float | None = None
    images_per_second: float | None = None  # median over the logged steps
    seconds: float | None = None


class Listener(Protocol):
    """Takes the progress of a run."""

    def begin(self, part: Part) -> None:
        """A backend's process is being started."""

    def message(self, part: Part, message: dict[str, Any]) -> None:
        """The backend's process has sent a message of `harness.training.loop.train`."""

    def end(self, part: Part, result: Result) -> None:
        """The backend's process has ended."""


def create(run: StrPath, backends: Sequence[str], settings: Settings, params: Arrays | None = None) -> list[Part]:
    """Make the folder of a new run, with a subfolder for each backend.

    With `params` the run begins with them, in a checkpoint before the first step; else with those of the seed. Where
    several processes train together, each of them calls this, and the folders of the backends may exist already.

    Raises:
        InvalidInput: when the run exists already, or its folder cannot be made.
    """
    run = Path(run)
    check_names(list(backends))
    together = any(processes(name) > 1 for name in backends)
    if any((run / name / CHECKPOINT).exists() if together else (run / name).exists() for name in BACKENDS):
        raise InvalidInput(f"{run}: there is a run of that name; go on with --resume {run}, or take another")
    if together and params is not None:
        raise InvalidInput(
            "--weights: several processes cannot begin from a file together: run one with --steps 1, "
            "then all of them with --resume"
        )
    try:
        for name in backends:
            (run / name).mkdir(parents=True, exist_ok=together)
    except OSError as error:
        raise InvalidInput(f"{run}: cannot be made ({error.strerror})") from error
    for name in backends if not together else ():  # the first process will write it
        runs.write_json(run / name / CONFIG, {"backend": name, **settings.as_json()})
        if params is not None:
            state = settings.recipe.optimizer.begin_state(params)
            metadata = {"run": settings.as_json(), "position": asdict(Position())}
            checkpoint.save(run / name / CHECKPOINT, params, settings.config, metadata, state)
    return [Part(name, run / name, settings) for name in backends]


def discard(parts: Sequence[Part]) -> None:
    """Remove the folders of parts that were refused before they began, so that they can be used again."""
    for part in parts:
        if {path.name for path in part.folder.glob("*")} <= {CONFIG, CHECKPOINT, ".lock"}:
            shutil.rmtree(part.folder, ignore_errors=True)
        with suppress(OSError):  # something else is in it
            part.folder.parent.rmdir()


def default_name(recipe: str, data: str) -> Path:
    """``runs/d2l-fashion-mnist-20261122-093000``."""
    parts = [Path(recipe).stem, Path(data.removeprefix("folder:")).name or "data", f"{datetime.now():%Y%m%d-%H%M%S}"]
    return Path("runs", "-".join(parts))


def reopen(path: StrPath, backend: str | None) -> list[Part]:
    """The parts that go on: all backends of the run in `path`, or the one whose folder `path` is, or `backend`.

    If `backend` has no part in the run yet, it takes the checkpoint of the backend whose folder `path` is, or the only
    checkpoint in the run.

    Raises:
        InvalidInput: when there is no such run, the checkpoint is ambiguous, or a checkpoint would be lost.
    """
    path = Path(path)
    named = path.resolve().name if runs.is_begun(path) else None
    run = path.resolve().parent if named else path
    folders = runs.backend_folders(run)
    if not folders:
        raise InvalidInput(f"{path}: expected a run, a folder with pt, mx or jax in it; `googlenet runs` lists them")
    if backend is None:
        chosen = [named] if named else list(folders)
        return [_resumed(name, folders[name], folders[name]) for name in chosen]
    check_names([backend])
    if backend in folders and (named in (None, backend)):
        return [_resumed(backend, folders[backend], folders[backend])]
    if backend in folders and (folders[backend] / CHECKPOINT).exists():
        raise InvalidInput(
            f"{folders[backend]} has a checkpoint of its own, which would be lost: go on with it by --resume "
            f"{folders[backend]}, or copy {path} into a new run's folder and go on there"
        )
    sources = [named] if named else [name for name, folder in folders.items() if (folder / CHECKPOINT).exists()]
    if len(sources) != 1:
        names = ", ".join(str(folders[name]) for name in sources) or "none"
        raise InvalidInput(f"{run}: expected one checkpoint for {backend} to go on from, found {names}: name one")
    return [_resumed(backend, run / backend, folders[sources[0]])]


def _resumed(backend: str, folder: Path, start: Path) -> Part:
    """The part of a backend that goes on from the checkpoint in `start`, which holds the settings too."""
    note = None
    try:
        settings, devices = runs.read_settings(start), runs.read_devices(start)
    except InvalidInput as error:
        if (state := runs.read_state(start)) is None:
            raise
        settings, devices, note = state[0], 1, f"{error}; goes on with the settings in {CHECKPOINT}, on one device"
    return Part(backend, folder, settings, None if start == folder else start, devices, note)


def check_data(parts: Sequence[Part], dataset: StrPath) -> None:
    """Refuse to go on with other images than the run began with.

    Raises:
        InvalidInput: when the images are others.
    """
    dataset = Path(dataset)
    sha256 = open_dataset(dataset).sha256
    for part in parts:
        if sha256 != part.settings.data_sha256:
            raise InvalidInput(
                f"{part.folder}: trained on other images: {part.settings.data} had SHA-256 "
                f"{part.settings.data_sha256[:16]}…, and now has {sha256[:16]}…; bring the old ones back, "
                "or train anew if it is this version that reads the same pictures in another way (CHANGELOG.md)"
            )


def settings_for(recipe: Recipe, folder: StrPath, seed: int, dtype: str, device: str, weights: str = "") -> Settings:
    """The settings of a new run on the prepared dataset in a folder, from the weights of that SHA-256, if any.

    Raises:
        InvalidInput: when the recipe leaves out the only batch that there is, or the images' folder is no text.
    """
    folder = Path(folder)
    dataset = open_dataset(folder)
    if as_text(dataset.source) != dataset.source:
        raise InvalidInput(
            f"{shown(dataset.source)}: expected a name in UTF-8, which the run's files can hold; rename it"
        )
    if not recipe.steps_per_epoch(len(dataset.train)):
        raise InvalidInput(
            f"recipe: partial_batch is drop, and {len(dataset.train)} images are fewer than a batch of {recipe.batch}: "
            "take a smaller --batch, or partial_batch mean"
        )
    return Settings(
        recipe=recipe,
        data=dataset.source,
        data_sha256=dataset.sha256,
        classes=dataset.classes,
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        seed=seed,
        dtype=dtype,
        device=device,
        weights=weights,
    )


def train(
    parts: Sequence[Part],
    dataset: StrPath,
    listener: Listener,
    pythons: Mapping[str, str],
    stop_after: int | None = None,
    devices: int | None = None,
) -> list[Result]:
    """Train one backend after the other, each in a process of its own.

    After Ctrl-C or SIGTERM the current backend finishes its step and saves, and the others do not begin. Where
    several processes train together, only the first one returns results.

    Args:
        parts: The backends' parts.
        dataset: Folder of the prepared images.
        listener: Takes the progress.
        pythons: Interpreter by backend; the others run in this one.
        stop_after: Number of steps to stop after.
        devices: Number of devices of this machine; None for as many as the run began with.

    Raises:
        InvalidInput: when the first backend refuses; where others have trained, that is a problem in its result.
    """
    dataset = Path(dataset)
    results: list[Result] = []
    for part in parts:
        listener.begin(part)
        used = devices or started_here(part.backend) or part.devices
        task = {
            "kind": "train",
            "folder": str(part.folder.resolve()),
            "start": str(part.start.resolve()) if part.start else None,
            "settings": part.settings.as_json(),
            "dataset": str(dataset.resolve()),
            "stop_after": stop_after,
            "devices": used,
        }
        listen = partial(listener.message, part)
        answer = run_worker(part.backend, task, {}, pythons.get(part.backend, sys.executable), listen, used)
        if answer.refused is not None and not results:
            raise InvalidInput(answer.refused)
        if answer.facts.get("rank", 0) > 0:
            continue
        result = summarize(part.backend, part.folder, part.settings)
        result.problem = answer.crash or answer.refused or answer.facts.get("diverged")
        if result.problem is None:
            result.step, result.complete = answer.facts["step"], answer.facts["complete"]
            reached = stop_after is not None and result.step >= stop_after
            if not result.complete and not reached:
                result.problem = f"interrupted; go on with: googlenet train --resume {part.folder.parent}"
        listener.end(part, result)
        results.append(result)
        if result.problem is not None:
            break
    return results


def summarize(backend: str, folder: StrPath, settings: Settings) -> Result:
    """The results that a backend's run has saved: what its checkpoint says, and the records from before it.

    Raises:
        InvalidInput: when a file is damaged.
    """
    folder = Path(folder)
    _, position = runs.read_state(folder) or (settings, Position())
    records = [record for record in runs.read_metrics(folder) if runs.is_past(record, position)]
    steps = [record for record in records if record["kind"] == "step"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    complete = position.evaluated == settings.recipe.epochs
    result = Result(backend, position.step, settings.steps, complete)
    if records:
        result.seconds = records[-1]["seconds"]
    speeds = [record["images_per_second"] for record in steps if record["images_per_second"]]
    if speeds:
        result.images_per_second = statistics.median(speeds)
    if epochs:
        last = epochs[-1]
        for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            setattr(result, key, last[key])
    return result
