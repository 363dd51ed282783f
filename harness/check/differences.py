"""What differs between two aligned trees, in words, and the reference with a difference put into it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from harness.check.align import Alignment, Pair, alike, averages, before_norm, differing, differing_rules, windows
from harness.check.graph import (
    Activation,
    BorderedMaxPool,
    Convolution,
    Dropout,
    Flatten,
    Linear,
    Norm,
    Padding,
    Scale,
    Softmax,
    Unknown,
)
from harness.check.tree import Chain, Fork, Item, Side, Step
from spec import AdaptiveAverage, MaxPool
from spec.network import IMAGES, LRN, AveragePool

TRAINING, WEIGHTS, RANDOM = "training only", "other weights", "another result each time"
BATCH = "another result in another batch"
NORMED = "none: batch norm takes it away"


@dataclass(frozen=True, eq=False)
class Difference:
    """One difference at one place."""

    place: str  # canonical
    text: str  # {reference} stands for the other network's name
    pair: Pair
    part: str  # missing, extra, order, or the settings
    effect: str = ""  # where there is none to be measured: one of the constants above
    latent: bool = False  # no other pixels are read at this size
    model_place: str = ""  # by the model's own names

    @property
    def key(self) -> tuple[str, str]:
        """What is the same difference on another picture size."""
        return self.place, self.part


def differences(alignment: Alignment) -> list[Difference]:
    """All of them in forward order."""
    return list(_Finder().chain(alignment, IMAGES, in_head=False))


def elsewhere(difference: Difference) -> bool:
    """Whether a latent difference is one on some larger or smaller map."""
    reference, model = difference.pair.reference, difference.pair.model
    maps = [(1, side, side) for side in _SIDES]
    if not (isinstance(reference, Step) and isinstance(model, Step)):
        return False
    return any(windows(reference.op, into) != windows(model.op, into) for into in maps)


_SIDES = range(11, 65)  # of maps: no kernel is larger


class _Finder:
    def chain(self, alignment: Alignment, place: str, *, in_head: bool) -> Iterator[Difference]:
        lost = {p.reference.place for p in alignment if p.reference and not p.model and _weighted(p.reference)}
        grown = False  # an extra layer with weights takes along what follows it
        for position, pair in enumerate(alignment):
            item = pair.reference
            following = next((p.reference.place for p in alignment[position:] if p.reference), place)
            place = item.place if item is not None else place
            if item is not None and pair.model is None:
                if _weighted(item) or place not in lost:
                    yield self.one(pair, place, f"{described(item)} is missing", "missing", in_head)
            elif item is None:
                if not (grown and _part_of_a_layer(pair.model)):
                    before = isinstance(pair.model, Step) and isinstance(pair.model.op, Dropout | Padding)
                    at = following if before else place
                    yield self.one(pair, at, f"{described(pair.model)} is extra", "extra", in_head)
                grown = _weighted(pair.model) or (grown and _part_of_a_layer(pair.model))
                continue
            else:
                normed = before_norm(pair, alignment[position + 1 :])
                yield from self.both(pair, place, in_head=in_head, normed=normed)
            grown = False

    def both(self, pair: Pair, place: str, *, in_head: bool, normed: bool) -> Iterator[Difference]:
        reference, model = pair.reference, pair.model
        if isinstance(reference, Step) and isinstance(model, Step):
            for difference in self.settings(pair, reference, model, in_head):
                idle = normed and difference.part == "bias"
                yield replace(difference, effect=NORMED) if idle else difference
            return
        if isinstance(reference, Fork):
            matched = [j for j in pair.order[: len(reference.branches)] if j >= 0]
            for number, inner in enumerate(pair.inner):
                gone = all(p.model is None for p in inner)
                if inner and (gone or all(p.reference is None for p in inner)):
                    what, part = ("missing", f"branch {number}") if gone else ("extra", f"extra branch {number}")
                    yield self.one(pair, place, f"branch {number + 1} is {what}", part, in_head)
            if matched != sorted(matched):
                order = ", ".join(str(pair.order.index(j) + 1) for j in sorted(matched))
                yield self.one(pair, place, f"the order of its branches is {order}", "order", in_head)
        for inner in pair.inner:
            if not isinstance(reference, Fork) or any(p.reference and p.model for p in inner):
                yield from self.chain(inner, place, in_head=in_head or isinstance(reference, Side))

    def settings(self, pair: Pair, reference: Step, model: Step, in_head: bool) -> Iterator[Difference]:
        place, (r, m) = reference.place, alike(reference, model)
        if type(r) is not type(m):
            text = f"{described(model)}, {{reference}} has {described(reference)}"
            latent = averages(r, m) and windows(r, model.into) == windows(m, model.into)
            yield self.one(pair, place, text, "kind", in_head, latent=latent)
            return
        here = differing(r, m, model.into)
        for part in _apart(r, here or differing_rules(r, m)):
            mine, other = _settings(m, part), _settings(r, part)
            yield self.one(pair, place, f"{mine}, {{reference}} has {other}", " ".join(part), in_head, latent=not here)

    def one(self, pair: Pair, place: str, text: str, part: str, in_head: bool, *, latent: bool = False) -> Difference:
        item = pair.model or pair.reference
        effect = WEIGHTS if _other_weights(pair, part) else ""
        if in_head or isinstance(item, Side) or part == "momentum" or _drops(item):
            effect = TRAINING
        elif isinstance(item, Step) and isinstance(item.op, Dropout):
            effect = RANDOM
        elif part == "of_batch":
            effect = BATCH
        return Difference(place, text, pair, part, effect, latent, pair.model.place if pair.model else "")


def _drops(item: Item | None) -> bool:
    return isinstance(item, Step) and isinstance(item.op, Dropout) and not item.op.always


def _weighted(item: Item | None) -> bool:
    return isinstance(item, Step) and isinstance(item.op, Convolution | Linear)


def _part_of_a_layer(item: Item | None) -> bool:
    return isinstance(item, Step) and isinstance(item.op, Activation | Norm)


def _other_weights(pair: Pair, part: str) -> bool:
    item = pair.reference or pair.model
    if "branch" in part:
        return True
    if part in ("missing", "extra"):
        return (
            isinstance(item, Fork | Side) or _weighted(item) or (isinstance(item, Step) and isinstance(item.op, Norm))
        )
    return bool({"channels", "groups", "bias", "scale", "shift"} & set(part.split())) or (
        _weighted(item) and "kernel" in part.split()
    )


def _apart(op: Any, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Settings that make one difference together: batch norm's are each one of their own, a padding is the kernel's."""
    if isinstance(op, Norm):
        return [(name,) for name in names]
    if isinstance(op, Convolution) and "kernel" not in names:
        of_weights = tuple(name for name in names if name in ("channels", "groups", "bias"))
        return [part for part in (of_weights, tuple(x for x in names if x not in of_weights)) if part]
    return [names] if names else []


# ------------------------------------------------------------------------------------------------------------- words

_ACTIVATIONS = {"relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "leaky ReLU", "silu": "SiLU"}


def described(item: Item | None) -> str:
    """``3 x 3 max pool, stride 2``."""
    if isinstance(item, Fork):
        return f"a block of {len(item.branches)} branches"
    if not isinstance(item, Step):
        return "auxiliary head"
    op = item.op
    if isinstance(op, Convolution):
        return f"{_sides(op.kernel)} convolution"
    if isinstance(op, Activation):
        return _ACTIVATIONS.get(op.kind, op.kind) + f" of slope {op.slope:g}" * (op.slope != 0)
    if isinstance(op, Dropout):
        return f"dropout {op.share:g}{' of channels' * op.channels}{' at inference too' * op.always}"
    if isinstance(op, MaxPool | AveragePool):
        return f"{_sides(op.sides)} {'max' if isinstance(op, MaxPool) else 'average'} pool, {_window(op)}"
    if isinstance(op, AdaptiveAverage):
        return "average of the whole map" if op.side == 1 else f"{_sides((op.side, op.side))} averages of the map"
    if isinstance(op, Padding):
        return f"padding {_pads(op.pad)} with {op.value:g}"
    if isinstance(op, Softmax):
        return "log softmax" if op.log else "softmax"
    if isinstance(op, Flatten):
        return "flattening with the channels last" if op.last else "flattening"
    if isinstance(op, Scale):
        return f"x * {op.factor:g} + {op.shift:g}"
    if isinstance(op, Unknown):
        return op.name
    return {Linear: "dense layer", Norm: "batch norm", LRN: "local response norm"}.get(type(op), type(op).__name__)


def _window(op: Any) -> str:
    words = [f"stride {_one(op.strides)}"]
    zeros = " with zeros" * isinstance(op, BorderedMaxPool)
    words += [f"padding {_pads(op.pads)}{zeros}"] * (op.pads != ((0, 0), (0, 0)))
    words += ["rounded up"] * op.ceil
    words += ["padding not counted"] * (isinstance(op, AveragePool) and not op.count_pad and len(words) > 1)
    return ", ".join(words)


def _sides(sides: tuple[int, int]) -> str:
    return f"{sides[0]} x {sides[1]}"


def _one(sides: Any) -> str:
    return str(sides[0] if sides[0] == sides[1] else sides)


def _pads(pads: Any) -> str:
    return _one(tuple(_one(side) for side in pads)) if pads[0] == pads[1] else str(pads)


def _settings(op: Any, names: tuple[str, ...]) -> str:
    """The settings of these names in words."""
    if isinstance(op, Activation) or (isinstance(op, MaxPool | AveragePool) and len(names) > 1):
        return described(Step(op, "", (), ()))
    return ", ".join(_setting(op, name) for name in names)


def _setting(op: Any, name: str) -> str:
    value = getattr(op, name)
    if name == "channels" and not isinstance(op, Dropout):
        return f"{value} channels"
    if name == "kernel":
        return f"kernel {_sides(op.kernel if isinstance(op, Convolution) else op.sides)}"
    if name in ("stride", "dilation"):
        return f"{name} {_one(op.strides if name == 'stride' else value)}"
    if name == "pad":
        return f"padding {_pads(op.pads)}"
    if name == "ceil":
        return "size rounded up" if value else "size rounded down"
    if name == "count_pad":
        return "padding that counts" if value else "padding that does not count"
    if name == "share":
        return f"dropout {value:g}"
    if name in ("bias", "scale", "shift"):
        return name if value else f"no {name}"
    if name == "of_batch":
        return "statistics of the batch" if value else "running statistics"
    if name == "last":
        return described(Step(op, "", (), ()))
    if isinstance(op, LRN):
        return f"local response norm with {name} {value:g}"
    return f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else f"{name} {value}"


# ------------------------------------------------------------------------------------------------------------- edits


def edited(alignment: Alignment, chosen: dict[int, set[str]]) -> Chain:
    """The reference with some differences taken over from the model, and its own arrays.

    Args:
        alignment: Of the reference and the model.
        chosen: Parts of `Difference`, by the identity of the pair.
    """
    items: list[Item] = []
    for pair in alignment:
        parts = chosen.get(id(pair), set())
        if pair.reference is None:
            items += [pair.model] if parts and pair.model else []
        elif pair.model is None:
            items += [] if parts else [pair.reference]
        else:
            items.append(_edited(pair.reference, pair, parts, chosen))
    return tuple(items)


def _edited(reference: Item, pair: Pair, parts: set[str], chosen: dict[int, set[str]]) -> Item:
    model = pair.model
    if isinstance(reference, Fork):
        branches = [edited(inner, chosen) for inner in pair.inner[: len(reference.branches)]]
        if not parts and tuple(branches) == reference.branches:
            return reference  # the very same, so that what comes before the first edit is not run again
        if "order" in parts:
            matched = sorted(j for j in pair.order[: len(reference.branches)] if j >= 0)
            branches = [branches[pair.order.index(j)] for j in matched]
        return replace(reference, branches=tuple(branches))
    if isinstance(reference, Step) and isinstance(model, Step) and parts:
        if type(reference.op) is type(model.op):
            taken = {name: getattr(model.op, name) for part in parts for name in part.split()}
            return replace(reference, op=replace(reference.op, **taken))
        return replace(reference, op=model.op)
    return reference
