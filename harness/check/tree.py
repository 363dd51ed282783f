"""A graph read as a tree: operations one after the other, branches side by side, heads beside the trunk.

Two networks are compared as trees. What computes the same by the rules of arithmetic is brought to one form first: a
ReLU after a max pool or a concatenation stands before it, one of what cannot be negative is left out, zeros around a
convolution belong to it, averages are taken before a 1 x 1 convolution. The tree is what is run again, so that this
reading is proven with the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.check.graph import (
    Activation,
    BorderedMaxPool,
    Convolution,
    Dropout,
    Flatten,
    Graph,
    Linear,
    NotUnderstood,
    Padding,
    Scale,
    Softmax,
    Unknown,
)
from spec import AdaptiveAverage, MaxPool, Shape
from spec.network import LRN, Add, AveragePool, Concat, Pads

_LARGEST = 5000  # steps: parts that several branches read are in each of them


@dataclass(frozen=True, eq=False)
class Step:
    """One operation."""

    op: Any
    place: str
    into: Shape  # for one image
    shape: Shape
    arrays: Mapping[str, str] = field(default_factory=dict)
    number: int = 0  # of the graph's node


@dataclass(frozen=True, eq=False)
class Fork:
    """Branches that read the same map, joined; an empty one passes it on."""

    joint: Concat | Add
    branches: tuple[Chain, ...]
    place: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Side:
    """A head: what else the network puts out, from where it leaves the trunk."""

    chain: Chain
    place: str


Item = Step | Fork | Side
Chain = tuple[Item, ...]


def read(graph: Graph, *, heads: bool) -> Chain:
    """The tree of a graph; without `heads` that of its logits alone.

    The logits are the output at the end of most operations.

    Raises:
        NotUnderstood: for an unknown operation that an output depends on, and where branches do not end together.
    """
    reading = _Reading(graph)
    main = max(graph.outputs, key=lambda end: len(graph.needed([end])))
    for number in sorted(graph.needed(graph.outputs if heads else [main])):
        if isinstance(op := graph.nodes[number].op, Unknown):
            raise NotUnderstood(f"the operation {op.name} at {graph.nodes[number].place or 'the top'}")
    sides: dict[int, list[Side]] = {}
    if heads:
        trunk = set(reading.line(main))
        for end in dict.fromkeys(graph.outputs):
            leaves = next(number for number in reading.line(end) if number in trunk)
            if end != main and leaves != end:
                side = Side(reading.chain(end, leaves), graph.nodes[end].place.partition(".")[0])
                sides.setdefault(leaves, []).append(side)
    return simplified(reading.chain(main, 0, sides))


def logits(chain: Chain) -> Shape:
    """The shape of what a chain puts out."""
    return [item for item in chain if not isinstance(item, Side)][-1].shape


def unused(graph: Graph) -> list[str]:
    """Operations that nothing reads and that are not put out, with their places; what is unknown is no layer's."""
    needed = graph.needed(graph.outputs)
    read_by_any = {number for node in graph.nodes for number in node.reads}
    dead = [i for i in range(1, len(graph.nodes)) if i not in needed and i not in read_by_any]
    nodes = (graph.nodes[i] for i in dead)
    return [
        f"{type(node.op).__name__} at {node.place or 'the top'}" for node in nodes if not isinstance(node.op, Unknown)
    ]


class _Reading:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.above: dict[int, int] = {}  # by node: the last one before it that everything on the way to it passes
        self.steps = 0
        for number, node in enumerate(graph.nodes[1:], 1):
            lines = [self.line(read) for read in dict.fromkeys(node.reads)]
            if lines:
                self.above[number] = next((x for x in lines[0] if all(x in line for line in lines)), 0)

    def line(self, number: int) -> list[int]:
        """The node and, back to the images, every one that all ways lead through."""
        line = [number]
        while line[-1] in self.above:
            line.append(self.above[line[-1]])
        return line

    def chain(self, end: int, start: int, sides: Mapping[int, list[Side]] | None = None) -> Chain:
        """From behind `start` up to `end`."""
        items: list[Item] = []
        number = end
        while number != start:
            node, before = self.graph.nodes[number], self.above.get(number)
            self.steps += 1
            if before is None or self.steps > _LARGEST:
                raise NotUnderstood(f"how {node.place or 'an operation'} hangs together with what it reads")
            items += reversed((sides or {}).get(number, []))
            if len(node.reads) > 1:
                branches = tuple(self.chain(read, before) for read in node.reads)
                items.append(Fork(node.op, branches, node.place, node.shape))
            else:
                into = self.graph.nodes[before].shape
                items.append(Step(node.op, node.place, into, node.shape, node.arrays, number))
            number = before
        items += reversed((sides or {}).get(start, []))
        return tuple(reversed(items))


# ------------------------------------------------------------------------------------------------- one form for all


def simplified(chain: Chain) -> Chain:
    """The same function in the form in which trees are compared."""
    items: list[Item] = []
    for item in chain:
        if isinstance(item, Side):
            items.append(replace(item, chain=simplified(item.chain)))
        elif isinstance(item, Fork):
            items.append(_fork(item))
        else:
            _append(items, item)
    return _without_needless(tuple(items))


def _fork(fork: Fork) -> Fork:
    branches = [simplified(branch) for branch in fork.branches]
    if isinstance(fork.joint, Add):
        return replace(fork, branches=tuple(branches))
    flat: list[Chain] = []  # a concatenation of concatenations is one
    for branch in branches:
        inner = branch[0] if len(branch) == 1 else None
        flat += inner.branches if isinstance(inner, Fork) and isinstance(inner.joint, Concat) else [branch]
    grouped: list[Chain] = []  # neighbors that begin with the same operation fork behind it
    for branch in flat:
        if grouped and (common := _common(grouped[-1], branch)):
            rest = (grouped[-1][common:], branch[common:])
            shape = (sum(_channels(fork, chain) for chain in (grouped[-1], branch)), *fork.shape[1:])
            grouped[-1] = (*branch[:common], Fork(Concat(), rest, fork.place, shape))
        else:
            grouped.append(branch)
    return replace(fork, branches=tuple(grouped))


def _channels(fork: Fork, branch: Chain) -> int:
    last = branch[-1]
    return 0 if isinstance(last, Side) else last.shape[0]


def _common(one: Chain, other: Chain) -> int:
    """How many operations both begin with, that are the same ones and not equal ones."""
    same = 0
    for x, y in zip(one, other, strict=False):
        if not (isinstance(x, Step) and isinstance(y, Step) and x.number == y.number and x.number):
            break
        same += 1
    return same


def _append(items: list[Item], step: Step) -> None:
    """Put a step at the end, or where it stands in the form for all."""
    last = items[-1] if items else None
    if isinstance(step.op, Activation) and isinstance(last, Fork) and isinstance(last.joint, Concat):
        items[-1] = replace(last, branches=tuple(_activated(branch, step) for branch in last.branches))
    elif isinstance(step.op, Activation) and step.op.kind == "relu" and _is(last, MaxPool):
        items.pop()
        _append(items, replace(step, into=last.into, shape=last.into))  # type: ignore[union-attr]
        items.append(last)  # type: ignore[arg-type]
    elif isinstance(last, Step) and _averages_first(last.op, step.op):
        items.pop()
        _append(items, replace(step, into=last.into, shape=(last.into[0], *step.shape[1:])))
        items.append(replace(last, into=items[-1].shape, shape=step.shape))  # type: ignore[union-attr]
    elif isinstance(last, Step) and isinstance(last.op, Padding) and (merged := _merged(last.op, step)):
        items[-1] = replace(merged, into=last.into)
    else:
        items.append(step)


def _averages_first(convolution: Any, average: Any) -> bool:
    """Whether averages may be taken before a 1 x 1 convolution: not with a bias where zeros around the map count."""
    if not isinstance(convolution, Convolution) or (convolution.sides, convolution.stride) != ((1, 1), (1, 1)):
        return False
    if isinstance(average, AveragePool):
        return not _any(convolution.pad) and not (average.count_pad and _any(average.pads) and convolution.bias)
    return isinstance(average, AdaptiveAverage) and not _any(convolution.pad)


def _activated(branch: Chain, step: Step) -> Chain:
    items = list(branch)
    shape = items[-1].shape if items and not isinstance(items[-1], Side) else step.shape
    _append(items, replace(step, into=shape, shape=shape, place=items[-1].place if items else step.place))
    return tuple(items)


def _is(item: Item | None, kind: Any) -> bool:
    return isinstance(item, Step) and isinstance(item.op, kind)


def _merged(padding: Padding, step: Step) -> Step | None:
    """An operation with what is around its map, where it can put that there itself."""
    op = step.op
    zeros = padding.value == 0 and (
        isinstance(op, Convolution) or (isinstance(op, AveragePool) and (op.count_pad or not _any(op.pads)))
    )
    if zeros and isinstance(op, AveragePool):
        return replace(step, op=replace(op, pad=_sum(padding.pad, op.pads), count_pad=True))
    if padding.value == 0 and isinstance(op, MaxPool) and not _any(op.pads):
        return replace(step, op=BorderedMaxPool(op.kernel, op.stride, padding.pad, op.ceil))
    if zeros or (isinstance(op, MaxPool) and padding.value == -math.inf):
        return replace(step, op=replace(op, pad=_sum(padding.pad, op.pads)))
    return None


def _any(pads: Pads) -> bool:
    return pads != ((0, 0), (0, 0))


def _sum(one: Pads, other: Pads) -> Pads:
    (a, b), (c, d) = ((p[0] + q[0], p[1] + q[1]) for p, q in zip(one, other, strict=True))
    return (a, b), (c, d)


def _without_needless(chain: Chain, positive: bool = False) -> Chain:
    """Without steps that change nothing here; `positive` says that nothing that comes here is negative."""
    kept: list[Item] = []
    for position, item in enumerate(chain):
        if isinstance(item, Step):
            if _needless(item, positive, chain[position + 1 :]):
                continue
            if positive and isinstance(op := item.op, BorderedMaxPool):  # a zero is no maximum then
                item = replace(item, op=MaxPool(op.kernel, op.stride, op.pad, op.ceil))
            positive = _stays_positive(item, positive)
        elif isinstance(item, Fork):
            item = replace(item, branches=tuple(_without_needless(branch, positive) for branch in item.branches))
            positive = all(_positive(branch, positive) for branch in item.branches)
        elif isinstance(item, Side):
            item = replace(item, chain=_without_needless(item.chain, positive))
        kept.append(item)
    return tuple(kept)


def _needless(step: Step, positive: bool, rest: Chain) -> bool:
    op = step.op
    if isinstance(op, Activation):
        return op.kind == "relu" and positive
    if isinstance(op, Dropout):
        return op.share == 0
    if isinstance(op, Scale):
        return op == Scale()
    if isinstance(op, Flatten):
        if math.prod(step.into[1:]) == 1:
            return True
        following = (x for x in rest if not (_is(x, Dropout) or _is(x, Activation) or isinstance(x, Side)))
        return not op.last and _is(next(following, Step(Linear(0), "", (), ())), (Linear, Softmax))
    return isinstance(op, Padding) and not _any(op.pad)


def _positive(branch: Chain, positive: bool) -> bool:
    for item in branch:
        if isinstance(item, Step):
            positive = _stays_positive(item, positive)
        elif isinstance(item, Fork):
            positive = all(_positive(inner, positive) for inner in item.branches)
    return positive


def _stays_positive(step: Step, positive: bool) -> bool:
    op = step.op
    if isinstance(op, Activation):
        return op.kind in ("relu", "relu6", "sigmoid")
    if isinstance(op, Padding):
        return positive and op.value >= 0
    return positive and isinstance(op, MaxPool | AveragePool | AdaptiveAverage | LRN | Dropout | Flatten)
