"""Plain sequences as Flax NNX modules: LeNet, AlexNet, VGG, NiN. Attribute names are the canonical names.

Source: `spec.sequences`; every number is held against `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype
from googlenet_jax.network import BatchNorm, Dropout, Layer, Network, convolution, max_pool, zeros
from spec.sequences import GlobalAverage, MaxPool, Row

ACTIVATIONS: dict[str | None, Callable[[jax.Array], jax.Array]] = {
    None: lambda x: x,
    "relu": nnx.relu,
    "sigmoid": nnx.sigmoid,
}


class ConvLayer(nnx.Conv):
    """Convolution, then batch norm where the preset has it, then the activation.

    Batch norm is written out in array operations anyway, since Flax's own stores another running variance.
    """

    def __init__(self, layer: spec.Layer, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        super().__init__(
            layer.in_channels,
            layer.out_channels,
            (layer.kernel, layer.kernel),
            strides=layer.stride,
            padding=((layer.pad, layer.pad), (layer.pad, layer.pad)),
            conv_general_dilated=convolution,
            dtype=dtype,
            param_dtype=parameter_dtype(dtype),
            kernel_init=zeros,
            bias_init=zeros,
            rngs=rngs,
        )
        self.norm = BatchNorm(layer.out_channels, layer.norm, dtype) if layer.norm else None
        self.activation = ACTIVATIONS[layer.activation]

    def __call__(self, x: jax.Array) -> jax.Array:
        x = super().__call__(x)
        return self.activation(x if self.norm is None else self.norm(x))


class DenseLayer(nnx.Linear):
    """Dense layer on a map as (C, H, W), then batch norm where the preset has it, then the activation."""

    def __init__(self, layer: spec.Layer, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        stored = parameter_dtype(dtype)
        sides = (layer.in_channels, layer.out_channels)
        how = {"dtype": dtype, "param_dtype": stored, "kernel_init": zeros, "bias_init": zeros}
        super().__init__(*sides, **how, rngs=rngs)
        self.norm = BatchNorm(layer.out_channels, layer.norm, dtype) if layer.norm else None
        self.activation = ACTIVATIONS[layer.activation]

    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim == 4:
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # in the order (C, H, W)
        x = super().__call__(x)
        return self.activation(x if self.norm is None else self.norm(x))


class Sequence(Network):
    """The network of a `spec.SequenceConfig`; the rest is as `Network` says."""

    config: spec.SequenceConfig
    takes = spec.SequenceConfig

    def add_layers(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        """A module for every row that has weights."""
        self.dropout = Dropout(self.config.dropout, deterministic=True, rngs=rngs)
        for layer in spec.layers(self.config):
            kind = DenseLayer if layer.kernel is None else ConvLayer
            setattr(self, layer.name, kind(layer, dtype=dtype, rngs=rngs))

    def layers(self, masks: Mapping[str, jax.Array] | None = None) -> list[tuple[str, Layer]]:
        """Every row's name and what computes it, in forward order."""
        masks = masks or {}
        return [(row.name, self._layer(row, masks.get(row.name))) for row in self.config.rows]

    def _layer(self, row: Row, kept: jax.Array | None) -> Layer:
        if isinstance(row, MaxPool):
            return partial(max_pool, pool=row.pool)
        if isinstance(row, GlobalAverage):
            return lambda x: x.mean((1, 2))
        layer = getattr(self, row.name)
        return (lambda x: layer(self.dropout(x, kept))) if row.drop else layer
