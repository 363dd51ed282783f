"""The verbs `compare`, the backends against the referee, and `sizes`, the costs of networks."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import (
    DataDir,
    Device,
    Dtype,
    Heads,
    Json,
    Python,
    Size,
    console,
    interpreters,
    notes,
    progress,
    say,
    split,
    task_runner,
    tell_pictures,
)


def compare(
    pictures: Annotated[list[str] | None, typer.Argument(help="More picture files, after --data FILE.")] = None,
    preset: Annotated[str | None, typer.Option(help="See `googlenet presets`.", show_default="d2l")] = None,
    backends: Annotated[str, typer.Option(help="Backends in this order, separated by commas.")] = "pt,mx,jax",
    weights: Annotated[
        Path | None, typer.Option(help="A file that `googlenet convert` reads.", show_default="made from the seed")
    ] = None,
    evaluators: Annotated[
        str | None,
        typer.Option("--with", metavar="EVALUATORS", help="onnx, openvino, onnx-reference: their forward pass too."),
    ] = None,
    size: Size = None,
    batch: Annotated[int | None, typer.Option(help="Number of images.", show_default="4, or all files named")] = None,
    dtype: Annotated[Dtype, typer.Option(help="The dtype to compute in.")] = "float64",
    device: Device = "auto",
    data: Annotated[
        str, typer.Option(help="digits, fashion-mnist, a folder of pictures, or picture files.")
    ] = "digits",
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
    heads: Heads = True,
    python: Python = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the results as JSON; - for stdout.")
    ] = None,
) -> None:
    """Compare the backends with the NumPy referee on real images: every stage, every gradient, one training step.

    Pictures are read as a viewer shows them: turned as their EXIF data say, what is transparent over white.

    Exits with 0 when all agree and with 1 when one does not. Dropout is off, since each framework drops other values.

    Examples:

    googlenet compare

    googlenet compare --preset bvlc --data cat.jpg dog.jpg

    googlenet compare --weights runs/fast/pt/checkpoint.safetensors --with onnx

    googlenet compare --backends jax --python jax=/path/to/other/environment/bin/python
    """
    import spec
    from harness.atomic import check_target, write_atomically
    from harness.backends.registry import check_names
    from harness.compare import comparison
    from harness.compare.table import render
    from harness.images.sources import load_batch
    from harness.weights.convert import read_weights
    from harness.weights.onnx_run import EVALUATORS
    from harness.weights.preprocessing import Preprocessing, preprocessing_of

    names = check_names(split(backends))
    others = split(evaluators or "")
    if unknown := [name for name in others if name not in EVALUATORS]:
        raise spec.InvalidInput(f"--with: expected some of {', '.join(EVALUATORS)}, got {', '.join(unknown)}")
    if json_file not in (None, Path("-")):
        check_target(json_file)
    chosen = None
    prepare: Preprocessing | None = None
    if weights is None:
        config = spec.preset(preset or "d2l", aux=None if heads else False, dropout=0.0)
    else:
        source = read_weights(weights, task_runner(python), None, preset)
        say(source.notes)
        stored = source.weights
        config = replace(stored.config, aux=stored.config.aux and heads, dropout=0.0, aux_dropout=0.0)
        chosen = comparison.Weights({name: stored.params[name] for name in spec.param_shapes(config)}, str(weights))
        prepare = preprocessing_of(stored)
        prepare = prepare if size is None else prepare.at(size)
        tell_pictures(prepare)
    if size is not None:
        side = size
    else:
        side = config.input_size if prepare is None else prepare.size
    spec.stage_shapes(config, (config.in_channels, side, side))  # refuse before any work is done
    pixels = None if prepare is None else prepare.apply
    images = load_batch([data, *(pictures or [])], config, side, batch, data_dir, pixels)
    say(images.remarks)
    with progress(["referee", *names, *others]) as done:
        report = comparison.compare(
            config,
            images,
            backends=names,
            dtype=dtype,
            device=device,
            seed=seed,
            pythons=interpreters(python or [], names),
            weights=chosen,
            evaluators=others,
            done=done,
        )
    render(report, notes if json_file == Path("-") else console())
    if json_file is not None:
        text = json.dumps(report.as_json(), indent=2) + "\n"
        if json_file == Path("-"):
            sys.stdout.write(text)
        else:
            write_atomically(json_file, text.encode())
    raise typer.Exit(0 if report.passed else 1)


def sizes(
    presets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PRESET",
            help="See `googlenet presets`; all: every one.",
            show_default="lenet alexnet vgg11 vgg11-narrow nin d2l",
        ),
    ] = None,
    size: Size = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw a figure, such as a .png or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the costs of networks, and those of their convolutions and dense layers.

    For one square image, without auxiliary heads, bytes in float32:

    takes: sides of the images that fit; depth: layers with weights on the longest way to the logits.

    weights: bytes of parameters and running statistics; activations: bytes of all outputs, which training keeps.

    Batch norm and activation functions belong to their layer; local response normalization counts with the pools.

    Examples:

    googlenet sizes

    googlenet sizes alexnet vgg11 nin d2l --size 224 --plot sizes.png
    """
    from harness.compare import sizes as costs
    from harness.figures import check_picture

    networks = costs.measure_all(presets or [], size)
    if plot is not None:
        check_picture(plot)
    if as_json:
        print(json.dumps(costs.as_json(networks), indent=2))
    else:
        costs.render(networks, console())
    if plot is not None:
        costs.draw(networks, plot)
