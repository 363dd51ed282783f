"""Figures in files. matplotlib is imported when a figure is made."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from harness.atomic import write_atomically
from spec import InvalidInput


def new_figure(columns: int, size: tuple[float, float], share_y: bool = False) -> tuple[Any, list[Any]]:
    """A figure of `size` inches, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=share_y, squeeze=False)[0])


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure, whole or not at all, in the format that the suffix names.

    Raises:
        InvalidInput: for an unknown suffix, or when the file cannot be written; what was there is unchanged.
    """
    buffer = io.BytesIO()
    try:
        figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=120)
    except ValueError as error:  # matplotlib names the formats that it supports
        raise InvalidInput(f"{path}: {error}") from error
    write_atomically(path, buffer.getvalue())
