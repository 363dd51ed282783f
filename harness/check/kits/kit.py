"""A conformance kit: inputs that any language can draw, and what the referee computes on them.

No number of a kit comes from a file or a generator of a library: each is a hash of its array's name and its place
there, rounded to float32. So whoever holds the name of a preset has the kit's inputs, bit by bit.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import spec
from spec import Array, reference
from spec.network import LRN
from spec.shapes import fits

SGD = spec.SGD(rate=2.0**-4, momentum=0.875)
ADAM = spec.Adam(rate=2.0**-10, epsilon=2.0**-10)  # that an epsilon of 1e-8 divides rounding by rounding
STEPS = {"sgd": SGD, "adam": ADAM}
BATCH = 2  # pictures of each size
_ZERO = 1e-12  # of the largest gradient: below it one is zero but for rounding, as that of a bias before batch norm


class Drawn(NamedTuple):
    """How an array is drawn: shift + scale · u, with u from -1 to 1."""

    shape: spec.Shape
    scale: float
    shift: float = 0.0

    def numbers(self, name: str) -> Array:
        """The array of that name, float32."""
        x = (np.uint64(key(name)) << np.uint64(32)) + np.arange(math.prod(self.shape), dtype=np.uint64)
        for factor, shift in _ROUNDS:
            x *= np.uint64(factor)
            x ^= x >> np.uint64(shift)
        u = (x >> np.uint64(40)) / 2.0**23 - 1
        return (self.shift + self.scale * u).astype(np.float32).reshape(self.shape)


# Source: SplitMix64 of Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
_ROUNDS = ((0x9E3779B97F4A7C15, 30), (0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31))


def key(name: str) -> int:
    """The CRC-32 of a name."""
    return zlib.crc32(name.encode())


@dataclass(frozen=True)
class Kit:
    """What a port is given. Its dropout is off."""

    config: spec.Config
    sizes: dict[str, int]  # of the pictures, pixels a side, by ``even`` and ``odd``

    @cached_property
    def drawn(self) -> dict[str, Drawn]:
        """How the network's arrays are drawn, by canonical name: weights by He's rule, nothing neutral."""
        made = {}
        for name, shape in spec.param_shapes(self.config).items():
            if len(shape) > 1:
                made[name] = Drawn(shape, math.sqrt(6 / math.prod(shape[1:])))
            else:
                made[name] = Drawn(shape, 0.25, float(name.endswith((".norm.weight", ".running_var"))))
        return made

    @cached_property
    def params(self) -> dict[str, Array]:
        """The network's arrays by canonical name, float32."""
        return {name: drawn.numbers(name) for name, drawn in self.drawn.items()}

    def pictures(self, which: str) -> Drawn:
        """How the pictures of a size are drawn: from -1 to 1, for local response normalization from -128 to 128."""
        side = self.sizes[which]
        large = any(isinstance(node.op, LRN) for node in spec.walk(self.config))
        return Drawn((BATCH, self.config.in_channels, side, side), 128.0 if large else 1.0)

    def images(self, which: str) -> Array:
        """The pictures of a size, (N, C, H, W), float32."""
        return self.pictures(which).numbers(f"{which}/images")

    @property
    def labels(self) -> Array:
        """The classes of both pictures."""
        return np.arange(BATCH) * 7 % self.config.num_classes

    @property
    def trained(self) -> str:
        """The size of the pictures that are trained on."""
        return next(iter(self.sizes))


def kit_of(
    preset: str,
    *,
    channels: int | None = None,
    classes: int | None = None,
    size: int | None = None,
    heads: bool = True,
) -> Kit:
    """The kit of a preset; size and whatever is left out are its own.

    Raises:
        InvalidInput: for a setting or a size that the network cannot have.
    """
    config = spec.preset(preset, in_channels=channels, num_classes=classes, aux=None if heads else False, dropout=0.0)
    side = config.input_size if size is None else size
    spec.stage_shapes(config, (config.in_channels, side, side))
    beside = next((other for other in (side + 1, side - 1) if other > 0 and fits(config, other)), None)
    sides = sorted([side] if beside is None else [side, beside], key=lambda n: n % 2)
    return Kit(config, {("odd" if n % 2 else "even"): n for n in sides})


def expected(kit: Kit, done: Callable[[str], None] = lambda name: None) -> Iterator[tuple[str, Array]]:
    """What the referee computes, float64, by the names that a capture has.

    ``even/STAGE`` and ``odd/STAGE`` in inference mode, of the logits ``even/logits`` too; on the pictures of the first
    size ``loss`` in training mode, ``gradient/NAME``, ``statistics/NAME`` after that pass, ``sgd/NAME`` and
    ``adam/NAME`` after one step. Arrays whose gradient is zero but for rounding have no ``adam/NAME``.

    Args:
        kit: The inputs.
        done: Takes ``even``, ``odd`` and ``training`` when they are finished.
    """
    for which in kit.sizes:
        stages = reference.activations(kit.config, kit.params, kit.images(which))
        yield from ((f"{which}/{stage}", x) for stage, x in stages.items())
        yield f"{which}/logits", stages[kit.config.logits]
        done(which)
    training = reference.loss_and_grads(kit.config, kit.params, kit.images(kit.trained), kit.labels)
    yield "loss", np.array(training.loss)
    yield from ((f"gradient/{name}", x) for name, x in training.grads.items())
    yield from ((f"statistics/{name}", x) for name, x in training.statistics.items())
    moved = nonzero(training.grads)
    for kind in STEPS:
        for name, gradient in training.grads.items():  # one after the other: the largest networks take 1 GB for all
            if kind == "sgd" or name in moved:
                yield f"{kind}/{name}", step(kit, kind, {name: gradient})[name]
    done("training")


def step(kit: Kit, kind: str, grads: spec.Arrays, **changed: Any) -> dict[str, Array]:
    """The trained arrays of a kit after one step of ``sgd`` or ``adam``, with other settings where some are named."""
    params = {name: kit.params[name].astype(np.float64) for name in grads}
    return replace(STEPS[kind], **changed).update(params, grads, {})


def nonzero(grads: spec.Arrays) -> list[str]:
    """The names of those that are not zero but for rounding."""
    sizes = {name: float(np.abs(x).max()) for name, x in grads.items()}
    return [name for name, size in sizes.items() if size > _ZERO * max(sizes.values())]
