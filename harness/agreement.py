"""How far arrays are from those expected, and weights that show every difference. NumPy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import spec
from spec import Array, Arrays


def finite(value: Any) -> Any:
    """JSON values with null for every number that is not finite, since JSON has none."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def probe_params(config: spec.Config, seed: int) -> dict[str, Array]:
    """Weights for comparing: no array at its neutral value, so that one that is ignored shows.

    PyTorch's scheme, whose biases are not zero; batch norm's arrays are moved away from 0 and 1.
    """
    params = spec.init_params(config, seed, "torch")
    noise = np.random.Generator(np.random.Philox(seed))
    return {name: x + 0.25 * noise.random(x.shape) if ".norm." in name else x for name, x in params.items()}


def relative_error(got: Array, expected: Array, scale: float | None = None) -> float:
    """max |got - expected| / max |expected|; infinite where shapes differ or anything is not finite.

    `scale` takes the place of max |expected|; where that is 0 the difference stands as it is.
    """
    if got.shape != expected.shape or not np.isfinite(got).all():
        return math.inf
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    scale = float(np.abs(expected).max()) if scale is None else scale
    return difference / scale if scale > 0 else difference


# Of the largest value in a set of arrays: an array below that is zero but for rounding. Batch norm makes such: what
# only shifts its input has no gradient, and of the sum that should be 0 some 1e-17 remain, other ones everywhere.
_ROUNDING = 1e-12


def relative_errors(got: Arrays, expected: Arrays) -> dict[str, float]:
    """The relative error of each array of a set; one that is missing or too many is infinitely wrong.

    An array that is zero but for rounding is measured against the largest of the set.
    """
    errors = {name: math.inf for name in got.keys() ^ expected.keys()}
    scales = {name: float(np.abs(x).max()) for name, x in expected.items()}
    largest = max(scales.values())
    for name in expected.keys() & got.keys():
        scale = scales[name] if scales[name] > _ROUNDING * largest else largest
        errors[name] = relative_error(got[name], expected[name], scale)
    return errors
