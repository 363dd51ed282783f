"""The tables of docs/formats.md, which say what becomes of people's files. Each row is tried by a test."""

from __future__ import annotations

from typing import NamedTuple

from support import ROOT


class Row(NamedTuple):
    """What people have, what becomes of it (``read`` or ``refused``), and words of the output or of the message."""

    what: str
    outcome: str
    words: str


def rows(section: str) -> list[Row]:
    """The table under a heading."""
    text = (ROOT / "docs" / "formats.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [Row(*(cell.strip() for cell in line.strip("| ").split(" | "))) for line in table]
