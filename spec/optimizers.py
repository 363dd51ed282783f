"""One optimizer step, as equations and as NumPy. Each framework's optimizer must reproduce it.

Gradients are those of the mean loss. `update` returns new arrays and changes nothing but `state`, which starts as an
empty dict and belongs to one run. It holds the optimizer's slots, ``SLOT/NAME`` for the array NAME, and of Adam ``t``,
the number of steps so far. These are the canonical names of an optimizer's state; `spec.state_shapes` lists them.
Running statistics are not trained and must not be passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from spec.arrays import Array, Arrays
from spec.network import is_decayed

State = dict[str, Array]


def clip(grads: Arrays, norm: float | None) -> dict[str, Array]:
    """The gradients, scaled down together where their common Euclidean norm is larger than `norm`.

        g <- g · min(1, norm / sqrt(Σ g²))

    Exactly so: PyTorch's own `clip_grad_norm_` adds 1e-6 to the denominator, Gluon's adds 1e-8.
    """
    if norm is None:
        return dict(grads)
    total = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
    return {name: g * min(1.0, norm / total) for name, g in grads.items()} if total > 0 else dict(grads)


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, the rate outside the buffer.

        g <- g + weight_decay · w      (weights only: no biases, nothing of batch norm)
        b <- momentum · b + g          (b starts at 0; without momentum there is no b)
        w <- w - rate · b              (nesterov: w - rate · (g + momentum · b))

    Source: Sutskever et al. 2013 in the form that PyTorch and optax compute. MXNet and Caffe keep the rate inside
    the buffer, which is another method as soon as the rate changes.
    """

    rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None  # of all gradients together, before anything else

    @property
    def slots(self) -> tuple[str, ...]:
        """The arrays that the optimizer keeps for each parameter, by name."""
        return ("momentum",) if self.momentum else ()

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        new = {}
        for name, g in clip(grads, self.clip_norm).items():
            w = params[name]
            if self.weight_decay and is_decayed(name):
                g = g + self.weight_decay * w
            if self.momentum:
                buffer = self.momentum * state.get(f"momentum/{name}", np.zeros_like(g)) + g
                state[f"momentum/{name}"] = buffer
                g = g + self.momentum * buffer if self.nesterov else buffer
            new[name] = w - self.rate * g
        return new


@dataclass(frozen=True)
class Adam:
    """Adam, epsilon outside the bias-corrected root.

        m <- beta1 · m + (1 - beta1) · g
        v <- beta2 · v + (1 - beta2) · g²
        w <- w - rate · (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)          t = 1, 2, …

    Source: Kingma and Ba 2015, algorithm 1. MXNet and Caffe compute the variant of the paper's section 2, in which
    epsilon weighs 1 / sqrt(1 - beta2^t) times as much: 31.6 times in the first step.
    """

    slots: ClassVar[tuple[str, ...]] = ("t", "m", "v")

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float | None = None  # of all gradients together, before anything else

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        new = {}
        state["t"] = np.asarray(state.get("t", np.zeros(())) + 1)
        t = int(state["t"])
        for name, g in clip(grads, self.clip_norm).items():
            zeros = np.zeros_like(g)
            state[f"m/{name}"] = m = self.beta1 * state.get(f"m/{name}", zeros) + (1 - self.beta1) * g
            state[f"v/{name}"] = v = self.beta2 * state.get(f"v/{name}", zeros) + (1 - self.beta2) * g**2
            step = (m / (1 - self.beta1**t)) / (np.sqrt(v / (1 - self.beta2**t)) + self.epsilon)
            new[name] = params[name] - self.rate * step
        return new


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

        w <- w - rate · weight_decay · w      (weights only: no biases, nothing of batch norm), then as `Adam`

    Source: Loshchilov and Hutter 2019, algorithm 2, with the rate as PyTorch and optax apply it.
    """

    weight_decay: float = 0.01

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        shrink = 1 - self.rate * self.weight_decay
        decayed = {name: w * shrink if is_decayed(name) else w for name, w in params.items()}
        return super().update(decayed, grads, state)


Optimizer = SGD | Adam | AdamW
