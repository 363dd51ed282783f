"""Images in, logits out: the network as it is, and one made for inference that computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from googlenet_jax.network import Network
from googlenet_jax.train import images_to_device


def predict(model: Network, images: spec.Array) -> spec.Array:
    """Logits (N, num_classes) of images (N, C, H, W), in inference mode.

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with mode(model, training=False):
        return np.array(_logits(model, images_to_device(model, spec.check_images(model.config, images))))


@nnx.jit
def _logits(model: Network, x: jax.Array) -> jax.Array:
    return model(x).logits


def predictor(model: Network, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A function from images like `x`, from `images_to_device`, to logits (N, num_classes), in inference mode.

    Compiled ahead of time, for this shape only, with the parameters as they are now.
    """
    with mode(model, training=False):
        definition, state = nnx.split(model)
        leaves, tree = jax.tree.flatten(state)  # a list, since each call takes its arguments apart

        def logits(leaves: list[jax.Array], x: jax.Array) -> jax.Array:
            return nnx.merge(definition, jax.tree.unflatten(tree, leaves))(x).logits

        compiled = jax.jit(logits).lower(leaves, x).compile()
    return partial(compiled, list(map(jnp.copy, leaves)))  # a training step takes the memory of the model's own


@contextmanager
def mode(model: Network, *, training: bool) -> Iterator[None]:
    before = not model.deterministic
    _set_mode(model, training)
    try:
        yield
    finally:
        _set_mode(model, before)


def _set_mode(model: Network, training: bool) -> None:
    model.train() if training else model.eval()
