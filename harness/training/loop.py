"""The training loop, in the process of a backend: batches, rates, records, checkpoints. It knows no framework.

The steps themselves are the backend's (`train_step`); here is what is the same for all. Nothing waits for the device
but a record and a checkpoint.
"""

from __future__ import annotations

import io
import json
import math
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from filelock import FileLock, Timeout

import spec
from harness.atomic import write_atomically
from harness.backends.registry import Backend, processors
from harness.backends.team import Team, assemble
from harness.images.batches import Dataset, open_dataset, training_batches
from harness.training.evaluate import evaluate
from harness.training.runs import (
    CHECKPOINT,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    Position,
    Settings,
    Tally,
    of_checkpoint,
    read_metrics,
    settings_of,
    write_json,
)
from harness.weights import checkpoint

Tell = Callable[[dict[str, Any]], None]
_PATIENCE = 200  # steps at the loss of guessing before that is said
_NEAR = 0.01  # of that loss


class Diverged(Exception):
    """The loss is no longer a number."""


def train(
    package: Backend, backend: str, task: dict[str, Any], tell: Tell, stopped: Callable[[], bool]
) -> tuple[int, bool, int]:
    """Train in a run folder of a backend, from its checkpoint if it has one.

    Where several processes train together, each of them calls this. The first one evaluates, records and saves; the
    others do the same steps.

    Args:
        package: The backend.
        backend: Its short name.
        task: ``folder`` of the backend's run, ``settings``, ``dataset`` (folder), ``start`` (the folder of another
            backend to go on from, or None), ``log_every`` steps, ``save_every`` seconds, ``stop_after`` steps or None,
            ``devices`` (of this process, or with PyTorch of this machine).
        tell: Takes messages on the way: the ``event`` is ``start``, ``progress``, ``evaluating``, ``record``,
            ``saved`` or ``warning``.
        stopped: Whether to stop, saving, after the step at hand.

    Returns:
        The number of steps done, whether the run is complete, and this process's rank among those that train.

    Raises:
        spec.InvalidInput: when the folder is in use, a file in it is damaged, or something cannot be written; when
            there are not so many devices, or they cannot share the batches.
        Diverged: when the loss is no longer a number.
    """
    folder = Path(task["folder"])
    with assemble(package, backend, task["settings"]["device"], task["devices"]) as team:
        stop = stopped if team.processes == 1 else lambda: team.any(stopped())
        if team.rank == 0:
            step, complete = _lead(team, backend, folder, task, tell, stop)
        else:
            step, complete = _Follower(team, backend, folder, task, lambda message: None, stop).run()
        team.any(False)  # the others stay until the first one has saved
        return step, complete, team.rank


def _lead(
    team: Team, backend: str, folder: Path, task: dict[str, Any], tell: Tell, stopped: Callable[[], bool]
) -> tuple[int, bool]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            return _Loop(team, backend, folder, task, tell, stopped).run()
    except Timeout as error:
        raise spec.InvalidInput(f"{folder}: another process is training here; wait for it, or stop it") from error
    except OSError as error:
        raise spec.InvalidInput(
            f"{folder}: cannot be read or written ({error.strerror or error}); the last checkpoint is unchanged"
        ) from error


class _Stopped(Exception):
    """Told to stop in the middle of an evaluation."""


class _Loop:
    """One backend's run: model, optimizer, position."""

    def __init__(
        self,
        team: Team,
        backend: str,
        folder: Path,
        task: dict[str, Any],
        tell: Tell,
        stopped: Callable[[], bool],
    ) -> None:
        self.team, self.folder, self.tell, self.stopped = team, folder, tell, stopped
        self.log_every, self.save_every = task["log_every"], task["save_every"]
        self.settings: Settings = settings_of(task["settings"])
        self.steps = self.settings.steps
        self.last = self.steps if task["stop_after"] is None else min(self.steps, task["stop_after"])
        self.dataset: Dataset = open_dataset(Path(task["dataset"]))
        self.config = self.settings.config
        start = Path(task["start"]) if task["start"] else folder
        self.position, records = Position(), []
        state = None
        if (start / CHECKPOINT).exists():
            found = checkpoint.load(start / CHECKPOINT)
            settings, self.position = of_checkpoint(found, start / CHECKPOINT)
            if settings != self.settings:
                raise spec.InvalidInput(f"{start / CHECKPOINT}: written by a run with other settings than {CONFIG} has")
            params, state = found.params, found.state
            records = [record for record in read_metrics(start) if self._is_past(record)]
        else:
            params = spec.init_params(self.config, self.settings.seed, self.settings.recipe.init)
        self._agree()
        where = {"dtype": self.settings.dtype, "device": self.settings.device}
        self.model = team.build(self.config, **where, params=params)
        self.optimizer = team.make_optimizer(self.model, self.settings.recipe.optimizer)
        if state is not None:
            team.package.load_optimizer(self.model, self.optimizer, state)
        if not self.position.lineage or self.position.lineage[-1]["backend"] != backend:
            self.position.lineage.append({"backend": backend, "from_step": self.position.step})
        self.metrics = self._write_beginning(backend, records, task["devices"])
        self.waiting: list[tuple[spec.Step, int]] = []  # steps whose results have not been asked for, and their images
        self.recent: deque[float] = deque(maxlen=_PATIENCE)
        self.stalled = False
        self.guessing = math.log(self.config.num_classes) * sum(spec.loss_weights(self.config).values())
        self.saved = self.told = time.monotonic()
        self.started = time.monotonic() - (records[-1]["seconds"] if records else 0.0)
        # Since the last logged step, or since the start: a run that goes on does not know how long the rest took.
        self.worked, self.working = 0, 0.0  # images, seconds spent on steps
        tell({"event": "start", "step": self.position.step, "steps": self.steps, "records": records})

    def _agree(self) -> None:
        """Make sure that the devices can share the batches, and that all processes begin alike."""
        recipe, images = self.settings.recipe, self.settings.train_images
        self.team.check(self.config, recipe.batch, images % recipe.batch or recipe.batch, recipe.size)
        if not self.team.same(json.dumps([self.settings.as_json(), self.position.as_json(), self.last])):
            raise spec.InvalidInput(
                "the processes do not begin alike: run the same command on every machine, where each sees the same "
                f"data and, to go on, the same {CHECKPOINT}"
            )

    def _is_past(self, record: dict[str, Any]) -> bool:
        """Whether a record is from before the checkpoint; what came after it will be trained again."""
        if record["kind"] == "epoch":
            return bool(record["epoch"] <= self.position.evaluated)
        return bool(record["step"] <= self.position.step)

    def _write_beginning(self, backend: str, records: list[dict[str, Any]], devices: int) -> TextIO:
        """Returns the file of the records, open at its end."""
        write_json(self.folder / CONFIG, {"backend": backend, "devices": devices, **self.settings.as_json()})
        metrics = self.folder / METRICS
        write_atomically(metrics, "".join(json.dumps(record) + "\n" for record in records).encode())
        description = self.team.package.describe(self.settings.device)
        path = self.folder / ENVIRONMENT
        starts = json.loads(path.read_text()) if path.exists() else []
        start = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "from_step": self.position.step,
            "framework": description.framework,
            "version": description.version,
            "device": description.device,
            "devices": self.team.devices,
            "processes": self.team.processes,
            "threads": description.threads,
            "processors": processors(),
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.platform(),
        }
        write_json(path, [*starts, start])
        return metrics.open("a")

    def run(self) -> tuple[int, bool]:
        """Train until the end, or until told to stop; returns the steps done, and whether this is the end."""
        with self.metrics:
            while True:
                position, per_epoch = self.position, self.settings.steps_per_epoch
                stopping = self.stopped() or position.step >= self.last < self.steps
                if not stopping and position.step == (position.evaluated + 1) * per_epoch:
                    with suppress(_Stopped):  # it will be evaluated when the run goes on
                        self._end_epoch()
                elif stopping or position.step == self.steps:
                    self._save()
                    return position.step, position.evaluated == self.settings.recipe.epochs
                else:
                    self._epoch()

    def _epoch(self) -> None:
        """Train to the end of the epoch, or until told to stop."""
        settings, position = self.settings, self.position
        recipe, per_epoch = settings.recipe, settings.steps_per_epoch
        epoch, first = divmod(position.step, per_epoch)
        batches = training_batches(
            self.dataset.train,
            recipe.batch,
            seed=settings.seed,
            epoch=epoch,
            first=first,
            dtype=settings.dtype,
            mean=recipe.mean,
            std=recipe.std,
        )
        begun = time.monotonic()
        try:
            for images, labels in batches:
                masks = spec.dropout_masks(self.config, images.shape, settings.seed, position.step)
                self.team.package.set_rate(self.optimizer, recipe.rate(position.step, per_epoch))
                step = self.team.train_step(self.model, self.optimizer, images, labels, masks)
                self.waiting.append((step, len(images)))
                position.step += 1
                now = time.monotonic()
                due = position.step % self.log_every == 0
                if due or now - self.told > 1:
                    self._collect()
                    now = time.monotonic()
                self.working += now - begun
                begun = now
                if due:
                    self._record_step(epoch + 1)
                if self.stopped() or position.step >= self.last:
                    break
                if now - self.saved >= self.save_every and position.step % per_epoch:
                    self._save()
                    begun = time.monotonic()
        finally:
            batches.close()
        self._collect()

    def _collect(self) -> None:
        """Ask for the results of the steps so far, which waits for the device, and tell how it goes."""
        position = self.position
        before = position.step - len(self.waiting)
        for number, (step, images) in enumerate(self.waiting, before + 1):
            loss, correct = float(step.loss), int(step.correct)
            if not math.isfinite(loss):
                raise Diverged(
                    f"the loss is {loss} after step {number}: the run has diverged. The last checkpoint is kept. "
                    "Try a smaller rate, optimizer.clip_norm, or a schedule that starts low (one-cycle)"
                )
            position.epoch.add(loss, correct, images)
            position.logged.add(loss, correct, images)
            self.worked += images
            self.recent.append(loss)
        self.waiting.clear()
        self._notice_guessing()
        if position.epoch.seen:
            loss, accuracy = position.epoch.means()
            self.tell({"event": "progress", "step": position.step, "loss": loss, "accuracy": accuracy})
        self.told = time.monotonic()

    def _notice_guessing(self) -> None:
        """Say so, once, when the loss has stayed at that of equal odds: plain GoogLeNet is known to stall there."""
        if len(self.recent) < _PATIENCE:
            return
        mean = sum(self.recent) / _PATIENCE
        known, self.stalled = self.stalled, abs(mean - self.guessing) < _NEAR * self.guessing
        if self.stalled and not known:
            text = (
                f"step {self.position.step}: the mean loss of the last {_PATIENCE} steps is {mean:.4f}, and guessing "
                f"has {self.guessing:.4f}: the network may be stuck. It often leaves this plateau by itself; if not, "
                "try init = 'he', another rate, adam instead of sgd, a one-cycle schedule, or batch norm "
                "(preset torchvision)"
            )
            self.tell({"event": "warning", "text": text})

    def _record_step(self, epoch: int) -> None:
        position, recipe = self.position, self.settings.recipe
        loss, accuracy = position.logged.means()
        rate = recipe.rate(position.step - 1, self.settings.steps_per_epoch)
        speed = self.worked / self.working if self.working else None
        record = {"kind": "step", "epoch": epoch, "loss": loss, "accuracy": accuracy, "rate": rate}
        self._record(record | {"images_per_second": speed})
        position.logged, self.worked, self.working = Tally(), 0, 0.0

    def _end_epoch(self) -> None:
        """Evaluate on the test images, record, save."""
        position = self.position
        found = self._evaluate()
        position.evaluated += 1
        self._record({"kind": "epoch", "epoch": position.evaluated, **found})
        position.epoch = Tally()
        self._save()

    def _evaluate(self) -> dict[str, float]:
        """The epoch's means, and those over the test images."""
        recipe = self.settings.recipe
        scores = evaluate(
            self.team,
            self.model,
            self.dataset.test,
            batch=recipe.batch,
            classes=self.config.num_classes,
            dtype=self.settings.dtype,
            mean=recipe.mean,
            std=recipe.std,
            done=self._evaluated,
        )
        loss, accuracy = self.position.epoch.means()
        found = {"train_loss": loss, "train_accuracy": accuracy}
        return found | {"test_loss": scores.loss, "test_accuracy": scores.accuracy}

    def _evaluated(self, images: int) -> None:
        if self.stopped():
            raise _Stopped
        self.tell({"event": "evaluating", "images": images, "of": len(self.dataset.test)})

    def _record(self, record: dict[str, Any]) -> None:
        seconds = round(time.monotonic() - self.started, 3)
        record = {"kind": record.pop("kind"), "step": self.position.step, **record, "seconds": seconds}
        self.metrics.write(json.dumps(record) + "\n")
        self.metrics.flush()
        self.tell({"event": "record", "record": record})

    def _save(self) -> None:
        """Write the checkpoint, after the records that belong to it."""
        self._collect()
        os.fsync(self.metrics.fileno())
        params = self.team.package.dump_params(self.model)
        state = self.team.package.dump_optimizer(self.model, self.optimizer)
        metadata = {"run": self.settings.as_json(), "position": self.position.as_json()}
        checkpoint.save(self.folder / CHECKPOINT, params, self.config, metadata, state)
        self.saved = time.monotonic()
        self.tell({"event": "saved", "step": self.position.step})


class _Follower(_Loop):
    """Another process of the run: it does the same steps, and waits while the first one evaluates and saves."""

    def _write_beginning(self, backend: str, records: list[dict[str, Any]], devices: int) -> TextIO:
        return io.StringIO()

    def _collect(self) -> None:
        self.waiting.clear()

    def _record_step(self, epoch: int) -> None:
        pass

    def _evaluate(self) -> dict[str, float]:
        images, batch = len(self.dataset.test), self.settings.recipe.batch
        for first in range(0, images, batch):
            self._evaluated(min(first + batch, images))
        return {}

    def _save(self) -> None:
        self.saved = time.monotonic()
