"""The verb `sizes`: the costs of networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Json, Size, console


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
