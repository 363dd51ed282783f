"""Arrays in HDF5, from a file that nobody has checked, and into one.

HDF5 can point to other files, repeat and compress what it holds, and run programs on it; what Keras writes does none of
this, so none of it is read. The library is written in C, and a damaged file may crash it: `harness.worker` reads in a
process of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import IO, Any

import h5py
import numpy as np

from harness.shown import shown
from harness.weights.checkpoint import MOST_ARRAYS, of_bfloat16
from spec import Array, Arrays

_MOST_OBJECTS = 10 * MOST_ARRAYS  # groups are many: Keras has one for each layer, and one for its variables
_DEEPEST = 16  # groups in groups; models in models are nested so


def read(file: IO[bytes], size: int) -> dict[str, Array]:
    """Every array by its path, ``layers/dense/vars/0``.

    Args:
        file: The file, opened.
        size: Its length in bytes, which the arrays together do not exceed.

    Raises:
        ValueError: when it holds anything but plain arrays of numbers. h5py raises other errors where it is damaged.
    """
    with h5py.File(file, "r") as root:
        datasets = dict(_datasets(root))
        for path, dataset in datasets.items():
            _check_plain(path, dataset)
        if (total := sum(dataset.nbytes for dataset in datasets.values())) > size:
            raise ValueError(f"arrays of {total:,} bytes in a file of {size:,}")
        return {path: _array(dataset) for path, dataset in datasets.items()}


def write(path: str, arrays: Arrays, texts: bytes, texts_at: str) -> None:
    """Write arrays by path, and our texts as bytes at a path of their own."""
    with h5py.File(path, "w") as root:
        for name, x in {**arrays, texts_at: np.frombuffer(texts, "u1")}.items():
            root.create_dataset(name, data=x)


def _datasets(root: Any) -> Iterator[tuple[str, Any]]:
    seen: set[bytes] = set()
    groups = deque([("", root)])
    while groups:
        path, group = groups.popleft()
        for name in group:
            below = f"{path}{name}"
            if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{shown(below)} is a link to another place, which is not followed")
            member = group[name]
            token = h5py.h5o.get_info(member.id).addr
            if token in seen or len(seen) > _MOST_OBJECTS or below.count("/") > _DEEPEST:
                raise ValueError(f"more groups than a network has, or one within itself, at {shown(below)}")
            seen.add(token)
            if isinstance(member, h5py.Group):
                groups.append((f"{below}/", member))
            elif isinstance(member, h5py.Dataset):
                yield below, member
            else:
                raise ValueError(f"{shown(below)} is a type, not an array")


def _check_plain(path: str, dataset: Any) -> None:
    """Refuse what takes more than a copy of the file's bytes."""
    made = dataset.id.get_create_plist()
    if made.get_layout() not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS) or made.get_external_count():
        raise ValueError(
            f"{shown(path)} is compressed, in pieces, or in another file: `h5repack -l CONTI -f NONE OLD NEW` makes it "
            "plain"
        )
    if dataset.dtype.kind not in "fiub" and dataset.dtype.str[1:] != "V2":
        raise ValueError(f"{shown(path)} holds {shown(dataset.dtype)}, not numbers")


def _array(dataset: Any) -> Array:
    x = np.empty(dataset.shape, dataset.dtype)
    if x.size:
        dataset.read_direct(x)
    return of_bfloat16(x.tobytes()).reshape(x.shape) if x.dtype.str[1:] == "V2" else x
