"""Training in PyTorch: the loss, the optimizers of `spec.optimizers`, one step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from googlenet_pt.model import GoogLeNet


def loss(config: spec.Config, outputs: spec.Outputs, labels: Tensor) -> Tensor:
    """Mean cross-entropy, the auxiliary heads' weighted in."""
    total = F.cross_entropy(outputs.logits, labels)
    for logits in (outputs.aux1, outputs.aux2):
        if logits is not None:
            total = total + config.aux_weight * F.cross_entropy(logits, labels)
    return total


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's optimizer for a row of `spec.optimizers`; its SGD and Adam are the textbook's."""
    if isinstance(optimizer, spec.SGD):
        return torch.optim.SGD(model.parameters(), lr=optimizer.rate, momentum=optimizer.momentum)
    betas = (optimizer.beta1, optimizer.beta2)
    return torch.optim.Adam(model.parameters(), lr=optimizer.rate, betas=betas, eps=optimizer.epsilon)


def train_step(model: GoogLeNet, optimizer: torch.optim.Optimizer, images: spec.Array, labels: spec.Array) -> Tensor:
    """One step on a batch, in training mode; returns the loss before it, still on the device.

    Args:
        model: Changed in place, running statistics included.
        optimizer: From `make_optimizer`.
        images: (N, C, H, W).
        labels: (N,) classes.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    x, y = to_device(model, images, labels)
    model.train()
    optimizer.zero_grad()
    value = loss(model.config, model(x), y)
    value.backward()
    optimizer.step()
    return value.detach()


def to_device(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[Tensor, Tensor]:
    """The batch as tensors of the model's dtype on its device, checked for training."""
    images = spec.check_images(model.config, images)
    labels = spec.check_labels(model.config, labels, len(images))
    spec.check_training_batch(model.config, images.shape)
    weight = model.fc.weight
    return torch.as_tensor(images).to(weight), torch.as_tensor(labels).to(weight.device)
