"""Training in JAX: the loss, and one step."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary, ref

import jax
import numpy as np
import optax
from flax import nnx

import spec
from googlenet_jax.network import Network


def loss(config: spec.Config, outputs: spec.Outputs, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy with smoothed labels, the auxiliary heads' weighted in."""
    targets = jax.nn.one_hot(labels, config.num_classes, dtype=outputs.logits.dtype)
    targets = optax.smooth_labels(targets, config.label_smoothing)
    total = optax.softmax_cross_entropy(outputs.logits, targets).mean()
    for logits in outputs.heads.values():
        total = total + config.aux_weight * optax.softmax_cross_entropy(logits, targets).mean()
    return total


def train_step(
    model: Network,
    optimizer: nnx.Optimizer,
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
        masks: What dropout keeps, as `spec.dropout_masks` draws it; None for the model's own generator.
        scale: Factor of the loss's gradient, for a batch that is to count for less than a whole one.

    Raises:
        spec.InvalidInput: when images, labels or masks do not fit.
    """
    images, labels, masks = spec.check_batch(model.config, images, labels, masks)
    return update(model, optimizer, *to_device(model, images, labels), masks_to_device(model, masks), scale)


def update(
    model: Network,
    optimizer: nnx.Optimizer,
    x: jax.Array,
    y: jax.Array,
    masks: dict[str, jax.Array],
    scale: float = 1.0,
) -> spec.Step:
    """`train_step` on what is on the device already, without checks."""
    if model.deterministic:
        model.train()
    return _step_of(model, optimizer)(x, y, masks, scale)


def _step_of(model: Network, optimizer: nnx.Optimizer) -> Callable[..., spec.Step]:
    """A step of this pair, made once: NNX looks through all their modules for as long as a GPU computes a step."""
    known = _steps.get(optimizer)
    if known is None or known[0]() is not model:
        known = _steps[optimizer] = ref(model), _split(model, optimizer)
    return known[1]


_steps: WeakKeyDictionary[nnx.Optimizer, tuple[ref[Network], Callable[..., spec.Step]]] = WeakKeyDictionary()


def _split(model: Network, optimizer: nnx.Optimizer) -> Callable[..., spec.Step]:
    """A step on this pair's arrays alone, by modules that stay as they are now: in training mode."""
    graph, state = nnx.split((model, optimizer))
    variables = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, nnx.Variable))  # the pair's own
    compiled = _compiled(graph, jax.tree.structure(state))

    def step(*batch: Any) -> spec.Step:
        moved, result = compiled([_array(variable) for variable in variables], *batch)
        for variable, array in zip(variables, moved, strict=True):
            _set_array(variable, array)
        return result

    return step


# Newer versions of Flax than 0.12.0 have these methods, and warn of the attribute.
_array = getattr(nnx.Variable, "get_raw_value", attrgetter("raw_value"))
_set_array = getattr(nnx.Variable, "set_raw_value", lambda variable, array: setattr(variable, "raw_value", array))


@cache
def _compiled(graph: nnx.GraphDef, tree: jax.tree_util.PyTreeDef) -> Callable[..., tuple[list[jax.Array], spec.Step]]:
    """One program for equal modules: the arrays of their state and `update`'s batch, to the arrays after the step."""

    @partial(jax.jit, donate_argnums=0)  # the old parameters' memory takes the new ones
    def step(
        arrays: list[jax.Array], x: jax.Array, y: jax.Array, masks: dict[str, jax.Array], scale: jax.Array
    ) -> tuple[list[jax.Array], spec.Step]:
        model, optimizer = nnx.merge(graph, jax.tree.unflatten(tree, arrays))
        (value, logits), grads = value_and_grads(model, x, y, masks, scale)
        optimizer.update(model, grads)
        moved = jax.tree.leaves(nnx.state((model, optimizer)))
        return moved, spec.Step(value, (logits.argmax(-1) == y).sum())

    return step


def value_and_grads(
    model: Network, x: jax.Array, y: jax.Array, masks: dict[str, jax.Array], scale: jax.Array | float = 1.0
) -> tuple[tuple[jax.Array, jax.Array], nnx.State]:
    """Loss and logits, and the gradients, scaled, by path; for `nnx.jit`. Updates the model's running statistics."""

    def forward(model: Network) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        outputs = model(x, masks)
        value = loss(model.config, outputs, y)
        return scale * value, (value, outputs.logits)

    grads, results = nnx.grad(forward, has_aux=True)(model)
    return results, grads


def to_device(model: Network, images: spec.Array, labels: spec.Array) -> tuple[jax.Array, jax.Array]:
    """The batch as (N, H, W, C) images and (N,) labels on the model's device."""
    x = images_to_device(model, images)
    return x, jax.device_put(labels.astype(np.int32), model.device)


def dataset_to_device(
    model: Network, images: spec.Array, labels: spec.Array, table: spec.Array
) -> Callable[[spec.Array], tuple[jax.Array, jax.Array]]:
    """A dataset, kept on the model's device: a function from rows (n,) to their batch, which is that of `to_device`.

    Args:
        model: Whose batches they are.
        images: (N, C, H, W), uint8.
        labels: (N,) classes.
        table: The number for each value of a pixel, (1 or C, 256): see `harness.images.batches.pixel_table`.
    """
    arrays = np.ascontiguousarray(images.transpose(0, 2, 3, 1)), np.asarray(labels, np.int32), table
    placed = [jax.device_put(x, model.device) for x in arrays]
    return lambda rows: _batch(*placed, jax.device_put(rows.astype(np.int32), model.device))


@jax.jit
def _batch(pixels: jax.Array, labels: jax.Array, table: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    return table[np.arange(len(table)), pixels[rows]], labels[rows]


def images_to_device(model: Network, images: spec.Array) -> jax.Array:
    """Images (N, C, H, W) as an (N, H, W, C) array of the parameters' dtype on the model's device."""
    return jax.device_put(np.array(images.transpose(0, 2, 3, 1), model.stored_dtype), model.device)


def masks_to_device(model: Network, masks: spec.Arrays) -> dict[str, jax.Array]:
    """Dropout masks as arrays of zeros and ones, of the parameters' dtype on the model's device; maps (N, H, W, C)."""
    placed = {stage: mask.transpose(0, 2, 3, 1) if mask.ndim == 4 else mask for stage, mask in masks.items()}
    return {stage: jax.device_put(mask.astype(model.stored_dtype), model.device) for stage, mask in placed.items()}
