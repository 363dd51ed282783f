"""The Inception family as people write it in Flax NNX, every default left as it is, under `nnx.jit`.

The benchmark times it beside `googlenet_jax`. Convolutions and pools are the package's before `fast_cpu` replaces them,
which are XLA's own; batch norm is Flax's own. Functions that are missing here are the package's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx

import spec
from googlenet_jax.build import NETWORKS
from googlenet_jax.layers import BatchNorm, Conv
from googlenet_jax.network import Network
from googlenet_jax.params import dump_params
from googlenet_jax.predict import predict
from googlenet_jax.probe import loss_and_grads
from googlenet_jax.textbook import make_optimizer
from googlenet_jax.train import value_and_grads
from harness.backends.textbook import check_config

__all__ = [
    "build",
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
    model = NETWORKS[config.family](config, dtype=dtype, device=device, params=params, tuned=False)
    for _, part in nnx.iter_graph(model):
        if isinstance(part, Conv) and part.norm is not None:
            part.norm = _flax_norm(part.norm)
    return model


def _flax_norm(norm: BatchNorm) -> nnx.BatchNorm:
    """Flax's own with the same arrays. It stores the biased running variance."""
    settings, channels = norm.settings, norm.mean[...].size
    made = nnx.BatchNorm(
        channels,
        use_running_average=True,
        momentum=1 - settings.momentum,
        epsilon=settings.epsilon,
        use_scale=settings.scale,
        use_bias=settings.shift,
        dtype=norm.mean[...].dtype,
        rngs=nnx.Rngs(0),
    )
    made.scale, made.bias, made.mean, made.var = norm.scale, norm.bias, norm.mean, norm.var
    return made


def update(
    model: Network, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array, masks: dict[str, jax.Array]
) -> spec.Step:
    """Like `googlenet_jax.update`; without dropout `masks` is empty."""
    model.train()
    return spec.Step(*_step(model, optimizer, x, y))


@nnx.jit
def _step(model: Network, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    (value, logits), grads = value_and_grads(model, x, y, {})
    optimizer.update(model, grads)
    return value, (logits.argmax(-1) == y).sum()


@nnx.jit
def _logits(model: Network, x: jax.Array) -> jax.Array:
    return model(x).logits


def predictor(model: Network, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The compiled network in inference mode, for images of any size."""
    model.eval()
    return partial(_logits, model)
