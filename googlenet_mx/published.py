"""The Inception family as its publishers write it in Gluon: operator by operator, every default left as it is.

The benchmark times it beside `googlenet_mx`. The blocks are the package's, which are the publishers' too: convolution,
batch norm and `Activation`, one after the other. Only batch norm differs: the package moves the running statistics
itself, since Gluon's own moves them by another variance on a GPU than on a CPU. Functions that are missing here are
the package's. MXNet's SGD rounds its rate to float32, which float64 shows.
"""

from __future__ import annotations

from collections.abc import Callable

from mxnet import autograd, gluon, nd

import spec
from googlenet_mx.build import NETWORKS
from googlenet_mx.network import Network
from googlenet_mx.params import dump_params
from googlenet_mx.predict import predict
from googlenet_mx.probe import loss_and_grads
from googlenet_mx.textbook import make_optimizer
from googlenet_mx.train import loss
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


def compiled(model: Network) -> Network:
    """The model itself, compiled to a graph from now on."""
    model.compile()
    return model


def update(
    model: Network, optimizer: gluon.Trainer, x: nd.NDArray, y: nd.NDArray, masks: dict[str, nd.NDArray]
) -> spec.Step:
    """Like `googlenet_mx.update`; without dropout `masks` is empty."""
    with autograd.record():
        outputs = model(x)
        value = loss(model.config, outputs, y)
    value.backward()
    optimizer.step(1)  # the loss is already a mean
    correct = (outputs.logits.argmax(axis=1) == y).sum()
    return spec.Step(value.as_np_ndarray(), correct.as_np_ndarray())


def predictor(model: Network, x: nd.NDArray) -> Callable[[nd.NDArray], nd.NDArray]:
    """The forward pass in inference mode."""
    return lambda x: model(x).logits
