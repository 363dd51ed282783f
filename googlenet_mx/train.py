"""Training in MXNet: the loss, and one step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mxnet import autograd, gluon, nd

import spec
from googlenet_mx.network import Network
from googlenet_mx.optimizer import clip

_cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)


def loss(config: spec.Config, outputs: spec.Outputs, labels: nd.NDArray) -> nd.NDArray:
    """Mean cross-entropy with smoothed labels, the auxiliary heads' weighted in."""
    # Gluon smooths no labels; SoftmaxOutput does, and spreads the share over the wrong classes only.
    targets = nd.one_hot(labels, config.num_classes, dtype=outputs.logits.dtype)
    targets = (1 - config.label_smoothing) * targets + config.label_smoothing / config.num_classes
    total = _cross_entropy(outputs.logits, targets).mean()
    for logits in outputs.heads.values():
        total = total + config.aux_weight * _cross_entropy(logits, targets).mean()
    return total


def train_step(
    model: Network,
    optimizer: gluon.Trainer,
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
        masks: What dropout keeps, as `spec.dropout_masks` draws it; None for MXNet's own generator.
        scale: Factor of the loss's gradient, for a batch that is to count for less than a whole one.

    Raises:
        spec.InvalidInput: when images, labels or masks do not fit.
    """
    images, labels, masks = spec.check_batch(model.config, images, labels, masks)
    return update(model, optimizer, *to_device(model, images, labels), masks_to_device(model, masks), scale)


def update(
    model: Network,
    optimizer: gluon.Trainer,
    x: nd.NDArray,
    y: nd.NDArray,
    masks: dict[str, nd.NDArray],
    scale: float = 1.0,
) -> spec.Step:
    """`train_step` on what is on the device already, without checks."""
    with autograd.record():
        outputs = model(x, masks)
        value = loss(model.config, outputs, y)
    value.backward(value.ones_like() * scale)
    clip(optimizer)
    optimizer.step(1)  # the loss is already a mean
    correct = (outputs.logits.argmax(axis=1) == y).sum()
    return spec.Step(value.as_np_ndarray(), correct.as_np_ndarray())  # which float() can read


def to_device(model: Network, images: spec.Array, labels: spec.Array) -> tuple[nd.NDArray, nd.NDArray]:
    """The batch as arrays of the model's dtype on its device."""
    x = images_to_device(model, images)
    return x, nd.array(labels, x.ctx, x.dtype)


def dataset_to_device(
    model: Network, images: spec.Array, labels: spec.Array, table: spec.Array
) -> Callable[[spec.Array], tuple[nd.NDArray, nd.NDArray]]:
    """A dataset, kept on the model's device: a function from rows (n,) to their batch, which is that of `to_device`.

    Args:
        model: Whose batches they are.
        images: (N, C, H, W), uint8.
        labels: (N,) classes.
        table: The number for each value of a pixel, (1 or C, 256): see `harness.images.batches.pixel_table`.
    """
    like = model.parameter
    pixels, classes = nd.array(images, like.ctx, "uint8"), nd.array(labels, like.ctx, like.dtype)
    numbers = nd.array(table.reshape(-1), like.ctx, like.dtype)
    first = nd.array(256 * np.arange(len(table)).reshape(1, -1, 1, 1), like.ctx, "int32")  # each channel's numbers

    def batch(rows: spec.Array) -> tuple[nd.NDArray, nd.NDArray]:
        chosen = nd.array(rows, like.ctx, "int32")
        return numbers.take(nd.broadcast_add(pixels.take(chosen).astype("int32"), first)), classes.take(chosen)

    return batch


def images_to_device(model: Network, images: spec.Array) -> nd.NDArray:
    """The images as an array of the model's dtype on its device."""
    like = model.parameter
    return nd.array(images, like.ctx, like.dtype)


def masks_to_device(model: Network, masks: spec.Arrays) -> dict[str, nd.NDArray]:
    """Dropout masks as arrays of zeros and ones, of the model's dtype on its device."""
    like = model.parameter
    return {stage: nd.array(mask, like.ctx, like.dtype) for stage, mask in masks.items()}
