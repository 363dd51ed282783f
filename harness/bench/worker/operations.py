"""The operations of a candidate's process: build, compute for the proof, and time. They know no framework."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.backends import messages
from harness.backends.registry import BACKENDS, PACKAGES, load
from harness.backends.threads import busy_threads, ticks_by_thread
from spec import Array

# Plain, exact in float32, and small: the weights stay where no number overflows.
SGD = spec.SGD(rate=0.0078125, momentum=0.0)
_PEAK_MEASUREMENTS = 5  # the best of them is the peak

Batches = Iterator[tuple[Array, Array]]  # images and labels


class Operations:
    """The operations that one candidate can be asked for: a public method each, which returns values for JSON.

    Args:
        job: The first message of `harness.bench.process.Process`.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.call: Callable[[], Any] = lambda: None  # what is timed; `first` sets it
        self.last_loss: Callable[[], float | None] = lambda: None
        self.stage_calls: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def begin(self) -> dict[str, Any]:
        """Import the framework and build the network, each timed."""
        job = self.job
        start = time.perf_counter()
        # The textbook's module has its own network; what it lacks is the package's.
        package = load(job["backend"]) if job["backend"] in BACKENDS else None
        self.network = importlib.import_module(job["module"])
        self.package = package or self.network
        imported = time.perf_counter()
        with np.load(job["params"], allow_pickle=False) as params:
            config = spec.preset(**job["config"])
            self.model = self.network.build(config, dtype=job["dtype"], device=job["device"], params=dict(params))
        if job["variant"] == "compiled":
            self.model = self.network.compiled(self.model)
        built = time.perf_counter()
        description = self.package.describe(job["device"])
        return {
            "import_seconds": imported - start,
            "build_seconds": built - imported,
            "framework": description.framework,
            "version": description.version,
            "device": description.device,
            "threads": description.threads,
        }

    def prove(self, images: str, tasks: list[str]) -> dict[str, Any]:
        """Everything that is held against the referee, on a small batch; with the task ``train``, trains one step."""
        network, model = self.network, self.model
        batch, labels = _load(images)
        arrays: dict[str, Array] = {}
        if "infer" in tasks:
            x = self.package.images_to_device(model, batch)
            arrays["logits"] = to_numpy(network.predictor(model, x)(x))
        if "train" in tasks:
            loss, gradients = network.loss_and_grads(model, batch, labels)
            x, y = self.package.to_device(model, batch, labels)
            step = network.update(model, network.make_optimizer(model, SGD), x, y, {})
            arrays |= {"loss": np.array(loss), "loss of the step": np.array(float(step.loss))}
            arrays |= {f"gradient/{name}": x for name, x in gradients.items()}
            arrays |= {f"step/{name}": x for name, x in network.dump_params(model).items()}
        return {"arrays": self._save(arrays)}

    def first(self, images: str, dataset: str | None) -> dict[str, Any]:
        """Time the first call, which compiles; also return its result, for the referee.

        Args:
            images: File of the batch, which is brought to the device before the clock starts.
            dataset: Folder of a prepared dataset: a call then loads its batch from there instead.
        """
        batches = pipeline(Path(dataset), self.job["batch"]) if dataset is not None else None
        first_call = self._first_prediction if self.job["task"] == "infer" else self._first_step
        seconds, arrays = first_call(images, batches)
        return {"seconds": seconds, "arrays": self._save(arrays)}

    def _first_prediction(self, images: str, batches: Batches | None) -> tuple[float, dict[str, Array]]:
        network, package, model = self.network, self.package, self.model
        if batches is not None:
            self.call = lambda: network.predict(model, next(batches)[0])
            start = time.perf_counter()
            logits = self.call()
            return time.perf_counter() - start, {"logits": logits}
        x = package.images_to_device(model, _load(images)[0])
        package.wait(x)
        start = time.perf_counter()
        run = network.predictor(model, x)
        y = run(x)
        package.wait(y)
        seconds = time.perf_counter() - start
        self.call = lambda: package.wait(run(x))
        return seconds, {"logits": to_numpy(y)}

    def _first_step(self, images: str, batches: Batches | None) -> tuple[float, dict[str, Array]]:
        network, package, model = self.network, self.package, self.model
        optimizer = network.make_optimizer(model, SGD)
        if batches is not None:

            def step() -> spec.Step:
                x, y = package.to_device(model, *next(batches))
                return network.update(model, optimizer, x, y, {})  # type: ignore[no-any-return]
        else:
            x, y = package.to_device(model, *_load(images))
            package.wait(x, y)

            def step() -> spec.Step:
                return network.update(model, optimizer, x, y, {})  # type: ignore[no-any-return]

        last: list[spec.Step] = []

        def call() -> None:
            last[:] = [step()]
            package.wait(last[0], model)

        self.call = call
        self.last_loss = lambda: float(last[0].loss)
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        return seconds, {"loss": np.array(self.last_loss())}

    def measure(self, calls: int) -> dict[str, Any]:
        """Seconds for that many calls, each waited for, and of each; and how many threads were busy meanwhile."""
        return _timed(self.call, calls)

    def end(self) -> dict[str, Any]:
        """Peak memory in bytes, by the device's counter or else of this process, and the loss of the last step."""
        peak = self.package.peak_memory(self.job["device"])
        return {"peak_memory_bytes": _peak_of_process() if peak is None else peak, "last_loss": self.last_loss()}

    def peaks(self) -> dict[str, Any]:
        """The most that this framework gets out of the machine: amounts a second, the best of several."""
        load(self.job["backend"])
        module = importlib.import_module(f"{PACKAGES[self.job['backend']]}.peak")
        peaks = []
        for name, amount, call in module.workloads(self.job["device"], self.job["dtype"]):
            call()
            best = min(_timed(call, 1)["seconds"] for _ in range(_PEAK_MEASUREMENTS))
            peaks.append({"name": name, "per_second": amount / best})
        return {"peaks": peaks}

    def stages(self, images: str) -> dict[str, Any]:
        """The stages' names in forward order; prepares two calls of each, which compiles.

        Both calls compute in training mode on the stage's real input, and wait. The first is the forward pass. The
        second also computes the gradients of the sum of the output by the stage's parameters and its input; the images
        have none, as in training.
        """
        module = importlib.import_module(f"{PACKAGES[self.job['backend']]}.profile")
        names = []
        for name, forward, both in module.stages(self.model, _load(images)[0]):
            names.append(name)
            self.stage_calls.append((forward, both))
        return {"stages": names}

    def stage(self, index: int, backward: bool, calls: int) -> dict[str, Any]:
        """Like `measure`, for one stage: forward alone, or with its gradients."""
        forward, both = self.stage_calls[index]
        return _timed(both if backward else forward, calls)

    def _save(self, arrays: dict[str, Array]) -> str:
        path = Path(self.job["folder"]) / "answer.npz"
        messages.write_arrays(path, {name: np.asarray(x) for name, x in arrays.items()})
        return str(path)


def pipeline(dataset: Path, batch: int) -> Batches:
    """Batches of the training images as in a training run, epoch after epoch, without a smaller one at the end.

    Raises:
        spec.InvalidInput: when the dataset has fewer images than one batch.
    """
    from harness.images.batches import open_dataset, training_batches

    split = open_dataset(dataset).train
    if len(split) < batch:
        raise spec.InvalidInput(f"the pipeline needs at least {batch} images, and the dataset has {len(split)}")
    epoch = 0
    while True:
        batches = training_batches(split, batch, seed=0, epoch=epoch, dtype="float32", mean=0.0, std=1.0)
        yield from ((images, labels) for images, labels in batches if len(labels) == batch)
        epoch += 1


def _timed(call: Callable[[], Any], calls: int) -> dict[str, Any]:
    before, moments = ticks_by_thread(), [time.perf_counter()]
    for _ in range(calls):
        call()
        moments.append(time.perf_counter())
    each = [end - start for start, end in pairwise(moments)]
    return {"seconds": moments[-1] - moments[0], "calls": each, "busy_threads": busy_threads(before)}


def _load(path: str) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as file:
        return file["images"], file["labels"]


def to_numpy(x: Any) -> Array:
    """A framework's array as NumPy's. PyTorch and MXNet have methods for it; NumPy understands JAX's."""
    if hasattr(x, "asnumpy"):
        return np.asarray(x.asnumpy())
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _peak_of_process() -> int | None:
    """The most memory that this process ever held, in bytes; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    peak = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(peak.group(1)) if peak else None
