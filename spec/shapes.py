"""Shapes of the stages for an image, the sizes that fit, and the cost of a pass.

Shapes are (channels, height, width) in pixels, whatever layout a framework keeps in memory.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from spec.errors import InvalidInput
from spec.network import IMAGES, Add, Concat, Config, Node, Shape, param_shapes, walk


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
    if misfit := find_misfit(config, shape):
        low, high = input_sizes(config)
        sizes = f"{low} pixels or more" if high is None else f"{low} to {high} pixels"
        remedy = "; without its auxiliary heads (aux=False, --no-aux) it takes others" if misfit.in_head else ""
        raise InvalidInput(
            f"preset {config.preset} cannot take {height} x {width} pixels: {misfit.problem}; "
            f"expected a height and a width of {sizes}{remedy}"
        )
    return {node.stage: node.out for node in walk(config, shape)}


class Misfit(NamedTuple):
    """Why an image does not fit, and whether only an auxiliary head says so."""

    problem: str
    in_head: bool


def find_misfit(config: Config, shape: Shape) -> Misfit | None:
    """The first operation that an image of that (channels, height, width) does not fit; None when it fits all.

    Those of the trunk come before those of the heads, which a network can do without.
    """
    if min(shape) < 1:
        return Misfit("it is empty", in_head=False)
    in_head = None
    outputs = {IMAGES: shape}
    for node, usual in zip(walk(config, shape), walk(config), strict=True):
        outputs[node.name] = node.out
        if problem := _problem(node, usual, outputs):
            if not node.in_head:
                return Misfit(problem, in_head=False)
            in_head = in_head or Misfit(problem, in_head=True)
    return in_head


def _problem(node: Node, usual: Node, outputs: dict[str, Shape]) -> str | None:
    """Why the node cannot compute; `usual` is the same for an image of the preset's own size."""
    if node.is_dense and node.into != usual.into:
        return f"the dense layer {node.name} needs maps of {_sides(usual.into)} and gets {_sides(node.into)}"
    if isinstance(node.op, Add) and len(shapes := {outputs[name] for name in node.reads}) > 1:
        return f"{node.name} adds maps of {' and '.join(map(str, sorted(shapes)))}"
    if isinstance(node.op, Concat) and len(sides := {outputs[name][1:] for name in node.reads}) > 1:
        return f"the branches of {node.name} end in maps of {', '.join(map(_sides, sorted(sides)))}"
    if min(node.out) < 1:
        return f"nothing is left at {node.name}"
    return None


def _sides(shape: Shape) -> str:
    return " x ".join(map(str, shape[-2:]))


def stage_names(config: Config) -> tuple[str, ...]:
    """The stages in forward order."""
    return tuple(name for name, _ in config.stages)


def minimum_input_size(config: Config) -> int:
    """The smallest square image that fits, pixels a side."""
    return input_sizes(config)[0]


_LARGEST_TRIED = 2048  # pixels: far above any upper bound that a preset has


def input_sizes(config: Config) -> tuple[int, int | None]:
    """The smallest and largest square image that fit, pixels a side, and with them all between.

    The largest is None where there is no bound.

    Raises:
        InvalidInput: when none fits.
    """
    tried = range(1, _LARGEST_TRIED + 1)
    low = next((size for size in tried if fits(config, size)), None)
    if low is None:
        raise InvalidInput(f"preset {config.preset} takes no square image of up to {_LARGEST_TRIED} pixels a side")
    if fits(config, _LARGEST_TRIED):
        return low, None
    return low, next(size for size in tried[low - 1 :] if not fits(config, size + 1))


def fits(config: Config, size: int) -> bool:
    """Whether the network takes square images of that many pixels a side."""
    return find_misfit(config, (config.in_channels, size, size)) is None


class Cost(NamedTuple):
    """The cost of a layer: trained scalars; for one image multiply-adds, input scalars and output scalars."""

    parameters: int
    multiply_adds: int
    inputs: int  # each once, whatever the kernel and the stride
    outputs: int


def layer_costs(config: Config, shape: Shape) -> dict[str, Cost]:
    """The cost of every layer by canonical name, for one image of that (channels, height, width).

    Raises:
        InvalidInput: when the image does not fit.
    """
    stage_shapes(config, shape)
    shapes = param_shapes(config)
    costs: dict[str, Cost] = {}
    for node in walk(config, shape):
        if node.has_weights:
            trained = (f"{node.name}.{leaf}" for leaf in ("weight", "bias", "norm.weight", "norm.bias"))
            parameters = sum(math.prod(shapes[name]) for name in trained if name in shapes)
            multiply_adds = math.prod(node.weight_shape) * math.prod(node.out[1:])
            costs[node.name] = Cost(parameters, multiply_adds, math.prod(node.into), math.prod(node.out))
    return costs
