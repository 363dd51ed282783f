"""PyTorch's ``.pt`` and ``.pth``: what is known of a file before PyTorch may open it, and our texts in it.

Since 1.6 it is an archive, a ZIP file; ours has one entry more, which PyTorch does not look at. Before, it was five
pickles and then the numbers, as in the files that torchvision offers to this day.

Source: torch/serialization.py of PyTorch 2.13, `_legacy_save` and `_save`.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spec import InvalidInput

_TEXTS = "archive/extra/googlenet.json"
_START, _END, _END_SIZE = b"PK\x03\x04", b"PK\x05\x06", 22  # of an archive without a comment
_LARGEST_PART = 2**22  # bytes of our texts, and of the pickle: a network's state dict has 30,000
_MOST_REPEATED = 32  # tuples that a pickle may repeat: of tuples in tuples in tuples the hash would never end
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a file of before 1.6 begins: a pickled number
_BYTES = {  # of a number, by the kind of storage
    **dict.fromkeys(("Bool", "Byte", "Char"), 1),
    **dict.fromkeys(("BFloat16", "Half", "Short"), 2),
    **dict.fromkeys(("Float", "Int"), 4),
    **dict.fromkeys(("Double", "Long"), 8),
}
_CALLED = {  # by PyTorch on behalf of the pickle; what else PyTorch allows can take all memory
    "collections Counter",
    "collections OrderedDict",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in _BYTES),
}


def check_file(path: Path) -> dict[str, str]:
    """Make sure that a file is whole and no larger inside than outside; returns our texts where there are any.

    PyTorch does not check the sums that an archive holds of its entries, and in a file that begins otherwise it looks
    for something else.

    Raises:
        InvalidInput: when it is not.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LARGEST_PART)
            if start.startswith(LEGACY):
                _check_legacy(io.BytesIO(start), path.stat().st_size)
                return {}
            if not start.startswith(_START):
                raise InvalidInput(f"{path}: expected a file that PyTorch has written, got another; restore a copy")
            file.seek(max(0, path.stat().st_size - _END_SIZE))
            if not file.read().startswith(_END):
                raise InvalidInput(f"{path}: an archive that is truncated, or has something behind it; restore a copy")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise InvalidInput(f"{path}: expected an archive as PyTorch writes it, got a compressed one")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise InvalidInput(f"{path}: expected an archive, got one with entries that overlap")
            if all(entry.header_offset > 0 for entry in entries):
                raise InvalidInput(f"{path}: expected an archive, got one behind something else; restore a copy")
            if len({entry.filename for entry in entries}) < len(entries):
                raise InvalidInput(f"{path}: expected an archive, got one with two entries of a name")
            if (damaged := archive.testzip()) is not None:
                raise InvalidInput(f"{path}: damaged: {damaged[:60]!r} is not what its checksum says; restore a copy")
            _check_pickle(io.BytesIO(_part(archive, "data.pkl")))
            texts = json.loads(_part(archive, _TEXTS)) if any(entry.filename == _TEXTS for entry in entries) else {}
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from error
    except InvalidInput:
        raise
    except _Unwanted as error:
        raise InvalidInput(f"{path}: {error}; save model.state_dict() with torch.save") from error
    except Exception as error:  # zipfile raises of many kinds, as the damage has it
        raise InvalidInput(f"{path}: not a file of PyTorch, or truncated ({error}); restore a copy") from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InvalidInput(f"{path}: expected texts in {_TEXTS}")
    return texts


class _Unwanted(Exception):
    """Something in an archive is not what a state dict is made of."""


def _part(archive: zipfile.ZipFile, ending: str) -> bytes:
    """The one entry whose name ends so; PyTorch does not tell capital letters from small ones."""
    found = [entry for entry in archive.infolist() if entry.filename.lower().endswith(ending)]
    if len(found) != 1 or found[0].file_size > _LARGEST_PART:
        sizes = ", ".join(f"{entry.file_size} bytes" for entry in found[:5]) or "none"
        raise _Unwanted(f"expected one {ending} of at most {_LARGEST_PART} bytes in the archive, got {sizes}")
    return archive.read(found[0])


def _check_legacy(start: io.BytesIO, size: int) -> None:
    """Make sure of a file of before 1.6: its pickles are a number, a version, a machine, the state dict, and keys."""
    for _ in range(3):
        _check_pickle(start)
    at = start.tell()
    _check_pickle(start)
    end = start.tell()
    _check_pickle(start)
    # PyTorch makes room for each storage as large as the state dict says, and then reads its length and its numbers.
    expected = start.tell() + sum(8 + claimed for claimed in _storages(start.getvalue()[at:end]))
    if size != expected:
        raise _Unwanted(f"expected {expected} bytes, as its storages say, got {size}: truncated, or not a state dict")


def _storages(content: bytes) -> Iterator[int]:
    """How many bytes each storage takes that a pickle asks for with ('storage', kind, key, location, numbers, None)."""
    memo: dict[Any, Any] = {}
    last: deque[tuple[str, Any]] = deque([("", None)] * 8, maxlen=8)
    for operation, argument, _ in pickletools.genops(content):
        if operation.name.endswith("PUT"):
            memo[argument] = last[-1][1]
            continue
        if operation.name == "BINPERSID":
            mark, _, (_, kind), _, _, (number, numbers), none, tuple_ = last
            written_out = (mark[0], none[0], tuple_[0]) == ("MARK", "NONE", "TUPLE") and "INT" in number
            size = _BYTES.get(str(kind).removeprefix("torch ").removesuffix("Storage"), 0)
            if not written_out or not size or numbers < 0:
                raise _Unwanted("expected its storages as torch.save writes them")
            yield size * numbers
        last.append((operation.name, memo.get(argument) if operation.name.endswith("GET") else argument))


def _check_pickle(content: io.BytesIO) -> None:
    """Make sure that the next pickle, which is not executed here, asks for tensors and containers only."""
    tuples, repeated, on_top = set(), 0, False
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("GLOBAL", "INST") and argument not in _CALLED:
            raise _Unwanted(f"expected plain tensors, and it wants {str(argument)[:60]!r} called, which was not done")
        if operation.proto > 2:
            raise _Unwanted(f"expected version 2 of pickle, as torch.save writes it, got {operation.name}")
        if operation.name.endswith("PUT"):  # names what is on top of the stack
            if on_top:
                tuples.add(argument)
            continue
        again = operation.name.endswith("GET") and argument in tuples
        on_top = again or operation.name.startswith("TUPLE")
        repeated += again
        if repeated > _MOST_REPEATED:
            raise _Unwanted(f"expected plain tensors, and it repeats more than {_MOST_REPEATED} tuples")


def add_texts(path: Path, texts: dict[str, str]) -> None:
    """Add our texts to an archive that PyTorch has written."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_TEXTS), json.dumps(texts))
