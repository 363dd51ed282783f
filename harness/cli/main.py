"""The command line. Each verb imports the modules that are slow to import, frameworks among them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
import typer.rich_utils

from harness import screen
from harness.cli.bench import bench, profile
from harness.cli.check import check
from harness.cli.compare import compare, sizes
from harness.cli.learning import exercise, explore
from harness.cli.options import Device, Heads, Json, Size, Verb, console, notes, progress
from harness.cli.train import evaluate, recipes, runs, train
from harness.cli.vectors import vectors
from harness.cli.weights import convert, inspect, predict

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


class _Ended(SystemExit):
    """A signal ends the command, in order: its processes end with it, and no unfinished file stays."""


def main() -> None:
    """The `googlenet` command: exits with 0 when all is well, 1 when something does not agree, 2 on wrong usage.

    SIGINT (Ctrl-C) and SIGTERM end it with 128 and their number, unless a verb has something to keep.
    """
    if os.environ.get("NO_COLOR"):
        typer.rich_utils.FORCE_TERMINAL = False  # of help and of misspelled options
    try:
        with _ended_by(signal.SIGINT, signal.SIGTERM):
            _command()()
    except _Ended:
        notes.print("interrupted", style="red")
        raise
    except ValueError as error:
        from spec import InvalidInput

        if not isinstance(error, InvalidInput):
            raise
        screen.say(notes, f"error: {error}", "red")
        sys.exit(2)


@cache
def _command() -> Any:
    """The command, made of all verbs' options once in a process."""
    return typer.main.get_command(app)


@contextmanager
def _ended_by(*numbers: signal.Signals) -> Iterator[None]:
    """A context in which each of these signals, unless it is ignored, ends the command; one that follows is ignored."""

    def end(number: int, frame: object) -> NoReturn:
        for caught in before:
            signal.signal(caught, signal.SIG_IGN)
        raise _Ended(128 + number)

    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"googlenet {version('googlenet-three')}")
        raise typer.Exit


@app.callback()
def googlenet(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """One GoogLeNet in PyTorch, MXNet Gluon and JAX/Flax, and the proof that it is one."""


def presets(as_json: Json = False) -> None:
    """List the networks.

    Example: googlenet presets
    """
    from spec import PRESETS, parameter_count, preset

    rows: list[dict[str, Any]] = [
        {
            "preset": name,
            "input": [config.in_channels, config.input_size, config.input_size],
            "classes": config.num_classes,
            "parameters": parameter_count(config),
            "parameters_without_heads": parameter_count(preset(name, aux=False)),
            "source": config.source,
        }
        for name, config in PRESETS.items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    out = console()
    for row in rows:
        size = " x ".join(str(n) for n in row["input"])
        parameters = row["parameters"]
        without = row["parameters_without_heads"]
        heads = f" ({without:,} without auxiliary heads)" if without != parameters else ""
        screen.say(out, f"{row['preset']}: {size}, {row['classes']} classes, {parameters:,} parameters{heads}", "bold")
        screen.say(out, f"    {row['source']}", "dim")


def spec(
    preset: Annotated[str, typer.Argument(help="See `googlenet presets`.")] = "d2l",
    size: Size = None,
    heads: Heads = True,
    as_json: Json = False,
) -> None:
    """Print a network as the paper's Table 1, with parameters and multiply-adds.

    Example: googlenet spec bvlc --size 224
    """
    import spec as network
    from spec.table import render, table

    config = network.preset(preset, aux=None if heads else False)
    side = config.input_size if size is None else size
    shape = (config.in_channels, side, side)
    if not as_json:
        print(render(config, shape))
        return
    rows = table(config, shape)
    summary: dict[str, Any] = {
        "preset": config.preset,
        "source": config.source,
        "input": list(shape),
        "classes": config.num_classes,
        "minimum_input_size": network.minimum_input_size(config),
        "stages": [
            {
                "name": row.stage,
                "kernel": row.kernel,
                "shape": list(row.shape),
                "branches": list(row.branches.values()),
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
            }
            for row in rows
        ],
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
    }
    print(json.dumps(summary, indent=2))


def doctor(device: Device = "auto", as_json: Json = False) -> None:
    """Show which backends work here, their devices and threads, and the remedy where one does not work.

    Example: googlenet doctor
    """
    from harness.backends.doctor import examine, render
    from harness.backends.registry import BACKENDS

    with progress(list(BACKENDS)) as done:
        findings = examine(device, done)
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        render(findings, console())
    raise typer.Exit(0 if all(not backend["problems"] for backend in findings["backends"].values()) else 1)


_TRAINING = (train, evaluate, runs, recipes)
for _verb in (
    presets,
    spec,
    check,
    vectors,
    exercise,
    compare,
    explore,
    *_TRAINING,
    sizes,
    convert,
    inspect,
    predict,
    bench,
    profile,
    doctor,
):
    app.command("eval" if _verb is evaluate else None, cls=Verb)(_verb)


if __name__ == "__main__":
    main()
