"""Prepares datasets for training: every picture is decoded and resized once, for all frameworks and epochs.

`prepare` writes a folder of .npy files to the cache; `harness.images.batches` reads it. Images are uint8,
(N, C, H, W), resized by `harness.images.sources`.
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
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from harness.atomic import sync_folder
from harness.images import sources
from harness.images.batches import open_dataset
from harness.images.pictures import Remarks, suffixes
from spec import Array, InvalidInput

_FORMAT = 1  # part of every cache key: raise it when the files of the same source change
_READER = 2  # part of the key of a folder of pictures: raise it when the same file becomes other pixels
# Source: github.com/zalandoresearch/fashion-mnist, README.
_FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}  # names of parts, and not of classes
_NAMED = 20  # largest number of files in one error message
_npy: Any = np.lib.format  # NumPy 1.26 has no types for it


@dataclass(frozen=True)
class _Part:
    """The training or the test images of a source."""

    labels: Sequence[int] | Array
    pictures: Sequence[Path] | Array  # files, or grey images (N, height, width), uint8


@dataclass(frozen=True)
class _Source:
    """A source whose images are not decoded yet."""

    kind: str  # in the name of the cache folder
    name: str  # `prepare` takes it
    description: str
    classes: tuple[str, ...]
    identity: object  # JSON; identity, channels and size decide the content
    parts: Callable[[], dict[str, _Part]]  # train and test


def prepare(
    source: str,
    channels: int,
    size: int,
    data_dir: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The folder of a source for `harness.images.batches.open_dataset`; it is made if it does not exist.

    The folder gets its name when it is complete: no other process sees a part of it, and a killed process leaves none.

    `source` is ``digits``, ``fashion-mnist``, or ``folder:PATH``, a folder with one subfolder of pictures a class.
    `data_dir` is as in `sources.fashion_mnist`. `progress` takes the number of images done and their total, if the
    folder has to be made.

    Raises:
        InvalidInput: when the source does not exist or cannot be read, or the cache cannot be written.
    """
    sources.check_pictures(channels, size)
    origin = _find(source, data_dir)
    key = hashlib.sha256(json.dumps([_FORMAT, origin.identity]).encode()).hexdigest()[:12]
    folder = sources.cache_folder() / "prepared" / f"{origin.kind}-{channels}x{size}x{size}-{key}"
    with _cache_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        ready = folder.exists()
    if not ready:
        _make(folder, origin, channels, size, progress)
    open_dataset(folder)  # refuses a damaged folder
    return folder


def _find(source: str, data_dir: Path | None) -> _Source:
    if source == "digits":
        return _Source("digits", source, "scikit-learn's handwritten digits", tuple("0123456789"), source, _digits)
    if source == "fashion-mnist":
        # The files have checksums, so the name alone is the identity.
        return _Source(
            source, source, "Fashion-MNIST", tuple(_FASHION_CLASSES), source, lambda: _fashion_mnist(data_dir)
        )
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
    return {"train": _Part(labels[~test], pixels[~test]), "test": _Part(labels[test], pixels[test])}


def _fashion_mnist(data_dir: Path | None) -> dict[str, _Part]:
    parts = {}
    for name, official in (("train", "train"), ("test", "t10k")):
        pixels, labels = sources.fashion_mnist(official, data_dir)
        parts[name] = _Part(labels, pixels)
    return parts


def _pictures(folder: Path) -> _Source:
    """A folder with one subfolder a class; a fifth of each class, rounded up, are test images.

    They come first in the order of the SHA-256 of their paths. This order is as good as random and the same on every
    machine, and a picture that is added later moves few others to the other part.
    """
    try:
        folder = folder.resolve()
        subfolders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        classes = {path.name: _picture_files(path) for path in subfolders}
        outside = sorted(path.name for path in folder.iterdir() if _is_picture(path))
        identity = []
        for path in chain(*classes.values()):
            stat = path.stat()
            identity.append((_relative(path, folder), stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise InvalidInput(
            f"folder:{folder}: expected a folder with one subfolder of pictures a class, and it cannot be read "
            f"({error.strerror})"
        ) from error
    _check_classes(folder, classes, outside)

    labels: dict[str, list[int]] = {"train": [], "test": []}
    pictures: dict[str, list[Path]] = {"train": [], "test": []}
    for label, paths in enumerate(classes.values()):
        ordered = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(_relative(path, folder))).digest())
        fifth = -(-len(ordered) // 5)
        for part, chosen in (("train", ordered[fifth:]), ("test", ordered[:fifth])):
            labels[part] += [label] * len(chosen)
            pictures[part] += chosen
    return _Source(
        kind="folder",
        name=f"folder:{folder}",
        description=f"pictures in {folder}",
        classes=tuple(classes),
        identity=[_READER, str(folder), identity],
        parts=lambda: {part: _Part(labels[part], pictures[part]) for part in labels},
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in suffixes() and not path.name.startswith(".") and path.is_file()


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
        expected = ", ".join(sorted(suffixes()))
        problems.append(
            f"expected at least 2 pictures ({expected}) a class, one to train on and one to test: too few in "
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
    """The first lines, and the number of the others."""
    more = len(lines) - _NAMED
    return [*lines[:_NAMED], *([f"and {more:,} more"] if more > 0 else [])]


def _make(folder: Path, source: _Source, channels: int, size: int, progress: Callable[[int, int], None]) -> None:
    """Write a folder under another name, and rename it when it is complete."""
    parts = source.parts()
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        with _cache_of(folder):
            unfinished.mkdir()
            sha256 = _write_images(unfinished, parts, channels, size, progress)
            about = {
                "source": source.name,
                "description": source.description,
                "classes": source.classes,
                "channels": channels,
                "size": size,
                **{name: len(part.labels) for name, part in parts.items()},
                "sha256": sha256,
            }
            with _synced(unfinished / "dataset.json") as file:
                file.write(json.dumps(about, indent=1).encode())
            _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_images(
    unfinished: Path, parts: dict[str, _Part], channels: int, size: int, progress: Callable[[int, int], None]
) -> str:
    """Write images and labels, and return the SHA-256 of all of them.

    Files are written and not mapped into memory: a full disk is then an error, and does not kill the process.
    """
    total = sum(len(part.labels) for part in parts.values())
    digest = hashlib.sha256()
    done = 0
    unreadable = []
    for name, part in parts.items():
        with _synced(unfinished / f"{name}-images.npy") as file:
            shape = (len(part.labels), channels, size, size)
            _npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for picture in part.pictures:
                try:
                    image = _decoded(picture, channels, size).tobytes()
                except InvalidInput as error:
                    unreadable.append(str(error))
                else:
                    file.write(image)
                    digest.update(image)
                done += 1
                if done % 100 == 0 or done == total:
                    progress(done, total)
        with _synced(unfinished / f"{name}-labels.npy") as file:
            labels = np.asarray(part.labels, dtype=np.int64)
            _npy.write_array(file, labels)
            digest.update(labels.tobytes())
    if unreadable:
        lines = "\n  ".join(_shortened(sorted(unreadable)))
        raise InvalidInput(f"not a picture that can be read; mend or remove it:\n  {lines}")
    return digest.hexdigest()


def _decoded(picture: Path | Array, channels: int, size: int) -> Array:
    if isinstance(picture, Path):
        return sources.read_picture(picture, channels, size, Remarks())
    return sources.resized(Image.fromarray(picture), channels, size)


def _publish(unfinished: Path, folder: Path) -> None:
    """Rename the folder, unless another process has made the same folder already."""
    sync_folder(unfinished)
    try:
        unfinished.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    sync_folder(folder.parent)


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A new file; it is on the disk after the context."""
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _cache_of(folder: Path) -> Iterator[None]:
    """A context in which an `OSError` concerns the cache."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"{folder}: cannot hold the prepared images ({error.strerror or error}); make room or make it "
            "writable, or set XDG_CACHE_HOME to a folder on another disk"
        ) from error
