"""A benchmark as tables: on a terminal, however narrow, and in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.bench.accuracy import Accuracy
from harness.bench.analysis.changes import Changes
from harness.bench.analysis.statistics import Ratio
from harness.bench.profiles import Profile
from harness.bench.record import Record, Report, Row, compared
from harness.screen import new_table, print_table, say
from harness.shown import shown

TASKS = {"train": "training", "infer": "inference"}
LEGEND = (
    "spread: between the quartiles, as a share of the median (!: more than 10 %). peak: of products and convolutions, "
    "by any of the frameworks in this run; training is counted as three times the forward pass's operations. error: "
    "the largest relative one against the referee. threads: busy while measured. cold start: importing, building and "
    "the first call, which compiles. p50, p95, p99: of single calls. times: of the speeds in the same rounds; 95 %: an "
    "interval over the rounds; =: it holds 1, no difference was shown. again: the first row's twin, in a process of "
    "its own: what the two differ by is noise. slower, faster: than in an earlier run, by more than the noise."
)
RATIOS = ("times", "as fast as", "95 %")
ACCURACY = ("reached", "seconds", "from", "to", "epochs", "best accuracy")
_ACCURACY_LEGEND = (
    "seconds: from the start of the process to the end of the evaluation that found the target reached, one an epoch; "
    "importing, compiling, evaluations and checkpoints count. The median over the seeds, of which one that never "
    "reached it took longer than all others. from, to: of those that reached it. times: of the speeds, seed by seed; "
    "95 %: an interval over the seeds; =: it holds 1, no difference was shown."
)
CHANGES = ("times as fast", "95 %", "noise", "")
COLUMNS = ("images/s", "spread", "ms a call", "% of peak", "error", "threads", "cold start s", "peak GiB")
LATENCY = ("p50 ms", "p95 ms", "p99 ms")


@dataclass(frozen=True)
class Line:
    """A row of a table: a figure for each column, or the reason why there are none, or both."""

    label: str
    cells: list[str]  # empty without measurements
    problem: str | None


@dataclass(frozen=True)
class Section:
    """The tables of one task and batch."""

    heading: str
    columns: Sequence[str]
    lines: list[Line]
    ratios: list[Line]  # a figure for each of `RATIOS`


Reported = Record | Accuracy


def title(report: Reported) -> str:
    """``d2l at 96 pixels: training and inference, batch 128, float32``."""
    place = f"{report.config.preset} at {report.size} pixels"
    if isinstance(report, Accuracy):
        return f"{place}: seconds to a test accuracy of {report.target:g}, {shown(report.settings.data)}"
    tasks = " and ".join(dict.fromkeys(TASKS[row.candidate.task] for row in report.rows))
    batches = ", ".join(dict.fromkeys(str(row.candidate.batch) for row in report.rows))
    dtypes = ", ".join(dict.fromkeys(row.candidate.dtype for row in report.rows))
    return f"{place}: {tasks}, batch {batches}, {dtypes}"


def legend(report: Reported) -> str:
    """The meaning of the columns, as a paragraph."""
    text = _ACCURACY_LEGEND if isinstance(report, Accuracy) else LEGEND
    return text[0].upper() + text[1:]


def sections(report: Reported) -> list[Section]:
    """A table for each task and batch, and one of what has changed; of an accuracy one in all."""
    return [_trainings(report)] if isinstance(report, Accuracy) else _sections(report)


def _trainings(report: Accuracy) -> Section:
    several = len({contender.candidate.dtype for contender in report.contenders}) > 1
    names = [c.candidate.backend + (f" {c.candidate.dtype}" if several else "") for c in report.contenders]
    lines, ratios = [], []
    for name, contender in zip(names, report.contenders, strict=True):
        trials, reached = contender.trials, [trial.seconds for trial in contender.reached]
        cells = []
        if trials:
            middle = contender.median_seconds
            epochs = sorted({len(trial.ends) for trial in contender.reached})
            cells = [
                f"{len(reached)} of {len(trials)}",
                f"{middle:,.1f}" if math.isfinite(middle) else "never",
                f"{min(reached):,.1f}" if reached else "",
                f"{max(reached):,.1f}" if reached else "",
                " to ".join(dict.fromkeys(str(n) for n in (epochs[0], epochs[-1]))) if epochs else "",
                f"{max(max(trial.accuracies, default=0.0) for trial in trials):.4f}",
            ]
        lines.append(Line(name, cells, contender.problem if contender.problem or trials else "not trained"))
        if contender is not report.contenders[0] and trials:
            ratio = contender.over(report.contenders[0])
            problem = f"not compared with {names[0]}, since not every seed reached the target"
            ratios.append(_ratio(name, names[0], ratio, problem))
    recipe = report.settings.recipe
    dtypes = ", ".join(dict.fromkeys(contender.candidate.dtype for contender in report.contenders))
    heading = (
        f"{shown(report.recipe)} on {shown(report.settings.data)}, {recipe.size} x {recipe.size}, batch "
        f"{recipe.batch}, at most {recipe.epochs} epochs, {dtypes}, to a test accuracy of {report.target:g}, "
        f"{report.rounds} seeds"
    )
    return Section(heading, ACCURACY, lines, ratios)


def _ratio(name: str, other: str, ratio: Ratio | None, problem: str) -> Line:
    """A line under `RATIOS`."""
    if ratio is None:
        return Line(name, [], problem)
    times = f"{ratio.ratio:.2f}" if ratio.difference_shown else f"{ratio.ratio:.2f} ="
    return Line(name, [times, other, ratio.interval], None)


def _sections(record: Record) -> list[Section]:
    threads = len(record.about["environment"]["used_processors"])
    place = f"{record.config.preset}, {record.size} x {record.size}"
    found = []
    for (task, batch), rows in record.groups().items():
        dtypes = ", ".join(dict.fromkeys(row.candidate.dtype for row in rows))
        rounds = max(len(row.samples) for row in rows)
        heading = f"{place}, {TASKS[task]}, batch {batch}, {dtypes}, {threads} threads, {rounds} rounds"
        known = record.uncertainty(rows)
        heading += f", ratios known to {known:.1%}" if 0 < known < math.inf else ""
        columns = COLUMNS + (LATENCY if (task, batch) == ("infer", 1) else ())
        found.append(Section(heading, columns, [_line(record, row) for row in rows], _ratios(record, rows)))
    return found + ([_changed(record.changes)] if record.changes else [])


def _line(record: Record, row: Row) -> Line:
    problem = row.problem if row.problem or row.samples else "not measured"
    return Line(label(record, row), cells(record, row) if row.samples else [], problem)


def cells(record: Record, row: Row) -> list[str]:
    """The figures of a measured row in the units of `COLUMNS`, and of `LATENCY`; empty where one is unknown."""
    summary, latency = row.summary, row.latency
    work = record.work(row) or {}
    calls = (latency.p50_seconds, latency.p95_seconds, latency.p99_seconds) if latency else ()
    return [
        _speed(row),
        f"{summary.spread:.0%}{' !' if summary.unsteady else ''}",
        _milliseconds(summary.median_seconds),
        _share(work["share_of_peak"]),
        "" if row.error is None else f"{row.error:.0e}",
        "" if row.busy_threads is None else str(row.busy_threads),
        "" if row.cold_start_seconds is None else _seconds(row.cold_start_seconds),
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**30:.2f}",
        *("" if seconds is None else _milliseconds(seconds) for seconds in calls),
    ]


def verdict(record: Reported) -> list[str]:
    """What came of it, a sentence for each task and batch."""
    if isinstance(record, Accuracy):
        return _first(record)
    return [
        f"{TASKS[task].capitalize()}, batch {batch}: {_verdict(record, [row for row in rows if row.samples])}."
        for (task, batch), rows in record.groups().items()
    ]


def _first(report: Accuracy) -> list[str]:
    """Who reached the target first, by the medians."""
    trained = [contender for contender in report.contenders if contender.trials]
    if not trained:
        return ["Nothing was trained."]
    first = min(trained, key=lambda contender: contender.median_seconds)
    if first.median_seconds == math.inf:
        return [f"None reached a test accuracy of {report.target:g} with most of its seeds."]
    name = f"{first.candidate.backend} in {first.candidate.dtype}"
    return [f"{name} reached a test accuracy of {report.target:g} first, after {first.median_seconds:,.1f} s."]


def _verdict(record: Record, rows: Sequence[Row]) -> str:
    steady = [row for row in rows if not row.summary.starved and not row.candidate.again]
    if not steady:
        return "not measured, the machine was busy" if rows else "nothing was measured"
    first, *others = sorted(steady, key=lambda row: -row.images_per_second)
    text = f"{label(record, first)} was the fastest with {_speed(first)} images a second"
    if not others:
        text = f"{label(record, first)} computed {_speed(first)} images a second"
    ratios = [(other, compared(first, other).ratio) for other in others]
    alike = [label(record, other) for other, ratio in ratios if ratio and not ratio.difference_shown]
    behind = [(label(record, other), ratio) for other, ratio in ratios if ratio and ratio.difference_shown]
    if alike:
        text += f", with no difference shown from {_and(alike)}"
    if behind:
        text += f", {behind[0][1].ratio:.2f} times as fast as {behind[0][0]}"
    if starved := [label(record, row) for row in rows if row.summary.starved]:
        text += f"; of {_and(starved)} nothing can be said, the machine was busy"
    for twins in record.comparisons(rows):
        if twins.row.candidate.again and twins.ratio and math.isfinite(twins.ratio.high):
            text += f"; the same twice came out {twins.ratio.interval} times as fast"
    return text


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _ratios(record: Record, rows: Sequence[Row]) -> list[Line]:
    """The comparisons of these rows under `RATIOS`."""
    lines = []
    for found in record.comparisons(rows):
        name, other = label(record, found.row), label(record, found.other)
        problem = "" if found.ratio else f"not measured against {other}, {found.starved}"
        lines.append(_ratio(name, other, found.ratio, problem))
    return lines


def _changed(changes: Changes) -> Section:
    """The rows that both benchmarks have, under `CHANGES`."""
    lines = []
    for change in changes.rows:
        cells = []
        if change.ratio:
            noise = f"{change.noise:.1%}" if math.isfinite(change.noise) else "unknown"
            cells = [f"{change.ratio.ratio:.2f}", change.ratio.interval, noise, change.verdict]
        lines.append(Line(str(change.candidate), cells, change.problem))
    heading = f"against {shown(str(changes.earlier.path))}, of commit {shown(changes.earlier.code.commit or 'unknown')}"
    return Section(heading, CHANGES, lines, [])


def circumstances(record: Reported) -> list[str]:
    """Of two benchmarks: the rows that only one of them has, and what else is not as it was."""
    changes = record.changes if isinstance(record, Record) else None
    if changes is None:
        return []
    return [
        *(f"only then: {candidate}" for candidate in changes.only_then),
        *(f"only now: {candidate}" for candidate in changes.only_now),
        *changes.circumstances,
    ]


def _speed(row: Row) -> str:
    speed = row.images_per_second
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def _share(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.4g}"


def _giga(per_second: float) -> str:
    return f"{per_second / 1e9:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def label(record: Record, row: Row) -> str:
    """The row's name within its section."""
    several = len({other.candidate.dtype for other in record.rows}) > 1
    parts = [row.candidate.label, row.candidate.dtype if several else "", "+ loading" if row.candidate.pipeline else ""]
    return " ".join(filter(None, parts))


def render(record: Reported, console: Console) -> None:
    """Print the verdict, the sections, every problem, the ratios, the peaks and the warnings."""
    for sentence in verdict(record):
        say(console, sentence)
    console.print()
    for section in sections(record):
        say(console, section.heading, "bold")
        for columns, lines in ((section.columns, section.lines), (RATIOS, section.ratios)):
            measured = [line for line in lines if line.cells]
            if measured:
                print_table(console, _table(columns, measured))
            for line in lines:
                if line.problem is not None:
                    say(console, f"{line.label}: {line.problem}", "red")
        console.print()
    for text in circumstances(record):
        say(console, text)
    for text in _peaks(record):
        say(console, text, "dim")
    _say_warnings(record, console)
    console.print(Text(legend(record), style="dim"))


def render_profile(profile: Profile, console: Console) -> None:
    """Print a line for each stage, its problem and the warnings."""
    c = profile.candidate
    size = f"{profile.size} x {profile.size}"
    heading = f"{c.backend}, {profile.config.preset}, {size}, batch {c.batch}, {c.dtype}, {profile.rounds} rounds"
    say(console, heading, "bold")
    rows = profile.rows()
    if rows:
        lines = [Line(row["stage"] + (" !" if row["unsteady"] else ""), _stage_cells(row), None) for row in rows]
        sums = [_milliseconds(sum(row[f"{way}_seconds"] for row in rows)) for way in ("forward", "backward")]
        lines.append(Line("all", [*sums, "", "", ""], None))
        print_table(console, _table(_STAGE_COLUMNS, lines))
        say(console, "backward: both together, less the forward pass alone. !: the spread is over 10 %", "dim")
    if profile.problem is not None:
        say(console, profile.problem, "red")
    _say_warnings(profile, console)


_STAGE_COLUMNS = ("forward ms", "backward ms", "share", "GFLOP/s", "backward")


def _stage_cells(row: dict[str, Any]) -> list[str]:
    speeds = [row["forward_flops_per_second"], row["backward_flops_per_second"]]
    return [
        _milliseconds(row["forward_seconds"]),
        _milliseconds(row["backward_seconds"]),
        f"{row['share']:.1%}",
        *("" if speed is None else _giga(speed) for speed in speeds),
    ]


def _say_warnings(report: Report, console: Console) -> None:
    for warning in report.warnings:
        say(console, f"warning: {warning}", "yellow")


def _table(columns: Sequence[str], lines: list[Line]) -> Table:
    table = new_table("", *columns)
    table.box = box.SIMPLE_HEAD
    for line in lines:
        table.add_row(line.label, *line.cells)
    return table


def describe_peak(peak: dict[str, Any]) -> str:
    """``pt, float32, matrix product: 180 GFLOP/s``."""
    unit = "GB/s" if peak["name"] == "copy" else "GFLOP/s"
    return f"{peak['backend']}, {peak['dtype']}, {peak['name']}: {_giga(peak['per_second'])} {unit}"


def _peaks(record: Reported) -> list[str]:
    return [describe_peak(peak) for peak in record.peaks] if isinstance(record, Record) else []


def facts(record: Reported) -> list[str]:
    """Command, code, machine, versions and peaks, a line each."""
    about = record.about
    place = about["environment"]
    changes = " with changes" if about["code"]["dirty"] else ""
    used = f"{len(place['used_processors'])} used{', virtual machine' if place['virtual'] else ''}"
    memory = f"{place['memory_bytes'] / 2**30:.1f} GiB"
    limits = place["cgroup"]
    return [
        f"$ {shown(about['command'])}",
        f"commit {about['code']['commit'] or 'unknown'}{changes}, {about['before']['time']}",
        f"{place['processor']}, {place['processors']} processors, of which {used}",
        f"caches {', '.join(place['caches']) or 'unknown'}; governor {place['governor'] or 'unknown'}; memory {memory}",
        f"control group: processors {limits['cpu_max'] or 'unlimited'}, memory {limits['memory_max'] or 'unlimited'}",
        *[
            f"load average {when} {', '.join(f'{load:.2f}' for load in about[when]['load_average'])}"
            for when in ("before", "after")
        ],
        f"Python {place['python']}, {', '.join(f'{name} {version}' for name, version in place['versions'].items())}",
        *[f"{name}={shown(value)}" for name, value in place["variables"].items()],
        *_peaks(record),
    ]
