"""GoogLeNet as Flax NNX modules. Memory layout (N, H, W, C); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

import spec
from googlenet_jax.device import select_device, select_dtype
from googlenet_jax.params import load_params
from spec.network import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL
from spec.reference import adaptive_windows, averaging_matrix

_zeros = nnx.initializers.zeros_init()  # `load_params` sets every parameter, so nothing is drawn here


def max_pool(x: jax.Array, pool: spec.Pool) -> jax.Array:
    """Largest value of each window; minus infinity outside the image.

    Rounding up is rounding down with stride - 1 more pixels below and to the right.
    """
    edge = (pool.pad, pool.pad + (pool.stride - 1 if pool.ceil else 0))
    return nnx.max_pool(x, (pool.kernel, pool.kernel), (pool.stride, pool.stride), (edge, edge))


def convolution(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple, **settings) -> jax.Array:
    """XLA's convolution; where the map is smaller than the kernel, a product of its windows with the kernel.

    There XLA takes up to 20 times as long on a CPU: at 28 x 28 pixels that was most of a training step.
    """
    side, rows, columns = len(kernel), *x.shape[1:3]
    if min(rows, columns) >= side or strides != (1, 1):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    windows = [padded[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)]
    return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def adaptive_average_pool(x: jax.Array, side: int) -> jax.Array:
    """Means of side x side windows that cover the map, as PyTorch divides it; Flax has no such pool."""
    rows, columns = (averaging_matrix(size, adaptive_windows(size, side)) for size in x.shape[1:3])
    return jnp.einsum("ih,jw,nhwc->nijc", rows.astype(x.dtype), columns.astype(x.dtype), x)


def dense(into: int, out: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer of that dtype."""
    return nnx.Linear(into, out, dtype=dtype, param_dtype=dtype, kernel_init=_zeros, rngs=rngs)


class BatchNorm(nnx.Module):
    """Batch norm that stores the unbiased running variance; Flax's own stores the biased one."""

    def __init__(self, channels: int, settings: spec.BatchNorm, dtype: jnp.dtype) -> None:
        self.settings = settings
        self.use_running_average = True
        self.scale = nnx.Param(jnp.ones(channels, dtype))
        self.bias = nnx.Param(jnp.zeros(channels, dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            m, count = self.settings.momentum, x.size // x.shape[-1]
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.mean[...] = (1 - m) * self.mean[...] + m * mean
            self.var[...] = (1 - m) * self.var[...] + m * var * (count / (count - 1))
        return (x - mean) * (self.scale[...] / jnp.sqrt(var + self.settings.epsilon)) + self.bias[...]


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
            param_dtype=dtype,
            kernel_init=_zeros,
            rngs=rngs,
        )
        self.norm = BatchNorm(out, norm, dtype) if norm else None
        self.relu = relu

    def __call__(self, x: jax.Array) -> jax.Array:
        x = super().__call__(x)
        if self.norm is not None:
            x = self.norm(x)
        return nnx.relu(x) if self.relu else x


class Dropout(nnx.Dropout):
    """Dropout that can be told what to keep; else the model's generator decides."""

    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        return super().__call__(x) if kept is None else x * kept / (1 - self.rate)


class Inception(nnx.Module):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, config: spec.Config, row: spec.Inception, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        conv, into, k = partial(Conv, config, dtype=dtype, rngs=rngs), row.in_channels, config.branch5x5_kernel
        self.branch1x1 = conv(into, row.branch1x1, 1)
        self.branch3x3_reduce = conv(into, row.branch3x3_reduce, 1)
        self.branch3x3 = conv(row.branch3x3_reduce, row.branch3x3, 3, pad=1)
        self.branch5x5_reduce = conv(into, row.branch5x5_reduce, 1)
        self.branch5x5 = conv(row.branch5x5_reduce, row.branch5x5, k, pad=k // 2)
        self.pool_proj = conv(into, row.pool_proj, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate(
            [
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch5x5(self.branch5x5_reduce(x)),
                self.pool_proj(max_pool(x, BRANCH_POOL)),
            ],
            axis=-1,
        )


class AuxHead(nnx.Module):
    """A classifier on an early stage, used in training only."""

    def __init__(self, config: spec.Config, into: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
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


class GoogLeNet(nnx.Module):
    """The network of a `spec.Config`, with the initial parameters of `spec.init_params(config, seed)`.

    In training mode (``model.train()``) the auxiliary heads run as well. A new model is in inference mode. Dropout
    keeps what `masks` says (see `spec.dropout_masks`), or draws from a generator of the model's own.

    Args:
        config: From `spec.preset`.
        dtype: ``float32`` or ``float64``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters, and of dropout.

    Raises:
        spec.InvalidInput: for a device that is not there or an unknown dtype.
    """

    def __init__(self, config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> None:
        self.config = config
        self.deterministic = True  # false in training mode: `train()` sets it, as it does in every dropout
        how = {"dtype": select_dtype(dtype), "rngs": nnx.Rngs(seed)}
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
        self.dropout = Dropout(config.dropout, deterministic=True, rngs=how["rngs"])
        self.fc = dense(row("inception5b").out_channels, config.num_classes, **how)
        self.device = select_device(device)
        nnx.update(self, jax.device_put(nnx.state(self), self.device))  # dropout's generators too
        load_params(self, spec.init_params(config, seed))

    def stages(
        self, x: jax.Array, *, heads: bool, masks: Mapping[str, jax.Array] | None = None
    ) -> Iterator[tuple[str, jax.Array]]:
        """Every stage's name and output, in forward order; the auxiliary heads if asked for."""
        config, masks = self.config, masks or {}
        heads = heads and config.aux
        yield "conv1", (x := self.conv1(x))  # 112 x 112 x 64
        yield "pool1", (x := max_pool(x, config.pool))  # 56 x 56 x 64
        if config.lrn:
            yield "norm1", (x := self.lrn(x))  # 56 x 56 x 64
        yield "conv2_reduce", (x := self.conv2_reduce(x))  # 56 x 56 x 64
        yield "conv2", (x := self.conv2(x))  # 56 x 56 x 192
        if config.lrn:
            yield "norm2", (x := self.lrn(x))  # 56 x 56 x 192
        yield "pool2", (x := max_pool(x, config.pool))  # 28 x 28 x 192
        yield "inception3a", (x := self.inception3a(x))  # 28 x 28 x 256
        yield "inception3b", (x := self.inception3b(x))  # 28 x 28 x 480
        yield "pool3", (x := max_pool(x, config.pool))  # 14 x 14 x 480
        yield "inception4a", (x := self.inception4a(x))  # 14 x 14 x 512
        if heads:
            yield "aux1", self.aux1(x, masks.get("aux1"))  # num_classes
        yield "inception4b", (x := self.inception4b(x))  # 14 x 14 x 512
        yield "inception4c", (x := self.inception4c(x))  # 14 x 14 x 512
        yield "inception4d", (x := self.inception4d(x))  # 14 x 14 x 528
        if heads:
            yield "aux2", self.aux2(x, masks.get("aux2"))  # num_classes
        yield "inception4e", (x := self.inception4e(x))  # 14 x 14 x 832
        yield "pool4", (x := max_pool(x, config.pool4))  # 7 x 7 x 832
        yield "inception5a", (x := self.inception5a(x))  # 7 x 7 x 832
        yield "inception5b", (x := self.inception5b(x))  # 7 x 7 x 1024
        yield "pool5", (x := self.head_pool(x))  # 1 x 1 x 1024
        yield "fc", self.fc(self.dropout(x.reshape(len(x), -1), masks.get("fc")))  # num_classes

    def __call__(self, x: jax.Array, masks: Mapping[str, jax.Array] | None = None) -> spec.Outputs:
        """Images (N, H, W, C) to logits (N, num_classes); in training mode the auxiliary logits too."""
        stages = self.stages(x, heads=not self.deterministic, masks=masks)
        ends = {name: y for name, y in stages if name in ("aux1", "aux2", "fc")}
        return spec.Outputs(ends["fc"], ends.get("aux1"), ends.get("aux2"))

    def lrn(self, x: jax.Array) -> jax.Array:
        """Local response normalization, written out: Flax has none."""
        lrn = self.config.lrn
        channels, reach = x.shape[-1], lrn.size // 2
        squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (reach, reach)))
        total = sum(squares[..., i : i + channels] for i in range(lrn.size))
        return x * (lrn.k + lrn.alpha / lrn.size * total) ** -lrn.beta

    def head_pool(self, x: jax.Array) -> jax.Array:
        """The average before the classifier: the whole map, or one window of `head_pool` pixels."""
        side = self.config.head_pool
        return x.mean((1, 2), keepdims=True) if side is None else nnx.avg_pool(x, (side, side), (side, side))
