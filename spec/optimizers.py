"""One optimizer step, as equations and as NumPy. Each framework's optimizer must reproduce it.

Gradients are those of the mean loss. `Optimizer.update` returns new arrays and changes nothing but `state`, which
starts as an empty dict and belongs to one run. It holds the optimizer's slots, ``SLOT/NAME`` for the array NAME, and
where steps are counted ``t``, the number of them so far. These are the canonical names of an optimizer's state;
`spec.state_shapes` lists them. Running statistics are not trained and must not be passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spec.arrays import Array, Arrays
from spec.network import is_decayed, is_statistic

State = dict[str, Array]


def clip(grads: Arrays, norm: float | None = None, value: float | None = None) -> dict[str, Array]:
    """The gradients, each number brought into `value`'s bounds, then all scaled down where their norm is too large.

        g <- max(-value, min(value, g))
        g <- g · min(1, norm / sqrt(Σ g²))      the norm of all gradients together

    Exactly so: PyTorch's own `clip_grad_norm_` adds 1e-6 to the denominator, Gluon's adds 1e-8.
    """
    if value is not None:
        grads = {name: np.clip(g, -value, value) for name, g in grads.items()}
    if norm is None:
        return dict(grads)
    total = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
    return {name: g * min(1.0, norm / total) for name, g in grads.items()} if total > 0 else dict(grads)


def averaging_decay(average: float, t: int) -> float:
    """The share of the old average in the new one after step `t` (from 1): so young a run has no long memory yet.

    Source: TensorFlow 1's ``ExponentialMovingAverage`` with ``num_updates``, as Inception v3 was trained with.
    """
    return min(average, (1 + t) / (10 + t))


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """What all optimizers share. A step clips the gradients, moves the parameters, and then averages them.

    g <- clip(g)
    w <- the optimizer's own step
    a <- d · a + (1 - d) · w      d = min(average, (1 + t) / (10 + t)), t = 1, 2, …; a starts as w
    """

    rate: float
    clip_norm: float | None = None  # of all gradients together
    clip_value: float | None = None  # of each number
    average: float | None = None  # decay of the parameters' average; None: there is none

    @property
    def slots(self) -> tuple[str, ...]:
        """The arrays that the optimizer keeps for each parameter, by name; before them ``t`` where it counts steps."""
        own = self._own_slots()
        return own if self.average is None else ("t", *(slot for slot in own if slot != "t"), "average")

    def begin(self, slot: str, w: Array) -> Array:
        """What a slot of the parameter `w` holds before the first step."""
        return w.copy() if slot == "average" else np.zeros_like(w)

    def begin_state(self, params: Arrays) -> State:
        """The state of a run before its first step."""
        trained = {name: w for name, w in params.items() if not is_statistic(name)}
        arrays = {f"{slot}/{name}": self.begin(slot, w) for slot in self._arrays() for name, w in trained.items()}
        return ({"t": np.zeros(())} if "t" in self.slots else {}) | arrays

    def update(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        """The parameters after one step."""
        for name in grads:
            for slot in self._arrays():
                if f"{slot}/{name}" not in state:
                    state[f"{slot}/{name}"] = self.begin(slot, params[name])
        if "t" in self.slots:
            state["t"] = np.asarray(state.get("t", np.zeros(())) + 1)
        new = self._step(params, clip(grads, self.clip_norm, self.clip_value), state)
        if self.average is not None:
            d = averaging_decay(self.average, int(state["t"]))
            for name, w in new.items():
                state[f"average/{name}"] = d * state[f"average/{name}"] + (1 - d) * w
        return new

    def _own_slots(self) -> tuple[str, ...]:
        raise NotImplementedError

    def _step(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        raise NotImplementedError

    def _arrays(self) -> Iterator[str]:
        return (slot for slot in self.slots if slot != "t")


def _with_decay(grads: Arrays, params: Arrays, decay: float) -> dict[str, Array]:
    """The gradients of weights with their share of the weights, and the others as they are."""
    return {name: g + decay * params[name] if decay and is_decayed(name) else g for name, g in grads.items()}


@dataclass(frozen=True)
class SGD(Optimizer):
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

    def _own_slots(self) -> tuple[str, ...]:
        return ("momentum",) if self.momentum else ()

    def _step(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        new = {}
        for name, g in _with_decay(grads, params, self.weight_decay).items():
            if self.momentum:
                buffer = self.momentum * state[f"momentum/{name}"] + g
                state[f"momentum/{name}"] = buffer
                g = g + self.momentum * buffer if self.nesterov else buffer
            new[name] = params[name] - self.rate * g
        return new


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """RMSProp, epsilon inside the root, the mean square from 1, the rate inside the momentum buffer.

        g <- g + weight_decay · w                                (weights only: no biases, nothing of batch norm)
        v <- decay · v + (1 - decay) · g²                        (v starts at 1)
        m <- momentum · m + rate · g / sqrt(v + epsilon)         (m starts at 0; without momentum m is the last term)
        w <- w - m

    Source: Tieleman and Hinton 2012 as TensorFlow 1 computes it; the defaults are those of Szegedy et al. 2016, section
    8. PyTorch adds epsilon outside the root, Keras, optax and PyTorch begin with v = 0.
    """

    rate: float = 0.045
    decay: float = 0.9
    momentum: float = 0.0
    epsilon: float = 1.0
    weight_decay: float = 0.0

    def begin(self, slot: str, w: Array) -> Array:
        """What a slot of the parameter `w` holds before the first step."""
        return np.ones_like(w) if slot == "v" else super().begin(slot, w)

    def _own_slots(self) -> tuple[str, ...]:
        return ("v", "momentum") if self.momentum else ("v",)

    def _step(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        new = {}
        for name, g in _with_decay(grads, params, self.weight_decay).items():
            state[f"v/{name}"] = v = self.decay * state[f"v/{name}"] + (1 - self.decay) * g**2
            move = self.rate * g / np.sqrt(v + self.epsilon)
            if self.momentum:
                state[f"momentum/{name}"] = move = self.momentum * state[f"momentum/{name}"] + move
            new[name] = params[name] - move
        return new


@dataclass(frozen=True)
class Adam(Optimizer):
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

    def _own_slots(self) -> tuple[str, ...]:
        return ("t", "m", "v")

    def _step(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        new = {}
        t = int(state["t"])
        for name, g in grads.items():
            state[f"m/{name}"] = m = self.beta1 * state[f"m/{name}"] + (1 - self.beta1) * g
            state[f"v/{name}"] = v = self.beta2 * state[f"v/{name}"] + (1 - self.beta2) * g**2
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

    def _step(self, params: Arrays, grads: Arrays, state: State) -> dict[str, Array]:
        shrink = 1 - self.rate * self.weight_decay
        decayed = {name: w * shrink if is_decayed(name) else w for name, w in params.items()}
        return super()._step(decayed, grads, state)
