"""Relative errors of arrays, and weights for comparing. Needs NumPy only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import spec
from spec import Array, Arrays


def finite(value: Any) -> Any:
    """JSON values with None for every number that is not finite, since JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def probe_params(config: spec.Config, seed: int) -> dict[str, Array]:
    """Weights for comparing. No array is neutral, so that a backend that ignores one differs.

    The scheme is PyTorch's, whose biases are not zero. The arrays of batch norm are moved away from 0 and 1.
    """
    params = spec.init_params(config, seed, "torch")
    noise = np.random.Generator(np.random.Philox(seed))
    return {name: x + 0.25 * noise.random(x.shape) if ".norm." in name else x for name, x in params.items()}


def relative_error(got: Array, expected: Array, scale: float | None = None) -> float:
    """max |got - expected| / max |expected|; infinite where shapes differ or a number is not finite.

    `scale` replaces max |expected|. Where the divisor is 0, the result is max |got - expected|.
    """
    if got.shape != expected.shape or not np.isfinite(got).all():
        return math.inf
    difference = float(np.abs(got.astype(np.float64) - expected).max())
    scale = float(np.abs(expected).max()) if scale is None else scale
    return difference / scale if scale > 0 else difference


# Arrays below this share of the set's maximum are rounding noise, and are compared against that maximum. For example
# a bias before batch norm has gradient 0, computed as about 1e-17.
_ROUNDING = 1e-12


def relative_errors(got: Arrays, expected: Arrays) -> dict[str, float]:
    """The relative error of each array of a set. A missing or an additional array has an infinite error."""
    errors = {name: math.inf for name in got.keys() ^ expected.keys()}
    scales = {name: float(np.abs(x).max()) for name, x in expected.items()}
    largest = max(scales.values())
    for name in expected.keys() & got.keys():
        scale = scales[name] if scales[name] > _ROUNDING * largest else largest
        errors[name] = relative_error(got[name], expected[name], scale)
    return errors


def of_kind(arrays: Arrays, kind: str) -> dict[str, Array]:
    """The arrays named ``KIND/NAME``, by NAME."""
    return {key.removeprefix(f"{kind}/"): x for key, x in arrays.items() if key.startswith(f"{kind}/")}


def error_together(arrays: Arrays, kind: str, expected: Arrays) -> float:
    """|got - expected| / |expected| of the arrays named ``KIND/NAME`` as one vector; infinite where a shape differs."""
    got = of_kind(arrays, kind)
    if any(name not in got or got[name].shape != x.shape for name, x in expected.items()):
        return math.inf
    ours, theirs = (np.concatenate([np.ravel(x[name]) for name in expected]) for x in (got, expected))
    error = float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs))
    return error if math.isfinite(error) else math.inf


def worst_error(arrays: Arrays, kind: str, expected: Arrays) -> tuple[str, float]:
    """Name and error of the array with the largest error, among those named ``KIND/NAME``."""
    errors = relative_errors(of_kind(arrays, kind), expected)
    name = max(errors, key=lambda name: errors[name])
    return name, errors[name]
