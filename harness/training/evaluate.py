"""How well a model does on a dataset. NumPy only, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.images.batches import Split, evaluation_batches
from spec import Array


@dataclass(frozen=True)
class Scores:
    """The true means over all images, and who was taken for whom."""

    loss: float  # mean cross-entropy of the classifier, without smoothing and auxiliary heads
    confusion: Array  # (classes, classes), int64: label, prediction

    @property
    def accuracy(self) -> float:
        """Share of the images whose class is predicted."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def evaluate(
    package: Any,
    model: Any,
    split: Split,
    *,
    batch: int,
    classes: int,
    dtype: str,
    mean: float,
    std: float,
    done: Callable[[int], None] = lambda images: None,
) -> Scores:
    """Run a model over all images, in inference mode.

    Args:
        package: The backend, or the `harness.backends.team.Team` in its place.
        model: Of that backend.
        split: The images.
        batch: How many at once; the last batch is filled up, since a compiling framework compiles for every size.
        classes: Length of the logits.
        dtype: ``float32``, ``float64`` or ``bfloat16``.
        mean: Subtracted from pixels of 0 to 1.
        std: What they are divided by then.
        done: Called with the number of images done so far.
    """
    total, confusion, seen = 0.0, np.zeros((classes, classes), np.int64), 0
    for images, labels in evaluation_batches(split, batch, dtype=dtype, mean=mean, std=std):
        full = np.concatenate([images, np.repeat(images[:1], batch - len(images), axis=0)])
        logits = package.predict(model, full)[: len(images)].astype(np.float64)
        log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        total -= float(log_softmax[np.arange(len(labels)), labels].sum())
        np.add.at(confusion, (labels, logits.argmax(1)), 1)
        seen += len(labels)
        done(seen)
    return Scores(total / seen, confusion)
