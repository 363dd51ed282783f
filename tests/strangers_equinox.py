"""The small GoogLeNet of `stranger_table` as a stranger writes it in Equinox: one image at a time, no LRN, no heads."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from stranger_table import WIDTHS


class Block(eqx.Module):
    """Four branches."""

    one: nn.Conv2d
    three: tuple[nn.Conv2d, nn.Conv2d]
    five: tuple[nn.Conv2d, nn.Conv2d]
    proj: nn.Conv2d
    pool: nn.MaxPool2d
    mistake: str = eqx.field(static=True)

    def __init__(self, into: int, widths: tuple[int, ...], mistake: str, key: jax.Array) -> None:
        one, reduce3, three, reduce5, five, proj = widths
        keys = jax.random.split(key, 6)
        self.one = nn.Conv2d(into, one, 1, key=keys[0])
        self.three = nn.Conv2d(into, reduce3, 1, key=keys[1]), nn.Conv2d(reduce3, three, 3, padding=1, key=keys[2])
        self.five = nn.Conv2d(into, reduce5, 1, key=keys[3]), nn.Conv2d(reduce5, five, 5, padding=2, key=keys[4])
        self.proj = nn.Conv2d(into, proj, 1, key=keys[5])
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.mistake = mistake

    def __call__(self, x: jax.Array) -> jax.Array:
        relu = jax.nn.relu
        one = self.one(x) if self.mistake == "no-relu-branch" else relu(self.one(x))
        three, five = (relu(conv(relu(reduce(x)))) for reduce, conv in (self.three, self.five))
        return jnp.concatenate([one, three, five, relu(self.proj(self.pool(x)))])


class Stranger(eqx.Module):
    """The network; `mistake` names one."""

    conv1: nn.Conv2d
    reduce: nn.Conv2d
    conv2: nn.Conv2d
    blocks: list[Block]
    pool: nn.MaxPool2d
    drop: nn.Dropout
    fc: nn.Linear

    def __init__(self, mistake: str = "", *, key: jax.Array) -> None:
        keys = jax.random.split(key, 8)
        first = ((2, 3), (2, 3)) if mistake == "pad" else 3
        self.conv1 = nn.Conv2d(3, 8, 7, 2, padding=first, key=keys[0])
        self.reduce = nn.Conv2d(8, 8, 1, key=keys[1])
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, key=keys[2])
        self.blocks, into = [], 12
        for widths, each in zip(WIDTHS.values(), keys[3:7], strict=True):
            self.blocks.append(Block(into, widths, mistake, each))
            into = sum(widths[i] for i in (0, 2, 4, 5))
        self.pool = nn.MaxPool2d(3, 2, use_ceil=mistake != "floor")
        self.drop = nn.Dropout(0.4)
        self.fc = nn.Linear(into, 10, key=keys[7])

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        x = self.pool(jax.nn.relu(self.conv1(x)))
        x = self.pool(jax.nn.relu(self.conv2(jax.nn.relu(self.reduce(x)))))
        for block in self.blocks:
            x = block(x)
        return self.fc(self.drop(x.mean((1, 2)), key=key))


class Normed(eqx.Module):
    """A convolution, batch norm, whose statistics are in a state, dropout and a dense layer."""

    conv: nn.Conv2d
    norm: nn.BatchNorm
    drop: nn.Dropout
    fc: nn.Linear

    def __init__(self, mode: str = "batch", *, key: jax.Array) -> None:
        self.conv = nn.Conv2d(3, 4, 3, key=key)
        self.norm = nn.BatchNorm(4, "images", eps=1e-3, momentum=0.8, mode=mode)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(4, 10, key=key)

    def __call__(self, x: jax.Array, state: nn.State, *, key: jax.Array) -> tuple[jax.Array, nn.State]:
        x, state = self.norm(self.conv(x), state)
        return self.fc(self.drop(x.mean((1, 2)), key=key)), state
