"""Training in PyTorch: the loss, and one step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import spec
from googlenet_pt.device import precision
from googlenet_pt.network import Network


def loss(config: spec.Config, outputs: spec.Outputs, labels: Tensor) -> Tensor:
    """Mean cross-entropy with smoothed labels, the auxiliary heads' weighted in."""
    smoothing = config.label_smoothing
    total = F.cross_entropy(outputs.logits, labels, label_smoothing=smoothing)
    for logits in outputs.heads.values():
        total = total + config.aux_weight * F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return total


def train_step(
    model: Network,
    optimizer: torch.optim.Optimizer,
    images: spec.Array,
    labels: spec.Array,
    masks: spec.Arrays | None = None,
    scale: float = 1.0,
) -> spec.Step:
    """One step on a batch, in training mode; returns what was before it, still on the device.

    Args:
        model: Changed in place, running statistics included.
        optimizer: From `make_optimizer`.
        images: (N, C, H, W).
        labels: (N,) classes.
        masks: What dropout keeps, as `spec.dropout_masks` draws it; None for PyTorch's own generator.
        scale: Factor of the loss's gradient, for a batch that is to count for less than a whole one.

    Raises:
        spec.InvalidInput: when images, labels or masks do not fit.
    """
    images, labels, masks = spec.check_batch(model.config, images, labels, masks)
    return update(model, optimizer, *to_device(model, images, labels), masks_to_device(model, masks), scale)


def update(
    model: Network,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    masks: dict[str, Tensor],
    scale: float = 1.0,
) -> spec.Step:
    """`train_step` on what is on the device already, without checks; on a GPU as a CUDA graph after a few steps."""

    def compute(x: Tensor, y: Tensor, *kept: Tensor) -> spec.Step:
        return step(model, optimizer, x, y, dict(zip(masks, kept, strict=True)), scale)

    inputs = (x, y, *masks.values())
    if optimizer.graph is None:
        return compute(*inputs)
    return spec.Step(*optimizer.graph(compute, inputs, model.parameter.data_ptr(), *masks, scale))


def step(
    model: Network,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    masks: dict[str, Tensor],
    scale: float = 1.0,
) -> spec.Step:
    """`update`, launched operation by operation."""
    model.train()
    optimizer.zero_grad()
    with precision(model.tf32):
        outputs = model(x, masks)
        value = loss(model.config, outputs, y)
        value.backward(torch.full_like(value, scale))
    optimizer.step()
    return spec.Step(value.detach(), (outputs.logits.argmax(1) == y).sum())


def to_device(model: Network, images: spec.Array, labels: spec.Array) -> tuple[Tensor, Tensor]:
    """The batch as tensors of the model's dtype on its device."""
    x = images_to_device(model, images)
    return x, torch.as_tensor(labels).to(x.device)


def dataset_to_device(
    model: Network, images: spec.Array, labels: spec.Array, table: spec.Array
) -> Callable[[spec.Array], tuple[Tensor, Tensor]]:
    """A dataset, kept on the model's device: a function from rows (n,) to their batch, which is that of `to_device`.

    Args:
        model: Whose batches they are.
        images: (N, C, H, W), uint8.
        labels: (N,) classes.
        table: The number for each value of a pixel, (1 or C, 256): see `harness.images.batches.pixel_table`.
    """
    device = model.parameter.device
    pixels, classes, numbers = (torch.from_numpy(np.array(x)).to(device) for x in (images, labels, table))
    first = 256 * torch.arange(len(table), device=device)[:, None, None]  # the place of each channel's numbers

    def batch(rows: spec.Array) -> tuple[Tensor, Tensor]:
        chosen = torch.from_numpy(rows).to(device)
        return numbers.take(pixels[chosen].long() + first), classes[chosen]

    return batch


def images_to_device(model: Network, images: spec.Array) -> Tensor:
    """The images as a tensor of the model's dtype on its device."""
    return torch.as_tensor(images).to(model.parameter)


def masks_to_device(model: Network, masks: spec.Arrays) -> dict[str, Tensor]:
    """Dropout masks as tensors of zeros and ones, of the model's dtype on its device."""
    return {stage: torch.as_tensor(mask).to(model.parameter) for stage, mask in masks.items()}
