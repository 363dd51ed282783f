"""One backend in a process of its own: `python -m harness.worker BACKEND FOLDER`.

The folder holds the task (`task.json`, `task.npz`) and takes the answer (`answer.json`, `answer.npz`). Only NumPy and
the backend's framework are needed here, so that the process can run in another environment than the one that asks.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import spec
from harness.backend import load


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
    """What the framework says of itself, and how many processors it really keeps busy."""
    description = dataclasses.asdict(package.describe(task["device"]))
    config = spec.preset("d2l")
    model = package.GoogLeNet(config, device="cpu")
    images = np.random.default_rng(0).random((32, 1, 96, 96), dtype=np.float32)
    package.predict(model, images)  # builds, and warms up
    wall, busy = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < 1:
        package.predict(model, images)
    description["busy"] = (time.process_time() - busy) / (time.perf_counter() - wall)
    description["processors"] = len(os.sched_getaffinity(0))
    return description


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
