"""What is measured: a candidate is a backend's variant at one task, batch and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.backends.registry import BACKENDS, PACKAGES

ENGINES = (*BACKENDS, "onnx")
TASKS = {"train": ("train",), "infer": ("infer",), "both": ("train", "infer")}
DTYPES = ("float32", "bfloat16")
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

    `variant` is ``textbook`` (the network as the framework's tutorials write it), ``compiled`` (that with the
    framework's own compilation switch), ``tuned`` (this project's) or, of ONNX Runtime, ``session``.
    """

    backend: str
    variant: str
    task: str  # train or infer
    batch: int  # images
    dtype: str
    pipeline: bool = False  # whether loading the images and bringing them to the device is part of a call

    def __str__(self) -> str:
        """``pt tuned, train, batch 32, float32``."""
        loading = ", with its input pipeline" if self.pipeline else ""
        return f"{self.label}, {self.task}, batch {self.batch}, {self.dtype}{loading}"

    @property
    def label(self) -> str:
        """``pt tuned``; of ONNX Runtime its short name, since there is one variant."""
        return self.backend if self.backend == "onnx" else f"{self.backend} {self.variant}"

    @property
    def module(self) -> str:
        """What offers the functions that are timed."""
        if self.backend == "onnx":
            return "harness.bench.worker.onnx_session"
        return PACKAGES[self.backend] if self.variant == "tuned" else f"{PACKAGES[self.backend]}.textbook"

    @property
    def program(self) -> Candidate:
        """What is proven: the same code whatever the task and the batch."""
        return replace(self, task="", batch=0, pipeline=False)


def candidates(
    backends: Sequence[str],
    variants: Sequence[str],
    tasks: Sequence[str],
    batches: Sequence[int],
    dtypes: Sequence[str],
    *,
    pipeline: bool = False,
) -> list[Candidate]:
    """Every combination that exists, those together that are measured together: by task and batch.

    ONNX Runtime only infers, here in float32 and without a pipeline; JAX has no compilation switch; the textbooks have
    float32 only.
    """
    found = []
    for task in tasks:
        for batch in batches:
            for dtype in dtypes:
                for loading in (False, True) if pipeline else (False,):
                    for backend in backends:
                        if backend == "onnx":
                            if (task, dtype, loading) == ("infer", "float32", False):
                                found.append(Candidate(backend, "session", task, batch, dtype))
                            continue
                        offered = [variant for variant in variants if _exists(backend, variant, dtype)]
                        found += [Candidate(backend, variant, task, batch, dtype, loading) for variant in offered]
    return found


def _exists(backend: str, variant: str, dtype: str) -> bool:
    return variant == "tuned" or (dtype == "float32" and (variant != "compiled" or backend in _COMPILED))


def groups(given: Sequence[Candidate]) -> list[list[Candidate]]:
    """Those that live and take turns together, which bounds the memory: one task, one batch."""
    found: dict[tuple[str, int], list[Candidate]] = {}
    for candidate in given:
        found.setdefault((candidate.task, candidate.batch), []).append(candidate)
    return list(found.values())
