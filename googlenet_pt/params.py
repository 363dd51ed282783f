"""Parameters in and out of a PyTorch model, by canonical name.

PyTorch's own names and layouts are the canonical ones; only its counter of batches has no canonical name.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import spec


def load_params(model: nn.Module, params: spec.Arrays) -> None:
    """Copy canonical arrays into the model, converting to its dtype. The arrays are not kept or changed.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; the model is then unchanged.
    """
    spec.check_params(model.config, params)
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(torch.from_numpy(np.array(params[name])))


def dump_params(model: nn.Module) -> dict[str, spec.Array]:
    """New canonical arrays with the model's parameters and running statistics, in its dtype."""
    tensors = _tensors(model)
    return {name: tensors[name].cpu().numpy().copy() for name in spec.param_shapes(model.config)}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: x for name, x in model.state_dict().items() if not name.endswith("num_batches_tracked")}
