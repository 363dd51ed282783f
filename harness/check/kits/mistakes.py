"""The mistakes that ports make, as edits of the reference: of its operations, of its arrays, or of what it reads.

Which of them reproduces a capture is found by running them; the words are those of `harness.check.differences`, which
aligns the edited operations with the right ones, but for what is no difference of operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import permutations
from typing import Any

import numpy as np

from harness.check.arithmetic import Run
from harness.check.graph import Activation, Convolution, Flatten, Linear, Norm, Padding, Scale, Softmax
from harness.check.tree import Chain, Fork, Item, Step
from spec import AdaptiveAverage, Array, Arrays, MaxPool
from spec.network import LRN, AveragePool, Concat, Pads

Edit = Callable[[Chain, int], tuple[int, Chain] | None]  # how many items from a place on become which
Weights = Callable[[Item, Arrays], dict[str, Array] | None]  # arrays of a step in place of its own
Path = tuple[int, ...]  # of an item: its position, or those of the blocks and branches that it is in before


@dataclass(frozen=True)
class Mistake:
    """One that may be made at several places."""

    edit: Edit | None = None
    weights: Weights | None = None
    words: str = ""  # in place of those of the differences
    of_batch: bool = False  # one picture alone does not show it
    common: bool = False  # one that is tried together with each of the others


@dataclass(frozen=True)
class Mistaken:
    """A part of the reference with a mistake in it."""

    mistake: Mistake
    chain: Chain
    arrays: dict[str, Array]  # those that are others
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class Otherwise:
    """An operation that only a mistake makes."""

    function: Callable[[Array], Array]


class MistakenRun(Run):
    """A pass through a reference with mistakes in it."""

    def item(self, item: Item, x: Array) -> Array:
        """Run one item."""
        if isinstance(item, Step) and isinstance(item.op, Otherwise):
            return item.op.function(x)
        return super().item(item, x)


def made(number: int, chain: Chain, arrays: Arrays, at: frozenset[Path] | None = None) -> Mistaken | None:
    """A mistake in a chain of operations, at some places or at all where it can be made; None where there is none.

    Args:
        number: Of the mistake.
        chain: Of the reference.
        arrays: Its arrays by canonical name.
        at: Places, as `places` has them; None for all.
    """
    edited = _Edited(MISTAKES[number], arrays, at)
    whole = edited.chain(chain)
    return Mistaken(MISTAKES[number], whole, edited.changed, tuple(edited.names)) if edited.at else None


def places(number: int, chain: Chain, arrays: Arrays) -> list[Path]:
    """Where a mistake can be made: positions in a chain, and in the branches there, alike for maps of all sizes."""
    edited = _Edited(MISTAKES[number], arrays, None)
    edited.chain(chain)
    return edited.at


class _Edited:
    """A chain with a mistake at some of the places where it can be made, or at all."""

    def __init__(self, mistake: Mistake, arrays: Arrays, chosen: frozenset[Path] | None) -> None:
        self.mistake, self.arrays, self.chosen = mistake, arrays, chosen
        self.changed: dict[str, Array] = {}
        self.at: list[Path] = []
        self.names: list[str] = []

    def chain(self, chain: Chain, above: Path = ()) -> Chain:
        items: list[Item] = []
        i = 0
        while i < len(chain):
            item, path = chain[i], (*above, i)
            edit = self.mistake.edit(chain, i) if self.mistake.edit else None
            if edit is not None and self.here(item, path):
                items += edit[1]
                i += edit[0]
                continue
            if isinstance(item, Fork):
                branches = tuple(self.chain(branch, (*path, j)) for j, branch in enumerate(item.branches))
                items.append(item if branches == item.branches else replace(item, branches=branches))
            else:
                items.append(item)
                changed = self.mistake.weights(item, self.arrays) if self.mistake.weights else None
                if changed and self.here(item, path):
                    self.changed |= changed
            i += 1
        return tuple(items)

    def here(self, item: Item, path: Path) -> bool:
        if self.chosen is not None and path not in self.chosen:
            return False
        self.at.append(path)
        self.names.append(item.place)
        return True


# ---------------------------------------------------------------------------------------------- of the operations


def _op(kind: Any, change: Callable[[Step], Any]) -> Edit:
    """Another operation for one of a kind; None and the same again are no mistake."""

    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step = chain[i]
        if not isinstance(step, Step) or not isinstance(step.op, kind):
            return None
        op = change(step)
        return None if op is None or op == step.op else (1, (replace(step, op=op),))

    return edit


def _to(kind: Any, op: Any) -> Edit:
    """This one for any of a kind."""
    return _op(kind, lambda step: op)


def _with(kind: Any, **settings: Any) -> Edit:
    """Other settings for any of a kind."""
    return _op(kind, lambda step: replace(step.op, **settings))


def _missing(kind: Any) -> Edit:
    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step = chain[i]
        return (1, ()) if isinstance(step, Step) and isinstance(step.op, kind) else None

    return edit


def _without(kind: Any, role: str, setting: str) -> Edit:
    """Without one of its arrays."""

    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step = chain[i]
        if not isinstance(step, Step) or not isinstance(step.op, kind) or role not in step.arrays:
            return None
        arrays = {name: x for name, x in step.arrays.items() if name != role}
        return 1, (replace(step, op=replace(step.op, **{setting: False}), arrays=arrays),)

    return edit


def _before(kind: Any, op: Callable[[Step], Any]) -> Edit:
    """Something extra before one of a kind."""

    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step = chain[i]
        if not isinstance(step, Step) or not isinstance(step.op, kind) or (made := op(step)) is None:
            return None
        return 1, (Step(made, step.place, step.into, step.into), step)

    return edit


def _behind(op: Any) -> Edit:
    """Something extra behind a layer that has no activation, or at the end."""

    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step, following = chain[i], chain[i + 1 : i + 2]
        if not isinstance(step, Step) or not isinstance(step.op, Convolution | Linear | Norm):
            return None
        if any(isinstance(x, Step) and isinstance(x.op, Activation | Norm) for x in following):
            return None
        return 1, (step, Step(op, step.place, step.shape, step.shape))

    return edit


def _at_the_end(op: Any) -> Edit:
    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        step = chain[i]
        if i < len(chain) - 1 or not isinstance(step, Step) or not isinstance(step.op, Linear | AdaptiveAverage):
            return None
        return 1, (step, Step(op, step.place, step.shape, step.shape))

    return edit


def _swapped(chain: Chain, i: int) -> tuple[int, Chain] | None:
    """The activation before batch norm."""
    pair = chain[i : i + 2]
    kinds = [type(item.op) for item in pair if isinstance(item, Step)]
    return (2, tuple(reversed(pair))) if kinds == [Norm, Activation] else None


def _order(order: tuple[int, ...]) -> Edit:
    def edit(chain: Chain, i: int) -> tuple[int, Chain] | None:
        fork = chain[i]
        if not isinstance(fork, Fork) or not isinstance(fork.joint, Concat) or len(fork.branches) != len(order):
            return None
        return 1, (replace(fork, branches=tuple(fork.branches[j] for j in order)),)

    return edit


def _no_shortcut(chain: Chain, i: int) -> tuple[int, Chain] | None:
    fork = chain[i]
    if not isinstance(fork, Fork) or isinstance(fork.joint, Concat) or () not in fork.branches:
        return None
    (branch,) = [branch for branch in fork.branches if branch]
    return 1, branch


def same(step: Step, *, after: bool = True) -> Pads:
    """The padding that makes an output of size / stride pixels, rounded up; an odd pixel comes after, or before."""
    sides = []
    for size, kernel, stride in zip(step.into[1:], step.op.sides, step.op.strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        small, large = total // 2, total - total // 2
        sides.append((small, large) if after else (large, small))
    return sides[0], sides[1]


def _half(step: Step) -> Pads:
    (h, w) = (side // 2 for side in step.op.sides)
    return (h, h), (w, w)


_PADS: list[Callable[[Step], Any]] = [
    same,
    _half,
    lambda step: ((0, 0), (0, 0)),
    lambda step: same(step, after=False),
    lambda step: tuple((a + 1, b + 1) for a, b in step.op.pads),
]


def _padded(pads: Callable[[Step], Pads], **settings: Any) -> Callable[[Step], Any]:
    def change(step: Step) -> Any:
        other = pads(step)
        kept = {f.name: settings[f.name] for f in fields(step.op) if f.name in settings}
        if other == step.op.pads and all(getattr(step.op, name) == value for name, value in kept.items()):
            return None
        return replace(step.op, pad=other, **kept)

    return change


def _strided(stride: int) -> Callable[[Step], Any]:
    return lambda step: None if step.op.strides == (stride, stride) else replace(step.op, stride=stride)


def _zeros(chain: Chain, i: int) -> tuple[int, Chain] | None:
    step = chain[i]
    if not isinstance(step, Step) or not isinstance(step.op, MaxPool) or not any(map(any, step.op.pads)):
        return None
    around = Step(Padding(step.op.pads), step.place, step.into, step.into)
    return 1, (around, replace(step, op=replace(step.op, pad=0)))


def _other_pool(step: Step) -> Any:
    """The other kind with the same window."""
    op = step.op
    if isinstance(op, MaxPool):
        return None if op.ceil else AveragePool(op.kernel, op.stride, op.pad)
    return MaxPool(op.kernel, op.stride, op.pad)


def _whole(step: Step) -> Any:
    """The largest of the whole map for its mean."""
    return MaxPool((step.into[1], step.into[2]), 1) if step.op.side == 1 else None


def _edges(step: Step) -> Any:
    """The mean of squares over the channels that there are, which at both ends are fewer."""
    lrn: LRN = step.op

    def norm(x: Array) -> Array:
        channels = np.arange(x.shape[1])
        near = np.abs(np.subtract.outer(channels, channels)) <= lrn.size // 2
        mean = np.einsum("cd,ndhw->nchw", near / near.sum(1, keepdims=True), x**2)
        y: Array = x * (lrn.k + lrn.alpha * mean) ** -lrn.beta
        return y

    return Otherwise(norm)


def _last(step: Step) -> Any:
    return Flatten(last=True) if len(step.into) == 3 and step.into[1] * step.into[2] > 1 else None


# ------------------------------------------------------------------------------------------------- of the arrays


def _weight(change: Callable[[Array], Array | None]) -> Weights:
    """Another weight for a layer's; None, another shape and the same again are no mistake."""

    def weights(step: Item, arrays: Arrays) -> dict[str, Array] | None:
        if not isinstance(step, Step) or not isinstance(step.op, Convolution | Linear):
            return None
        name = step.arrays["weight"]
        other = change(arrays[name])
        if other is None or other.shape != arrays[name].shape or np.array_equal(other, arrays[name]):
            return None
        return {name: other}

    return weights


def _reshaped(w: Array) -> Array:
    """(height, width, in, out) or (in, out) taken for what it is not."""
    return (w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T).reshape(w.shape)


def _reshaped_there(w: Array) -> Array:
    """The same on the way there."""
    if w.ndim != 4:
        return w.reshape(w.shape[::-1]).T
    out, into, height, width = w.shape
    return w.reshape(height, width, into, out).transpose(3, 2, 0, 1)


def _statistics(change: Callable[[Array, Array, float], tuple[Array, Array]]) -> Weights:
    """Other running statistics: of mean, variance and epsilon."""

    def weights(step: Item, arrays: Arrays) -> dict[str, Array] | None:
        if not isinstance(step, Step) or not isinstance(step.op, Norm):
            return None
        mean, var = step.arrays["mean"], step.arrays["var"]
        other = change(arrays[mean], arrays[var], step.op.epsilon)
        return dict(zip((mean, var), other, strict=True))

    return weights


def _epsilon_outside(mean: Array, var: Array, epsilon: float) -> tuple[Array, Array]:
    return mean, (np.sqrt(var) + epsilon) ** 2 - epsilon


# ------------------------------------------------------------------------------------------------------- the table

_POOLS = (MaxPool, AveragePool)
_WINDOWS = ((7, 7), (7, 1), (8, 8), (8, 1), (6, 6), (5, 5), (5, 3))  # kernel and stride
_EPSILONS = (1e-5, 1e-3, 1e-4, 1e-6, 1e-7, 2e-5, 1e-8, 0.0)
_OTHERS = (
    *(Activation(kind) for kind in ("relu", "relu6", "sigmoid", "silu", "tanh")),
    *(Activation("leaky_relu", slope) for slope in (0.01, 0.1, 0.2, 0.3)),
)
_RELU = Activation("relu")

MISTAKES: tuple[Mistake, ...] = (
    Mistake(_missing(Activation), common=True),
    Mistake(_op((Convolution, *_POOLS), _padded(same, ceil=False)), common=True),
    Mistake(_op(MaxPool, lambda step: replace(step.op, ceil=not step.op.ceil)), common=True),
    Mistake(_missing(LRN)),
    *(Mistake(_op((Convolution, *_POOLS), _padded(pads))) for pads in _PADS[1:]),
    *(Mistake(_op(MaxPool, _padded(pads, ceil=ceil))) for pads in _PADS for ceil in (False, True)),
    Mistake(_without((Convolution, Linear), "bias", "bias"), common=True),
    *(Mistake(_with(Norm, epsilon=epsilon), common=epsilon in (1e-5, 1e-3)) for epsilon in _EPSILONS),
    Mistake(_with(Norm, of_batch=True), of_batch=True, common=True),
    Mistake(_without(Norm, "weight", "scale"), common=True),
    Mistake(_without(Norm, "bias", "shift")),
    Mistake(_missing(Norm)),
    Mistake(
        weights=_statistics(lambda mean, var, epsilon: (np.zeros_like(mean), np.ones_like(var))),
        words="running statistics of a network that is new: means 0, variances 1",
        common=True,
    ),
    Mistake(weights=_statistics(_epsilon_outside), words="epsilon is added outside the root"),
    Mistake(
        _op(Norm, lambda step: replace(step.op, epsilon=float(np.float32(step.op.epsilon)))),
        words="epsilon is rounded to float32",
    ),
    Mistake(_swapped, words="the activation comes before batch norm"),
    *(Mistake(_to(Activation, op)) for op in _OTHERS),
    Mistake(_behind(_RELU)),
    Mistake(_zeros, words="zeros stand around its map, in place of minus infinity"),
    Mistake(_op(_POOLS, _other_pool)),
    Mistake(_op(AveragePool, lambda step: replace(step.op, count_pad=not step.op.count_pad))),
    Mistake(_missing((*_POOLS, AdaptiveAverage))),
    *(Mistake(_with(_POOLS, kernel=side)) for side in (2, 3, 5, 7)),
    *(Mistake(_op((Convolution, *_POOLS), _strided(stride))) for stride in (1, 2)),
    *(Mistake(_to(AdaptiveAverage, AveragePool(*window))) for window in _WINDOWS),
    *(Mistake(_to((AveragePool, AdaptiveAverage), AdaptiveAverage(side))) for side in (1, 4)),
    Mistake(_op(AdaptiveAverage, _whole)),
    Mistake(_op(LRN, lambda step: replace(step.op, alpha=step.op.alpha * step.op.size))),
    Mistake(_with(LRN, k=2.0)),
    Mistake(_op(LRN, lambda step: replace(step.op, alpha=step.op.alpha / step.op.size))),
    Mistake(_op(LRN, lambda step: replace(step.op, k=2.0, alpha=step.op.alpha * step.op.size))),
    *(Mistake(_with(LRN, size=size)) for size in (3, 7, 9, 11)),
    *(Mistake(_with(LRN, beta=beta)) for beta in (0.5, 1.0)),
    Mistake(_op(LRN, _edges), words="local response norm with fewer channels in its mean at both ends"),
    Mistake(_before(Linear, _last)),
    Mistake(_missing(Scale)),
    Mistake(_no_shortcut, words="its shortcut is missing"),
    *(Mistake(_order(order)) for n in (2, 3, 4) for order in list(permutations(range(n)))[1:]),
    Mistake(weights=_weight(lambda w: w.swapaxes(0, 1)), words="inputs and outputs of its kernel are exchanged"),
    Mistake(
        weights=_weight(lambda w: w.swapaxes(2, 3) if w.ndim == 4 else None),
        words="height and width of its kernel are exchanged",
    ),
    Mistake(
        weights=_weight(lambda w: w[..., ::-1, ::-1] if w.ndim == 4 else None),
        words="its kernel is turned by half a turn, as in a convolution of mathematics",
    ),
    *(
        Mistake(weights=_weight(change), words="its kernel was reshaped into another layout, not transposed")
        for change in (_reshaped, _reshaped_there)
    ),
    Mistake(_missing(Convolution)),
    Mistake(_at_the_end(Softmax())),
    Mistake(_at_the_end(Softmax(log=True))),
)
COMMON = [number for number, mistake in enumerate(MISTAKES) if mistake.common]

_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet's, as torchvision has them


def _normalized(x: Array, low: float, high: float) -> Array | None:
    """As torchvision normalizes pixels from `low` to `high`."""
    if x.shape[1] != 3:
        return None
    y: Array = ((x - low) / (high - low) - _MEAN[:, None, None]) / _STD[:, None, None]
    return y


PICTURES: Mapping[str, Callable[[Array], Array | None]] = {  # what is wrong with them; None: it cannot be
    "the pictures' channels are in the opposite order": lambda x: x[:, ::-1] if x.shape[1] > 1 else None,
    "the pictures are 255 times as large": lambda x: 255 * x,
    "the pictures are divided by 255": lambda x: x / 255,
    "the pictures are divided by 128": lambda x: x / 128,
    "the pictures are moved from -1 to 1 to 0 to 1": lambda x: (x + 1) / 2,
    "the pictures are moved from 0 to 1 to -1 to 1": lambda x: 2 * x - 1,
    "the pictures are normalized by ImageNet's means": lambda x: _normalized(x, 0, 1),
    "the pictures are moved to 0 to 1, and normalized by ImageNet's means": lambda x: _normalized(x, -1, 1),
    "the pictures are divided by 255, and normalized by ImageNet's means": lambda x: _normalized(x, 0, 255),
    "height and width of the pictures are exchanged": lambda x: x.swapaxes(2, 3),
    "the pictures are upside down": lambda x: x[:, :, ::-1],
    "left and right of the pictures are exchanged": lambda x: x[..., ::-1],
}
