"""Figures in files. matplotlib is imported when a figure is made."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.atomic import StrPath, check_target, write_atomically
from harness.shown import shown
from spec import InvalidInput

_FONT = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True)
class Lettering:
    """How names from outside are written into a figure.

    Attributes:
        style: Settings of a text: fonts that have the letters, and no mathematics between dollar signs.
        missing: The letters that no font on this machine has.
    """

    style: dict[str, Any]
    missing: str

    def write(self, name: object) -> str:
        """The name as the fonts can draw it: a letter that none has is written as in Python."""
        return "".join(ascii(c)[1:-1] if c in self.missing else c for c in shown(name))

    def notes(self, path: Path) -> list[str]:
        """A line about a figure where something is missing."""
        if not self.missing:
            return []
        escaped = ascii(self.missing[0])[1:-1]
        return [
            f"{path}: no font on this machine has {', '.join(self.missing)}: written as {escaped} in the picture; "
            "a font with these letters helps, Noto Sans CJK for instance"
        ]


def lettering(names: Sequence[object]) -> Lettering:
    """The fonts for some names."""
    from matplotlib.font_manager import findfont, fontManager
    from matplotlib.ft2font import FT2Font

    families = [_FONT]
    missing = {ord(c) for name in names for c in shown(name)} - set(FT2Font(findfont(_FONT)).get_charmap())
    for font in fontManager.ttflist if missing else ():
        with suppress(OSError, RuntimeError):  # a font that is damaged
            # The font of last resort has a box for everything.
            has = missing.intersection(FT2Font(font.fname).get_charmap()) if "Last Resort" not in font.name else set()
            if has:
                families.append(font.name)
                missing -= has
    return Lettering({"fontfamily": families, "parse_math": False}, "".join(map(chr, sorted(missing))))


def new_figure(columns: int, size: tuple[float, float], share_y: bool = False) -> tuple[Any, list[Any]]:
    """A figure of `size` inches, and its axes side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=share_y, squeeze=False)[0])


def check_picture(path: StrPath) -> None:
    """Make sure, before the work is done, that a figure can be written there.

    Raises:
        InvalidInput: for an unknown suffix, or when the file cannot be written.
    """
    path = Path(path)
    from matplotlib.backend_bases import FigureCanvasBase

    suffixes = sorted(f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes())
    if path.suffix.lower() not in suffixes:
        raise InvalidInput(f"{path}: expected a name that ends in one of {', '.join(suffixes)}")
    check_target(path)


def save_figure(figure: Any, path: StrPath) -> None:
    """Write the figure, whole or not at all, in the format that the suffix names.

    Raises:
        InvalidInput: as `check_picture`; what was there is unchanged.
    """
    path = Path(path)
    check_picture(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:].lower(), dpi=120)
    write_atomically(path, buffer.getvalue())
