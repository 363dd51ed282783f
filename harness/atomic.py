"""Files that are written whole or not at all, and folders that are gone afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spec import InvalidInput

StrPath = str | os.PathLike[str]
_TEMPORARY = ".googlenet"  # the end of a temporary folder's name, by which the next process knows it


def write_atomically(path: StrPath, *parts: bytes | memoryview) -> None:
    """Write the parts to a file beside `path`, bring it to the disk, then rename it.

    One process at a time may write a path. A killed process may leave a file ``.partial``, which is overwritten.

    Raises:
        InvalidInput: when it cannot be written; the file at `path` is unchanged.
    """
    path = Path(path)
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


def check_target(path: StrPath) -> None:
    """Make sure, before the work is done, that a file can be written.

    Raises:
        InvalidInput: when its folder is missing or takes no files, or when something else has its name.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device"
            raise InvalidInput(f"{path}: expected the name of a file, and this is {kind}; choose another name")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except FileNotFoundError as error:
        raise InvalidInput(f"{path}: there is no folder {path.parent}; make it, or choose another one") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}); choose another place") from error


@contextmanager
def temporary_folder(parent: StrPath) -> Iterator[Path]:
    """A new hidden folder in `parent` that is gone after the context.

    Those that killed processes have left there are removed first: each is locked as long as its process lives.
    """
    parent = Path(parent)
    for left in parent.glob(f".*{_TEMPORARY}"):
        with suppress(OSError), _opened(left) as descriptor:  # it is in use, or somebody else's
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    made = Path(tempfile.mkdtemp(prefix=".", dir=parent))
    folder = made.with_name(made.name + _TEMPORARY)
    with _opened(made) as descriptor:
        with suppress(OSError):  # where the file system has no locks nothing is taken for left either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            yield made.rename(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The descriptor of a folder, which is no link to one."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: StrPath) -> None:
    """Bring a folder's entries, such as a new name, to the disk, if the file system can."""
    folder = Path(folder)
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
