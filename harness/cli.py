"""The command line. Frameworks, and whatever else is slow to import, are imported by the verb that needs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    help="One GoogLeNet in PyTorch, MXNet Gluon and JAX/Flax, and the proof that it is one.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
_notes = Console(stderr=True)  # progress and errors

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Heads = Annotated[bool, typer.Option("--aux/--no-aux", help="With auxiliary heads, where the preset has them.")]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the preset's")]


def main() -> None:
    """The `googlenet` command: 0 when all is well, 1 when something does not agree, 2 on wrong usage."""
    try:
        app()
    except ValueError as error:
        from spec import InvalidInput

        if not isinstance(error, InvalidInput):
            raise
        _notes.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


@app.command()
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
    console = Console()
    for row in rows:
        size = " x ".join(str(n) for n in row["input"])
        parameters, without = row["parameters"], row["parameters_without_heads"]
        heads = f" ({without:,} without auxiliary heads)" if without != parameters else ""
        console.print(f"[bold]{row['preset']}[/]: {size}, {row['classes']} classes, {parameters:,} parameters{heads}")
        console.print(f"    {row['source']}", style="dim", highlight=False)


@app.command()
def spec(
    preset: Annotated[str, typer.Argument(help="See `googlenet presets`.")] = "d2l",
    size: Size = None,
    heads: Annotated[
        bool, typer.Option("--aux/--no-aux", help="With auxiliary heads, where the preset has them.")
    ] = True,
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
                "branches": list(row.branches),
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
            }
            for row in rows
        ],
        "parameters": sum(row.parameters for row in rows),
        "multiply_adds": sum(row.multiply_adds for row in rows),
    }
    print(json.dumps(summary, indent=2))


@app.command()
def compare(
    pictures: Annotated[list[str] | None, typer.Argument(help="More picture files, after --data FILE.")] = None,
    preset: Annotated[str, typer.Option(help="See `googlenet presets`.")] = "d2l",
    backends: Annotated[str, typer.Option(help="Which, in this order, separated by commas.")] = "pt,mx,jax",
    size: Size = None,
    batch: Annotated[int | None, typer.Option(help="Number of images.", show_default="4, or all files named")] = None,
    dtype: Annotated[str, typer.Option(help="float64 or float32.")] = "float64",
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, a folder of pictures, or picture files.")
    ] = "digits",
    data_dir: Annotated[
        Path | None,
        typer.Option(envvar="GOOGLENET_DATA", help="Folder of the Fashion-MNIST files; downloaded once if not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    heads: Annotated[
        bool, typer.Option("--aux/--no-aux", help="With auxiliary heads, where the preset has them.")
    ] = True,
    python: Annotated[
        list[str] | None,
        typer.Option(metavar="BACKEND=PATH", help="Run a backend with another interpreter. May be repeated."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the results as JSON; - for stdout.")
    ] = None,
) -> None:
    """Hold the backends against the NumPy referee on real images: every stage, every gradient, one training step.

    Exits with 0 when all agree and with 1 when one does not. Dropout is off, since no two frameworks drop the same.

    Examples:

    googlenet compare

    googlenet compare --preset bvlc --data cat.jpg dog.jpg

    googlenet compare --backends jax --python jax=/path/to/other/environment/bin/python
    """
    import spec as network
    from harness.backend import check_names
    from harness.compare import compare as run
    from harness.data import load_batch
    from harness.report import render
    from spec.tolerances import TOLERANCES

    names = check_names([name.strip() for name in backends.split(",") if name.strip()])
    for what, value, known in (("dtype", dtype, TOLERANCES), ("device", device, ("auto", "cpu", "gpu"))):
        if value not in known:
            raise network.InvalidInput(f"{what}: expected one of {', '.join(known)}, got {value!r}")
    config = network.preset(preset, aux=None if heads else False, dropout=0.0)
    side = config.input_size if size is None else size
    network.stage_shapes(config, (config.in_channels, side, side))  # refuse before any work is done
    images = load_batch([data, *(pictures or [])], config, side, batch, data_dir)
    if json_file not in (None, Path("-")) and not json_file.parent.is_dir():
        raise network.InvalidInput(f"--json {json_file}: there is no folder {json_file.parent}")
    with _progress(["referee", *names]) as done:
        report = run(
            config,
            images,
            backends=names,
            dtype=dtype,
            device=device,
            seed=seed,
            pythons=_interpreters(python or [], names),
            done=done,
        )
    console = _notes if json_file == Path("-") else Console()
    render(report, console)
    if json_file is not None:
        text = json.dumps(report.as_json(), indent=2) + "\n"
        if json_file == Path("-"):
            sys.stdout.write(text)
        else:
            json_file.write_text(text)
    raise typer.Exit(0 if report.passed else 1)


@app.command()
def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu or gpu: what the backends are asked for.")] = "auto",
    as_json: Json = False,
) -> None:
    """Say which backends work here, on which devices and with how many threads, and what to do where one does not.

    Example: googlenet doctor
    """
    from harness.backend import BACKENDS
    from harness.doctor import examine, render

    with _progress(list(BACKENDS)) as done:
        findings = examine(device, done)
    if as_json:
        print(json.dumps(findings, indent=2))
    else:
        render(findings, Console())
    raise typer.Exit(0 if all(not found["problems"] for found in findings["backends"].values()) else 1)


def _interpreters(given: list[str], backends: list[str]) -> dict[str, str]:
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
def _progress(names: list[str]) -> Iterator[Any]:
    """A line with a clock for each name, on a terminal only; yields the function that ticks one off."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_notes, transient=True, disable=not _notes.is_terminal) as progress:
        tasks = {name: progress.add_task(name, total=1) for name in names}
        yield lambda name: progress.update(tasks[name], completed=1)


if __name__ == "__main__":
    main()
