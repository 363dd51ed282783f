"""A benchmark as a section of a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.atomic import StrPath
from harness.bench.accuracy import Accuracy
from harness.bench.report.tables import (
    LEGEND,
    RATIOS,
    Line,
    Reported,
    circumstances,
    facts,
    legend,
    sections,
    title,
    verdict,
)
from harness.shown import shown


def markdown(report: Reported) -> str:
    """A section of a Markdown file: the tables, the environment and the command."""
    lines = [f"## {title(report)}", ""]
    lines += [*map(_escaped, verdict(report)), ""]
    for section in sections(report):
        lines += [f"{section.heading}:", "", *_markdown_table(section.columns, section.lines), ""]
        if section.ratios:
            lines += [*_markdown_table(RATIOS, section.ratios), ""]
    lines += [legend(report), ""] if isinstance(report, Accuracy) else []
    lines += [f"- {_escaped(line)}" for line in circumstances(report)]
    lines += [f"- warning: {_escaped(warning)}" for warning in report.warnings]
    lines += ["", *[f"    {fact}" for fact in facts(report)], ""]
    return "\n".join(lines)


def _markdown_table(columns: Sequence[str], lines: Sequence[Line]) -> list[str]:
    rows = [f"| | {' | '.join(columns)} |", "|---" + "|---:" * len(columns) + "|"]
    for line in lines:
        cells = line.cells or [line.problem or "", *[""] * (len(columns) - 1)]
        rows.append(f"| {line.label} | {' | '.join(map(_escaped, cells))} |")
    return rows


def _escaped(text: str) -> str:
    return shown(" ".join(text.split())).replace("|", "\\|")


def append_markdown(report: Reported, path: StrPath) -> None:
    """Add the section to a file, which gets a title if it is new."""
    path = Path(path)
    with path.open("a") as file:
        if file.tell() == 0:
            file.write(f"# Benchmarks\n\nWritten by `googlenet bench --markdown`. {LEGEND[0].upper()}{LEGEND[1:]}\n\n")
        file.write(markdown(report) + "\n")
