"""A factor and a summand for each channel, as expressions of parameters: batch norm in whatever order it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from googlenet_jax.jaxpr.values import Known, arithmetic, depends, evaluated
from harness.check.graph import Norm, Scale, Unknown
from harness.check.readers.written_norm import OF_BATCH, norm_of, read_norm

_ONE, _ZERO = Known(np.ones(1)), Known(np.zeros(1))
_DRAWN = 16  # numbers that stand for a parameter's
_LEVEL = 1e-9


@dataclass(frozen=True, eq=False)
class Affine(Unknown):
    """factor · x + shift. The name is that of its last operation."""

    factor: Known = _ONE
    shift: Known = _ZERO

    @property
    def plain(self) -> bool:
        """Whether it is one number for all channels, and no parameter's."""
        return self.factor.plain is not None and self.shift.plain is not None

    def then(self, name: str, constant: Known, *, first: bool) -> Affine:
        """The same and one operation more, whose first operand is x; or its second."""
        factor, shift = self.factor, self.shift
        if name == "sub" and not first:
            factor, shift, name = arithmetic("neg", factor), arithmetic("neg", shift), "add"
        if name in ("add", "sub"):
            return replace(self, name=name, factor=factor, shift=arithmetic(name, shift, constant))
        return replace(
            self, name=name, factor=arithmetic(name, factor, constant), shift=arithmetic(name, shift, constant)
        )


def settled(affine: Affine, mean: str, var: str, running: Mapping[str, Running]) -> tuple[Any, dict[str, Known]]:
    """The operation, and its arrays by role: batch norm, or one number for all channels; or it stays what it is.

    Args:
        affine: The arithmetic.
        mean: The name of the batch's own mean, of what it reads.
        var: Of its variance.
        running: What the running statistics are, by the names of the batch's.
    """
    factor, shift = affine.factor.plain, affine.shift.plain
    if factor is not None and shift is not None:
        return Scale(factor, shift), {}
    try:
        return _norm(affine, mean, var, running) or (affine, {})
    except ValueError:
        return affine, {}


def _norm(affine: Affine, mean: str, var: str, running: Mapping[str, Running]) -> tuple[Norm, dict[str, Known]] | None:
    """Other numbers are put in the parameters' places, so that what is read holds for any."""
    used = affine.factor.leaves | affine.shift.leaves
    draws = _drawn(used)
    inner, outer = ([name for name in used if depends(x, name, draws)] for x in (affine.factor, affine.shift))
    found = read_norm(evaluated(affine.factor, draws), evaluated(affine.shift, draws), inner, outer, draws)
    moved = {role: running[name] for role, name in (("mean", mean), ("var", var)) if name in running}
    made = found and norm_of(found, mean, var, moved["mean"].share if "mean" in moved else None)
    if not made:
        return None
    op, roles = made
    arrays = {role: used[name] for role, name in roles.items()}
    return (op, arrays | {role: each.array for role, each in moved.items()}) if op.of_batch else (op, arrays)


def _drawn(used: Iterable[str]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.5, 1.5, _DRAWN) for name in used}


class Running(NamedTuple):
    """A running statistic that a pass has moved."""

    array: Known  # as it was
    share: float | None  # of the batch's in what it is now


def running_statistics(before: Mapping[str, Known], after: Mapping[str, Any]) -> dict[str, Running]:
    """By the names of the batches' statistics, what has been moved by them."""
    found = {}
    for name, x in after.items():
        used = x.leaves if isinstance(x, Known) else {}
        draws = _drawn(used)
        try:
            moved_by = [leaf for leaf in used if leaf.startswith(OF_BATCH) and depends(x, leaf, draws)]
            for leaf in moved_by if len(moved_by) == 1 else ():
                shares = evaluated(x, {**draws, leaf: draws[leaf] + 1}) - evaluated(x, draws)
                share = float(f"{shares.mean():.4g}") if np.ptp(shares) < _LEVEL else None
                found[leaf] = Running(before[name], share)
        except ValueError:
            continue
    return found
