"""Reads prepared datasets: opens them, orders their images, makes batches. Needs NumPy only.

The files of `harness.images.prepared` are mapped into memory and read batch by batch. The order depends on the seed
and the epoch alone: every framework sees the same batches, and so does a resumed run.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from harness.atomic import StrPath
from spec import Array, InvalidInput, array_dtype

_AHEAD = 4  # prepared batches that may wait in memory
_FIELDS = {  # of dataset.json
    "source": str,
    "description": str,
    "classes": list,
    "channels": int,
    "size": int,
    "train": int,
    "test": int,
    "sha256": str,
}
_LISTS = ("remarks", "damaged")  # of dataset.json too; those of before have none
Numbers = float | Sequence[float]  # one for all channels, or one for each
_Batches = Generator[tuple[Array, Array], None, None]
_npy: Any = np.lib.format  # NumPy 1.26 has no types for it


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8, and labels (N,), int64; both are mapped from files, and read-only."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset."""

    folder: Path
    source: str
    description: str
    classes: tuple[str, ...]
    channels: int
    size: int  # side of the images in pixels
    sha256: str  # hash of all pixels and labels
    train: Split
    test: Split
    remarks: tuple[str, ...] = ()  # lines for the user on how the pictures were read
    damaged: tuple[str, ...] = ()  # pictures that are left out, and why


def open_dataset(folder: StrPath) -> Dataset:
    """Open the dataset that `harness.images.prepared.prepare` wrote; its images are not read.

    Raises:
        InvalidInput: when a file is missing or damaged, or does not fit the others. The checksum is not computed.
    """
    folder = Path(folder)
    try:
        about = json.loads((folder / "dataset.json").read_text())
        wrong = [name for name, kind in _FIELDS.items() if type(about.get(name)) is not kind or not about[name]]
        wrong += [name for name in _LISTS if type(about.get(name, [])) is not list]
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, [f"dataset.json: {error}"]) from error
    if wrong:
        raise _damaged(folder, [f"dataset.json: {name} is missing, empty or of another type" for name in wrong])
    arrays = {}
    problems = []
    for part in ("train", "test"):
        shape = (about[part], about["channels"], about["size"], about["size"])
        for name, dtype, expected in ((f"{part}-images", np.uint8, shape), (f"{part}-labels", np.int64, shape[:1])):
            try:
                arrays[name] = array = _npy.open_memmap(folder / f"{name}.npy", mode="r")
            except Exception as error:  # a damaged header raises all kinds of errors
                problems.append(f"{name}.npy: {error}")
                continue
            if (array.shape, array.dtype) != (expected, dtype):
                problems.append(f"{name}.npy: expected {np.dtype(dtype)} {expected}, found {array.dtype} {array.shape}")
            elif name.endswith("labels") and not 0 <= array.min() <= array.max() < len(about["classes"]):
                problems.append(
                    f"{name}.npy: expected classes from 0 to {len(about['classes']) - 1}, "
                    f"found {array.min()} to {array.max()}"
                )
    if problems:
        raise _damaged(folder, problems)
    train, test = (Split(arrays[f"{part}-images"], arrays[f"{part}-labels"]) for part in ("train", "test"))
    facts: dict[str, Any] = {key: about[key] for key in ("source", "description", "channels", "size", "sha256")}
    facts |= {key: tuple(map(str, about.get(key, ()))) for key in ("classes", *_LISTS)}
    return Dataset(folder, **facts, train=train, test=test)


def _damaged(folder: Path, problems: list[str]) -> InvalidInput:
    lines = [f"{folder}: not a prepared dataset, or a damaged one; delete the folder and run again:", *problems]
    return InvalidInput("\n  ".join(lines))


def shuffled(count: int, seed: int, epoch: int) -> Array:
    """The order of one epoch: a permutation of 0 to count - 1, (count,), int64.

    It sorts raw bits, which NumPy promises never to change. `permutation` may differ between versions of NumPy, and
    the frameworks may run with different versions.

    Raises:
        InvalidInput: for a seed or an epoch outside 0 to 2^64 - 1.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64:
            raise InvalidInput(f"{name}: expected a whole number from 0 to 2^64 - 1, got {value!r}")
    # The other random streams of this project start at counter 0; the highest word keeps this stream apart.
    counter = np.array([0, 0, 0, zlib.crc32(b"order")], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter)
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)


def pixels(images: Array, dtype: str, mean: Numbers, std: Numbers) -> Array:
    """(x / 255 - mean) / std of 8-bit images, computed in float64 and rounded once to `spec.array_dtype(dtype)`.

    Images are (..., C, H, W).

    Raises:
        InvalidInput: unless images are uint8, `dtype` is a floating type, and the numbers are finite with std > 0, one
            of each or as many as channels.
    """
    table = pixel_table(dtype, mean, std)
    if images.dtype != np.uint8:
        raise InvalidInput(f"images: expected uint8, got {images.dtype}; pixels are turned into numbers only once")
    if len(table) == 1:
        return np.asarray(table[0][images])
    if len(table) != images.shape[-3]:
        raise InvalidInput(f"mean and std: expected 1 or {images.shape[-3]} numbers, got {len(table)}")
    return np.asarray(table[np.arange(len(table))[:, None, None], images])


def pixel_table(dtype: str, mean: Numbers, std: Numbers) -> Array:
    """What `pixels` makes of each of the 256 values of a pixel, (1 or C, 256).

    Raises:
        InvalidInput: unless `dtype` is a floating type, and the numbers are finite with std > 0.
    """
    problems = []
    if dtype not in ("float32", "tf32", "float64", "bfloat16"):
        problems.append(f"dtype: expected float32, tf32, float64 or bfloat16, got {dtype!r}")
    if not np.isfinite(mean).all():
        problems.append(f"mean: expected finite numbers, got {mean}")
    if not (np.isfinite(std).all() and np.min(std) > 0):
        problems.append(f"std: expected finite numbers above 0, got {std}")
    if problems:
        raise InvalidInput("; ".join(problems))
    means, stds = (np.reshape(numbers, (-1, 1)) for numbers in (mean, std))
    return np.asarray(((np.arange(256) / 255 - means) / stds).astype(array_dtype(dtype)))


def training_batches(
    split: Split,
    batch: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    dtype: str,
    mean: Numbers,
    std: Numbers,
) -> _Batches:
    """The batches of one epoch in shuffled order; the last one may be smaller.

    `seed` and `epoch` (from 0) decide the order; a resumed run skips the batches before number `first` (from 0).
    Yields images (batch, C, H, W) as `pixels` gives them, and labels (batch,), int64: new arrays. A thread prepares
    them while the caller computes. It ends with the generator, also when that is closed early.

    Raises:
        InvalidInput: at once, for settings out of range.
    """
    rows = training_rows(len(split), batch, seed=seed, epoch=epoch, first=first)
    return _batches(split, rows, dtype, mean, std)


def training_rows(count: int, batch: int, *, seed: int, epoch: int, first: int = 0) -> list[Array]:
    """The rows of each batch of `training_batches`, (batch,), int64, of a split with so many images.

    Raises:
        InvalidInput: for settings out of range.
    """
    return _rows(shuffled(count, seed, epoch), batch, first)


def evaluation_batches(split: Split, batch: int, *, dtype: str, mean: Numbers, std: Numbers) -> _Batches:
    """All images in stored order; the rest is as in `training_batches`."""
    return _batches(split, _rows(np.arange(len(split)), batch, 0), dtype, mean, std)


def _rows(order: Array, batch: int, first: int) -> list[Array]:
    problems = [f"batch: expected at least 1, got {batch}"] if batch < 1 else []
    number = math.ceil(len(order) / max(batch, 1))
    if not 0 <= first <= number:
        problems.append(f"first: expected a batch from 0 to {number}, the end of the epoch, got {first}")
    if problems:
        raise InvalidInput("; ".join(problems))
    return [order[start : start + batch] for start in range(first * batch, len(order), batch)]


def _batches(split: Split, rows: Sequence[Array], dtype: str, mean: Numbers, std: Numbers) -> _Batches:
    pixel_table(dtype, mean, std)  # refuses wrong settings now, and not in the thread

    def prepared(chosen: Array) -> tuple[Array, Array]:
        return pixels(split.images[chosen], dtype, mean, std), np.asarray(split.labels[chosen])

    return _ahead(prepared, rows)


def _ahead(prepare: Callable[[Array], tuple[Array, Array]], rows: Iterable[Array]) -> _Batches:
    """The batches of those rows. A thread prepares up to `_AHEAD` of them before they are asked for."""
    unprepared = iter(rows)
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        ready = deque(thread.submit(prepare, chosen) for chosen in islice(unprepared, _AHEAD))
        try:
            while ready:
                batch = ready.popleft().result()
                ready.extend(thread.submit(prepare, chosen) for chosen in islice(unprepared, 1))
                yield batch
        finally:
            for future in ready:
                future.cancel()
