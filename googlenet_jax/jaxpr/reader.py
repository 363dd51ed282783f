"""A jaxpr read as a `harness.check.graph.Graph`.

What does not come from the images, such as arithmetic on parameters, is computed on the way. Where several operations
are one of the graph's, such as the arithmetic of batch norm, the later node takes the place of the earlier ones, which
are left out where nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import spec
from googlenet_jax.jaxpr.affine import Affine, settled
from googlenet_jax.jaxpr.values import Known, Traced, computed, leaves
from harness.check.graph import Graph, Input, Node, Unknown

# Operations that are other jaxprs in place, by their parameters.
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "remat2",
    "checkpoint",
    "custom_jvp_call",
    "custom_vjp_call",
)
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Reader:
    """Nodes as they are found. `handlers` are functions of (reader, parameters, operands, shape) by operation."""

    def __init__(self, handlers: Mapping[str, Callable[..., Any]], images: spec.Array, shape: spec.Shape) -> None:
        self.handlers = handlers
        self.nodes = [Node(Input(), (), "", images.shape[1:])]
        self.arrays: dict[str, spec.Array] = {}
        self.images = Traced(shape, 0, "NHWC")
        self.place = ""
        self.absorbed: set[int] = set()
        # By the node of a layer: the layer with some of its channels alone.
        self.parts: dict[int, Callable[[int, int, spec.Shape], Traced]] = {}

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Go through a jaxpr; those inside others are a part of it."""
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            read = [Known(x.val) if hasattr(x, "val") else known[x] for x in equation.invars]
            inner = next((equation.params[key] for key in _INNER if key in equation.params), None)
            if all(isinstance(x, Known) for x in read) and not any(leaves(x) for x in read):
                out = computed(equation, read)
            elif inner is not None and equation.primitive.name in _CALLS:
                own = [Known(np.asarray(x)) for x in getattr(inner, "consts", ())]
                out = self.run(getattr(inner, "jaxpr", inner), own, read)
            elif all(isinstance(x, Known) for x in read):
                out = computed(equation, read)
            else:
                out = self.operation(equation, read, [variable.aval.shape for variable in equation.outvars])
            known |= dict(zip(equation.outvars, out, strict=True))
        return [Known(x.val) if hasattr(x, "val") else known[x] for x in jaxpr.outvars]

    def operation(self, equation: Any, read: list[Any], wholes: list[spec.Shape]) -> list[Traced]:
        """Note an operation on what comes from the images."""
        name = equation.primitive.name
        handler = self.handlers.get(name)
        try:
            made = handler and handler(self, equation.params, read, wholes if name == "split" else wholes[0])
        except (ValueError, IndexError, KeyError, AttributeError, TypeError):
            made = None
        if made:
            return made if isinstance(made, list) else [made]
        traced = [x for x in read if isinstance(x, Traced)]
        return [self.node(Unknown(name), traced, whole, "?" * len(whole)) for whole in wholes]

    # ------------------------------------------------------------------------------------------------------- nodes

    def node(
        self,
        op: Any,
        read: Sequence[Traced],
        whole: spec.Shape,
        axes: str,
        shape: spec.Shape | None = None,
        **arrays: str,
    ) -> Traced:
        """Note an operation and what it puts out."""
        if shape is None and len(read) == 1 and read[0].whole == whole:
            shape = self.nodes[read[0].node].shape  # a map of one pixel stays one
        return self._noted(op, tuple(x.node for x in read), whole, axes, shape, arrays)

    def instead(self, before: Traced, op: Any, reads: Sequence[int] | None = None, **arrays: str) -> Traced:
        """Note an operation that does all that a node has done, and more."""
        node = self.nodes[before.node]
        self.absorbed.add(before.node)
        reads = node.reads if reads is None else tuple(reads)
        return self._noted(op, reads, before.whole, before.axes, node.shape, {**node.arrays, **arrays})

    def _noted(
        self, op: Any, reads: tuple[int, ...], whole: spec.Shape, axes: str, shape: spec.Shape | None, arrays: Any
    ) -> Traced:
        made = Traced(whole, len(self.nodes), axes)
        self.nodes.append(Node(op, reads, self.placed(arrays), made.shape if shape is None else shape, arrays))
        return made

    def placed(self, arrays: Mapping[str, str]) -> str:
        """The name of the module that the arrays belong to; without arrays that of the last one."""
        self.place = next(iter(arrays.values()), self.place + ".").rpartition(".")[0] or self.place
        return self.place

    def array(self, constant: Known, value: Any) -> str:
        """Keep an array in the canonical layout, under its name."""
        name = constant.name or f"constant {len(self.arrays)}"
        self.arrays[name] = np.asarray(value, np.float64)
        return name

    def op(self, x: Traced) -> Any:
        """The operation that puts this out."""
        return self.nodes[x.node].op

    # ------------------------------------------------------------------------------------------------------ the end

    def graph(self, ends: Sequence[Traced]) -> Graph:
        """Everything that was noted, without what became a part of later nodes."""
        needed = Graph(tuple(self.nodes), ()).needed(end.node for end in ends)
        left_out = self.absorbed | {i for i, node in enumerate(self.nodes) if isinstance(node.op, Unknown)}
        kept = [i for i in range(len(self.nodes)) if i in needed or i not in left_out]
        numbers = {old: new for new, old in enumerate(kept)}
        self.place = ""
        return Graph(
            tuple(self._finished(self.nodes[old], numbers) for old in kept),
            tuple(numbers[end.node] for end in ends),
            self.arrays,
        )

    def _finished(self, node: Node, numbers: Mapping[int, int]) -> Node:
        op, arrays = node.op, dict(node.arrays)
        if isinstance(op, Affine):
            op, found = settled(op)
            arrays = {role: self.array(x, np.ravel(x.value)) for role, x in found.items()}
        reads = tuple(numbers[i] for i in node.reads if i in numbers)
        return replace(node, op=op, reads=reads, arrays=arrays, place=self.placed(arrays))
