"""What every network is in Flax NNX: stages, one after the other. Memory layout (N, H, W, C)."""

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

Layer = Callable[[jax.Array], jax.Array]


def zeros(key: object, shape: tuple, dtype: jnp.dtype, out_sharding: object = None) -> jax.Array:
    """What a parameter is until `load_params` sets it. JAX's own initializers are compiled anew for every shape."""
    return jnp.asarray(np.zeros(shape, dtype))


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
    """XLA's convolution, or a matrix product where that is faster, on a CPU; see `leave_to_xla` for GPUs.

    A 1x1 convolution is one; XLA takes 1.5 to 3 times as long for the gradient of its kernel. Where the map is smaller
    than the kernel, it is the product of its windows with the kernel: there XLA takes up to 20 times as long, which at
    28 x 28 pixels was most of a training step.
    """
    (height, width), (rows, columns) = kernel.shape[:2], x.shape[1:3]
    if strides == (1, 1) and (height, width) == (1, 1) and not np.any(padding):
        return x @ kernel[0, 0]
    if strides == (1, 1) and (rows < height or columns < width):
        padded = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
        windows = [padded[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)]
        return jnp.concatenate(windows, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)


def leave_to_xla(model: nnx.Module) -> None:
    """Put XLA's own convolutions in the place of `convolution`, for a GPU.

    On an H100, JAX 0.11.2 compiled the products that CPUs like for four times as long, and to a wrong program: float64
    gradients off by as much as their largest value.
    """
    for _, part in nnx.iter_graph(model):
        if isinstance(part, nnx.Conv):
            part.conv_general_dilated = jax.lax.conv_general_dilated


def dense(into: int, out: int, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A dense layer that computes in that dtype."""
    stored = parameter_dtype(dtype)
    return nnx.Linear(into, out, dtype=dtype, param_dtype=stored, kernel_init=zeros, bias_init=zeros, rngs=rngs)


class BatchNorm(nnx.Module):
    """Batch norm that stores the unbiased running variance; Flax's own stores the biased one."""

    def __init__(self, channels: int, settings: spec.BatchNorm, dtype: jnp.dtype) -> None:
        self.settings = settings
        dtype = parameter_dtype(dtype)
        self.use_running_average = True
        self.scale = nnx.Param(zeros(None, (channels,), dtype)) if settings.affine else None
        self.bias = nnx.Param(zeros(None, (channels,), dtype)) if settings.affine else None
        self.mean = nnx.BatchStat(zeros(None, (channels,), dtype))
        self.var = nnx.BatchStat(zeros(None, (channels,), dtype))

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
        inverse_std = 1 / jnp.sqrt(var + self.settings.epsilon)
        if self.settings.affine:
            x = (x - mean) * (self.scale[...] * inverse_std) + self.bias[...]
        else:
            x = (x - mean) * inverse_std
        return x.astype(computed)


class Dropout(nnx.Dropout):
    """Dropout that can be told what to keep; else the model's generator decides."""

    def __call__(self, x: jax.Array, kept: jax.Array | None = None) -> jax.Array:
        return super().__call__(x) if kept is None else x * kept / (1 - self.rate)


class Network(nnx.Module):
    """A network of a `spec.Config`, with the initial parameters of `spec.init_params(config, seed)`.

    In training mode (``model.train()``) the auxiliary heads run as well, where there are some. A new model is in
    inference mode. Dropout keeps what `masks` says (see `spec.dropout_masks`), or draws from a generator of the model's
    own.

    Args:
        config: From `spec.preset`.
        dtype: ``float32``, ``float64``, or ``bfloat16``: to compute in; the parameters are then float32.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters, and of dropout.

    Raises:
        spec.InvalidInput: for a device that is not there, an unknown dtype, or a network of the other kind.
    """

    takes: type[spec.Config]

    def __init__(self, config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> None:
        if not isinstance(config, self.takes):
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        self.config = config
        self.deterministic = True  # false in training mode: `train()` sets it, as it does in every dropout
        self.dtype = select_dtype(dtype)
        self.stored_dtype = parameter_dtype(self.dtype)
        self.add_layers(dtype=self.dtype, rngs=nnx.Rngs(seed))
        self.device = select_device(device)
        if self.device.platform != "cpu":
            leave_to_xla(self)
        nnx.update(self, jax.device_put(nnx.state(self), self.device))  # dropout's generators too
        load_params(self, spec.init_params(config, seed))

    def add_layers(self, *, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        """Make every layer that has weights or drops, by its canonical name."""
        raise NotImplementedError

    def layers(self, masks: Mapping[str, jax.Array] | None = None) -> list[tuple[str, Layer]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        raise NotImplementedError

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
        ends = {name: y.astype(x.dtype) for name, y in stages if name in ("aux1", "aux2", self.config.logits)}
        return spec.Outputs(ends[self.config.logits], ends.get("aux1"), ends.get("aux2"))
