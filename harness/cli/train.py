"""The verbs about training: train, eval, runs, recipes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.cli.options import (
    DataDir,
    Device,
    Json,
    Python,
    bar,
    check_choices,
    interpreters,
    notes,
)

# What may stand beside --resume; everything else was settled when the run began.
_GOING_ON = frozenset("resume backend data_dir devices steps log_every save_every python as_json".split())


def train(
    context: typer.Context,
    backends: Annotated[
        list[str] | None, typer.Argument(help="pt, mx, jax: one or several, one after the other.", show_default="all")
    ] = None,
    recipe: Annotated[str, typer.Option(help="See `googlenet recipes`, or a TOML file.")] = "fast",
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, or folder:PATH with one subfolder a class.")
    ] = "digits",
    data_dir: DataDir = None,
    preset: Annotated[str | None, typer.Option(help="See `googlenet presets`.", show_default="the recipe's")] = None,
    epochs: Annotated[int | None, typer.Option(help="Over all images.", show_default="the recipe's")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the recipe's")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", show_default="the recipe's")] = None,
    heads: Annotated[
        bool | None, typer.Option("--aux/--no-aux", help="With auxiliary heads.", show_default="as the preset")
    ] = None,
    norm_momentum: Annotated[
        float | None,
        typer.Option(help="Share of the batch in batch norm's running statistics, to 1.", show_default="the recipe's"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    device: Device = "auto",
    devices: Annotated[
        int | None,
        typer.Option(
            help="Of this machine, that share each batch: GPUs, or parts of the CPU.", min=1, show_default="1"
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-DATA-TIME")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, or with one backend's folder in it.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="With --resume: go on in this backend, even if another one began.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop and save after this many steps in all.", min=1)] = None,
    log_every: Annotated[int, typer.Option(help="Steps between records.", min=1)] = 10,
    save_every: Annotated[float, typer.Option(help="Seconds between checkpoints within an epoch.", min=0)] = 60,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Train: the same start and the same batches in every backend, resumable, in any backend.

    Ctrl-C stops after the step at hand and saves. Exits with 1 when a run ends early otherwise than by --steps.

    Examples:

    googlenet train pt

    googlenet train pt mx jax --recipe d2l --data fashion-mnist --run runs/d2l

    googlenet train --resume runs/d2l

    googlenet train --resume runs/d2l/pt --backend jax

    googlenet train pt --devices 2
    """
    from harness.backends.registry import BACKENDS, check_names
    from harness.training import display
    from harness.training.recipe import recipe as read_recipe
    from harness.training.runs import backend_folders
    from harness.training.train import Options, check_data, create, default_name, reopen, settings_for
    from harness.training.train import train as train_parts
    from spec import InvalidInput, stage_shapes

    pythons = interpreters(python or [], list(BACKENDS))
    if resume is None:
        if backend is not None:
            raise InvalidInput("--backend: only with --resume; name backends before the options: googlenet train jax")
        check_choices(dtype=dtype, device=device)
        changes: dict[str, Any] = {
            "preset": preset,
            "epochs": epochs,
            "size": size,
            "batch": batch,
            "aux": heads,
            "norm_momentum": norm_momentum,
        }
        chosen = replace(read_recipe(recipe), **{key: value for key, value in changes.items() if value is not None})
        config = chosen.config()
        stage_shapes(config, (config.in_channels, chosen.size, chosen.size))  # refuse before any work is done
        names = check_names(backends or list(BACKENDS))
        dataset = _prepare(data, config.in_channels, chosen.size, data_dir)
        settings = settings_for(chosen, dataset, seed, dtype, device)
        folder = run or default_name(recipe, data)
        parts = create(folder, names, settings)
    else:
        sources = {option.opts[0]: context.get_parameter_source(option.name) for option in context.command.params}
        allowed = {option.opts[0] for option in context.command.params if option.name in _GOING_ON}
        given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        if unused := [name for name in given if name not in allowed]:
            raise InvalidInput(f"--resume goes on with a run as it is: leave out {', '.join(unused)}")
        parts = reopen(resume, backend)
        folder = parts[0].folder.parent
        settings = parts[0].settings
        config = settings.config
        dataset = _prepare(settings.data, config.in_channels, settings.recipe.size, data_dir)
        check_data(parts, dataset)
    options = Options(log_every=log_every, save_every=save_every, stop_after=steps, devices=devices)
    found = train_parts(parts, dataset, options, display.Screen(notes), pythons)
    if not found:
        return  # another process of the same run shows what came of it
    display.draw_run(folder)
    if as_json:
        print(json.dumps({"run": str(folder), "backends": [asdict(result) for result in found]}, indent=2))
    elif backend_folders(folder):
        display.show_run(folder, Console())
    raise typer.Exit(0 if all(result.problem is None for result in found) else 1)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint, or the folder of one backend's run.")],
    data: Annotated[str | None, typer.Option(help="As for `train`.", show_default="what it was trained on")] = None,
    data_dir: DataDir = None,
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    backend: Annotated[
        str | None, typer.Option(help="pt, mx or jax.", show_default="the one that trained last")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, float64 or bfloat16.", show_default="as trained")] = None,
    device: Device = "auto",
    picture: Annotated[
        Path | None, typer.Option(help="Of the confusion matrix.", show_default="confusion.png beside the checkpoint")
    ] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Loss, accuracy, each class and the confusion matrix of a trained network.

    Example: googlenet eval runs/d2l/pt --backend jax
    """
    from harness.backends.process import run_worker
    from harness.backends.registry import check_names
    from harness.images.batches import open_dataset
    from harness.training import display
    from harness.training.curves import draw_confusion
    from harness.training.runs import CHECKPOINT, of_checkpoint
    from harness.weights.checkpoint import load
    from spec import InvalidInput

    path = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    found = load(path)
    settings, position = of_checkpoint(found, path)
    (name,) = check_names([backend or position.lineage[-1]["backend"]])
    dtype = dtype or settings.dtype
    check_choices(dtype=dtype, device=device, part=part)
    recipe = settings.recipe
    dataset = _prepare(data or settings.data, found.config.in_channels, recipe.size, data_dir)
    opened = open_dataset(dataset)
    if opened.classes != settings.classes:
        raise InvalidInput(
            f"{opened.source} has the classes {', '.join(opened.classes)}; {path} was trained on "
            f"{', '.join(settings.classes)}"
        )
    task = {
        "kind": "evaluate",
        "checkpoint": str(path.resolve()),
        "dataset": str(dataset.resolve()),
        "part": part,
        "dtype": dtype,
        "device": device,
        "batch": recipe.batch,
        "mean": recipe.mean,
        "std": recipe.std,
    }
    python_path = interpreters(python or [], [name]).get(name, sys.executable)
    with bar(f"evaluating in {name}") as advance:
        answer = run_worker(name, task, {}, python_path, lambda message: advance(message["images"], message["of"]))
    if answer.refused is not None:
        raise InvalidInput(answer.refused)
    if answer.crash is not None:
        notes.print(f"{name}: {answer.crash}", style="red", markup=False, highlight=False)
        raise typer.Exit(1)
    confusion = answer.arrays["confusion"]
    picture = picture or path.with_name("confusion.png")
    title = f"{path.parent.name}/{path.name} on {opened.source}, {part} images"
    draw_confusion(confusion, opened.classes, picture, title)
    if as_json:
        facts = {"checkpoint": str(path), "step": position.step, "backend": name, "data": opened.source, "part": part}
        facts |= answer.facts | {"classes": display.class_table(confusion, opened.classes)}
        print(json.dumps(facts | {"confusion": confusion.tolist(), "picture": str(picture)}, indent=2))
        return
    console = Console()
    display.show_scores(confusion, answer.facts["loss"], opened.classes, console)
    console.print(f"confusion matrix: {picture}", highlight=False, markup=False, soft_wrap=True)


def runs(
    folder: Annotated[Path, typer.Argument(help="Where the runs are, or one of them.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List training runs, their settings and results, side by side.

    Example: googlenet runs
    """
    from harness.training import display
    from harness.training.runs import backend_folders, read_settings
    from spec import InvalidInput

    if not folder.is_dir():
        raise InvalidInput(f"{folder}: expected a folder of runs; `googlenet train --help` says how to make one")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [path for path in candidates if backend_folders(path)]
    if as_json:
        rows = [
            {
                "run": str(path),
                "settings": read_settings(next(iter(backend_folders(path).values()))).as_json(),
                "backends": [asdict(result) for result in display.results(path)],
            }
            for path in found
        ]
        print(json.dumps(rows, indent=2))
        return
    console = Console()
    for path in found:
        display.show_run(path, console)
    if not found:
        console.print(f"no runs in {folder}", highlight=False, markup=False)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe's file, to be copied and changed.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or print one.

    Example: googlenet recipes d2l > mine.toml
    """
    from harness.training.recipe import recipe as read_recipe
    from harness.training.recipe import recipe_path
    from harness.training.recipe import recipes as known

    if name is not None:
        found = read_recipe(name)
        print(json.dumps(found.as_table(), indent=2) if as_json else recipe_path(name).read_text(), end="")
        return
    rows = {name: read_recipe(name) for name in known()}
    if as_json:
        print(json.dumps({name: row.as_table() for name, row in rows.items()}, indent=2))
        return
    console = Console()
    for name, row in rows.items():
        kind = row.as_table()["optimizer"]["name"]
        rate = f"{kind} {row.optimizer.rate:g}, {row.as_table()['schedule']['name']}"
        what = f"preset {row.preset}, {row.size} x {row.size}, batch {row.batch}, {row.epochs} epochs, {rate}"
        console.print(f"[bold]{name}[/]: {what}, init {row.init}", highlight=False, soft_wrap=True)
        for text in (row.source, row.published and f"published: {row.published}"):
            if text:
                console.print(f"    {text}", style="dim", highlight=False, soft_wrap=True)


def _prepare(source: str, channels: int, size: int, data_dir: Path | None) -> Path:
    """The folder of a dataset, prepared now if it is not there yet."""
    from harness.images.prepared import prepare

    with bar(f"preparing {source}") as advance:
        return prepare(source, channels, size, data_dir, advance)
