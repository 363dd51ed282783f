"""The things to measure: a candidate is a variant of a backend at one task, batch and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import spec
from harness.backends import textbook
from harness.backends.registry import BACKENDS, PACKAGES

SESSIONS = {"onnx": ("float32",), "openvino": ("float32", "bfloat16")}  # evaluators of ONNX graphs, and their dtypes
ENGINES = (*BACKENDS, *SESSIONS)
TASKS = {"train": ("train",), "infer": ("infer",), "both": ("train", "infer")}
DTYPES = ("float32", "tf32", "bfloat16")
VARIANTS = {
    "tuned": ("tuned",),
    "textbook": ("textbook",),
    "both": ("textbook", "tuned"),
    "all": ("textbook", "compiled", "tuned"),
}
_COMPILED = ("pt", "mx")  # the frameworks with a switch for it; JAX's textbook network is compiled already


@dataclass(frozen=True)
class Candidate:
    """One thing to be timed.

    `variant` is ``textbook`` (the network as the framework's tutorials or its publishers write it), ``compiled`` (the
    same with the framework's own compilation switch), ``tuned`` (this project's network) or ``session`` (an evaluator
    of ONNX graphs).
    """

    backend: str
    variant: str
    task: str  # train or infer
    batch: int  # images
    dtype: str
    pipeline: bool = False  # whether a call also loads its images and brings them to the device
    again: bool = False  # the twin of another row, which shows the noise

    def __str__(self) -> str:
        """``pt tuned, train, batch 32, float32``."""
        loading = ", with its input pipeline" if self.pipeline else ""
        return f"{self.label}, {self.task}, batch {self.batch}, {self.dtype}{loading}"

    @property
    def label(self) -> str:
        """``pt tuned``, or ``onnx``, which has one variant; of a twin ``pt tuned again``."""
        name = self.backend if self.backend in SESSIONS else f"{self.backend} {self.variant}"
        return f"{name} again" if self.again else name

    def module(self, config: spec.Config) -> str:
        """The module of that network."""
        if self.backend in SESSIONS:
            return f"harness.bench.worker.{self.backend}_session"
        package = PACKAGES[self.backend]
        return package if self.variant == "tuned" else f"{package}.{textbook.module(config)}"

    @property
    def program(self) -> Candidate:
        """The candidate without task and batch, whose code is held against the referee once."""
        return replace(self, task="", batch=0, pipeline=False, again=False)


def candidates(
    backends: Sequence[str],
    variants: Sequence[str],
    tasks: Sequence[str],
    batches: Sequence[int],
    dtypes: Sequence[str],
    *,
    pipeline: bool = False,
) -> list[Candidate]:
    """Every combination that exists, by task and batch.

    ONNX Runtime and OpenVINO only infer, here without a pipeline, the first in float32. JAX has no compilation switch,
    and the textbooks have no bfloat16.
    """
    loadings = (False, True) if pipeline else (False,)
    chosen = []
    for task, batch, dtype, loading, backend in product(tasks, batches, dtypes, loadings, backends):
        for variant in ["session"] if backend in SESSIONS else variants:
            candidate = Candidate(backend, variant, task, batch, dtype, loading)
            if _exists(candidate):
                chosen.append(candidate)
    return chosen


def with_twins(given: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, and behind those of one task and batch the first of them again.

    It has a process of its own, and is measured like all others: what the two differ by is noise.
    """
    found: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in given:
        found.setdefault((candidate.task, candidate.batch), []).append(candidate)
    return [candidate for group in found.values() for candidate in (*group, replace(group[0], again=True))]


def _exists(candidate: Candidate) -> bool:
    if candidate.backend in SESSIONS:
        infers = candidate.task == "infer" and not candidate.pipeline
        return infers and candidate.dtype in SESSIONS[candidate.backend]
    if candidate.variant == "compiled" and candidate.backend not in _COMPILED:
        return False
    return candidate.variant == "tuned" or candidate.dtype in ("float32", "tf32")
