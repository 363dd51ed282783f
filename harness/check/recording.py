"""What comes of recording a model: its graph, what it puts out, and a few numbers of every operation on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.check.graph import Graph
from spec import Array, Shape

_SAMPLES = 64  # numbers kept of an operation's output


@dataclass(frozen=True)
class Recording:
    """One pass of a model."""

    graph: Graph
    outputs: list[Array]  # in the order of the graph's
    samples: list[Array]  # of each node's output


def samples(x: Array) -> Array:
    """A few numbers of an array, from all over it."""
    flat = x.reshape(-1)
    picked: Array = flat[:: max(1, flat.size // _SAMPLES)][:_SAMPLES].copy()
    return picked


def probe_images(shape: Shape, seed: int = 0) -> Array:
    """Two images for a pass, (2, channels, height, width): noise, of which every operation sees both signs."""
    return np.random.default_rng(seed).normal(size=(2, *shape))
