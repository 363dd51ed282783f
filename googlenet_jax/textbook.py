"""GoogLeNet as published notebooks write it in Flax, every default left as it is.

The benchmark times it beside `googlenet_jax`. Functions that are missing here are the package's.

Source: Dive into Deep Learning, section 8.4 (GoogLeNet), here in Flax NNX, with the padding of its other translations.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import spec
from googlenet_jax.device import select_device, select_dtype, select_precision
from googlenet_jax.params import canonical_name, to_canonical, to_jax
from googlenet_jax.train import images_to_device, to_device
from harness.backends.textbook import block_widths, check_config, check_optimizer
from harness.weights.names import SCHEMES, foreign, rename

_SCHEME = SCHEMES["d2l-sequential"]


class Inception(nnx.Module):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, into: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int, conv: partial) -> None:
        self.p1_1 = conv(into, c1, (1, 1))
        self.p2_1 = conv(into, c2[0], (1, 1))
        self.p2_2 = conv(c2[0], c2[1], (3, 3), padding=1)
        self.p3_1 = conv(into, c3[0], (1, 1))
        self.p3_2 = conv(c3[0], c3[1], (5, 5), padding=2)
        self.p4_2 = conv(into, c4, (1, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        b1 = nnx.relu(self.p1_1(x))
        b2 = nnx.relu(self.p2_2(nnx.relu(self.p2_1(x))))
        b3 = nnx.relu(self.p3_2(nnx.relu(self.p3_1(x))))
        b4 = nnx.relu(self.p4_2(nnx.max_pool(x, (3, 3), strides=(1, 1), padding=((1, 1), (1, 1)))))
        return jnp.concatenate((b1, b2, b3, b4), axis=-1)


class GoogLeNet(nnx.Sequential):
    """The notebooks' network with those parameters.

    Raises:
        spec.InvalidInput: for another network or dtype, parameters that do not fit, or a device that is not there.
    """

    def __init__(self, config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> None:
        check_config(config, dtype)
        self.device = select_device(device)
        how = {"dtype": select_dtype(dtype), "param_dtype": select_dtype(dtype), "rngs": nnx.Rngs(0)}
        how["precision"] = select_precision(dtype, self.device)
        conv = partial(nnx.Conv, **how)
        nodes = spec.nodes(config)
        pool = partial(nnx.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

        def inception(name: str) -> Inception:
            return Inception(nodes[f"{name}.branch1x1"].in_channels, *block_widths(nodes, name), conv)

        b1 = nnx.Sequential(conv(config.in_channels, 64, (7, 7), strides=2, padding=3), nnx.relu, pool)
        b2 = nnx.Sequential(conv(64, 64, (1, 1)), nnx.relu, conv(64, 192, (3, 3), padding=1), nnx.relu, pool)
        b3 = nnx.Sequential(*map(inception, ("inception3a", "inception3b")), pool)
        b4 = nnx.Sequential(*(inception(f"inception4{letter}") for letter in "abcde"), pool)
        b5 = nnx.Sequential(*map(inception, ("inception5a", "inception5b")), lambda x: x.mean(axis=(1, 2)))
        super().__init__(b1, b2, b3, b4, b5, nnx.Linear(1024, config.num_classes, **how))
        self.config = config
        variables = _by_textbook_name(nnx.state(self, nnx.Param))
        for name, x in foreign(params, _SCHEME, config).items():
            value = np.array(to_jax(x), self.stored_dtype)  # a copy: JAX may share memory with NumPy
            variables[name][...] = jax.device_put(value, self.device)

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The parameters' dtype."""
        return self.layers[5].kernel[...].dtype


build = GoogLeNet


def _by_textbook_name(state: nnx.State) -> dict[str, nnx.Variable]:
    return {
        canonical_name(tuple(str(part) for part in path if part != "layers")): variable
        for path, variable in nnx.to_flat_state(state)
    }


def _canonical(model: GoogLeNet, state: nnx.State) -> dict[str, spec.Array]:
    """Arrays by canonical name: the parameters, or their gradients."""
    arrays = {name: to_canonical(variable[...]) for name, variable in _by_textbook_name(state).items()}
    return rename(arrays, _SCHEME, model.config)


def dump_params(model: GoogLeNet) -> dict[str, spec.Array]:
    """Like `googlenet_jax.dump_params`."""
    return _canonical(model, nnx.state(model, nnx.Param))


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> nnx.Optimizer:
    """Optax's own SGD; any other optimizer is refused."""
    check_optimizer(optimizer)
    return nnx.Optimizer(model, optax.sgd(optimizer.rate), wrt=nnx.Param)


def update(
    model: GoogLeNet, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array, masks: dict[str, jax.Array]
) -> spec.Step:
    """Like `googlenet_jax.update`; without dropout `masks` is empty."""
    return spec.Step(*_step(model, optimizer, x, y))


@nnx.jit
def _step(model: GoogLeNet, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    (loss, logits), grads = nnx.value_and_grad(_loss, has_aux=True)(model, x, y)
    optimizer.update(model, grads)
    return loss, (logits.argmax(-1) == y).sum()


def _loss(model: GoogLeNet, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits = model(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """Like `googlenet_jax.loss_and_grads`."""
    (loss, _), grads = _value_and_grads(model, *to_device(model, images, labels))
    return float(loss), _canonical(model, grads)


_value_and_grads = nnx.jit(nnx.value_and_grad(_loss, has_aux=True))


@nnx.jit
def _logits(model: GoogLeNet, x: jax.Array) -> jax.Array:
    return model(x)


def predictor(model: GoogLeNet, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The compiled network, for images of any size."""
    return partial(_logits, model)


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """Like `googlenet_jax.predict`."""
    return np.array(_logits(model, images_to_device(model, images)))
