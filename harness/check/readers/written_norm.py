"""The rule that reads batch norm that somebody wrote out by hand, in whatever order of arithmetic.

A recorder notes arithmetic of a map with one number for each channel as `ByChannel`, and from which named arrays these
numbers are. Statistics of the batch have names of their own: `batch_mean` and `batch_var`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from harness.check.graph import Node, Norm, Unknown
from spec import Array

NUMBERS = "numbers"  # the role of what is computed with; the arrays that it comes from have their own names as roles
_CLOSE = 1e-6  # of float32's arithmetic


@dataclass(frozen=True)
class ByChannel(Unknown):
    """``add``, ``sub``, ``mul`` or ``div`` with one number for each channel, which is the second operand."""

    name: str = "add"
    momentum: float | None = None  # share of the batch's mean, if the numbers are that, in the running mean


def batch_mean(number: int) -> str:
    """The name of the mean of a node's output over the batch and the map."""
    return f"batch mean {number}"


def batch_var(number: int) -> str:
    """The name of its variance, divided by the count."""
    return f"batch var {number}"


class _Affine(NamedTuple):
    """factor · x + shift, x being a node's output, and the names of the arrays that these two are from."""

    start: int
    factor: Array
    shift: Array
    inner: frozenset[str]
    outer: frozenset[str]
    momentum: float | None = None


def with_norms(nodes: Sequence[Node], arrays: Mapping[str, Array]) -> list[Node]:
    """The nodes; the last operation of a written-out batch norm is that batch norm."""
    made, affine = list(nodes), dict[int, _Affine]()
    for number, node in enumerate(nodes):
        if isinstance(node.op, ByChannel):
            (read,) = node.reads
            affine[number] = _then(affine.get(read) or _nothing(read), node, arrays)
            made[number] = _norm(node, affine[number], arrays) or node
    return made


def _nothing(start: int) -> _Affine:
    return _Affine(start, np.ones(1), np.zeros(1), frozenset(), frozenset())


def _then(before: _Affine, node: Node, arrays: Mapping[str, Array]) -> _Affine:
    numbers = arrays[node.arrays[NUMBERS]].reshape(-1)
    names = frozenset(name for role, name in node.arrays.items() if role != NUMBERS)
    if node.op.name in ("add", "sub"):
        sign, share = 1 if node.op.name == "add" else -1, node.op.momentum
        return before._replace(
            shift=before.shift + sign * numbers,
            outer=before.outer | names,
            momentum=before.momentum if share is None else share,
        )
    numbers = numbers if node.op.name == "mul" else 1 / numbers
    return before._replace(factor=before.factor * numbers, shift=before.shift * numbers, inner=before.inner | names)


def _norm(node: Node, affine: _Affine, arrays: Mapping[str, Array]) -> Node | None:
    """Which array is which shows in the numbers: those of no two are alike, and only one reading fits them."""
    outer = affine.outer - affine.inner
    for var, weight in permutations([*affine.inner, None], 2):
        for mean, bias in permutations([*outer, None], 2):
            if None in (var, mean) or {var, weight} - {None} != affine.inner or {mean, bias} - {None} != outer:
                continue
            scale = np.ones(1) if weight is None else arrays[weight].reshape(-1)
            offset = np.zeros(1) if bias is None else arrays[bias].reshape(-1)
            spread, middle = arrays[str(var)].reshape(-1), arrays[str(mean)].reshape(-1)
            epsilon = (scale / affine.factor) ** 2 - spread
            level = np.ptp(epsilon) <= _CLOSE * spread.max() and epsilon.mean() > -_CLOSE * spread.max()
            if not (level and np.allclose(affine.shift, offset - middle * affine.factor, _CLOSE, _CLOSE)):
                continue
            of_batch = (mean, var) == (batch_mean(affine.start), batch_var(affine.start))
            if not of_batch and (str(mean).startswith("batch") or str(var).startswith("batch")):
                continue
            roles = {"weight": weight, "bias": bias} | ({} if of_batch else {"mean": mean, "var": var})
            op = Norm(float(epsilon.mean()), affine.momentum, weight is not None, bias is not None, of_batch=of_batch)
            kept = {role: name for role, name in roles.items() if name is not None}
            return replace(node, op=op, reads=(affine.start,), arrays=kept)
    return None
