"""What a network costs, and in which of its parts: scalars, multiply-adds and bytes, counted from the spec.

Auxiliary heads are left out: they stand beside the trunk, and nobody who classifies images computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from spec.network import Concat, Config, Shape, param_shapes, walk
from spec.shapes import input_sizes, layer_costs

FLOAT = 4  # bytes of a float32
PARTS = ("convolutions", "dense layers", "pools")


class Part(NamedTuple):
    """What some of a network's operations cost, for one image; bytes are those of float32."""

    parameters: int = 0  # trained scalars
    multiply_adds: int = 0  # of convolutions and dense layers; those with a padding's zeros count
    weight_bytes: int = 0  # of everything that a file of weights holds: parameters and running statistics
    activation_bytes: int = 0  # of everything put out, as training keeps it; inference may use memory again


@dataclass(frozen=True)
class Sizes:
    """The costs of one network for one image."""

    config: Config  # without auxiliary heads
    size: int  # of the image, pixels a side
    depth: int
    fitting: tuple[int, int | None]  # smallest and largest image, pixels a side; None: there is no largest
    parts: Mapping[str, Part]  # by the names of `PARTS`, in that order

    @property
    def total(self) -> Part:
        """Of the whole network."""
        return _sum(self.parts.values())


def measure(config: Config, size: int | None = None) -> Sizes:
    """Count what a network costs.

    Batch norm and the activation function are taken as part of the layer that they follow: it puts out one array.
    Local response normalization puts out an array of its own, and counts with the pools.

    Args:
        config: The network; auxiliary heads are left out.
        size: Of the image, pixels a side; None takes the preset's.

    Raises:
        InvalidInput: when an image of that size does not fit.
    """
    config = replace(config, aux=False)
    side = config.input_size if size is None else size
    costs = list(_costs(config, (config.in_channels, side, side)))
    parts = {kind: _sum(cost for of, cost in costs if of == kind) for kind in PARTS}
    return Sizes(config, side, depth(config), input_sizes(config), parts)


def depth(config: Config) -> int:
    """Layers with weights on the longest way from the image to the logits."""
    depths: dict[str, int] = {}
    for node in walk(replace(config, aux=False)):
        depths[node.name] = node.has_weights + max(depths.get(name, 0) for name in node.reads)
    return depths[config.logits]


def _costs(config: Config, shape: Shape) -> Iterator[tuple[str, Part]]:
    """The cost of every operation that puts out an array of its own, with the part that it belongs to."""
    costs, arrays = layer_costs(config, shape), param_shapes(config)
    for node in walk(config, shape):
        activations = FLOAT * math.prod(node.out)
        if node.has_weights:
            cost = costs[node.name]
            stored = sum(math.prod(array) for name, array in arrays.items() if name.startswith(f"{node.name}."))
            kind = "dense layers" if node.is_dense else "convolutions"
            yield kind, Part(cost.parameters, cost.multiply_adds, FLOAT * stored, activations)
        elif not isinstance(node.op, Concat):  # its branches are counted
            yield "pools", Part(activation_bytes=activations)


def _sum(parts: Iterable[Part]) -> Part:
    return Part(*map(sum, zip(Part(), *parts, strict=True)))
