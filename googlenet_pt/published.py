"""The Inception family as its publishers write it in PyTorch: eager, (N, C, H, W), every default left as it is.

The benchmark times it beside `googlenet_pt`. The modules are the package's, which are the publishers' too: `nn.Conv2d`,
`nn.BatchNorm2d` and ReLU in place, one after the other. Functions that are missing here are the package's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import spec
from googlenet_pt.build import NETWORKS
from googlenet_pt.network import Network
from googlenet_pt.params import dump_params
from googlenet_pt.predict import predict
from googlenet_pt.probe import loss_and_grads
from googlenet_pt.textbook import compiled, make_optimizer
from googlenet_pt.train import step as update
from harness.backends.textbook import check_config

__all__ = [
    "build",
    "compiled",
    "dump_params",
    "loss_and_grads",
    "make_optimizer",
    "predict",
    "predictor",
    "update",
]


def build(config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> Network:
    """The network with those parameters.

    Raises:
        spec.InvalidInput: for another family or dtype, parameters that do not fit, or a device that is not there.
    """
    check_config(config, dtype)
    return NETWORKS[config.family](config, dtype=dtype, device=device, params=params, tuned=False)


def predictor(model: Network, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The model itself in inference mode, for images of any size."""
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x).logits

    return logits
