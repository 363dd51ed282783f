"""Evaluates a model on a dataset, with NumPy, in every framework."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from harness.backends.registry import Backend, Model
from harness.backends.team import Team
from harness.images.batches import Numbers, Split, evaluation_batches
from spec import Array


@dataclass(frozen=True)
class Scores:
    """The results on all images."""

    loss: float  # mean cross-entropy of the classifier, without smoothing and auxiliary heads
    confusion: Array  # (classes, classes), int64: label, prediction

    @property
    def accuracy(self) -> float:
        """Share of the images whose class is predicted."""
        return float(np.trace(self.confusion) / self.confusion.sum())


def evaluate(
    package: Backend | Team,
    model: Model,
    split: Split,
    *,
    batch: int,
    classes: int,
    dtype: str,
    mean: Numbers,
    std: Numbers,
    done: Callable[[int], None] = lambda images: None,
) -> Scores:
    """Run a model over all images, in inference mode.

    `package` is the backend, or a `harness.backends.team.Team` of it; `dtype`, `mean` and `std` are those of
    `harness.images.batches.pixels`; `done` takes the number of images so far; what it raises ends the
    evaluation. The last batch is filled up, since a compiling framework compiles for every size.
    """
    total = 0.0
    confusion = np.zeros((classes, classes), np.int64)
    seen = 0
    with closing(evaluation_batches(split, batch, dtype=dtype, mean=mean, std=std)) as batches:
        for images, labels in batches:
            full = np.concatenate([images, np.repeat(images[:1], batch - len(images), axis=0)])
            logits = package.predict(model, full)[: len(images)].astype(np.float64)
            log_softmax = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            total -= float(log_softmax[np.arange(len(labels)), labels].sum())
            np.add.at(confusion, (labels, logits.argmax(1)), 1)
            seen += len(labels)
            done(seen)
    return Scores(total / seen, confusion)
