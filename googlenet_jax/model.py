"""GoogLeNet as Flax NNX modules. Memory layout (N, H, W, C); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import spec
from googlenet_jax.device import parameter_dtype, select_device, select_dtype
from googlenet_jax.params import load_params
from spec.network import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL
from spec.reference import adaptive_windows, averaging_matrix

Layer = Callable[[jax.Array], jax.Array]

_zeros = nnx.initializers.zeros_init()  # `load_params` sets every parameter, so nothing is drawn here


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pool(x: jax.Array, pool: spec.Pool) -> jax.Array:
    """Largest value of each window; minus infinity outside the image. XLA's, with a gradient of our own on CPUs."""
    edges = [(pool.pad, _beyond(size, pool)) for size in x.shape[1:3]]
    window, strides = (1, pool.kernel, pool.kernel, 1), (1, pool.stride, pool.stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, ((0, 0), *edges, (0, 0)))


def _beyond(size: int, pool: spec.Pool) -> int:
    """How many pixels the last window hangs over the edge."""
    return max((pool.output_size(size) - 1) * pool.stride + pool.kernel - pool.pad - size, 0)


def _max_pool_gradient(pool: spec.Pool, x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    """The first maximum of a window, row by row, takes its gradient."""
    _, of_xla = jax.vjp(partial(max_pool.__wrapped__, pool=pool), x)
    return (jax.lax.platform_dependent(x, dy, cpu=partial(_gathered, pool), default=lambda _, dy: of_xla(dy)[0]),)


max_pool.defvjp(lambda x, pool: (max_pool(x, pool), x), _max_pool_gradient)


def _gathered(pool: spec.Pool, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient of `max_pool`: every pixel adds up what its windows give it.

    XLA goes the other way, from windows to pixels, and does so one by one on a CPU: its gradients of the pools are
    more than half of a training step. A window's maximum is that of its rows' maxima, so this is done along the rows,
    and then along the columns.
    """
    rows, column = _first_maximum(x, pool, axis=2)
    _, row = _first_maximum(rows, pool, axis=1)
    return _to_pixels(_to_pixels(dy, row, pool, 1, x.shape[1]), column, pool, 2, x.shape[2])


def _first_maximum(x: jax.Array, pool: spec.Pool, axis: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of every window along one axis, and its place in the window; of several the first."""
    outside = [(0, 0)] * 4
    outside[axis] = (pool.pad, _beyond(x.shape[axis], pool))
    padded, last = jnp.pad(x, outside, constant_values=-jnp.inf), (pool.output_size(x.shape[axis]) - 1) * pool.stride
    value, place = jnp.full((), -jnp.inf, x.dtype), jnp.zeros((), jnp.int8)
    for k in range(pool.kernel):
        candidate = jax.lax.slice_in_dim(padded, k, k + last + 1, pool.stride, axis)
        place = jnp.where(candidate > value, jnp.int8(k), place)
        value = jnp.maximum(value, candidate)
    return value, place


def _to_pixels(dy: jax.Array, place: jax.Array, pool: spec.Pool, axis: int, size: int) -> jax.Array:
    """What `size` pixels get along one axis from the windows that `place` says they are the maximum of.

    Pixel p, counted from the padding's first, is at place k of window (p - k) / stride, where that is a whole number.
    With a stride of 2 even and odd pixels are computed apart, and then interleaved.
    """
    reach, count = (pool.kernel - 1) // pool.stride, -(-(size + pool.pad) // pool.stride)
    outside = [(0, 0)] * 4
    outside[axis] = (reach, max(count - dy.shape[axis], 0))
    dy, place = jnp.pad(dy, outside), jnp.pad(place, outside, constant_values=-1)

    def from_place(k: int) -> jax.Array:
        start = reach - k // pool.stride
        windows = [jax.lax.slice_in_dim(a, start, start + count, axis=axis) for a in (dy, place)]
        return jnp.where(windows[1] == k, windows[0], 0)

    parts = [sum(map(from_place, range(first, pool.kernel, pool.stride))) for first in range(pool.stride)]
    shape = (*dy.shape[:axis], count * pool.stride, *dy.shape[axis + 1 :])
    return jax.lax.slice_in_dim(jnp.stack(parts, axis + 1).reshape(shape), pool.pad, pool.pad + size, axis=axis)


def convolution(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple, **settings) -> jax.Array:
    """XLA's convolution, or a matrix product where that is faster on a CPU.

    A 1x1 convolution is one; XLA takes 1.5 to 3 times as long for the gradient of its kernel. Where the map is smaller
    than the kernel, it is the product of its windows with the kernel: there XLA takes up to 20 times as long, which at
    28 x 28 pixels was most of a training step.
    """
    side, rows, columns = len(kernel), *x.shape[1:3]
    if side == 1:
        return x @ kernel[0, 0]
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
    """A dense layer that computes in that dtype."""
    stored = parameter_dtype(dtype)
    return nnx.Linear(into, out, dtype=dtype, param_dtype=stored, kernel_init=_zeros, rngs=rngs)


class BatchNorm(nnx.Module):
    """Batch norm that stores the unbiased running variance; Flax's own stores the biased one."""

    def __init__(self, channels: int, settings: spec.BatchNorm, dtype: jnp.dtype) -> None:
        self.settings = settings
        dtype = parameter_dtype(dtype)
        self.use_running_average = True
        self.scale = nnx.Param(jnp.ones(channels, dtype))
        self.bias = nnx.Param(jnp.zeros(channels, dtype))
        self.mean = nnx.BatchStat(jnp.zeros(channels, dtype))
        self.var = nnx.BatchStat(jnp.ones(channels, dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        computed, x = x.dtype, x.astype(self.mean[...].dtype)  # bfloat16 has too few digits for a variance
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            m, count = self.settings.momentum, x.size // x.shape[-1]
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.mean[...] = (1 - m) * self.mean[...] + m * mean
            self.var[...] = (1 - m) * self.var[...] + m * var * (count / (count - 1))
        x = (x - mean) * (self.scale[...] / jnp.sqrt(var + self.settings.epsilon)) + self.bias[...]
        return x.astype(computed)


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
            kernel_init=_zeros,
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
    """What each of these 1x1 convolutions makes of the same map: one matrix product over all their kernels."""
    kernel = jnp.concatenate([conv.kernel[0, 0] for conv in convs], axis=-1)
    y = x.astype(convs[0].dtype) @ kernel.astype(convs[0].dtype)
    parts = jnp.split(y, np.cumsum([conv.out_features for conv in convs])[:-1], axis=-1)
    biased = [y if conv.bias is None else y + conv.bias.astype(y.dtype) for conv, y in zip(convs, parts, strict=True)]
    return [conv.activation(y) for conv, y in zip(convs, biased, strict=True)]


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
        dtype: ``float32``, ``float64``, or ``bfloat16``: to compute in; the parameters are then float32.
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

    def stages(
        self, x: jax.Array, *, heads: bool, masks: Mapping[str, jax.Array] | None = None
    ) -> Iterator[tuple[str, jax.Array]]:
        """Every stage's name and output, in forward order; the auxiliary heads if asked for."""
        for name, layer in self.layers(masks):
            if name not in ("aux1", "aux2"):
                yield name, (x := layer(x))
            elif heads:
                yield name, layer(x)

    def __call__(self, x: jax.Array, masks: Mapping[str, jax.Array] | None = None) -> spec.Outputs:
        """Images (N, H, W, C) to logits (N, num_classes); in training mode the auxiliary logits too."""
        stages = self.stages(x, heads=not self.deterministic, masks=masks)
        ends = {name: y.astype(x.dtype) for name, y in stages if name in ("aux1", "aux2", "fc")}
        return spec.Outputs(ends["fc"], ends.get("aux1"), ends.get("aux2"))

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
