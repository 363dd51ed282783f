"""Training runs from outside: making them, going on with them, one backend after the other, and what came of it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from harness.backends.process import run_worker
from harness.backends.registry import check_names
from harness.backends.team import processes, started_here
from harness.images.batches import open_dataset
from harness.training.recipe import Recipe
from harness.training.runs import (
    CHECKPOINT,
    CONFIG,
    Settings,
    backend_folders,
    read_devices,
    read_metrics,
    read_settings,
    write_json,
)
from spec import InvalidInput


@dataclass(frozen=True)
class Part:
    """What one backend does in a run."""

    backend: str
    folder: Path
    settings: Settings
    start: Path | None = None  # the folder of another backend, whose checkpoint it goes on from
    devices: int = 1  # that it began with


@dataclass(frozen=True)
class Options:
    """How to run, without influence on the results."""

    log_every: int = 10  # steps
    save_every: float = 60.0  # seconds
    stop_after: int | None = None  # steps
    devices: int | None = None  # of this machine; None for as many as the run began with


@dataclass
class Result:
    """What came of one backend's part."""

    backend: str
    step: int = 0
    steps: int = 0
    complete: bool = False
    problem: str | None = None  # why it ended early, if not because it was told to
    train_loss: float | None = None  # of the last epoch, while it was trained
    train_accuracy: float | None = None
    test_loss: float | None = None  # after the last epoch
    test_accuracy: float | None = None
    images_per_second: float | None = None  # median over the logged steps
    seconds: float | None = None


class Listener(Protocol):
    """Who is told how it goes."""

    def begin(self, part: Part) -> None:
        """A backend's process is being started."""

    def message(self, part: Part, message: dict[str, Any]) -> None:
        """As `harness.training.loop.train` tells it."""

    def end(self, part: Part, result: Result) -> None:
        """That backend's process has ended."""


def create(run: Path, backends: Sequence[str], settings: Settings) -> list[Part]:
    """Make the folder of a new run, with a subfolder for each backend.

    Where several processes train together, each of them does so, and the folder may be there already.

    Raises:
        InvalidInput: when the folder is there already, or cannot be made.
    """
    check_names(list(backends))
    together = any(processes(name) > 1 for name in backends)
    try:
        run.mkdir(parents=True, exist_ok=together)
        for name in backends:
            (run / name).mkdir(exist_ok=together)
            if (run / name / CHECKPOINT).exists():
                raise FileExistsError
    except FileExistsError:
        raise InvalidInput(f"{run}: there is a run of that name; go on with --resume {run}, or take another") from None
    except OSError as error:
        raise InvalidInput(f"{run}: cannot be made ({error.strerror})") from error
    for name in backends if not together else ():  # the first process will write it
        write_json(run / name / CONFIG, {"backend": name, **settings.as_json()})
    return [Part(name, run / name, settings) for name in backends]


def default_name(recipe: str, data: str) -> Path:
    """``runs/d2l-fashion-mnist-20261122-093000``."""
    parts = [Path(recipe).stem, Path(data.removeprefix("folder:")).name or "data", f"{datetime.now():%Y%m%d-%H%M%S}"]
    return Path("runs", "-".join(parts))


def reopen(path: Path, backend: str | None) -> list[Part]:
    """What is to be done to go on with a run.

    Args:
        path: Of a run (then all its backends go on), or of one of its backends.
        backend: Go on with this one. If it has no part in the run yet, it takes the checkpoint of the backend that
            `path` names, or of the only one there is.

    Raises:
        InvalidInput: when there is no such run, or several checkpoints to choose from, or one that would be lost.
    """
    named = path.resolve().name if (path / CONFIG).is_file() else None
    run = path.resolve().parent if named else path
    folders = backend_folders(run)
    if not folders:
        raise InvalidInput(f"{path}: expected a run, a folder with pt, mx or jax in it; `googlenet runs` lists them")
    if backend is None:
        chosen = [named] if named else list(folders)
        return [_going_on(name, folders[name], folders[name]) for name in chosen]
    check_names([backend])
    if backend in folders and (named in (None, backend)):
        return [_going_on(backend, folders[backend], folders[backend])]
    if backend in folders and (folders[backend] / CHECKPOINT).exists():
        raise InvalidInput(
            f"{folders[backend]} has a checkpoint of its own, which would be lost: go on with it by --resume "
            f"{folders[backend]}, or copy {path} into a new run's folder and go on there"
        )
    sources = [named] if named else [name for name, folder in folders.items() if (folder / CHECKPOINT).exists()]
    if len(sources) != 1:
        found = ", ".join(str(folders[name]) for name in sources) or "none"
        raise InvalidInput(f"{run}: expected one checkpoint for {backend} to go on from, found {found}: name one")
    start = folders[sources[0]]
    return [_going_on(backend, run / backend, start)]


def _going_on(backend: str, folder: Path, start: Path) -> Part:
    """A part that goes on from a folder, its own or another."""
    return Part(backend, folder, read_settings(start), None if start == folder else start, read_devices(start))


def check_data(parts: Sequence[Part], dataset: Path) -> None:
    """Make sure that a run goes on with the images that it began with.

    Raises:
        InvalidInput: when they are others.
    """
    found = open_dataset(dataset)
    for part in parts:
        if found.sha256 != part.settings.data_sha256:
            raise InvalidInput(
                f"{part.folder}: trained on other images: {part.settings.data} had SHA-256 "
                f"{part.settings.data_sha256[:16]}…, and now has {found.sha256[:16]}…; bring the old ones back"
            )


def settings_for(recipe: Recipe, dataset: Path, seed: int, dtype: str, device: str) -> Settings:
    """The settings of a new run on a prepared dataset."""
    found = open_dataset(dataset)
    return Settings(
        recipe=recipe,
        data=found.source,
        data_sha256=found.sha256,
        classes=found.classes,
        train_images=len(found.train),
        test_images=len(found.test),
        seed=seed,
        dtype=dtype,
        device=device,
    )


def train(
    parts: Sequence[Part],
    dataset: Path,
    options: Options,
    listener: Listener,
    pythons: Mapping[str, str],
) -> list[Result]:
    """Train one backend after the other, each in a process of its own.

    After Ctrl-C, or SIGTERM, the backend at work finishes its step and saves, and the others do not begin. Where
    several processes train together, the results are the first one's.

    Raises:
        InvalidInput: when a backend refuses.
    """
    results = []
    for part in parts:
        listener.begin(part)
        devices = options.devices or started_here(part.backend) or part.devices
        task = {
            "kind": "train",
            "folder": str(part.folder.resolve()),
            "start": str(part.start.resolve()) if part.start else None,
            "settings": part.settings.as_json(),
            "dataset": str(dataset.resolve()),
            "log_every": options.log_every,
            "save_every": options.save_every,
            "stop_after": options.stop_after,
            "devices": devices,
        }
        listen = partial(listener.message, part)
        answer = run_worker(part.backend, task, {}, pythons.get(part.backend, sys.executable), listen, devices)
        if answer.refused is not None:
            raise InvalidInput(answer.refused)
        if answer.facts.get("rank", 0) > 0:
            continue
        result = summarize(part.backend, part.folder, part.settings)
        result.problem = answer.crash or answer.facts.get("diverged")
        if result.problem is None:
            result.step, result.complete = answer.facts["step"], answer.facts["complete"]
            asked = options.stop_after is not None and result.step >= options.stop_after
            if not result.complete and not asked:
                result.problem = f"interrupted; go on with: googlenet train --resume {part.folder.parent}"
        listener.end(part, result)
        results.append(result)
        if result.problem is not None:
            break
    return results


def summarize(backend: str, folder: Path, settings: Settings) -> Result:
    """What a backend's records say."""
    records = read_metrics(folder)
    steps = [record for record in records if record["kind"] == "step"]
    epochs = [record for record in records if record["kind"] == "epoch"]
    result = Result(backend, steps=settings.steps)
    if records:
        result.step, result.seconds = records[-1]["step"], records[-1]["seconds"]
    speeds = [record["images_per_second"] for record in steps if record["images_per_second"]]
    if speeds:
        result.images_per_second = statistics.median(speeds)
    if epochs:
        last = epochs[-1]
        result.train_loss, result.train_accuracy = last["train_loss"], last["train_accuracy"]
        result.test_loss, result.test_accuracy = last["test_loss"], last["test_accuracy"]
        result.complete = last["epoch"] == settings.recipe.epochs
    return result
