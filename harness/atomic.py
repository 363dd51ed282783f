"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from spec import InvalidInput


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Put a file of these parts in place, whole or not at all: beside it, to the disk, then renamed.

    One process at a time may write a path; a file called ``.partial`` is what a killed one left, and is overwritten.

    Raises:
        InvalidInput: when it cannot be written; what stood at `path` is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:  # an interrupt too leaves nothing behind
        with suppress(OSError):
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise InvalidInput(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is unchanged"
        ) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries, a new name among them, to the disk, where the file system can promise that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
