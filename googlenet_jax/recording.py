"""What a model of JAX does, whoever wrote it: Flax (NNX and linen), Equinox, and Keras on JAX."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import spec
from googlenet_jax.jaxpr.affine import running_statistics
from googlenet_jax.jaxpr.libraries import Function, compiled, function, settled
from googlenet_jax.jaxpr.operations import HANDLERS
from googlenet_jax.jaxpr.reader import Reader, without_dropout
from googlenet_jax.jaxpr.values import Known, Traced
from googlenet_jax.jaxpr.weights import matched, stored
from harness.agreement import relative_error
from harness.check.graph import Graph, Norm, Recording
from harness.check.readers.rewriting import rewritten

DTYPES = ("float32",)  # to try: XLA's convolutions of float64 take minutes on a CPU


def build(made: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a class or a function; where it wants random numbers it gets some."""
    called = made.__init__ if isinstance(made, type) else made  # its metaclass takes anything
    wanted = inspect.signature(called).parameters
    random = {"rngs": lambda: nnx.Rngs(0), "key": lambda: jax.random.key(0)}
    return made(**{name: make() for name, make in random.items() if name in wanted} | arguments)


def settle(model: Any, dtype: str, seed: int | None, images: spec.Array) -> Function:
    """A model as a function of its arrays, some of which are made for images like these (N, C, H, W).

    With a seed none of them stays neutral, since what ignores one would pass.
    """
    made = function(model, _as_taken(images))
    made.arrays = settled(made.arrays, seed)
    return made


def load(model: Function, path: Path) -> None:
    """Load a file of any format of `convert`, by the model's own paths or by names that are understood.

    Those in Keras' own files are numbers, which Keras knows.

    Raises:
        spec.InvalidInput: when the file cannot be read, or an array is missing, left over or of another shape.
    """
    form, arrays = stored(path)
    if form == "keras" and model.load is not None:
        model.arrays = dict(model.load(path))
    else:
        model.arrays = {**model.arrays, **matched(model.arrays, arrays)}


def parameters(model: Function) -> int:
    """How many numbers are trained."""
    return sum(model.arrays[name].size for name in model.trained)


def record(model: Function, images: spec.Array, *, training: bool) -> Recording:
    """Run a model once on images (N, C, H, W), which it takes as (N, H, W, C), or one by one in Equinox.

    In training nothing is dropped: each mask has its mean everywhere.
    """
    seen = read(model, images, training=training)
    arrays, x = jax.tree.leaves(model.arrays), _as_taken(images)
    run = compiled(seen.run, *arrays, x)

    def put_out(x: jax.Array) -> list[spec.Array]:
        pairs = zip(seen.ends, run(*arrays, x), strict=False)  # behind these are the arrays
        return [_canonical(np.asarray(y, np.float64), end.axes) for end, y in pairs if isinstance(end, Traced)]

    outputs, nudge = put_out(x), 0.0
    if any(isinstance(node.op, Norm) and node.op.of_batch for node in seen.graph.nodes):
        moved = put_out(jax.numpy.asarray(_nudged(np.asarray(x))))
        nudge = max(map(relative_error, moved, outputs), default=0.0)
    return rewritten(Recording(seen.graph, outputs, [np.zeros(0)] * len(seen.graph.nodes), nudge=nudge))


def _nudged(x: spec.Array) -> spec.Array:
    """Every number of float32 is the next larger or smaller one."""
    up = np.random.default_rng(0).random(x.shape) < 0.5
    moved: spec.Array = np.nextafter(x, np.where(up, np.inf, -np.inf).astype(x.dtype))
    return moved


class Seen(NamedTuple):
    """A pass, before it has been run."""

    graph: Graph
    ends: list[Any]  # what it puts out
    run: Callable[..., list[jax.Array]]  # of all arrays and the images, with dropout that drops nothing


def read(model: Function, images: spec.Array, *, training: bool) -> Seen:
    """Read the jaxpr of a model's pass on images (N, C, H, W)."""
    x = jax.ShapeDtypeStruct(_as_taken(images).shape, np.float32)

    def run(arrays: spec.Arrays, x: jax.Array) -> tuple[list[jax.Array], Any]:
        y, after = model.call(arrays, x, training=training)
        return [leaf for leaf in jax.tree.leaves(y) if isinstance(leaf, jax.Array)], after

    closed, (outputs, after) = jax.make_jaxpr(run, return_shape=True)(model.arrays, x)
    reader = Reader(HANDLERS, images, x.shape, training=training)
    known = {name: Known(_number(array), _name(name, array)) for name, array in sorted(model.arrays.items())}
    inputs = [*known.values(), reader.images]
    ends = reader.run(closed.jaxpr, [Known(_number(array)) for array in closed.consts], inputs)
    moved = running_statistics(known, dict(zip(sorted(after), ends[len(outputs) :], strict=True)))
    ends = ends[: len(outputs)]
    graph = reader.graph([end for end in ends if isinstance(end, Traced)], moved)
    return Seen(graph, ends, without_dropout(closed, reader.dropped))


def _as_taken(images: spec.Array) -> jax.Array:
    return jax.numpy.asarray(images.transpose(0, 2, 3, 1), np.float32)


def _name(name: str, array: jax.Array) -> str:
    """The name of a parameter, a statistic or a key; counts have none, which are just numbers."""
    number = array.ndim == 0 and not jax.numpy.issubdtype(array.dtype, jax.dtypes.extended)
    return "" if number and not jax.numpy.issubdtype(array.dtype, jax.numpy.floating) else name


def _number(array: Any) -> Any:
    """In NumPy, but for keys of random numbers."""
    return array if jax.dtypes.issubdtype(getattr(array, "dtype", None), jax.dtypes.extended) else np.asarray(array)


def _canonical(x: spec.Array, axes: str) -> spec.Array:
    """(N, C, H, W), or as it is."""
    return x.transpose([axes.index(axis) for axis in "NCHW"]) if sorted(axes) == sorted("NCHW") else x
