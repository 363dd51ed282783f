"""The check of a model: what it does is read, run again, held against a network of the spec, and told.

Nothing is said of a model whose reading, run again on the model's own weights, does not give the model's own numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import spec
from harness.agreement import finite, relative_error
from harness.check.align import Alignment, align, biases, weights
from harness.check.arithmetic import Run, flat, joined
from harness.check.differences import NORMED, TRAINING, WEIGHTS, Difference, differences, elsewhere
from harness.check.graph import Norm, NotUnderstood, Recording, probe_images, samples
from harness.check.reference import Effects, Model, Reference, arrays_of, folded_in, nearest
from harness.check.tree import Chain, Step, logits, read, unused
from harness.check.trial import LARGER, PADS_AS_NUMBERS, Trial

TOLERANCES = {"float64": 1e-12, "float32": 1e-5}  # of what is run again, relative to the largest logit
_FOLDING = ("onnx", "torchscript")  # whose files may have batch norm in the layers before it
_FOLDED = "batch norm is a part of the layers before it: its epsilon is not to be seen"
_NONE = 1e-12  # an effect below this is rounding
Key = tuple[str, str]  # of a difference
_SAME, _DIFFERS, _NOT_UNDERSTOOD = 0, 1, 3


@dataclass(frozen=True)
class Line:
    """Equal differences, wherever they are."""

    places: tuple[str, ...]
    text: str
    measured: Mapping[int, float | None]  # on the logits by the pictures' height; None: it does not fit there
    said: str  # of `differences`, in place of what is measured
    latent: bool  # at other sizes only
    shown_by: str  # count, shapes, or nothing
    model_places: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the two are different functions by this: not where it has no effect at either size."""
        measured = self.measured.values()
        if self.said:
            return self.said != NORMED
        return self.latent or len(measured) < 2 or any(map(_matters, measured))

    @property
    def effect(self) -> str:
        """What it does, in words."""
        if self.said:
            return self.said
        words = {size: _in_words(effect) for size, effect in self.measured.items()}
        sizes = " and ".join(map(str, words))
        first, *others = dict.fromkeys(words.values())
        if first != "none":
            return first
        if others:
            return f"none at {next(iter(words))}, one pixel larger {others[0]}"
        return f"none at {sizes}, at other sizes there is one" if self.latent else f"none at {sizes}"


def _in_words(effect: float | None) -> str:
    if effect is None:
        return "does not fit"
    return f"logits off by {effect:.2g}" if _matters(effect) else "none"


def _matters(effect: float | None) -> bool:
    return effect is None or not effect <= _NONE


@dataclass(frozen=True)
class Report:
    """The verdict."""

    parameters: int
    operations: int
    shape: spec.Shape  # of an image
    dtype: str
    error: float  # of the worst pass that was run again
    against: str = ""  # the name of the network that it is held against
    preset: str = ""  # the same, where that is a network of the spec
    nearest: str = ""
    classes: int = 0
    arrays: Mapping[str, spec.Array] = field(default_factory=dict, repr=False)  # the model's, by the other's names
    reference_parameters: int = 0
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the other, by the names of their parts
    alignment: Alignment = field(default=(), repr=False)  # of the two, in training where both are seen in it
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    not_understood: str | None = None
    compared: tuple[str, ...] = ()  # kinds of passes

    @property
    def status(self) -> int:
        """The exit status."""
        if any(line.counts for line in self.lines):
            return _DIFFERS
        return _NOT_UNDERSTOOD if self.not_understood else _SAME

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        verdict = {_SAME: "same", _DIFFERS: "differs", _NOT_UNDERSTOOD: "not understood"}[self.status]
        made: dict[str, Any] = {
            "verdict": verdict,
            "against": self.against,
            "preset": self.preset,
            "nearest": self.nearest,
            "parameters": self.parameters,
            "preset_parameters": self.reference_parameters,
            "operations": self.operations,
            "input": list(self.shape),
            "dtype": self.dtype,
            "error_of_replay": self.error,
            "not_understood": self.not_understood,
            "compared": list(self.compared),
            "notes": list(self.notes),
            "differences": [
                {
                    "places": list(line.places),
                    "model_places": list(line.model_places),
                    "text": line.text,
                    "effect": line.effect,
                    "logits_off_by": {str(size): effect for size, effect in line.measured.items()},
                    "counts": line.counts,
                    "shown_by": line.shown_by,
                }
                for line in self.lines
            ],
        }
        result: dict[str, Any] = finite(made)
        return result


# ------------------------------------------------------------------------------------------------------- run again


def understood(recording: Recording, images: spec.Array, dtype: str, *, heads: bool) -> tuple[Chain, float]:
    """The tree of a pass, and how far it is from the model's own outputs when it is run again.

    Raises:
        NotUnderstood: when it is too far, with the first operation that is.
    """
    if not recording.outputs:
        raise NotUnderstood("what it puts out, which is no tensor that comes from the images")
    graph = recording.graph
    tree = read(graph, heads=heads)
    run = Run(graph.arrays)
    try:
        got = [run.chain(tree, images), *run.heads]
    except (ValueError, IndexError) as misfit:
        raise NotUnderstood(
            f"{_first_wrong(recording, images, dtype)}, which cannot be run again ({misfit})"
        ) from misfit
    error = max(min(relative_error(flat(y), flat(x)) for x in recording.outputs) for y in got)
    if not error <= tolerance(recording, dtype):
        raise NotUnderstood(_first_wrong(recording, images, dtype) + f", run again, is off by {error:.2g}")
    return tree, error


def tolerance(recording: Recording, dtype: str) -> float:
    """How far what is run again may be off.

    Batch norm of the batch divides by deviations that are small: of Inception v4's 149 an output is 1.4e-12 off.
    In float32 it is 4e-3 off, where a rounding of each pixel moves it by 3e-3; others were off by 0.3 to 2 such nudges.
    """
    of_batch = any(isinstance(node.op, Norm) and node.op.of_batch for node in recording.graph.nodes)
    return max(TOLERANCES[dtype], recording.nudge) * (10 if of_batch else 1)


def _first_wrong(recording: Recording, images: spec.Array, dtype: str) -> str:
    """The first operation whose own numbers differ from those that the recorder saw."""
    for number, error in replay_errors(recording, images).items():
        if error > 1e3 * TOLERANCES[dtype]:
            node = recording.graph.nodes[number]
            return f"{type(node.op).__name__} at {node.place or 'the top'}"
    return "the whole"


def replay_errors(recording: Recording, images: spec.Array) -> dict[int, float]:
    """How far every operation, run again, is from the recorder's samples of it, by its number in forward order.

    Those of which the recorder has none, or that cannot be run, are left out.
    """
    graph, outputs, errors = recording.graph, {0: images}, {}
    for number, node in enumerate(graph.nodes[1:], 1):
        try:
            inputs = [outputs[i] for i in node.reads]
            step = Step(node.op, node.place, graph.nodes[node.reads[0]].shape, node.shape, node.arrays)
            run = Run(graph.arrays)
            outputs[number] = run.item(step, inputs[0]) if len(inputs) == 1 else joined(node.op, inputs)
        except (KeyError, ValueError):
            continue
        if (seen := recording.samples[number]).size:
            errors[number] = relative_error(samples(outputs[number]), seen)
    return errors


# ------------------------------------------------------------------------------------------------------------ check


@dataclass(frozen=True)
class _Passes:
    """What was understood of a model."""

    trees: Mapping[str, Chain]  # by kind of the pass
    arrays: spec.Arrays  # with those of the heads
    error: float  # of the worst of them, run again
    problem: str | None  # why one of them was not understood
    notes: tuple[str, ...]


def _passes(trial: Trial, *, inference: bool) -> _Passes:
    """Read a model's passes, and run them again."""
    trees: dict[str, Chain] = {}
    errors = [0.0]
    problem: str | None = None
    notes: list[str] = []
    for kind in ["inference"] if inference else ["inference", LARGER, "training"]:
        if kind not in trial.recordings:
            if kind not in trial.failed:
                notes.append("training is not to be seen: dropout, heads and batch norm's momentum are not compared")
            elif kind == "training":
                problem = problem or f"its training pass: {trial.failed[kind]}"
            elif kind == LARGER:
                notes.append(f"one pixel larger it does not run: {trial.failed[kind]}")
            continue
        images = probe_images(trial.shape_of(kind), trial.batch)
        try:
            tree, error = understood(trial.recordings[kind], images, trial.dtype, heads=kind == "training")
        except NotUnderstood as reason:
            if kind == "inference":
                problem = str(reason)
                break
            problem = problem or f"{'in training mode' if kind == 'training' else 'one pixel larger'} {reason}"
        else:
            trees[kind] = tree
            errors.append(error)
    arrays = {name: x for kind in reversed(trees) for name, x in trial.recordings[kind].graph.arrays.items()}
    return _Passes(trees, arrays, max(errors), problem, tuple(notes))


def _folded(passes: _Passes) -> _Passes:
    """The same at inference, with batch norm as a part of the layers before it."""
    arrays = dict(passes.arrays)
    trees = {"inference": folded_in(passes.trees["inference"], arrays)}
    trees |= {LARGER: folded_in(passes.trees[LARGER])} if LARGER in passes.trees else {}
    return replace(passes, trees=trees, arrays=arrays)


def _has_norm(passes: _Passes) -> bool:
    return any(isinstance(op, Norm) for _, op in arrays_of(passes.trees["inference"]))


def check(trial: Trial, against: str | spec.Config | None, *, inference: bool, other: Trial | None = None) -> Report:
    """Judge a model by what it did.

    Args:
        trial: The passes.
        against: A preset, None for the nearest, or a table of another name; the name of the other model, where there
            is one.
        inference: Compare inference at the given size alone.
        other: The passes of a model that takes the place of a preset.
    """
    passes = _passes(trial, inference=inference)
    graph = trial.recordings["inference"].graph
    report = Report(
        parameters=trial.parameters,
        operations=len(graph.nodes) - 1,
        shape=trial.shape,
        dtype=trial.dtype,
        error=passes.error,
        not_understood=passes.problem,
        compared=tuple(passes.trees),
    )
    if "inference" not in passes.trees:
        return report
    notes = list(passes.notes)
    classes = math.prod(logits(passes.trees["inference"])[:1])
    folded = trial.framework in _FOLDING and not _has_norm(passes)
    reference: Reference | Model
    problem, closest = passes.problem, ""
    near = partial(nearest, trial.shape, passes.trees["inference"], passes.trees.get("training"), classes)
    if other is not None:
        name, its = against if isinstance(against, str) else "the other", _passes(other, inference=inference)
        notes += [f"{name}: {note}" for note in its.notes if note not in notes]
        problem = problem or (f"{name}: {its.problem}" if its.problem else None)
        if "inference" not in its.trees:
            return replace(report, not_understood=problem)
        if folded and _has_norm(its):
            its = _folded(its)
            notes.append(_FOLDED)
        elif other.framework in _FOLDING and not _has_norm(its) and _has_norm(passes):
            passes = _folded(passes)
            notes.append(_FOLDED)
        reference = Model(name, other, its.trees, its.arrays)
        report = replace(report, compared=tuple(kind for kind in passes.trees if kind in its.trees))
    elif isinstance(against, spec.Config):
        closest, reference = against.preset, Reference(against, folded=folded)
    else:
        closest = against or near(folded=folded)
        config = spec.preset(closest, in_channels=trial.shape[0], num_classes=classes)
        reference = Reference(config, folded=folded)
        if folded and reference.config.batch_norm:
            notes.append(_FOLDED)
    if not reference.fits(trial.shape):
        height, width = trial.shape[1:]
        raise spec.InvalidInput(
            f"--against {reference.name} takes no images of {height} x {width} pixels, which the model takes; "
            "--input gives it others"
        )
    alignments = _aligned(trial, passes.trees, reference)
    lines = _lines(trial, alignments, reference, inference=inference)
    if closest and isinstance(against, str) and lines:
        closest = near(folded=folded)
    # Those of the heads are in the training pass; running statistics have moved in it.
    names = {x: y for kind in ("training", "inference") for x, y in weights(alignments.get(kind, ())).items()}
    arrays = {name: passes.arrays[own] for name, own in names.items()}
    arrays |= {name: x for alignment in alignments.values() for name, x in biases(alignment, passes.arrays).items()}
    if not any(line.counts for line in lines) and not _proven(trial, arrays, reference):
        problem = problem or f"the whole: with the model's weights {reference.name} gives other numbers"
    if dead := unused(graph):
        notes.append(f"computed and not used: {', '.join(dead[:3])}{f' and {len(dead) - 3} more' if dead[3:] else ''}")
    return replace(
        report,
        against=reference.name,
        preset="" if other is not None else reference.name,
        classes=classes,
        arrays=arrays,
        alignment=alignments.get("training", alignments["inference"]),
        nearest=closest,
        reference_parameters=reference.parameters,
        stages=_stages(reference.places, reference.heads),
        lines=tuple(lines),
        notes=tuple(notes),
        not_understood=problem,
    )


def _stages(places: Sequence[str], heads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By the name of a part, such as ``branch1x1``, the stages of the trunk that have one."""
    stages: dict[str, dict[str, None]] = {}
    for stage, dot, part in (place.partition(".") for place in places):
        if dot and stage not in heads:
            stages.setdefault(part, {})[stage] = None
    return {part: tuple(names) for part, names in stages.items()}


def _aligned(trial: Trial, trees: Mapping[str, Chain], reference: Reference | Model) -> dict[str, Alignment]:
    """The passes of both, laid beside each other."""
    alignments: dict[str, Alignment] = {}
    for kind, tree in trees.items():
        shape, training = trial.shape_of(kind), kind == "training"
        if reference.fits(shape, heads=training):
            _, alignments[kind] = align(reference.tree(shape, training=training), tree)
    return alignments


def _proven(trial: Trial, arrays: Mapping[str, spec.Array], reference: Reference | Model) -> bool:
    """Whether the reference, with the model's own weights, puts out the model's numbers."""
    try:
        y = flat(Run(arrays).chain(reference.tree(trial.shape), probe_images(trial.shape, trial.batch)))
    except (KeyError, ValueError):
        return False
    outputs = trial.recordings["inference"].outputs
    return min(relative_error(y, flat(x)) for x in outputs) <= TOLERANCES[trial.dtype]


def _lines(
    trial: Trial, alignments: Mapping[str, Alignment], reference: Reference | Model, *, inference: bool
) -> list[Line]:
    """The differences in forward order, each with its effect."""
    members: dict[str, dict[Key, Difference]] = {
        kind: {difference.key: difference for difference in differences(alignments[kind])}
        for kind in ("inference", LARGER)
        if kind in alignments
    }
    frameworks = {trial.framework, reference.trial.framework if isinstance(reference, Model) else ""}
    found = _real(list(members.values()), inference=inference, as_numbers=bool(frameworks & PADS_AS_NUMBERS))
    in_any = {key for by_key in members.values() for key in by_key}
    in_training = differences(alignments.get("training", ()))
    training = {d.key: d for d in in_training if d.key not in in_any and not d.latent}
    groups: dict[str, list[Difference]] = {}
    for difference in _in_order([*found.values(), *training.values()], reference.places):
        groups.setdefault(difference.text, []).append(difference)
    effects = {kind: Effects(reference, trial.shape_of(kind)) for kind in members} if found else {}
    lines = []
    for text, group in groups.items():
        first = next((d for d in group if d.key in found), None)
        said = first.effect if first else TRAINING
        measured: dict[int, float | None] = {}
        misshapen = False
        for kind, by_key in members.items() if not said else ():
            here = [by_key[d.key] for d in group if d.key in by_key and not by_key[d.key].latent]
            effect, other_shapes = effects[kind].of(alignments[kind], here) if here else (0.0, False)
            measured[trial.shape_of(kind)[1]] = effect
            misshapen = misshapen or other_shapes
        lines.append(
            Line(
                places=tuple(dict.fromkeys(d.place for d in group)),
                text=text.format(reference=reference.name),
                measured=measured,
                said=said,
                latent=bool(first and first.latent),
                shown_by="count" if said in (WEIGHTS, NORMED) else "shapes" if misshapen else "nothing",
                model_places=tuple(dict.fromkeys(d.model_place for d in group)),
            )
        )
    return lines


def _real(members: list[dict[Key, Difference]], *, inference: bool, as_numbers: bool) -> dict[Key, Difference]:
    """Those that are one at some size; at other sizes than these only where the model's settings are rules.

    Where paddings are numbers for the size, they are none.
    """
    found = {key: d for by_key in members for key, d in by_key.items() if not d.latent}
    for key, difference in members[0].items() if not inference else ():
        others = [by_key.get(key) for by_key in members[1:]]
        settled = all(other is not None and _op(other) == _op(difference) for other in others)
        settled = settled and not (as_numbers and set(difference.part.split()) <= {"pad", "ceil"})
        if key not in found and settled and elsewhere(difference):
            found[key] = difference
    return found


def _op(difference: Difference) -> Any:
    return difference.pair.model.op if isinstance(difference.pair.model, Step) else None


def _in_order(found: list[Difference], places: Sequence[str]) -> list[Difference]:
    order: dict[str, int] = {}
    for i, place in enumerate(places):
        order.setdefault(place, i)
        order.setdefault(place.partition(".")[0], i)  # a head, a block
    return sorted(found, key=lambda difference: order.get(difference.place, -1))
