"""A benchmark as tables: on a terminal, however narrow, and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bench.record import Record, Row

TASKS = {"train": "training", "infer": "inference"}
LEGEND = (
    "spread: between the quartiles, as a share of the median (!: more than 10 %). start: import and build. first call: "
    "with compilation. threads: busy while measured. Training is counted as three times the forward pass's operations. "
    "peak: of products and convolutions, by any of the frameworks in this run; roof: that, or what memory lets through."
)
# A narrow terminal shows the first of these.
COLUMNS = (
    "images/s",
    "spread",
    "ms a call",
    "% of peak",
    "threads",
    "first call s",
    "start s",
    "peak GiB",
    "GFLOP/s",
    "% of roof",
)


@dataclass(frozen=True)
class Line:
    """A row of a table: a figure for each of `COLUMNS`, or the reason why there are none, or both."""

    label: str
    cells: list[str]  # empty without measurements
    problem: str | None


@dataclass(frozen=True)
class Section:
    """The table of one task and batch."""

    heading: str
    lines: list[Line]


def sections(record: Record) -> list[Section]:
    """A table for each task and batch."""
    threads = len(record.about["environment"]["used_processors"])
    size = f"{record.size} x {record.size}"
    return [
        Section(
            f"{record.config.preset}, {size}, {TASKS[task]}, batch {batch}, {threads} threads, {record.rounds} rounds",
            [_line(record, row) for row in rows],
        )
        for (task, batch), rows in record.groups().items()
    ]


def _line(record: Record, row: Row) -> Line:
    problem = row.problem if row.problem or row.samples else "not measured"
    return Line(label(record, row), cells(record, row) if row.samples else [], problem)


def cells(record: Record, row: Row) -> list[str]:
    """The figures of a measured row in the units of `COLUMNS`; empty where one is unknown."""
    summary = row.summary
    speed = row.images_per_second
    work = record.work(row) or {}
    start = (row.import_seconds or 0.0) + (row.build_seconds or 0.0)
    return [
        f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}",
        f"{summary.spread:.0%}{' !' if summary.unsteady else ''}",
        f"{1000 * summary.median_seconds:,.4g}",
        _share(work["share_of_peak"]),
        "" if row.busy_threads is None else str(row.busy_threads),
        _seconds(row.first_call_seconds or 0.0),
        _seconds(start),
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.2f}",
        f"{(work['flops_per_second'] or 0.0) / 1e9:.3g}",
        _share(work["share_of_roof"]),
    ]


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def label(record: Record, row: Row) -> str:
    """The row's name within its section."""
    several = len({other.candidate.dtype for other in record.rows}) > 1
    parts = [row.candidate.label, row.candidate.dtype if several else "", "+ loading" if row.candidate.pipeline else ""]
    return " ".join(filter(None, parts))


def render(record: Record, console: Console) -> None:
    """Print the sections, every problem, the ratios, the peaks and the warnings."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    for section in sections(record):
        say(section.heading, "bold")
        measured = [line for line in section.lines if line.cells]
        if measured:
            console.print(_table(measured, console.width))
        for line in section.lines:
            if line.problem is not None:
                say(f"{line.label}: {line.problem}", "red")
        console.print()
    for comparison in record.comparisons():
        say(str(comparison))
    for peak in record.peaks:
        say(describe_peak(peak), "dim")
    for warning in record.warnings:
        say(f"warning: {warning}", "yellow")
    console.print(Text(LEGEND, style="dim"), highlight=False)


def _table(lines: list[Line], width: int) -> Table:
    """As many columns as fit."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    room = width - max(len(line.label) for line in lines) - 2
    shown = 0
    for name, *column in zip(COLUMNS, *(line.cells for line in lines), strict=True):
        room -= max(map(len, [name, *column])) + 2
        if room < 0:
            break
        table.add_column(name, justify="right", no_wrap=True)
        shown += 1
    for line in lines:
        table.add_row(line.label, *line.cells[:shown])
    return table


def describe_peak(peak: dict[str, Any]) -> str:
    """``pt, float32, matrix product: 180 GFLOP/s``."""
    unit = "GB/s" if peak["name"] == "copy" else "GFLOP/s"
    return f"{peak['backend']}, {peak['dtype']}, {peak['name']}: {peak['per_second'] / 1e9:.3g} {unit}"


def markdown(record: Record) -> str:
    """A section of a Markdown file: the tables, the environment and the command."""
    tasks = " and ".join(dict.fromkeys(TASKS[row.candidate.task] for row in record.rows))
    batches = ", ".join(dict.fromkeys(str(row.candidate.batch) for row in record.rows))
    dtypes = ", ".join(dict.fromkeys(row.candidate.dtype for row in record.rows))
    lines = [f"## {record.config.preset} at {record.size} pixels: {tasks}, batch {batches}, {dtypes}", ""]
    for section in sections(record):
        lines += [f"{section.heading}:", "", f"| | {' | '.join(COLUMNS)} |", "|---" + "|---:" * len(COLUMNS) + "|"]
        for line in section.lines:
            columns = line.cells or [line.problem or "", *[""] * (len(COLUMNS) - 1)]
            lines.append(f"| {line.label} | {' | '.join(map(_escaped, columns))} |")
        lines.append("")
    lines += [f"- {_escaped(str(comparison))}" for comparison in record.comparisons()]
    lines += [f"- warning: {_escaped(warning)}" for warning in record.warnings]
    lines += ["", *[f"    {fact}" for fact in facts(record)], ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def append_markdown(record: Record, path: Path) -> None:
    """Add the record's section to a file, which gets a title if it is new."""
    with path.open("a") as file:
        if file.tell() == 0:
            file.write(f"# Benchmarks\n\nWritten by `googlenet bench --markdown`. {LEGEND[0].upper()}{LEGEND[1:]}\n\n")
        file.write(markdown(record) + "\n")


def facts(record: Record) -> list[str]:
    """Command, code, machine, versions and peaks, a line each."""
    about = record.about
    place = about["environment"]
    changes = " with changes" if about["code"]["dirty"] else ""
    used = f"{len(place['used_processors'])} used{', virtual machine' if place['virtual'] else ''}"
    memory = f"{place['memory_bytes'] / 2**30:.1f} GiB"
    limits = place["cgroup"]
    return [
        f"$ {about['command']}",
        f"commit {about['code']['commit'] or 'unknown'}{changes}, {about['before']['time']}",
        f"{place['processor']}, {place['processors']} processors, of which {used}",
        f"caches {', '.join(place['caches']) or 'unknown'}; governor {place['governor'] or 'unknown'}; memory {memory}",
        f"control group: processors {limits['cpu_max'] or 'unlimited'}, memory {limits['memory_max'] or 'unlimited'}",
        *[
            f"load average {when} {', '.join(f'{load:.2f}' for load in about[when]['load_average'])}"
            for when in ("before", "after")
        ],
        f"Python {place['python']}, {', '.join(f'{name} {version}' for name, version in place['versions'].items())}",
        *[f"{name}={value}" for name, value in place["variables"].items()],
        *[describe_peak(peak) for peak in record.peaks],
    ]
