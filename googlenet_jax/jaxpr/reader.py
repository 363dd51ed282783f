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
from googlenet_jax.jaxpr.affine import Affine, Running, settled
from googlenet_jax.jaxpr.values import Known, Traced, arithmetic, computed
from harness.check.graph import Graph, Input, Node, Unknown
from harness.check.readers.rewriting import Power, Product
from harness.check.readers.written_norm import batch_mean, batch_var

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


def without_dropout(closed: Any, dropped: Mapping[Any, tuple[int, float]]) -> Callable[..., list[Any]]:
    """The function of a jaxpr; a map that a mask was to be put on is multiplied with the mask's mean."""

    def run(jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            read = [x.val if hasattr(x, "val") else known[x] for x in equation.invars]
            inner = _inner(equation)
            if equation.outvars[0] in dropped:
                operand, factor = dropped[equation.outvars[0]]
                out = [read[operand] * factor]
            elif inner is not None:
                out = run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), read)
            else:
                functions, params = equation.primitive.get_bind_params(equation.params)
                made = equation.primitive.bind(*functions, *read, **params)
                out = made if equation.primitive.multiple_results else [made]
            known |= dict(zip(equation.outvars, out, strict=True))
        return [x.val if hasattr(x, "val") else known[x] for x in jaxpr.outvars]

    return lambda *inputs: run(closed.jaxpr, closed.consts, inputs)


def _inner(equation: Any) -> Any:
    """The jaxpr that an operation is in its place, if it is one."""
    inner = next((equation.params[key] for key in _INNER if key in equation.params), None)
    return inner if equation.primitive.name in _CALLS else None


class Reader:
    """Nodes as they are found. `handlers` are functions of (reader, parameters, operands, shape) by operation."""

    def __init__(
        self, handlers: Mapping[str, Callable[..., Any]], images: spec.Array, shape: spec.Shape, *, training: bool
    ) -> None:
        self.handlers = handlers
        self.training = training
        self.nodes = [Node(Input(), (), "", images.shape[1:])]
        self.arrays: dict[str, spec.Array] = {}
        self.images = Traced(shape, 0, "NHWC")
        self.place = ""
        self.absorbed: set[int] = set()
        # By the node of a layer: the layer with some of its channels alone.
        self.parts: dict[int, Callable[[int, int, spec.Shape], Traced]] = {}
        self.dropped: dict[Any, tuple[int, float]] = {}  # by a variable: the operand that it is, and times what
        self.variable: Any = None  # what the operation at hand puts out

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Go through a jaxpr; those inside others are a part of it."""
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            read = [Known(x.val) if hasattr(x, "val") else known[x] for x in equation.invars]
            inner = _inner(equation)
            if all(isinstance(x, Known) for x in read) and not any(x.leaves for x in read):
                out = computed(equation, read)
            elif inner is not None:
                own = [Known(np.asarray(x)) for x in getattr(inner, "consts", ())]
                out = self.run(getattr(inner, "jaxpr", inner), own, read)
            elif all(isinstance(x, Known) for x in read):
                out = computed(equation, read)
            else:
                out = self.operation(equation, read, [variable.aval.shape for variable in equation.outvars])
            known |= dict(zip(equation.outvars, out, strict=True))
        return [Known(x.val) if hasattr(x, "val") else known[x] for x in jaxpr.outvars]

    def operation(self, equation: Any, read: list[Any], wholes: list[spec.Shape]) -> list[Any]:
        """Note an operation on what comes from the images."""
        name, self.variable = equation.primitive.name, equation.outvars[0]
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

    # ------------------------------------------------------------------------------------------------------ batches

    def mean(self, number: int) -> str:
        """The name of the mean of what a node puts out over the batch and the map; averages have that of their map."""
        while self.nodes[number].op == spec.AdaptiveAverage(1):
            (number,) = self.nodes[number].reads
        return batch_mean(number)

    def expected(self, number: int) -> Known:
        """The mean of what a node puts out over the batch and the map, by channel, in the batch's statistics."""
        node = self.nodes[number]
        if node.op == spec.AdaptiveAverage(1):
            return self.expected(node.reads[0])
        if not isinstance(node.op, Power | Product):
            return self.affine(number)[0]
        factors = node.reads * (2 if node.op == Power(exponent=2.0) else 1)
        (one, slope, start), (other, slant, same) = map(self.affine, factors)
        if start != same or node.op not in (Power(exponent=2.0), Product()):
            raise ValueError("a mean of something else")
        var = Known(np.ones(node.shape[0]), batch_var(start))
        spread = arithmetic("mul", arithmetic("mul", slope, slant), var)
        return arithmetic("add", spread, arithmetic("mul", one, other))

    def affine(self, number: int) -> tuple[Known, Known, int]:
        """The mean of factor · x + shift, the factor, and the node that puts out x."""
        node, op = self.nodes[number], self.nodes[number].op
        op, start = (op, node.reads[0]) if isinstance(op, Affine) else (Affine(""), number)
        mean = Known(np.zeros(node.shape[0]), self.mean(start))
        return arithmetic("add", arithmetic("mul", op.factor, mean), op.shift), op.factor, start

    # ------------------------------------------------------------------------------------------------------ the end

    def graph(self, ends: Sequence[Traced], running: Mapping[str, Running]) -> Graph:
        """Everything that was noted, without what became a part of later nodes."""
        needed = Graph(tuple(self.nodes), ()).needed(end.node for end in ends)
        left_out = self.absorbed | {i for i, node in enumerate(self.nodes) if isinstance(node.op, Unknown)}
        kept = [i for i in range(len(self.nodes)) if i in needed or i not in left_out]
        numbers = {old: new for new, old in enumerate(kept)}
        self.place = ""
        return Graph(
            tuple(self._finished(self.nodes[old], numbers, running) for old in kept),
            tuple(numbers[end.node] for end in ends),
            self.arrays,
        )

    def _finished(self, node: Node, numbers: Mapping[int, int], running: Mapping[str, Running]) -> Node:
        op, arrays = node.op, dict(node.arrays)
        if isinstance(op, Affine):
            (start,) = node.reads
            op, found = settled(op, self.mean(start), batch_var(start), running)
            arrays = {role: self.array(x, np.ravel(x.value)) for role, x in found.items()}
        reads = tuple(numbers[i] for i in node.reads if i in numbers)
        return replace(node, op=op, reads=reads, arrays=arrays, place=self.placed(arrays))
