"""Optimizers in JAX: those of `spec.optimizers`, and their state by canonical name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import spec
from googlenet_jax.network import Network
from googlenet_jax.params import canonical_name, to_canonical, to_jax

_SLOTS = {"trace": "momentum", "mu": "m", "nu": "v", "average": "average"}  # optax's: canonical


def make_optimizer(model: Network, optimizer: spec.Optimizer) -> nnx.Optimizer:
    """Optax's optimizer for one of `spec.optimizers`; its SGD, Adam and AdamW are the textbook's."""
    native = nnx.Optimizer(model, _transform(optimizer, model.stored_dtype), wrt=nnx.Param)
    native.textbook = optimizer
    # On the device from the start: the step would be compiled again when its own results come back from there.
    nnx.update(native, jax.device_put(nnx.state(native), model.device))
    return native


@cache
def _transform(optimizer: spec.Optimizer, dtype: jnp.dtype) -> optax.GradientTransformation:
    """One object for equal settings: to JAX another one would be another program, to be compiled again."""

    def build(learning_rate: jax.Array) -> optax.GradientTransformation:
        steps = [] if optimizer.clip_value is None else [optax.clip(optimizer.clip_value)]
        steps += [] if optimizer.clip_norm is None else [optax.clip_by_global_norm(optimizer.clip_norm)]
        if isinstance(optimizer, spec.SGD | spec.RMSProp):
            steps.append(optax.add_decayed_weights(optimizer.weight_decay, _decayed))
        if isinstance(optimizer, spec.SGD):
            steps.append(optax.sgd(learning_rate, optimizer.momentum or None, optimizer.nesterov))
        elif isinstance(optimizer, spec.RMSProp):
            steps.append(optax.scale_by_rms(optimizer.decay, optimizer.epsilon, initial_scale=1.0))
            steps.append(optax.scale_by_learning_rate(learning_rate, flip_sign=False))
            steps += [optax.trace(optimizer.momentum)] if optimizer.momentum else []
            steps.append(optax.scale(-1.0))  # last, or the buffer would have the other sign
        elif isinstance(optimizer, spec.AdamW):
            settings = (optimizer.beta1, optimizer.beta2, optimizer.epsilon)
            steps.append(optax.adamw(learning_rate, *settings, weight_decay=optimizer.weight_decay, mask=_decayed))
        else:
            steps.append(optax.adam(learning_rate, optimizer.beta1, optimizer.beta2, optimizer.epsilon))
        steps += [] if optimizer.average is None else [_averaging(optimizer.average)]
        return optax.chain(*steps)

    # The rate alone is a number on the device, which may change from step to step without compiling anew.
    made = optax.inject_hyperparams(build, hyperparam_dtype=dtype)(learning_rate=optimizer.rate)
    return made._replace(init=jax.jit(made.init))  # one program for all zeros; alone each shape would be one


class _Averaged(NamedTuple):
    """The state of `_averaging`."""

    count: jax.Array  # steps
    average: nnx.State  # like the parameters


def _averaging(decay: float) -> optax.GradientTransformation:
    """Keeps a running average of the parameters, which the steps before it have moved; changes no update."""

    def init(params: nnx.State) -> _Averaged:
        return _Averaged(jnp.zeros([], jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: nnx.State, state: _Averaged, params: nnx.State) -> tuple[nnx.State, _Averaged]:
        count = state.count + 1
        t = count.astype(float)  # or int32 would make the quotient a float32
        share = 1 - jnp.minimum(decay, (1 + t) / (10 + t))  # `spec.averaging_decay`
        moved = optax.apply_updates(params, updates)
        return updates, _Averaged(count, optax.incremental_update(moved, state.average, share))

    return optax.GradientTransformation(init, update)


def _decayed(params: nnx.State) -> nnx.State:
    return nnx.map_state(lambda path, _: spec.is_decayed(canonical_name(path)), params)


def set_rate(optimizer: nnx.Optimizer, rate: float) -> None:
    """The rate of the steps to come."""
    variable = optimizer.opt_state.hyperparams["learning_rate"]
    (old,) = jax.tree.leaves(variable)  # `variable[...]` is another program to run
    variable[...] = jax.device_put(np.asarray(rate, old.dtype), old.sharding)


def dump_optimizer(model: Network, optimizer: nnx.Optimizer) -> dict[str, spec.Array]:
    """New canonical arrays with the optimizer's state, as `spec.state_shapes` says, also before the first step."""
    arrays = {}
    for name, variable in _variables(optimizer):
        value = variable[...]
        arrays[name] = np.array(float(value)) if name == "t" else to_canonical(value)
    return {name: arrays[name] for name in spec.state_shapes(model.config, optimizer.textbook.slots)}


def load_optimizer(model: Network, optimizer: nnx.Optimizer, state: spec.Arrays) -> None:
    """Copy canonical arrays into the optimizer, converting to the model's dtype.

    Raises:
        spec.InvalidInput: naming every array that is missing, unexpected or misshapen; nothing is then changed.
    """
    spec.check_state(model.config, optimizer.textbook.slots, state)
    for name, variable in _variables(optimizer):
        value = np.array(to_jax(state[name]), variable[...].dtype)  # a copy: JAX may share memory with NumPy
        variable[...] = jax.device_put(value, model.device)


def _variables(optimizer: nnx.Optimizer) -> Iterator[tuple[str, nnx.Variable]]:
    """Canonical name and variable of every array of the state."""
    for path, variable in nnx.iter_graph(optimizer.opt_state):
        if not isinstance(variable, nnx.Variable):
            continue
        for i, part in enumerate(path):
            if part in _SLOTS:
                yield f"{_SLOTS[part]}/{canonical_name(path[i + 1 :])}", variable
        if path[-1] == "count" and len(path) > 1:  # Adam's, the average's; the first one counts for the rate
            yield "t", variable
