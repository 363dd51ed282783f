"""What a file of weights holds, before anyone has said what it means."""

from __future__ import annotations

from dataclasses import dataclass, field

from spec import Array


@dataclass(frozen=True)
class Found:
    """Arrays under the file's names, in its layouts, and the texts of `harness.weights.checkpoint.describe` if any."""

    arrays: dict[str, Array]
    texts: dict[str, str] = field(default_factory=dict)
