"""The verb that compares what networks cost: sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness.cli.options import Json, Size


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
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw a picture: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Compare what networks cost, and whether convolutions or dense layers cost it.

    For one square image, without auxiliary heads, bytes in float32:

    takes: the sizes of images that fit.

    depth: layers with weights on the longest way to the logits.

    parameters: what is trained.

    weights: the bytes of parameters and running statistics.

    activations: the bytes that layers and pools put out; training keeps them.

    Batch norm and activation functions belong to their layer; local response
    normalization counts with the pools.

    Examples:

    googlenet sizes

    googlenet sizes alexnet vgg11 nin d2l --size 224 --plot sizes.png
    """
    from harness.compare.sizes import as_json as plain
    from harness.compare.sizes import draw, measure_all, render

    found = measure_all(presets or [], size)
    if plot is not None:
        draw(found, plot)
    if as_json:
        print(json.dumps(plain(found), indent=2))
    else:
        render(found, Console())
