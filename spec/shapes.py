"""Shapes of the stages for an image, the sizes that fit, and the cost of a pass.

Shapes are (channels, height, width) in pixels, whatever layout a framework keeps in memory.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from spec.errors import InvalidInput
from spec.network import IMAGES, Add, Concat, Config, Node, Shape, Sliding, param_shapes, steps, walk


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
        remedy = "; without its auxiliary heads (aux=False, --no-aux) it takes others" if misfit.in_head else ""
        raise InvalidInput(
            f"preset {config.preset} cannot take {height} x {width} pixels: {misfit.problem}; "
            f"expected a height and a width of {input_sizes(config)} pixels{remedy}"
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
    for node, usual in zip(steps(config, shape), walk(config), strict=True):
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
    return input_sizes(config).low


_LARGEST_TRIED = 2048  # pixels: far above any upper bound that a preset has


class InputSizes(NamedTuple):
    """The square images that a network takes, pixels a side: from low to high, both included."""

    low: int
    high: int | None  # None: no bound
    period: int | None = None  # the same again, every so many pixels

    def __str__(self) -> str:
        """``31 to 38 (or any multiple of 32 more)``."""
        again = f" (or any multiple of {self.period} more)" if self.period else ""
        return f"{self.low} or more" if self.high is None else f"{self.low} to {self.high}{again}"


@lru_cache(maxsize=512)
def input_sizes(config: Config) -> InputSizes:
    """The square images that fit.

    A network repeats itself every so many pixels as its strides multiply to: where its branches agree at all of these
    sizes, they agree at all.

    Raises:
        InvalidInput: when none fits.
    """
    tried = range(1, _LARGEST_TRIED + 1)
    low = next((size for size in tried if fits(config, size)), None)
    if low is None:
        raise InvalidInput(f"preset {config.preset} takes no square image of up to {_LARGEST_TRIED} pixels a side")
    period = _stride(config)
    gap = next((size for size in range(low, low + period) if not fits(config, size)), None)
    if gap and fits(config, low + period):
        return InputSizes(low, gap - 1, period)
    if fits(config, _LARGEST_TRIED):
        return InputSizes(low, None)
    return InputSizes(low, next(size for size in tried[low - 1 :] if not fits(config, size + 1)))


def _stride(config: Config) -> int:
    """Pixels of the image from one value of the last map to the next."""
    strides = {IMAGES: 1}
    for node in walk(config):
        strides[node.name] = strides[node.reads[0]] * (node.op.strides[0] if isinstance(node.op, Sliding) else 1)
    return max(strides.values())


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
