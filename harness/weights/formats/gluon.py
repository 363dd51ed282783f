"""MXNet's ``.params``: a list of arrays and a list of their names, written and read without MXNet.

MXNet's own reader trusts the sizes in a file; this one does not. Our texts stand behind the lists, as JSON, where MXNet
does not look.

Source: src/ndarray/ndarray.cc of MXNet 1.9.1, `NDArray::Save` and `NDArray::Load`.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np

from harness.atomic import StrPath, write_atomically
from harness.weights.checkpoint import plain
from harness.weights.formats.contents import Contents, parse_texts
from spec import Array, Arrays, InvalidInput

LIST = 0x112  # the first 8 bytes of a file, little-endian
_ARRAY, _ARRAY_NUMPY = 0xF993FAC9, 0xF993FACA  # the start of an array; the second in MXNet's NumPy mode
_DENSE, _CPU = 0, 1
_DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")  # by MXNet's type flag
_SMALLEST_ARRAY, _SMALLEST_NAME = 24, 8  # bytes


def write(path: StrPath, arrays: Arrays, texts: dict[str, str]) -> None:
    """Write arrays by MXNet's names, and our texts.

    Raises:
        InvalidInput: for an array of another dtype than float16, float32 or float64, or without dimensions, or where
            nothing can be written.
    """
    path = Path(path)
    if odd := {name: str(x.dtype) for name, x in arrays.items() if x.dtype.name not in _DTYPES[:3]}:
        raise InvalidInput(f"{path}: MXNet's files hold float16, float32 and float64, got {odd}; convert with --dtype")
    if single := [name for name, x in arrays.items() if x.ndim == 0]:
        raise InvalidInput(f"{path}: MXNet reads no arrays without dimensions, got {', '.join(single)}; give them one")
    parts: list[bytes | memoryview] = [struct.pack("<QQQ", LIST, 0, len(arrays))]
    for x in arrays.values():
        parts.append(struct.pack(f"<Iii{x.ndim}q", _ARRAY, _DENSE, x.ndim, *x.shape))
        parts.append(struct.pack("<iii", _CPU, 0, _DTYPES.index(x.dtype.name)))
        parts.append(plain(x).reshape(-1).view(np.uint8).data)
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts.append(struct.pack("<Q", len(name.encode())) + name.encode())
    write_atomically(path, *parts, json.dumps(texts).encode())


def read(path: StrPath) -> Contents:
    """Read arrays by MXNet's names (``arg:`` and ``aux:`` before them left out), and our texts where there are any.

    The arrays share the memory of the file's bytes.

    Raises:
        InvalidInput: when the file is damaged, or holds what only MXNet can read.
    """
    path = Path(path)
    try:
        return _Reader(path.read_bytes()).read()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidInput(f"{path}: not MXNet's list of arrays, or truncated ({error}); restore a copy") from error


class _Reader:
    """Reads through the bytes of one file. Every method raises a ValueError where the file is damaged."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= len(self.content) - self.at:
            raise ValueError(f"{size} bytes expected at {self.at}, {len(self.content) - self.at} are left")
        self.at += size
        return memoryview(self.content)[self.at - size : self.at]

    def numbers(self, kinds: str) -> tuple[int, ...]:
        return struct.unpack("<" + kinds, self.take(struct.calcsize("<" + kinds)))

    def count(self, smallest: int) -> int:
        """How many things follow, each of at least `smallest` bytes."""
        (count,) = self.numbers("Q")
        if count > (len(self.content) - self.at) // smallest:
            raise ValueError(f"it says that {count} follow, and has room for fewer")
        return count

    def array(self) -> Array:
        magic, storage, dimensions = self.numbers("Iii")
        if magic not in (_ARRAY, _ARRAY_NUMPY) or storage != _DENSE:
            raise ValueError(f"expected a dense array at {self.at - 12}, as MXNet has written them since 1.0")
        if not 0 <= dimensions <= 32 or (dimensions == 0 and magic == _ARRAY):
            raise ValueError(f"an array with {dimensions} dimensions")
        shape = self.numbers(f"{dimensions}q")
        _, _, flag = self.numbers("iii")
        if not 0 <= flag < len(_DTYPES):
            raise ValueError(f"an array of MXNet's type {flag}; expected one of {', '.join(_DTYPES)}")
        dtype = np.dtype(_DTYPES[flag]).newbyteorder("<")
        if any(side < 0 for side in shape) or math.prod(shape) > len(self.content):
            raise ValueError(f"an array of shape {str(shape)[:60]}")
        return np.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)

    def read(self) -> Contents:
        header, _ = self.numbers("QQ")
        if header != LIST:
            raise ValueError("another beginning")
        arrays = [self.array() for _ in range(self.count(_SMALLEST_ARRAY))]
        names = [str(self.take(*self.numbers("Q")), "utf-8") for _ in range(self.count(_SMALLEST_NAME))]
        names = [name.removeprefix("arg:").removeprefix("aux:") for name in names]
        if len(names) != len(arrays) or len(set(names)) < len(names):
            raise ValueError(f"{len(names)} names, {len(set(names))} of them different, for {len(arrays)} arrays")
        rest = self.content[self.at :]
        return Contents(dict(zip(names, arrays, strict=True)), parse_texts(rest) if rest else {})
