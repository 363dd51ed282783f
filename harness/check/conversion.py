"""The weights of a model that computes what a preset does, by canonical names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import spec
from harness.check.checking import Report
from harness.weights import convert
from harness.weights.checkpoint import Checkpoint
from harness.weights.convert import Source, Verification
from harness.weights.formats import FORMATS, RunTask, format_for
from harness.weights.names import SCHEMES


def accepted(report: Report, words: Sequence[str]) -> bool:
    """Whether a model is the preset but for differences in whose text one of these words stands."""
    lines = [line.text for line in report.lines if line.counts]
    return report.not_understood is None and all(any(word in text for word in words) for text in lines)


def converted(report: Report, source: Path, target: Path, run_task: RunTask) -> Verification | None:
    """Write a model's weights, prove them as `googlenet convert` does, and put them in place.

    Auxiliary heads are written where the model has them, or where what it lacks of them is not all.

    Args:
        report: On the model.
        source: The file that must not be replaced: of the weights, or of the model.
        target: What to write; its suffix says the format.
        run_task: Runs the frameworks.

    Raises:
        spec.InvalidInput: when an array of the preset has no counterpart of its shape, or the file cannot be written.
    """
    config = spec.preset(report.preset, in_channels=report.shape[0], num_classes=report.classes)
    heads = tuple(f"{head}." for head in spec.head_names(config))
    if not any(name.startswith(heads) for name in report.arrays):
        config = spec.preset(report.preset, in_channels=report.shape[0], num_classes=report.classes, aux=False)
    params, absent = {}, []
    for name, shape in spec.param_shapes(config).items():
        x = report.arrays.get(name)
        if x is None or x.size != math.prod(shape):
            absent.append(f"{name} {shape}")
        else:
            params[name] = _as_stored(x.reshape(shape))
    if absent:
        raise spec.InvalidInput(
            f"--convert: {len(absent)} arrays of {report.preset} have none of their shape in the model, "
            f"{', '.join(absent[:3])} among them; nothing was written"
        )
    naming = SCHEMES[FORMATS["safetensors"].scheme]
    read = Source(source, "safetensors", naming, Checkpoint(params, config), ("a model's own arrays",))
    form = format_for(target)
    return convert.convert(read, target, form, convert.prepared(read, None, aux=True), run_task, verify=True)


def _as_stored(x: spec.Array) -> spec.Array:
    """In float32, where that holds every number."""
    single = x.astype(np.float32)
    return single if np.array_equal(single, x) else x
