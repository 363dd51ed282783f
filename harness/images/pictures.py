"""Reads picture files as a viewer shows them: upright, over white, 8 bits a channel. The one reader of every command.

Files come from outside: only the formats listed here are opened, and whatever goes wrong names the file.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.atomic import StrPath
from harness.shown import shown
from spec import InvalidInput

_FORMATS = {  # Pillow's names: the suffixes
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}


class _Plugin(NamedTuple):
    """A package that teaches Pillow a format."""

    package: str
    module: str  # importing it is enough
    suffixes: tuple[str, ...]


_PLUGINS = {
    "HEIF": _Plugin("pillow-heif", "pillow_heif.HeifImagePlugin", (".heic", ".heif")),
    "JXL": _Plugin("pillow-jxl-plugin", "pillow_jxl", (".jxl",)),
}
_SYSTEM = {"__macosx", "@eadir", "thumbs.db", "desktop.ini"}  # what systems leave among pictures
_NAMED = 20  # largest number of files in one message
_EXAMPLES = 3  # names in a remark
LEAVE_OUT = "mend or remove it, or leave it out with --skip-damaged"
_BYTES_A_PIXEL = 20  # the most that reading takes: as decoded, with alpha, over white
_BLANK = 8  # of 255: a picture whose values differ less shows nothing
_TURNS = {  # EXIF's orientations
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 274  # its tag
# What stands at the start of files: of formats that are read, of those of the plugins, and of others.
_OURS = {
    "AVIF": (b"\0\0\0 ftypavif",),
    "GIF": (b"GIF8",),
    "JPEG": (b"\xff\xd8",),
    "PNG": (b"\x89PNG",),
    "TIFF": (b"II*\0", b"MM\0*"),
}
_HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"))
_OTHERS = {
    b"%PDF": "a PDF document; save its page as PNG",
    b"%!PS": "PostScript; save it as PNG",
    b"\xc5\xd0\xd3\xc6": "PostScript (EPS); save it as PNG",
    b"8BPS": "a Photoshop document; save it as PNG",
    b"DDS ": "a DirectDraw surface; save it as PNG",
    b"BLP": "a BLP texture; save it as PNG",
    b"\0\0\1\0": "an icon; save it as PNG",
    b"<svg": "an SVG drawing; save it as PNG",
    b"<?xml": "an XML document, such as an SVG drawing; save it as PNG",
    b"<!": "a web page; download the picture itself",
    b"<html": "a web page; download the picture itself",
    b"PK\3\4": "a zip archive; unpack it",
    b"\x1f\x8b": "a file packed by gzip; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the picture",
    b"\0\5\x16\7": "what macOS keeps beside a file; remove it",
}
Image.MAX_IMAGE_PIXELS = None  # the limit is ours, `_check_size`: what memory allows


class Remarks:
    """What a user should know of how pictures were read: each remark with the names of its pictures."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, remark: str, name: str) -> None:
        self._names.setdefault(remark, []).append(name)

    def lines(self) -> list[str]:
        """A line for each remark, with the first names and the number of the others."""
        return [f"{remark}: {listing(names, _EXAMPLES)}" for remark, names in self._names.items()]


def listing(names: Sequence[str], most: int = _NAMED, between: str = ", ") -> str:
    """The first names, and the number of the others."""
    more = len(names) - most
    return between.join([*map(shown, names[:most]), *([f"and {more:,} more"] if more > 0 else [])])


def unreadable(problems: Sequence[str], remedy: str = "mend or remove it") -> InvalidInput:
    """The error for pictures that `read` refused: one line for one, and a list for several."""
    what = "not a picture that can be read"
    if len(problems) == 1:
        return InvalidInput(f"{what} ({remedy}): {problems[0]}")
    return InvalidInput(f"{what}; {remedy}:\n  " + listing(sorted(problems), between="\n  "))


# ------------------------------------------------------------------------------------------------------- folders


def suffixes() -> set[str]:
    """The suffixes of the formats that can be read here, in small letters."""
    plugins = [plugin.suffixes for plugin in _PLUGINS.values() if _installed(plugin)]
    return {suffix for group in (*_FORMATS.values(), *plugins) for suffix in group}


@cache
def _installed(plugin: _Plugin) -> bool:
    return importlib.util.find_spec(plugin.module.split(".")[0]) is not None


def ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system left."""
    return name.startswith(".") or name.lower() in _SYSTEM


def find(folder: StrPath) -> tuple[list[Path], Counter[str]]:
    """Every picture in a folder and below it, sorted, and how many other files there are of each suffix.

    Neither counts what is `ignored`. Links to folders are not followed; they count as others.

    Raises:
        OSError: when a folder cannot be read.
    """
    folder = Path(folder)
    known = suffixes()
    pictures = []
    others: Counter[str] = Counter()
    for root, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not ignored(name)]
        others["links to folders"] += sum(Path(root, name).is_symlink() for name in folders)
        for path in (Path(root, name) for name in files if not ignored(name)):
            suffix = path.suffix.lower()
            if suffix in known:
                pictures.append(path)
            else:
                others[suffix] += 1
    return sorted(pictures), +others


def _raise(error: OSError) -> NoReturn:
    raise error


def left_out(others: Counter[str]) -> str:
    """``9 .heic files, 1 without suffix``, and the package that reads them; empty where nothing was left out."""
    words = []
    for suffix, count in others.most_common():
        if suffix.startswith("."):
            words.append(f"{count:,} {shown(suffix)} file{'s' * (count > 1)}")
        else:
            words.append(f"{count:,} {suffix}" if suffix else f"{count:,} without suffix")
    for plugin in _PLUGINS.values():
        if lacking := [suffix for suffix in plugin.suffixes if suffix in others]:
            words.append(f"and {plugin.package} is not installed, which reads {' and '.join(lacking)}")
    return ", ".join(words)


def pictures_in(folder: StrPath) -> tuple[list[Path], list[str]]:
    """Every picture in a folder and below it, sorted; and a line on the files that were left out, if any.

    Raises:
        InvalidInput: when there is no picture, or the folder cannot be read.
    """
    folder = Path(folder)
    try:
        paths, others = find(folder)
    except OSError as error:
        raise InvalidInput(f"{shown(folder)}: expected a folder of pictures, got {error.strerror}") from error
    without = left_out(others)
    if not paths:
        expected = ", ".join(sorted(suffixes()))
        raise InvalidInput(
            f"{shown(folder)}: expected pictures ({expected}) in this folder or below it, found {without or 'none'}"
        )
    return paths, [f"left out in {shown(folder)}: {without}"] if without else []


# ------------------------------------------------------------------------------------------------------ one picture


def read(file: StrPath | BinaryIO, name: str, remarks: Remarks) -> Image.Image:
    """The picture in a file as a viewer shows it, of mode L or RGB.

    It is turned as its EXIF data say; transparent parts are white. Of several frames it is the first that is not
    empty. Deeper pixels become 8 bits: whole numbers by the smallest of 8, 12 and 16 bits that holds the largest of
    them, floats from 0 to 1 or from 0 to 255. What a user should know is added to `remarks`, under `name`.

    Raises:
        InvalidInput: when the file is not a picture, is damaged, or would fill the memory.
    """
    said: list[tuple[str, str]] = []
    if isinstance(file, (str, os.PathLike)):
        file = Path(file)
    try:
        if isinstance(file, Path):
            _check_regular(file)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=_formats()) as opened:
            image = _turned(_shown_frame(opened, said), opened, said)
    except InvalidInput as error:
        raise InvalidInput(f"{shown(name)}: {error}") from error
    except Exception as error:  # damaged files raise all kinds of errors
        raise InvalidInput(f"{shown(name)}: {_reason(file, error)}") from error
    for remark, detail in said:
        remarks.add(remark, f"{name}{detail}")
    return image


def _formats() -> list[str]:
    """Pillow's names of the formats that can be read here."""
    Image.init()
    for plugin in filter(_installed, _PLUGINS.values()):
        importlib.import_module(plugin.module)
    return [name for name in (*_FORMATS, *_PLUGINS) if name in Image.OPEN]


def _check_regular(path: Path) -> None:
    """A pipe or a device may never end, or never begin."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise InvalidInput("expected a file, got a folder")
    if not stat.S_ISREG(mode):
        raise InvalidInput("expected a file, got a pipe or a device; save the picture to a file first")


def _reason(file: Path | BinaryIO, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"expected a picture ({', '.join(_FORMATS)}), got {_contents(file)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "more pixels than memory holds; make it smaller"
    return f"damaged, {shown(error) or type(error).__name__}; fetch or save it again"


def _contents(file: Path | BinaryIO) -> str:
    """What a file is that Pillow does not know."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            start = opened.read(32)
    else:
        file.seek(0)
        start = file.read(32)
    if not start.strip(b"\0"):
        return "zeros; fetch it again" if start else "an empty file; fetch it again"
    for form, known in _OURS.items():
        if start.startswith(known):
            return f"damaged {form} data, or of a kind that Pillow does not read; fetch it again, or save it as PNG"
    for form, starts in {"HEIF": _HEIC, "JXL": (b"\xff\x0a", b"JXL ")}.items():
        if start.startswith(starts) or start[4:].startswith(starts):
            return f"{form}; install {_PLUGINS[form].package}, or save it as PNG"
    for begin, what in _OTHERS.items():
        if start.lower().startswith(begin.lower()):
            return what
    return f"something else, which begins with {start[:8].hex(' ')}; save it as PNG"


def _shown_frame(opened: Image.Image, said: list[tuple[str, str]]) -> Image.Image:
    """The first frame that is not empty, else the first."""
    # The second picture in a photograph of a telephone is its preview.
    count = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    for number in range(count):
        opened.seek(number)
        _check_size(opened.size)
        frame, remarks = _eight_bits(opened)
        empty = count > 1 and not _spread(frame)
        if number == 0 or not empty:
            chosen, chosen_remarks, place = frame, remarks, number + 1
        if not empty:
            break
    said += chosen_remarks
    if count > 1:
        said.append(("only one frame is read, the first that is not empty", f" ({place} of {count:,})"))
    return chosen


def _check_size(size: tuple[int, int]) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    needed = size[0] * size[1] * _BYTES_A_PIXEL
    if needed > memory // 2:
        raise InvalidInput(
            f"expected a picture that half of the memory can hold, {memory / 2e9:.1f} GB, got {size[0]:,} x "
            f"{size[1]:,} pixels, which take {needed / 1e9:.1f} GB to read; make it smaller"
        )


def _eight_bits(picture: Image.Image) -> tuple[Image.Image, list[tuple[str, str]]]:
    """A frame in mode L or RGB, and what there is to say of it."""
    said: list[tuple[str, str]] = []
    if picture.mode == "F":
        picture = _from_floats(picture)
    elif picture.mode.startswith("I"):
        picture, said = _from_integers(picture)
    elif ";16" in str(getattr(picture, "tile", "")) and 0 < np.max(picture.getextrema()) < 16:
        # Pillow keeps the high byte of each color.
        raise InvalidInput("expected colors of 16 bits, got none above 4,095, 12 bits in 16; multiply them by 16")
    if not picture.has_transparency_data:
        return picture.convert("L" if picture.mode in ("1", "L") else "RGB"), said
    whole = picture.convert("RGBA")
    alpha, colors = whole.getchannel("A"), whole.convert("RGB")
    frame = _over("white", colors, alpha)
    if _spread(frame) < _BLANK <= _spread(alpha):
        frame = _over("black", colors, alpha)
        said.append(("read over black: over white nothing of it would be seen", ""))
    return frame, said


def _over(background: str, colors: Image.Image, alpha: Image.Image) -> Image.Image:
    frame = Image.new("RGB", colors.size, background)
    frame.paste(colors, mask=alpha)
    return frame


def _spread(picture: Image.Image) -> int:
    """The largest difference between two pixels in one channel."""
    extrema = np.reshape(np.array(picture.getextrema()), (-1, 2))
    return int((extrema[:, 1] - extrema[:, 0]).max())


def _from_floats(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    low, high = float(values.min()), float(values.max())
    top = 1 if high <= 1.01 else 255  # resizing may have gone beyond the range by a little
    if not -0.01 * top <= low <= high <= 1.01 * top:
        raise InvalidInput(f"expected floats from 0 to 1 or from 0 to 255, got {low:g} to {high:g}; scale them")
    return Image.fromarray(np.clip(np.rint(values * (255 / top)), 0, 255).astype(np.uint8))


def _from_integers(picture: Image.Image) -> tuple[Image.Image, list[tuple[str, str]]]:
    values = np.asarray(picture)
    low, high = int(values.min()), int(values.max())
    bits = next((bits for bits in (8, 12, 16) if high < 2**bits), None)
    if low < 0 or bits is None:
        raise InvalidInput(
            f"expected whole numbers of up to 16 bits, got {low:,} to {high:,}; scale them to 0 to 65535"
        )
    image = Image.fromarray(np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)[values])
    if isinstance(transparent := picture.info.get("transparency"), int):
        image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    remark = (f"taken as {bits} bits deep, since no pixel needs more", f" (up to {high:,})")
    return image, [remark] if bits < 16 and high else []


def _turned(picture: Image.Image, opened: Image.Image, said: list[tuple[str, str]]) -> Image.Image:
    """The picture upright. Damaged EXIF data do not make it unreadable."""
    try:
        turn = _TURNS.get(opened.getexif().get(_ORIENTATION, 1))
    except Exception:
        said.append(("not turned: the EXIF data are damaged", ""))
        turn = None
    return picture if turn is None else picture.transpose(turn)
