"""The training loop, in the process of a backend. It knows no framework: the steps are the backend's.

It waits for the device only to log, to report progress about once a second, and to save.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from filelock import FileLock, Timeout

import spec
from harness.atomic import write_atomically
from harness.backends.registry import Backend, processors
from harness.backends.team import Team, assemble
from harness.images.batches import Dataset, Split, open_dataset, pixel_table, training_batches, training_rows
from harness.training import runs
from harness.training.evaluate import evaluate
from harness.training.runs import CHECKPOINT, CONFIG, METRICS, Position, Settings, Tally
from harness.weights import checkpoint
from spec import Array

Record = dict[str, Any]
Tell = Callable[[dict[str, Any]], None]
LOG_EVERY = 10  # steps between two records
SAVE_EVERY = 60.0  # seconds between two checkpoints within an epoch
_PATIENCE = 200  # steps at the loss of guessing before a warning
_NEAR = 0.01  # share of the loss of guessing that still counts as that loss


class Diverged(Exception):
    """The loss is no longer a number."""


def train(
    package: Backend, backend: str, task: dict[str, Any], tell: Tell, stopped: Callable[[], bool]
) -> tuple[int, bool, int]:
    """Train in a run folder of a backend, from its checkpoint if it has one; save and stop when `stopped()` is true.

    Where several processes train together, each of them calls this. The first one evaluates, records and saves; the
    others do the same steps. Returns the number of steps done, whether the run is complete, and the rank of this
    process.

    Args:
        package: The backend.
        backend: Its short name.
        task: ``folder`` of the backend's run, ``settings``, ``dataset`` (folder), ``start`` (the folder of another
            backend to go on from, or None), ``stop_after`` steps or None, ``devices`` of this process (with PyTorch:
            of this machine).
        tell: Takes messages: ``event`` is ``start``, ``progress``, ``evaluating``, ``record``, ``saved``, ``warning``.
        stopped: Called after every step.

    Raises:
        spec.InvalidInput: when the folder is in use, a file in it is damaged, or something cannot be written; when
            there are too few devices, or they cannot share the batches.
        Diverged: when the loss is no longer a number.
    """
    with assemble(package, backend, task["settings"]["device"], task["devices"]) as team:
        stop = stopped if team.processes == 1 else lambda: team.any(stopped())
        if team.rank == 0:
            step, complete = _lead(team, backend, task, tell, stop)
        else:
            step, complete = open_run(team, backend, task, lambda message: None, stop).train()
        team.wait()  # the other processes stay until the first one has saved
        return step, complete, team.rank


def _lead(team: Team, backend: str, task: dict[str, Any], tell: Tell, stopped: Callable[[], bool]) -> tuple[int, bool]:
    """Train in the first process, which alone writes files."""
    folder = Path(task["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            run = open_run(team, backend, task, tell, stopped)
            _write_beginning(run, backend, task["devices"])
            with (folder / METRICS).open("a") as run.metrics:
                return run.train()
    except Timeout as error:
        raise spec.InvalidInput(f"{folder}: another process is training here; wait for it, or stop it") from error
    except OSError as error:
        raise spec.InvalidInput(
            f"{folder}: cannot be read or written ({error.strerror or error}); the last checkpoint is unchanged"
        ) from error


def open_run(team: Team, backend: str, task: dict[str, Any], tell: Tell, stopped: Callable[[], bool]) -> Run:
    """Read a run's files, build its model and load its state.

    Raises:
        spec.InvalidInput: as `train` does.
    """
    settings = runs.settings_of(task["settings"])
    config = settings.config
    start = Path(task["start"] or task["folder"])
    position = Position()
    records: list[Record] = []
    state = None
    if (start / CHECKPOINT).exists():
        saved = checkpoint.load(start / CHECKPOINT)
        saved_settings, position = runs.of_checkpoint(saved, start / CHECKPOINT)
        if saved_settings != settings:
            raise spec.InvalidInput(f"{start / CHECKPOINT}: written by a run with other settings than {CONFIG} has")
        params = saved.params
        state = saved.state
        damaged: list[str] = []
        records = [record for record in runs.read_metrics(start, damaged) if runs.is_past(record, position)]
        for problem in damaged:
            tell({"event": "warning", "text": f"{problem}; the line is left out"})
    else:
        params = spec.init_params(config, settings.seed, settings.recipe.init)
    stop_step = settings.steps if task["stop_after"] is None else min(settings.steps, task["stop_after"])
    _check_processes(team, settings, position, stop_step)
    model = team.build(config, dtype=settings.dtype, device=settings.device, params=params)
    optimizer = team.make_optimizer(model, settings.recipe.optimizer)
    if state is not None:
        team.package.load_optimizer(model, optimizer, state)
    if not position.lineage or position.lineage[-1]["backend"] != backend:
        position.lineage.append({"backend": backend, "from_step": position.step})
    dataset = open_dataset(Path(task["dataset"]))
    resident = None
    if fits_device(team, dataset.train, settings.device):
        table = pixel_table(**settings.normalization)
        resident = team.package.dataset_to_device(model, dataset.train.images, dataset.train.labels, table)
    folder = Path(task["folder"])
    return Run(team, folder, settings, dataset, model, optimizer, position, records, stop_step, tell, stopped, resident)


def fits_device(team: Team, split: Split, device: str) -> bool:
    """Whether the images are to live on the device, a single GPU: they take a quarter of its free memory at most."""
    free = team.package.free_memory(device) if team.devices == 1 else None
    return free is not None and 4 * split.images.nbytes <= free


def _check_processes(team: Team, settings: Settings, position: Position, stop_step: int) -> None:
    """Refuse batches that the devices cannot share, and processes that begin differently."""
    recipe = settings.recipe
    team.check(settings.config, recipe.batch, settings.last_batch, recipe.size)
    if not team.same(json.dumps([settings.as_json(), asdict(position), stop_step])):
        raise spec.InvalidInput(
            "the processes do not begin alike: run the same command on every machine, where each sees the same "
            f"data and, to go on, the same {CHECKPOINT}"
        )


def _write_beginning(run: Run, backend: str, devices: int) -> None:
    """Write the settings, the records up to the position, and an entry about this start."""
    runs.write_json(run.folder / CONFIG, {"backend": backend, "devices": devices, **run.settings.as_json()})
    write_atomically(run.folder / METRICS, "".join(json.dumps(record) + "\n" for record in run.records).encode())
    description = run.team.package.describe(run.settings.device)
    try:
        starts = runs.read_starts(run.folder)
    except spec.InvalidInput as error:
        run.tell({"event": "warning", "text": f"{error}; it begins anew"})
        starts = []
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "from_step": run.position.step,
        "framework": description.framework,
        "version": description.version,
        "device": description.device,
        "devices": run.team.devices,
        "processes": run.team.processes,
        "threads": description.threads,
        "processors": processors(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
    runs.write_json(run.folder / runs.ENVIRONMENT, [*starts, start])


class _Stopped(Exception):
    """The run is to stop in the middle of an evaluation."""


@dataclass
class Run:
    """A training run in this process.

    The first process has the file `metrics`: it evaluates, records and saves. The others have None: they do the same
    steps, call `stopped` as often, and wait for no result.
    """

    team: Team
    folder: Path
    settings: Settings
    dataset: Dataset
    model: Any
    optimizer: Any
    position: Position
    records: list[Record]  # those up to the position
    stop_step: int  # the step to stop after
    tell: Tell
    stopped: Callable[[], bool]
    resident: Callable[[Array], tuple[Any, Any]] | None = None  # where the dataset is on the device: a batch, by rows
    metrics: TextIO | None = None
    unread: list[tuple[spec.Step, int]] = field(default_factory=list)  # steps with results to read, and their images
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=_PATIENCE))  # of the latest steps
    stalled: bool = False
    # Since the last record or the start of this process: the time of steps before a pause is not known.
    images_done: int = 0  # images
    step_seconds: float = 0.0  # seconds spent on steps

    def __post_init__(self) -> None:
        self.saved_at = self.reported_at = time.monotonic()
        self.started_at = time.monotonic() - (self.records[-1]["seconds"] if self.records else 0.0)

    def train(self) -> tuple[int, bool]:
        """Train until the end, or until told to stop; returns the steps done, and whether the run is complete."""
        position = self.position
        settings = self.settings
        self.tell({"event": "start", "step": position.step, "steps": settings.steps, "records": self.records})
        if position.step < self.stop_step:
            self._save()  # a disk that has no room for a checkpoint says so before an epoch is spent
        while True:
            stopping = self.stopped() or position.step >= self.stop_step < settings.steps
            if not stopping and position.step == (position.evaluated + 1) * settings.steps_per_epoch:
                with suppress(_Stopped):  # it will be evaluated when the run goes on
                    self._end_epoch()
            elif stopping or position.step == settings.steps:
                self._save()
                return position.step, position.evaluated == settings.recipe.epochs
            else:
                self._epoch()

    def _epoch(self) -> None:
        """Train to the end of the epoch, or until told to stop."""
        settings = self.settings
        recipe = settings.recipe
        per_epoch = settings.steps_per_epoch
        position = self.position
        epoch, first = divmod(position.step, per_epoch)
        dataset = self.dataset.train
        batches = self._batches(epoch, first)
        compute = self.team.train_step if self.resident is None else self.team.update
        shape = dataset.images.shape[1:]
        begun = time.monotonic()
        try:
            for images, labels in islice(batches, per_epoch - first):  # a smaller one may be left out
                count = len(labels)
                masks = spec.dropout_masks(settings.config, (count, *shape), settings.seed, position.step)
                self.team.package.set_rate(self.optimizer, recipe.rate(position.step, per_epoch))
                scale = recipe.gradient_scale(count)
                step = compute(self.model, self.optimizer, images, labels, masks, scale)
                self.unread.append((step, count))
                position.step += 1
                now = time.monotonic()
                due = position.step % LOG_EVERY == 0
                if due or now - self.reported_at > 1:
                    self._collect()
                    now = time.monotonic()
                self.step_seconds += now - begun
                begun = now
                if due:
                    self._record_step(epoch + 1)
                if self.stopped() or position.step >= self.stop_step:
                    break
                if now - self.saved_at >= SAVE_EVERY and position.step % per_epoch:
                    self._save()
                    begun = time.monotonic()
        finally:
            batches.close()
        self._collect()

    def _batches(self, epoch: int, first: int) -> Generator[tuple[Any, Any], None, None]:
        """The batches of an epoch from that one on: on the device where the dataset lives there, else NumPy's."""
        settings, dataset = self.settings, self.dataset.train
        order: dict[str, Any] = {"seed": settings.seed, "epoch": epoch, "first": first}
        if self.resident is None:
            return training_batches(dataset, settings.recipe.batch, **order, **settings.normalization)
        return (self.resident(rows) for rows in training_rows(len(dataset), settings.recipe.batch, **order))

    def _collect(self) -> None:
        """Read the results of the steps so far, which waits for the device, and tell the progress."""
        if self.metrics is None:
            self.unread.clear()
            return
        position = self.position
        before = position.step - len(self.unread)
        for number, (step, images) in enumerate(self.unread, before + 1):
            loss = float(step.loss)
            correct = int(step.correct)
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} after step {number}: the run has diverged. The last checkpoint is kept. "
                    "Try a smaller rate, optimizer.clip_norm, or a schedule that starts low (one-cycle)"
                )
            position.epoch.add(loss, correct, images)
            position.logged.add(loss, correct, images)
            position.losses.append(loss)
            self.images_done += images
            self.losses.append(loss)
        self.unread.clear()
        self._warn_if_guessing()
        if position.epoch.seen:
            loss, accuracy = position.epoch.means()
            self.tell({"event": "progress", "step": position.step, "loss": loss, "accuracy": accuracy})
        self.reported_at = time.monotonic()

    def _warn_if_guessing(self) -> None:
        """Warn once when the mean loss of 200 steps is within 1 % of that of guessing: GoogLeNet may stall there."""
        if len(self.losses) < _PATIENCE:
            return
        mean = sum(self.losses) / _PATIENCE
        config = self.settings.config
        guessing = math.log(config.num_classes) * sum(spec.loss_weights(config).values())
        warned = self.stalled
        self.stalled = abs(mean - guessing) < _NEAR * guessing
        if self.stalled and not warned:
            text = (
                f"step {self.position.step}: the mean loss of the last {_PATIENCE} steps is {mean:.4f}, and "
                f"guessing has {guessing:.4f}: the network may be stuck. It often leaves this plateau by itself; "
                "if not, try init = 'he', another rate, adam instead of sgd, a one-cycle schedule, or batch norm "
                "(preset torchvision)"
            )
            self.tell({"event": "warning", "text": text})

    def _record_step(self, epoch: int) -> None:
        if self.metrics is not None:
            position = self.position
            loss, accuracy = position.logged.means()
            rate = self.settings.recipe.rate(position.step - 1, self.settings.steps_per_epoch)
            speed = self.images_done / self.step_seconds if self.step_seconds else None
            self._record(
                "step",
                epoch=epoch,
                loss=loss,
                accuracy=accuracy,
                rate=rate,
                images_per_second=speed,
                losses=position.losses,
            )
            position.logged = Tally()
            position.losses = []
        self.images_done = 0
        self.step_seconds = 0.0

    def _end_epoch(self) -> None:
        """Evaluate on the test images, record, save."""
        position = self.position
        test_scores = self._evaluate()
        position.evaluated += 1
        if self.metrics is not None:
            loss, accuracy = position.epoch.means()
            self._record("epoch", epoch=position.evaluated, train_loss=loss, train_accuracy=accuracy, **test_scores)
        position.epoch = Tally()
        self._save()

    def _evaluate(self) -> dict[str, Any]:
        """The scores on the test images. The other processes have none, but call `stopped` as often."""
        settings = self.settings
        images = len(self.dataset.test)
        batch = settings.recipe.batch
        if self.metrics is None:
            for first in range(0, images, batch):
                self._evaluated(min(first + batch, images))
            return {}
        scores = evaluate(
            self.team,
            self._evaluated_model(),
            self.dataset.test,
            batch=batch,
            classes=settings.config.num_classes,
            done=self._evaluated,
            **settings.normalization,
        )
        averaged = {} if settings.recipe.optimizer.average is None else {"averaged": True}
        return {"test_loss": scores.loss, "test_accuracy": scores.accuracy, **averaged}

    def _evaluated_model(self) -> Any:
        """The model, or one of its averages, where the optimizer keeps them."""
        settings = self.settings
        if settings.recipe.optimizer.average is None:
            return self.model
        package = self.team.package
        state = package.dump_optimizer(self.model, self.optimizer)
        params = checkpoint.averaged(package.dump_params(self.model), state)
        return package.build(settings.config, settings.dtype, settings.device, params=params)

    def _evaluated(self, images: int) -> None:
        if self.stopped():
            raise _Stopped
        self.tell({"event": "evaluating", "images": images, "of": len(self.dataset.test)})

    def _record(self, kind: str, **values: Any) -> None:
        seconds = round(time.monotonic() - self.started_at, 3)
        record = {"kind": kind, "step": self.position.step, **values, "seconds": seconds}
        if self.metrics is not None:
            self.metrics.write(json.dumps(record) + "\n")
            self.metrics.flush()
            self.tell({"event": "record", "record": record})

    def _save(self) -> None:
        """Write the checkpoint, after the records that belong to it."""
        if self.metrics is not None:
            self._collect()
            os.fsync(self.metrics.fileno())
            params = self.team.package.dump_params(self.model)
            state = self.team.package.dump_optimizer(self.model, self.optimizer)
            metadata = {"run": self.settings.as_json(), "position": asdict(self.position)}
            checkpoint.save(self.folder / CHECKPOINT, params, self.settings.config, metadata, state)
            self.tell({"event": "saved", "step": self.position.step})
        self.saved_at = time.monotonic()
