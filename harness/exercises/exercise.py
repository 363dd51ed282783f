"""What an exercise is, and what is said of an answer to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """The learner's code, and what it may take."""

    file: Path
    name: str  # of what is judged in it
    seconds: float = 120.0
    memory: float = 8.0  # GiB

    @property
    def target(self) -> str:
        """``my.py:Stem``."""
        return f"{self.file}:{self.name}"


@dataclass(frozen=True)
class Finding:
    """One mistake; it says what is wrong with the answer, and not what would be right."""

    place: str  # a layer, a network, an argument
    text: str
    effect: str = ""  # what it alone does


@dataclass(frozen=True)
class Verdict:
    """What is said of an answer: it is right where nothing was found."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "verdict": "right" if self.right else "wrong",
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Exercise(ABC):
    """Something to write, and how it is judged."""

    name: str
    title: str
    writes: str  # the name that the file has to define
    text: str  # what to write, with names and shapes
    hint: str

    @abstractmethod
    def judge(self, answer: Answer) -> Verdict:
        """Run an answer in a process of its own, and hold it against the referee.

        Raises:
            spec.InvalidInput: when it cannot be run, or does something that cannot be judged.
        """
