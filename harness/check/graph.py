"""A network as a framework's recorder saw it: its operations in forward order, each with what it reads.

Pools, local response normalization and the joints are the spec's own operations, and the referee runs them. The spec's
layers are taken apart into dropout, convolution or dense layer, batch norm and activation: people put these together in
other ways, and one of them can be missing alone. What the spec's layers do not have (dilation, groups, batch norm that
is not in the mode of the network) is a setting here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from spec import AdaptiveAverage, Array, MaxPool, Shape
from spec.network import LRN, Add, AveragePool, Concat, Pads, Pair, Sliding


class NotUnderstood(Exception):
    """A network that ran and cannot be judged; the message names the operation and its place."""


class NotSeen(Exception):
    """A pass that a recorder cannot see, whatever the model does in it."""


@dataclass(frozen=True)
class Convolution(Sliding):
    """A convolution and nothing else. `sides` are those of the window that it reads, dilation included."""

    channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    pad: Pads = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    @property
    def sides(self) -> Pair:
        height, width = ((side - 1) * step + 1 for side, step in zip(self.kernel, self.dilation, strict=True))
        return height, width


@dataclass(frozen=True)
class Linear:
    """A dense layer and nothing else, on all values in the order in which they come: of a map (C, H, W)."""

    channels: int
    bias: bool = True


@dataclass(frozen=True)
class Activation:
    """A function of every number alone."""

    kind: str  # one of `arithmetic.ACTIVATIONS`
    slope: float = 0.0  # of a leaky ReLU's negative side


@dataclass(frozen=True)
class Norm:
    """Batch norm and nothing else."""

    epsilon: float
    momentum: float | None  # share of the batch in the running statistics; None where the framework does not say
    scale: bool | None = True
    shift: bool | None = True
    of_batch: bool = False  # normalizes with the statistics of the batch, as in training


@dataclass(frozen=True)
class Dropout:
    """Drops a share of the numbers, or of the channels, in training."""

    share: float
    always: bool = False  # at inference too
    channels: bool = False


@dataclass(frozen=True)
class Padding:
    """Numbers around a map."""

    pad: Pads
    value: float = 0.0


@dataclass(frozen=True)
class BorderedMaxPool(MaxPool):
    """A max pool that sees zeros around the map, in place of minus infinity."""


@dataclass(frozen=True)
class Flatten:
    """A map as one row of numbers; `last` says that the channels change fastest: (H, W, C)."""

    last: bool = False


@dataclass(frozen=True)
class Softmax:
    """Probabilities of the classes, or their logarithms."""

    log: bool = False


@dataclass(frozen=True)
class Scale:
    """factor · x + shift."""

    factor: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Input:
    """The images."""


@dataclass(frozen=True)
class Unknown:
    """An operation that the recorder does not know. Only what an output depends on has to be known."""

    name: str


_OPERATIONS = (
    *(Input, Convolution, Linear, Activation, Norm, Dropout, Padding, Flatten, Softmax, Scale, Unknown),
    *(MaxPool, BorderedMaxPool, AveragePool, AdaptiveAverage, LRN, Concat, Add),
)
_BY_NAME: dict[str, Any] = {operation.__name__: operation for operation in _OPERATIONS}


@dataclass(frozen=True)
class Node:
    """An operation at its place."""

    op: Any
    reads: tuple[int, ...]  # places in `Graph.nodes`
    place: str  # by the model's own names of its parts, or the canonical name
    shape: Shape  # of the output, for one image
    arrays: Mapping[str, str] = field(default_factory=dict)  # name in `Graph.arrays` by role: weight, bias, mean, var


@dataclass(frozen=True)
class Graph:
    """Operations in forward order, the first of which is the `Input`, and those that the network puts out."""

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def needed(self, ends: Iterable[int]) -> set[int]:
        """Everything that these nodes depend on, and they."""
        needed, waiting = set(), list(ends)
        while waiting:
            if (number := waiting.pop()) not in needed:
                needed.add(number)
                waiting += self.nodes[number].reads
        return needed

    def trained(self) -> int:
        """How many numbers its layers have."""
        roles = ((role, name) for node in self.nodes for role, name in node.arrays.items())
        return sum(self.arrays[name].size for name in {name for role, name in roles if role in ("weight", "bias")})

    def as_json(self) -> dict[str, Any]:
        """Everything but the arrays."""
        nodes = [
            {"op": type(node.op).__name__, "settings": asdict(node.op), "reads": node.reads, "place": node.place}
            | {"shape": node.shape, "arrays": dict(node.arrays)}
            for node in self.nodes
        ]
        return {"nodes": nodes, "outputs": self.outputs}


def graph_of(stored: Mapping[str, Any], arrays: Mapping[str, Array]) -> Graph:
    """The graph that `Graph.as_json` has written."""
    nodes = tuple(
        Node(
            _BY_NAME[node["op"]](**{name: _tuple(value) for name, value in node["settings"].items()}),
            tuple(node["reads"]),
            node["place"],
            tuple(node["shape"]),
            node["arrays"],
        )
        for node in stored["nodes"]
    )
    return Graph(nodes, tuple(stored["outputs"]), arrays)


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value


_SAMPLES = 64  # numbers kept of an operation's output


@dataclass(frozen=True)
class Recording:
    """One pass of a model."""

    graph: Graph
    outputs: list[Array]  # in the order of the graph's
    samples: list[Array]  # of each node's output; empty ones where they cost too much
    single: bool = False  # a part of a model of float64 is computed in float32
    nudge: float = 0.0  # how far the outputs move where each pixel is moved by one rounding, where that was measured


def samples(x: Array) -> Array:
    """A few numbers of an array, from all over it."""
    flat = x.reshape(-1)
    picked: Array = flat[:: max(1, flat.size // _SAMPLES)][:_SAMPLES].copy()
    return picked


def enlarged(shape: Shape) -> Shape:
    """One pixel more in height and width."""
    channels, height, width = shape
    return channels, height + 1, width + 1


def probe_images(shape: Shape, number: int = 2) -> Array:
    """Images for a pass, (number, channels, height, width): noise, of which every operation sees both signs."""
    return np.random.default_rng(0).normal(size=(number, *shape))
