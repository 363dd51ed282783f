"""Prepared images on their way into training: opening, order, batches. NumPy and the standard library only.

Maps what `harness.images.prepared` wrote into memory and reads it batch by batch. The order depends on the seed and
the epoch alone: every framework sees the same batches, and a resumed run the ones it would have seen.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spec import Array, InvalidInput, array_dtype

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
_Batches = Generator[tuple[Array, Array], None, None]
_npy: Any = np.lib.format  # NumPy 1.26 has no types for it


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8, and labels (N,), int64; both mapped from their files, not to be written."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset: where it lies, what it is, and its two parts."""

    folder: Path
    source: str
    description: str
    classes: tuple[str, ...]
    channels: int
    size: int  # side in pixels
    sha256: str  # of all pixels and labels
    train: Split
    test: Split


def open_dataset(folder: Path) -> Dataset:
    """The dataset that `harness.images.prepared.prepare` left in a folder, without reading its images.

    Raises:
        InvalidInput: when a file is missing or damaged, or does not fit the others; the checksum is not computed.
    """
    try:
        about = json.loads((folder / "dataset.json").read_text())
        wrong = [name for name, kind in _FIELDS.items() if type(about.get(name)) is not kind or not about[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(folder, [f"dataset.json: {error}"]) from error
    if wrong:
        raise _damaged(folder, [f"dataset.json: {name} is missing, empty or of another type" for name in wrong])
    arrays, problems = {}, []
    for part in ("train", "test"):
        shape = (about[part], about["channels"], about["size"], about["size"])
        for name, dtype, expected in ((f"{part}-images", np.uint8, shape), (f"{part}-labels", np.int64, shape[:1])):
            try:
                arrays[name] = found = _npy.open_memmap(folder / f"{name}.npy", mode="r")
            except Exception as error:  # whatever a damaged header raises
                problems.append(f"{name}.npy: {error}")
                continue
            if (found.shape, found.dtype) != (expected, dtype):
                problems.append(f"{name}.npy: expected {np.dtype(dtype)} {expected}, found {found.dtype} {found.shape}")
            elif name.endswith("labels") and not 0 <= found.min() <= found.max() < len(about["classes"]):
                problems.append(
                    f"{name}.npy: expected classes from 0 to {len(about['classes']) - 1}, "
                    f"found {found.min()} to {found.max()}"
                )
    if problems:
        raise _damaged(folder, problems)
    return Dataset(
        folder,
        about["source"],
        about["description"],
        tuple(about["classes"]),
        about["channels"],
        about["size"],
        about["sha256"],
        Split(arrays["train-images"], arrays["train-labels"]),
        Split(arrays["test-images"], arrays["test-labels"]),
    )


def _damaged(folder: Path, problems: list[str]) -> InvalidInput:
    lines = [f"{folder}: not a prepared dataset, or a damaged one; delete the folder and run again:", *problems]
    return InvalidInput("\n  ".join(lines))


def shuffled(count: int, seed: int, epoch: int) -> Array:
    """A permutation of 0 to count - 1, (count,), int64: the order of one epoch.

    Sorted from raw bits, which NumPy promises never to change; its `permutation` may differ between versions, and
    the frameworks may run with different ones.

    Raises:
        InvalidInput: for a seed or an epoch outside 0 to 2^64 - 1.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64:
            raise InvalidInput(f"{name}: expected a whole number from 0 to 2^64 - 1, got {value!r}")
    # The highest word of the counter keeps this stream away from those that the project starts at counter 0.
    counter = np.array([0, 0, 0, zlib.crc32(b"order")], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64), counter=counter)
    return np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)


def pixels(images: Array, dtype: str, mean: float, std: float) -> Array:
    """(x / 255 - mean) / std of 8-bit images, computed in float64 and rounded once, to `spec.array_dtype(dtype)`.

    Raises:
        InvalidInput: unless images are uint8, `dtype` is a floating type, and the numbers are finite with std > 0.
    """
    table = _table(dtype, mean, std)
    if images.dtype != np.uint8:
        raise InvalidInput(f"images: expected uint8, got {images.dtype}; pixels are turned into numbers only once")
    return np.asarray(table[images])


def _table(dtype: str, mean: float, std: float) -> Array:
    """What each of the 256 values of a pixel becomes, (256,)."""
    problems = []
    if dtype not in ("float32", "float64", "bfloat16"):
        problems.append(f"dtype: expected float32, float64 or bfloat16, got {dtype!r}")
    if not math.isfinite(mean):
        problems.append(f"mean: expected a finite number, got {mean}")
    if not (math.isfinite(std) and std > 0):
        problems.append(f"std: expected a finite number above 0, got {std}")
    if problems:
        raise InvalidInput("; ".join(problems))
    return ((np.arange(256) / 255 - mean) / std).astype(array_dtype(dtype))


def training_batches(
    split: Split,
    batch: int,
    *,
    seed: int,
    epoch: int,
    first: int = 0,
    dtype: str,
    mean: float,
    std: float,
    ahead: int = 4,
) -> _Batches:
    """The batches of one epoch in shuffled order, the last partial one included.

    A thread prepares them while the caller computes; it ends with the generator, also when that is closed early.

    Args:
        split: What to draw from.
        batch: Images in a batch.
        seed: Of the order, with `epoch`.
        epoch: From 0.
        first: Number of the first batch wanted, from 0: a resumed run goes on where it was.
        dtype: That the network computes in; images for ``bfloat16`` are float32.
        mean: Subtracted from pixels of 0 to 1.
        std: What they are divided by then.
        ahead: How many prepared batches may wait in memory.

    Returns:
        Images (batch, C, H, W) and labels (batch,), int64: new arrays that the caller owns.

    Raises:
        InvalidInput: at once, for settings out of range.
    """
    return _batches(split, batch, shuffled(len(split), seed, epoch), first, dtype, mean, std, ahead)


def evaluation_batches(split: Split, batch: int, *, dtype: str, mean: float, std: float, ahead: int = 4) -> _Batches:
    """All images in stored order, as `training_batches` otherwise."""
    return _batches(split, batch, np.arange(len(split)), 0, dtype, mean, std, ahead)


def _batches(
    split: Split, batch: int, order: Array, first: int, dtype: str, mean: float, std: float, ahead: int
) -> _Batches:
    problems = [f"{name}: expected at least 1, got {n}" for name, n in (("batch", batch), ("ahead", ahead)) if n < 1]
    number = math.ceil(len(order) / max(batch, 1))
    if not 0 <= first <= number:
        problems.append(f"first: expected a batch from 0 to {number}, the end of the epoch, got {first}")
    if problems:
        raise InvalidInput("; ".join(problems))
    _table(dtype, mean, std)  # refuses what it cannot take here, and not in the thread

    def prepared() -> Iterator[tuple[Array, Array]]:
        for start in range(first * batch, len(order), batch):
            chosen = order[start : start + batch]
            yield pixels(split.images[chosen], dtype, mean, std), np.asarray(split.labels[chosen])

    return _ahead(prepared(), ahead)


def _ahead(batches: Iterator[tuple[Array, Array]], ahead: int) -> _Batches:
    """The same batches, made by a thread that is at most `ahead` of them, and the one it works on, in front."""
    ready: queue.Queue[Any] = queue.Queue(ahead)  # batches, then None or the exception that ended them
    stop = threading.Event()

    def work() -> None:
        end = None
        try:
            for item in batches:
                ready.put(item)
                if stop.is_set():
                    return
        except BaseException as error:
            end = error
        if not stop.is_set():
            ready.put(end)

    # A daemon, so that a generator nobody closed does not keep the process from ending.
    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        # The thread may be waiting for room. After this it finds some, puts one item at most, and sees `stop`.
        while not ready.empty():
            ready.get_nowait()
        thread.join()
