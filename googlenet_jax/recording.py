"""What a model of JAX does at inference, whoever wrote it: Flax (NNX and linen), Equinox, and Keras on JAX."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from flax import nnx
from jax.extend.core import jaxpr_as_fun

import spec
from googlenet_jax.jaxpr.libraries import Function, compiled, function, settled
from googlenet_jax.jaxpr.operations import HANDLERS
from googlenet_jax.jaxpr.reader import Reader
from googlenet_jax.jaxpr.values import Known, Traced
from harness.check.graph import Graph, Recording
from harness.check.readers.rewriting import rewritten

DTYPES = ("float32",)  # to try: XLA's convolutions of float64 take minutes on a CPU
TRAINING = False  # a jaxpr does not show batch norm's momentum, and dropout in it is arithmetic on random bits


@dataclass
class Settled:
    """A model, and what is to be done with its arrays."""

    model: Any
    seed: int | None
    function: Function | None = None  # once images have been seen


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function; where it wants random numbers it gets some."""
    called = made.__init__ if isinstance(made, type) else made  # its metaclass takes anything
    wanted = inspect.signature(called).parameters
    random = {"rngs": lambda: nnx.Rngs(0), "key": lambda: jax.random.key(0)}
    return made(**{name: make() for name, make in random.items() if name in wanted} | arguments)


def settle(model: Any, dtype: str, seed: int | None) -> Settled:
    """Say what to do with a model's arrays: with a seed none stays neutral, since what ignores one would pass."""
    return Settled(model, seed)


def load(model: Any, path: Path) -> NoReturn:
    """Refuse."""
    raise spec.InvalidInput("weights are loaded into models of PyTorch and of MXNet, so far")


def parameters(model: Settled) -> int:
    """How many numbers are trained, of a model that has run."""
    made = model.function
    return 0 if made is None else sum(made.arrays[name].size for name in made.trained)


def record(model: Settled, images: spec.Array, *, training: bool) -> Recording:
    """Run a model once on images (N, C, H, W), which it takes as (N, H, W, C), or one by one in Equinox."""
    x = jax.numpy.asarray(images.transpose(0, 2, 3, 1), np.float32)
    if model.function is None:
        model.function = function(model.model, x)
        model.function.arrays = settled(model.function.arrays, model.seed)
    made = model.function
    closed, graph, ends = read(made.call, made.arrays, images)
    inputs = (*jax.tree.leaves(made.arrays), x)
    put_out = compiled(jaxpr_as_fun(closed), *inputs)(*inputs)
    outputs = [
        _canonical(np.asarray(y, np.float64), end.axes)
        for end, y in zip(ends, put_out, strict=True)
        if isinstance(end, Traced)
    ]
    return rewritten(Recording(graph, outputs, [np.zeros(0)] * len(graph.nodes)))


def read(call: Callable[..., Any], arrays: spec.Arrays, images: spec.Array) -> tuple[Any, Graph, list[Any]]:
    """The jaxpr of a function of arrays by name and of images (N, H, W, C), its graph, and what it puts out."""
    x = jax.ShapeDtypeStruct((len(images), *images.shape[2:], images.shape[1]), np.float32)

    def run(arrays: spec.Arrays, x: jax.Array) -> list[jax.Array]:
        return [leaf for leaf in jax.tree.leaves(call(arrays, x)) if isinstance(leaf, jax.Array)]

    closed = jax.make_jaxpr(run)(arrays, x)
    reader = Reader(HANDLERS, images, x.shape)
    known = [Known(_number(array), name) for name, array in sorted(arrays.items())]
    ends = reader.run(closed.jaxpr, [Known(_number(array)) for array in closed.consts], [*known, reader.images])
    return closed, reader.graph([end for end in ends if isinstance(end, Traced)]), ends


def _number(array: Any) -> Any:
    """In NumPy, but for keys of random numbers."""
    return array if jax.dtypes.issubdtype(getattr(array, "dtype", None), jax.dtypes.extended) else np.asarray(array)


def _canonical(x: spec.Array, axes: str) -> spec.Array:
    """(N, C, H, W), or as it is."""
    return x.transpose([axes.index(axis) for axis in "NCHW"]) if sorted(axes) == sorted("NCHW") else x
