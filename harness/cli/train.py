"""The verbs about training: train, eval, runs, recipes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness import screen
from harness.cli.options import (
    Average,
    DataDir,
    Device,
    Dtype,
    Json,
    Python,
    SkipDamaged,
    console,
    interpreters,
    notes,
    progress,
    say,
    task_runner,
    tell_pictures,
    typed,
)
from harness.shown import shown

# The options that --resume allows. The others were settled when the run began.
_WITH_RESUME = frozenset("resume backend data_dir skip_damaged devices steps python as_json".split())


def train(
    context: typer.Context,
    backends: Annotated[
        list[str] | None, typer.Argument(help="pt, mx, jax: one or several, one after the other.", show_default="all")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="See `googlenet recipes`, or a TOML file.",
            show_default="digits; fast with other data; fine-tune with --weights",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, or folder:PATH with one subfolder a class.")
    ] = "digits",
    data_dir: DataDir = None,
    skip_damaged: SkipDamaged = False,
    preset: Annotated[str | None, typer.Option(help="See `googlenet presets`.", show_default="the recipe's")] = None,
    epochs: Annotated[int | None, typer.Option(help="Over all images.", show_default="the recipe's")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="the recipe's")] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of the images: 1 (grey) or 3 (RGB).", show_default="the recipe's")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Begin with these: a file of any format.", show_default="made from the seed")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.", show_default="the recipe's")] = None,
    heads: Annotated[
        bool | None, typer.Option("--aux/--no-aux", help="With auxiliary heads.", show_default="as the preset")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and dropout.")] = 0,
    dtype: Annotated[Dtype, typer.Option(help="The dtype to compute in.")] = "float32",
    device: Device = "auto",
    devices: Annotated[
        int | None,
        typer.Option(help="GPUs of this machine, or parts of its CPU, that share a batch.", min=1, show_default="1"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-DATA-TIME")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this run, or with one backend's folder in it.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="With --resume: go on in this backend, even if another one began.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop and save after this many steps in all.", min=1)] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Train: every backend has the same start and the same batches. Any backend can resume a run.

    Pictures are read as a viewer shows them: turned as their EXIF data say, what is transparent over white. The folders
    train and test (or val) are the split, where they are there; otherwise a fifth of each class is held out.

    Ctrl-C saves and stops after the current step. The exit status is 1 when a run ends early, except by --steps.

    Examples:

    googlenet train pt

    googlenet train pt mx jax --recipe d2l --data fashion-mnist --run runs/d2l

    googlenet train pt --data folder:photos --size 96 --channels 3

    googlenet train pt --data folder:photos --weights model.pt

    googlenet train --resume runs/d2l

    googlenet train --resume runs/d2l/pt --backend jax

    googlenet train pt --devices 2
    """
    from harness.backends.registry import BACKENDS, check_names
    from harness.training import display
    from harness.training.recipe import recipe as read_recipe
    from harness.training.start import fitted, recipe_for, start_of
    from harness.training.train import check_data, create, default_name, discard, reopen, settings_for
    from harness.training.train import train as train_parts
    from harness.weights.convert import fingerprint, read_weights
    from harness.weights.preprocessing import preprocessing_of
    from spec import InvalidInput, stage_shapes

    pythons = interpreters(python or [], list(BACKENDS))
    if resume is None:
        if backend is not None:
            raise InvalidInput("--backend: only with --resume; name backends before the options: googlenet train jax")
        name = recipe or ("fine-tune" if weights else "digits" if data == "digits" else "fast")
        named = {"preset": preset, "epochs": epochs, "size": size, "batch": batch, "aux": heads, "channels": channels}
        changes: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        chosen = read_recipe(name)
        if weights is None:
            chosen = replace(chosen, **changes | ({"published": ""} if preset else {}))  # that was another network
        else:
            found = read_weights(weights, task_runner(python), preset=preset)
            say(found.notes)
            source = found.weights
            start = start_of(source)
            chosen = recipe_for(start, chosen, changes)
        config = chosen.config()
        stage_shapes(config, (config.in_channels, chosen.size, chosen.size))  # refuse before any work is done
        names = check_names(backends or list(BACKENDS))
        dataset = _prepare(data, config.in_channels, chosen.size, data_dir, skip_damaged)
        settings = settings_for(chosen, dataset, seed, dtype, device, fingerprint(source) if weights else "")
        if data.startswith("folder:"):
            kind = "grey" if config.in_channels == 1 else "RGB"
            count = f"{settings.train_images:,} training and {settings.test_images:,} test pictures"
            read_as = f"read as {kind}, {chosen.size} x {chosen.size} pixels (--channels, --size)"
            say([f"{count} of {len(settings.classes)} classes, {read_as}"])
        params = None
        if weights is not None:
            params, anew = fitted(start, settings)
            tell_pictures(preprocessing_of(source).whole())
            say([f"{shown(weights)}: {start.config}; initialized anew: {', '.join(anew) or 'nothing'}"])
        folder = run or default_name(name, data)
        parts = create(folder, names, settings, params)
    else:
        if refused := [word for name, word in typed(context).items() if name not in _WITH_RESUME]:
            raise InvalidInput(f"--resume goes on with a run as it is: leave out {', '.join(refused)}")
        parts = reopen(resume, backend)
        folder = parts[0].folder.parent
        settings = parts[0].settings
        config = settings.config
        # It has to be the data that it was: what was left out then is left out now, in the same order of classes.
        size = settings.recipe.size
        dataset = _prepare(settings.data, config.in_channels, size, data_dir, True, settings.classes)
        check_data(parts, dataset)
    try:
        with display.Screen(notes) as screen:
            results = train_parts(parts, dataset, screen, pythons, stop_after=steps, devices=devices)
    except (InvalidInput, SystemExit):  # refused, or interrupted before anything was trained
        if resume is None:
            discard(parts)
        raise
    if not results:
        return  # the first process of this run shows the results
    if as_json:
        print(json.dumps({"run": str(folder), "backends": [asdict(result) for result in results]}, indent=2))
    else:
        display.show_run(display.overview(folder), console())
    say(display.draw_run(folder))
    raise typer.Exit(0 if all(result.problem is None for result in results) else 1)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="Weights of any format, or the folder of a run.")],
    data: Annotated[
        str | None, typer.Option(help="As for `train`.", show_default="what the run was trained on")
    ] = None,
    data_dir: DataDir = None,
    skip_damaged: SkipDamaged = False,
    preset: Annotated[
        str | None, typer.Option(help="The network, where the file does not say.", show_default="detected")
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="as stored")] = None,
    average: Average = True,
    part: Annotated[Literal["test", "train"], typer.Option(help="The images to evaluate on.")] = "test",
    backend: Annotated[
        str | None, typer.Option(help="pt, mx or jax.", show_default="the one that trained last")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="The dtype to compute in.", show_default="as trained")] = None,
    device: Device = "auto",
    picture: Annotated[
        Path | None,
        typer.Option(help="File for the confusion matrix.", show_default="confusion.png beside the weights"),
    ] = None,
    python: Python = None,
    as_json: Json = False,
) -> None:
    """Evaluate a trained network: loss, accuracy, each class, and the confusion matrix.

    Examples:

    googlenet eval runs/d2l/pt --backend jax

    googlenet eval model.pt --data folder:photos
    """
    from harness.backends.process import run_worker
    from harness.backends.registry import check_names
    from harness.figures import check_picture
    from harness.images.batches import open_dataset
    from harness.training import display
    from harness.training.curves import draw_confusion
    from harness.training.runs import Position, of_checkpoint
    from harness.training.start import check_classes, listed, start_of
    from harness.weights.checkpoint import config_table, holds_training
    from harness.weights.convert import read_weights
    from harness.weights.preprocessing import preprocessing_of
    from spec import InvalidInput, param_shapes

    if picture is not None:
        check_picture(picture)
    source = read_weights(checkpoint, task_runner(python), preset=preset, average=average)
    say(source.notes)
    path, weights = source.path, source.weights
    run, position = of_checkpoint(weights, path) if holds_training(path) else (None, Position())
    start = start_of(weights)
    data = data or (run.data if run else None)
    if data is None:
        raise InvalidInput(f"{path}: expected --data, since weights that are no run's do not say what to evaluate on")
    (name,) = check_names([backend or (position.lineage[-1]["backend"] if position.lineage else "pt")])
    channels = start.config.in_channels
    prepare = preprocessing_of(weights).at(size or start.size)
    folder = _prepare(data, channels, prepare.size, data_dir, skip_damaged, start.classes, prepare.frame)
    dataset = open_dataset(folder)
    check_classes(start, path, dataset)
    if not start.classes:
        say([f"{shown(path)}: its classes have no names, and are taken for {listed(dataset.classes)} in this order"])
    tell_pictures(prepare)
    config = replace(start.config, aux=False)
    task = {
        "kind": "evaluate",
        "config": config_table(config),
        "dataset": str(folder.resolve()),
        "part": part,
        "dtype": dtype or (run.dtype if run else "float32"),
        "device": device,
        "mean": start.mean,
        "std": start.std,
    }
    params = {key: start.params[key] for key in param_shapes(config)}
    interpreter = interpreters(python or [], [name]).get(name, sys.executable)
    with progress([name]) as advance:
        answer = run_worker(name, task, params, interpreter, lambda said: advance(name, said["images"], said["of"]))
    if answer.refused is not None:
        raise InvalidInput(answer.refused)
    if answer.crash is not None:
        screen.say(notes, f"{name}: {answer.crash}", "red")
        raise typer.Exit(1)
    confusion = answer.arrays["confusion"]
    title = f"{path.resolve().parent.name}/{path.name} on {dataset.source}, {part} images"
    drawn = picture or path.with_name("confusion.png")
    problem = None
    try:
        say(draw_confusion(confusion, dataset.classes, drawn, title))
    except InvalidInput as error:  # the scores are shown all the same
        problem = error
    if as_json:
        step = position.step if run else None
        facts = {"checkpoint": str(path), "step": step, "backend": name, "data": dataset.source, "part": part}
        facts |= answer.facts | {"classes": display.class_table(confusion, dataset.classes)}
        facts |= {"confusion": confusion.tolist(), "picture": None if problem else str(drawn)}
        print(json.dumps(facts, indent=2))
    else:
        out = console()
        display.show_scores(confusion, answer.facts["loss"], dataset.classes, out)
        if problem is None:
            screen.say(out, f"confusion matrix: {shown(drawn)}")
    if problem is not None and picture is not None:
        raise problem
    if problem is not None:
        say([f"no picture: {problem}; --picture FILE draws it elsewhere"])


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder of the runs, or of one run.")] = Path("runs"),
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves of all into one picture.")] = None,
    within: Annotated[
        float | None,
        typer.Option(help="Exit with 1 when backends of a run are further apart: a loss, or an array of weights."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List training runs, their settings and results, side by side.

    A run that is damaged is named, and left out; the exit status is 1 then.

    Examples:

    googlenet runs

    googlenet runs --plot all.png

    googlenet runs runs/epoch --within 1e-9
    """
    from harness.figures import check_picture
    from harness.training import display
    from harness.training.apart import apart
    from harness.training.runs import backend_folders
    from spec import InvalidInput

    if plot is not None:
        check_picture(plot)
    if not folder.is_dir():
        raise InvalidInput(f"{folder}: expected a folder of runs; `googlenet train --help` says how to make one")
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    views = [display.overview(path) for path in folders if backend_folders(path)]
    distances = {}
    if within is not None:
        distances = {view.run: apart(view.run) for view in views if len(view.results) > 1}
        if not distances:
            raise InvalidInput(f"--within: expected a run of several backends, and {folder} has none")
    if as_json:
        rows = [
            {
                "run": str(view.run),
                "settings": view.settings.as_json(),
                "backends": [asdict(result) for result in view.results],
            }
            | ({"apart": distances[view.run].as_json()} if view.run in distances else {})
            for view in views
            if view.settings is not None
        ]
        print(json.dumps(rows, indent=2))
    else:
        out = console()
        for view in views:
            display.show_run(view, out)
            if within is not None and view.run in distances:
                screen.say(out, distances[view.run].describe(within))
        if not views:
            screen.say(out, f"no runs in {shown(folder)}")
    if plot is not None:
        say(display.draw_runs(views, plot))
    problems = [problem for view in views for problem in view.problems]
    for problem in problems:
        screen.say(notes, problem, "red")
    near = all(distance.within(within) for distance in distances.values()) if within is not None else True
    raise typer.Exit(0 if near and not problems else 1)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print the file of this recipe, to copy and change.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or print one.

    Example: googlenet recipes d2l > mine.toml
    """
    from harness.training.recipe import recipe as read_recipe
    from harness.training.recipe import recipe_path
    from harness.training.recipe import recipes as recipe_names

    if name is not None:
        recipe = read_recipe(name)
        print(json.dumps(recipe.as_table(), indent=2) if as_json else recipe_path(name).read_text(), end="")
        return
    tables = {name: read_recipe(name).as_table() for name in recipe_names()}
    if as_json:
        print(json.dumps(tables, indent=2))
        return
    out = console()
    for name, table in tables.items():
        line = (
            "preset {preset}, {size} x {size}, batch {batch}, {epochs} epochs, {optimizer[name]} {optimizer[rate]:g}, "
            "{schedule[name]}, init {init}"
        )
        screen.say(out, f"{name}: {line.format_map(table)}", "bold")
        screen.say(out, f"    {table['source']}", "dim")
        if table["published"]:
            screen.say(out, f"    published: {table['published']}", "dim")


def _prepare(
    source: str,
    channels: int,
    size: int,
    data_dir: Path | None,
    skip_damaged: bool,
    classes: Sequence[str] = (),
    frame: Mapping[str, Any] | None = None,
) -> Path:
    """The folder of a prepared dataset; it is prepared now if it does not exist."""
    from harness.images.prepared import prepare

    task = f"preparing {source}"
    with progress([task]) as advance:
        done = partial(advance, task)
        lines: list[str] = []
        folder = prepare(
            source,
            channels,
            size,
            data_dir,
            done,
            say=lines.extend,
            skip_damaged=skip_damaged,
            classes=classes,
            frame=frame,
        )
    say(lines)
    return folder
