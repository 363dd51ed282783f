"""A network of the spec as a graph: its table, taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import spec
from harness.check.graph import Activation, Convolution, Dropout, Graph, Input, Linear, Node, Norm, Scale
from spec.network import IMAGES, Add


def graph_of_table(config: spec.Config, shape: spec.Shape, *, training: bool = False) -> Graph:
    """The graph of a network on images of (channels, height, width); the arrays have their canonical names."""
    made = _Graph(shape, training)
    for node in spec.walk(config, shape):
        made.add(node)
    outputs = [config.logits, *(f"{head}.{_last(config, head)}" for head in spec.head_names(config))]
    return Graph(tuple(made.nodes), tuple(made.ends[name] for name in outputs))


def _last(config: spec.Config, head: str) -> str:
    return dict(config.table)[head].chain[-1][0]  # type: ignore[union-attr]  # it is a head


class _Graph:
    def __init__(self, shape: spec.Shape, training: bool) -> None:
        self.training = training
        self.nodes = [Node(Input(), (), IMAGES, shape)]
        self.ends = {IMAGES: 0}

    def add(self, node: spec.Node) -> None:
        """All that a node of the table does."""
        reads = [self.ends[name] for name in node.reads]
        op: Any = node.op
        if node.dropout:
            reads = [self.step(node, Dropout(node.dropout), reads, self.nodes[reads[0]].shape)]
        if isinstance(op, Add) and op.scale != 1:
            reads[-1] = self.step(node, Scale(op.scale), reads[-1:], node.out)
        ended = isinstance(op, Add) and len(reads) == 1  # a residual without its shortcut
        end = reads[0] if ended else self.step(node, _alone(node), reads, node.out, _layer(node))
        if norm := node.norm:
            alone = Norm(norm.epsilon, norm.momentum, norm.scale, norm.shift, of_batch=self.training)
            end = self.step(node, alone, [end], node.out, _norm(node))
        if getattr(op, "activation", None):
            end = self.step(node, Activation(op.activation), [end], node.out)
        self.ends[node.name] = end

    def step(
        self, node: spec.Node, op: Any, reads: list[int], shape: spec.Shape, arrays: Mapping[str, str] | None = None
    ) -> int:
        self.nodes.append(Node(op, tuple(reads), node.name, shape, arrays or {}))
        return len(self.nodes) - 1


def _alone(node: spec.Node) -> Any:
    """The operation without what belongs to its layer."""
    op = node.op
    if isinstance(op, spec.network.Conv):
        return Convolution(node.out_channels, op.sides, op.strides, op.pads, bias=node.has_bias)
    if isinstance(op, spec.network.Dense):
        return Linear(node.out_channels, bias=node.has_bias)
    if isinstance(op, spec.GlobalAverage):
        return spec.AdaptiveAverage(1)
    return Add(activation=None) if isinstance(op, Add) else op


def _layer(node: spec.Node) -> dict[str, str]:
    roles = ("weight",) * node.has_weights + ("bias",) * node.has_bias
    return {role: f"{node.name}.{role}" for role in roles}


def _norm(node: spec.Node) -> dict[str, str]:
    learned = node.norm.learned if node.norm else ()
    roles = {role: role for role in learned} | {"mean": "running_mean", "var": "running_var"}
    return {role: f"{node.name}.norm.{leaf}" for role, leaf in roles.items()}
