"""Optimizers in MXNet: those of `spec.optimizers`, and their state by canonical name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import mxnet as mx
import numpy as np
from mxnet import gluon, nd

import spec
from googlenet_mx.network import Network
from googlenet_mx.params import named_parameters


class Textbook(mx.optimizer.Optimizer):
    """One of `spec.optimizers`, for one array at a time; the state is a tuple of its slots."""

    def __init__(self, textbook: spec.Optimizer) -> None:
        super().__init__(learning_rate=textbook.rate, wd=getattr(textbook, "weight_decay", 0.0))
        self.textbook = textbook

    def create_state(self, index: int, weight: nd.NDArray) -> tuple[nd.NDArray, ...]:
        """The slots, as they are before the first step."""
        values = [self.textbook.begin(slot, weight.asnumpy()) for slot in _arrays(self.textbook.slots)]
        return tuple(nd.array(value, weight.context, weight.dtype) for value in values)

    def update(self, index: int, weight: nd.NDArray, grad: nd.NDArray, state: tuple) -> None:
        """One step for one array, in place."""
        self._update_count(index)
        t = self._index_update_count[index]
        if self.textbook.average is None:
            self.move(weight, grad, state, self._get_wd(index), t)
        else:
            *own, average = state
            self.move(weight, grad, own, self._get_wd(index), t)
            d = spec.averaging_decay(self.textbook.average, t)
            average *= d
            average += (1 - d) * weight

    def move(self, weight: nd.NDArray, grad: nd.NDArray, state: Sequence[nd.NDArray], decay: float, t: int) -> None:
        """The optimizer's own step, number `t` (from 1)."""
        raise NotImplementedError


class TextbookSGD(Textbook):
    """`spec.SGD`. MXNet's own keeps the rate inside the momentum buffer, and rounds settings to float32."""

    def move(self, weight: nd.NDArray, grad: nd.NDArray, state: Sequence[nd.NDArray], decay: float, t: int) -> None:
        """The optimizer's own step, number `t` (from 1)."""
        mu = self.textbook.momentum
        if decay:
            grad = grad + decay * weight
        for buffer in state:
            buffer *= mu
            buffer += grad
            grad = grad + mu * buffer if self.textbook.nesterov else buffer
        if weight.dtype == np.float32:  # in one operation; it would round the rate of float64
            nd.sgd_update(weight, grad, lr=self.learning_rate, wd=0, out=weight)
        else:
            weight -= self.learning_rate * grad


class TextbookRMSProp(Textbook):
    """`spec.RMSProp`. MXNet's own begins with v = 0, has no momentum unless centered, and refuses float64."""

    def move(self, weight: nd.NDArray, grad: nd.NDArray, state: Sequence[nd.NDArray], decay: float, t: int) -> None:
        """The optimizer's own step, number `t` (from 1)."""
        v, *buffers = state
        if decay:
            grad = grad + decay * weight
        v *= self.textbook.decay
        v += (1 - self.textbook.decay) * nd.square(grad)
        step = self.learning_rate * grad / nd.sqrt(v + self.textbook.epsilon)
        for buffer in buffers:
            buffer *= self.textbook.momentum
            buffer += step
            step = buffer
        weight -= step


class TextbookAdam(Textbook):
    """`spec.Adam` and `spec.AdamW`. MXNet's own leaves epsilon out of the bias correction, and rounds settings."""

    def __init__(self, textbook: spec.Adam) -> None:
        super().__init__(textbook)
        self._spare: dict[tuple[int, ...], nd.NDArray] = {}

    def move(self, weight: nd.NDArray, grad: nd.NDArray, state: Sequence[nd.NDArray], decay: float, t: int) -> None:
        """The optimizer's own step, number `t` (from 1)."""
        textbook, rate = self.textbook, self.learning_rate
        if decay:
            weight *= 1 - rate * decay
        fused = weight.dtype == np.float32  # MXNet's own then, with the epsilon that makes it the textbook's
        beta1, beta2 = (float(np.float32(beta)) if fused else beta for beta in (textbook.beta1, textbook.beta2))
        root = math.sqrt(1 - beta2**t)  # numerator and denominator of the textbook's fraction times this
        settings = {
            "lr": rate * root / (1 - beta1**t),
            "beta1": beta1,
            "beta2": beta2,
            "epsilon": textbook.epsilon * root,
        }
        step = nd.adam_update if fused else self._step
        step(weight, grad, *state, **settings, out=weight)

    def _step(self, w, grad, m, v, *, lr: float, beta1: float, beta2: float, epsilon: float, out) -> None:
        """MXNet's `adam_update` for float64: that one rounds its settings to float32. It is four times as fast.

        Every intermediate result has the same memory: new memory for each doubles the time of this.
        """
        if w.shape not in self._spare:
            self._spare[w.shape] = nd.zeros_like(w)
        x = self._spare[w.shape]
        nd.elemwise_sub(grad, m, out=x)
        x *= 1 - beta1
        m += x
        nd.square(grad, out=x)
        nd.elemwise_sub(x, v, out=x)
        x *= 1 - beta2
        v += x
        nd.sqrt(v, out=x)
        x += epsilon
        nd.elemwise_div(m, x, out=x)
        x *= lr
        nd.elemwise_sub(w, x, out=out)


_TEXTBOOKS = {spec.SGD: TextbookSGD, spec.RMSProp: TextbookRMSProp, spec.Adam: TextbookAdam}


def make_optimizer(model: Network, optimizer: spec.Optimizer) -> gluon.Trainer:
    """Gluon's trainer around one of `spec.optimizers`."""
    for name, parameter in named_parameters(model).items():
        parameter.wd_mult = float(spec.is_decayed(name))
    kind = next(kind for row, kind in _TEXTBOOKS.items() if isinstance(optimizer, row))
    return gluon.Trainer(model.collect_params(), kind(optimizer), kvstore=None)


def clip(optimizer: gluon.Trainer) -> None:
    """`spec.optimizers.clip` of the gradients, in place; Gluon's own adds 1e-8 to the norm in the denominator.

    MXNet's operator `clip` rounds its bounds to float32.
    """
    norm, value = optimizer.optimizer.textbook.clip_norm, optimizer.optimizer.textbook.clip_value
    grads = [parameter.grad() for parameter in optimizer._params if parameter.grad_req != "null"]
    if value is not None:
        for grad in grads:
            grad[:] = nd.maximum(nd.minimum(grad, value), -value)
    if norm is not None:
        total = nd.add_n(*[(grad**2).sum() for grad in grads]).sqrt()
        scale = nd.broadcast_minimum(norm / total, nd.ones_like(total))
        for grad in grads:
            grad *= scale


def set_rate(optimizer: gluon.Trainer, rate: float) -> None:
    """The rate of the steps to come."""
    optimizer.set_learning_rate(rate)


def dump_optimizer(model: Network, optimizer: gluon.Trainer) -> dict[str, spec.Array]:
    """New canonical arrays with the optimizer's state, as `spec.state_shapes` says, also before the first step."""
    slots = optimizer.optimizer.textbook.slots
    arrays = {"t": np.array(float(optimizer.optimizer.num_update))}
    for name, native in _states(model, optimizer):
        for slot, x in zip(_arrays(slots), native, strict=True):
            arrays[f"{slot}/{name}"] = x.asnumpy()
    return {name: arrays[name] for name in spec.state_shapes(model.config, slots)}


def load_optimizer(model: Network, optimizer: gluon.Trainer, state: spec.Arrays) -> None:
    """Copy canonical arrays into the optimizer, converting to the model's dtype.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; nothing is then changed.
    """
    native = optimizer.optimizer
    spec.check_state(model.config, native.textbook.slots, state)
    for name, arrays in _states(model, optimizer):
        for slot, x in zip(_arrays(native.textbook.slots), arrays, strict=True):
            x[:] = nd.array(state[f"{slot}/{name}"], dtype=x.dtype)
    if "t" in native.textbook.slots:
        native.num_update = native.begin_num_update = int(state["t"])
        native._index_update_count.clear()  # every array counts on from there


def _arrays(slots: tuple[str, ...]) -> list[str]:
    return [slot for slot in slots if slot != "t"]


def _states(model: Network, optimizer: gluon.Trainer) -> Iterator[tuple[str, tuple[nd.NDArray, ...]]]:
    """Canonical name and slots of every trained array; MXNet makes them in the first step, and here before it."""
    (updater,) = optimizer._updaters
    for name, parameter in named_parameters(model).items():
        if spec.is_statistic(name):
            continue
        index = optimizer._param2idx[parameter.name]
        if index not in updater.states:
            updater.states[index] = optimizer.optimizer.create_state(index, parameter.data())
            updater.states_synced[index] = True
        yield name, updater.states[index]
