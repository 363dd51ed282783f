"""What a network costs, and in which of its parts: scalars, multiply-adds and bytes, counted from the spec.

Auxiliary heads are left out: they stand beside the trunk, and nobody who classifies images computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

from spec.googlenet import GoogLeNetConfig
from spec.network import Config, Layer, Shape, layers, param_shapes
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
    """Layers with weights on the longest way from the image to the logits: stages follow one another."""
    before = 0  # behind the stages so far
    for _, stage in groupby(layers(replace(config, aux=False)), key=lambda layer: layer.stage):
        depths: dict[str, int] = {}
        for layer in stage:
            depths[layer.name] = 1 + (before if layer.reads is None else depths[layer.reads])
        before = max(depths.values())
    return before


def _costs(config: Config, shape: Shape) -> Iterator[tuple[str, Part]]:
    """Every layer's, and all pools', with the part that it belongs to."""
    costs, arrays = layer_costs(config, shape), param_shapes(config)
    for layer in layers(config):
        cost = costs[layer.name]
        stored = sum(math.prod(array) for name, array in arrays.items() if name.startswith(f"{layer.name}."))
        yield _kind(layer), Part(cost.parameters, cost.multiply_adds, FLOAT * stored, FLOAT * cost.outputs)
    yield "pools", Part(activation_bytes=FLOAT * _pooled(config, shape))


def _kind(layer: Layer) -> str:
    return "dense layers" if layer.kernel is None else "convolutions"


def _pooled(config: Config, shape: Shape) -> int:
    """Scalars that pools and local response normalizations put out."""
    maps, with_weights = config.maps(*shape[1:]), {layer.stage for layer in layers(config)}
    outputs = [out for stage, out in maps.items() if stage not in with_weights]
    if isinstance(config, GoogLeNetConfig):  # the pool inside a block leaves the size as it is
        outputs += [(row.in_channels, *maps[row.name][1:]) for row in config.inceptions]
    return sum(map(math.prod, outputs))


def _sum(parts: Iterable[Part]) -> Part:
    return Part(*map(sum, zip(Part(), *parts, strict=True)))
