"""One optimizer step, as equations and as NumPy: what each framework's optimizer must reproduce.

Gradients are those of the mean loss. `state` starts as an empty dict and belongs to one run; `update` returns new
arrays and changes nothing but `state`. Running statistics are not trained and must not be passed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spec.arrays import Array, Arrays

State = dict[str, dict[str, Array]]


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, the rate outside the buffer.

        b <- momentum · b + g          (b starts at 0)
        w <- w - rate · b

    Source: Sutskever et al. 2013 in the form that PyTorch and optax compute. MXNet and Caffe keep the rate inside
    the buffer, which is another method as soon as the rate changes.
    """

    rate: float = 0.1
    momentum: float = 0.9

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        new = {}
        for name, g in grads.items():
            slots = state.setdefault(name, {"momentum": np.zeros_like(g)})
            slots["momentum"] = self.momentum * slots["momentum"] + g
            new[name] = params[name] - self.rate * slots["momentum"]
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

    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        new = {}
        for name, g in grads.items():
            slots = state.setdefault(name, {"t": np.zeros(()), "m": np.zeros_like(g), "v": np.zeros_like(g)})
            slots["t"] = slots["t"] + 1
            t = float(slots["t"])
            slots["m"] = m = self.beta1 * slots["m"] + (1 - self.beta1) * g
            slots["v"] = v = self.beta2 * slots["v"] + (1 - self.beta2) * g**2
            step = (m / (1 - self.beta1**t)) / (np.sqrt(v / (1 - self.beta2**t)) + self.epsilon)
            new[name] = params[name] - self.rate * step
        return new


Optimizer = SGD | Adam
