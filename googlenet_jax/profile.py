"""Every stage as calls of its own, to be timed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from flax import nnx

import spec
from googlenet_jax.device import wait
from googlenet_jax.network import Network
from googlenet_jax.predict import mode
from googlenet_jax.train import images_to_device

Call = Callable[[], None]


def stages(model: Network, images: spec.Array) -> Iterator[tuple[str, Call, Call]]:
    """Each stage in forward order: its name, a call that computes it, and one that computes its gradients too.

    `harness.bench.worker.operations.Operations.stages` says what the calls compute. Each call is a
    program of its own.

    Raises:
        spec.InvalidInput: when the images (N, C, H, W) do not fit.
    """
    names = spec.stage_names(model.config)
    x = images_to_device(model, images)
    for name in names:
        forward, gradients, y = _compiled(model, name, x, wants_input_gradient=name != names[0])
        yield name, forward, gradients
        if name not in spec.head_names(model.config):
            x = y


def _compiled(model: Network, name: str, x: jax.Array, *, wants_input_gradient: bool) -> tuple[Call, Call, jax.Array]:
    """The two calls of one stage, each a program of its own, and the stage's output."""

    def of_stage(path: tuple, value: object) -> bool:
        return path[0] == name and isinstance(value, nnx.Param)

    with mode(model, training=True):
        definition, params, rest = nnx.split(model, of_stage, ...)

    def compute(params: nnx.State, x: jax.Array, rest: nnx.State) -> jax.Array:
        return getattr(nnx.merge(definition, params, rest), name)(x)

    def gradients(params: nnx.State, x: jax.Array, rest: nnx.State, dy: jax.Array) -> tuple:
        if wants_input_gradient:
            y, back = jax.vjp(lambda params, x: compute(params, x, rest), params, x)
        else:
            y, back = jax.vjp(lambda params: compute(params, x, rest), params)
        return y, back(dy)

    # JAX drops the arguments that a program does not use: the other stages' parameters in `rest`.
    forward = jax.jit(compute).lower(params, x, rest).compile()
    y = forward(params, x, rest)
    ones = jnp.ones_like(y)
    both = jax.jit(gradients).lower(params, x, rest, ones).compile()
    return lambda: wait(forward(params, x, rest)), lambda: wait(both(params, x, rest, ones)), y
