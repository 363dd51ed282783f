"""A candidate from the inside: built, proven and timed in its own process. It knows no framework.

A backend's package and its `textbook` module offer the same functions, so that nothing here asks which one it is.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.backends.registry import BACKENDS, PACKAGES, load
from harness.backends.threads import busy_threads, ticks_by_thread
from spec import Array

# Plain, exact in float32, and small: the weights stay where no number overflows.
SGD = spec.SGD(rate=0.0078125, momentum=0.0)
_BEST_OF = 5  # measurements of a peak


class Subject:
    """One candidate, and the operations that it can be asked for; each returns plain values.

    Args:
        job: What `harness.bench.crew.Process` sends first.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.call: Callable[[], None] = lambda: None  # what is timed; `first` sets it
        self.last_loss: Callable[[], float | None] = lambda: None
        self.stages: list[tuple[str, Callable[[], None], Callable[[], None]]] = []

    def answer(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Do it: begin, prove, first, measure, end, peaks, stages or stage."""
        operations: dict[str, Callable[..., dict[str, Any]]] = {
            "begin": self.begin,
            "prove": self.prove,
            "first": self.first,
            "measure": self.measure,
            "end": self.end,
            "peaks": self.peaks,
            "stages": self.name_stages,
            "stage": self.measure_stage,
        }
        return operations[operation](**arguments)

    def begin(self) -> dict[str, Any]:
        """Import the framework and build the network, each timed."""
        job = self.job
        start = time.perf_counter()
        if job["backend"] in BACKENDS:
            load(job["backend"])  # says what to do where it is not installed
        self.package = importlib.import_module(job["module"])
        imported = time.perf_counter()
        with np.load(job["params"], allow_pickle=False) as params:
            self.params = dict(params)
        self.model = self._build()
        built = time.perf_counter()
        found = self.package.describe(job["device"])
        return {
            "import_seconds": imported - start,
            "build_seconds": built - imported,
            "framework": found.framework,
            "version": found.version,
            "device": found.device,
            "threads": found.threads,
        }

    def _build(self) -> Any:
        config = spec.preset(**self.job["config"])
        model = self.package.build(config, dtype=self.job["dtype"], device=self.job["device"], params=self.params)
        return self.package.compiled(model) if self.job["variant"] == "compiled" else model

    def prove(self, images: str, tasks: list[str]) -> dict[str, Any]:
        """Everything that is held against the referee, on a small batch; trains for one step if that is a task."""
        package, model = self.package, self.model
        given, labels = _batch(images)
        found: dict[str, Array] = {}
        if "infer" in tasks:
            x = package.images_to_device(model, given)
            found["logits"] = to_numpy(package.predictor(model, x)(x))
        if "train" in tasks:
            loss, grads = package.loss_and_grads(model, given, labels)
            step = package.train_step(model, package.make_optimizer(model, SGD), given, labels)
            found |= {"loss": np.array(loss), "loss of the step": np.array(float(step.loss))}
            for kind, group in (("gradient", grads), ("step", package.dump_params(model))):
                found |= {f"{kind}/{name}": x for name, x in group.items()}
        return {"arrays": self._keep(found)}

    def first(self, images: str, dataset: str | None) -> dict[str, Any]:
        """The first call, which is the one that compiles; and what it computed, for the referee.

        Args:
            images: File of the batch, which is brought to the device before the clock starts.
            dataset: Folder of a prepared dataset: load each batch from there instead, as part of the call.
        """
        if self.job["task"] == "infer":
            seconds, result = self._first_prediction(images, dataset)
        else:
            seconds, result = self._first_step(images, dataset)
        return {"seconds": seconds, "arrays": self._keep(result)}

    def _first_prediction(self, images: str, dataset: str | None) -> tuple[float, dict[str, Array]]:
        package, model = self.package, self.model
        if dataset is not None:
            batches = pipeline(Path(dataset), self.job["batch"])
            start = time.perf_counter()
            logits = package.predict(model, next(batches)[0])
            seconds = time.perf_counter() - start
            self.call = lambda: package.predict(model, next(batches)[0])
            return seconds, {"logits": logits}
        x = package.images_to_device(model, _batch(images)[0])
        package.wait(x)
        start = time.perf_counter()
        run = package.predictor(model, x)
        y = run(x)
        package.wait(y)
        seconds = time.perf_counter() - start
        self.call = lambda: package.wait(run(x))
        return seconds, {"logits": to_numpy(y)}

    def _first_step(self, images: str, dataset: str | None) -> tuple[float, dict[str, Array]]:
        package, model = self.package, self.model
        optimizer = package.make_optimizer(model, SGD)
        if dataset is not None:
            batches = pipeline(Path(dataset), self.job["batch"])

            def step() -> spec.Step:
                return package.train_step(model, optimizer, *next(batches))  # type: ignore[no-any-return]
        else:
            x, y = package.to_device(model, *_batch(images))
            package.wait(x, y)

            def step() -> spec.Step:
                return package.update(model, optimizer, x, y, {})  # type: ignore[no-any-return]

        done: list[spec.Step] = []

        def call() -> None:
            done[:] = [step()]
            package.wait(done[0], model)

        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        self.call = call
        self.last_loss = lambda: float(done[0].loss)
        return seconds, {"loss": np.array(float(done[0].loss))}

    def measure(self, calls: int) -> dict[str, Any]:
        """Seconds for so many calls, each waited for, and how many threads were busy meanwhile."""
        return _timed(self.call, calls)

    def end(self) -> dict[str, Any]:
        """Peak memory in bytes, of the device's own counter or else of this process; the loss of the last step."""
        peak = self.package.peak_memory(self.job["device"])
        return {"peak_memory": _high_water() if peak is None else peak, "loss": self.last_loss()}

    def peaks(self) -> dict[str, Any]:
        """What this framework gets out of the machine at most: amounts a second, the best of several."""
        load(self.job["backend"])
        package = importlib.import_module(f"{PACKAGES[self.job['backend']]}.peak")
        found = []
        for name, amount, call in package.workloads(self.job["device"], self.job["dtype"]):
            call()
            best = min(_timed(call, 1)["seconds"] for _ in range(_BEST_OF))
            found.append({"name": name, "per_second": amount / best})
        return {"peaks": found}

    def name_stages(self, images: str) -> dict[str, Any]:
        """Prepare each stage for being timed alone; compiles. Returns their names in forward order."""
        module = importlib.import_module(f"{PACKAGES[self.job['backend']]}.profile")
        self.stages = list(module.stages(self.model, _batch(images)[0]))
        return {"stages": [name for name, _, _ in self.stages]}

    def measure_stage(self, index: int, backward: bool, calls: int) -> dict[str, Any]:
        """As `measure`, of one stage: forward alone, or with its gradients."""
        _, forward, both = self.stages[index]
        return _timed(both if backward else forward, calls)

    def _keep(self, arrays: dict[str, Array]) -> str:
        path = Path(self.job["folder"]) / "answer.npz"
        np.savez(path, **{name: np.asarray(x) for name, x in arrays.items()})
        return str(path)


def pipeline(dataset: Path, batch: int) -> Iterator[tuple[Array, Array]]:
    """Batches of the training images as in a training run, epoch after epoch; a last, smaller one is left out.

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


def _timed(call: Callable[[], None], calls: int) -> dict[str, Any]:
    before, start = ticks_by_thread(), time.perf_counter()
    for _ in range(calls):
        call()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "busy_threads": busy_threads(before)}


def _batch(path: str) -> tuple[Array, Array]:
    with np.load(path, allow_pickle=False) as given:
        return given["images"], given["labels"]


def to_numpy(x: Any) -> Array:
    """A framework's array as NumPy's: PyTorch's and MXNet's say themselves how, NumPy understands JAX's."""
    if hasattr(x, "asnumpy"):
        return np.asarray(x.asnumpy())
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _high_water() -> int | None:
    """The most memory that this process ever held, in bytes; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)
