"""Figures in files, and the colors of the backends in them. matplotlib, imported when it is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from harness.atomic import write_atomically


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure, whole or not at all, in the format that the suffix names.

    Raises:
        InvalidInput: when it cannot be written; what was there is unchanged.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=120)
    write_atomically(path, buffer.getvalue())
