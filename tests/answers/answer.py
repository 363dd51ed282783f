"""What an answer to an exercise is, and what is said of its mistakes."""

from __future__ import annotations

from typing import NamedTuple

Said = tuple[tuple[str, str], ...]  # of each finding its place and its text


class Wrong(NamedTuple):
    """A mistake, and the findings that it makes."""

    old: str
    new: str
    said: Said


class Answers(NamedTuple):
    """A right file, and mistakes in it."""

    right: str
    wrong: tuple[Wrong, ...]


Table = dict[tuple[str, str], Answers]  # by exercise and framework


def add(table: Table, name: str, framework: str, right: str, *wrong: tuple[str, str, Said]) -> None:
    """Put an answer and mistakes in it into a table."""
    table[name, framework] = Answers(right, tuple(Wrong(*row) for row in wrong))


def differs(place: str, text: str) -> Said:
    """What is said of a setting of one's own."""
    return ((place, f"{text} is not what is asked for"),)


def missing(place: str) -> Said:
    """What is said where something has been left out."""
    return ((place, "something is missing here"),)


ALL = ", ".join(
    f"inception3a.{part}"
    for part in ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")
)
