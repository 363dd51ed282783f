"""Options that several verbs have, and progress on the standard error."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core
from rich.console import Console

from harness import screen
from harness.shown import shown

if TYPE_CHECKING:
    from rich.status import Status

    from harness.weights.formats import RunTask
    from harness.weights.preprocessing import Preprocessing

_WIDTH = 200  # characters, in a file or a pipe


def console(stderr: bool = False) -> Console:
    """Where results go, or with `stderr` progress and errors. With NO_COLOR it is as plain as a pipe.

    In a file or a pipe tables and lines are whole, unless COLUMNS says how wide it is.
    """
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH
    return Console(stderr=stderr, force_terminal=False if os.environ.get("NO_COLOR") else None, width=width)


notes = console(stderr=True)
_SILENCE = 20.0  # seconds between two lines of progress off a terminal


class Verb(typer.core.TyperCommand):
    """A verb of the command: in its values ``~``, ``folder:~`` and ``pt=~`` are the user's home.

    A shell sees to some of them only, and to none in a variable of the environment.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        ctx.params = {name: _at_home(value) for name, value in ctx.params.items()}
        return rest


def _at_home(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_at_home, value))
    if isinstance(value, Path):
        return Path(_at_home(str(value)))
    if isinstance(value, str) and (match := re.match(r"(folder:|\w+=)?~(?=/|$)", value)):
        return f"{match[1] or ''}{Path.home()}{value[match.end() :]}"
    return value


def chosen_device(name: str) -> str:
    """``auto``, ``cpu`` or ``gpu``. Of several GPUs the workers see the one that ``gpu:1`` or ``cuda:1`` names."""
    match = re.fullmatch(r"(auto|cpu)|(?:gpu|cuda)(?::(\d{1,3}))?", name)
    if match is None:
        raise typer.BadParameter(f"expected auto, cpu, gpu or, of several, gpu:1 (cuda means gpu), got {name!r}")
    if match[2] is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = visible.split(",") if visible else None
        if numbers and int(match[2]) >= len(numbers):
            raise typer.BadParameter(f"{name} counts from 0, and CUDA_VISIBLE_DEVICES={visible} has {len(numbers)}")
        os.environ["CUDA_VISIBLE_DEVICES"] = numbers[int(match[2])] if numbers else match[2]
    return match[1] or "gpu"


Dtype = Literal["float32", "tf32", "float64", "bfloat16"]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|gpu|gpu:N", callback=chosen_device, help="The device to compute on. cuda means gpu."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="GOOGLENET_DATA", help="Folder of the Fashion-MNIST files; without it they are downloaded."),
]
Python = Annotated[
    list[str] | None,
    typer.Option(metavar="BACKEND=PATH", help="Run a backend with another interpreter. May be repeated."),
]
Average = Annotated[
    bool, typer.Option("--average/--no-average", help="Take a training's averaged weights, where it has them.")
]
SkipDamaged = Annotated[bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be read.")]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the preset's")]
Heads = Annotated[bool, typer.Option("--aux/--no-aux", help="With auxiliary heads, where the preset has them.")]


def say(lines: Iterable[str]) -> None:
    """Print lines on the standard error, with what a user should know beside the results."""
    for line in lines:
        screen.say(notes, line)


def split(names: str) -> list[str]:
    """``["pt", "mx"]`` of ``"pt, mx"``."""
    return [name.strip() for name in names.split(",") if name.strip()]


def typed(context: typer.Context) -> dict[str, str]:
    """The options that stand on the command line: their words by their names."""
    words = {option.name: option.opts[0] for option in context.command.params if option.name is not None}
    sources = {name: context.get_parameter_source(name) for name in words}
    return {name: words[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}


def interpreters(options: list[str], backends: list[str]) -> dict[str, str]:
    """``{"mx": "/path"}`` of the values ``["mx=/path"]`` of --python.

    Raises:
        InvalidInput: for another backend, or a path that is not a program.
    """
    from spec import InvalidInput

    pythons = {}
    for option in options:
        backend, equals, path = option.partition("=")
        if not equals or backend not in backends:
            raise InvalidInput(f"--python: expected BACKEND=PATH with one of {', '.join(backends)}, got {option!r}")
        if not os.access(path, os.X_OK) or Path(path).is_dir():
            raise InvalidInput(f"--python {option}: {path!r} is not a program that can be run")
        pythons[backend] = path
    return pythons


def lines() -> Callable[[str, int, int], None]:
    """Progress off a terminal: a line now and then, for whoever reads a log."""
    told = time.monotonic()

    def tell(text: str, done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _SILENCE:
            told = time.monotonic()
            say([f"{text} ({done:,} of {total:,})"])

    return tell


@contextmanager
def progress(names: list[str]) -> Iterator[Callable[..., None]]:
    """A bar for each name; off a terminal a line now and then.

    Yields a function of a name, how much is done and the total; the name alone means that it is finished.
    """
    if not notes.is_terminal:
        tell = lines()
        yield lambda name, done=1, total=1: tell(name, done, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(finished_text="✓"), text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as bars:
        tasks = {name: bars.add_task(shown(name), total=1) for name in names}
        yield lambda name, done=1, total=1: bars.update(tasks[name], completed=done, total=total)


def working(text: str) -> Status:
    """A spinner on a terminal while something runs that has no parts to count; nothing elsewhere.

    Args:
        text: What is done; names from outside are taken as they are, after `shown`.
    """
    from rich.text import Text

    return notes.status(Text(text))


def task_runner(python: list[str] | None) -> RunTask:
    """Make the function that runs the tasks that need a framework."""
    from harness.backends.process import run_worker
    from harness.backends.registry import BACKENDS

    pythons = interpreters(python or [], list(BACKENDS))
    return lambda backend, task, arrays: run_worker(backend, task, arrays, pythons.get(backend, sys.executable))


def tell_pictures(prepare: Preprocessing) -> None:
    """Say how pictures are prepared for foreign weights, and warn where nobody has said it."""
    if not prepare.source:
        return
    text, style = f"pictures: {prepare}, {prepare.source}", "dim"
    if prepare.assumed:
        hint = "--preprocessing, --order, --scale, --mean and --std of predict and convert change it"
        text, style = f"warning: assumed of {text} ({hint})", "yellow"
    screen.say(notes, text, style)
