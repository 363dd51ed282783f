"""Prepares datasets for training: every picture is decoded and resized once, for all frameworks and epochs.

`prepare` writes a folder of .npy files to the cache; `harness.images.batches` reads it. Images are uint8,
(N, C, H, W), cut and resized by `harness.images.framing`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from harness.atomic import StrPath, sync_folder, temporary_folder
from harness.images import sources
from harness.images.batches import open_dataset
from harness.images.folders import read_folder
from harness.images.framing import framed
from harness.images.pictures import LEAVE_OUT, Remarks, listing, read, unreadable
from harness.shown import shown
from spec import Array, InvalidInput

_FORMAT = 1  # part of every cache key: raise it when the files of the same source change
_READER = 2  # part of the key of a folder of pictures: raise it when the same file becomes other pixels
# Source: github.com/zalandoresearch/fashion-mnist, README.
_FASHION_CLASSES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
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
    lines: Sequence[str] = ()  # for the user, on what the source holds


def prepare(
    source: str,
    channels: int,
    size: int,
    data_dir: StrPath | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    say: Callable[[Sequence[str]], None] = lambda lines: None,
    skip_damaged: bool = False,
    classes: Sequence[str] = (),
    frame: Mapping[str, Any] | None = None,
) -> Path:
    """The folder of a source for `harness.images.batches.open_dataset`; it is made if it does not exist.

    The folder gets its name when it is complete: no other process sees a part of it, and a killed process leaves none.

    Args:
        source: ``digits``, ``fashion-mnist``, or ``folder:PATH``, a folder as in `harness.images.folders`.
        channels: 1 or 3.
        size: Side of the images in pixels.
        data_dir: As in `sources.fashion_mnist`.
        progress: Takes the number of images done and their total, if the folder has to be made.
        say: Takes lines on what a user should know of the source and how its pictures were read.
        skip_damaged: Leave out pictures that cannot be read.
        classes: An order of the classes to keep, as in `read_folder`.
        frame: How pictures are cut and resized, as in `harness.images.framing.framed`, if not whole; JSON.

    Raises:
        InvalidInput: when the source does not exist or cannot be read, or the cache cannot be written.
    """
    data_dir = None if data_dir is None else Path(data_dir)
    sources.check_pictures(channels, size)
    origin = _find(source, data_dir, classes)
    identity = [_FORMAT, origin.identity, *([frame] if frame else [])]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
    folder = sources.cache_folder() / "prepared" / f"{origin.kind}-{channels}x{size}x{size}-{key}"
    with _cache_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        ready = folder.exists()
    if not ready:
        cut = partial(framed, channels=channels, size=size, **(frame or {}))
        _make(folder, origin, channels, size, cut, progress, skip_damaged)
    made = open_dataset(folder)  # refuses a damaged folder
    if made.damaged and not skip_damaged:
        raise unreadable(made.damaged, LEAVE_OUT)
    damaged = [f"left out, cannot be read: {listing(made.damaged, between='; ')}"] if made.damaged else []
    say([*origin.lines, *made.remarks, *damaged])
    return folder


def _find(source: str, data_dir: Path | None, classes: Sequence[str]) -> _Source:
    if source == "digits":
        return _Source("digits", source, "scikit-learn's handwritten digits", tuple("0123456789"), source, _digits)
    if source == "fashion-mnist":
        # The files have checksums, so the name alone is the identity.
        return _Source(
            source, source, "Fashion-MNIST", tuple(_FASHION_CLASSES), source, lambda: _fashion_mnist(data_dir)
        )
    if source.startswith("folder:") and source != "folder:":
        return _pictures(Path(source.removeprefix("folder:")), classes)
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


def _pictures(folder: Path, classes: Sequence[str]) -> _Source:
    content = read_folder(folder, classes)
    return _Source(
        kind="folder",
        name=f"folder:{content.path}",
        description=f"pictures in {content.path}",
        classes=content.classes,
        identity=[_READER, content.identity()],
        parts=lambda: {
            name: _Part([label for label, _ in part], [path for _, path in part])
            for name, part in content.parts.items()
        },
        lines=content.lines,
    )


def _make(
    folder: Path,
    source: _Source,
    channels: int,
    size: int,
    cut: Callable[[Image.Image], Array],
    progress: Callable[[int, int], None],
    skip_damaged: bool,
) -> None:
    """Write a folder in a temporary one, and move it to its place when it is complete."""
    parts = source.parts()
    total = sum(len(part.labels) for part in parts.values())
    with _cache_of(folder):
        _check_room(folder.parent, total * channels * size * size)
        with temporary_folder(folder.parent) as temporary:
            unfinished = temporary / folder.name
            unfinished.mkdir()
            written = _write_images(unfinished, parts, (channels, size, size), cut, progress)
            if written.damaged and not skip_damaged:
                raise unreadable(written.damaged, LEAVE_OUT)
            if written.damaged:
                _check_left(written, source.classes)
            about = {
                "source": source.name,
                "description": source.description,
                "classes": source.classes,
                "channels": channels,
                "size": size,
                **{name: len(labels) for name, labels in written.labels.items()},
                "sha256": written.sha256,
                "remarks": written.remarks.lines(),
                "damaged": written.damaged,
            }
            with _synced(unfinished / "dataset.json") as file:
                file.write(json.dumps(about, indent=1).encode())
            _publish(unfinished, folder)


@dataclass
class _Written:
    """What the files of a dataset hold."""

    labels: dict[str, Array] = field(default_factory=dict)  # of each part
    sha256: str = ""  # of all images and labels
    remarks: Remarks = field(default_factory=Remarks)
    damaged: list[str] = field(default_factory=list)  # pictures that are left out, and why


def _check_left(written: _Written, classes: Sequence[str]) -> None:
    """No class may be lost with the pictures that are left out."""
    lost = sorted(set(range(len(classes))) - set(written.labels["train"].tolist()))
    problems = [f"expected training images of every class, found none that can be read of {classes[i]}" for i in lost]
    if not len(written.labels["test"]):
        problems.append("expected test images, found none that can be read")
    if problems:
        raise unreadable([*map(shown, problems), *written.damaged])


def _check_room(folder: Path, size: int) -> None:
    """Refuse to begin what the disk cannot hold, in bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InvalidInput(
            f"{folder}: the prepared images take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; make room, or "
            "set XDG_CACHE_HOME to a folder on another disk"
        )


def _write_images(
    unfinished: Path,
    parts: dict[str, _Part],
    shape: tuple[int, int, int],
    cut: Callable[[Image.Image], Array],
    progress: Callable[[int, int], None],
) -> _Written:
    """Write images and labels, without the pictures that cannot be read.

    Files are written and not mapped into memory: a full disk is then an error, and does not kill the process.
    """
    total = sum(len(part.labels) for part in parts.values())
    digest = hashlib.sha256()
    written = _Written()
    done = 0
    for name, part in parts.items():
        labels = []
        with _synced(unfinished / f"{name}-images.npy") as file:
            _write_header(file, (len(part.labels), *shape))
            for label, picture in zip(part.labels, part.pictures, strict=True):
                try:
                    image = _pixels(cut(_decoded(picture, written.remarks))).tobytes()
                except InvalidInput as error:
                    written.damaged.append(str(error))
                else:
                    file.write(image)
                    digest.update(image)
                    labels.append(label)
                done += 1
                if done % 100 == 0 or done == total:
                    progress(done, total)
            file.seek(0)
            _write_header(file, (len(labels), *shape))
        with _synced(unfinished / f"{name}-labels.npy") as file:
            written.labels[name] = np.asarray(labels, dtype=np.int64)
            _npy.write_array(file, written.labels[name])
            digest.update(written.labels[name].tobytes())
    written.sha256 = digest.hexdigest()
    return written


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """NumPy's header; it has room for another number of images."""
    _npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _decoded(picture: Path | Array, remarks: Remarks) -> Image.Image:
    return read(picture, str(picture), remarks) if isinstance(picture, Path) else Image.fromarray(picture)


def _pixels(image: Array) -> Array:
    """In 8 bits, also where the filter does not round."""
    return image if image.dtype == np.uint8 else np.rint(image).astype(np.uint8)


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
