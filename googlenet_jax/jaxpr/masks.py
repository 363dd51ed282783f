"""Masks of random numbers, which are dropout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from googlenet_jax.jaxpr.values import Known

_ABOVE = {"gt": True, "ge": True, "lt": False, "le": False}  # of comparisons: whether the first has to be the larger


class Mask(NamedTuple):
    """What a map is multiplied with."""

    kept: float  # the share that is not dropped
    mean: float
    size: int  # random numbers, before they are repeated


def mask_of(x: Known) -> Mask | None:
    """Zeros and ones, or other factors, from a comparison of numbers drawn evenly from 0 to 1."""
    if x.made_by == "broadcast_in_dim":
        return mask_of(x.operands[0])
    if x.made_by in ("mul", "div") and (mask := mask_of(x.operands[0])) and (factor := x.operands[1].plain):
        return mask._replace(mean=mask.mean * factor if x.made_by == "mul" else mask.mean / factor)
    if x.made_by not in _ABOVE:
        return None
    drawn, limit = x.operands
    above = _ABOVE[x.made_by]
    if limit.plain is None:
        drawn, limit, above = limit, drawn, not above
    numbers = np.asarray(drawn.value)
    if limit.plain is None or not _random(drawn) or not (numbers.min() >= 0 and numbers.max() < 1):
        return None
    share = float(str(np.float32(limit.plain)))  # 0.6 is 0.6 in float32 too
    kept = 1 - share if above else share
    deviation = np.sqrt(kept * (1 - kept) / numbers.size)
    even = abs(np.mean((numbers > share) == above) - kept) <= _FAR * deviation
    return Mask(round(kept, 7), kept, numbers.size) if even else None


_FAR = 5  # deviations


def _random(x: Known) -> bool:
    return x.made_by == "random_bits" or any(map(_random, x.operands))
