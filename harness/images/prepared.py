"""Datasets made ready for training: every picture decoded and resized once, for all frameworks and all epochs.

`prepare` leaves a folder of plain .npy files in the cache. `harness.images.batches` maps them into memory, which takes
NumPy only. Images are uint8, (N, C, H, W), resized by `harness.images.sources`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from harness.atomic import sync_folder
from harness.images import sources
from harness.images.batches import open_dataset
from spec import Array, InvalidInput

_FORMAT = 1  # part of every cache key: raise it whenever the same source would be written differently
_FASHION_CLASSES = (  # Source: github.com/zalandoresearch/fashion-mnist, README.
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}  # names that are no classes
_NAMED = 20  # files in one error message
_npy: Any = np.lib.format  # NumPy 1.26 has no types for it


@dataclass(frozen=True)
class _Part:
    """Labels (N,), int64, and how image 0 to N - 1 is read: index, channels and size in, (C, H, W), uint8, out."""

    labels: Array
    read: Callable[[int, int, int], Array]


@dataclass(frozen=True)
class _Source:
    """What can be known of a source without decoding it."""

    kind: str  # in the name of the cache folder
    name: str  # what `prepare` takes to find it again
    description: str
    classes: tuple[str, ...]
    identity: object  # JSON: with kind, channels and size, all that decides the content
    parts: Callable[[], dict[str, _Part]]  # train and test


def prepare(
    source: str,
    channels: int,
    size: int,
    data_dir: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The folder with a source's images, ready for `harness.images.batches.open_dataset`; made if it is not there.

    It appears under its name when it is complete: neither a killed process nor a second one at work at the same time
    can leave or see a part of it.

    Args:
        source: ``digits``, ``fashion-mnist``, or ``folder:PATH``, a folder with one subfolder of pictures a class.
        channels: 1 for grey, 3 for RGB.
        size: Side in pixels.
        data_dir: Where the four Fashion-MNIST files lie; None for the cache, which is filled by a download.
        progress: Called now and then with the images done and the images in all; not where there is nothing to do.

    Raises:
        InvalidInput: when the source does not exist or cannot be read, or the cache cannot be written.
    """
    problems = [] if channels in (1, 3) else [f"pictures have 1 or 3 channels; this network takes {channels}"]
    if size < 1:
        problems.append(f"size: expected at least 1 pixel, got {size}")
    if problems:
        raise InvalidInput("; ".join(problems))
    found = _find(source, data_dir)
    key = hashlib.sha256(json.dumps([_FORMAT, found.identity]).encode()).hexdigest()[:12]
    folder = sources.cache_folder() / "prepared" / f"{found.kind}-{channels}x{size}x{size}-{key}"
    with _cache_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        ready = folder.exists()
    if not ready:
        _make(folder, found, channels, size, progress)
    open_dataset(folder)  # refuses a damaged one
    return folder


def _find(source: str, data_dir: Path | None) -> _Source:
    if source == "digits":
        return _Source("digits", source, "scikit-learn's handwritten digits", tuple("0123456789"), source, _digits)
    if source == "fashion-mnist":
        # The files are checksummed, so the name says what they hold, wherever they lie.
        return _Source(source, source, "Fashion-MNIST", _FASHION_CLASSES, source, lambda: _fashion_mnist(data_dir))
    if source.startswith("folder:") and source != "folder:":
        return _pictures(Path(source.removeprefix("folder:")))
    hint = f"; to train on the pictures in that folder, write folder:{source}" if Path(source).is_dir() else ""
    raise InvalidInput(
        "data: expected digits, fashion-mnist, or folder:PATH for a folder with one subfolder of pictures a class, "
        f"got {source!r}{hint}"
    )


def _digits() -> dict[str, _Part]:
    """Every sixth digit is a test image: 1,498 and 299."""
    pixels, labels = sources.digits()
    test = np.arange(len(labels)) % 6 == 5
    return {"train": _decoded(pixels[~test], labels[~test]), "test": _decoded(pixels[test], labels[test])}


def _fashion_mnist(data_dir: Path | None) -> dict[str, _Part]:
    return {
        "train": _decoded(*sources.fashion_mnist("train", data_dir)),
        "test": _decoded(*sources.fashion_mnist("t10k", data_dir)),
    }


def _decoded(pixels: Array, labels: Array) -> _Part:
    """Grey images (N, height, width), uint8, that are in memory already."""
    return _Part(
        labels.astype(np.int64),
        lambda index, channels, size: sources.resized(Image.fromarray(pixels[index]), channels, size),
    )


def _pictures(folder: Path) -> _Source:
    """A folder with one subfolder a class; of each class the first fifth, rounded up, are test images.

    The first by the SHA-256 of their paths: as good as chance, the same everywhere, and a picture that is added later
    moves few others to the other part.
    """
    try:
        folder = folder.resolve()
        classes = {path.name: _picture_files(path) for path in sorted(folder.iterdir()) if _is_class(path)}
        outside = sorted(path.name for path in folder.iterdir() if _is_picture(path))
        files = [path for paths in classes.values() for path in paths]
        identity = [(_relative(path, folder), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    except OSError as error:
        raise InvalidInput(
            f"folder:{folder}: expected a folder with one subfolder of pictures a class, and it cannot be read "
            f"({error.strerror})"
        ) from error
    _check_classes(folder, classes, outside)

    train: list[tuple[int, Path]] = []
    test: list[tuple[int, Path]] = []
    for label, paths in enumerate(classes.values()):
        ordered = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(_relative(path, folder))).digest())
        fifth = -(-len(ordered) // 5)
        test += [(label, path) for path in ordered[:fifth]]
        train += [(label, path) for path in ordered[fifth:]]
    return _Source(
        "folder",
        f"folder:{folder}",
        f"pictures in {folder}",
        tuple(classes),
        [str(folder), identity],
        lambda: {"train": _on_disk(train), "test": _on_disk(test)},
    )


def _on_disk(pictures: Sequence[tuple[int, Path]]) -> _Part:
    """Pictures, by label and path, that are decoded one at a time."""
    return _Part(
        np.array([label for label, _ in pictures], dtype=np.int64),
        lambda index, channels, size: sources.read_picture(pictures[index][1], channels, size),
    )


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in sources.PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _picture_files(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, except hidden ones."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if _is_picture(path) and not any(name.startswith(".") for name in path.relative_to(folder).parts)
    ]


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _check_classes(folder: Path, classes: dict[str, list[Path]], outside: Sequence[str]) -> None:
    if classes and {name.lower() for name in classes} <= _PARTS:
        example = max(classes, key=lambda name: name.lower().startswith("train"))
        raise InvalidInput(
            f"folder:{folder}: expected one subfolder a class, found {', '.join(classes)}, which would become the "
            f"classes; name one of them, as in folder:{folder / example}: a test part is split off it"
        )
    problems = []
    if len(classes) < 2:
        problems.append(f"expected at least 2 subfolders, one a class, found {', '.join(classes) or 'none'}")
    few = [f"{name} ({len(paths)})" for name, paths in classes.items() if len(paths) < 2]
    if few:
        known = ", ".join(sorted(sources.PICTURE_SUFFIXES))
        problems.append(
            f"expected at least 2 pictures ({known}) a class, one to train on and one to test: too few in "
            f"{', '.join(few)}"
        )
    if outside:
        problems.append(
            "pictures outside the class folders; move each into the folder of its class:\n    "
            + "\n    ".join(_shortened(outside))
        )
    if problems:
        raise InvalidInput("\n  ".join([f"folder:{folder}: not a folder with one subfolder a class:", *problems]))


def _shortened(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many there are beyond."""
    more = len(lines) - _NAMED
    return [*lines[:_NAMED], *([f"and {more:,} more"] if more > 0 else [])]


def _make(folder: Path, found: _Source, channels: int, size: int, progress: Callable[[int, int], None]) -> None:
    """Write the folder under a name of its own, and give it its name when it is complete."""
    parts = found.parts()
    total = sum(len(part.labels) for part in parts.values())
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        for done in _write(unfinished, folder, found, parts, channels, size):
            if done % 100 == 0 or done == total:
                progress(done, total)
        with _cache_of(folder):
            _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(
    unfinished: Path, folder: Path, found: _Source, parts: dict[str, _Part], channels: int, size: int
) -> Iterator[int]:
    """Fill the folder, and yield after each image how many have been done.

    Plain writing and no memory map: where the disk is full that is an error, and not the end of the process.
    """
    digest = hashlib.sha256()
    done = 0
    unreadable = []
    with _cache_of(folder):
        unfinished.mkdir()
        for name, part in parts.items():
            with _synced(unfinished / f"{name}-images.npy") as file:
                shape = (len(part.labels), channels, size, size)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                _npy.write_array_header_1_0(file, header)
                for index in range(len(part.labels)):
                    try:
                        image = part.read(index, channels, size).tobytes()
                    except InvalidInput as error:
                        unreadable.append(str(error))
                    else:
                        file.write(image)
                        digest.update(image)
                    done += 1
                    yield done
            with _synced(unfinished / f"{name}-labels.npy") as file:
                _npy.write_array(file, part.labels)
                digest.update(part.labels.tobytes())
        if unreadable:
            lines = "\n  ".join(_shortened(sorted(unreadable)))
            raise InvalidInput(f"not a picture that can be read; mend or remove it:\n  {lines}")
        about: dict[str, Any] = {
            "source": found.name,
            "description": found.description,
            "classes": found.classes,
            "channels": channels,
            "size": size,
            **{name: len(part.labels) for name, part in parts.items()},
            "sha256": digest.hexdigest(),
        }
        with _synced(unfinished / "dataset.json") as file:
            file.write(json.dumps(about, indent=1).encode())


def _publish(unfinished: Path, folder: Path) -> None:
    """Rename the folder, unless another process was first: then there is the same under that name already."""
    sync_folder(unfinished)
    try:
        unfinished.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(folder.parent)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when it is closed."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _cache_of(folder: Path) -> Iterator[None]:
    """Within it every failure to read or write is one of the cache."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"{folder}: the prepared images cannot be kept there ({error.strerror or error}); make room or make it "
            "writable, or set XDG_CACHE_HOME to a folder on another disk"
        ) from error
