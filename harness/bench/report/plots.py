"""Pictures of a benchmark as SVG, for a page or a file. matplotlib is imported when the first is drawn."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.bench.accuracy import Accuracy
from harness.bench.candidates import Candidate
from harness.bench.record import Record, Row
from harness.bench.report.tables import TASKS, label

_COLORS = {"pt": "tab:orange", "mx": "tab:blue", "jax": "tab:green", "onnx": "tab:purple", "openvino": "tab:cyan"}
_MARKERS = {"float32": "o", "tf32": "^", "bfloat16": "s"}
_LINES = {"tuned": "-", "session": "-", "compiled": "--", "textbook": ":"}


@contextmanager
def _drawing(name: str, columns: int, size: tuple[float, float]) -> Iterator[SimpleNamespace]:
    """Axes side by side; afterwards also their SVG element, which refers to nothing outside itself."""
    import matplotlib
    from matplotlib.figure import Figure

    # The salt makes the ids of several pictures on one page differ, and those of one picture always the same.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=size, layout="constrained")
        picture = SimpleNamespace(axes=list(figure.subplots(1, columns, squeeze=False)[0]), svg="")
        yield picture
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    picture.svg = buffer.getvalue()[buffer.getvalue().index("<svg") :]


def inline(svg: str) -> str:
    """The element without namespaces: an HTML parser knows SVG's, so that the page names no address."""
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)


def draw(record: Record) -> dict[str, str]:
    """Every picture that the measurements allow, by name, as SVG elements."""
    if not any(row.samples for row in record.rows):
        return {}
    pictures = {
        "throughput": draw_throughput(record),
        "correctness": draw_correctness(record),
        "samples": draw_samples(record),
    }
    machine = record.machine
    if machine.flops and machine.bandwidth:
        pictures["roofline"] = draw_roofline(record)
    return pictures


def _by_task(record: Record) -> dict[str, list[Row]]:
    """The measured rows of each task, twins left out."""
    tasks: dict[str, list[Row]] = {}
    for row in record.rows:
        if row.samples and not row.candidate.again:
            tasks.setdefault(row.candidate.task, []).append(row)
    return tasks


def draw_correctness(record: Record) -> str:
    """Images a second over the largest error against the referee: up is fast, left is exact."""
    tasks = _by_task(record)
    with _drawing("correctness", len(tasks), (6.5 * len(tasks), 4.2)) as picture:
        for axis, (task, rows) in zip(picture.axes, tasks.items(), strict=True):
            several = len({row.candidate.batch for row in rows}) > 1
            for row in rows:
                c = row.candidate
                name = f"{c.label} {c.dtype}" + (f", batch {c.batch}" if several else "")
                # A logarithmic axis has no 0, and nothing here is more exact than float64.
                error = max(row.error or 0.0, np.finfo(float).eps)
                axis.plot(error, row.images_per_second, _MARKERS[c.dtype], label=name, linestyle="", **_style(c))
            axis.set(xscale="log", title=TASKS[task])
            axis.set(xlabel="largest error against the referee (relative)", ylabel="images a second (median)")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return str(picture.svg)


def _style(candidate: Candidate) -> dict[str, str]:
    """A framework's color, filled for what is tuned."""
    color = _COLORS[candidate.backend]
    return {"color": color, "markerfacecolor": color if candidate.variant in ("tuned", "session") else "none"}


def draw_throughput(record: Record) -> str:
    """Images a second over the batch; with a single batch, a bar for each row."""
    tasks = _by_task(record)
    with _drawing("throughput", len(tasks), (5.5 * len(tasks), 4.2)) as picture:
        for axis, (task, rows) in zip(picture.axes, tasks.items(), strict=True):
            batches = sorted({row.candidate.batch for row in rows})
            if len(batches) == 1:
                _bars(axis, record, rows)
                axis.set_title(f"{TASKS[task]}, batch {batches[0]}")
            else:
                _lines(axis, record, rows)
                axis.set_xscale("log", base=2)
                axis.set_xticks(batches, [str(n) for n in batches])
                axis.set_title(TASKS[task])
    return str(picture.svg)


def _bars(axis: Any, record: Record, rows: Sequence[Row]) -> None:
    batch = rows[0].candidate.batch
    at = np.arange(len(rows))
    speeds = [row.images_per_second for row in rows]
    summaries = [row.summary for row in rows]
    errors = [
        [speed - batch / s.upper_quartile_seconds for speed, s in zip(speeds, summaries, strict=True)],
        [batch / s.lower_quartile_seconds - speed for speed, s in zip(speeds, summaries, strict=True)],
    ]
    bars = axis.barh(at, speeds, xerr=errors, color=[_COLORS[row.candidate.backend] for row in rows], alpha=0.75)
    axis.bar_label(bars, [f"{speed:,.3g}" if speed < 100 else f"{speed:,.0f}" for speed in speeds], padding=4)
    axis.margins(x=0.15)
    _name_rows(axis, [label(record, row) for row in rows])
    axis.set(xlabel="images a second (median, quartiles)")


def _name_rows(axis: Any, names: Sequence[str], **text: Any) -> None:
    """The first row on top, with a grid behind the values."""
    axis.set_yticks(np.arange(len(names)), names, **text)
    axis.invert_yaxis()
    axis.grid(alpha=0.3, axis="x")


def _lines(axis: Any, record: Record, rows: Sequence[Row]) -> None:
    for name in dict.fromkeys(label(record, row) for row in rows):
        points = sorted((r for r in rows if label(record, r) == name), key=lambda row: row.candidate.batch)
        x = [row.candidate.batch for row in points]
        y = [row.images_per_second for row in points]
        c = points[0].candidate
        axis.plot(x, y, "o", linestyle=_LINES[c.variant], color=_COLORS[c.backend], label=name)
    axis.set(xlabel="batch", ylabel="images a second (median)")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def draw_samples(record: Record) -> str:
    """Every measurement, with box plots, a panel for each task and batch."""
    groups = {key: [row for row in rows if row.samples] for key, rows in record.groups().items()}
    groups = {key: rows for key, rows in groups.items() if rows}
    height = 1.4 + 0.38 * max(map(len, groups.values()))
    with _drawing("samples", len(groups), (5 * len(groups), height)) as picture:
        for axis, ((task, batch), rows) in zip(picture.axes, groups.items(), strict=True):
            values = [1000 * np.array(row.seconds) for row in rows]
            axis.boxplot(values, positions=np.arange(len(rows)), orientation="horizontal", showfliers=False)
            for y, (row, points) in enumerate(zip(rows, values, strict=True)):
                axis.plot(points, np.full(len(points), y), ".", color=_COLORS[row.candidate.backend], alpha=0.6)
            _name_rows(axis, [label(record, row) for row in rows])
            axis.set(xlabel="milliseconds a call", title=f"{TASKS[task]}, batch {batch}")
            axis.set_xlim(left=0)
    return str(picture.svg)


def draw_roofline(record: Record) -> str:
    """Operations a second over operations a byte, below the roof that was measured."""
    machine = record.machine
    rows = [row for rows in _by_task(record).values() for row in rows]
    points = [(row, work) for row in rows if (work := record.work(row)) is not None]
    intensities = [work["intensity"] or 1.0 for _, work in points]
    x = np.geomspace(min(1.0, *intensities) / 2, 4 * max(intensities), 200)
    with _drawing("roofline", 1, (7, 4.6)) as picture:
        (axis,) = picture.axes
        for dtype, peak in machine.flops.items():
            axis.loglog(x, [(machine.roof(i, dtype) or 0) / 1e9 for i in x], color="0.4", linewidth=1)
            text = f"{dtype}: {peak / 1e9:,.0f} GFLOP/s"
            axis.annotate(text, (x[-1], peak / 1e9), ha="right", va="bottom", fontsize="small")
        for row, work in points:
            c = row.candidate
            axis.plot(
                work["intensity"],
                (work["flops_per_second"] or 0) / 1e9,
                "o" if c.task == "train" else "s",
                linestyle="",
                label=f"{label(record, row)}, {TASKS[c.task]}, {c.batch}",
                **_style(c),
            )
        axis.set(xlabel="operations a byte (a model: see the schema)", ylabel="GFLOP/s")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return str(picture.svg)


def draw_accuracy(report: Accuracy) -> str:
    """Test accuracy over the seconds, a line for each training, up to the target."""
    several = len({contender.candidate.dtype for contender in report.contenders}) > 1
    with _drawing("accuracy", 1, (7, 4.2)) as picture:
        (axis,) = picture.axes
        for contender in report.contenders:
            c = contender.candidate
            name = c.backend + (f" {c.dtype}" if several else "")
            for number, trial in enumerate(contender.trials):
                line = {"color": _COLORS[c.backend], "marker": _MARKERS[c.dtype], "alpha": 0.7}
                axis.plot(trial.ends, trial.accuracies, label=None if number else name, **line)
        axis.axhline(report.target, color="0.4", linestyle="--", linewidth=1)
        axis.set(xlabel="seconds, all in", ylabel="test accuracy")
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", loc="lower right")
    return str(picture.svg)


def draw_stages(profile: Mapping[str, Any]) -> str:
    """A profile's stages as bars, forward and backward end to end; `profile` is the content of its file."""
    stages, settings = profile["stages"], profile["settings"]
    backend, size = settings["backend"], settings["input"][-1]
    at = np.arange(len(stages))
    forward = np.array([1000 * stage["forward_seconds"] for stage in stages])
    backward = np.array([1000 * max(stage["backward_seconds"], 0.0) for stage in stages])
    with _drawing(f"stages-{backend}", 1, (7, 1.2 + 0.24 * len(stages))) as picture:
        (axis,) = picture.axes
        axis.barh(at, forward, color=_COLORS[backend], label="forward")
        axis.barh(at, backward, left=forward, color=_COLORS[backend], alpha=0.45, label="backward")
        _name_rows(axis, [stage["stage"] for stage in stages], fontsize="small")
        title = f"{backend}, {settings['preset']}, {size} pixels, batch {settings['batch']}, {settings['dtype']}"
        axis.set(xlabel="milliseconds", title=title)
        axis.legend(fontsize="small")
    return str(picture.svg)
