"""Classify pictures, in one framework or in several side by side."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import spec
from harness.backends.registry import BACKENDS
from harness.images.pictures import LEAVE_OUT, Remarks, listing, pictures_in, read, unreadable
from harness.screen import cell, new_table, print_table, say
from harness.shown import shown
from harness.weights.checkpoint import Checkpoint, config_table
from harness.weights.formats import RunTask
from harness.weights.onnx_run import EVALUATORS, RUNTIMES
from harness.weights.preprocessing import Preprocessing
from spec import Array, InvalidInput

ENGINES = (*BACKENDS, *RUNTIMES)
_LARGEST = 64 << 20  # bytes from standard input


@dataclass(frozen=True)
class Predictions:
    """Probabilities (N, num_classes) by engine, and why other engines have none."""

    probabilities: dict[str, Array]
    problems: list[str] = field(default_factory=list)


def read_pictures(
    sources: Sequence[str], prepare: Preprocessing, *, skip_damaged: bool = False
) -> tuple[list[str], Array, list[str]]:
    """Names of pictures, the prepared pictures (N, C, size, size) in float64, and lines for the user on both.

    Args:
        sources: Files; folders, with every picture in them or below; ``-`` for one picture on standard input.
        prepare: How.
        skip_damaged: Leave out pictures that cannot be read, and say so.

    Raises:
        InvalidInput: naming every picture that is missing or cannot be read, or when none can.
    """
    names: list[str] = []
    prepared: list[Array] = []
    problems: list[str] = []
    lines: list[str] = []
    remarks = Remarks()
    for source in sources:
        for name, file in _files(source, lines):
            try:
                prepared.append(prepare.apply(read(file, name, remarks)))
                names.append(name)
            except InvalidInput as error:
                problems.append(str(error))
    if problems and not prepared:
        raise unreadable(problems)
    if problems and not skip_damaged:
        raise unreadable(problems, LEAVE_OUT)
    lines += remarks.lines()
    if problems:
        lines.append("left out, cannot be read: " + listing(problems, between="; "))
    return names, np.stack(prepared), lines


def _files(source: str, lines: list[str]) -> list[tuple[str, Path | io.BytesIO]]:
    """The pictures of a source, and their names; what was left out is added to the lines."""
    if source != "-":
        paths = [Path(source)]
        if paths[0].is_dir():
            paths, others = pictures_in(paths[0])
            lines += others
        return [(str(path), path) for path in paths]
    content = sys.stdin.buffer.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InvalidInput(f"standard input: expected a picture of at most {_LARGEST:,} bytes")
    return [("standard input", io.BytesIO(content))]


def predict(
    weights: Checkpoint,
    images: Array,
    engines: Sequence[str],
    run_task: RunTask,
    *,
    dtype: str,
    device: str,
    done: Callable[[str], None] = lambda name: None,
) -> Predictions:
    """Probabilities of every class, by each engine.

    Args:
        weights: The network and its parameters.
        images: (N, C, H, W), prepared.
        engines: Some of `ENGINES`.
        run_task: Runs a backend's task.
        dtype: ``float32``, ``tf32``, ``float64`` or ``bfloat16`` in the backends; the others compute in float32.
        device: ``auto``, ``cpu`` or ``gpu`` for the backends.
        done: Called with each engine's name when it has finished.

    Raises:
        InvalidInput: when a backend refuses: the images do not fit, or it is not installed.
    """
    config = replace(weights.config, aux=False)  # auxiliary heads serve training, and need larger pictures
    params = {name: weights.params[name] for name in spec.param_shapes(config)}
    spec.check_images(config, images)
    probabilities, problems = {}, []
    for name in engines:
        if name in RUNTIMES:
            from harness.weights.formats import onnx_file

            graph = onnx_file.build(config, params).SerializeToString()
            logits = EVALUATORS[name].run(graph, images, ["logits"])["logits"]
        else:
            task = {"kind": "predict", "config": config_table(config), "dtype": dtype, "device": device}
            answer = run_task(name, task, {**params, "images": images})
            if answer.refused is not None:
                raise InvalidInput(f"{name}: {answer.refused}")
            if answer.crash is not None:
                problems.append(f"{name}: {answer.crash}")
                continue
            logits = answer.arrays["logits"]
        probabilities[name] = softmax(logits)
        done(name)
    return Predictions(probabilities, problems)


def softmax(logits: Array) -> Array:
    """Probabilities (N, num_classes), each row adding up to 1."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def ranked(names: Sequence[str], predictions: Predictions, labels: Sequence[str], top: int) -> list[dict[str, Any]]:
    """For each picture the most likely classes, in the first engine's order, with every engine's probability."""
    if top < 1:
        raise InvalidInput(f"--top: expected at least 1, got {top}")
    rows = []
    by_engine = predictions.probabilities
    for i, name in enumerate(names if by_engine else []):
        first = next(iter(by_engine.values()))[i]
        order = np.argsort(-first, kind="stable")[:top]
        classes = [
            {
                "class": int(j),
                "label": labels[j] if labels else str(int(j)),
                "probability": {engine: float(p[i, j]) for engine, p in by_engine.items()},
            }
            for j in order
        ]
        rows.append({"picture": name, "classes": classes})
    return rows


def render(rows: Sequence[dict[str, Any]], engines: Sequence[str], console: Console) -> None:
    """Print a small table for each picture, then how many of them are of each class."""
    for row in rows:
        answered = [name for name in engines if name in row["classes"][0]["probability"]]
        table = new_table("class", *answered)
        for item in row["classes"]:
            table.add_row(cell(item["label"]), *(f"{item['probability'][name]:.4f}" for name in answered))
        say(console, shown(row["picture"]), "bold")
        print_table(console, table)
    if len(rows) < 2:
        return
    counts = new_table("most likely", "pictures")
    for label, count in Counter(row["classes"][0]["label"] for row in rows).most_common():
        counts.add_row(cell(label), f"{count:,}")
    say(console, f"{len(rows):,} pictures", "bold")
    print_table(console, counts)
