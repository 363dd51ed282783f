"""A factor and a summand for each channel, as expressions of parameters: batch norm in whatever order it is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from googlenet_jax.jaxpr.values import Known, arithmetic, evaluated, leaves
from harness.check.graph import Norm, Scale, Unknown

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
    """Which parameter is which shows when others are put in their places: it holds for any numbers, or is another."""
    parameters = leaves(affine.factor) | leaves(affine.shift)
    rng = np.random.default_rng(0)
    draws = {name: rng.uniform(0.5, 1.5, _DRAWN) for name in parameters}
    factor, shift = evaluated(affine.factor, draws), evaluated(affine.shift, draws)
    inner = list(leaves(affine.factor))
    outer = [name for name in leaves(affine.shift) if name not in inner]
    if len(inner) not in (1, 2) or len(outer) not in (1, 2):
        return None
    for var, weight in permutations([*inner, None][:2]):
        for mean, bias in permutations([*outer, None][:2]):
            if var is None or mean is None:
                continue
            scale, offset = draws.get(weight, np.ones(1)), draws.get(bias, np.zeros(1))
            epsilon = (scale / factor) ** 2 - draws[var]
            if np.ptp(epsilon) < 1e-12 and epsilon[0] > -1e-12 and np.allclose(shift, offset - draws[mean] * factor):
                roles = {"weight": weight, "bias": bias, "mean": mean, "var": var}
                op = Norm(float(epsilon[0]), None, scale=weight is not None, shift=bias is not None)
                return op, {role: parameters[name] for role, name in roles.items() if name}
    return None
