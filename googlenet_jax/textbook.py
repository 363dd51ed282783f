"""The network as the published notebooks write it in Flax, with the framework's defaults: what `tuned` is held against.

Only the plain network: no local response normalization, no batch norm, no auxiliary heads, no dropout. It has the
functions of the package that a benchmark needs, and is used in its place.

Source: Dive into Deep Learning, section 8.4 (GoogLeNet), here in Flax NNX, with the padding of its other translations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import spec
from googlenet_jax.device import describe, peak_memory, select_device, select_dtype, wait
from googlenet_jax.params import canonical_name, to_canonical, to_jax
from googlenet_jax.train import images_to_device, to_device
from harness.backends.textbook import block_widths, check_config, check_optimizer
from harness.weights.names import SCHEMES, foreign_names

__all__ = [
    "GoogLeNet",
    "build",
    "describe",
    "dump_params",
    "images_to_device",
    "load_params",
    "loss_and_grads",
    "make_optimizer",
    "peak_memory",
    "predict",
    "predictor",
    "to_device",
    "train_step",
    "update",
    "wait",
]


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
    """The notebooks' GoogLeNet, with those parameters, else `spec.init_params(config, seed)`.

    Args:
        config: From `spec.preset`.
        dtype: ``float32`` or ``float64``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters.

    Raises:
        spec.InvalidInput: for a network that the notebooks do not have, a device that is not there, another dtype.
    """

    def __init__(
        self,
        config: spec.Config,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: spec.Arrays | None = None,
    ) -> None:
        check_config(config, dtype)
        how = {"dtype": select_dtype(dtype), "param_dtype": select_dtype(dtype), "rngs": nnx.Rngs(seed)}
        conv, nodes = partial(nnx.Conv, **how), spec.nodes(config)
        pool = partial(nnx.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

        def inception(name: str) -> Inception:
            first = nodes[f"{name}.branch1x1"]
            return Inception(first.in_channels, *block_widths(nodes, name), conv)

        b1 = nnx.Sequential(conv(config.in_channels, 64, (7, 7), strides=2, padding=3), nnx.relu, pool)
        b2 = nnx.Sequential(conv(64, 64, (1, 1)), nnx.relu, conv(64, 192, (3, 3), padding=1), nnx.relu, pool)
        b3 = nnx.Sequential(*map(inception, ("inception3a", "inception3b")), pool)
        b4 = nnx.Sequential(*(inception(f"inception4{letter}") for letter in "abcde"), pool)
        b5 = nnx.Sequential(*map(inception, ("inception5a", "inception5b")), lambda x: x.mean(axis=(1, 2)))
        super().__init__(b1, b2, b3, b4, b5, nnx.Linear(1024, config.num_classes, **how))
        self.config, self.device = config, select_device(device)
        load_params(self, spec.init_params(config, seed) if params is None else params)

    @property
    def stored_dtype(self) -> jnp.dtype:
        """The parameters'."""
        return self.layers[5].kernel[...].dtype


build = GoogLeNet  # the only network that the textbooks have here


def load_params(model: GoogLeNet, params: spec.Arrays) -> None:
    """As `googlenet_jax.load_params`."""
    spec.check_params(model.config, params)
    for name, variable in _variables(model).items():
        value = np.array(to_jax(params[name]), variable[...].dtype)
        variable[...] = jax.device_put(value, model.device)


def dump_params(model: GoogLeNet) -> dict[str, spec.Array]:
    """As `googlenet_jax.dump_params`."""
    variables = _variables(model)
    return {name: to_canonical(variables[name][...]) for name in spec.param_shapes(model.config)}


def _variables(model: GoogLeNet) -> dict[str, nnx.Param]:
    return _named(model.config, nnx.to_flat_state(nnx.state(model, nnx.Param)))


def _named(config: spec.Config, variables: Iterable[tuple[tuple, nnx.Variable]]) -> dict[str, nnx.Variable]:
    """By canonical name, of pairs of paths and variables."""
    native = {canonical_name(tuple(str(p) for p in path if p != "layers")): variable for path, variable in variables}
    return {name: native[theirs] for name, theirs in foreign_names(SCHEMES["d2l-sequential"], config).items()}


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> nnx.Optimizer:
    """Optax's SGD.

    Raises:
        spec.InvalidInput: for another optimizer than plain SGD.
    """
    check_optimizer(optimizer)
    return nnx.Optimizer(model, optax.sgd(optimizer.rate), wrt=nnx.Param)


def train_step(
    model: GoogLeNet,
    optimizer: nnx.Optimizer,
    images: spec.Array,
    labels: spec.Array,
    masks: spec.Arrays | None = None,
) -> spec.Step:
    """As `googlenet_jax.train_step`; there is nothing to mask."""
    spec.check_masks(model.config, masks or {}, images.shape)
    return update(model, optimizer, *to_device(model, images, labels), {})


def update(
    model: GoogLeNet, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array, kept: dict[str, jax.Array]
) -> spec.Step:
    """`train_step` on what is on the device already, without checks."""
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
    """As `googlenet_jax.loss_and_grads`."""
    (loss, _), grads = _value_and_grads(model, *to_device(model, images, labels))
    named = _named(model.config, nnx.to_flat_state(grads))
    return float(loss), {name: to_canonical(grad[...]) for name, grad in named.items()}


_value_and_grads = nnx.jit(nnx.value_and_grad(_loss, has_aux=True))


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """As `googlenet_jax.predict`."""
    return np.array(_logits(model, images_to_device(model, images)))


@nnx.jit
def _logits(model: GoogLeNet, x: jax.Array) -> jax.Array:
    return model(x)


def predictor(model: GoogLeNet, x: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """What computes logits of images like `x` again and again: the compiled network, as it is."""
    return partial(_logits, model)
