"""A comparison as a table that a person likes to read."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from harness.compare.backends import BackendReport, Report


def render(report: Report, console: Console) -> None:
    """Print stages down, backends across, the first difference marked, and a verdict."""
    bounds, ran = report.tolerances, {name: r for name, r in report.backends.items() if r.crash is None}
    console.print(
        f"[bold]{report.preset}[/] on {escape(report.source)}, "
        f"{' x '.join(map(str, report.shape))} (N x C x H x W), {report.dtype}, "
        f"{f'seed {report.seed}' if report.weights is None else escape(report.weights)}; "
        "largest relative difference from the NumPy referee",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("shape", justify="right", style="dim")
    for name in ran:
        table.add_column(name, justify="right")
    first = next(iter(ran.values()), BackendReport())
    for i, stage in enumerate(first.stages):
        shape = " x ".join(str(n) for n in stage.shape[1:])
        cells = [_cell(r, r.stages[i].error, bounds.activations, stage.name) for r in ran.values()]
        table.add_row(stage.name, shape, *cells)
    table.add_section()
    table.add_row("logits", "", *[_cell(r, r.logits_error, bounds.logits, "logits") for r in ran.values()])
    table.add_row("loss", "", *[_cell(r, r.loss_error, bounds.loss, "loss") for r in ran.values()])
    gradients = [_cell(r, r.gradient_error, bounds.gradients, f"gradient of {r.worst_gradient}") for r in ran.values()]
    table.add_row("gradients, worst", "", *gradients)
    steps = [_cell(r, r.step_error, bounds.step, f"{r.worst_step} after a step") for r in ran.values()]
    table.add_row("one SGD step", "", *steps)
    counts = [_count(r.parameters, report.expected_parameters) for r in ran.values()]
    table.add_row("parameters", f"{report.expected_parameters:,}", *counts)
    if ran:
        console.print(table)
    for name, r in report.backends.items():
        if r.crash is not None:
            console.print(Text(f"{name}: the process died. {r.crash}", style="red"))
            continue
        threads = "" if r.threads is None else f", {r.threads} threads"
        worst = f"; worst gradient {r.worst_gradient}" if r.worst_gradient else ""
        console.print(
            Text(f"{name}: {r.framework} {r.version}, {r.device}{threads}{worst}", style="dim"), soft_wrap=True
        )
    console.print(_verdict(report), soft_wrap=True)


def _cell(report: BackendReport, error: float | None, bound: float, what: str) -> Text:
    if error is None:
        return Text("")
    text = f"{error:.1e}" if math.isfinite(error) else "differs"
    if report.first_difference == what:
        return Text(f"first > {text}", style="bold red")
    return Text(text, style="green" if error <= bound else "red")


def _count(got: int, expected: int) -> Text:
    return Text(f"{got:,}", style="green" if got == expected else "bold red")


def _verdict(report: Report) -> Text:
    if report.passed:
        names = ", ".join(report.backends)
        return Text(f"PASS: {names} and the referee compute the same network.", style="bold green")
    reasons = [
        f"{name} crashed" if r.crash is not None else f"{name} differs first at {r.first_difference}"
        for name, r in report.backends.items()
        if not r.passed
    ]
    return Text(f"FAIL: {'; '.join(reasons)}.", style="bold red")
