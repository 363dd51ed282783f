"""Before a candidate is timed, its results are held against the referee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.agreement import error_together, probe_params, relative_error, worst_error
from harness.backends import messages
from harness.bench.worker.operations import SGD, pipeline
from harness.images.sources import Batch
from spec import Array, Arrays, reference
from spec.tolerances import TOGETHER, Tolerances, picture_tolerances

BATCH = 4  # images of the proof: enough for batch norm, few enough for the referee
_PART = 16  # images that the referee computes at a time: it keeps everything that it computes


@dataclass(frozen=True)
class Check:
    """One result that was held against the referee. The error is relative, and infinite where shapes differ."""

    what: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether it agrees."""
        return self.error <= self.bound

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "passed": self.passed}


def refutation(proof: Sequence[Check]) -> str | None:
    """A problem for people that names what differs; None where everything agrees."""
    wrong = [f"{check.what} by {check.error:.1e} (at most {check.bound:g})" for check in proof if not check.passed]
    return f"not timed, since it differs from the referee: {'; '.join(wrong)}" if wrong else None


def proof_params(config: spec.Config, seed: int) -> dict[str, Array]:
    """The weights of `probe_params`, but He's for convolutions and dense layers.

    With PyTorch's scheme nearly nothing of the images is left at the end: logits of two images differ by 1e-5 of their
    size, and a wrong weight in the stem changes them by 1e-6. With He's the numbers are 0.2 and 1e-2.
    """
    params = probe_params(config, seed)
    he = spec.init_params(config, seed, "he")
    return params | {name: x for name, x in he.items() if name.endswith(".weight") and ".norm." not in name}


class Referee:
    """The weights and images of a benchmark, in files that workers read, and the referee's results for them.

    Weights and images are rounded to float32; the referee computes in float64 from those.

    Args:
        config: The network, without dropout.
        images: Returns the first images of the source, as many as it is asked for.
        folder: Takes the files.
        dataset: Folder of the prepared dataset that pipelines read, where there are any.
        seed: Seed of the weights.
    """

    def __init__(
        self,
        config: spec.Config,
        images: Callable[[int], Batch],
        folder: Path,
        dataset: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.config, self.dataset = config, dataset
        self._images, self._folder = images, folder
        self._params = {name: x.astype(np.float32) for name, x in proof_params(config, seed).items()}
        self.params_file = folder / "params.npz"
        messages.write_arrays(self.params_file, self._params)
        self._results: dict[tuple[int, bool], tuple[Array, float]] = {}
        self._training: reference.Training | None = None

    def file(self, batch: int) -> Path:
        """The file with the batch of that many images."""
        path = self._folder / f"images-{batch}.npz"
        if not path.exists():
            images, labels = self.batch(batch)
            messages.write_arrays(path, {"images": images, "labels": labels})
        return path

    def batch(self, batch: int, *, loaded: bool = False) -> tuple[Array, Array]:
        """Images and labels; with `loaded` the first that a pipeline yields.

        Raises:
            spec.InvalidInput: when the source has too few, or they do not fit.
        """
        if loaded and self.dataset is not None:
            images, labels = next(pipeline(self.dataset, batch))
        else:
            source = self._images(batch)
            images, labels = source.images.astype(np.float32), source.labels
        return spec.check_images(self.config, images), spec.check_labels(self.config, labels, batch)

    def logits(self, batch: int, *, loaded: bool = False) -> Array:
        """In inference mode, (batch, num_classes)."""
        return self._forward(batch, loaded)[0]

    def loss(self, batch: int, *, loaded: bool = False) -> float:
        """In training mode."""
        return self._forward(batch, loaded)[1]

    def _forward(self, batch: int, loaded: bool) -> tuple[Array, float]:
        """Logits and loss, computed once. Without batch norm and dropout both modes have the same logits."""
        if (batch, loaded) in self._results:
            return self._results[batch, loaded]
        config = self.config
        images, labels = self.batch(batch, loaded=loaded)
        parts = [
            reference.activations(config, self._params, images[i : i + _PART]) for i in range(0, len(images), _PART)
        ]
        logits = {head: np.concatenate([part[head] for part in parts]) for head in spec.loss_weights(config)}
        if config.batch_norm is not None:
            loss = reference.loss_and_grads(config, self._params, images, labels).loss
        else:
            loss = sum(
                weight * reference.softmax_cross_entropy(logits[head], labels, config.label_smoothing)[0]
                for head, weight in spec.loss_weights(config).items()
            )
        self._results[batch, loaded] = logits[config.logits], float(loss)
        return self._results[batch, loaded]

    def judge(self, arrays: Arrays, tasks: Sequence[str], dtype: str) -> list[Check]:
        """The results of `Operations.prove` on the small batch, against the referee's."""
        bounds = self._bounds(dtype, BATCH)
        checks = []
        if "infer" in tasks:
            checks.append(Check("logits", relative_error(arrays["logits"], self.logits(BATCH)), bounds.logits))
        if "train" in tasks:
            if self._training is None:
                self._training = reference.loss_and_grads(self.config, self._params, *self.batch(BATCH))
            training = self._training
            step = {**self._params, **SGD.update(self._params, training.grads, {}), **training.statistics}
            for what in ("loss", "loss of the step"):
                checks.append(Check(what, relative_error(arrays[what], np.array(training.loss)), bounds.loss))
            name, error = worst_error(arrays, "gradient", training.grads)
            checks.append(Check(f"gradient of {name}", error, bounds.gradients))
            if dtype in TOGETHER and self.config.batch_norm is None:
                error = error_together(arrays, "gradient", training.grads)
                checks.append(Check("all gradients as one vector", error, TOGETHER[dtype]))
            name, error = worst_error(arrays, "step", step)
            checks.append(Check(f"{name} after a step", error, bounds.step))
        return checks

    def judge_first(self, arrays: Arrays, task: str, batch: int, dtype: str, *, loaded: bool) -> Check:
        """The result of the first timed call, against the referee's."""
        bounds = self._bounds(dtype, batch)
        if task == "infer":
            error = relative_error(arrays["logits"], self.logits(batch, loaded=loaded))
            return Check("logits of the timed batch", error, bounds.logits)
        error = relative_error(arrays["loss"], np.array(self.loss(batch, loaded=loaded)))
        return Check("loss of the first timed step", error, bounds.loss)

    def _bounds(self, dtype: str, batch: int) -> Tolerances:
        return picture_tolerances(self.config, dtype, (batch, *self._image_shape))

    @cached_property
    def _image_shape(self) -> Sequence[int]:
        return self.batch(1)[0].shape[1:]
