"""Pictures of a benchmark as SVG, to stand in a page or in a file. matplotlib, imported when it is needed."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from harness.bench.record import Record, Row
from harness.bench.report.tables import grouped, label
from harness.bench.roofline import machine_of

_COLORS = {"pt": "tab:orange", "mx": "tab:blue", "jax": "tab:green", "onnx": "tab:purple"}
_LINES = {"tuned": "-", "session": "-", "compiled": "--", "textbook": ":"}
_TASKS = {"train": "training", "infer": "inference"}


class _Picture:
    """Axes side by side, and what became of them."""

    def __init__(self) -> None:
        self.axes: list[Any] = []
        self.svg = ""


@contextmanager
def _drawing(name: str, columns: int, size: tuple[float, float]) -> Iterator[_Picture]:
    """A picture to draw on; when done it holds the SVG element, which refers to nothing outside itself."""
    import matplotlib
    from matplotlib.figure import Figure

    # The salt makes the ids of several pictures on one page differ, and those of one picture always the same.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=size, layout="constrained")
        picture = _Picture()
        picture.axes = list(figure.subplots(1, columns, squeeze=False)[0])
        yield picture
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    picture.svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]


def inline(svg: str) -> str:
    """The element as HTML has it: the parser knows SVG's namespaces, so that no address need be named."""
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)


def draw(record: Record) -> dict[str, str]:
    """Every picture that the measurements allow, by name, as SVG elements."""
    if not any(row.samples for row in record.rows):
        return {}
    pictures = {"throughput": draw_throughput(record), "samples": draw_samples(record)}
    machine = machine_of(record.peaks)
    if machine.flops and machine.bandwidth:
        pictures["roofline"] = draw_roofline(record)
    return pictures


def draw_throughput(record: Record) -> str:
    """Images a second over the batch; with a single batch, a bar for each row."""
    tasks = list(dict.fromkeys(row.candidate.task for row in record.rows if row.samples))
    with _drawing("throughput", len(tasks), (5.5 * len(tasks), 4.2)) as picture:
        for axis, task in zip(picture.axes, tasks, strict=True):
            rows = [row for row in record.rows if row.samples and row.candidate.task == task]
            batches = sorted({row.candidate.batch for row in rows})
            if len(batches) == 1:
                _bars(axis, record, rows)
            else:
                _lines(axis, record, rows)
                axis.set_xscale("log", base=2)
                axis.set_xticks(batches, [str(n) for n in batches])
            axis.set_title(_TASKS[task] + (f", batch {batches[0]}" if len(batches) == 1 else ""))
    return picture.svg


def _bars(axis: Any, record: Record, rows: Sequence[Row]) -> None:
    at = np.arange(len(rows))
    speeds = np.array([row.images_per_second for row in rows])
    quartiles = [(s.lower, s.upper) for row in rows if (s := row.summary) is not None]
    batch = rows[0].candidate.batch
    # Lists of numbers: in an array's single column matplotlib takes the rows for numbers.
    errors = [
        [speed - batch / upper for speed, (_, upper) in zip(speeds, quartiles, strict=True)],
        [batch / lower - speed for speed, (lower, _) in zip(speeds, quartiles, strict=True)],
    ]
    axis.barh(at, speeds, xerr=errors, color=[_COLORS[row.candidate.backend] for row in rows], alpha=0.75)
    axis.set_yticks(at, [label(record, row) for row in rows])
    axis.invert_yaxis()
    axis.set(xlabel="images a second (median, quartiles)")
    axis.grid(alpha=0.3, axis="x")


def _lines(axis: Any, record: Record, rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(label(record, row) for row in rows):
        own = [row for row in rows if label(record, row) == name]
        c = own[0].candidate
        x, y = [row.candidate.batch for row in own], [row.images_per_second for row in own]
        axis.plot(x, y, "o", linestyle=_LINES[c.variant], color=_COLORS[c.backend], label=name)
    axis.set(xlabel="batch", ylabel="images a second (median)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def draw_samples(record: Record) -> str:
    """Every measurement, with box plots, a panel for each task and batch."""
    groups = {key: [row for row in rows if row.samples] for key, rows in grouped(record).items()}
    groups = {key: rows for key, rows in groups.items() if rows}
    height = 1.4 + 0.38 * max(map(len, groups.values()))
    with _drawing("samples", len(groups), (5 * len(groups), height)) as picture:
        for axis, ((task, batch), rows) in zip(picture.axes, groups.items(), strict=True):
            at = np.arange(len(rows))
            values = [1000 * np.array(row.seconds) for row in rows]
            axis.boxplot(values, positions=at, orientation="horizontal", showfliers=False)
            for y, points, row in zip(at, values, rows, strict=True):
                axis.plot(points, np.full(len(points), y), ".", color=_COLORS[row.candidate.backend], alpha=0.6)
            axis.set_yticks(at, [label(record, row) for row in rows])
            axis.invert_yaxis()
            axis.set(xlabel="milliseconds a call", title=f"{_TASKS[task]}, batch {batch}")
            axis.set_xlim(left=0)
            axis.grid(alpha=0.3, axis="x")
    return picture.svg


def draw_roofline(record: Record) -> str:
    """Operations a second over operations a byte, below the roof that the machine was measured to have."""
    machine = machine_of(record.peaks)
    rows = [(row, found) for row in record.rows if (found := record.work(row)) is not None]
    intensities = [found["intensity"] or 1.0 for _, found in rows]
    x = np.geomspace(min(1.0, *intensities) / 2, 4 * max(intensities), 200)
    with _drawing("roofline", 1, (7, 4.6)) as picture:
        (axis,) = picture.axes
        for dtype in machine.flops:
            axis.loglog(x, [(machine.roof(i, dtype) or 0) / 1e9 for i in x], color="0.4", linewidth=1)
            top = machine.flops[dtype] / 1e9
            axis.annotate(f"{dtype}: {top:,.0f} GFLOP/s", (x[-1], top), ha="right", va="bottom", fontsize="small")
        for row, found in rows:
            c = row.candidate
            marker = "o" if c.task == "train" else "s"
            face = _COLORS[c.backend] if c.variant in ("tuned", "session") else "none"
            name = f"{label(record, row)}, {_TASKS[c.task]}, {c.batch}"
            speed = (found["flops_per_second"] or 0) / 1e9
            axis.plot(
                found["intensity"],
                speed,
                marker,
                linestyle="",
                color=_COLORS[c.backend],
                markerfacecolor=face,
                label=name,
            )
        axis.set(xlabel="operations a byte (a model: see the schema)", ylabel="GFLOP/s")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return picture.svg


def draw_stages(profile: Mapping[str, Any]) -> str:
    """A profile's stages as bars, forward and backward end to end; `profile` as it is in its file."""
    stages, settings = profile["stages"], profile["settings"]
    at = np.arange(len(stages))
    forward = np.array([1000 * stage["forward_seconds"] for stage in stages])
    backward = np.array([1000 * max(stage["backward_seconds"], 0.0) for stage in stages])
    with _drawing(f"stages-{settings['backend']}", 1, (7, 1.2 + 0.24 * len(stages))) as picture:
        (axis,) = picture.axes
        color = _COLORS[settings["backend"]]
        axis.barh(at, forward, color=color, label="forward")
        axis.barh(at, backward, left=forward, color=color, alpha=0.45, label="backward")
        axis.set_yticks(at, [stage["stage"] for stage in stages], fontsize="small")
        axis.invert_yaxis()
        size = settings["input"][-1]
        title = f"{settings['backend']}, {settings['preset']}, {size} pixels, batch {settings['batch']}"
        axis.set(xlabel="milliseconds", title=f"{title}, {settings['dtype']}")
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize="small")
    return picture.svg
