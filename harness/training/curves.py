"""Figures of runs, and their records for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from harness.atomic import StrPath
from harness.figures import lettering, new_figure, save_figure
from harness.training.runs import EVENTS
from spec import Array

_COLORS = {"pt": "tab:orange", "mx": "tab:blue", "jax": "tab:green"}
Records = Sequence[Mapping[str, Any]]


def draw_curves(
    curves: Mapping[str, Records], path: StrPath, title: str, apart: Mapping[int, float] | None = None
) -> list[str]:
    """Draw loss and accuracy over the steps: thin lines of training, bold ones with a point for each test.

    Args:
        curves: The records by name: of each backend, or of each run and backend.
        path: The picture.
        title: Above it.
        apart: How far the losses are apart at each step, for a third part of the picture.

    Returns:
        A line to say where a letter is missing in all fonts.

    Raises:
        InvalidInput: when it cannot be written.
    """
    path = Path(path)
    from matplotlib.ticker import MaxNLocator

    letters = lettering([title, *curves])
    figure, axes = new_figure(3, (17, 4.8)) if apart else new_figure(2, (12, 4.8))
    for axis, key in zip(axes, ("loss", "accuracy"), strict=False):
        for number, (name, records) in enumerate(curves.items()):
            steps = [record for record in records if record["kind"] == "step"]
            epochs = [record for record in records if record["kind"] == "epoch"]
            color = _COLORS.get(name, f"C{number}")
            x = [record["step"] for record in steps]
            y = [record[key] for record in steps]
            point = "o" if len(x) == 1 else None  # a line through one point is nothing
            axis.plot(x, y, marker=point, color=color, alpha=0.6, linewidth=1.4, label=f"{name} train")
            x = [record["step"] for record in epochs]
            y = [record[f"test_{key}"] for record in epochs]
            axis.plot(x, y, "o-", color=color, linewidth=2.6, markersize=7, label=f"{name} test")
        axis.set_ylabel(key, fontsize="large")
    if apart:
        axes[2].plot(list(apart), list(apart.values()), ".", color="black", markersize=4)
        axes[2].set_ylabel("losses apart, relatively", fontsize="large")
        if any(apart.values()):
            axes[2].set_yscale("log", nonpositive="mask")
    for axis in axes:
        axis.set_xlabel("step", fontsize="large")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
    handles = [line for line in axes[0].lines if len(line.get_xdata())]
    names = [letters.write(line.get_label()) for line in handles]
    size = "medium" if len(curves) <= 4 else "x-small"
    legend = figure.legend(handles, names, loc="outside right upper", fontsize=size)
    for text in legend.get_texts():
        text.set(**letters.style)
    figure.suptitle("\n".join(wrap(letters.write(title), 110)), fontsize="large", **letters.style)
    save_figure(figure, path)
    return letters.notes(path)


def draw_confusion(confusion: Array, classes: Sequence[str], path: StrPath, title: str) -> list[str]:
    """Draw a confusion matrix of counts, (classes, classes), into a file, with the accuracy above it.

    Rows are labels, columns are predictions, and shades are shares of the row.

    Returns:
        A line to say where a letter is missing in all fonts.

    Raises:
        InvalidInput: when it cannot be written.
    """
    path = Path(path)
    letters = lettering([title, *classes])
    names = [letters.write(name) for name in classes]
    side = max(5.0, 2.0 + 0.55 * len(classes) + 0.06 * max(map(len, names)))  # inches
    figure, (axis,) = new_figure(1, (side, side))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(classes)), names, rotation=60, ha="right", rotation_mode="anchor", **letters.style)
    axis.set_yticks(range(len(classes)), names, **letters.style)
    axis.set(xlabel="prediction", ylabel="label")
    right, total = int(confusion.trace()), int(confusion.sum())
    accuracy = f"accuracy {right / total:.4f} ({right:,} of {total:,})"
    figure.suptitle("\n".join([*wrap(letters.write(title), int(9 * side)), accuracy]), **letters.style)
    for (i, j), count in np.ndenumerate(confusion):
        if count and len(classes) <= 30:
            color = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(count), ha="center", va="center", fontsize="small", color=color)
    save_figure(figure, path)
    return letters.notes(path)


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
            if name not in ("kind", "step", "epoch", "seconds", "losses") and value is not None:
                self.writer.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Flush and close the file."""
        self.writer.close()
