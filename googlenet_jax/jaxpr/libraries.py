"""Models of JAX's libraries as functions of their arrays, which are all that the recorder sees of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

import spec

# Arguments of a call that say whether it is for training, by their usual names, and whether they say that it is not.
_FLAGS = {"train": False, "training": False, "is_training": False, "deterministic": True}
_FLAGS |= {"inference": True, "use_running_average": True}
# XLA's thorough compilation of a network takes ten times as long, and computes the same.
_QUICKLY = {"xla_backend_optimization_level": 0}


@dataclass
class Function:
    """A model as a function of its arrays and of images (N, H, W, C)."""

    arrays: dict[str, jax.Array]
    trained: frozenset[str]
    call: Callable[[Mapping[str, jax.Array], jax.Array], Any]


def function(model: Any, images: jax.Array) -> Function:
    """The function of a model; what is built with the first images is built now.

    Raises:
        spec.InvalidInput: for Keras on another backend than JAX.
    """
    if isinstance(model, nnx.Module):
        return _of_nnx(model)
    if isinstance(model, linen.Module):
        return _of_linen(model, images)
    if any(kind.__module__.startswith("equinox.") for kind in type(model).__mro__):
        return _of_equinox(model)
    return _of_keras(model, images)


def compiled(made: Callable[..., Any], *inputs: Any) -> Callable[..., Any]:
    """A function as a program that was compiled quickly."""
    return jax.jit(made).lower(*inputs).compile(compiler_options=_QUICKLY)


def _flags(called: Any) -> dict[str, bool]:
    """The arguments that say that a call is not for training."""
    parameters = inspect.signature(called).parameters
    return {name: value for name, value in _FLAGS.items() if name in parameters}


def _of_tree(tree: Any, trained: Callable[[str], bool], call: Callable[[Any, jax.Array], Any]) -> Function:
    """Of a tree of arrays; the name of an array is its path, without what Flax puts around it."""
    leaves, form = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    names = [path.removeprefix("params.").removeprefix("batch_stats.").removesuffix(".value") for path in paths]
    names = names if len(set(names)) == len(names) else paths
    arrays = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    own = frozenset(filter(trained, names))
    return Function(arrays, own, lambda arrays, x: call(jax.tree.unflatten(form, [arrays[name] for name in names]), x))


def _of_nnx(model: nnx.Module) -> Function:
    model.eval()
    form, state = nnx.split(model)
    learned = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    flags = _flags(model.__call__)
    return _of_tree(state, learned.__contains__, lambda state, x: nnx.merge(form, state)(x, **flags))


def _of_linen(model: linen.Module, images: jax.Array) -> Function:
    flags = _flags(model.__call__)
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", "dropout"))}
    variables = compiled(lambda x: model.init(keys, x, **flags), images)(images)
    learned = _of_tree({"params": variables["params"]}, lambda name: True, lambda arrays, x: x).trained
    return _of_tree(variables, learned.__contains__, lambda variables, x: model.apply(variables, x, **flags))


def _of_equinox(model: Any) -> Function:
    import equinox

    arrays, rest = equinox.partition(equinox.nn.inference_mode(model), equinox.is_array)
    flags = _flags(model.__call__)

    def call(arrays: Any, x: jax.Array) -> Any:
        one = equinox.combine(arrays, rest)
        return jax.vmap(lambda x: one(x, **flags))(x.transpose(0, 3, 1, 2))

    return _of_tree(arrays, lambda name: True, call)


def _of_keras(model: Any, images: jax.Array) -> Function:
    import keras

    if keras.backend.backend() != "jax":
        raise spec.InvalidInput(
            f"Keras runs on {keras.backend.backend()} here, and is read on JAX: leave KERAS_BACKEND out"
        )
    model(keras.KerasTensor(images.shape), training=False)  # builds what is not built
    trained, others = model.trainable_variables, model.non_trainable_variables
    variables = [*trained, *others]
    names = [variable.path.replace("/", ".") for variable in variables]

    def call(arrays: Mapping[str, jax.Array], x: jax.Array) -> Any:
        own = [arrays[name] for name in names]
        return model.stateless_call(own[: len(trained)], own[len(trained) :], x, training=False)[0]

    arrays = {name: variable.value for name, variable in zip(names, variables, strict=True)}
    return Function(arrays, frozenset(names[: len(trained)]), call)


def settled(arrays: Mapping[str, jax.Array], seed: int | None) -> dict[str, jax.Array]:
    """Arrays in float32. With a seed none of them stays neutral: what ignores one would pass."""
    rng = np.random.default_rng(seed)

    def one(x: jax.Array) -> jax.Array:
        if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return x
        numbers = np.asarray(x, np.float32)
        if seed is not None and numbers.size and (numbers == numbers.reshape(-1)[0]).all():
            numbers = (numbers + 0.1 * rng.random(x.shape)).astype(np.float32)
        return jax.numpy.asarray(numbers)

    return {name: one(x) for name, x in arrays.items()}
