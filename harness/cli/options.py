"""What the verbs of the command line share: options, checks of them, and progress on the standard error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

notes = Console(stderr=True)  # progress and errors

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[str, typer.Option(help="auto, cpu or gpu.")]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="GOOGLENET_DATA", help="Folder of the Fashion-MNIST files; downloaded once if not given."),
]
Python = Annotated[
    list[str] | None,
    typer.Option(metavar="BACKEND=PATH", help="Run a backend with another interpreter. May be repeated."),
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the preset's")]

_CHOICES = {
    "dtype": ("float32", "float64", "bfloat16"),
    "stored_dtype": ("float32", "float64"),
    "device": ("auto", "cpu", "gpu"),
    "part": ("test", "train"),
}


def split(names: str) -> list[str]:
    """``["pt", "mx"]`` of ``"pt, mx"``."""
    return [name.strip() for name in names.split(",") if name.strip()]


def check_choices(**given: str) -> None:
    """Refuse a value that its option does not know; `stored_dtype` is a dtype of files."""
    from spec import InvalidInput

    for what, value in given.items():
        if value not in _CHOICES[what]:
            option = what.removeprefix("stored_")
            raise InvalidInput(f"{option}: expected one of {', '.join(_CHOICES[what])}, got {value!r}")


@contextmanager
def bar(what: str) -> Iterator[Any]:
    """A bar, on a terminal only; yields the function that takes how much is done, and of how much."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def interpreters(given: list[str], backends: list[str]) -> dict[str, str]:
    """``{"mx": "/path"}`` of ``["mx=/path"]``."""
    from spec import InvalidInput

    pythons = {}
    for item in given:
        backend, equals, path = item.partition("=")
        if not equals or backend not in backends:
            raise InvalidInput(f"--python: expected BACKEND=PATH with one of {', '.join(backends)}, got {item!r}")
        if not os.access(path, os.X_OK) or Path(path).is_dir():
            raise InvalidInput(f"--python {item}: {path!r} is not a program that can be run")
        pythons[backend] = path
    return pythons


@contextmanager
def progress(names: list[str]) -> Iterator[Any]:
    """A line with a clock for each name, on a terminal only; yields the function that ticks one off."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as shown:
        tasks = {name: shown.add_task(name, total=1) for name in names}
        yield lambda name: shown.update(tasks[name], completed=1)
