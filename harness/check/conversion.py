"""The weights of a model that computes what a preset or another model does, by the other's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_bytes

import spec
from harness.agreement import relative_error
from harness.atomic import sync_folder, temporary_folder, write_atomically
from harness.check.arithmetic import Run, flat
from harness.check.checking import Report, tolerance
from harness.check.graph import probe_images
from harness.check.tree import read
from harness.check.trial import Task, Trial
from harness.weights import convert
from harness.weights.checkpoint import Checkpoint, config_table
from harness.weights.convert import Source, Verification
from harness.weights.formats import FORMATS, RunTask, answer_of, format_for
from harness.weights.names import SCHEMES
from harness.weights.recognition import ITSELF, recognize


def accepted(report: Report, words: Sequence[str]) -> bool:
    """Whether a model is the preset but for differences in whose text one of these words stands."""
    lines = [line.text for line in report.lines if line.counts]
    return report.not_understood is None and all(any(word in text for word in words) for text in lines)


def with_names(report: Report, trial: Trial) -> Report:
    """The report with a note on whose names the parameters have, of a model of PyTorch held against a preset.

    That is what `convert` would make of its weights. Where they are unknown and the model differs there is none.
    """
    if trial.framework != "torch" or not report.preset:
        return report
    own = {name: x for recording in trial.recordings.values() for name, x in recording.graph.arrays.items()}
    same = report.status == 0
    try:
        network = recognize(own)
    except spec.InvalidInput:
        unknown = "googlenet convert does not know the names of its parameters; --convert takes its weights along"
        return replace(report, notes=(*report.notes, unknown)) if same else report
    presets = [config.preset for config in network.configs]
    whose = "their order and shapes" if network.scheme.name == ITSELF else f"their names, {network.scheme.name}"
    fits = report.preset in presets
    note = (
        f"googlenet convert takes its weights for those of {report.preset if fits else ', '.join(presets)}, by {whose}"
    )
    note += ", and sees nothing of this" * (fits and not same)
    return replace(report, notes=(*report.notes, note))


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


TRANSFERRED = (".safetensors", ".pt", ".pth")  # suffixes of what another model's weights are written to


def transferred(
    report: Report,
    trial: Trial,
    other: Trial,
    task: Task,
    target: Path,
    rerun: Callable[[Task], Trial],
    run_task: RunTask,
) -> Verification:
    """Write a model's weights by the other model's own names, and put them in place once the other has run with them.

    Args:
        report: On the model.
        trial: Its passes.
        other: Those of the model that it is held against.
        task: Whose these are, at that shape.
        target: A state dict to write, with one of `TRANSFERRED` at its end.
        rerun: Runs a task.
        run_task: Runs the frameworks.

    Raises:
        spec.InvalidInput: when the other model is not PyTorch's, one of its arrays has no counterpart of its size, or
            the file cannot be written.
    """
    if other.framework != "torch":
        raise spec.InvalidInput(
            f"--convert: {report.against} is a model of {other.framework}; weights are written for those of PyTorch"
        )
    own = {name: x for recording in other.recordings.values() for name, x in recording.graph.arrays.items()}
    arrays = report.arrays
    if absent := [f"{name} {x.shape}" for name, x in own.items() if name not in arrays or arrays[name].size != x.size]:
        raise spec.InvalidInput(
            f"--convert: {len(absent)} arrays of {report.against} have none of their size in the model, "
            f"{', '.join(absent[:3])} among them; nothing was written"
        )
    state = {name: _as_stored(arrays[name].reshape(x.shape)) for name, x in own.items()}
    norms = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    state |= {f"{norm}num_batches_tracked": np.array(0) for norm in norms}  # which PyTorch counts and asks for
    with temporary_folder(target.absolute().parent) as folder:
        written = folder / target.name
        if target.suffix == ".safetensors":
            write_atomically(written, to_bytes(state, {"format": "pt"}))
        else:
            plain = {"kind": "write", "config": config_table(spec.preset("lenet"))}  # no batch norm of ours
            answer_of(run_task, "pt", written, plain, state)
        again = rerun(replace(task, weights=str(written), training="training" in report.compared))
        allowed = {
            kind: max(tolerance(x.recordings[kind], x.dtype) for x in (trial, again)) for kind in report.compared
        }
        done = Verification("the model", report.against, (trial.batch, *trial.shape), max(allowed.values()), logits=0.0)
        for kind, bound in allowed.items():
            for y in again.recordings[kind].outputs:
                error = min(relative_error(flat(y), flat(x)) for x in _expected(report, trial, other, kind))
                done.logits = max(done.logits, error)
                if not error <= bound:
                    done.first_difference, done.difference = "logits", done.logits
        if done.passed:
            written.replace(target)
            sync_folder(target.absolute().parent)
    return done


def _expected(report: Report, trial: Trial, other: Trial, kind: str) -> list[spec.Array]:
    """What the other model puts out with the model's weights: the same, or where the two differ what its tree does."""
    if not any(line.counts for line in report.lines):
        return trial.recordings[kind].outputs
    run = Run(report.arrays)
    tree = read(other.recordings[kind].graph, heads=kind == "training")
    return [run.chain(tree, probe_images(trial.shape_of(kind), trial.batch)), *run.heads]


def _as_stored(x: spec.Array) -> spec.Array:
    """In float32, where that holds every number, and in the order of its axes: a JAX kernel is a view of another."""
    single = x.astype(np.float32)
    return np.ascontiguousarray(single if np.array_equal(single, x) else x)
