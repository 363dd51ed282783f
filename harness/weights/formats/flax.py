"""Flax's msgpack: nested dictionaries of arrays, written and read without Flax, with our texts beside them.

`flax.serialization.msgpack_restore` reads such a file. The pure dictionary of the NNX state stands under ``params``.

Source: flax/serialization.py of Flax 0.12, `msgpack_serialize`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from harness.atomic import StrPath, write_atomically
from harness.weights.checkpoint import of_bfloat16
from harness.weights.formats.contents import Contents
from spec import Array, Arrays, InvalidInput

_ARRAY, _SCALAR = 1, 3  # msgpack's extension types with which Flax marks an array, and a scalar of NumPy
_DTYPES = ("float16", "float32", "float64", "bfloat16")
_COUNTS = ("int32", "int64", "uint32")  # of a training's steps, which are read and never written
_LONGEST_NAME = 1000  # characters; each array below a key repeats it


def write(path: StrPath, arrays: Arrays, texts: dict[str, str]) -> None:
    """Write arrays by dotted paths, in JAX's layouts, and our texts.

    Raises:
        InvalidInput: for an array that is not of floats, or where nothing can be written.
    """
    write_atomically(path, *_packed({**texts, "params": _tree(arrays)}))


def write_tree(path: Path, arrays: Arrays) -> None:
    """Write arrays by dotted paths that begin with their collection, as ``params.Conv_0.kernel``, and nothing else.

    Raises:
        InvalidInput: for an array that is not of floats, or where nothing can be written.
    """
    write_atomically(path, *_packed(_tree(arrays)))


def _tree(arrays: Arrays) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, x in arrays.items():
        *keys, leaf = name.split(".")
        branch = tree
        for key in keys:
            branch = branch.setdefault(key, {})
        branch[leaf] = x
    return tree


def read(path: StrPath) -> Contents:
    """Read arrays by dotted paths, in JAX's layouts, and our texts where there are any.

    Numbers beside the arrays, as a count of steps, are left out; so is ``params`` in the names of a file with our
    texts. The arrays share the memory of the file's bytes.

    Raises:
        InvalidInput: when the file is damaged, or holds something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # msgpack makes room for a list before it has seen one item, so the file may have no lists.
            limits = {"max_buffer_size": max(size, 1), "max_array_len": 0}
            reader = msgpack.Unpacker(file, object_pairs_hook=_dictionary, ext_hook=_unpack, **limits)
            tree = reader.unpack()
            if reader.tell() != size:
                raise ValueError(f"{size - reader.tell()} bytes behind its end")
        if not isinstance(tree, dict):
            raise ValueError(f"expected a dictionary, got a {type(tree).__name__}")
        texts = {key: tree.pop(key) for key in [key for key, value in tree.items() if isinstance(value, str)]}
        pairs = _flat(tree["params"] if "format" in texts and "params" in tree else tree, "")
        if len(arrays := dict(pairs)) < len(pairs):
            raise ValueError("two arrays of a name")
        if tree and not arrays:
            raise ValueError("no array in it")
        return Contents(arrays, texts)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise InvalidInput(f"{path}: not Flax's msgpack, or a truncated one ({reason}); restore a copy") from error


def _dictionary(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs) or not all(isinstance(key, str) for key in tree):
        raise ValueError("expected dictionaries whose keys are texts, each once")
    return tree


def _flat(tree: Any, prefix: str) -> list[tuple[str, Array]]:
    if len(prefix) > _LONGEST_NAME:
        raise ValueError(f"a name of more than {_LONGEST_NAME} characters")
    if isinstance(tree, np.ndarray) and prefix:
        return [(prefix.removesuffix("."), tree)]
    if (tree is None or isinstance(tree, int | float)) and prefix:
        return []
    if not isinstance(tree, dict):
        raise ValueError(f"{prefix or 'params'!r}: expected arrays in dictionaries, got a {type(tree).__name__}")
    return [pair for key, value in tree.items() for pair in _flat(value, f"{prefix}{key}.")]


def _packed(tree: Any) -> Iterator[bytes]:
    """The bytes of a tree, an array at a time: packed whole, a file takes more than four times its size in memory."""
    if isinstance(tree, dict):
        yield msgpack.Packer().pack_map_header(len(tree))
        for key, value in tree.items():
            yield msgpack.packb(key)
            yield from _packed(value)
    elif isinstance(tree, str):
        yield msgpack.packb(tree)
    elif tree.dtype.name in _DTYPES:
        parts = (tree.shape, tree.dtype.name, np.ascontiguousarray(tree).tobytes())
        yield msgpack.Packer().pack_ext_type(_ARRAY, msgpack.packb(parts))
    else:
        raise InvalidInput(f"expected arrays of {', '.join(_DTYPES)}, got {tree.dtype}")


def _unpack(code: int, data: bytes) -> Array:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"expected arrays, got msgpack's extension {code}")
    shape, dtype, content = msgpack.unpackb(data, max_array_len=64)
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"an array of shape {str(shape)[:60]}")
    if dtype not in _DTYPES + _COUNTS:
        raise ValueError(f"expected arrays of {', '.join(_DTYPES)}, got {str(dtype)[:20]!r}")
    if dtype == "bfloat16":
        return of_bfloat16(content).reshape(shape)
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).reshape(shape)
