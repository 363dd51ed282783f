"""No number without a proof: before a candidate is timed, what it computes is held against the referee."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import spec
from harness.agreement import probe_params, relative_error, relative_errors
from harness.bench.worker.subject import SGD, pipeline
from harness.images.sources import Batch
from spec import Array, Arrays, reference
from spec.tolerances import on_pictures

BATCH = 4  # images of the proof: enough for batch norm, few enough for the referee
_PART = 16  # images


@dataclass(frozen=True)
class Check:
    """One thing that was held against the referee; the error is relative, and infinite where shapes differ."""

    what: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether it agrees."""
        return self.error <= self.bound


def proof_params(config: spec.Config, seed: int) -> dict[str, Array]:
    """Weights for proving: those of `probe_params`, but for convolutions and dense layers He's.

    With PyTorch's scheme nearly nothing of the images is left at the end: between two of them logits differ by 1e-5 of
    their size, and a wrong weight in the stem by 1e-6. With He's they differ by 0.2, and that weight shows as 1e-2.
    """
    heavy = spec.init_params(config, seed, "he")
    weights = {name for name in heavy if name.endswith(".weight") and ".norm." not in name}
    return {name: heavy[name] if name in weights else x for name, x in probe_params(config, seed).items()}


class Referee:
    """The material of a benchmark, in files that workers read, and what should come out; computed when asked for.

    Weights and images are rounded to float32, and the referee computes in float64 from those.

    Args:
        config: The network, without dropout.
        images: The first so many images of the source.
        folder: Of the files.
        dataset: Folder of the prepared dataset that pipelines read, where there are any.
        seed: Of the weights.
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
        self.source = images(BATCH).source
        self._images, self._folder = images, folder
        self._params = {name: x.astype(np.float32) for name, x in proof_params(config, seed).items()}
        self.params_file = folder / "params.npz"
        np.savez(self.params_file, **self._params)
        self._logits: dict[tuple[int, bool], Array] = {}
        self._losses: dict[tuple[int, bool], float] = {}
        self._training: reference.Training | None = None

    def file(self, batch: int) -> Path:
        """The file with the batch of that many images."""
        path = self._folder / f"images-{batch}.npz"
        if not path.exists():
            images, labels = self.batch(batch)
            np.savez(path, images=images, labels=labels)
        return path

    def batch(self, batch: int, *, loaded: bool = False) -> tuple[Array, Array]:
        """Images and labels; `loaded` are the first that a pipeline yields.

        Raises:
            spec.InvalidInput: when the source has too few, or they do not fit.
        """
        if loaded and self.dataset is not None:
            images, labels = next(pipeline(self.dataset, batch))
        else:
            found = self._images(batch)
            images, labels = found.images.astype(np.float32), found.labels
        return spec.check_images(self.config, images), spec.check_labels(self.config, labels, batch)

    def logits(self, batch: int, *, loaded: bool = False) -> Array:
        """In inference mode, (batch, num_classes)."""
        key = batch, loaded
        if key not in self._logits:
            self._forward(batch, loaded)
        return self._logits[key]

    def loss(self, batch: int, *, loaded: bool = False) -> float:
        """In training mode."""
        key = batch, loaded
        if key not in self._losses:
            self._forward(batch, loaded)
        return self._losses[key]

    def _forward(self, batch: int, loaded: bool) -> None:
        """Both at once: without batch norm and dropout the two modes compute the same logits."""
        config = self.config
        images, labels = self.batch(batch, loaded=loaded)
        # A few at a time: of every image the referee keeps all that it computed.
        parts = [
            reference.activations(config, self._params, images[i : i + _PART]) for i in range(0, len(images), _PART)
        ]
        logits = {head: np.concatenate([part[head] for part in parts]) for head in spec.loss_weights(config)}
        self._logits[batch, loaded] = logits[config.logits]
        if config.batch_norm is not None:
            loss = reference.loss_and_grads(config, self._params, images, labels).loss
        else:
            loss = sum(
                weight * reference.softmax_cross_entropy(logits[head], labels, config.label_smoothing)[0]
                for head, weight in spec.loss_weights(config).items()
            )
        self._losses[batch, loaded] = float(loss)

    def judge(self, arrays: Arrays, tasks: Sequence[str], dtype: str) -> list[Check]:
        """What `Subject.prove` found on the small batch, against what it should be."""
        bounds = on_pictures(self.config, dtype)
        checks = []
        if "infer" in tasks:
            checks.append(Check("logits", relative_error(arrays["logits"], self.logits(BATCH)), bounds.logits))
        if "train" in tasks:
            if self._training is None:
                self._training = reference.loss_and_grads(self.config, self._params, *self.batch(BATCH))
            training = self._training
            step = {**self._params, **SGD.update(self._params, training.grads, {}), **training.statistics}
            loss = np.array(training.loss)
            checks += [Check(what, relative_error(arrays[what], loss), bounds.loss) for what in ("loss", _STEP_LOSS)]
            checks.append(_worst("gradient", arrays, training.grads, bounds.gradients))
            checks.append(_worst("step", arrays, step, bounds.step))
        return checks

    def judge_first(self, arrays: Arrays, task: str, batch: int, dtype: str, *, loaded: bool) -> Check:
        """What the first timed call computed, against what it should be."""
        bounds = on_pictures(self.config, dtype)
        if task == "infer":
            error = relative_error(arrays["logits"], self.logits(batch, loaded=loaded))
            return Check("logits of the timed batch", error, bounds.logits)
        error = relative_error(arrays["loss"], np.array(self.loss(batch, loaded=loaded)))
        return Check("loss of the first timed step", error, bounds.loss)


_STEP_LOSS = "loss of the step"


def _worst(kind: str, arrays: Arrays, expected: Arrays, bound: float) -> Check:
    """The largest error of a set of arrays, named."""
    got = {key.split("/", 1)[1]: x for key, x in arrays.items() if key.startswith(f"{kind}/")}
    errors = relative_errors(got, expected)
    name = max(errors, key=lambda name: errors[name])
    return Check(f"gradient of {name}" if kind == "gradient" else f"{name} after a step", errors[name], bound)
