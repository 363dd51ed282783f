"""Initial parameters: the same bits for every framework, from NumPy's Philox generator.

Each array has a generator of its own, keyed on the seed and the array's name: leaving the auxiliary heads out, say,
does not change what the rest of the network starts from.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable

import numpy as np

from spec.arrays import Array
from spec.errors import InvalidInput
from spec.network import Config, Node, Shape, layers, param_shapes

_Draw = Callable[[np.random.Generator, Shape], Array]


def _uniform(bound: float) -> _Draw:
    return lambda generator, shape: (2 * generator.random(shape) - 1) * bound


def _normal(std: float) -> _Draw:
    return lambda generator, shape: generator.standard_normal(shape) * std


def _truncated_normal(std: float) -> _Draw:
    """Normal within two standard deviations, rescaled so that `std` is what it has after the cut."""

    def draw(generator: np.random.Generator, shape: Shape) -> Array:
        values = generator.standard_normal(shape)
        while (outside := np.abs(values) > 2).any():
            values[outside] = generator.standard_normal(int(outside.sum()))
        return values * (std / 0.87962566103423978)  # the standard deviation of a normal cut at ±2

    return draw


def _constant(value: float) -> _Draw:
    return lambda generator, shape: np.full(shape, float(value))


def _fans(layer: Node) -> tuple[int, int]:
    """Inputs of one output, and outputs of one input."""
    out, into, *sides = layer.weight_shape
    return into * math.prod(sides), out * math.prod(sides)


def _xavier(layer: Node) -> tuple[_Draw, _Draw]:
    return _uniform(math.sqrt(6 / sum(_fans(layer)))), _constant(0)


def _torch(layer: Node) -> tuple[_Draw, _Draw]:
    bound = 1 / math.sqrt(_fans(layer)[0])
    return _uniform(bound), _uniform(bound)


def _gluon(layer: Node) -> tuple[_Draw, _Draw]:
    return _uniform(0.07), _constant(0)


def _flax(layer: Node) -> tuple[_Draw, _Draw]:
    return _truncated_normal(1 / math.sqrt(_fans(layer)[0])), _constant(0)


def _caffe(layer: Node) -> tuple[_Draw, _Draw]:
    classifier = layer.is_dense and layer.op.activation is None
    return _uniform(math.sqrt(3 / _fans(layer)[0])), _constant(0 if classifier else 0.2)


def _he(layer: Node) -> tuple[_Draw, _Draw]:
    return _normal(math.sqrt(2 / _fans(layer)[0])), _constant(0)


SCHEMES: dict[str, Callable[[Node], tuple[_Draw, _Draw]]] = {
    "xavier": _xavier,  # U(±sqrt(6 / (fan_in + fan_out))), biases 0: Glorot and Bengio 2010
    "torch": _torch,  # PyTorch's default: U(±1 / sqrt(fan_in)), biases too
    "gluon": _gluon,  # Gluon's default: U(±0.07) whatever the shape, biases 0
    "flax": _flax,  # Flax's default: LeCun normal cut at two standard deviations, biases 0
    "caffe": _caffe,  # BVLC's GoogLeNet: U(±sqrt(3 / fan_in)), biases 0.2, classifiers' biases 0
    "he": _he,  # N(0, 2 / fan_in), biases 0: He et al. 2015
}


def init_params(config: Config, seed: int = 0, scheme: str = "xavier") -> dict[str, Array]:
    """Initial arrays by canonical name, float64, shapes as `param_shapes` says.

    Batch norm starts as the identity: weights and running variances 1, biases and running means 0.

    Raises:
        InvalidInput: for an unknown scheme or a seed outside 0 to 2^64 - 1.
    """
    if scheme not in SCHEMES:
        raise InvalidInput(f"unknown initialization scheme {scheme!r}: expected one of {', '.join(SCHEMES)}")
    if not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise InvalidInput(f"seed: expected a whole number from 0 to 2^64 - 1, got {seed!r}")
    draws: dict[str, _Draw] = {}
    for layer in layers(config):
        draws[f"{layer.name}.weight"], draws[f"{layer.name}.bias"] = SCHEMES[scheme](layer)
        for leaf, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            draws[f"{layer.name}.norm.{leaf}"] = _constant(value)
    return {name: draws[name](_generator(seed, name), shape) for name, shape in param_shapes(config).items()}


def _generator(seed: int, name: str) -> np.random.Generator:
    key = np.array([seed, zlib.crc32(name.encode())], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
