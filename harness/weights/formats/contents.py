"""What a reader takes from a file of weights, before anyone has said what it means."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.weights.checkpoint import json_object
from spec import Array

LARGEST_JSON = 2**22  # bytes; JSON takes up to twenty times its size in memory, and a network's graph has 100,000 bytes


@dataclass(frozen=True)
class Contents:
    """Arrays under the file's names, in its layouts, and the texts of `harness.weights.checkpoint.describe` if any."""

    arrays: dict[str, Array]
    texts: dict[str, str] = field(default_factory=dict)
    remedy: str = ""  # what a user may do, with a file of this kind, where the arrays fit no network

    @property
    def ours(self) -> bool:
        """Whether the texts are ours, of any version; other people's safetensors may say a format, too."""
        return "sha256" in self.texts or self.texts.get("format", "").startswith("googlenet")


def parse_texts(content: bytes) -> dict[str, str]:
    """Parse our texts, which most formats hold as JSON.

    Raises:
        ValueError: when the content is anything but a JSON object of texts, or larger than `LARGEST_JSON`.
    """
    if len(content) > LARGEST_JSON:
        raise ValueError(f"expected texts of {LARGEST_JSON} bytes at most, got {len(content)}")
    texts = json_object(content)
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("expected texts, got other values in a JSON object")
    return texts
