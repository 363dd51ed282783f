"""NumPy's ``.npz``: a ZIP archive with an array an entry, read without pickle; ours has our texts in one more entry."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from harness.weights.checkpoint import of_bfloat16, plain
from harness.weights.formats.contents import Contents, parse_texts
from spec import Array, Arrays, InvalidInput

_SUFFIX = ".npy"
_TEXTS = "googlenet.json"
_MOST = 4  # bytes in memory for each in the file, and
_SLACK = 2**20  # bytes more
_npy: Any = np.lib.format  # NumPy 1.26 has no types for it


def write(path: Path, arrays: Arrays, texts: dict[str, str]) -> None:
    """Write arrays by name, and our texts."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, x in arrays.items():
            with archive.open(zipfile.ZipInfo(name + _SUFFIX), "w", force_zip64=True) as entry:
                _npy.write_array(entry, plain(x), allow_pickle=False)
        archive.writestr(zipfile.ZipInfo(_TEXTS), json.dumps(texts))


def read(path: Path) -> Contents:
    """Read arrays by name, and our texts where there are any.

    Raises:
        InvalidInput: when the file is damaged, or holds objects, or would take much more memory than its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MOST * path.stat().st_size + _SLACK:
                raise ValueError(f"more than {_MOST} times as large as the file")
            names = [entry.filename for entry in entries if entry.filename.endswith(_SUFFIX)]
            if len(set(names)) < len(names):
                raise ValueError("two arrays of a name")
            arrays = {name.removesuffix(_SUFFIX): _array(archive.read(name)) for name in names}
            texts = parse_texts(archive.read(_TEXTS)) if _TEXTS in archive.namelist() else {}
            return Contents(arrays, texts)
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"{path}: expected arrays of numbers as numpy.savez writes them ({error}); restore a copy"
        ) from error


def _array(content: bytes) -> Array:
    file = io.BytesIO(content)
    version = _npy.read_magic(file)
    shape, by_columns, dtype = {(1, 0): _npy.read_array_header_1_0, (2, 0): _npy.read_array_header_2_0}[version](file)
    if dtype.hasobject:
        raise ValueError("objects of Python, which could run any program")
    rest = memoryview(content)[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{len(rest)} bytes for an array of shape {str(shape)[:60]}")
    # NumPy writes JAX's bfloat16 as two bytes of no kind.
    x = of_bfloat16(bytes(rest)) if dtype.str[1:] == "V2" else np.frombuffer(rest, dtype)
    return x.reshape(shape, order="F" if by_columns else "C")
