"""Checks that a set of arrays fits a network; one error names every mismatch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.network import Config, Shape, is_statistic, param_shapes


def check_params(config: Config, params: Arrays) -> None:
    """Make sure that `params` holds exactly the network's arrays, in canonical names and shapes, all finite.

    Raises:
        InvalidInput: naming every missing, unexpected, misshapen, non-numeric and non-finite array at once.
    """
    _check_arrays(f"parameters do not fit {config}", param_shapes(config), params)


def check_state(config: Config, slots: Sequence[str], state: Arrays) -> None:
    """Make sure that `state` holds exactly an optimizer's arrays, in canonical names and shapes, all finite.

    Args:
        config: The network.
        slots: The optimizer's, as `spec.optimizers` names them.
        state: As `state_shapes` says.

    Raises:
        InvalidInput: naming every missing, unexpected, misshapen, non-numeric and non-finite array at once.
    """
    failure = f"optimizer state (slots: {', '.join(slots) or 'none'}) does not fit {config}"
    _check_arrays(failure, state_shapes(config, slots), state)


def state_shapes(config: Config, slots: Sequence[str]) -> dict[str, Shape]:
    """Canonical name and shape of every array of the state of an optimizer with those slots."""
    trained = {name: shape for name, shape in param_shapes(config).items() if not is_statistic(name)}
    arrays = {f"{slot}/{name}": shape for slot in slots if slot != "t" for name, shape in trained.items()}
    return ({"t": ()} if "t" in slots else {}) | arrays


def _check_arrays(failure: str, expected: dict[str, Shape], arrays: Arrays) -> None:
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in arrays]
    unexpected = [f"{name} {value.shape}" for name, value in arrays.items() if name not in expected]
    both = [(name, arrays[name], shape) for name, shape in expected.items() if name in arrays]
    misshapen = [
        f"{name}: expected {shape}, got {value.shape}{_layout_hint(value.shape, shape)}"
        for name, value, shape in both
        if value.shape != shape
    ]
    wrong_type = [f"{name}: expected floating point, got {value.dtype}" for name, value, _ in both if not _real(value)]
    not_finite = [name for name, value, _ in both if _real(value) and not np.isfinite(value).all()]
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "wrong shape": misshapen,
        "wrong type": wrong_type,
        "NaN or infinity": not_finite,
    }
    if any(problems.values()):
        lines = [f"{failure}:"]
        for problem, names in problems.items():
            if names:
                lines += [f"  {problem} ({len(names)}):", *(f"    {name}" for name in names)]
        raise InvalidInput("\n".join(lines))


def _real(value: Array) -> bool:
    return value.dtype.kind == "f"


def _layout_hint(got: Shape, expected: Shape) -> str:
    """The probable cause, where the same numbers come in another order."""
    if len(got) == 4 == len(expected):
        if (got[3], got[2], got[0], got[1]) == expected:
            return "; this looks like HWIO (JAX, TensorFlow): canonical is OIHW, transpose(3, 2, 0, 1)"
        if (got[0], got[3], got[1], got[2]) == expected:
            return "; this looks like OHWI: canonical is OIHW, transpose(0, 3, 1, 2)"
    if len(got) == 2 and got[::-1] == expected:
        return "; this looks like (in, out): canonical is (out, in), transpose it"
    return ""
