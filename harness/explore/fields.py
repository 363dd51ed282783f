"""Where on the picture a unit looks: the receptive field of every operation of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import spec
from spec.network import IMAGES, Pair, Sliding
from spec.reference import adaptive_windows

Span = tuple[int, int]  # pixels along one side of the picture: the first, and one past the last


@dataclass(frozen=True)
class Field:
    """What the units of an operation's output see of the picture."""

    rows: tuple[Span, ...]  # of each row of units, within the picture
    columns: tuple[Span, ...]
    size: Pair | None  # (height, width) in pixels, beyond the picture's edges as well; None: the whole picture
    stride: Pair | None  # pixels from one unit to the next, down and across; None: there is one unit


def fields(config: spec.Config, shape: spec.Shape) -> dict[str, Field]:
    """The receptive field of every operation by its name, for images of (channels, height, width).

    After a kernel k on units that are j pixels apart and see f pixels, a unit sees f + (k - 1) · j, and the units
    are j times the stride apart. Where branches join, what the largest sees counts.
    """
    _, height, width = shape
    rows, columns = (tuple((i, i + 1) for i in range(side)) for side in (height, width))
    seen = {IMAGES: Field(rows, columns, (1, 1), (1, 1))}
    for node in spec.walk(config, shape):
        seen[node.name] = _after(node, [seen[name] for name in node.reads])
    return seen


def _after(node: spec.Node, read: Sequence[Field]) -> Field:
    op, first = node.op, read[0]
    if isinstance(op, Sliding):
        down, across = op.output_sizes(node.into)
        rows, columns = _windows(first.rows, op, 0, down), _windows(first.columns, op, 1, across)
        if first.size is None or first.stride is None:
            return Field(rows, columns, None, None)
        (height, width), (j, i) = first.size, first.stride
        sides = height + (op.sides[0] - 1) * j, width + (op.sides[1] - 1) * i
        return Field(rows, columns, sides, (j * op.strides[0], i * op.strides[1]))
    if isinstance(op, spec.AdaptiveAverage) and op.side > 1:
        rows, columns = (_covering(spans, op.side) for spans in (first.rows, first.columns))
        return Field(rows, columns, None, None)
    if isinstance(op, spec.AdaptiveAverage | spec.GlobalAverage) or node.is_dense:
        return Field(_covering(first.rows, 1), _covering(first.columns, 1), None, None)
    rows, columns = _joined([x.rows for x in read]), _joined([x.columns for x in read])
    sizes = [x.size for x in read if x.size is not None]
    whole = len(sizes) < len(read)
    size = None if whole else (max(height for height, _ in sizes), max(width for _, width in sizes))
    return Field(rows, columns, size, first.stride)


def _windows(spans: Sequence[Span], op: Sliding, axis: int, count: int) -> tuple[Span, ...]:
    """What windows on units see; those that lie outside the map see nothing of it."""
    starts = [i * op.strides[axis] - op.pads[axis][0] for i in range(count)]
    inside = [spans[max(start, 0) : max(start + op.sides[axis], 0)] for start in starts]
    return tuple(_union(part) if part else (0, 0) for part in inside)


def _covering(spans: Sequence[Span], count: int) -> tuple[Span, ...]:
    return tuple(_union(spans[start:stop]) for start, stop in adaptive_windows(len(spans), count))


def _joined(sides: Sequence[Sequence[Span]]) -> tuple[Span, ...]:
    return tuple(_union(spans) for spans in zip(*sides, strict=True))


def _union(spans: Sequence[Span]) -> Span:
    return min(start for start, _ in spans), max(stop for _, stop in spans)
