"""What is printed: lines in which no name from outside does harm, and tables that lose no figure."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from harness.shown import shown


def say(console: Console, text: str, style: str = "") -> None:
    """Print a text that may hold names from outside, unwrapped; it obeys its own line breaks and nothing else."""
    console.print(Text("\n".join(map(shown, text.split("\n"))), style=style), soft_wrap=True)


def cell(name: object, style: str = "") -> Text:
    """A name from outside, in a table."""
    return Text(shown(name), style=style)


def new_table(first: str, *figures: str) -> Table:
    """An empty table. Names in the first column are folded where the screen is narrow; figures are never cut."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table. Columns that a narrow screen has no room for come below, beside the first column again.

    The first column is folded where it takes more than half of the screen.
    """
    first, *others = table.columns
    own = _width(console, table, [first])
    free = console.width - min(own, console.width // 2)
    room, beside = free, [first]
    for column in others:
        needed = _width(console, table, [first, column]) - own
        if needed > room and len(beside) > 1:
            console.print(_with_columns(table, beside))
            room, beside = free, [first]
        room -= needed
        beside.append(column)
    console.print(_with_columns(table, beside))


def _width(console: Console, table: Table, columns: Sequence[Column]) -> int:
    """Characters that these columns of a table would take."""
    return Measurement.get(console, console.options.update(width=10_000), _with_columns(table, columns)).maximum


def _with_columns(table: Table, columns: Sequence[Column]) -> Table:
    part = copy(table)
    part.columns = [replace(column, _index=number) for number, column in enumerate(columns)]
    return part
