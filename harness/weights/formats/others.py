"""What a file is that has none of the formats, told by its content, and what helps."""

from __future__ import annotations

import zipfile
from pathlib import Path

from harness.shown import shown

ARRAYS = "save its arrays with numpy.savez as .npz, under the names and in the layouts of docs/names.md"
_WEB_PAGE = "a web page, not the file itself: download that again"
_PICTURE = "a picture, not weights: name pictures before --weights, and weights behind it"
_PICKLE = f"a pickle, which could run any program: where it was written, {ARRAYS}"
_PACKED = "a packed file: unpack it first"
_BEGINNINGS = {  # in small letters
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<!doctype": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    b"\x1f\x8b": "compressed by gzip: gunzip it first",
    b"bzh": _PACKED,
    b"\xfd7zxz": _PACKED,
    b"7z\xbc\xaf": _PACKED,
    b"\x28\xb5\x2f\xfd": _PACKED,
    b"rar!": _PACKED,
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\x93numpy": f"one array of NumPy's, not a network: {ARRAYS}",
    b"gguf": f"GGUF, a format of language models: {ARRAYS}",
    b"\x89png": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
}
_TENSORFLOW = (
    "a file of TensorFlow: there, r = tf.train.load_checkpoint(PREFIX); numpy.savez('a.npz', **{n: r.get_tensor(n) "
    "for n in r.get_variable_to_shape_map()}) saves a checkpoint's arrays, and names of TF-slim are understood; "
    "docs/porting.md has the lines for a frozen graph"
)
_EXPORTED = "a program of torch.export: where it was written, save model.state_dict() with torch.save"
_CAFFE = (
    "a .caffemodel of Caffe: read it with OpenCV 4 (cv2.dnn.readNetFromCaffe), and save its arrays with numpy.savez as "
    ".npz under its layers' names with .weight and .bias, as conv1/7x7_s2.weight"
)
_END, _END_SIZE = b"PK\x05\x06", 22  # the end of an archive without a comment
_MOST_ENTRIES = 10_000


def zip_names(path: Path) -> list[str] | None:
    """The names of an archive's entries; None where it is damaged or has very many."""
    try:
        with path.open("rb") as file:
            file.seek(-_END_SIZE, 2)
            end = file.read()
        if not end.startswith(_END) or int.from_bytes(end[10:12], "little") > _MOST_ENTRIES:
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None


def is_of_pytorch(names: list[str]) -> bool:
    """Whether these are the entries of a file that torch.save or torch.jit.save wrote."""
    return any(name.endswith(("data.pkl", "/version")) for name in names) and not _is_exported(names)


def _is_exported(names: list[str]) -> bool:
    return any(name.endswith("archive_format") for name in names)


def describe_zip(names: list[str]) -> str:
    """What a ZIP archive is that is neither PyTorch's nor NumPy's."""
    if _is_exported(names):
        return _EXPORTED
    few = ", ".join(shown(name) for name in names[:3]) or "nothing"
    return f"a ZIP archive of {few}{' ...' if len(names) > 3 else ''}: unpack it, and name the file of weights in it"


def describe(path: Path, start: bytes) -> str | None:
    """What a file with this beginning is, and what helps; None where it may have one of the formats."""
    if not start:
        return "an empty file: it was not written or loaded to its end; restore a copy"
    for beginning, what in _BEGINNINGS.items():
        if start.lstrip().lower().startswith(beginning):
            return what
    if start[257:262] == b"ustar":
        return _PACKED
    if _is_caffe(start):
        return _CAFFE
    if path.suffix == ".index" or ".data-0" in path.name or path.suffix == ".pb":
        return _TENSORFLOW
    return None


def _is_caffe(start: bytes) -> bool:
    """Whether it begins as Caffe's NetParameter: its name (field 1), then layers (field 2, later 100) or inputs."""
    if start[:1] != b"\x0a" or start[1:2] > b"\x64":
        return False
    name, after = start[2 : 2 + start[1]], start[2 + start[1] : 4 + start[1]]
    printable = name.decode("latin-1").isprintable()
    return bool(name) and printable and (after[:1] in (b"\x12", b"\x1a") or after == b"\xa2\x06")
