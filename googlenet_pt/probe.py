"""NumPy in, NumPy out: what the network computes, for comparing and for predicting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.func import functional_call

import spec
from googlenet_pt.device import full_precision
from googlenet_pt.model import GoogLeNet
from googlenet_pt.train import loss, to_device


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """Logits (N, num_classes) of images (N, C, H, W), in inference mode.

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with _mode(model, training=False), torch.inference_mode(), full_precision():
        return _numpy(model(_images(model, images)).logits)


def activations(model: GoogLeNet, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, num_classes).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with _mode(model, training=False), torch.inference_mode(), full_precision():
        return {name: _numpy(x) for name, x in model.stages(_images(model, images), heads=True)}


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    x, y = to_device(model, images, labels)
    parameters = dict(model.named_parameters())
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # the pass updates these copies
    with _mode(model, training=True), full_precision():
        value = loss(model.config, functional_call(model, buffers, (x,)), y)
        grads = torch.autograd.grad(value, list(parameters.values()))
    by_name = dict(zip(parameters, grads, strict=True))
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return value.item(), {name: _numpy(by_name[name]) for name in trained}


@contextmanager
def _mode(model: GoogLeNet, *, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def _images(model: GoogLeNet, images: spec.Array) -> Tensor:
    return torch.as_tensor(spec.check_images(model.config, images)).to(model.fc.weight)


def _numpy(x: Tensor) -> spec.Array:
    return x.detach().cpu().numpy().copy()
