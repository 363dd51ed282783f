"""Two trees laid beside each other: which operation of one is which of the other, so that the least differs.

Operations in a row are aligned by edit distance, branches by the permutation that costs least. Pools and convolutions
are compared by the pixels that they really read of the model's map: SAME at an even size is ceiling without padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from harness.check.graph import Activation, Convolution, Dropout, Flatten, Linear, Norm, Padding, Softmax
from harness.check.tree import Chain, Fork, Item, Side, Step
from spec import AdaptiveAverage, Array, Arrays, MaxPool, Shape
from spec.network import LRN, AveragePool, Concat, Sliding
from spec.reference import adaptive_windows


@dataclass(frozen=True, eq=False)
class Pair:
    """An item of the reference and one of the model; None: it is missing, or extra.

    For branches and heads `inner` has the alignment of every branch of the reference, and `order` says which of the
    model's it is; branches of the model that are left over come last.
    """

    reference: Item | None
    model: Item | None
    inner: tuple[Alignment, ...] = ()
    order: tuple[int, ...] = ()


Alignment = tuple[Pair, ...]

_POOLS = (MaxPool, AveragePool, AdaptiveAverage)
# Of what is missing or extra. Layers with weights hold the rest in its place.
_GAPS: dict[type, float] = {Convolution: 3, Linear: 3, Norm: 0.6, Activation: 0.5, Dropout: 0.3, LRN: 0.8}
_GAPS |= {Softmax: 0.6, Flatten: 0.3, Padding: 0.5} | dict.fromkeys(_POOLS, 2.0)
_SETTINGS = {"channels": 0.4, "kernel": 0.6, "stride": 0.6, "groups": 0.6, "epsilon": 0.05, "momentum": 0.02}
_SETTINGS |= {"share": 0.05, "bias": 0.1}
_OTHERWISE = 0.2  # of any other setting
_ORDER = 0.3  # of a branch in another place
_KIND = 0.7  # of another pool


class _Form(NamedTuple):
    """What counts of an item, whatever it is called; costs are computed once for all items of a form."""

    op: Any  # of a block its joint, of a head `Side`
    into: Shape
    shape: Shape
    chains: tuple[tuple[_Form, ...], ...] = ()


Forms = tuple[_Form, ...]


def _form(item: Item) -> _Form:
    if isinstance(item, Step):
        return _Form(item.op, item.into, item.shape)
    chains = item.branches if isinstance(item, Fork) else (item.chain,)
    return _Form(item.joint if isinstance(item, Fork) else Side, (), (), tuple(map(_forms, chains)))


def _forms(chain: Chain) -> Forms:
    return tuple(map(_form, chain))


def align(reference: Chain, model: Chain) -> tuple[float, Alignment]:
    """How far two chains are from each other, and what belongs together."""
    best = _table(_forms(reference), _forms(model))
    pairs: list[Pair] = []
    i, j = len(reference), len(model)
    while i or j:
        _, up, left = best[i][j]
        i, j = i - up, j - left
        pairs.append(_pair(reference[i] if up else None, model[j] if left else None))
    return best[-1][-1][0], tuple(reversed(pairs))


def _pair(reference: Item | None, model: Item | None) -> Pair:
    if isinstance(reference, Side) and isinstance(model, Side):
        return Pair(reference, model, (align(reference.chain, model.chain)[1],))
    if not (isinstance(reference, Fork) and isinstance(model, Fork)):
        return Pair(reference, model)
    r, m = reference.branches, model.branches
    _, order = _matching(_form(reference), _form(model))
    inner = [tuple(_pair(x, None) for x in r[i]) if j < 0 else align(r[i], m[j])[1] for i, j in enumerate(order)]
    left = [j for j in range(len(m)) if j not in order]
    inner += [tuple(_pair(None, x) for x in m[j]) for j in left]
    return Pair(reference, model, tuple(inner), (*order, *left))


def _table(reference: Forms, model: Forms) -> list[list[tuple[float, bool, bool]]]:
    """The cost of every beginning of both, and which of the two go one item back from there at that cost."""
    best = [[(0.0, False, False)] * (len(model) + 1) for _ in range(len(reference) + 1)]
    for i in range(len(reference) + 1):
        for j in range(len(model) + 1):
            ways = []
            if i and j and (matched := _cost(reference[i - 1], model[j - 1])) is not None:
                ways.append((best[i - 1][j - 1][0] + matched, True, True))
            if i:
                ways.append((best[i - 1][j][0] + _gap(reference[i - 1]), True, False))
            if j:
                ways.append((best[i][j - 1][0] + _gap(model[j - 1]), False, True))
            if ways:
                best[i][j] = min(ways, key=lambda way: way[0])
    return best


@lru_cache(maxsize=65536)
def _distance(reference: Forms, model: Forms) -> float:
    return _table(reference, model)[-1][-1][0]


@lru_cache(maxsize=65536)
def _gap(item: _Form) -> float:
    """The cost of an item that has no counterpart."""
    if not item.chains:
        return _GAPS.get(type(item.op), 1.0)
    return 1 + sum(_gap(inner) for chain in item.chains for inner in chain)


@lru_cache(maxsize=65536)
def _cost(reference: _Form, model: _Form) -> float | None:
    """The cost of two items that belong together; None where they cannot."""
    if reference.chains and model.chains:
        if Side in (reference.op, model.op):
            alone = reference.op == model.op
            return _distance(reference.chains[0], model.chains[0]) if alone else None
        return _matching(reference, model)[0] if type(reference.op) is type(model.op) else None
    if reference.chains or model.chains:
        return None
    r, m = alike(reference, model)
    if type(r) is not type(m):
        pools = isinstance(reference.op, _POOLS) and isinstance(model.op, _POOLS)
        if not pools:
            return None
        same = averages(reference.op, model.op) and windows(reference.op, model.into) == windows(model.op, model.into)
        return 0.1 if same else _KIND
    return sum((_SETTINGS.get(name, _OTHERWISE) for name in differing(r, m, model.into)), 0.0)


def alike(reference: Step | _Form, model: Step | _Form) -> tuple[Any, Any]:
    """Their operations; a convolution whose kernel is as large as its map is a dense layer where the other one is."""
    r, m = reference.op, model.op
    return (_dense(reference) if isinstance(m, Linear) else r), (_dense(model) if isinstance(r, Linear) else m)


def _dense(step: Step | _Form) -> Any:
    op = step.op
    whole = isinstance(op, Convolution) and op.groups == 1 and step.shape[1:] == (1, 1)
    return Linear(op.channels, op.bias) if whole and op.kernel == step.into[1:] and op.dilation == (1, 1) else op


def averages(*ops: Any) -> bool:
    """Whether all of them take means."""
    return all(isinstance(op, AveragePool | AdaptiveAverage) for op in ops)


@lru_cache(maxsize=65536)
def _matching(reference: _Form, model: _Form) -> tuple[float, tuple[int, ...]]:
    """The cost of two blocks, and which branch of the model each of the reference's is; -1: it has none."""
    r, m = reference.chains, model.chains
    made = [[_distance(one, other) for other in m] for one in r]
    absent = [sum(map(_gap, branch)) + 1 for branch in r]
    extra = [sum(map(_gap, branch)) + 1 for branch in m]
    ordered = isinstance(reference.op, Concat)

    def cost(order: Sequence[int]) -> float:
        total = sum(absent[i] if j < 0 else made[i][j] for i, j in enumerate(order))
        matched = [j for j in order if j >= 0]
        moved = sum(j != k for j, k in zip(matched, sorted(matched), strict=True)) if ordered else 0
        return total + _ORDER * moved + sum(extra[j] for j in range(len(m)) if j not in order)

    places = [*range(len(m)), *[-1] * max(0, len(r) - len(m))]
    order = min(dict.fromkeys(permutations(places, len(r))), key=cost)
    return cost(order), order


# ------------------------------------------------------------------------------------------- settings that differ

_OF_WINDOWS = {"kernel", "stride", "pad", "dilation", "ceil", "count_pad", "side"}


def differing(reference: Any, model: Any, into: Shape) -> tuple[str, ...]:
    """Names of the settings in which two operations of a kind differ on a map like `into`, (channels, height, width).

    Settings of windows differ where other pixels are read.
    """
    names = differing_rules(reference, model)
    if names and isinstance(reference, Sliding | AdaptiveAverage) and windows(reference, into) == windows(model, into):
        names = tuple(name for name in names if name not in _OF_WINDOWS)
    return names


@lru_cache(maxsize=65536)
def differing_rules(reference: Any, model: Any) -> tuple[str, ...]:
    """The same by what the settings say, whatever the map."""
    if reference == model:
        return ()
    pairs = ((f.name, getattr(reference, f.name), getattr(model, f.name)) for f in fields(reference))
    return tuple(name for name, x, y in pairs if not _same(name, x, y))


def _same(name: str, x: Any, y: Any) -> bool:
    if x is None or y is None:
        return True  # it is not to be seen
    if isinstance(x, float) or isinstance(y, float):
        return math.isclose(x, y, rel_tol=1e-6)  # frameworks keep some in float32
    return bool(_pairs(name, x) == _pairs(name, y))


def _pairs(name: str, x: Any) -> Any:
    """One number for all sides, or one for each: the same form for both."""
    if name in ("kernel", "stride"):
        return (x, x) if isinstance(x, int) else tuple(x)
    if name == "pad":
        sides = (x, x) if isinstance(x, int) else x
        return tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)
    return x


@lru_cache(maxsize=4096)
def windows(op: Any, into: Shape) -> Any:
    """What is read of a map along both axes: a convolution's windows by their starts, an average's with divisors."""
    sizes = into[1:]
    if isinstance(op, AdaptiveAverage):
        return tuple(tuple((a, b, b - a) for a, b in adaptive_windows(size, op.side)) for size in sizes)
    counts = [op.output_size(size, axis) for axis, size in enumerate(sizes)]
    starts = [
        [i * op.strides[axis] - op.pads[axis][0] for i in range(max(count, 0))] for axis, count in enumerate(counts)
    ]
    if isinstance(op, Convolution):
        return tuple(map(tuple, starts)), op.kernel, op.sides
    cut = [
        tuple((max(start, 0), min(start + op.sides[axis], sizes[axis])) for start in begun)
        for axis, begun in enumerate(starts)
    ]
    if isinstance(op, MaxPool):
        return tuple(cut)
    divisors = [op.sides[axis] if op.count_pad else None for axis in (0, 1)]
    return tuple(tuple((a, b, divisor or b - a) for a, b in axis) for axis, divisor in zip(cut, divisors, strict=True))


def before_norm(pair: Pair, following: Sequence[Pair]) -> bool:
    """Whether both have batch norm next, which takes any bias away."""
    after = (following[0].reference, following[0].model) if following else ()
    return bool(after) and all(isinstance(item, Step) and isinstance(item.op, Norm) for item in after)


def biases(alignment: Alignment, arrays: Arrays) -> dict[str, Array]:
    """Arrays of the reference for biases that one of the two does not have, and that batch norm takes away."""
    changed: dict[str, Array] = {}
    for position, pair in enumerate(alignment):
        r, m = pair.reference, pair.model
        if isinstance(r, Step) and isinstance(m, Step) and before_norm(pair, alignment[position + 1 :]):
            norm = alignment[position + 1]
            name, own = (item.arrays.get("bias") for item in (r, m))
            if own and not name and isinstance(norm.reference, Step) and isinstance(norm.model, Step):
                changed[norm.reference.arrays["mean"]] = arrays[norm.model.arrays["mean"]] - arrays[own]
            elif name and not own:
                changed[name] = np.zeros(len(arrays[m.arrays["weight"]]))
        for inner in pair.inner:
            changed |= biases(inner, arrays)
    return changed


def weights(alignment: Alignment) -> dict[str, str]:
    """The names of the model's arrays by those of the reference, as far as the two belong together."""
    names: dict[str, str] = {}
    for pair in alignment:
        if isinstance(pair.reference, Step) and isinstance(pair.model, Step):
            names |= {
                x: pair.model.arrays[role] for role, x in pair.reference.arrays.items() if role in pair.model.arrays
            }
        for inner in pair.inner:
            names |= weights(inner)
    return names
