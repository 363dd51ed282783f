"""One backend in a process of its own: `python -m harness.worker BACKEND FOLDER`.

The folder holds the task (`task.json`, `task.npz`) and takes the answer (`answer.json`, `answer.npz`); messages on the
way are lines of JSON on the standard output. Only NumPy and the backend's framework are needed here, and for training
safetensors, filelock and pydantic, so that the process can run in another environment than the one that asks.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import spec
from harness.backends import messages
from harness.backends.registry import PACKAGES, Backend, NotInstalled, load, processors
from harness.backends.threads import busy_threads, ticks_by_thread

_BATCH = 32  # images that are computed together
_SAVING = 60.0  # seconds for a training to finish its step and save, when the command that started it is gone

Tell = Callable[[dict[str, Any]], None]
Facts = dict[str, Any]  # JSON


def main(backend: str, folder: Path) -> None:
    """Do the task in the folder, and leave the answer there; a refusal is an answer too."""
    task = json.loads((folder / "task.json").read_text())
    with np.load(folder / "task.npz", allow_pickle=False) as given:
        arrays = dict(given)
    stopped = threading.Event()
    training = task["kind"] == "train"
    messages.watch_lifeline(partial(_end, stopped, _SAVING if training else 0.0))
    if training:
        _stop_on_signals(stopped)
    answer: Facts
    results: dict[str, spec.Array] = {}
    try:
        answer, results = handle(backend, task, arrays, _teller(stopped), stopped.is_set)
    except spec.InvalidInput as refusal:
        answer = {"refused": str(refusal), "missing": isinstance(refusal, NotInstalled)}
    except ModuleNotFoundError as error:
        if error.name not in ("safetensors", "filelock", "pydantic"):
            raise
        answer = {"refused": f"{sys.executable} has no {error.name}, which training needs: pip install {error.name}"}
    if training:
        # Ctrl-C reaches this process twice, from the terminal and from the command. The second signal may come late.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    try:
        messages.write_arrays(folder / "answer.npz", results)
        with messages.temporary_files():
            (folder / "answer.json").write_text(messages.written(answer))
    except spec.InvalidInput as error:
        sys.exit(str(error))


def handle(
    backend: str,
    task: dict[str, Any],
    arrays: dict[str, spec.Array],
    tell: Tell = lambda message: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Facts, dict[str, spec.Array]]:
    """Do one task in this process.

    Args:
        backend: ``pt``, ``mx`` or ``jax``; ``keras`` for a file of Keras', which is read here and no more.
        task: ``kind`` names one of `HANDLERS`; the rest is that handler's.
        arrays: What the task works on, by name.
        tell: Takes the messages on the way.
        stopped: Whether to end early; a training saves first.

    Returns:
        The answer's facts and arrays.

    Raises:
        spec.InvalidInput: for a kind that is not known, and whatever the backend refuses.
    """
    kind = task.get("kind")
    if kind not in HANDLERS:
        raise spec.InvalidInput(f"a worker's task: expected a kind of {', '.join(HANDLERS)}, got {kind!r}")
    if backend == "keras":
        return _keras_file(Path(task["path"]))
    return HANDLERS[kind](Request(backend, load(backend), task, arrays, tell, stopped))


@dataclasses.dataclass(frozen=True)
class Request:
    """One task, the backend that does it, and the ways to report."""

    backend: str
    package: Backend
    task: dict[str, Any]
    arrays: dict[str, spec.Array]
    tell: Tell
    stopped: Callable[[], bool]


def _stop_on_signals(stopped: threading.Event) -> None:
    """From now on Ctrl-C and SIGTERM only set this event; training then finishes its step and saves."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())


def _end(stopped: threading.Event, seconds: float) -> None:
    """Stop, and end this process if that takes longer: whoever wanted the answer is gone."""
    stopped.set()
    time.sleep(seconds)
    os._exit(1)


def _teller(stopped: threading.Event) -> Tell:
    """Sends messages to whoever started this process; when nobody is left to read them, it is time to stop."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print does not belong among the messages

    def tell(message: dict[str, Any]) -> None:
        try:
            channel.write(messages.written(message) + "\n")
            channel.flush()
        except BrokenPipeError:
            stopped.set()

    return tell


def _train(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    from harness.training.loop import Diverged, train

    try:
        step, complete, rank = train(request.package, request.backend, request.task, request.tell, request.stopped)
        return {"rank": rank, "step": step, "complete": complete}, {}
    except Diverged as error:
        return {"diverged": str(error)}, {}


def _evaluate(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    """The scores of a network on a prepared dataset."""
    from harness.images.batches import open_dataset
    from harness.training.evaluate import evaluate

    task = request.task
    dataset = open_dataset(Path(task["dataset"]))
    split = {"train": dataset.train, "test": dataset.test}[task["part"]]
    scores = evaluate(
        request.package,
        _built(request, request.arrays),
        split,
        batch=_BATCH,
        classes=len(dataset.classes),
        dtype=task["dtype"],
        mean=task["mean"],
        std=task["std"],
        done=lambda images: request.tell({"event": "evaluating", "images": images, "of": len(split)}),
    )
    return {"loss": scores.loss, "accuracy": scores.accuracy}, {"confusion": scores.confusion}


def _predict(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    """The logits of images, a batch at a time."""
    params = dict(request.arrays)
    images = params.pop("images")
    model = _built(request, params)
    parts = [request.package.predict(model, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return {}, {"logits": np.concatenate(parts)}


def _activations(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    """What every stage puts out, by its name."""
    params = dict(request.arrays)
    images = params.pop("images")
    description = request.package.describe(request.task["device"])
    facts = {"framework": description.framework, "version": description.version, "device": description.device}
    return facts, request.package.activations(_built(request, params), images)


def _built(request: Request, params: spec.Arrays) -> Any:
    """The task's network with those parameters."""
    task, config = request.task, spec.preset(**request.task["config"])
    return request.package.build(config, dtype=task["dtype"], device=task["device"], params=params)


def _file(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    """A file of the framework's own: its arrays, or it written, or what the network computes that it holds."""
    files = importlib.import_module(f"{PACKAGES[request.backend]}.files")
    task = request.task
    path = Path(task["path"])
    if task["kind"] == "read":
        return {}, files.read_file(path)
    config = spec.preset(**task["config"])
    if task["kind"] == "run":
        return {}, files.run_file(path, config, task["dtype"], request.arrays["images"], task.get("names"))
    files.write_file(path, request.arrays, config)
    return {}, {}


def _keras_file(path: Path) -> tuple[Facts, dict[str, spec.Array]]:
    """A file of Keras': its arrays, our texts, and what else to say of it."""
    from harness.weights.formats import keras

    contents = keras.read(path)
    return {"texts": contents.texts, "remedy": contents.remedy}, contents.arrays


def _describe(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    """The framework's description of itself, and the number of threads that it really computes with."""
    package = request.package
    description = dataclasses.asdict(package.describe(request.task["device"]))
    model = package.build(spec.preset("lenet"), device="cpu")
    images = np.random.default_rng(0).random((256, 1, 28, 28), dtype=np.float32)
    package.predict(model, images)  # compiles, and warms up
    before, start = ticks_by_thread(), time.perf_counter()
    while time.perf_counter() - start < 1:
        package.predict(model, images)
    description["busy_threads"] = busy_threads(before)
    description["processors"] = processors()
    return description, {}


def _probe(request: Request) -> tuple[Facts, dict[str, spec.Array]]:
    params, task = dict(request.arrays), request.task
    images, labels = params.pop("images"), params.pop("labels")
    model = _built(request, params)
    description = request.package.describe(task["device"])
    facts, arrays = probe(request.package, model, images, labels, spec.SGD(**task["sgd"]))
    facts |= {
        "framework": description.framework,
        "version": description.version,
        "device": description.device,
        "threads": description.threads,
    }
    return facts, arrays


def probe(
    package: Backend, model: Any, images: spec.Array, labels: spec.Array, sgd: spec.SGD
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    """Everything of a model that is held against the referee. Trains the model for one step, at the end."""
    parameters = sum(x.size for name, x in package.dump_params(model).items() if not spec.is_statistic(name))
    stages = package.activations(model, images)
    logits = package.predict(model, images)
    loss, grads = package.loss_and_grads(model, images, labels)
    package.train_step(model, package.make_optimizer(model, sgd), images, labels)
    arrays = {"logits": logits}
    for kind, group in (("stage", stages), ("gradient", grads), ("step", package.dump_params(model))):
        arrays |= {f"{kind}/{name}": x for name, x in group.items()}
    return {"parameters": parameters, "loss": loss, "stages": list(stages)}, arrays


HANDLERS: dict[str, Callable[[Request], tuple[Facts, dict[str, spec.Array]]]] = {
    "activations": _activations,
    "describe": _describe,
    "evaluate": _evaluate,
    "predict": _predict,
    "probe": _probe,
    "read": _file,
    "run": _file,
    "train": _train,
    "write": _file,
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
