"""Mistakes of porting, made on purpose: in the table, in the arrays or in the pictures. The referee computes each.

The names are those of `docs/traps.py`, where there is one: that script falls into them in the frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import spec
from harness.agreement import relative_error
from harness.check.kits.mistakes import same
from harness.check.tree import Step
from spec import Array, reference
from spec.network import (
    IMAGES,
    LRN,
    AveragePool,
    BatchNorm,
    Block,
    Chain,
    Conv,
    Dense,
    MaxPool,
    Node,
    Operation,
    Residual,
)
from spec.shapes import find_misfit

SHOWN = 10  # classes whose logits are shown
_SAME = 1e-12  # relative: below it only rounding differs


@dataclass(frozen=True)
class Scene:
    """A network with all its arrays, and pictures (N, C, H, W) as it wants them."""

    config: spec.Config
    params: spec.Arrays
    images: Array

    @property
    def nodes(self) -> dict[str, Node]:
        """Its operations by name."""
        return {node.name: node for node in spec.walk(self.config, self.images.shape[1:])}


Change = Callable[[Scene], Scene]  # the same again where the mistake cannot be made
TRAPS: dict[str, Change] = {}


def _trap(change: Change) -> Change:
    TRAPS[change.__name__.removeprefix("_").replace("_", "-")] = change
    return change


# ------------------------------------------------------------------------------------------------------ the pictures


@_trap
def _pixels_255(right: Scene) -> Scene:
    return replace(right, images=255 * right.images)


@_trap
def _channels_rgb(right: Scene) -> Scene:
    return replace(right, images=right.images[:, ::-1])


# --------------------------------------------------------------------------------------------------------- the table


def _edited(right: Scene, change: Callable[[Node], Any]) -> Scene:
    """With other operations in the table: what `change` makes of a node, None for the same."""
    nodes = right.nodes

    def part(name: str, stage: str, old: Any) -> Any:
        if isinstance(old, Block):
            return Block(tuple(chain(stage, branch) for branch in old.branches))
        if isinstance(old, Residual):
            return replace(old, chain=chain(stage, old.chain))
        return change(nodes[name]) or old

    def chain(stage: str, old: Chain) -> Chain:
        return tuple((leaf, part(f"{stage}.{leaf}", stage, op)) for leaf, op in old)

    table = tuple((stage, part(stage, stage, old)) for stage, old in right.config.stages)
    return replace(right, config=replace(right.config, table=table))


def _settings(kind: Any, having: dict[str, Any], **other: Any) -> Callable[[Node], Any]:
    """A change of the operations of a kind that have some settings."""

    def change(node: Node) -> Any:
        fits = isinstance(node.op, kind) and all(getattr(node.op, name) == value for name, value in having.items())
        return replace(node.op, **other) if fits else None

    return change


@_trap
def _same_padding(right: Scene) -> Scene:
    def halving(node: Node) -> Operation | None:
        op = node.op
        if not isinstance(op, Conv | MaxPool) or op.strides == (1, 1):
            return None
        pad = same(Step(op, node.name, node.into, node.out))
        return replace(op, pad=pad, ceil=False) if isinstance(op, MaxPool) else replace(op, pad=pad)

    return _edited(right, halving)


@_trap
def _pool_floor(right: Scene) -> Scene:
    return _edited(right, _settings(MaxPool, {"ceil": True}, ceil=False))


@_trap
def _pool_ceil(right: Scene) -> Scene:
    """Between the stages, of a network that rounds down."""
    if any(isinstance(node.op, MaxPool) and node.op.ceil for node in right.nodes.values()):
        return right
    ceil = _settings(MaxPool, {}, ceil=True)
    return _edited(right, lambda node: ceil(node) if node.name == node.stage else None)


@_trap
def _pool_divisor(right: Scene) -> Scene:
    def other(node: Node) -> Operation | None:
        op = node.op
        padded = isinstance(op, AveragePool) and any(map(any, op.pads))
        return replace(op, count_pad=not op.count_pad) if padded else None

    return _edited(right, other)


@_trap
def _relu_missing(right: Scene) -> Scene:
    """Of stage 2, as in the first Chinese edition of the book; elsewhere of the first layer."""
    convolutions = [node.name for node in right.nodes.values() if isinstance(node.op, Conv)]
    second = [name for name in ("conv2_reduce", "conv2") if name in convolutions]
    chosen = second if len(second) == 2 else convolutions[:1]
    without = _settings(Conv, {"activation": "relu"}, activation=None)
    return _edited(right, lambda node: without(node) if node.name in chosen else None)


@_trap
def _sigmoid_missing(right: Scene) -> Scene:
    return _edited(right, _settings(Conv | Dense, {"activation": "sigmoid"}, activation="relu"))


@_trap
def _lrn_alpha(right: Scene) -> Scene:
    return _edited(right, lambda node: _times_size(node.op) if isinstance(node.op, LRN) else None)


def _times_size(lrn: LRN) -> LRN:
    return replace(lrn, alpha=lrn.alpha * lrn.size)


@_trap
def _lrn_k(right: Scene) -> Scene:
    return _edited(right, _settings(LRN, {}, k=2.0))


@_trap
def _branch_order(right: Scene) -> Scene:
    """The third branch before the second."""
    table = []
    for stage, part in right.config.stages:
        if isinstance(part, Block) and len(part.branches) > 2:
            first, second, third, *rest = part.branches
            part = Block((first, third, second, *rest))
        table.append((stage, part))
    return replace(right, config=replace(right.config, table=tuple(table)))


@_trap
def _shortcut_missing(right: Scene) -> Scene:
    return right if right.config.shortcuts is None else _residuals(right, shortcut=not right.config.shortcuts)


@_trap
def _scale_missing(right: Scene) -> Scene:
    return _residuals(right, scale=1.0)


def _residuals(right: Scene, **settings: Any) -> Scene:
    table = ((x, replace(y, **settings) if isinstance(y, Residual) else y) for x, y in right.config.stages)
    return replace(right, config=replace(right.config, table=tuple(table)))


@_trap
def _norm_epsilon(right: Scene) -> Scene:
    """PyTorch's default where the network has another, and Keras' where it has PyTorch's."""
    return _normed(right, lambda norm: replace(norm, epsilon=1e-3 if norm.epsilon == 1e-5 else 1e-5))


def _normed(right: Scene, change: Callable[[BatchNorm], BatchNorm]) -> Scene:
    norm = right.config.batch_norm
    return right if norm is None else replace(right, config=replace(right.config, batch_norm=change(norm)))


# -------------------------------------------------------------------------------------------------------- the arrays


def _with(right: Scene, change: Callable[[str, Array], Array | None]) -> Scene:
    """With other arrays: what `change` makes of a name and an array, None for the same."""
    made = {name: (x if (other := change(name, x)) is None else other) for name, x in right.params.items()}
    return replace(right, params=made)


@_trap
def _kernel_square(right: Scene) -> Scene:
    return _with(right, lambda name, x: x.swapaxes(0, 1) if x.ndim == 4 and x.shape[0] == x.shape[1] else None)


@_trap
def _kernel_reshaped(right: Scene) -> Scene:
    def reshaped(name: str, x: Array) -> Array | None:
        flax = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T
        return flax.reshape(x.shape) if x.ndim > 1 else None

    return _with(right, reshaped)


@_trap
def _bias_missing(right: Scene) -> Scene:
    return _with(right, lambda name, x: 0 * x if name.endswith(".bias") and ".norm." not in name else None)


@_trap
def _norm_gamma(right: Scene) -> Scene:
    return _with(right, lambda name, x: np.ones_like(x) if name.endswith(".norm.weight") else None)


@_trap
def _norm_fresh(right: Scene) -> Scene:
    start = {".running_mean": 0.0, ".running_var": 1.0}
    return _with(
        right, lambda name, x: next((np.full_like(x, y) for end, y in start.items() if name.endswith(end)), None)
    )


@_trap
def _flatten_order(right: Scene) -> Scene:
    """(H, W, C) flattened: the same as columns of the dense layer in that order."""
    nodes = right.nodes

    def columns(name: str, x: Array) -> Array | None:
        node = nodes[name.removesuffix(".weight")] if name.removesuffix(".weight") in nodes else None
        if node is None or not node.is_dense or len(node.into) < 3 or node.into[1] * node.into[2] == 1:
            return None
        channels, height, width = node.into
        return x.reshape(len(x), height, width, channels).transpose(0, 3, 1, 2).reshape(x.shape)

    return _with(right, columns)


# --------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Fallen:
    """What a trap does; all arrays keep their names and shapes.

    Errors are max |wrong - right| / max |right|, over all pictures; None: another shape.
    """

    name: str
    places: tuple[str, ...]  # operations that are others, or read other arrays or pictures
    stages: dict[str, float | None]  # the error of each stage's output
    first: str | None  # the stage from which on they differ
    misshapen: str | None  # the stage from which on shapes differ
    logits: tuple[tuple[float, ...], ...]  # of each picture, of its classes that are shown
    flipped: int  # pictures with another class


def fall(right: Scene, expected: spec.Arrays, classes: list[list[int]]) -> Iterator[tuple[str, Fallen | None]]:
    """Fall into every trap that the network has, one after the other; None where there is none, or nothing runs.

    Args:
        right: The network without a mistake.
        expected: What the referee computes then, by stage.
        classes: Of each picture those whose logits are shown.
    """
    for name, change in TRAPS.items():
        yield name, _fallen(name, right, change(right), expected, classes)


def _fallen(name: str, right: Scene, wrong: Scene, expected: spec.Arrays, classes: list[list[int]]) -> Fallen | None:
    made = tuple(places(right, wrong))
    if not made:
        return None
    if spec.param_shapes(wrong.config) != spec.param_shapes(right.config) or _misfits(wrong):
        return None  # no file would load, or nothing run: nobody falls into this one unnoticed
    with np.errstate(over="ignore", invalid="ignore"):
        stages = reference.activations(wrong.config, wrong.params, wrong.images)
    if not all(np.isfinite(x).all() for x in stages.values()):
        return None
    misshapen = [stage for stage, x in expected.items() if stages[stage].shape != x.shape]
    errors = {
        stage: None if stage in misshapen else float(f"{relative_error(stages[stage], x):.3g}")
        for stage, x in expected.items()
    }
    first = next((stage for stage, error in errors.items() if error is None or error > _SAME), None)
    logits, before = (x[right.config.logits] for x in (stages, expected))
    return Fallen(
        name,
        made,
        errors,
        first,
        misshapen[0] if misshapen else None,
        tuple(tuple(float(f"{logits[i, j]:.6g}") for j in shown) for i, shown in enumerate(classes)),
        int((logits.argmax(1) != before.argmax(1)).sum()),
    )


def _misfits(scene: Scene) -> bool:
    return find_misfit(scene.config, scene.images.shape[1:]) is not None


def places(right: Scene, wrong: Scene) -> Iterator[str]:
    """Where the two differ, in forward order."""
    if not np.array_equal(right.images, wrong.images):
        yield IMAGES
    others = {layer_of(name) for name, x in right.params.items() if not np.array_equal(x, wrong.params[name])}
    before = right.nodes
    for name, node in wrong.nodes.items():
        old = before[name]
        if (node.op, node.norm, node.reads) != (old.op, old.norm, old.reads) or name in others:
            yield name


def layer_of(array: str) -> str:
    """The layer that an array belongs to: ``conv1`` of ``conv1.norm.weight``."""
    return array.rpartition(".")[0].removesuffix(".norm")
