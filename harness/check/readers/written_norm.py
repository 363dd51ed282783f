"""The rule that reads batch norm that somebody wrote out by hand, in whatever order of arithmetic.

A recorder notes arithmetic of a map with one number for each channel as `ByChannel`, and from which named arrays these
numbers are. Statistics of the batch have names of their own: `batch_mean` and `batch_var`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np

from harness.check.graph import Node, Norm, Unknown
from spec import Array

NUMBERS = "numbers"  # the role of what is computed with; the arrays that it comes from have their own names as roles
# Of float64: in float32 an epsilon of 1e-5 is lost in the variances' rounding, and would be told as another one.
_LEVEL, _CLOSE = 1e-12, 1e-9
OF_BATCH = "batch "


@dataclass(frozen=True)
class ByChannel(Unknown):
    """``add``, ``sub``, ``mul`` or ``div`` with one number for each channel, which is the second operand."""

    name: str = "add"
    momentum: float | None = None  # share of the batch's mean, if the numbers are that, in the running mean


def batch_mean(number: int) -> str:
    """The name of the mean of a node's output over the batch and the map."""
    return f"{OF_BATCH}mean {number}"


def batch_var(number: int) -> str:
    """The name of its variance, divided by the count."""
    return f"{OF_BATCH}var {number}"


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
    with np.errstate(all="ignore"):  # a factor may be 0
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
    """The batch norm that a node completes."""
    found = read_norm(affine.factor, affine.shift, affine.inner, affine.outer, arrays)
    if found is None:
        return None
    made = norm_of(found, batch_mean(affine.start), batch_var(affine.start), affine.momentum)
    if made is None:
        return None
    op, roles = made
    return replace(node, op=op, reads=(affine.start,), arrays=roles)


def norm_of(
    found: tuple[float, dict[str, str]], mean: str, var: str, momentum: float | None
) -> tuple[Norm, dict[str, str]] | None:
    """What `read_norm` has found as an operation and its arrays by role.

    Args:
        found: Its epsilon and its roles.
        mean: The name of the batch's own mean, of what is normalized.
        var: Of its variance.
        momentum: The share of the batch in the running statistics.
    """
    epsilon, roles = found
    statistics = roles["mean"], roles["var"]
    of_batch = statistics == (mean, var)
    if of_batch:
        roles = {role: name for role, name in roles.items() if name not in statistics}
    elif any(name.startswith(OF_BATCH) for name in statistics):
        return None
    return Norm(epsilon, momentum, "weight" in roles, "bias" in roles, of_batch=of_batch), roles


def read_norm(
    factor: Array, shift: Array, inner: Iterable[str], outer: Iterable[str], arrays: Mapping[str, Array]
) -> tuple[float, dict[str, str]] | None:
    """The batch norm that factor · x + shift is, float64: its epsilon, and the names of its arrays by role.

    Which array is which shows in the numbers, no two arrays' being alike: one reading fits them, or none.

    Args:
        factor: By channel.
        shift: By channel.
        inner: The names of the arrays that the factor is from.
        outer: Of those that the shift is from.
        arrays: By name.
    """
    inside, outside = sorted(inner), sorted({*outer} - {*inner})
    numbers = {name: arrays[name].reshape(-1) for name in (*inside, *outside)}
    if len({x.size for x in (factor, shift, *numbers.values())} - {1}) > 1:
        return None  # they are not by channel
    for var, weight in _orders(inside):
        for mean, bias in _orders(outside):
            scale, offset = numbers.get(weight, np.ones(1)), numbers.get(bias, np.zeros(1))
            epsilon = (scale / factor) ** 2 - numbers[var]
            level = np.ptp(epsilon) <= _LEVEL * numbers[var].max() and epsilon.mean() > -_LEVEL
            if level and np.allclose(shift, offset - numbers[mean] * factor, rtol=_CLOSE, atol=_CLOSE):
                named = {"weight": weight, "bias": bias, "mean": mean, "var": var}
                return float(epsilon.mean()), {role: name for role, name in named.items() if name}
    return None


def _orders(names: Sequence[str]) -> list[tuple[str, str]]:
    """Of one or two names which is first, and which is second or none."""
    if len(names) == 1:
        return [(names[0], "")]
    return list(permutations(names, 2)) if len(names) == 2 else []
