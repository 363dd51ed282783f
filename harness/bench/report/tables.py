"""A benchmark as a table: on a terminal, however narrow, and in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bench.record import Record, Row

Columns = dict[str, Callable[[Record, Row], str]]


def _speed(record: Record, row: Row) -> str:
    speed = row.images_per_second
    return "" if speed is None else f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def _spread(record: Record, row: Row) -> str:
    return "" if row.summary is None else f"{row.summary.spread:.0%}{' !' if row.summary.unsteady else ''}"


def _milliseconds(record: Record, row: Row) -> str:
    return "" if row.summary is None else f"{1000 * row.summary.median:,.4g}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _start(record: Record, row: Row) -> str:
    together = None if row.build_seconds is None else (row.import_seconds or 0.0) + row.build_seconds
    return _seconds(together)


def _memory(record: Record, row: Row) -> str:
    return "" if row.peak_memory is None else f"{row.peak_memory / 2**30:.2f}"


def _flops(record: Record, row: Row) -> str:
    found = record.work(row)
    return "" if found is None else f"{(found['flops_per_second'] or 0) / 1e9:.3g}"


def _share(name: str) -> Callable[[Record, Row], str]:
    def share(record: Record, row: Row) -> str:
        value = (record.work(row) or {}).get(name)
        return "" if value is None else f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"

    return share


# Read from left to right as far as there is room.
COLUMNS: Columns = {
    "images/s": _speed,
    "spread": _spread,
    "ms a call": _milliseconds,
    "% of peak": _share("share_of_peak"),
    "threads": lambda record, row: "" if row.busy_threads is None else str(row.busy_threads),
    "first call s": lambda record, row: _seconds(row.first_call_seconds),
    "start s": _start,
    "peak GiB": _memory,
    "GFLOP/s": _flops,
    "% of roof": _share("share_of_roof"),
}
LEGEND = (
    "spread: between the quartiles, as a share of the median (!: more than 10 %). start: import and build. first call: "
    "with compilation. threads: busy while measured. Training is counted as three times the forward pass's operations. "
    "peak: of products and convolutions, by any of the frameworks in this run; roof: that, or what memory lets through."
)


def heading(record: Record, task: str, batch: int) -> str:
    """What a group of rows has in common."""
    what = {"train": "training", "infer": "inference"}[task]
    threads = len(record.about["environment"]["used_processors"])
    size = f"{record.size} x {record.size}"
    return f"{record.config.preset}, {size}, {what}, batch {batch}, {threads} threads, {record.rounds} rounds"


def label(record: Record, row: Row) -> str:
    """The row's name within its group."""
    several = len({row.candidate.dtype for row in record.rows}) > 1
    parts = [row.candidate.label, row.candidate.dtype if several else "", "+ loading" if row.candidate.pipeline else ""]
    return " ".join(filter(None, parts))


def grouped(record: Record) -> dict[tuple[str, int], list[Row]]:
    """Rows by task and batch."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in record.rows:
        found.setdefault((row.candidate.task, row.candidate.batch), []).append(row)
    return found


def render(record: Record, console: Console) -> None:
    """Print a table for each task and batch, what the ratios say, and every problem."""
    for (task, batch), rows in grouped(record).items():
        console.print(Text(heading(record, task, batch), style="bold"), soft_wrap=True)
        measured = [row for row in rows if row.samples]
        if measured:
            console.print(_table(record, measured, console.width))
        for row in rows:
            if row.problem is not None:
                console.print(Text(f"{label(record, row)}: {row.problem}", style="red"), soft_wrap=True)
            elif not row.samples:
                console.print(Text(f"{label(record, row)}: not measured", style="yellow"), soft_wrap=True)
        console.print()
    for comparison in record.comparisons():
        console.print(Text(str(comparison)), soft_wrap=True, highlight=False)
    for peak in record.peaks:
        console.print(Text(describe_peak(peak), style="dim"), soft_wrap=True, highlight=False)
    for warning in record.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    console.print(Text(LEGEND, style="dim"), highlight=False)


def describe_peak(peak: dict[str, Any]) -> str:
    """``pt, float32, matrix product: 180 GFLOP/s``."""
    unit = "GB/s" if peak["name"] == "copy" else "GFLOP/s"
    return f"{peak['backend']}, {peak['dtype']}, {peak['name']}: {peak['per_second'] / 1e9:.3g} {unit}"


def _table(record: Record, rows: list[Row], width: int) -> Table:
    """As many columns as fit."""
    names = [label(record, row) for row in rows]
    cells = {name: [cell(record, row) for row in rows] for name, cell in COLUMNS.items()}
    room = width - max(map(len, names)) - 2
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    shown = []
    for name, column in cells.items():
        room -= max(len(name), *map(len, column)) + 2
        if room < 0:
            break
        table.add_column(name, justify="right", no_wrap=True)
        shown.append(column)
    for i, name in enumerate(names):
        table.add_row(name, *[column[i] for column in shown])
    return table


def markdown(record: Record) -> str:
    """A section of a Markdown file: the tables, the environment and the command."""
    lines = [f"## {_title(record)}", ""]
    for (task, batch), rows in grouped(record).items():
        lines += [f"{heading(record, task, batch)}:", ""]
        lines += ["| | " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
        for row in rows:
            cells = [cell(record, row) for cell in COLUMNS.values()]
            if not row.samples:
                cells = [row.problem or "not measured", *[""] * (len(COLUMNS) - 1)]
            lines.append(f"| {label(record, row)} | " + " | ".join(_escaped(cell) for cell in cells) + " |")
        lines.append("")
    lines += [f"- {_escaped(str(found))}" for found in record.comparisons()]
    lines += [f"- warning: {_escaped(warning)}" for warning in record.warnings]
    lines += ["", *[f"    {line}" for line in facts(record)], ""]
    return "\n".join(lines)


def append_markdown(record: Record, path: Path) -> None:
    """Add the record's section to a file, which gets a title if it is new."""
    with path.open("a") as file:
        if file.tell() == 0:
            file.write(f"# Benchmarks\n\nWritten by `googlenet bench --markdown`. {LEGEND[0].upper()}{LEGEND[1:]}\n\n")
        file.write(markdown(record) + "\n")


def _title(record: Record) -> str:
    tasks = {"train": "training", "infer": "inference"}
    what = " and ".join(dict.fromkeys(tasks[row.candidate.task] for row in record.rows))
    batches = ", ".join(map(str, dict.fromkeys(row.candidate.batch for row in record.rows)))
    dtypes = ", ".join(dict.fromkeys(row.candidate.dtype for row in record.rows))
    return f"{record.config.preset} at {record.size} pixels: {what}, batch {batches}, {dtypes}"


def facts(record: Record) -> list[str]:
    """Command, code, machine, versions and peaks, a line each."""
    about, place = record.about, record.about["environment"]
    commit = about["code"]["commit"] or "unknown"
    versions = ", ".join(f"{name} {number}" for name, number in place["versions"].items())
    load = about["before"]["load_average"], about["after"]["load_average"]
    memory = place["memory_bytes"]
    return [
        f"$ {about['command']}",
        f"commit {commit}{' with changes' if about['code']['dirty'] else ''}, {about['before']['time']}",
        f"{place['processor']}, {place['processors']} processors, of which {len(place['used_processors'])} used"
        + (", virtual machine" if place["virtual"] else ""),
        f"caches {', '.join(place['caches']) or 'unknown'}; governor {place['governor'] or 'unknown'}; "
        f"memory {'unknown' if memory is None else f'{memory / 2**30:.1f} GiB'}",
        f"control group: processors {place['cgroup']['cpu_max'] or 'unlimited'}, "
        f"memory {place['cgroup']['memory_max'] or 'unlimited'}",
        *[
            f"load average {when} {', '.join(f'{x:.2f}' for x in value)}"
            for when, value in zip(("before", "after"), load, strict=True)
            if value
        ],
        f"Python {place['python']}, {versions}",
        *[f"{name}={value}" for name, value in place["variables"].items()],
        *[describe_peak(peak) for peak in record.peaks],
    ]


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
