"""Layers as Flax NNX modules, each made from the `spec.Node` that it computes. Arrays are (N, H, W, C).

A new layer holds float32 zeros: `Network.finish` gives it its dtype, its parameters, and dropout its generator.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype
from spec.reference import adaptive_windows, averaging_matrix

ACTIVATIONS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda x: x,
    "relu": nnx.relu,
    "sigmoid": nnx.sigmoid,
}


def zeros(key: object, shape: tuple, dtype: jnp.dtype, out_sharding: object = None) -> jax.Array:
    """A parameter until `load_params` sets it. JAX's own initializers are compiled anew for every shape."""
    return jnp.asarray(np.zeros(shape, dtype))


class Dropout(nnx.Dropout):
    """Dropout that can be told what to keep; otherwise the model's generator decides."""

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        return super().__call__(x) if mask is None else x * mask / (1 - self.rate)


class BatchNorm(nnx.Module):
    """Batch norm that stores the unbiased running variance; Flax's own stores the biased one."""

    def __init__(self, channels: int, settings: spec.BatchNorm) -> None:
        self.settings = settings
        self.use_running_average = True
        self.scale = nnx.Param(zeros(None, (channels,), jnp.float32)) if settings.scale else None
        self.bias = nnx.Param(zeros(None, (channels,), jnp.float32)) if settings.shift else None
        self.mean = nnx.BatchStat(zeros(None, (channels,), jnp.float32))
        self.var = nnx.BatchStat(zeros(None, (channels,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        computed, x = x.dtype, x.astype(self.mean[...].dtype)  # bfloat16 has too few digits for a variance
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            m, count, axes = self.settings.momentum, x.size // x.shape[-1], tuple(range(x.ndim - 1))
            mean, var = x.mean(axes), x.var(axes)
            correction = count / (count - 1) if self.settings.unbiased else 1
            self.mean[...] = (1 - m) * self.mean[...] + m * mean
            self.var[...] = (1 - m) * self.var[...] + m * var * correction
        factor = 1 / jnp.sqrt(var + self.settings.epsilon)
        if self.settings.scale:
            factor = self.scale[...] * factor
        x = (x - mean) * factor
        if self.settings.shift:
            x = x + self.bias[...]
        return x.astype(computed)


class Conv(nnx.Conv):
    """Dropout, convolution, batch norm and activation: those that the node has."""

    def __init__(self, node: spec.Node) -> None:
        op = node.op
        super().__init__(
            node.in_channels,
            node.out_channels,
            op.sides,
            strides=op.strides,
            padding=op.pads,
            use_bias=node.has_bias,
            kernel_init=zeros,
            bias_init=zeros,
            rngs=nnx.Rngs(0),  # nothing is drawn
        )
        self.dropout = None if node.dropout is None else Dropout(node.dropout, deterministic=True)
        self.norm = BatchNorm(node.out_channels, node.norm) if node.norm else None
        self.activation = op.activation

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        if self.dropout is not None:
            x = self.dropout(x, mask)
        return self.activate(super().__call__(x))

    def activate(self, x: jax.Array) -> jax.Array:
        """Batch norm and activation, where the layer has them."""
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](x)


class Dense(nnx.Linear):
    """Dropout, dense layer, batch norm and activation, on all values of a map in the order (C, H, W)."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__(
            node.in_channels,
            node.out_channels,
            use_bias=node.has_bias,
            kernel_init=zeros,
            bias_init=zeros,
            rngs=nnx.Rngs(0),  # nothing is drawn
        )
        self.dropout = None if node.dropout is None else Dropout(node.dropout, deterministic=True)
        self.norm = BatchNorm(node.out_channels, node.norm) if node.norm else None
        self.activation = node.op.activation

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        if x.ndim == 4:
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # in the order (C, H, W)
        if self.dropout is not None:
            x = self.dropout(x, mask)
        x = super().__call__(x)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](x)


class MaxPool(nnx.Module):
    """Largest value of each window; minus infinity outside the image."""

    def __init__(self, node: spec.Node) -> None:
        self.op = node.op

    def __call__(self, x: jax.Array) -> jax.Array:
        return max_pool(x, self.op)


def max_pool(x: jax.Array, op: spec.MaxPool) -> jax.Array:
    """XLA's max pool. It knows no ceiling: a last window that hangs over the edge gets its pixels by padding."""
    edges = [(op.pads[axis][0], beyond(x.shape[1 + axis], op, axis)) for axis in (0, 1)]
    window, strides = (1, *op.sides, 1), (1, *op.strides, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, ((0, 0), *edges, (0, 0)))


def beyond(size: int, op: spec.MaxPool, axis: int) -> int:
    """The number of pixels by which the last window hangs over the edge; axis 0 is the height."""
    last = (op.output_size(size, axis) - 1) * op.strides[axis]
    return max(last + op.sides[axis] - op.pads[axis][0] - size, 0)


class AveragePool(nnx.Module):
    """Mean of each window, or of what covers the map."""

    def __init__(self, node: spec.Node) -> None:
        self.op = node.op

    def __call__(self, x: jax.Array) -> jax.Array:
        op = self.op
        if isinstance(op, spec.GlobalAverage):
            return x.mean((1, 2))
        if isinstance(op, spec.AdaptiveAverage):
            return adaptive_average_pool(x, op.side)
        return nnx.avg_pool(x, op.sides, op.strides, op.pads, count_include_pad=op.count_pad)


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """Means of side x side windows that cover the map, as PyTorch divides it; Flax has no such pool."""
    if side == 1:
        return x.mean((1, 2), keepdims=True)
    rows, columns = (averaging_matrix(size, adaptive_windows(size, side)) for size in x.shape[1:3])
    return jnp.einsum("ih,jw,nhwc->nijc", rows.astype(x.dtype), columns.astype(x.dtype), x, precision="highest")


class LRN(nnx.Module):
    """Local response normalization, written out: Flax has none."""

    def __init__(self, node: spec.Node) -> None:
        self.op = node.op

    def __call__(self, x: jax.Array) -> jax.Array:
        lrn = self.op
        computed, x = x.dtype, x.astype(parameter_dtype(x.dtype))
        channels, reach = x.shape[-1], lrn.size // 2
        squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        total = sum(squares[..., i : i + channels] for i in range(lrn.size))
        return (x * (lrn.k + lrn.alpha / lrn.size * total) ** -lrn.beta).astype(computed)
