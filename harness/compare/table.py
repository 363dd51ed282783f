"""A comparison as a table in the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.compare.comparison import BackendReport, Check, Report, checks
from harness.screen import new_table, print_table, say
from harness.shown import shown


def render(report: Report, console: Console) -> None:
    """Print stages down and backends across, with the first difference marked, and the verdict."""
    shape = " x ".join(map(str, report.shape))
    weights = f"seed {report.seed}" if report.weights is None else shown(report.weights)
    say(
        console,
        f"{report.preset} on {shown(report.source)}, {shape} (N x C x H x W), {report.dtype}, {weights}; "
        "largest relative difference from the NumPy referee",
    )
    answered = {name: backend for name, backend in report.backends.items() if backend.crash is None}
    if answered:
        print_table(console, _table(report, answered))
    for name, backend in report.backends.items():
        if backend.crash is not None:
            say(console, f"{name}: the process died. {backend.crash}", "red")
            continue
        threads = "" if backend.threads is None else f", {backend.threads} threads"
        worst = f"; worst gradient {backend.worst_gradient}" if backend.worst_gradient else ""
        line = f"{name}: {backend.framework} {backend.version}, {backend.device}{threads}{worst}"
        say(console, line, "dim")
    console.print(_verdict(report), soft_wrap=True)


def _table(report: Report, answered: dict[str, BackendReport]) -> Table:
    backends = list(answered.values())
    table = new_table("stage", "shape", *answered)
    table.columns[1].style = "dim"
    shapes = [" x ".join(map(str, shape)) for shape in report.stage_shapes.values()]
    rows = zip(*(checks(backend, report.tolerances) for backend in backends), strict=True)
    for number, row in enumerate(rows):
        if number == len(shapes):
            table.add_section()
        cells = [_cell(backend, check) for backend, check in zip(backends, row, strict=True)]
        table.add_row(row[0].title, shapes[number] if number < len(shapes) else "", *cells)
    expected = report.expected_parameters
    counts = [
        Text(f"{backend.parameters:,}", style="green" if backend.parameters == expected else "bold red")
        for backend in backends
    ]
    table.add_row("parameters", f"{expected:,}", *counts)
    return table


def _cell(backend: BackendReport, check: Check) -> Text:
    if check.error is None:
        return Text("")
    text = f"{check.error:.1e}" if math.isfinite(check.error) else "differs"
    if backend.first_difference == check.name:
        return Text(f"first > {text}", style="bold red")
    return Text(text, style="green" if check.error <= check.bound else "red")


def _verdict(report: Report) -> Text:
    if report.passed:
        names = ", ".join(report.backends)
        return Text(f"PASS: {names} and the referee compute the same network.", style="bold green")
    reasons = [
        f"{name} crashed" if backend.crash is not None else f"{name} differs first at {backend.first_difference}"
        for name, backend in report.backends.items()
        if not backend.passed
    ]
    return Text(f"FAIL: {'; '.join(reasons)}.", style="bold red")
