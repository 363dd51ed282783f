"""One backend in a process of its own: `python -m harness.worker BACKEND FOLDER`.

The folder holds the task (`task.json`, `task.npz`) and takes the answer (`answer.json`, `answer.npz`). Only NumPy and
the backend's framework are needed here, so that the process can run in another environment than the one that asks.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import spec
from harness.backend import load, processors


def main(backend: str, folder: Path) -> None:
    """Do the task in the folder, and leave the answer there; a refusal is an answer too."""
    task = json.loads((folder / "task.json").read_text())
    arrays: dict[str, spec.Array] = {}
    try:
        package = load(backend)
        if task["kind"] == "describe":
            answer = _describe(package, task)
        else:
            with np.load(folder / "task.npz", allow_pickle=False) as given:
                answer, arrays = _probe(package, task, dict(given))
    except spec.InvalidInput as refusal:
        answer = {"refused": str(refusal)}
    np.savez(folder / "answer.npz", **arrays)
    (folder / "answer.json").write_text(json.dumps(answer))


def _describe(package: ModuleType, task: dict[str, Any]) -> dict[str, Any]:
    """What the framework says of itself, and how many threads it really computes with."""
    description = dataclasses.asdict(package.describe(task["device"]))
    model = package.GoogLeNet(spec.preset("d2l"), device="cpu")
    images = np.random.default_rng(0).random((32, 1, 96, 96), dtype=np.float32)
    package.predict(model, images)  # builds, and warms up
    before, start = _ticks_by_thread(), time.perf_counter()
    while time.perf_counter() - start < 1:
        package.predict(model, images)
    worked = [ticks - before.get(thread, 0) for thread, ticks in _ticks_by_thread().items()]
    # Threads that did a good part of what the busiest one did: a share of the time would say how busy others are.
    description["busy_threads"] = sum(ticks > max(worked) / 4 for ticks in worked) if worked else None
    description["processors"] = processors()
    return description


def _ticks_by_thread() -> dict[str, int]:
    """Processor time of each of this process's threads in clock ticks; empty where the system does not tell."""
    ticks = {}
    for stat in Path("/proc/self/task").glob("*/stat"):
        fields = stat.read_text().rsplit(")", 1)[1].split()  # what follows the name, which may hold spaces
        ticks[stat.parent.name] = int(fields[11]) + int(fields[12])  # user and system
    return ticks


def _probe(
    package: ModuleType, task: dict[str, Any], given: dict[str, spec.Array]
) -> tuple[dict[str, Any], dict[str, spec.Array]]:
    config = spec.preset(task["preset"], aux=task["aux"], dropout=0.0)
    images, labels = given.pop("images"), given.pop("labels")
    model = package.GoogLeNet(config, dtype=task["dtype"], device=task["device"])
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
