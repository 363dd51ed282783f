"""What follows from the size of the image: every stage's shape, which sizes fit, and what a pass costs.

Shapes are (channels, height, width) in pixels, whatever layout a framework keeps in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from spec.errors import InvalidInput
from spec.network import (
    AUX_AFTER,
    AUX_POOL_KERNEL,
    AUX_POOL_STRIDE,
    AUX_SIDE,
    POOL_BEFORE,
    STAGE2_CHANNELS,
    STEM_CHANNELS,
    Config,
    Pool,
    Shape,
    layers,
)


def stage_shapes(config: Config, shape: Shape) -> dict[str, Shape]:
    """Output shape of every stage, in forward order, for one image.

    Args:
        config: The network.
        shape: (channels, height, width) of the image, pixels.

    Returns:
        (channels, height, width) by stage; (num_classes,) for ``aux1``, ``aux2`` and ``fc``.

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
    if problem := _misfit(config, height, width):
        low, high = input_sizes(config)
        sizes = f"{low} pixels or more" if high is None else f"{low} to {high} pixels"
        remedy = "; without its auxiliary heads (aux=False, --no-aux) it takes others" if "auxiliary" in problem else ""
        raise InvalidInput(
            f"preset {config.preset} cannot take {height} x {width} pixels: {problem}; "
            f"expected a height and a width of {sizes}{remedy}"
        )
    maps = _maps(config, height, width)
    return {name: out[:1] if name in ("aux1", "aux2", "fc") else out for name, out in maps.items()}


def stage_names(config: Config) -> tuple[str, ...]:
    """The stages in forward order."""
    return tuple(_maps(config, config.input_size, config.input_size))


def _maps(config: Config, height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """Every stage as (channels, height, width), without asking whether the sizes make sense."""
    maps: dict[str, tuple[int, int, int]] = {}

    def pooled(pool: Pool) -> None:
        nonlocal height, width
        height, width = pool.output_size(height), pool.output_size(width)

    height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1  # 7x7, stride 2, padding 3
    maps["conv1"] = (STEM_CHANNELS, height, width)
    pooled(config.pool)
    maps["pool1"] = (STEM_CHANNELS, height, width)
    if config.lrn:
        maps["norm1"] = maps["pool1"]
    maps["conv2_reduce"] = (STEM_CHANNELS, height, width)
    maps["conv2"] = (STAGE2_CHANNELS, height, width)
    if config.lrn:
        maps["norm2"] = maps["conv2"]
    for row in config.inceptions:
        if name := POOL_BEFORE.get(row.name):
            pooled(config.pool4 if name == "pool4" else config.pool)
            maps[name] = (row.in_channels, height, width)
        maps[row.name] = (row.out_channels, height, width)
        if config.aux and row.name in AUX_AFTER:
            maps[AUX_AFTER[row.name]] = (config.num_classes, _aux_side(config, height), _aux_side(config, width))
    maps["pool5"] = (row.out_channels, _head_side(config, height), _head_side(config, width))
    maps["fc"] = (config.num_classes, 1, 1)
    return maps


def _head_side(config: Config, size: int) -> int:
    return 1 if config.head_pool is None else size // config.head_pool


def _aux_side(config: Config, size: int) -> int:
    return AUX_SIDE if config.aux_adaptive else (size - AUX_POOL_KERNEL) // AUX_POOL_STRIDE + 1


def _misfit(config: Config, height: int, width: int) -> str | None:
    """Why an image of that size does not fit; None when it does."""
    if min(height, width) < 1:
        return "it is empty"
    maps = _maps(config, height, width)
    for name, (_, h, w) in maps.items():
        if name.startswith("pool") and name != "pool5" and min(h, w) < 1:
            return f"nothing is left at {name}"
    for name in AUX_AFTER.values():
        if name in maps and maps[name][1:] != (AUX_SIDE, AUX_SIDE):
            _, h, w = maps[name]
            return f"the auxiliary head {name} needs a {AUX_SIDE} x {AUX_SIDE} map after its pool and gets {h} x {w}"
    _, h, w = maps["pool5"]
    if (h, w) != (1, 1):
        side = config.head_pool
        return f"the {side}x{side} average pool before the classifier must leave a 1 x 1 map and leaves {h} x {w}"
    return None


def minimum_input_size(config: Config) -> int:
    """The smallest square image that fits, pixels a side."""
    return input_sizes(config)[0]


_LARGEST_TRIED = 2048  # pixels: far above any upper bound that a preset has (416)


def input_sizes(config: Config) -> tuple[int, int | None]:
    """The smallest and largest square image that fit, pixels a side; the largest is None where there is no bound."""
    fitting = [size for size in range(1, _LARGEST_TRIED + 1) if _misfit(config, size, size) is None]
    return fitting[0], None if fitting[-1] == _LARGEST_TRIED else fitting[-1]


class Cost(NamedTuple):
    """Trained scalars, and multiply-adds for one image, of convolutions and dense layers."""

    parameters: int
    multiply_adds: int


def layer_costs(config: Config, shape: Shape) -> dict[str, Cost]:
    """The cost of every layer by canonical name, for one image of that (channels, height, width)."""
    sizes = stage_shapes(config, shape)
    costs = {}
    for layer in layers(config):
        weights = math.prod(layer.weight_shape)
        places = 1
        if layer.kernel is not None:
            places = AUX_SIDE**2 if layer.stage in AUX_AFTER.values() else math.prod(sizes[layer.stage][1:])
        costs[layer.name] = Cost(weights + layer.out_channels * (2 if layer.norm else 1), weights * places)
    return costs
