"""Training runs in the terminal: a bar, warnings and tables; and the figures of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.atomic import StrPath
from harness.screen import cell, new_table, print_table, say
from harness.shown import shown
from harness.training.apart import losses_apart, step_losses
from harness.training.curves import Events, draw_curves
from harness.training.runs import CURVES, Settings, backend_folders, read_metrics, read_settings
from harness.training.train import Part, Result, summarize
from spec import Array, InvalidInput
from spec.tolerances import TOLERANCES

_SILENCE = 60.0  # seconds between two lines off a terminal


class Screen:
    """Shows the progress of runs (`harness.training.train.Listener`): a bar on a terminal, else a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.events: Events | None = None
        self.speed = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Give the terminal back, and close the file of a part that has not ended in order."""
        self.progress.stop()
        if self.events is not None:
            self.events.close()
            self.events = None

    def begin(self, part: Part) -> None:
        self.speed = ""
        self.told = time.monotonic()
        self.task = self.progress.add_task(part.backend, total=part.settings.steps, state="starting")
        self.progress.start()
        if part.note is not None:
            say(self.console, f"{part.backend}: {part.note}", "yellow")
        if not self.console.is_terminal:
            say(self.console, f"{part.backend}: starting in {shown(part.folder)}")

    def message(self, part: Part, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "start":
            self.events = Events(part.folder, message["records"])
            self.progress.reset(self.task, total=message["steps"], completed=message["step"])
        elif event == "progress":
            state = f"loss {message['loss']:.4f}  accuracy {message['accuracy']:.3f}{self.speed}"
            self.progress.update(self.task, completed=message["step"], state=state)
            if not self.console.is_terminal and time.monotonic() - self.told >= _SILENCE:
                self.told = time.monotonic()
                say(self.console, f"{part.backend}: step {message['step']:,} of {part.settings.steps:,}: {state}")
        elif event == "evaluating":
            self.progress.update(self.task, state=f"evaluating {message['images']:,} of {message['of']:,}")
        elif event == "warning":
            say(self.console, f"{part.backend}: {message['text']}", "yellow")
        elif event == "record":
            record = message["record"]
            if self.events is not None:
                self.events.add(record)
            if record["kind"] == "epoch":
                self.told = time.monotonic()
                say(self.console, f"{part.backend}: {_epoch(record)}")
            elif record["images_per_second"]:
                self.speed = f"  {record['images_per_second']:.0f} images/s"

    def end(self, part: Part, result: Result) -> None:
        self.__exit__()
        self.progress.remove_task(self.task)
        if result.problem:
            say(self.console, f"{part.backend}: {result.problem}", "red")
        try:
            if records := read_metrics(part.folder):
                draw_curves({part.backend: records}, part.folder / CURVES, _title(part.settings))
        except InvalidInput as error:  # the other backends are still to be trained
            say(self.console, f"{part.backend}: {error}", "red")


def _epoch(record: Mapping[str, Any]) -> str:
    whose = ", of the averaged weights" if record.get("averaged") else ""
    return (
        f"epoch {record['epoch']}: train loss {record['train_loss']:.4f}, accuracy {record['train_accuracy']:.4f}; "
        f"test loss {record['test_loss']:.4f}, accuracy {record['test_accuracy']:.4f}{whose}; {record['seconds']:.0f} s"
    )


def _title(settings: Settings) -> str:
    recipe = settings.recipe
    images = f"{shown(settings.data)}, {recipe.size} x {recipe.size}"
    return f"{recipe.preset} on {images}, batch {recipe.batch}, {settings.dtype}, seed {settings.seed}"


def draw_run(run: StrPath) -> list[str]:
    """Draw the curves of all backends of a run into one figure; returns what `draw_curves` has to say.

    A run without records has no figure.
    """
    run = Path(run)
    folders = backend_folders(run)
    records = {name: lines for name, folder in folders.items() if (lines := read_metrics(folder))}
    if not records:
        return []
    apart = losses_apart({name: step_losses(folders[name]) for name in records})
    return draw_curves(records, run / CURVES, _title(read_settings(next(iter(folders.values())))), apart)


@dataclass(frozen=True)
class Overview:
    """A run as it is listed."""

    run: Path
    settings: Settings | None  # those of the first backend that is not damaged
    results: list[Result]
    problems: list[str]  # why other backends have no result


def draw_runs(views: Sequence[Overview], path: StrPath) -> list[str]:
    """Draw the curves of several runs into one figure; returns what `draw_curves` has to say.

    Raises:
        InvalidInput: when there is nothing to draw, or the file cannot be written.
    """
    path = Path(path)
    curves = {}
    for view in views:
        for result in view.results:
            name = f"{view.run.name}/{result.backend}" if len(views) > 1 else result.backend
            if records := read_metrics(view.run / result.backend):
                curves[name] = records
    if not curves:
        raise InvalidInput("--plot: none of these runs has a record yet")
    titles = {_title(view.settings) for view in views if view.settings}
    apart = losses_apart({name: step_losses(views[0].run / name) for name in curves}) if len(views) == 1 else {}
    return draw_curves(curves, path, titles.pop() if len(titles) == 1 else f"{len(views)} runs", apart)


def overview(run: StrPath) -> Overview:
    """The settings of a run, and the results of its backends that are not damaged."""
    run = Path(run)
    settings = None
    sound, problems = [], []
    for name, folder in backend_folders(run).items():
        try:
            own = read_settings(folder)
            sound.append(summarize(name, folder, own))
            settings = settings or own
        except InvalidInput as error:
            problems.append(str(error))
    return Overview(run, settings, sound, problems)


def show_run(view: Overview, console: Console) -> None:
    """Print a run's settings and the results of its backends."""
    if view.settings is None:
        return
    say(console, f"{shown(view.run)}: {_title(view.settings)}", "bold")
    print_table(console, results_table(view.results))
    recipe = view.settings.recipe
    if recipe.optimizer.average is not None:
        say(console, "test loss and accuracy are those of the averaged weights", "dim")
    if recipe.published and recipe.data == view.settings.data:
        say(console, f"published: {shown(recipe.published)}", "dim")
    losses = {result.backend: step_losses(view.run / result.backend) for result in view.results}
    if line := parted(losses, view.settings.dtype):
        say(console, line, "dim")


def parted(losses: Mapping[str, Mapping[int, float]], dtype: str) -> str:
    """How far the losses of the backends are apart; empty where no more than rounding is in one step.

    `losses` holds those of each backend's steps.
    """
    bound = TOLERANCES[dtype].loss
    apart = losses_apart(losses)
    first = next((step for step, distance in apart.items() if distance > bound), None)
    if first is None:
        return ""
    last = max(apart)
    return (
        f"{dtype} parts the backends: their losses differ by more than {bound:g} (relatively) from step {first:,} on, "
        f"and by {apart[last]:.1e} at step {last:,}"
    )


def results_table(results: Sequence[Result]) -> Table:
    """A row for each backend, with its last epoch."""
    table = new_table("backend", "steps", "train loss", "accuracy", "test loss", "accuracy", "images/s", "time")
    for result in results:
        table.add_row(
            result.backend,
            f"{result.step:,} of {result.steps:,}",
            _number(result.train_loss, 4),
            _number(result.train_accuracy, 4),
            _number(result.test_loss, 4),
            _number(result.test_accuracy, 4),
            _number(result.images_per_second, 0),
            "" if result.seconds is None else str(timedelta(seconds=round(result.seconds))),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def show_scores(confusion: Array, loss: float, classes: Sequence[str], console: Console) -> None:
    """Print the mean loss, the accuracy, and the images, recall and precision of each class.

    `confusion` holds counts, (classes, classes): label, prediction.
    """
    right = int(confusion.trace())
    total = int(confusion.sum())
    console.print(f"loss {loss:.4f}, accuracy {right / total:.4f} ({right:,} of {total:,})", highlight=False)
    table = new_table("class", "images", "recall", "precision")
    table.add_column("most often taken for", overflow="fold")
    for row in class_table(confusion, classes):
        mistake = f"{row['taken_for']} ({row['taken_for_count']})" if row["taken_for_count"] else ""
        numbers = (f"{row['images']:,}", _number(row["recall"], 3), _number(row["precision"], 3))
        table.add_row(cell(row["class"]), *numbers, cell(mistake))
    print_table(console, table)


def class_table(confusion: Array, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Recall, precision and the commonest mistake of each class; None where there is nothing to divide by."""
    rows = []
    for number, name in enumerate(classes):
        images = int(confusion[number].sum())
        predicted = int(confusion[:, number].sum())
        right = int(confusion[number, number])
        mistakes = confusion[number].copy()
        mistakes[number] = 0
        worst = int(mistakes.argmax())
        rows.append(
            {
                "class": name,
                "images": images,
                "recall": right / images if images else None,
                "precision": right / predicted if predicted else None,
                "taken_for": classes[worst] if mistakes[worst] else None,
                "taken_for_count": int(mistakes[worst]),
            }
        )
    return rows
