"""Models of JAX's libraries as functions of their arrays, which are all that the recorder sees of them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

import spec

# Arguments of a call that say whether it is for training, by their usual names, and whether they say that it is.
_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}
_FLAGS |= {"inference": False, "use_running_average": False}
# XLA's thorough compilation of a network takes ten times as long, and computes the same.
_QUICKLY = {"xla_backend_optimization_level": 0}
_KEY = "the key of random numbers"  # the name of one that does not belong to the model


@dataclass
class Function:
    """A model as a function of its arrays and of images (N, H, W, C).

    `call` takes these, and whether it is for training. It gives what the model puts out, and by name the arrays as they
    are from then on, which training changes.
    """

    arrays: dict[str, jax.Array]
    trained: frozenset[str]
    call: Callable[..., tuple[Any, Mapping[str, jax.Array]]]
    load: Callable[[Path], Mapping[str, jax.Array]] | None = None  # a file whose names are the library's own affair


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


def _flags(names: Iterable[str], *, training: bool) -> dict[str, bool]:
    """Those of the names that say whether a call is for training."""
    return {name: _FLAGS[name] == training for name in names if name in _FLAGS}


def _arguments(called: Any) -> Mapping[str, Any]:
    return inspect.signature(called).parameters


def _named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, without what Flax puts around them."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    names = list(map(plain, paths))
    names = names if len(set(names)) == len(names) else paths
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def plain(path: str) -> str:
    """The path of an array without the collection that Flax puts before it, and the attribute behind."""
    return path.removeprefix("params.").removeprefix("batch_stats.").removesuffix(".value")


def _of_tree(tree: Any, trained: Callable[[str], bool], call: Callable[..., tuple[Any, Any]]) -> Function:
    """Of a tree of arrays, which `call` takes, and gives as it is afterwards."""
    arrays, form = _named(tree), jax.tree.structure(tree)
    own = frozenset(filter(trained, arrays))

    def named_call(given: Mapping[str, jax.Array], x: jax.Array, *, training: bool) -> tuple[Any, dict[str, jax.Array]]:
        y, after = call(jax.tree.unflatten(form, [given[name] for name in arrays]), x, training=training)
        return y, {name: leaf for name, leaf in _named(after).items() if name in arrays}

    return Function(arrays, own, named_call)


def _of_nnx(model: nnx.Module) -> Function:
    forms = {}
    for training in (True, False):
        attributes = _flags(("training", "is_training", "deterministic", "use_running_average"), training=training)
        model.set_attributes(**attributes, raise_if_not_found=False)
        forms[training], state = nnx.split(model)
    learned = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    names = _arguments(model.__call__)

    def call(tree: Any, x: jax.Array, *, training: bool) -> tuple[Any, Any]:
        one = nnx.merge(forms[training], tree["params"])
        given: dict[str, Any] = _flags(names, training=training)
        given |= {"rngs": nnx.Rngs(tree[_KEY])} if "rngs" in names else {}
        return one(x, **given), {"params": nnx.state(one)}

    return _of_tree({"params": state, _KEY: jax.random.key(0)}, learned.__contains__, call)


def _of_linen(model: linen.Module, images: jax.Array) -> Function:
    def of(*, training: bool) -> tuple[linen.Module, dict[str, bool]]:
        """The module, and the arguments of its call; some have a field that says what it is for."""
        called = _flags(_arguments(model.__call__), training=training)
        fields = (field.name for field in dataclasses.fields(model))
        return model.clone(**_flags((name for name in fields if name not in called), training=training)), called

    one, called = of(training=False)
    keys = {name: jax.random.key(i) for i, name in enumerate(("params", "dropout"))}
    variables = compiled(lambda x: one.init(keys, x, **called), images)(images)
    changed = [name for name in variables if name != "params"]

    def call(tree: Any, x: jax.Array, *, training: bool) -> tuple[Any, Any]:
        one, called = of(training=training)
        own = {name: tree[name] for name in variables}
        if not training:
            return one.apply(own, x, **called), {}
        return one.apply(own, x, **called, rngs=dict.fromkeys(keys, tree[_KEY]), mutable=changed)

    return _of_tree({**variables, _KEY: keys["dropout"]}, _named({"params": variables["params"]}).__contains__, call)


def _of_equinox(model: Any) -> Function:
    """Image by image. Statistics are outside of the model, in a state that its call takes and gives.

    Flags in it, which say that a batch is the first one, are set to say that it is not.
    """
    import equinox

    model, state = equinox.nn.make_with_state(lambda whole=model: whole)()
    state = jax.tree.map(lambda x: jax.numpy.zeros_like(x) if x.dtype == bool else x, state)
    arrays, rest = equinox.partition(model, equinox.is_array)
    names = _arguments(model.__call__)
    norms = jax.tree.leaves(model, is_leaf=lambda part: isinstance(part, equinox.nn.BatchNorm))
    axis = next((norm.axis_name for norm in norms if isinstance(norm, equinox.nn.BatchNorm)), None)
    axis = axis if axis is None or isinstance(axis, str) else axis[0]

    def call(tree: Any, x: jax.Array, *, training: bool) -> tuple[Any, Any]:
        one = equinox.nn.inference_mode(equinox.combine(tree["params"], rest), value=not training)
        flags = _flags(names, training=training)
        keys = jax.random.split(tree[_KEY], len(x))

        def of_image(x: jax.Array, key: jax.Array) -> tuple[Any, Any]:
            given = flags | ({"key": key} if "key" in names else {})
            return one(x, tree["state"], **given) if "state" in names else (one(x, **given), tree["state"])

        y, after = jax.vmap(of_image, out_axes=(0, None), axis_name=axis)(x.transpose(0, 3, 1, 2), keys)
        return y, {"state": after}

    learned = _named({"params": equinox.filter(arrays, equinox.is_inexact_array)})
    return _of_tree({"params": arrays, "state": state, _KEY: jax.random.key(0)}, learned.__contains__, call)


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

    def values() -> dict[str, jax.Array]:
        return {name: variable.value for name, variable in zip(names, variables, strict=True)}

    def call(arrays: Mapping[str, jax.Array], x: jax.Array, *, training: bool) -> tuple[Any, dict[str, jax.Array]]:
        own = [arrays[name] for name in names]
        y, after = model.stateless_call(own[: len(trained)], own[len(trained) :], x, training=training)
        return y, dict(zip(names[len(trained) :], after, strict=True))

    def load(path: Path) -> dict[str, jax.Array]:
        model.load_weights(path)
        return values()

    return Function(values(), frozenset(names[: len(trained)]), call, load)


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
