"""BENCHMARKS-GPU.md: what came of the parts, for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.gpu.plan import Part

_MISSING = "not read: that needs `pip install '.[gpu]'`"


def page(notes: dict[str, Any], parts: Sequence[Part], folder: Path) -> str:
    """Markdown with the machine, and each part's own output or tables."""
    gpu = notes["gpu"] or {}
    versions = ", ".join(f"{name} {version}" for name, version in notes["versions"].items())
    facts = {
        "GPU": notes["found"],
        "memory": f"{gpu['memory_bytes'] / 2**30:.0f} GiB" if gpu else _MISSING,
        "limits": f"{gpu['power_limit_watts']:.0f} W, {gpu['clock_limit_mhz']:,} MHz" if gpu else _MISSING,
        "versions": versions,
        "code": f"{notes['code']['commit']}{' (changed)' if notes['code']['dirty'] else ''}",
    }
    lines = ["# Benchmarks on a GPU", "", "Written by `make gpu`.", "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    for part in parts:
        lines += ["", f"## {part.title}", "", *_part(part, notes["parts"].get(part.name), folder)]
    return "\n".join(lines) + "\n"


def _part(part: Part, result: dict[str, Any] | None, folder: Path) -> list[str]:
    if result is None:
        return ["Not reached: `make gpu` again goes on here."]
    lines = [f"{result['status'].capitalize()} after {result['seconds']:.0f} s. {_condition(result['gpu'])}", ""]
    tables = folder / f"{part.name}.md"
    if tables.exists():
        _, _, sections = tables.read_text().partition("\n## ")
        return [*lines, f"### {sections}".rstrip().replace("\n## ", "\n### ")]
    output = (folder / f"{part.name}.txt").read_text(errors="replace").rstrip().splitlines()
    return [*lines, "```text", *output[-30:], "```"]


def _condition(gpu: dict[str, Any] | None) -> str:
    if gpu is None:
        return f"Clocks and power: {_MISSING}."
    clock = gpu["clock_mhz"]
    slowed = ", ".join(gpu["slowed_by"]) or "nothing"
    return (
        f"Clock {clock['median']:,.0f} MHz ({clock['min']:,} to {clock['max']:,}), {gpu['power_watts']:.0f} W in the "
        f"mean, {gpu['temperature_celsius']} °C at most; slowed down by {slowed}."
    )
