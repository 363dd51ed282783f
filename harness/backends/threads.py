"""The threads of this process that work."""

from __future__ import annotations

from pathlib import Path


def busy_threads(before: dict[str, int]) -> int | None:
    """The number of threads that have worked since `ticks_by_thread` gave `before`.

    A thread counts that did a quarter of what the busiest one did: a share of the wall time would measure how busy
    other processes are. None where no thread has a tick yet, or the system does not tell.
    """
    worked = [ticks - before.get(thread, 0) for thread, ticks in ticks_by_thread().items()]
    return sum(ticks > max(worked) / 4 for ticks in worked) if any(worked) else None


def ticks_by_thread() -> dict[str, int]:
    """Processor time of each of this process's threads in clock ticks; empty where the system does not tell."""
    ticks = {}
    for stat in Path("/proc/self/task").glob("*/stat"):
        fields = stat.read_text().rsplit(")", 1)[1].split()  # the name before it may hold spaces
        ticks[stat.parent.name] = int(fields[11]) + int(fields[12])  # user and system
    return ticks
