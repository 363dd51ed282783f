"""Names that come from outside, as they are shown: of files, runs, classes, tensors. Every one goes through here.

Such a name can hold what a terminal obeys. What it is shown in decides about the rest: rich reads no markup in a
`Text` or with ``markup=False``, matplotlib no mathematics with ``parse_math=False``, a page escapes.
"""

from __future__ import annotations

import os


def shown(name: object) -> str:
    r"""The whole name on one line: what cannot be printed is written as in Python, ``\x1b`` or ``\n``."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))


def as_text(name: str) -> str:
    r"""A file's name as text that every format can hold: bytes that are not UTF-8 are written ``\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
