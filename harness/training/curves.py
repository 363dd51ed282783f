"""Figures of runs, and their records for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.figures import new_figure, save_figure
from harness.training.runs import EVENTS
from spec import Array

_COLORS = {"pt": "tab:orange", "mx": "tab:blue", "jax": "tab:green"}
Records = Sequence[Mapping[str, Any]]


def draw_curves(runs: Mapping[str, Records], path: Path, title: str) -> None:
    """Draw the records of each backend: loss and accuracy over the steps, as a PNG.

    Raises:
        InvalidInput: when it cannot be written.
    """
    figure, axes = new_figure(2, (11, 4.2))
    for axis, key in zip(axes, ("loss", "accuracy"), strict=True):
        for name, records in runs.items():
            steps = [record for record in records if record["kind"] == "step"]
            epochs = [record for record in records if record["kind"] == "epoch"]
            color = _COLORS.get(name)
            x = [record["step"] for record in steps]
            y = [record[key] for record in steps]
            axis.plot(x, y, color=color, alpha=0.5, linewidth=0.8, label=f"{name} train")
            x = [record["step"] for record in epochs]
            y = [record[f"test_{key}"] for record in epochs]
            axis.plot(x, y, "o-", color=color, label=f"{name} test")
        axis.set(xlabel="step", ylabel=key)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.suptitle(title)
    save_figure(figure, path)


def draw_confusion(confusion: Array, classes: Sequence[str], path: Path, title: str) -> None:
    """Draw a confusion matrix of counts, (classes, classes), into a file.

    Rows are labels, columns are predictions, and shades are shares of the row.

    Raises:
        InvalidInput: when it cannot be written.
    """
    side = 2.5 + 0.55 * len(classes)
    figure, (axis,) = new_figure(1, (side, side))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="prediction", ylabel="label", title=title)
    for (i, j), count in np.ndenumerate(confusion):
        if count and len(classes) <= 30:
            color = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(count), ha="center", va="center", fontsize="x-small", color=color)
    save_figure(figure, path)


class Events:
    """A run's records for TensorBoard. Earlier files of events are replaced."""

    def __init__(self, folder: Path, records: Records) -> None:
        from tensorboardX import SummaryWriter

        for old in (folder / EVENTS).glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder / EVENTS))
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record."""
        for name, value in record.items():
            if name not in ("kind", "step", "epoch", "seconds") and value is not None:
                self.writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush and close the file."""
        self.writer.close()
