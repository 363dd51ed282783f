"""The small GoogLeNet of `strangers`, without its heads and norms, as a stranger writes it in Flax NNX."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import strangers
from flax import nnx

import spec
from spec.network import LRN

_BLOCKS = ((12, (4, 3, 5, 2, 6, 3)), (18, (5, 4, 6, 3, 4, 4)), (19, (6, 5, 7, 4, 8, 5)), (26, (7, 5, 8, 4, 5, 6)))


def small() -> spec.Config:
    """Its table."""
    config = strangers.small(aux=False)
    return replace(config, table=tuple((name, part) for name, part in config.table if not isinstance(part, LRN)))


class Block(nnx.Module):
    """Four branches."""

    def __init__(self, into: int, widths: tuple[int, ...], rngs: nnx.Rngs) -> None:
        one, reduce3, three, reduce5, five, proj = widths
        self.one = nnx.Conv(into, one, (1, 1), rngs=rngs)
        self.reduce3, self.three = (
            nnx.Conv(into, reduce3, (1, 1), rngs=rngs),
            nnx.Conv(reduce3, three, (3, 3), rngs=rngs),
        )
        self.reduce5, self.five = nnx.Conv(into, reduce5, (1, 1), rngs=rngs), nnx.Conv(reduce5, five, (5, 5), rngs=rngs)
        self.proj = nnx.Conv(into, proj, (1, 1), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        three = nnx.relu(self.three(nnx.relu(self.reduce3(x))))
        five = nnx.relu(self.five(nnx.relu(self.reduce5(x))))
        pooled = nnx.relu(self.proj(nnx.max_pool(x, (3, 3), (1, 1), "SAME")))
        return jnp.concatenate([nnx.relu(self.one(x)), three, five, pooled], axis=-1)


class Stranger(nnx.Module):
    """The network; `mistake` names one."""

    def __init__(self, mistake: str = "", *, rngs: nnx.Rngs) -> None:
        self.mistake = mistake
        padding = "SAME" if mistake == "same" else [(3, 3), (3, 3)]
        self.conv1 = nnx.Conv(3, 8, (7, 7), (2, 2), padding=padding, rngs=rngs)
        self.norm = nnx.BatchNorm(8, epsilon=1e-3, rngs=rngs) if mistake == "norm" else None
        self.reduce, self.conv2 = nnx.Conv(8, 8, (1, 1), rngs=rngs), nnx.Conv(8, 12, (3, 3), padding=1, rngs=rngs)
        self.blocks = nnx.List([Block(into, widths, rngs) for into, widths in _BLOCKS])
        self.drop = nnx.Dropout(0.4, rngs=rngs)
        self.fc = nnx.Linear(26, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv1(x)
        x = nnx.relu(x if self.norm is None else self.norm(x))
        x = nnx.max_pool(x, (3, 3), (2, 2), "SAME")
        x = self.conv2(nnx.relu(self.reduce(x)))
        x = nnx.max_pool(x if self.mistake == "no-relu" else nnx.relu(x), (3, 3), (2, 2), "SAME")
        for block in self.blocks:
            x = block(x)
        if self.mistake == "odd":
            x = jnp.sin(x)
        return self.fc(self.drop(jnp.mean(x, axis=(1, 2))))
