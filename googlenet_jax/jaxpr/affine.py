"""A factor and a summand for each channel, as expressions of parameters: batch norm in whatever order it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from googlenet_jax.jaxpr.values import Known, arithmetic, evaluated, leaves
from harness.check.graph import Norm, Scale, Unknown
from harness.check.readers.written_norm import read_norm

_ONE, _ZERO = Known(np.ones(1)), Known(np.zeros(1))
_DRAWN = 16  # numbers that stand for a parameter's


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


def settled(affine: Affine) -> tuple[Any, dict[str, Known]]:
    """The operation, and its arrays by role: batch norm, or one number for all channels; or it stays what it is."""
    factor, shift = affine.factor.plain, affine.shift.plain
    if factor is not None and shift is not None:
        return Scale(factor, shift), {}
    try:
        return _norm(affine) or (affine, {})
    except ValueError:
        return affine, {}


def _norm(affine: Affine) -> tuple[Norm, dict[str, Known]] | None:
    """Other numbers are put in the parameters' places, so that what is read holds for any."""
    inner, outer = leaves(affine.factor), leaves(affine.shift)
    rng = np.random.default_rng(0)
    draws = {name: rng.uniform(0.5, 1.5, _DRAWN) for name in inner | outer}
    found = read_norm(evaluated(affine.factor, draws), evaluated(affine.shift, draws), inner, outer, draws)
    if found is None:
        return None
    epsilon, roles = found
    op = Norm(epsilon, None, scale="weight" in roles, shift="bias" in roles)
    return op, {role: (inner | outer)[name] for role, name in roles.items()}
