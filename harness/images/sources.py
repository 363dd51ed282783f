"""Real images as NumPy batches: handwritten digits, Fashion-MNIST, or the user's pictures.

Pillow resizes every picture once (bilinear, on 8-bit pixels), so that all backends see the same numbers.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from harness.atomic import StrPath
from harness.images.framing import framed
from harness.images.pictures import Remarks, pictures_in, read, unreadable
from harness.shown import shown
from spec import Array, Config, InvalidInput

# The official files: name, MD5 and shape. Source: github.com/zalandoresearch/fashion-mnist, README.
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_FILES = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", (60000, 28, 28)),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", (60000,)),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", (10000, 28, 28)),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", (10000,)),
}
_DEFAULT_COUNT = 4  # images: enough for batch norm, few enough for the referee


@dataclass(frozen=True)
class Batch:
    """Images (N, C, H, W), float64, from 0 to 1 or as prepared; labels (N,), int64; the name of their source.

    `remarks` are lines for the user on how the pictures were read.
    """

    images: Array
    labels: Array
    source: str
    remarks: tuple[str, ...] = ()


def load_batch(
    sources: Sequence[str],
    config: Config,
    size: int,
    count: int | None,
    data_dir: StrPath | None = None,
    prepare: Callable[[Image.Image], Array] | None = None,
) -> Batch:
    """The first images of a source, with the network's channels.

    `sources` is ``["digits"]``, ``["fashion-mnist"]``, one folder of pictures, or picture files. Pictures have no
    labels; they get the network's classes in turn. Without `count` there are four images (fewer, if a folder holds
    fewer), or all of the picture files. `prepare` makes an image of a picture where it is not `resized`, from 0 to 1.

    Raises:
        InvalidInput: when the source does not exist, cannot be read, or holds too few images.
    """
    data_dir = None if data_dir is None else Path(data_dir)
    if count is not None and count < 1:
        raise InvalidInput(f"batch: expected at least 1 image, got {count}")
    check_pictures(config.in_channels, size)
    number = count or _DEFAULT_COUNT
    made = prepare or (lambda picture: resized(picture, config.in_channels, size) / 255)
    remarks = Remarks()
    lines: list[str] = []
    if list(sources) in (["digits"], ["fashion-mnist"]):
        if sources[0] == "digits":
            pixels, labels = digits()
            source = "scikit-learn's handwritten digits"
        else:
            pixels, labels = fashion_mnist("t10k", data_dir)
            source = "Fashion-MNIST, test images"
        pictures = [made(Image.fromarray(x)) for x in pixels[:number]]
    else:
        paths, source, lines = _picture_paths(sources)
        if count is None:
            number = min(len(paths), _DEFAULT_COUNT) if Path(sources[0]).is_dir() else len(paths)
        pictures = _read_all(paths[:number], made, remarks)
        labels = np.arange(len(pictures)) % config.num_classes
    if len(pictures) < number:
        raise InvalidInput(f"{source}: expected at least {number} images (--batch), found {len(pictures)}")
    chosen = np.asarray(labels[:number], dtype=np.int64)
    return Batch(np.stack(pictures), chosen, source, (*lines, *remarks.lines()))


def check_pictures(channels: int, size: int) -> None:
    """Refuse a shape that no picture has.

    Raises:
        InvalidInput: for other than 1 or 3 channels, or a side below 1 pixel.
    """
    problems = [] if channels in (1, 3) else [f"pictures have 1 or 3 channels; this network takes {channels}"]
    if size < 1:
        problems.append(f"size: expected at least 1 pixel, got {size}")
    if problems:
        raise InvalidInput("; ".join(problems))


def digits() -> tuple[Array, Array]:
    """Images (1797, 8, 8), uint8, and labels (1797,) of scikit-learn's digits; 0 to 16 becomes 0 to 255."""
    table = np.loadtxt(scikit_learn("data/digits.csv.gz"), delimiter=",", dtype=np.int64)
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8), table[:, -1]


def scikit_learn(name: str) -> Path:
    """A file or folder of `sklearn.datasets`, without importing it: that takes two seconds.

    Raises:
        InvalidInput: when scikit-learn is not installed, or does not have it.
    """
    package = find_spec("sklearn")
    path = Path(package.origin or "").parent / "datasets" / name if package else None
    if path is None or not path.exists():
        raise InvalidInput(f"expected scikit-learn, which comes with {name}: pip install scikit-learn")
    return path


def _picture_paths(sources: Sequence[str]) -> tuple[list[Path], str, list[str]]:
    """The files, a name for all of them, and lines for the user."""
    paths = [Path(source) for source in sources]
    missing = [shown(path) for path in paths if not path.exists()]
    if missing:
        raise InvalidInput(
            f"data: expected digits, fashion-mnist, a folder or picture files, and there is no {', '.join(missing)}"
        )
    if len(paths) == 1 and paths[0].is_dir():
        pictures, lines = pictures_in(paths[0])
        return pictures, f"pictures in {shown(paths[0])}", lines
    if any(path.is_dir() for path in paths):
        named = ", ".join(map(shown, paths))
        raise InvalidInput(f"data: expected one folder, or picture files only, got {named}")
    return paths, ", ".join(shown(path.name) for path in paths), []


def _read_all(paths: Sequence[Path], made: Callable[[Image.Image], Array], remarks: Remarks) -> list[Array]:
    """What is made of the picture in each file; one error names every file that cannot be read."""
    pictures = []
    problems = []
    for path in paths:
        try:
            pictures.append(made(read(path, str(path), remarks)))
        except InvalidInput as error:
            problems.append(str(error))
    if problems:
        raise unreadable(problems)
    return pictures


def resized(picture: Image.Image, channels: int, size: int) -> Array:
    """(channels, size, size), uint8, contiguous: all of the picture, by Pillow's bilinear filter."""
    return framed(picture, channels, size)


def fashion_mnist(part: str, data_dir: StrPath | None = None) -> tuple[Array, Array]:
    """Images (N, 28, 28), uint8, and labels (N,) of ``train`` or ``t10k``, the parts of Fashion-MNIST.

    Without `data_dir`, the folder of the four official files, they come from the cache, which a download fills.

    Raises:
        InvalidInput: when a file is missing, or is not the official one.
    """
    data_dir = None if data_dir is None else Path(data_dir)
    arrays = []
    for name in (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"):
        path = _cached(name) if data_dir is None else data_dir / name
        if not path.is_file():
            expected = ", ".join(_FASHION_FILES)
            raise InvalidInput(f"{path}: no such file; expected a folder with the four files {expected}")
        arrays.append(_read_idx(path))
    return arrays[0], arrays[1]


def _read_idx(path: Path) -> Array:
    """The array in one of the official files. The checksum is compared before the file is unpacked."""
    expected, shape = _FASHION_FILES[path.name]
    packed = path.read_bytes()
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    if md5 != expected:
        raise InvalidInput(
            f"{path}: not the official file (MD5 expected {expected}, found {md5}, {len(packed):,} bytes): truncated, "
            "or other data under the same name, such as plain MNIST; it is unchanged: replace it by the official one"
        )
    header = 4 + 4 * len(shape)
    return np.frombuffer(gzip.decompress(packed), np.uint8, offset=header).reshape(shape)


def _cached(name: str) -> Path:
    """The file in the cache. pooch downloads it if it is missing or damaged, and compares the checksum."""
    import pooch  # slow to import

    pooch.get_logger().setLevel("WARNING")
    md5, _ = _FASHION_FILES[name]
    folder = cache_folder() / "fashion-mnist"
    try:
        return Path(pooch.retrieve(_FASHION_URL + name, f"md5:{md5}", fname=name, path=folder, progressbar=True))
    except Exception as error:  # the network raises all kinds of errors
        raise InvalidInput(
            f"could not download {_FASHION_URL}{name} ({error}); put the four files {', '.join(_FASHION_FILES)} into "
            "a folder and name it with --data-dir or $GOOGLENET_DATA, or use --data digits"
        ) from error


def cache_folder() -> Path:
    """The folder for files that can be made or downloaded again: below $XDG_CACHE_HOME, if that is set."""
    import pooch

    return Path(pooch.os_cache("googlenet"))
