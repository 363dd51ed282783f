"""All faults, and whether each still has its place in the code."""

from __future__ import annotations

from pathlib import Path

from teeth import (
    benchmarks,
    checking,
    commands,
    definition,
    exercises,
    explore,
    files,
    gpus,
    kits,
    networks,
    operations,
    reading,
    training,
)
from teeth.fault import Fault

FAULTS: list[Fault] = [
    *definition.FAULTS,
    *operations.FAULTS,
    *networks.FAULTS,
    *training.FAULTS,
    *benchmarks.FAULTS,
    *files.FAULTS,
    *commands.FAULTS,
    *checking.FAULTS,
    *kits.FAULTS,
    *reading.FAULTS,
    *exercises.FAULTS,
    *explore.FAULTS,
    *gpus.FAULTS,
]


def misplaced(root: Path) -> list[str]:
    """The faults whose text does not stand in their file exactly once, in words; `root` holds the project."""
    found = []
    for fault in FAULTS:
        path = root / fault.file
        times = path.read_text().count(fault.old) if path.is_file() else 0
        if times != 1:
            found.append(f"{fault.name}: {fault.file} has its text {times} times: {fault.old!r}")
    return found
