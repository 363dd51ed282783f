"""What a file of weights holds, before anyone has said what it means."""

from __future__ import annotations

from dataclasses import dataclass, field

from spec import Array


@dataclass(frozen=True)
class Found:
    """Arrays by the names and in the layouts of the file, and the texts of `spec.checkpoint.describe` if any."""

    arrays: dict[str, Array]
    texts: dict[str, str] = field(default_factory=dict)
