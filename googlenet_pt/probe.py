"""Every stage's output, the loss and its gradients, as NumPy arrays, to be compared."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

import spec
from googlenet_pt.device import precision
from googlenet_pt.network import Network
from googlenet_pt.predict import mode, to_numpy
from googlenet_pt.train import images_to_device, loss, to_device


def activations(model: Network, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, C).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    stages: dict[str, spec.Array] = {}

    def watch(stage: str, x: Tensor) -> Tensor:
        stages[stage] = to_numpy(x)
        return x

    with mode(model, training=False), torch.inference_mode():
        model(images_to_device(model, spec.check_images(model.config, images)), watch=watch)
    return stages


def loss_and_grads(model: Network, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    images, labels, _ = spec.check_batch(model.config, images, labels)
    x, y = to_device(model, images, labels)
    parameters = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # the pass updates these copies
    with mode(model, training=True), precision(model.tf32):
        value = loss(model.config, functional_call(model, buffers, (x,)), y)
        grads = torch.autograd.grad(value, list(parameters.values()))
    by_name = dict(zip(parameters, grads, strict=True))
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return value.item(), {name: to_numpy(by_name[name]) for name in trained}
