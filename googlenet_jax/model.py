"""GoogLeNet as Flax NNX modules. Memory layout (N, H, W, C); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype
from googlenet_jax.network import BatchNorm, Dropout, Layer, Network, convolution, dense, max_pool, zeros
from spec.googlenet import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL
from spec.reference import adaptive_windows, averaging_matrix


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """Means of side x side windows that cover the map, as PyTorch divides it; Flax has no such pool."""
    rows, columns = (averaging_matrix(size, adaptive_windows(size, side)) for size in x.shape[1:3])
    return jnp.einsum("ih,jw,nhwc->nijc", rows.astype(x.dtype), columns.astype(x.dtype), x)


class Conv(nnx.Conv):
    """Convolution, then batch norm where the preset has it, then ReLU unless told otherwise."""

    def __init__(
        self,
        config: spec.Config,
        into: int,
        out: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        relu: bool = True,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ) -> None:
        norm = config.batch_norm
        super().__init__(
            into,
            out,
            (kernel, kernel),
            strides=stride,
            padding=((pad, pad), (pad, pad)),
            use_bias=norm is None,
            conv_general_dilated=convolution,
            dtype=dtype,
            param_dtype=parameter_dtype(dtype),
            kernel_init=zeros,
            bias_init=zeros,
            rngs=rngs,
        )
        self.norm = BatchNorm(out, norm, dtype) if norm else None
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(super().__call__(x))

    def activation(self, x: jax.Array) -> jax.Array:
        """What comes after the convolution."""
        if self.norm is not None:
            x = self.norm(x)
        return nnx.relu(x) if self.relu else x


def side_by_side(x: jax.Array, *convs: Conv) -> list[jax.Array]:
    """What each of these 1x1 convolutions makes of the same map: on a CPU one matrix product over all their kernels."""
    if convs[0].conv_general_dilated is not convolution:
        return [conv(x) for conv in convs]
    kernel = jnp.concatenate([conv.kernel[0, 0] for conv in convs], axis=-1)
    y = x.astype(convs[0].dtype) @ kernel.astype(convs[0].dtype)
    parts = jnp.split(y, np.cumsum([conv.out_features for conv in convs])[:-1], axis=-1)
    biased = [y if conv.bias is None else y + conv.bias.astype(y.dtype) for conv, y in zip(convs, parts, strict=True)]
    return [conv.activation(y) for conv, y in zip(convs, biased, strict=True)]


class Inception(nnx.Module):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, config: spec.GoogLeNetConfig, row: spec.Inception, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        conv, into, k = partial(Conv, config, dtype=dtype, rngs=rngs), row.in_channels, config.branch5x5_kernel
        self.branch1x1 = conv(into, row.branch1x1, 1)
        self.branch3x3_reduce = conv(into, row.branch3x3_reduce, 1)
        self.branch3x3 = conv(row.branch3x3_reduce, row.branch3x3, 3, pad=1)
        self.branch5x5_reduce = conv(into, row.branch5x5_reduce, 1)
        self.branch5x5 = conv(row.branch5x5_reduce, row.branch5x5, k, pad=k // 2)
        self.pool_proj = conv(into, row.pool_proj, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        y, reduced3, reduced5 = side_by_side(x, self.branch1x1, self.branch3x3_reduce, self.branch5x5_reduce)
        return jnp.concatenate(
            [
                y,
                self.branch3x3(reduced3),
                self.branch5x5(reduced5),
                self.pool_proj(max_pool(x, BRANCH_POOL)),
            ],
            axis=-1,
        )


class AuxHead(nnx.Module):
    """A classifier on an early stage, used in training only."""

    def __init__(self, config: spec.GoogLeNetConfig, into: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.config = config
        self.conv = Conv(config, into, 128, 1, dtype=dtype, rngs=rngs)
        self.fc1 = dense(128 * 4 * 4, 1024, dtype=dtype, rngs=rngs)
        self.dropout = Dropout(config.aux_dropout, deterministic=True, rngs=rngs)
        self.fc2 = dense(1024, config.num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        if self.config.aux_adaptive:
            x = adaptive_average_pool(x, 4)  # 4 x 4 x channels
        else:
            x = nnx.avg_pool(x, (AUX_POOL_KERNEL,) * 2, (AUX_POOL_STRIDE,) * 2)  # 4 x 4 x channels
        x = self.conv(x)  # 4 x 4 x 128
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # 2048, in the order (C, H, W)
        x = nnx.relu(self.fc1(x))
        return self.fc2(self.dropout(x, kept))


class GoogLeNet(Network):
    """The network of a `spec.GoogLeNetConfig`; the rest is as `Network` says."""

    config: spec.GoogLeNetConfig
    takes = spec.GoogLeNetConfig

    def add_layers(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        """Table 1 and the stem, the heads and the classifier around it."""
        config, how = self.config, {"dtype": dtype, "rngs": rngs}
        conv, inception, head = (partial(part, config, **how) for part in (Conv, Inception, AuxHead))
        row, relu = config.inception, config.stem_relu
        self.conv1 = conv(config.in_channels, 64, 7, stride=2, pad=3)
        self.conv2_reduce = conv(64, 64, 1, relu=relu)
        self.conv2 = conv(64, 192, 3, pad=1, relu=relu)
        self.inception3a = inception(row("inception3a"))
        self.inception3b = inception(row("inception3b"))
        self.inception4a = inception(row("inception4a"))
        self.aux1 = head(row("inception4a").out_channels) if config.aux else None
        self.inception4b = inception(row("inception4b"))
        self.inception4c = inception(row("inception4c"))
        self.inception4d = inception(row("inception4d"))
        self.aux2 = head(row("inception4d").out_channels) if config.aux else None
        self.inception4e = inception(row("inception4e"))
        self.inception5a = inception(row("inception5a"))
        self.inception5b = inception(row("inception5b"))
        self.dropout = Dropout(config.dropout, deterministic=True, rngs=rngs)
        self.fc = dense(row("inception5b").out_channels, config.num_classes, **how)

    def layers(self, masks: Mapping[str, jax.Array] | None = None) -> list[tuple[str, Layer]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        config, masks = self.config, masks or {}
        pool, pool4 = partial(max_pool, pool=config.pool), partial(max_pool, pool=config.pool4)
        lrn, aux = self.lrn if config.lrn else None, config.aux
        layers = [
            ("conv1", self.conv1),  # 112 x 112 x 64
            ("pool1", pool),  # 56 x 56 x 64
            ("norm1", lrn),  # 56 x 56 x 64
            ("conv2_reduce", self.conv2_reduce),  # 56 x 56 x 64
            ("conv2", self.conv2),  # 56 x 56 x 192
            ("norm2", lrn),  # 56 x 56 x 192
            ("pool2", pool),  # 28 x 28 x 192
            ("inception3a", self.inception3a),  # 28 x 28 x 256
            ("inception3b", self.inception3b),  # 28 x 28 x 480
            ("pool3", pool),  # 14 x 14 x 480
            ("inception4a", self.inception4a),  # 14 x 14 x 512
            ("aux1", partial(self.aux1, kept=masks.get("aux1")) if aux else None),  # num_classes
            ("inception4b", self.inception4b),  # 14 x 14 x 512
            ("inception4c", self.inception4c),  # 14 x 14 x 512
            ("inception4d", self.inception4d),  # 14 x 14 x 528
            ("aux2", partial(self.aux2, kept=masks.get("aux2")) if aux else None),  # num_classes
            ("inception4e", self.inception4e),  # 14 x 14 x 832
            ("pool4", pool4),  # 7 x 7 x 832
            ("inception5a", self.inception5a),  # 7 x 7 x 832
            ("inception5b", self.inception5b),  # 7 x 7 x 1024
            ("pool5", self.head_pool),  # 1 x 1 x 1024
            ("fc", partial(self.classify, kept=masks.get("fc"))),  # num_classes
        ]
        return [(name, layer) for name, layer in layers if layer is not None]

    def lrn(self, x: jax.Array) -> jax.Array:
        """Local response normalization, written out: Flax has none."""
        lrn = self.config.lrn
        computed, x = x.dtype, x.astype(parameter_dtype(x.dtype))
        channels, reach = x.shape[-1], lrn.size // 2
        squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        total = sum(squares[..., i : i + channels] for i in range(lrn.size))
        return (x * (lrn.k + lrn.alpha / lrn.size * total) ** -lrn.beta).astype(computed)

    def head_pool(self, x: jax.Array) -> jax.Array:
        """The average before the classifier: the whole map, or one window of `head_pool` pixels."""
        side = self.config.head_pool
        return x.mean((1, 2), keepdims=True) if side is None else nnx.avg_pool(x, (side, side), (side, side))

    def classify(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        """Dropout and the dense layer on the averaged map."""
        return self.fc(self.dropout(x.reshape(len(x), -1), kept))
