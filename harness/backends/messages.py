"""What a worker and the process that started it say to each other, and how one notices that the other is gone.

Each message is a line of JSON that names the code it comes from: what an interpreter, a shell's profile or a framework
prints on the way is none, nor is what another version of this project says.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

import spec
from harness.shown import shown

CODE = str(Path(spec.__file__).resolve().parent.parent)  # where a worker's links lead, too


def written(message: Mapping[str, Any]) -> str:
    """A message as a line, without its end."""
    return json.dumps({"code": CODE, **message})


def read(line: str) -> dict[str, Any] | None:
    """The message in a line; None where it is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.pop("code", None) != CODE:
        return None
    return message


@contextmanager
def temporary_files() -> Iterator[None]:
    """A context in which an `OSError` is that the folder for temporary files has no room, or cannot be written."""
    try:
        yield
    except OSError as error:
        raise spec.InvalidInput(
            f"temporary files cannot be written ({error}); make room there, or set TMPDIR to a folder with room"
        ) from error


def write_arrays(path: Path, arrays: spec.Arrays) -> None:
    """Write a temporary file of arrays by name, which NumPy reads.

    Raises:
        spec.InvalidInput: when it cannot be written.
    """
    with temporary_files():
        # NumPy begins what cannot be ended, and complains once more when it drops the file.
        if sum(x.nbytes for x in arrays.values()) > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        np.savez(path, **arrays)


def refusal(python: str, said: str) -> str:
    """What is wrong with an interpreter that has ended without an error, and has said that in place of an answer."""
    return (
        f"{python}: expected an answer of the code in {CODE}, got {shown(said.strip()[:80]) or 'none'}; it has to be "
        "the Python of an environment with NumPy and the framework, and to leave PYTHONPATH as it is"
    )


@contextmanager
def lifeline() -> Iterator[int]:
    """A standard input for workers: they end with this context, and when this process is gone (`watch_lifeline`)."""
    ours, theirs = os.pipe()[::-1]
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def watch_lifeline(gone: Callable[[], None]) -> None:
    """In a worker: have `gone` called, in a thread, when nobody holds the other end of the standard input any more.

    Nothing is read. Where the standard input is no pipe it does not end.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(0, 0)
        if any(event & select.POLLHUP for _, event in poll.poll()):
            gone()

    Thread(target=watch, daemon=True).start()
