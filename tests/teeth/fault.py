"""What a fault is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A mistake as somebody could make it, and the quick tests that have to find it.

    Attributes:
        name: What is wrong, in words.
        file: Where, from the project's root.
        old: Text that stands there once.
        new: What takes its place.
        tests: Files or ids of quick tests, those first that find it soonest.
        slow: Why only the slow suite finds it; None where a quick test does.
        trap: Which of `docs/traps.py` it is.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    slow: str | None = None
    trap: str | None = None
