"""Parameters in and out of an NNX model, by canonical name.

The paths are the canonical names but for their last part; kernels are HWIO and (in, out) here.
"""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

import spec

_KINDS = (nnx.Param, nnx.BatchStat)
_CANONICAL = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def load_params(model: nnx.Module, params: spec.Arrays) -> None:
    """Copy canonical arrays into the model, converting to its dtype. The arrays are not kept or changed.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; the model is then unchanged.
    """
    spec.check_params(model.config, params)
    state = nnx.to_flat_state(nnx.state(model, _KINDS))
    new = {}
    for path, variable in state:
        value = np.array(to_jax(params[canonical_name(path)]), model.stored_dtype)  # a copy: JAX may share memory
        new[path] = variable.replace(jax.device_put(value, model.device))
    # Newer versions of Flax round what is assigned to `variable[...]` to the dtype that the variable had.
    nnx.update(model, nnx.from_flat_state(new))


def dump_params(model: nnx.Module) -> dict[str, spec.Array]:
    """New canonical arrays with the model's parameters and running statistics, in its dtype."""
    variables = _variables(model)
    return {name: to_canonical(variables[name][...]) for name in spec.param_shapes(model.config)}


def canonical_name(path: tuple[str, ...]) -> str:
    """``conv1.norm.weight`` of ``("conv1", "norm", "scale")``."""
    return ".".join([*path[:-1], _CANONICAL[path[-1]]])


def to_canonical(x: jax.Array) -> spec.Array:
    """A new array in canonical layout: OIHW of HWIO, (out, in) of (in, out)."""
    return np.asarray(x).transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[x.ndim]).copy()


def to_jax(x: spec.Array) -> spec.Array:
    """A view in JAX's layout: HWIO of OIHW, (in, out) of (out, in)."""
    return x.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,), 0: ()}[x.ndim])


def _variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    return {canonical_name(path): node for path, node in nnx.iter_graph(model) if isinstance(node, _KINDS)}
