"""What follows from the size of the image: every stage's shape, which sizes fit, and what a pass costs.

Shapes are (channels, height, width) in pixels, whatever layout a framework keeps in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from spec.errors import InvalidInput
from spec.googlenet import AUX_AFTER
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
    """The smallest and largest square image that fit, pixels a side, and with them all between.

    The largest is None where there is no bound.
    """
    tried = range(1, _LARGEST_TRIED + 1)
    low = next(size for size in tried if config.misfit(size, size) is None)
    if config.misfit(_LARGEST_TRIED, _LARGEST_TRIED) is None:
        return low, None
    return low, next(size for size in tried[low - 1 :] if config.misfit(size + 1, size + 1) is not None)


def stage_inputs(config: Config, shape: Shape) -> dict[str, Shape]:
    """What each stage reads of one image of that (channels, height, width), which is what the one before puts out.

    An auxiliary head stands beside the trunk, and begins with a pool: what is said here is what that leaves.
    """
    stage_shapes(config, shape)  # refuses what does not fit
    inputs: dict[str, Shape] = {}
    before = shape
    for stage, out in config.maps(*shape[1:]).items():
        if stage in AUX_AFTER.values():
            inputs[stage] = (before[0], *out[1:])  # the sides that `maps` has for a head are its pool's
        else:
            inputs[stage], before = before, out
    return inputs


class Cost(NamedTuple):
    """Of a convolution or dense layer: trained scalars, and for one image multiply-adds, scalars read and put out."""

    parameters: int
    multiply_adds: int
    inputs: int  # each once, whatever the kernel and the stride
    outputs: int


def layer_costs(config: Config, shape: Shape) -> dict[str, Cost]:
    """The cost of every layer by canonical name, for one image of that (channels, height, width)."""
    given = stage_inputs(config, shape)
    maps, shapes = config.maps(*shape[1:]), param_shapes(config)
    costs: dict[str, Cost] = {}
    for layer in layers(config):
        weights = math.prod(layer.weight_shape)
        places = 1 if layer.kernel is None else math.prod(maps[layer.stage][1:])
        own = (f"{layer.name}.{leaf}" for leaf in ("weight", "bias", "norm.weight", "norm.bias"))
        parameters = sum(math.prod(shapes[name]) for name in own if name in shapes)
        inputs = math.prod(given[layer.stage]) if layer.reads is None else costs[layer.reads].outputs
        costs[layer.name] = Cost(parameters, weights * places, inputs, layer.out_channels * places)
    return costs
