"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from spec import InvalidInput


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts to a file beside `path`, bring it to the disk, then rename it.

    One process at a time may write a path. A killed process may leave a file ``.partial``, which is overwritten.

    Raises:
        InvalidInput: when it cannot be written; the file at `path` is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:  # an interrupt also leaves no file
        with suppress(OSError):
            partial.unlink()
        if not isinstance(error, OSError):
            raise
        raise InvalidInput(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is unchanged"
        ) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries, such as a new name, to the disk, if the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
