"""What a capture says of training: the loss, gradients, running statistics after a pass, and the first steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

import spec
from harness.agreement import relative_error, relative_errors
from harness.check.arithmetic import Run, flat
from harness.check.kits.bounds import BOUNDS
from harness.check.kits.capture import Capture
from harness.check.kits.kit import ADAM, BATCH, STEPS, Kit, step
from harness.check.reference import graph_of_table
from harness.check.tree import read
from spec import Array, Arrays, reference

Line = tuple[str, str, float | None, bool]  # place, words, how far it is off, whether the words explain it
_MOMENTA = (0.1, 0.9, 0.01, 0.99, 0.001, 0.999, 0.003, 0.997, 1.0)


def judge_training(
    kit: Kit, capture: Capture, *, right: bool, errors: dict[str, float]
) -> tuple[list[Line], list[str]]:
    """What is wrong in training, and what was not judged; the errors are added.

    Args:
        kit: What the port was given.
        capture: What it computed.
        right: Whether all captured stages are; else only what does not depend on them is judged.
        errors: By the names of the capture.
    """
    judge = _Training(kit, capture, errors)
    kinds = [kind for kind in ("statistics", "gradient", *STEPS) if capture.of(kind)]
    lines: list[Line] = []
    notes: list[str] = []
    if "loss" in capture.arrays:
        if right or judge.logits:
            lines += judge.loss()
        else:
            notes.append("the loss is not judged: stages are wrong, and their logits alone do not make it")
    for kind in kinds:
        if kind in STEPS and ("gradient" in kinds or (right and capture.dtype == "float64")):
            lines += judge.step(kind)
        elif kind in STEPS:
            notes.append(f"{kind} is not judged: what it goes by is not captured, gradient/NAME")
        elif not right:
            notes.append(f"{kind} is not judged: it follows from stages that are wrong")
        else:
            lines += judge.gradients() if kind == "gradient" else judge.statistics()
    if capture.dtype == "float32" and right and "gradient" in kinds:
        bound = judge.bounds.gradients
        notes.append(f"gradients of float32 are held to {bound:g} only: where two numbers are near they go elsewhere")
    return lines, notes


class _Training:
    def __init__(self, kit: Kit, capture: Capture, errors: dict[str, float]) -> None:
        self.kit, self.capture, self.errors = kit, capture, errors
        self.bounds = BOUNDS[capture.dtype]

    @cached_property
    def expected(self) -> reference.Training:
        """The referee's pass."""
        return self.passed(self.kit.config)

    def passed(self, config: spec.Config) -> reference.Training:
        """The referee's pass with other settings."""
        kit = self.kit
        return reference.loss_and_grads(config, kit.params, kit.images(kit.trained), kit.labels)

    @cached_property
    def logits(self) -> dict[str, Array]:
        """The port's own logits and its heads', where they make the loss: batch norm has others in training."""
        captured = self.capture.of(self.kit.trained)
        names = list(spec.loss_weights(self.kit.config))
        there = self.kit.config.batch_norm is None and all(name in captured for name in names)
        return {name: captured[name].reshape(BATCH, -1) for name in names} if there else {}

    # --------------------------------------------------------------------------------------------------- the loss

    def loss(self) -> Iterator[Line]:
        """Whether it is that of the logits: the port's own, where they make it."""
        got, bound = float(self.capture.arrays["loss"].reshape(())), self.bounds.loss
        weights = spec.loss_weights(self.kit.config)
        if self.logits:
            made = {name: self.cross_entropy(x) for name, x in self.logits.items()}
            expected = sum(weights[name] * loss for name, loss in made.items())
        else:
            expected = self.expected.loss
        off = relative_error(np.array(got), np.array(expected))
        self.errors["loss"] = off
        if off <= bound:
            return
        for words, other in self.losses(expected):
            if abs(got - other) <= bound * max(abs(other), abs(got)):
                yield "loss", words, off, True
                return
        yield "loss", "no known mistake gives this loss", off, False

    def cross_entropy(self, logits: Array) -> float:
        """The mean over the pictures."""
        return reference.softmax_cross_entropy(logits, self.kit.labels, self.kit.config.label_smoothing)[0]

    def losses(self, right: float) -> Iterator[tuple[str, float]]:
        """What else it may be."""
        yield "it is the sum over the pictures, not the mean", BATCH * right
        weights = spec.loss_weights(self.kit.config)
        heads = list(weights)[1:]
        logits = self.logits or self.in_training()
        parts = {name: self.cross_entropy(x) for name, x in logits.items()}
        main = parts[self.kit.config.logits]
        if heads:
            yield "the losses of the heads are missing", main
            yield "the losses of the heads count in full", sum(parts.values())
        at = np.arange(BATCH), self.kit.labels
        softmax = {name: np.exp(x - x.max(1, keepdims=True)) for name, x in logits.items()}
        softmax = {name: x / x.sum(1, keepdims=True) for name, x in softmax.items()}
        others: dict[str, Callable[[str], float]] = {
            "the softmax is taken twice: its logits are probabilities": lambda name: self.cross_entropy(softmax[name]),
            "the softmax is never taken: its logits count as logarithms of probabilities": lambda name: (
                -float(logits[name][at].mean())
            ),
            "the logarithm is never taken": lambda name: -float(softmax[name][at].mean()),
            "its logarithms are to the base of 2": lambda name: parts[name] / math.log(2),
        }
        for words, of in others.items():
            yield words, sum(weight * of(name) for name, weight in weights.items())
            yield f"{words}, and it is the sum", BATCH * sum(weight * of(name) for name, weight in weights.items())

    def in_training(self) -> dict[str, Array]:
        """The referee's logits in training mode, and its heads'."""
        kit = self.kit
        images = kit.images(kit.trained).astype(np.float64)
        run = Run({name: x.astype(np.float64) for name, x in kit.params.items()})
        graph = graph_of_table(kit.config, images.shape[1:], training=True)
        ends = zip(spec.loss_weights(kit.config), graph.outputs, strict=True)
        trees = {name: read(replace(graph, outputs=(end,)), heads=False) for name, end in ends}
        return {name: flat(run.chain(tree, images)) for name, tree in trees.items()}

    # ----------------------------------------------------------------------------------------- running statistics

    def statistics(self) -> Iterator[Line]:
        """Whether they have moved as they should."""
        config, norm, got = self.kit.config, self.kit.config.batch_norm, self.capture.of("statistics")
        if norm is None:
            return
        expected = {name: self.expected.statistics[name] for name in got}
        bound = self.bounds.statistics
        if not (wrong := self.wrong("statistics", got, expected, bound)):
            return
        off = max(wrong.values())
        for words, momentum, unbiased in _ways(norm):
            if self.same(got, {name: self.moved(name, momentum, unbiased) for name in got}, bound):
                for place in dict.fromkeys(name.rpartition(".norm.")[0] for name in wrong):
                    yield place, words.format(reference=config.preset), off, True
                return
        for name, error in wrong.items():
            yield name, "no known mistake gives these running statistics", error, False

    def moved(self, name: str, momentum: float, unbiased: bool) -> Array:
        """A running statistic after the pass, by other rules."""
        norm, before = self.kit.config.batch_norm, self.kit.params[name].astype(np.float64)
        assert norm is not None  # noqa: S101  # who asks has looked
        of_batch = (self.expected.statistics[name] - (1 - norm.momentum) * before) / norm.momentum
        if name.endswith(".running_var"):
            n = self.counts[name.rpartition(".norm.")[0]]
            of_batch = of_batch * (n - 1) / n if norm.unbiased else of_batch
            of_batch = of_batch * n / (n - 1) if unbiased else of_batch
        moved: Array = (1 - momentum) * before + momentum * of_batch
        return moved

    @cached_property
    def counts(self) -> dict[str, int]:
        """The numbers of a channel that each layer's statistics are of."""
        shape = self.kit.pictures(self.kit.trained).shape[1:]
        return {node.name: BATCH * math.prod(node.out[1:]) for node in spec.walk(self.kit.config, shape) if node.norm}

    # -------------------------------------------------------------------------------------------------- gradients

    def gradients(self) -> Iterator[Line]:
        """Whether they are those of the loss."""
        got = self.capture.of("gradient")
        expected = {name: self.expected.grads[name] for name in got}
        bound = self.bounds.gradients
        if not (wrong := self.wrong("gradient", got, expected, bound)):
            return
        off = max(wrong.values())
        if words := self.factor(got, expected) or self.other_heads(got) or self.decay(got, expected):
            yield "gradients", words, off, True
            return
        layouts = {name: _layout(got[name], expected[name], bound) for name in wrong}
        for name, error in wrong.items():
            if layouts[name]:
                yield name, layouts[name], error, True
        rest = [name for name in wrong if not layouts[name]]
        if rest:
            more = f"; {len(rest) - 1} gradients before it are wrong too, and may follow from it" if rest[1:] else ""
            yield rest[-1], f"its gradient is wrong, the first on the way back{more}", wrong[rest[-1]], False

    def factor(self, got: Arrays, expected: Arrays) -> str:
        """One number that all gradients are too large by."""
        name = max(expected, key=lambda name: float(np.abs(expected[name]).max()))
        factor = float((got[name] * expected[name]).sum() / (expected[name] ** 2).sum())
        multiple = {name: factor * x for name, x in expected.items()}
        if not self.same(got, multiple, self.bounds.gradients):
            return ""
        if math.isclose(factor, BATCH, rel_tol=self.bounds.loss):
            return "they are those of the sum over the pictures, not of the mean"
        return f"they are {factor:.6g} times as large as those of the loss"

    def other_heads(self, got: Arrays) -> str:
        """The heads' losses with another weight."""
        if not spec.head_names(self.kit.config):
            return ""
        for weight, words in ((0.0, "the heads' losses are missing in them"), (1.0, "the heads' losses count in full")):
            grads = self.passed(replace(self.kit.config, aux_weight=weight)).grads
            if self.same(got, {name: grads[name] for name in got}, self.bounds.gradients):
                return words
        return ""

    def decay(self, got: Arrays, expected: Arrays) -> str:
        """A weight decay that they have in them."""
        for which, chosen in (("weights", spec.is_decayed), ("parameters", lambda name: True)):
            names = [name for name in got if chosen(name)]
            if not names:
                continue
            w = {name: self.kit.params[name].astype(np.float64) for name in names}
            top = sum(float(((got[name] - expected[name]) * w[name]).sum()) for name in names)
            decay = top / sum(float((x**2).sum()) for x in w.values())
            decayed = {name: x + decay * w[name] if name in w else x for name, x in expected.items()}
            if decay and self.same(got, decayed, self.bounds.gradients):
                return f"a decay of the {which} by {decay:.3g} is in them"
        return ""

    # ------------------------------------------------------------------------------------------------------ steps

    def step(self, kind: str) -> Iterator[Line]:
        """Whether a step follows from the gradients: the port's own, where it has captured them."""
        got = self.capture.of(kind)
        own = self.capture.of("gradient")
        grads = {name: own[name] if name in own else self.expected.grads[name] for name in got}
        before = {name: self.kit.params[name].astype(np.float64) for name in got}
        expected = step(self.kit, kind, grads)
        bound = self.bounds.steps if own.keys() >= got.keys() else self.bounds.gradients
        if not (wrong := self.wrong(kind, got, expected, bound)):
            return
        off = max(wrong.values())
        for words, other in self.steps(kind, grads, before):
            if self.same(got, other, bound):
                yield kind, words, off, True
                return
        moved = {name: got[name] - before[name] for name in got}
        right = {name: expected[name] - before[name] for name in got}
        name = max(right, key=lambda name: float(np.abs(right[name]).max()))
        factor = float((moved[name] * right[name]).sum() / (right[name] ** 2).sum())
        if self.same(got, {name: before[name] + factor * right[name] for name in got}, bound):
            yield kind, f"it goes {factor:.6g} times as far", off, True
            return
        yield kind, f"no known mistake gives this step; first {next(iter(wrong))}", off, False

    def steps(self, kind: str, grads: Arrays, before: Arrays) -> Iterator[tuple[str, dict[str, Array]]]:
        """What else a step may do."""
        kit, rate = self.kit, STEPS[kind].rate
        yield "it has not moved", dict(before)
        yield (
            "it goes up, not down",
            {name: before[name] + rate * g for name, g in grads.items()}
            if kind == "sgd"
            else {name: 2 * before[name] - x for name, x in step(kit, kind, grads).items()},
        )
        if kind == "sgd":
            return
        factor = 1 / math.sqrt(1 - ADAM.beta2)
        yield (
            f"epsilon weighs {factor:.3g} times as much: it is added before the bias is corrected",
            step(kit, kind, grads, epsilon=ADAM.epsilon * factor),
        )
        for epsilon in (1e-8, 1e-7, 1e-3):
            yield f"epsilon {epsilon:g}, the kit has {ADAM.epsilon:g}", step(kit, kind, grads, epsilon=epsilon)
        inside = {name: g / np.sqrt(g**2 + ADAM.epsilon) for name, g in grads.items()}
        yield "epsilon is added inside the root", {name: before[name] - rate * x for name, x in inside.items()}
        m, v = 1 - ADAM.beta1, math.sqrt(1 - ADAM.beta2)
        plain = {name: m * g / (v * np.abs(g) + ADAM.epsilon) for name, g in grads.items()}
        yield "its bias is not corrected", {name: before[name] - rate * x for name, x in plain.items()}

    # ----------------------------------------------------------------------------------------------------- errors

    def wrong(self, kind: str, got: Arrays, expected: Arrays, bound: float) -> dict[str, float]:
        """Those that are, in forward order, each with its error."""
        errors = relative_errors(got, expected)
        self.errors.update({f"{kind}/{name}": error for name, error in errors.items()})
        names = (name for name in spec.param_shapes(self.kit.config) if name in got)
        return {name: errors[name] for name in names if not errors[name] <= bound}

    def same(self, got: Arrays, expected: Mapping[str, Array], bound: float) -> bool:
        """Whether all of them are."""
        return max(relative_errors(got, expected).values()) <= bound


def _ways(norm: spec.BatchNorm) -> Iterator[tuple[str, float, bool]]:
    """Other rules for running statistics, in words."""
    kind = "biased" if norm.unbiased else "unbiased"
    yield "running statistics do not move in a training pass", 0.0, norm.unbiased
    yield f"the running variance is the {kind} one", norm.momentum, not norm.unbiased
    for unbiased in (norm.unbiased, not norm.unbiased):
        also = "" if unbiased == norm.unbiased else f", and the running variance is the {kind} one"
        for momentum in _MOMENTA:
            yield f"momentum {momentum:g}, {{reference}} has momentum {norm.momentum:g}{also}", momentum, unbiased


def _layout(got: Array, expected: Array, tolerance: float) -> str:
    """What was done to a gradient's layout."""
    if got.ndim == 1:
        return ""
    axes = (2, 3, 1, 0) if got.ndim == 4 else (1, 0)
    if relative_error(expected.transpose(axes).reshape(expected.shape), got) <= tolerance:
        return "its gradient was reshaped into another layout, not transposed"
    if relative_error(expected.swapaxes(0, 1), got) <= tolerance:
        return "inputs and outputs of its gradient are exchanged"
    return ""
