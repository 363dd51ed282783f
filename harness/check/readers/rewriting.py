"""Rules that read what somebody wrote out by hand, on the graph of whichever framework.

A recorder notes arithmetic on maps by the operations here. They are unknown ones where no rule takes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from harness.check.graph import Activation, Node, Recording, Scale, Unknown
from harness.check.readers.written_norm import with_norms
from spec.network import LRN, Add


@dataclass(frozen=True)
class Power(Unknown):
    """Every number to the same power."""

    name: str = "power"
    exponent: float = 1.0


@dataclass(frozen=True)
class Product(Unknown):
    """Two maps, number by number; of a quotient the second one is `inverted`."""

    name: str = "product of two maps"
    inverted: bool = False


@dataclass(frozen=True)
class Channels(Unknown):
    """As many channels as the node's shape has, from `start` on; those before the first and behind the last are 0."""

    name: str = "slice of channels"
    start: int = 0


@dataclass(frozen=True)
class ChannelSum(Unknown):
    """`factor` times the sum of `size` neighboring channels, `before` of which come before a channel; outside is 0."""

    name: str = "sum of neighboring channels"
    size: int = 1
    before: int = 0
    factor: float = 1.0


def rewritten(recording: Recording) -> Recording:
    """The same pass with its written-out layers in one piece, and without unknown operations that nothing depends on.

    Local response normalization, x · (k + a · Σ x²)^-beta, is recognized whether its sum is a pool, a convolution's or
    one of slices, and whichever number is multiplied first; so are x · sigmoid(x), and factors one after the other.
    """
    graph = recording.graph
    normed = with_norms(graph.nodes, graph.arrays)
    nodes = _scaled_once(_Forms(normed).layers(), graph.outputs)
    before, after = graph.needed(graph.outputs), replace(graph, nodes=tuple(nodes)).needed(graph.outputs)
    place: dict[int, int] = {}  # in the new graph
    for number, node in enumerate(nodes):
        whole = all(read in place for read in node.reads)
        if number in after or (whole and number not in before and not isinstance(node.op, Unknown)):
            place[number] = len(place)
    ops = {i: Unknown(op.name) if isinstance(op := nodes[i].op, Unknown) else op for i in place}
    kept = tuple(replace(nodes[i], op=op, reads=tuple(place[read] for read in nodes[i].reads)) for i, op in ops.items())
    graph = replace(graph, nodes=kept, outputs=tuple(place[end] for end in graph.outputs))
    return replace(recording, graph=graph, samples=[recording.samples[i] for i in place])


def _scaled_once(nodes: Sequence[Node], outputs: Sequence[int]) -> list[Node]:
    """Factors and summands one after the other are one of each; those that undo each other are none."""
    made: list[Node] = []
    for node in nodes:
        inner = made[node.reads[0]] if len(node.reads) == 1 else node
        if isinstance(node.op, Scale) and isinstance(inner.op, Scale) and node.reads[0] not in outputs:
            factor = node.op.factor * inner.op.factor
            shift = node.op.factor * inner.op.shift + node.op.shift
            factor, shift = (1.0, 0.0) if abs(factor - 1) + abs(shift) < _ROUNDING else (factor, shift)
            node = replace(node, op=Scale(factor, shift), reads=inner.reads)
        made.append(node)
    return made


_ROUNDING = 1e-7  # of float32, in which a factor and what takes it back may be
Powers = tuple[tuple[int, float], ...]  # a product: nodes, each with its exponent


class _Sum(NamedTuple):
    """A number and a weighted sum of neighboring channels of a product."""

    of: Powers
    channels: int  # of the product's maps
    weights: Mapping[int, float]  # by how many channels further the summand is
    number: float = 0.0


class _Forms:
    """What every node is as a product of powers, and as a sum of neighboring channels of one."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.powers: list[Powers] = []
        self.sums: list[_Sum] = []

    def layers(self) -> list[Node]:
        """The nodes; the last operation of a layer is that layer."""
        made = []
        for number, node in enumerate(self.nodes):
            self.powers.append(self.power(node) or ((number, 1.0),))
            self.sums.append(self.sum(node) or _Sum(self.powers[-1], (*node.shape, 1)[0], {0: 1.0}))
            made.append(self.layer(node, dict(self.powers[-1])) or node)
        return made

    def power(self, node: Node) -> Powers | None:
        op = node.op
        if isinstance(op, Power):
            return tuple((i, op.exponent * exponent) for i, exponent in self.powers[node.reads[0]])
        if isinstance(op, Product) and len(node.reads) == 2:
            first, second = (dict(self.powers[read]) for read in node.reads)
            sign = -1 if op.inverted else 1
            both = {i: first.get(i, 0) + sign * second.get(i, 0) for i in (*first, *second)}
            return tuple(sorted((i, exponent) for i, exponent in both.items() if exponent))
        return None

    def sum(self, node: Node) -> _Sum | None:
        op, parts = node.op, [self.sums[read] for read in node.reads]
        if isinstance(op, Scale):
            return _total([_scaled(parts[0], op.factor)], op.shift)
        if isinstance(op, Channels):
            return self.moved(node, parts[0], op.start)
        if isinstance(op, ChannelSum):
            moved = [self.moved(node, parts[0], i - op.before) for i in range(op.size)]
            return _total([_scaled(part, op.factor) for part in moved if part]) if all(moved) else None
        if (
            isinstance(op, Add)
            and len({(part.of, self.nodes[i].shape) for part, i in zip(parts, node.reads, strict=True)}) == 1
        ):
            return _total(parts)
        return None

    def moved(self, node: Node, part: _Sum, start: int) -> _Sum | None:
        """The sum from another channel on; None where a channel that is 0 outside the map is not 0 in the sum."""
        inside = range(self.nodes[node.reads[0]].shape[0])
        outside = [channel + start for channel in range(node.shape[0]) if channel + start not in inside]
        if any(part.number or channel + i in range(part.channels) for channel in outside for i in part.weights):
            return None
        return part._replace(weights={i + start: weight for i, weight in part.weights.items()})

    def layer(self, node: Node, powers: dict[int, float]) -> Node | None:
        """The layer that a product of two is."""
        for x, other in (powers, reversed(powers)) if len(powers) == 2 else ():
            gate, total = self.nodes[other], self.sums[other]
            if powers == {x: 1, other: 1} and gate.op == Activation("sigmoid") and gate.reads == (x,):
                return replace(node, op=Activation("silu"), reads=(x,))
            weights, reach = list(total.weights.values()), max(total.weights)
            level = all(math.isclose(weight, weights[0], rel_tol=1e-6) for weight in weights)
            around = level and sorted(total.weights) == list(range(-reach, reach + 1))
            if powers[x] == 1 and powers[other] < 0 and total.of == ((x, 2.0),) and around:
                lrn = LRN(len(weights), weights[0] * len(weights), -powers[other], total.number)
                return replace(node, op=lrn, reads=(x,))
        return None


def _scaled(part: _Sum, factor: float) -> _Sum:
    weights = {i: factor * weight for i, weight in part.weights.items()}
    return part._replace(weights=weights, number=factor * part.number)


def _total(parts: Sequence[_Sum], number: float = 0.0) -> _Sum:
    offsets = dict.fromkeys(i for part in parts for i in part.weights)
    weights = {i: sum(part.weights.get(i, 0.0) for part in parts) for i in offsets}
    return parts[0]._replace(weights=weights, number=number + sum(part.number for part in parts))
