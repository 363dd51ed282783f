"""Flax's and Orbax's own files: the pure dictionary of an NNX state, read and run the way that their users do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx, serialization
from flax.traverse_util import flatten_dict, unflatten_dict

import spec
from googlenet_jax.build import build
from googlenet_jax.device import select_dtype
from googlenet_jax.probe import activations

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_DTYPES += ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def write_file(path: Path, arrays: spec.Arrays, config: spec.Config) -> None:
    """Save arrays by the dotted paths of the network, in JAX's layouts, as an Orbax checkpoint."""
    tree = unflatten_dict({tuple(name.split(".")): np.ascontiguousarray(x) for name, x in arrays.items()})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


def read_file(path: Path) -> dict[str, spec.Array]:
    """The arrays of an Orbax checkpoint, by the dotted paths in it, in JAX's layouts.

    Raises:
        spec.InvalidInput: when Orbax cannot read it, or it claims to hold more than such a network.
    """
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = getattr(checkpointer.metadata(path.absolute()).item_metadata, "tree", None)
    except Exception as error:  # Orbax and TensorStore raise of every kind
        raise spec.InvalidInput(f"{path}: Orbax cannot read it ({_first_line(error)}); restore a copy") from error
    if not isinstance(tree, dict):
        raise spec.InvalidInput(
            f"{path}: expected an Orbax checkpoint of arrays in dictionaries, and it is none or damaged; "
            "restore a copy, or name the folder in it that has a _METADATA"
        )
    leaves = _named(path, tree)
    # Zeros take no room in it, so that a small folder may stand for any amount of them.
    if (size := sum(map(_memory, leaves.values()))) > 4 * _size(path):
        raise spec.InvalidInput(
            f"{path}: expected arrays not much larger than the {_size(path)} bytes of the folder, got {size} bytes"
        )
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    try:
        restored = ocp.PyTreeCheckpointer().restore(path.absolute(), restore_args=args)
    except Exception as error:
        raise spec.InvalidInput(f"{path}: Orbax cannot read it ({_first_line(error)}); restore a copy") from error
    return {name: _numpy(x) for name, x in _named(path, restored).items()}


def run_file(
    path: Path, config: spec.Config, dtype: str, images: spec.Array, names: Mapping[str, str] | None = None
) -> dict[str, spec.Array]:
    """Every stage's output when Flax or Orbax itself loads the checkpoint or the msgpack file.

    `names` has the file's dotted paths by our network's, where these differ.
    """
    model = build(config, dtype=dtype, device="cpu")
    if path.is_dir():
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(path.absolute())
    else:
        tree = serialization.msgpack_restore(path.read_bytes())
        tree = tree if names else tree.get("params", tree)
    if names is not None:
        leaves = flatten_dict(tree, sep=".")
        tree = unflatten_dict({name: leaves[file_name] for name, file_name in names.items()}, sep=".")
    state = nnx.state(model, (nnx.Param, nnx.BatchStat))
    tree = jax.tree.map(lambda x: jax.numpy.asarray(x, select_dtype(spec.array_dtype(dtype))), tree)
    nnx.replace_by_pure_dict(state, tree)
    nnx.update(model, state)
    return activations(model, images)


def _named(path: Path, tree: dict[Any, Any]) -> dict[str, Any]:
    """The arrays in a tree, or what Orbax says of them, by their dotted paths, and the numbers beside them.

    Raises:
        spec.InvalidInput: when one is something else, or two have the same path.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    pairs = [(jax.tree_util.keystr(keys, simple=True, separator="."), x) for keys, x in leaves]
    odd = [name for name, x in pairs if not (name.isprintable() and str(getattr(x, "dtype", None)) in _DTYPES)]
    if odd or len(dict(pairs)) < len(pairs):
        what = f"something else as {', '.join(f'{name[:60]!r}' for name in odd[:5])}" if odd else "two of a name"
        raise spec.InvalidInput(f"{path}: expected arrays of numbers, each of another name, got {what}")
    return dict(pairs)


def _memory(leaf: Any) -> int:
    """The bytes that an array takes while it is read, in its chunks: TensorStore would end the process for too many."""
    chunk = getattr(getattr(leaf, "storage", None), "chunk_shape", None) or leaf.shape
    return math.prod(map(max, leaf.shape, chunk)) * np.dtype(leaf.dtype).itemsize


def _numpy(x: Any) -> spec.Array:
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype.name == "bfloat16" else x  # exact: NumPy has no bfloat16


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _first_line(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return "".join(c if c.isprintable() else " " for c in line)
