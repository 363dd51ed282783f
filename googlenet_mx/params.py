"""Parameters in and out of a Gluon model, by canonical name.

The structural names are the canonical ones but for batch norm's `gamma` and `beta`; layouts are the same.
"""

from __future__ import annotations

from mxnet import nd
from mxnet.gluon import HybridBlock, Parameter

import spec

_CANONICAL = {"gamma": "weight", "beta": "bias"}


def load_params(model: HybridBlock, params: spec.Arrays) -> None:
    """Copy canonical arrays into the model, converting to its dtype. The arrays are not kept or changed.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; the model is then unchanged.
    """
    spec.check_params(model.config, params)
    for name, parameter in named_parameters(model).items():
        parameter.set_data(nd.array(params[name], dtype=parameter.dtype))


def dump_params(model: HybridBlock) -> dict[str, spec.Array]:
    """New canonical arrays with the model's parameters and running statistics, in its dtype."""
    parameters = named_parameters(model)
    return {name: parameters[name].data().asnumpy() for name in spec.param_shapes(model.config)}


def named_parameters(model: HybridBlock) -> dict[str, Parameter]:
    """Gluon's parameters by canonical name. Only the structural names tell which layer is which.

    Batch norm has a scale and a shift even where they are fixed; they have no canonical name.
    """
    named, canonical = {}, spec.param_shapes(model.config)
    for path, parameter in model._collect_params_with_prefix().items():
        prefix, leaf = path.rsplit(".", 1)
        name = f"{prefix}.{_CANONICAL.get(leaf, leaf)}"
        if name in canonical:
            named[name] = parameter
    return named
