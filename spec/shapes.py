"""What follows from the size of the image: every stage's shape, which sizes fit, and what a pass costs.

Shapes are (channels, height, width) in pixels, whatever layout a framework keeps in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from spec.errors import InvalidInput
from spec.network import Config, Shape, layers, param_shapes


def stage_shapes(config: Config, shape: Shape) -> dict[str, Shape]:
    """Output shape of every stage, in forward order, for one image.

    Args:
        config: The network.
        shape: (channels, height, width) of the image, pixels.

    Returns:
        (channels, height, width) by stage; (channels,) where it ends in a dense layer, or is the average that makes
        the logits.

    Raises:
        InvalidInput: when the image does not fit, with the sizes that do.
    """
    if len(shape) != 3:
        raise InvalidInput(f"image shape: expected (channels, height, width), got {shape}")
    channels, height, width = shape
    if channels != config.in_channels:
        raise InvalidInput(
            f"preset {config.preset}: expected images of {config.in_channels} channels, got {channels}; "
            f"convert the images or build the network with in_channels={channels}"
        )
    if problem := config.misfit(height, width):
        low, high = input_sizes(config)
        sizes = f"{low} pixels or more" if high is None else f"{low} to {high} pixels"
        remedy = "; without its auxiliary heads (aux=False, --no-aux) it takes others" if "auxiliary" in problem else ""
        raise InvalidInput(
            f"preset {config.preset} cannot take {height} x {width} pixels: {problem}; "
            f"expected a height and a width of {sizes}{remedy}"
        )
    dense = {layer.stage for layer in layers(config) if layer.kernel is None}
    return {name: out[:1] if name in dense else out for name, out in config.maps(height, width).items()}


def stage_names(config: Config) -> tuple[str, ...]:
    """The stages in forward order."""
    return tuple(config.maps(config.input_size, config.input_size))


def minimum_input_size(config: Config) -> int:
    """The smallest square image that fits, pixels a side."""
    return input_sizes(config)[0]


_LARGEST_TRIED = 2048  # pixels: far above any upper bound that a preset has


def input_sizes(config: Config) -> tuple[int, int | None]:
    """The smallest and largest square image that fit, pixels a side; the largest is None where there is no bound."""
    fitting = [size for size in range(1, _LARGEST_TRIED + 1) if config.misfit(size, size) is None]
    return fitting[0], None if fitting[-1] == _LARGEST_TRIED else fitting[-1]


class Cost(NamedTuple):
    """Of a convolution or dense layer: trained scalars, and for one image multiply-adds and scalars put out."""

    parameters: int
    multiply_adds: int
    outputs: int


def layer_costs(config: Config, shape: Shape) -> dict[str, Cost]:
    """The cost of every layer by canonical name, for one image of that (channels, height, width)."""
    stage_shapes(config, shape)  # refuses what does not fit
    maps, shapes = config.maps(*shape[1:]), param_shapes(config)
    costs = {}
    for layer in layers(config):
        weights = math.prod(layer.weight_shape)
        places = 1 if layer.kernel is None else math.prod(maps[layer.stage][1:])
        own = (f"{layer.name}.{leaf}" for leaf in ("weight", "bias", "norm.weight", "norm.bias"))
        parameters = sum(math.prod(shapes[name]) for name in own if name in shapes)
        costs[layer.name] = Cost(parameters, weights * places, layer.out_channels * places)
    return costs
