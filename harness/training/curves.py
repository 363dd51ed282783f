"""Pictures of runs, and their records for TensorBoard. matplotlib and tensorboardX, imported when they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.figures import save_figure
from harness.training.runs import EVENTS
from spec import Array

_COLORS = {"pt": "tab:orange", "mx": "tab:blue", "jax": "tab:green"}
Records = Sequence[Mapping[str, Any]]


def draw_curves(runs: Mapping[str, Records], path: Path, title: str) -> None:
    """Loss and accuracy over the steps, one color for each backend, as a PNG.

    Args:
        runs: The records of each backend.
        path: Of the picture.
        title: Above it.

    Raises:
        InvalidInput: when it cannot be written.
    """
    figure, axes = _figure(2, (11, 4.2))
    for name, records in runs.items():
        steps = [record for record in records if record["kind"] == "step"]
        epochs = [record for record in records if record["kind"] == "epoch"]
        x = [record["step"] for record in steps]
        at = [record["step"] for record in epochs]
        color = _COLORS.get(name)
        for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
            axis.plot(
                x, [record[what] for record in steps], color=color, alpha=0.5, linewidth=0.8, label=f"{name} train"
            )
            axis.plot(at, [record[f"test_{what}"] for record in epochs], "o-", color=color, label=f"{name} test")
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        axis.set(xlabel="step", ylabel=what)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.suptitle(title)
    save_figure(figure, path)


def draw_confusion(confusion: Array, classes: Sequence[str], path: Path, title: str) -> None:
    """Who was taken for whom, as a PNG: rows are labels, columns predictions, shades shares of the row.

    Args:
        confusion: (classes, classes), counts.
        classes: Their names.
        path: Of the picture.
        title: Above it.

    Raises:
        InvalidInput: when it cannot be written.
    """
    side = 2.5 + 0.55 * len(classes)
    figure, (axis,) = _figure(1, (side, side))
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


def _figure(columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    """A figure that belongs to no window, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


class Events:
    """A run's records for TensorBoard: whatever was there is written anew, then one record after the other."""

    def __init__(self, folder: Path, records: Records) -> None:
        from tensorboardX import SummaryWriter

        for old in (folder / EVENTS).glob("events.out.tfevents.*"):
            old.unlink()
        self.writer = SummaryWriter(str(folder / EVENTS))
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """One record."""
        part = "epoch" if record["kind"] == "epoch" else "step"
        for name, value in record.items():
            if name not in ("kind", "step", "epoch", "seconds") and value is not None:
                self.writer.add_scalar(f"{part}/{name}", value, record["step"])

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
