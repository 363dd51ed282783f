"""One backend in a process of its own: `python -m harness.worker BACKEND FOLDER`.

The folder holds the task (`task.json`, `task.npz`) and takes the answer (`answer.json`, `answer.npz`); messages on the
way are lines of JSON on the standard output. Only NumPy and the backend's framework are needed here, and for training
safetensors and filelock, so that the process can run in another environment than the one that asks.
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
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import spec
from harness.backend import PACKAGES, NotInstalled, load, processors

_BATCH = 32  # images of a prediction that are computed together


def main(backend: str, folder: Path) -> None:
    """Do the task in the folder, and leave the answer there; a refusal is an answer too."""
    task = json.loads((folder / "task.json").read_text())
    arrays: dict[str, spec.Array] = {}
    stopped = threading.Event()
    if task["kind"] == "train":
        _stop_on_signals(stopped)
    try:
        package = load(backend)
        if task["kind"] == "describe":
            answer = _describe(package, task)
        elif task["kind"] == "train":
            answer = _train(package, backend, task, stopped)
        elif task["kind"] == "evaluate":
            answer, arrays = _evaluate(package, task, stopped)
        elif task["kind"] == "predict":
            with np.load(folder / "task.npz", allow_pickle=False) as given:
                answer, arrays = predict_task(package, task, dict(given))
        elif task["kind"] in ("read", "write", "run"):
            with np.load(folder / "task.npz", allow_pickle=False) as given:
                answer, arrays = file_task(backend, task, dict(given))
        else:
            with np.load(folder / "task.npz", allow_pickle=False) as given:
                answer, arrays = _probe(package, task, dict(given))
    except spec.InvalidInput as refusal:
        answer = {"refused": str(refusal), "missing": isinstance(refusal, NotInstalled)}
    except ModuleNotFoundError as error:
        if error.name not in ("safetensors", "filelock"):
            raise
        answer = {"refused": f"{sys.executable} has no {error.name}, which training needs: pip install {error.name}"}
    np.savez(folder / "answer.npz", **arrays)
    (folder / "answer.json").write_text(json.dumps(answer))


def _stop_on_signals(stopped: threading.Event) -> None:
    """From now on Ctrl-C and SIGTERM only set this; in training the step at hand is finished, and all is saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())


def _teller(stopped: threading.Event) -> Callable[[dict[str, Any]], None]:
    """Sends messages to whoever started this process; when nobody is left to read them, it is time to stop."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print does not belong among the messages

    def tell(message: dict[str, Any]) -> None:
        try:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
        except BrokenPipeError:
            stopped.set()

    return tell


def _train(package: ModuleType, backend: str, task: dict[str, Any], stopped: threading.Event) -> dict[str, Any]:
    from harness.loop import Diverged, train

    try:
        step, complete, rank = train(package, backend, task, _teller(stopped), stopped.is_set)
        return {"rank": rank, "step": step, "complete": complete}
    except Diverged as error:
        return {"diverged": str(error)}


def _evaluate(
    package: ModuleType, task: dict[str, Any], stopped: threading.Event
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    """The scores of a checkpoint on a prepared dataset."""
    from harness.loader import open_dataset
    from harness.scores import evaluate
    from spec import checkpoint

    found = checkpoint.load(Path(task["checkpoint"]))
    dataset = open_dataset(Path(task["dataset"]))
    model = package.build(found.config, dtype=task["dtype"], device=task["device"])
    package.load_params(model, found.params)
    split = {"train": dataset.train, "test": dataset.test}[task["part"]]
    tell = _teller(stopped)
    scores = evaluate(
        package,
        model,
        split,
        batch=task["batch"],
        classes=found.config.num_classes,
        dtype=task["dtype"],
        mean=task["mean"],
        std=task["std"],
        done=lambda images: tell({"event": "evaluating", "images": images, "of": len(split)}),
    )
    return {"loss": scores.loss, "accuracy": scores.accuracy}, {"confusion": scores.confusion}


def predict_task(
    package: ModuleType, task: dict[str, Any], given: dict[str, spec.Array]
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    """The logits of images, a batch at a time."""
    images = given.pop("images")
    model = package.build(spec.preset(**task["config"]), dtype=task["dtype"], device=task["device"])
    package.load_params(model, given)
    parts = [package.predict(model, images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
    return {}, {"logits": np.concatenate(parts)}


def file_task(
    backend: str, task: dict[str, Any], given: dict[str, spec.Array]
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    """A file of the framework's own: its arrays, or it written, or what the network computes that it holds."""
    files = importlib.import_module(f"{PACKAGES[backend]}.files")
    path = Path(task["path"])
    if task["kind"] == "read":
        return {}, files.read_file(path)
    config = spec.preset(**task["config"])
    if task["kind"] == "run":
        return {}, files.run_file(path, config, task["dtype"], given["images"])
    files.write_file(path, given, config)
    return {}, {}


def _describe(package: ModuleType, task: dict[str, Any]) -> dict[str, Any]:
    """What the framework says of itself, and how many threads it really computes with."""
    description = dataclasses.asdict(package.describe(task["device"]))
    model = package.build(spec.preset("d2l"), device="cpu")
    images = np.random.default_rng(0).random((32, 1, 96, 96), dtype=np.float32)
    package.predict(model, images)  # builds, and warms up
    before, start = ticks_by_thread(), time.perf_counter()
    while time.perf_counter() - start < 1:
        package.predict(model, images)
    description["busy_threads"] = busy_threads(before)
    description["processors"] = processors()
    return description


def busy_threads(before: dict[str, int]) -> int | None:
    """How many threads have worked since `ticks_by_thread` said this; None where that is too short, or nobody tells."""
    worked = [ticks - before.get(thread, 0) for thread, ticks in ticks_by_thread().items()]
    # Threads that did a good part of what the busiest one did: a share of the time would say how busy others are.
    return sum(ticks > max(worked) / 4 for ticks in worked) if any(worked) else None


def ticks_by_thread() -> dict[str, int]:
    """Processor time of each of this process's threads in clock ticks; empty where the system does not tell."""
    ticks = {}
    for stat in Path("/proc/self/task").glob("*/stat"):
        fields = stat.read_text().rsplit(")", 1)[1].split()  # what follows the name, which may hold spaces
        ticks[stat.parent.name] = int(fields[11]) + int(fields[12])  # user and system
    return ticks


def _probe(
    package: ModuleType, task: dict[str, Any], given: dict[str, spec.Array]
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    config = spec.preset(**task["config"])
    images, labels = given.pop("images"), given.pop("labels")
    model = package.build(config, dtype=task["dtype"], device=task["device"])
    package.load_params(model, given)
    description = package.describe(task["device"])
    facts, arrays = probe(package, model, images, labels, spec.SGD(**task["sgd"]))
    facts |= {
        "framework": description.framework,
        "version": description.version,
        "device": description.device,
        "threads": description.threads,
    }
    return facts, arrays


def probe(
    package: ModuleType, model: Any, images: spec.Array, labels: spec.Array, sgd: spec.SGD
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


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
