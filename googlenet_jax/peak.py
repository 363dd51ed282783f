"""What JAX reaches on this device in the workloads of `harness.backends.ceilings`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from googlenet_jax.device import select_device, select_dtype, wait
from harness.backends.ceilings import (
    BYTES,
    CHANNELS,
    CONVOLUTION,
    COPY,
    IMAGES,
    KERNEL,
    PIXELS,
    PRODUCT,
    SIDE,
    Workload,
)


def workloads(device: str, dtype: str) -> list[Workload]:
    """The product, the convolution and the copy.

    Raises:
        spec.InvalidInput: for a device that is not there or an unknown dtype.
    """
    selected, computed = select_device(device), select_dtype(dtype)

    def noise(*shape: int) -> jax.Array:
        return jax.device_put(jax.random.normal(jax.random.key(0), shape, computed), selected)

    def call(function: Callable[..., jax.Array], *arrays: jax.Array) -> Callable[[], None]:
        compiled = jax.jit(function).lower(*arrays).compile()
        return lambda: wait(compiled(*arrays))

    a, b = noise(SIDE, SIDE), noise(SIDE, SIDE)
    x, w = noise(IMAGES, PIXELS, PIXELS, CHANNELS), noise(KERNEL, KERNEL, CHANNELS, CHANNELS)
    source = jax.device_put(jnp.zeros(BYTES // computed.itemsize, computed), selected)
    return [
        ("matrix product", PRODUCT, call(jnp.matmul, a, b)),
        ("convolution", CONVOLUTION, call(_convolution, x, w)),
        ("copy", COPY, call(jnp.copy, source)),
    ]


def _convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
