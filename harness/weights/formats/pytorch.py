"""PyTorch's ``.pt`` and ``.pth``: checks that PyTorch does not make itself, and our texts.

Since version 1.6 such a file is a ZIP archive. Ours has one more entry, which PyTorch does not read. Before, it was
five pickles followed by the numbers; torchvision still offers such files. PyTorch reads both in a worker process, with
``weights_only=True``.

Source: torch/serialization.py of PyTorch 2.13, `_legacy_save` and `_save`.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from pathlib import Path

from harness.atomic import StrPath
from harness.weights.formats.contents import parse_texts
from spec import InvalidInput

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # start of a file before 1.6: a pickled number
_TEXTS = "archive/extra/googlenet.json"
_CODE = "/code/"  # TorchScript's, which is compressed; nobody here reads it
_END, _END_SIZE = b"PK\x05\x06", 22  # the end of an archive without a comment
_LARGEST_PICKLE = 2**22  # bytes; the state dict of a network has 30,000
PROGRAM = (
    "it is a TorchScript program, whose tensors are read and whose code is not: where it was written, save "
    "model.state_dict(); for FID's network (inception-2015-12-05.pt) take pytorch-fid's file of the same weights"
)
_LEGACY_PICKLES = 5  # number, version, machine, state dict, keys
_MOST_REPEATED = 32  # tuples; an optimizer's settings share a few


def check_file(path: StrPath) -> dict[str, str]:
    """Check a file before PyTorch opens it. Returns our texts where there are any.

    PyTorch does not verify an archive's checksums, unpacks whatever is compressed, and reads pickles that need 60 times
    their size in memory, or that would never end.

    Raises:
        InvalidInput: when the file is damaged, or made to take much more memory or time than its size tells.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(len(LEGACY)) == LEGACY:
                file.seek(0)
                pickles = io.BytesIO(file.read(_LARGEST_PICKLE))
                for _ in range(_LEGACY_PICKLES):
                    _check_pickle(pickles)
                return {}
            file.seek(max(0, path.stat().st_size - _END_SIZE))
            if not file.read().startswith(_END):
                raise InvalidInput("an archive that is truncated, or has something behind it; restore a copy")
        with zipfile.ZipFile(path) as archive:
            return _check_archive(archive, path.stat().st_size)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from error
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    except Exception as error:  # zipfile and pickletools raise many kinds
        raise InvalidInput(f"{path}: not a file of PyTorch, or truncated ({error}); restore a copy") from error


def is_program(path: StrPath) -> bool:
    """Whether TorchScript wrote the file, which has passed `check_file`: it has constants beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _check_archive(archive: zipfile.ZipFile, size: int) -> dict[str, str]:
    entries = archive.infolist()
    code = sum(entry.file_size for entry in entries if _CODE in entry.filename)
    if sum(entry.file_size for entry in entries) - code > size:
        raise InvalidInput("expected an archive as PyTorch writes it, got one with compressed or overlapping entries")
    # Before or behind other bytes, an archive may be one to zipfile and another to PyTorch.
    if all(entry.header_offset > 0 for entry in entries):
        raise InvalidInput("expected an archive, got one behind something else; restore a copy")
    plain = [entry for entry in entries if _CODE not in entry.filename]
    other = code + sum(entry.file_size for entry in plain if "/data/" not in entry.filename)
    if other > _LARGEST_PICKLE:
        raise InvalidInput(f"expected at most {_LARGEST_PICKLE} bytes beside the tensors, got {other}")
    if (damaged := archive.testzip()) is not None:
        raise InvalidInput(f"damaged: {damaged[:60]!r} is not what its checksum says; restore a copy")
    for entry in entries:
        if entry.filename.lower().endswith("data.pkl"):
            _check_pickle(io.BytesIO(archive.read(entry)))
    return parse_texts(archive.read(_TEXTS)) if _TEXTS in archive.namelist() else {}


def _check_pickle(pickles: io.BytesIO) -> None:
    """Read to the end of the next pickle, without executing it, and refuse what PyTorch would execute all the same.

    PyTorch lets a pickle make a bytearray of any size. Tuples that nest by repetition, a hundred deep, are short to
    write and take 2^100 steps to hash.
    """
    tuples: set[object] = set()  # by their numbers in the pickle's memo
    repeated = 0
    tuple_on_top = False
    for operation, argument, _ in pickletools.genops(pickles):
        if operation.name == "GLOBAL" and str(argument).endswith(" bytearray"):
            raise InvalidInput("expected plain tensors, and it wants a bytearray; save model.state_dict()")
        if operation.name.endswith("PUT"):  # numbers the top of the stack
            if tuple_on_top:
                tuples.add(argument)
        else:
            repeats = operation.name.endswith("GET") and argument in tuples
            repeated += repeats
            tuple_on_top = repeats or operation.name.startswith("TUPLE")
    if repeated > _MOST_REPEATED:
        raise InvalidInput(f"expected plain tensors, and it repeats more than {_MOST_REPEATED} tuples")


def add_texts(path: StrPath, texts: dict[str, str]) -> None:
    """Add our texts to an archive that PyTorch has written."""
    path = Path(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_TEXTS), json.dumps(texts))
