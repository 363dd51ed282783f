"""Every stage's output, the loss and its gradients, as NumPy arrays, to be compared."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype
from googlenet_jax.network import Network
from googlenet_jax.params import canonical_name, to_canonical
from googlenet_jax.predict import mode
from googlenet_jax.train import images_to_device, to_device, value_and_grads


def activations(model: Network, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, num_classes).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with mode(model, training=False):
        stages = _stages(model, images_to_device(model, spec.check_images(model.config, images)))
    # A dict that has been through jit comes back sorted by name.
    return {name: _canonical_layout(stages[name]) for name in spec.stage_names(model.config)}


def watched(model: Network, x: jax.Array) -> dict[str, jax.Array]:
    """Every stage's output, auxiliary heads included."""
    stages: dict[str, jax.Array] = {}

    def watch(stage: str, x: jax.Array) -> jax.Array:
        stages[stage] = x
        return x

    model(x, watch=watch)
    return stages


_stages = nnx.jit(watched)


def loss_and_grads(model: Network, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    images, labels, _ = spec.check_batch(model.config, images, labels)
    x, y = to_device(model, images, labels)
    with mode(model, training=True):
        value, grads = _loss_and_grads(model, x, y)
    by_name = {canonical_name(path): to_canonical(leaf[...]) for path, leaf in nnx.to_flat_state(grads)}
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return float(value), {name: by_name[name] for name in trained}


@nnx.jit
def _loss_and_grads(model: Network, x: jax.Array, y: jax.Array) -> tuple[jax.Array, nnx.State]:
    (value, _), grads = value_and_grads(nnx.clone(model), x, y, {})  # the copy takes what the pass updates
    return value, grads


def _canonical_layout(x: jax.Array) -> spec.Array:
    x = np.array(x, parameter_dtype(x.dtype))
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
