"""The workloads of `harness.backends.ceilings` in JAX."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from googlenet_jax.device import select_device, select_dtype, select_precision, wait
from harness.backends import ceilings
from harness.backends.ceilings import CHANNELS, KERNEL, PIXELS, Workload


def workloads(device: str, dtype: str) -> list[Workload]:
    """The product, the convolution and the copy. A device that is not there and an unknown dtype are refused."""
    selected = select_device(device)
    computed = select_dtype(dtype)
    precision = select_precision(dtype, selected)

    def random(*shape: int) -> jax.Array:
        return jax.device_put(jax.random.normal(jax.random.key(0), shape, computed), selected)

    def call(function: Callable[..., jax.Array], *arrays: jax.Array) -> Callable[[], None]:
        compiled = jax.jit(function).lower(*arrays).compile()
        return lambda: wait(compiled(*arrays))

    a = random(ceilings.SIDE, ceilings.SIDE)
    b = random(ceilings.SIDE, ceilings.SIDE)
    x = random(ceilings.IMAGES, PIXELS, PIXELS, CHANNELS)
    w = random(KERNEL, KERNEL, CHANNELS, CHANNELS)
    source = jax.device_put(jnp.zeros(ceilings.BYTES // computed.itemsize, computed), selected)
    return ceilings.workloads(
        product=call(partial(jnp.matmul, precision=precision), a, b),
        convolution=call(partial(_convolution, precision=precision), x, w),
        copy=call(jnp.copy, source),
    )


def _convolution(x: jax.Array, w: jax.Array, precision: jax.lax.Precision | None) -> jax.Array:
    layouts = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=layouts, precision=precision)
