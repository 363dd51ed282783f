"""Operations that are faster than XLA's on a CPU and compute the same. `Network.finish` switches them on.

Not on a GPU. On an H100, JAX 0.11.2 compiled the products that CPUs like for four times as long, and to a wrong
program: float64 gradients off by as much as their largest value.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from googlenet_jax import layers
from googlenet_jax.googlenet import Inception
from googlenet_jax.layers import Conv, beyond


def make_fast(model: nnx.Module) -> None:
    """Replace XLA's convolutions, and the gradients of its max pools, by those of this file."""
    for _, part in nnx.iter_graph(model):
        if isinstance(part, Conv):
            part.conv_general_dilated = convolution
        for name, child in vars(part).items() if isinstance(part, nnx.Module) else ():
            if isinstance(child, layers.MaxPool):
                setattr(part, name, MaxPool(child))
            elif isinstance(child, Inception):
                setattr(part, name, SideBySide(child))


# ------------------------------------------------------------------------------------------------------ convolutions

MUCH = 2**24  # multiply-adds


def convolution(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple, **settings) -> jax.Array:
    """XLA's convolution, or a matrix product where that is faster.

    A 1x1 convolution is one; XLA takes 1.5 to 3 times as long for the gradient of its kernel. Any other is the product
    of its windows with the kernel. Where the map is smaller than the kernel, XLA takes up to 20 times as long, which at
    28 x 28 pixels was most of a training step; in float64, for which it has no fast convolution, 3 to 13 times. That
    takes longer to compile: it has to be much work.
    """
    (height, width), (rows, columns) = kernel.shape[:2], x.shape[1:3]
    if strides == (1, 1) and (height, width) == (1, 1) and not np.any(padding):
        return x @ kernel[0, 0]
    work = math.prod(x.shape[:3]) * kernel.size // math.prod(strides)  # multiply-adds
    if (x.dtype == jnp.float64 and work >= MUCH) or (strides == (1, 1) and (rows < height or columns < width)):
        padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        down, across = (padded.shape[1] - height) // strides[0], (padded.shape[2] - width) // strides[1]  # to the last
        windows = [
            padded[:, i : i + down * strides[0] + 1 : strides[0], j : j + across * strides[1] + 1 : strides[1]]
            for i in range(height)
            for j in range(width)
        ]
        return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)


class SideBySide(Inception):
    """An Inception block whose three 1x1 convolutions of the same map are one matrix product."""

    def __init__(self, block: Inception) -> None:
        vars(self).update(vars(block))

    def __call__(self, x: jax.Array) -> jax.Array:
        y, reduced3, reduced5 = side_by_side(x, self.branch1x1, self.branch3x3_reduce, self.branch5x5_reduce)
        pooled = self.pool_proj(self.pool(x))
        return jnp.concatenate([y, self.branch3x3(reduced3), self.branch5x5(reduced5), pooled], axis=-1)


def side_by_side(x: jax.Array, *convs: Conv) -> list[jax.Array]:
    """The outputs of 1x1 convolutions of the same map, by one matrix product over all their kernels."""
    kernel = jnp.concatenate([conv.kernel[0, 0] for conv in convs], axis=-1)
    y = x.astype(convs[0].dtype) @ kernel.astype(convs[0].dtype)
    parts = jnp.split(y, np.cumsum([conv.out_features for conv in convs])[:-1], axis=-1)
    biased = [y if conv.bias is None else y + conv.bias.astype(y.dtype) for conv, y in zip(convs, parts, strict=True)]
    return [conv.activate(y) for conv, y in zip(convs, biased, strict=True)]


# --------------------------------------------------------------------------------------------------------- max pools


class MaxPool(layers.MaxPool):
    """A max pool with a gradient of our own."""

    def __init__(self, pool: layers.MaxPool) -> None:
        self.op = pool.op

    def __call__(self, x: jax.Array) -> jax.Array:
        return max_pool(x, self.op)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, op: spec.MaxPool) -> jax.Array:
    """XLA's max pool; every pixel's gradient adds up what its windows give it.

    XLA goes the other way, from windows to pixels, and does so one by one on a CPU: its gradients of the pools are
    more than half of a training step. A window's maximum is that of its rows' maxima, so this is done along the rows,
    and then along the columns. The first maximum of a window, row by row, takes its gradient.
    """
    return layers.max_pool(x, op)


def _gradient(op: spec.MaxPool, x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    rows, column = _first_maximum(x, op, axis=1)
    _, row = _first_maximum(rows, op, axis=0)
    return (_to_pixels(_to_pixels(dy, row, op, 0, x.shape[1]), column, op, 1, x.shape[2]),)


max_pool.defvjp(lambda x, op: (max_pool(x, op), x), _gradient)


def _first_maximum(x: jax.Array, op: spec.MaxPool, axis: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of every window along one axis, and its place in the window; of several the first."""
    size, stride, outside = x.shape[1 + axis], op.strides[axis], [(0, 0)] * 4
    outside[1 + axis] = (op.pads[axis][0], beyond(size, op, axis))
    padded, last = jnp.pad(x, outside, constant_values=-jnp.inf), (op.output_size(size, axis) - 1) * stride
    value, place = jnp.full((), -jnp.inf, x.dtype), jnp.zeros((), jnp.int8)
    for k in range(op.sides[axis]):
        candidate = jax.lax.slice_in_dim(padded, k, k + last + 1, stride, 1 + axis)
        place = jnp.where(candidate > value, jnp.int8(k), place)
        value = jnp.maximum(value, candidate)
    return value, place


def _to_pixels(dy: jax.Array, place: jax.Array, op: spec.MaxPool, axis: int, size: int) -> jax.Array:
    """The gradients of `size` pixels along one axis. `place` says which pixel is the maximum of each window.

    Pixel p, counted from the padding's first, is at place k of window (p - k) / stride, where that is a whole number.
    With a stride of 2 even and odd pixels are computed apart, and then interleaved.
    """
    side, stride, pad, axis = op.sides[axis], op.strides[axis], op.pads[axis][0], 1 + axis
    reach, count = (side - 1) // stride, -(-(size + pad) // stride)
    outside = [(0, 0)] * 4
    outside[axis] = (reach, max(count - dy.shape[axis], 0))
    dy, place = jnp.pad(dy, outside), jnp.pad(place, outside, constant_values=-1)

    def from_place(k: int) -> jax.Array:
        start = reach - k // stride
        windows = [jax.lax.slice_in_dim(a, start, start + count, axis=axis) for a in (dy, place)]
        return jnp.where(windows[1] == k, windows[0], 0)

    parts = [sum(map(from_place, range(first, side, stride))) for first in range(stride)]
    shape = (*dy.shape[:axis], count * stride, *dy.shape[axis + 1 :])
    return jax.lax.slice_in_dim(jnp.stack(parts, axis + 1).reshape(shape), pad, pad + size, axis=axis)
