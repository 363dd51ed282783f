"""Which mistake gives the numbers that were captured: each is made in the reference and run on the port's own input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, permutations

import numpy as np

from harness.agreement import relative_error
from harness.check.align import align
from harness.check.differences import differences
from harness.check.graph import Activation, Convolution, Linear
from harness.check.kits.mistakes import COMMON, MISTAKES, PICTURES, Mistake, Mistaken, MistakenRun, Path, made, places
from harness.check.tree import Chain, Fork, Step
from spec import Array, Arrays
from spec.network import IMAGES, Concat

UNKNOWN = "no known mistake gives these numbers"
_PAIRS = 2e8  # multiply-adds for one picture up to which two mistakes together are looked for
_MOST = 5  # places of which some are looked at together
Found = list[tuple[str, str]]  # places, and what is wrong there in words


@dataclass
class Evidence:
    """Operations, what went into them, and what came out, on maps of one size."""

    chain: Chain
    x: Array
    y: Array
    arrays: Arrays
    tolerance: float

    @cached_property
    def outputs(self) -> list[Array]:
        """What each operation should put out, up to one that cannot be run on what arrives."""
        run, x, outputs = MistakenRun(self.arrays), self.x, []
        for item in self.chain:
            try:
                x = run.item(item, x)
            except (ValueError, IndexError):
                break
            outputs.append(x)
        return outputs

    @cached_property
    def error(self) -> float:
        """How far what came out is from what should have; infinite where that cannot be run, or has another shape."""
        if len(self.outputs) < len(self.chain):
            return math.inf
        expected = self.outputs[-1] if self.chain else self.x
        return relative_error(self.y, _like(expected, self.y))

    @property
    def right(self) -> bool:
        """Whether that is what came out."""
        return self.error <= self.tolerance

    def reproduced(self, other: Mistaken) -> bool:
        """Whether a mistake gives what came out."""
        first = other.mistake.of_batch or self._reproduced(other, slice(0, 1))  # which rejects most in half the time
        return first and self._reproduced(other, slice(None))

    def _reproduced(self, other: Mistaken, pictures: slice) -> bool:
        alike = 0 if other.arrays else min(_alike(other.chain, self.chain), len(self.outputs))
        x = (self.outputs[alike - 1] if alike else self.x)[pictures]
        run = MistakenRun({**self.arrays, **other.arrays})
        try:
            for item in other.chain[alike:]:
                x = run.item(item, x)
        except (ValueError, IndexError):
            return False
        y = self.y[pictures]
        return relative_error(_like(x, y), y, float(np.abs(self.y).max())) <= self.tolerance


def _alike(one: Chain, other: Chain) -> int:
    """How many items both begin with that are the very same."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x is not y), min(len(one), len(other)))


def _like(x: Array, y: Array) -> Array:
    """An array in the shape of another one that is the same but for sides of 1."""
    alike = x.size == y.size and [n for n in x.shape if n > 1] == [n for n in y.shape if n > 1]
    return x.reshape(y.shape) if alike else x


class Search:
    """Looks for mistakes; what explains one stage is tried first at the others."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], None] = {}  # numbers of mistakes that were made together, at all places

    def explain(self, evidence: Sequence[Evidence], *, first: bool = False) -> Found:
        """What is wrong, as mistakes that give what came out at every size; empty where none is known.

        Args:
            evidence: Of the same operations, by size.
            first: Whether the pictures go in.
        """
        if first and (found := _pictures(evidence)):
            return found
        fork = evidence[0].chain[0] if len(evidence[0].chain) == 1 else None
        if isinstance(fork, Fork) and isinstance(fork.joint, Concat):
            return self._branches(evidence)
        for numbers in self.known:
            if found := _as_before(evidence, numbers):
                return found
        found = self._one(evidence) or _bias(evidence)
        if not found and _cost(evidence[0].chain) <= _PAIRS:
            found = _some(evidence) or self._two(evidence)
        return found

    def _one(self, evidence: Sequence[Evidence], before: tuple[int, ...] = ()) -> Found:
        """A single mistake, at one place or at all."""
        for number in range(len(MISTAKES)):
            at = _places(number, evidence)
            for chosen in [*(frozenset({path}) for path in at if len(at) > 1), None] if at else ():
                if found := _reproduced(evidence, number, chosen):
                    if chosen is None:
                        self.known[(*before, number)] = None
                    return found
        return []

    def _two(self, evidence: Sequence[Evidence]) -> Found:
        """Two, of which one is common."""
        for first in COMMON:
            if (moved := _with(evidence, first)) and (found := self._one(moved, (first,))):
                return [*_words(evidence, [made(first, one.chain, one.arrays) for one in evidence]), *found]
        return []

    def _branches(self, evidence: Sequence[Evidence]) -> Found:
        """What is wrong in a block: the order of its branches, and each branch for itself."""
        blocks = [_Block(one) for one in evidence]
        width = len(blocks[0].branches)
        order = max(permutations(range(width)), key=lambda order: _matches(blocks, order))
        found: Found = []
        if list(order) != sorted(order):
            fork = blocks[0].fork
            other = replace(fork, branches=tuple(fork.branches[j] for j in order))
            found += [(difference.place, difference.text) for difference in differences(align((fork,), (other,))[1])]
        for j in range(width):
            own = [block.branch(j, order) for block in blocks]
            if not all(one.right for one in own):
                where = own[0].chain[-1].place
                found += self.explain(own) or [(where, UNKNOWN)]
        return found


class _Block:
    """The branches of a block at one size, and what came out of it."""

    def __init__(self, one: Evidence) -> None:
        self.one = one
        (fork,) = one.chain
        assert isinstance(fork, Fork)  # noqa: S101  # who asks has looked
        self.fork = fork
        self.branches = [Evidence(branch, one.x, one.y, one.arrays, one.tolerance) for branch in fork.branches]
        self.clean = [branch.outputs[-1] if branch.outputs else one.x for branch in self.branches]

    def branch(self, j: int, order: Sequence[int]) -> Evidence:
        """A branch, and the channels that are its own where the branches have this order."""
        start = sum(self.clean[k].shape[1] for k in order[: order.index(j)])
        one, part = self.branches[j], self.one.y[:, start : start + self.clean[j].shape[1]]
        return Evidence(one.chain, one.x, part, one.arrays, one.tolerance)

    def matches(self, j: int, order: Sequence[int]) -> bool:
        """Whether that is what the branch should put out."""
        return relative_error(self.clean[j], self.branch(j, order).y) <= self.one.tolerance


def _matches(blocks: Sequence[_Block], order: Sequence[int]) -> int:
    return sum(all(block.matches(j, order) for block in blocks) for j in order)


def _pictures(evidence: Sequence[Evidence]) -> Found:
    """Other pictures than those of the kit."""
    for words, change in PICTURES.items():
        others = [replace(one, x=x) for one in evidence if (x := change(one.x)) is not None]
        if others and all(one.right for one in others):
            return [(IMAGES, words)]
    return []


def _as_before(evidence: Sequence[Evidence], numbers: Sequence[int]) -> Found:
    """Mistakes that were made elsewhere, at all places here."""
    found: Found = []
    for number in numbers[:-1]:
        if not (moved := _with(evidence, number)):
            return []
        found += _words(evidence, [made(number, one.chain, one.arrays) for one in evidence])
        evidence = moved
    last = _reproduced(evidence, numbers[-1], None)
    return [*found, *last] if last else []


def _some(evidence: Sequence[Evidence]) -> Found:
    """A common mistake at some places, which are neither one nor all."""
    for number in COMMON:
        at = _places(number, evidence)
        for few in range(2, len(at) if len(at) <= _MOST else 0):
            for chosen in combinations(at, few):
                if found := _reproduced(evidence, number, frozenset(chosen)):
                    return found
    return []


def _places(number: int, evidence: Sequence[Evidence]) -> list[Path]:
    """Where a mistake can be made, at some size or all."""
    return sorted({path for one in evidence for path in places(number, one.chain, one.arrays)})


def _with(evidence: Sequence[Evidence], number: int) -> list[Evidence]:
    """The same with a mistake in it, at all places of the sizes where it can be made; empty where it cannot."""
    mistakes = [made(number, one.chain, one.arrays) for one in evidence]
    if not any(mistakes):
        return []
    return [
        one if x is None else replace(one, chain=x.chain, arrays={**one.arrays, **x.arrays})
        for one, x in zip(evidence, mistakes, strict=True)
    ]


def _reproduced(evidence: Sequence[Evidence], number: int, chosen: frozenset[Path] | None) -> Found:
    """A mistake, if it gives what came out at all sizes; where it cannot be made, nothing must be wrong."""
    mistakes = [made(number, one.chain, one.arrays, chosen) for one in evidence]
    pairs = zip(evidence, mistakes, strict=True)
    if any(mistakes) and all(one.right if x is None else one.reproduced(x) for one, x in pairs):
        return _words(evidence, mistakes)
    return []


def _words(evidence: Sequence[Evidence], mistakes: Sequence[Mistaken | None]) -> Found:
    """What a mistake is, in words, and where; at the first size at which it can be made."""
    one, x = next((one, x) for one, x in zip(evidence, mistakes, strict=True) if x is not None)
    if x.mistake.words:
        return [(place, x.mistake.words) for place in x.places]
    found = [(difference.place, difference.text) for difference in differences(align(one.chain, x.chain)[1])]
    return [(x.places[0] if place == IMAGES else place, text) for place, text in found]


def _bias(evidence: Sequence[Evidence]) -> Found:
    """Another bias in the last layer, which shows wherever both outputs are positive."""
    one = evidence[0]
    steps = [item for item in one.chain if isinstance(item, Step)]
    layers = [i for i, step in enumerate(steps) if isinstance(step.op, Convolution | Linear) and "bias" in step.arrays]
    behind = steps[layers[-1] + 1 :] if layers else []
    expected = _like(one.outputs[-1], one.y) if one.outputs else one.x
    if len(steps) < len(one.chain) or not layers or expected.shape != one.y.shape:
        return []
    if any(step.op != Activation("relu") for step in behind):
        return []
    got, right = (np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in (one.y, expected))
    seen = (got > 0) & (right > 0) if behind else np.ones(got.shape, bool)
    moved = [np.median((y - x)[at]) if at.any() else 0.0 for x, y, at in zip(right, got, seen, strict=True)]
    name = steps[layers[-1]].arrays["bias"]
    fitted = {name: one.arrays[name] + moved}
    if all(each.reproduced(Mistaken(Mistake(), each.chain, fitted)) for each in evidence):
        return [(steps[layers[-1]].place, "another bias")]
    return []


def _cost(chain: Chain) -> float:
    """Multiply-adds of the convolutions, for one picture."""
    total = 0.0
    for item in chain:
        if isinstance(item, Fork):
            total += sum(map(_cost, item.branches))
        elif isinstance(item, Step) and isinstance(item.op, Convolution):
            total += math.prod(item.shape) * item.into[0] * math.prod(item.op.sides)
    return total
