"""Training in JAX: the loss, the optimizers of `spec.optimizers`, one step."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import optax
from flax import nnx

import spec
from googlenet_jax.model import GoogLeNet


def loss(config: spec.Config, outputs: spec.Outputs, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy, the auxiliary heads' weighted in."""
    total = _cross_entropy(outputs.logits, labels)
    for logits in (outputs.aux1, outputs.aux2):
        if logits is not None:
            total = total + config.aux_weight * _cross_entropy(logits, labels)
    return total


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> nnx.Optimizer:
    """Optax's optimizer for a row of `spec.optimizers`; its SGD and Adam are the textbook's."""
    native = nnx.Optimizer(model, _transform(optimizer), wrt=nnx.Param)
    # On the device from the start: the step would be compiled again when its own results come back from there.
    nnx.update(native, jax.device_put(nnx.state(native), model.device))
    return native


@cache
def _transform(optimizer: spec.Optimizer) -> optax.GradientTransformation:
    """One object for equal settings: to JAX another one would be another program, to be compiled again."""
    if isinstance(optimizer, spec.SGD):
        return optax.sgd(optimizer.rate, optimizer.momentum)
    return optax.adam(optimizer.rate, optimizer.beta1, optimizer.beta2, optimizer.epsilon)


def train_step(model: GoogLeNet, optimizer: nnx.Optimizer, images: spec.Array, labels: spec.Array) -> jax.Array:
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
    return _step(model, optimizer, x, y)


@nnx.jit
def _step(model: GoogLeNet, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    value, grads = value_and_grads(model, x, y)
    optimizer.update(model, grads)
    return value


def value_and_grads(model: GoogLeNet, x: jax.Array, y: jax.Array) -> tuple[jax.Array, nnx.State]:
    """The loss and its gradients by path; for use under `nnx.jit`. Updates the model's running statistics."""
    return nnx.value_and_grad(lambda model: loss(model.config, model(x), y))(model)


def to_device(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[jax.Array, jax.Array]:
    """The batch as (N, H, W, C) arrays of the model's dtype on its device, checked for training."""
    images = spec.check_images(model.config, images)
    labels = spec.check_labels(model.config, labels, len(images))
    spec.check_training_batch(model.config, images.shape)
    return images_to_device(model, images), jax.device_put(labels.astype(np.int32), model.device)


def images_to_device(model: GoogLeNet, images: spec.Array) -> jax.Array:
    """Images (N, C, H, W) as an (N, H, W, C) array of the model's dtype on its device."""
    dtype = model.fc.kernel[...].dtype
    return jax.device_put(np.array(images.transpose(0, 2, 3, 1), dtype), model.device)
