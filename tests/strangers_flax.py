"""The small GoogLeNet as strangers write it in Flax: in NNX without its heads, in linen with batch norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen, nnx
from stranger_table import WIDTHS

_INTO = (12, 18, 19, 26)


def ceil_pool(x: jax.Array) -> jax.Array:
    """3 x 3 maxima with stride 2, the last window over the edge where the size is even."""
    over = [(0, (n - 3) % 2) for n in x.shape[1:3]]
    return nnx.max_pool(x, (3, 3), (2, 2), over)


def lrn(x: jax.Array, alpha: float) -> jax.Array:
    """Local response normalization over five channels, which Flax has none of."""
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x / (1.0 + alpha / 5 * total) ** 0.75


class Block(nnx.Module):
    """Four branches."""

    def __init__(self, into: int, widths: tuple[int, ...], rngs: nnx.Rngs) -> None:
        one, reduce3, three, reduce5, five, proj = widths
        self.one = nnx.Conv(into, one, (1, 1), rngs=rngs)
        self.reduce3 = nnx.Conv(into, reduce3, (1, 1), rngs=rngs)
        self.three = nnx.Conv(reduce3, three, (3, 3), rngs=rngs)
        self.reduce5 = nnx.Conv(into, reduce5, (1, 1), rngs=rngs)
        self.five = nnx.Conv(reduce5, five, (5, 5), rngs=rngs)
        self.proj = nnx.Conv(into, proj, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        three = nnx.relu(self.three(nnx.relu(self.reduce3(x))))
        five = nnx.relu(self.five(nnx.relu(self.reduce5(x))))
        pooled = nnx.relu(self.proj(nnx.max_pool(x, (3, 3), (1, 1), "SAME")))
        return jnp.concatenate([nnx.relu(self.one(x)), three, five, pooled], axis=-1)


class Stranger(nnx.Module):
    """The network in NNX; `mistake` names one."""

    def __init__(self, mistake: str = "", *, rngs: nnx.Rngs) -> None:
        self.mistake = mistake
        padding = "SAME" if mistake == "same-conv" else [(3, 3), (3, 3)]
        self.conv1 = nnx.Conv(3, 8, (7, 7), (2, 2), padding=padding, rngs=rngs)
        self.reduce, self.conv2 = nnx.Conv(8, 8, (1, 1), rngs=rngs), nnx.Conv(8, 12, (3, 3), padding=1, rngs=rngs)
        rows = zip(_INTO, WIDTHS.values(), strict=True)
        self.blocks = nnx.List([Block(into, widths, rngs) for into, widths in rows])
        self.drop = nnx.Dropout(0.4, rngs=rngs)
        self.fc = nnx.Linear(26, 10, rngs=rngs)

    def pool(self, x: jax.Array) -> jax.Array:
        """The pools of the stem."""
        return nnx.max_pool(x, (3, 3), (2, 2), "SAME") if self.mistake == "same-pool" else ceil_pool(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.pool(nnx.relu(self.conv1(x)))
        alpha = 5e-4 if self.mistake == "lrn-alpha" else 1e-4
        x = self.conv2(nnx.relu(self.reduce(lrn(x, alpha))))
        x = self.pool(lrn(x if self.mistake == "no-relu" else nnx.relu(x), alpha))
        for block in self.blocks:
            x = block(x)
        if self.mistake == "odd":
            x = jnp.sin(x)
        x = self.fc(self.drop(jnp.mean(x, axis=(1, 2))))
        return jax.nn.softmax(x) if self.mistake == "softmax" else x


class LeNet(nnx.Module):
    """LeNet in NNX; one mistake is that the map is laid out as it is, with the channels last."""

    def __init__(self, mistake: str = "", *, rngs: nnx.Rngs) -> None:
        self.mistake = mistake
        self.conv1, self.conv2 = (
            nnx.Conv(1, 6, (5, 5), padding=0, rngs=rngs),
            nnx.Conv(6, 16, (5, 5), padding=0, rngs=rngs),
        )
        self.dense = nnx.List([nnx.Linear(into, out, rngs=rngs) for into, out in ((256, 120), (120, 84), (84, 10))])

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.sigmoid(conv(x)), (2, 2), (2, 2))
        x = x if self.mistake == "flatten" else x.transpose(0, 3, 1, 2)
        x = x.reshape(len(x), -1)
        for dense in self.dense[:-1]:
            x = nnx.sigmoid(dense(x))
        return self.dense[-1](x)


class LinenConv(linen.Module):
    """Convolution, batch norm and ReLU."""

    channels: int
    kernel: int
    mistake: str
    stride: int = 1

    @linen.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        pad = self.kernel // 2
        x = linen.Conv(self.channels, (self.kernel,) * 2, self.stride, padding=pad, use_bias=False)(x)
        epsilon = 1e-5 if self.mistake == "epsilon" else 1e-3
        momentum = 0.99 if self.mistake == "momentum" else 0.9  # 0.99 is Flax's own
        x = linen.BatchNorm(use_running_average=not train, epsilon=epsilon, momentum=momentum)(x)
        return linen.relu(x)


class LinenBlock(linen.Module):
    """Four branches."""

    widths: tuple[int, ...]
    mistake: str

    @linen.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        def conv(x: jax.Array, channels: int, kernel: int) -> jax.Array:
            return LinenConv(channels, kernel, self.mistake)(x, train=train)

        one, reduce3, three, reduce5, five, proj = self.widths
        if self.mistake == "block-average":
            pooled = linen.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
        else:
            pooled = linen.max_pool(x, (3, 3), (1, 1), "SAME")
        pooled = x if self.mistake == "pool-unused" else pooled
        parts = [conv(x, one, 1), conv(conv(x, reduce3, 1), three, 3), conv(conv(x, reduce5, 1), five, 5)]
        return jnp.concatenate([*parts, conv(pooled, proj, 1)], axis=-1)


class Linen(linen.Module):
    """The network in linen; `mistake` names one."""

    mistake: str = ""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        def conv(x: jax.Array, channels: int, kernel: int, stride: int = 1) -> jax.Array:
            return LinenConv(channels, kernel, self.mistake, stride)(x, train=train)

        x = ceil_pool(conv(x, 8, 7, 2))
        x = ceil_pool(conv(conv(x, 8, 1), 12, 3))
        for widths in WIDTHS.values():
            x = LinenBlock(widths, self.mistake)(x, train=train)
        x = linen.Dropout(0.4, deterministic=not train)(x.mean((1, 2)))
        return linen.Dense(10)(x)


class NormedNnx(nnx.Module):
    """A convolution, batch norm, dropout and a dense layer in NNX."""

    def __init__(self, *, fast: bool = True, rngs: nnx.Rngs) -> None:
        self.conv, self.fc = nnx.Conv(3, 4, (3, 3), padding=0, rngs=rngs), nnx.Linear(4, 10, rngs=rngs)
        self.norm = nnx.BatchNorm(4, epsilon=1e-3, momentum=0.8, use_fast_variance=fast, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc(self.drop(self.norm(self.conv(x)).mean((1, 2))))


class CalledNnx(NormedNnx):
    """One whose random numbers come with the call."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        super().__init__(rngs=rngs)
        self.drop = nnx.Dropout(0.3)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        return self.fc(self.drop(self.norm(self.conv(x)).mean((1, 2)), rngs=rngs))


class NormedLinen(linen.Module):
    """The same in linen."""

    fast: bool = True

    @linen.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        settings = {"epsilon": 1e-3, "momentum": 0.8, "use_fast_variance": self.fast}
        x = linen.BatchNorm(deterministic, **settings)(linen.Conv(4, (3, 3), padding="VALID")(x))
        return linen.Dense(10)(linen.Dropout(0.3)(x.mean((1, 2)), deterministic=deterministic))


class FieldLinen(linen.Module):
    """One whose field says what it is for."""

    train: bool = False

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.BatchNorm(not self.train, epsilon=1e-3, momentum=0.8)(linen.Conv(4, (3, 3), padding="VALID")(x))
        return linen.Dense(10)(linen.Dropout(0.3, deterministic=not self.train)(x.mean((1, 2))))


class NamedLeNet(nnx.Module):
    """LeNet in NNX, whose layers have the canonical names."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=0, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding=0, rngs=rngs)
        self.fc3, self.fc4 = nnx.Linear(256, 120, rngs=rngs), nnx.Linear(120, 84, rngs=rngs)
        self.fc5 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.sigmoid(conv(x)), (2, 2), (2, 2))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        return self.fc5(nnx.sigmoid(self.fc4(nnx.sigmoid(self.fc3(x)))))


class NormedLeNet(linen.Module):
    """LeNet with batch norm in linen, with one momentum that nobody has said, and one dropout too many; or right."""

    right: bool = False

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        for channels, momentum in ((6, 0.9 if self.right else 0.99), (16, 0.9)):
            x = linen.Conv(channels, (5, 5), padding="VALID")(x)
            x = linen.BatchNorm(use_running_average=not train, momentum=momentum)(x)
            x = linen.max_pool(linen.sigmoid(x), (2, 2), (2, 2))
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        for channels in (120, 84):
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(channels)(x))
            x = linen.sigmoid(x)
        return linen.Dense(10)(x if self.right else linen.Dropout(0.5, deterministic=not train)(x))
