"""What the page knows of a network: its operations with shapes, costs and names, and how they lie beside each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import spec
from harness.explore.fields import fields
from harness.weights.formats import FORMATS
from harness.weights.names import SCHEMES, foreign_names
from spec.network import (
    IMAGES,
    LRN,
    Add,
    AveragePool,
    Block,
    Concat,
    Conv,
    Dense,
    Head,
    MaxPool,
    Node,
    Residual,
    Sliding,
)
from spec.shapes import layer_costs
from spec.table import table

_KINDS: dict[type, str] = {  # as `web/words.json` has them
    Conv: "convolution",
    Dense: "dense",
    MaxPool: "max_pool",
    AveragePool: "average_pool",
    spec.AdaptiveAverage: "adaptive_average",
    spec.GlobalAverage: "global_average",
    LRN: "lrn",
    Concat: "concat",
    Add: "add",
}
Settings = dict[str, Any]  # JSON values by the name of the setting


def settings(node: Node) -> Settings:
    """Everything that decides what an operation computes, but for its arrays; without the map's size."""
    op = node.op
    made: Settings = {"kind": _KINDS[type(op)]}
    if isinstance(op, Sliding):
        made |= {"kernel": op.sides, "stride": op.strides, "pad": op.pads}
    if isinstance(op, MaxPool):
        made["ceil"] = op.ceil
    elif isinstance(op, AveragePool):
        made["count_pad"] = op.count_pad
    elif isinstance(op, spec.AdaptiveAverage):
        made["side"] = op.side
    elif isinstance(op, LRN):
        made |= asdict(op)
    elif isinstance(op, Concat):
        made["order"] = [name.removeprefix(f"{node.stage}.") for name in node.reads]
    elif isinstance(op, Add):
        made |= {"scale": op.scale, "activation": op.activation, "shortcut": len(node.reads) > 1}
    elif node.has_weights:
        made |= {"channels": node.out_channels, "activation": op.activation, "bias": node.has_bias}
        made["norm"] = asdict(node.norm) if node.norm else None
        made["dropout"] = node.dropout or None
    return made


def drawn(config: spec.Config, size: int) -> dict[str, Any]:
    """A network as JSON values: its settings, its operations, its stages, and how they lie beside each other.

    Raises:
        InvalidInput: when images of that many pixels a side do not fit.
    """
    shape = (config.in_channels, size, size)
    costs, rows, seen = layer_costs(config, shape), table(config, shape), fields(config, shape)
    operations: dict[str, Any] = {}
    taken = _taken(config, shape)
    for node in spec.walk(config, shape):
        cost, field = costs.get(node.name), seen[node.name]
        operations[node.name] = {
            "stage": node.stage,
            "reads": node.reads,
            "settings": settings(node),
            "into": taken[node.name],
            "out": node.out,
            "parameters": cost.parameters if cost else 0,
            "multiply_adds": cost.multiply_adds if cost else 0,
            "field": field.size,
            "step": field.stride,
            "rows": field.rows,
            "columns": field.columns,
            "head": node.in_head,
        }
    return {
        "preset": config.preset,
        "source": config.source,
        "input": shape,
        "classes": config.num_classes,
        "parameters": spec.parameter_count(config),
        "multiply_adds": sum(row.multiply_adds for row in rows),
        "operations": operations,
        "stages": {
            row.stage: {
                "kernel": row.kernel,
                "shape": row.shape,
                "parameters": row.parameters,
                "multiply_adds": row.multiply_adds,
            }
            for row in rows
        },
        "layout": [_laid(stage, stage, part) for stage, part in config.stages],
    }


def _taken(config: spec.Config, shape: spec.Shape) -> dict[str, spec.Shape]:
    """The shape of what each operation takes, by its name; of a block's end that of what all its branches read."""
    outputs: dict[str, spec.Shape] = {IMAGES: shape}
    ways: dict[str, tuple[str, ...]] = {IMAGES: (IMAGES,)}  # all that leads to an output, in forward order
    taken = {}
    for node in spec.walk(config, shape):
        common = [name for name in ways[node.reads[0]] if all(name in ways[read] for read in node.reads)]
        taken[node.name] = outputs[common[-1]] if isinstance(node.op, Concat) else node.into
        ways[node.name] = (*common, node.name) if isinstance(node.op, Concat) else (*ways[node.reads[0]], node.name)
        outputs[node.name] = node.out
    return taken


def _laid(name: str, stage: str, part: Any) -> dict[str, Any]:
    if isinstance(part, Block):
        return {"name": name, "branches": [_chain(stage, branch) for branch in part.branches]}
    if isinstance(part, Residual):
        return {"name": name, "chain": _chain(stage, part.chain), "shortcut": part.shortcut}
    if isinstance(part, Head):
        return {"name": name, "head": _chain(stage, part.chain)}
    return {"name": name}


def _chain(stage: str, chain: Any) -> list[dict[str, Any]]:
    return [_laid(f"{stage}.{leaf}", stage, part) for leaf, part in chain]


# --------------------------------------------------------------------------------------------------- names in files


def names(config: spec.Config) -> dict[str, Any]:
    """The arrays by canonical name with their shapes; and whose files have them, under which name and in which layout.

    Returns:
        JSON values: ``{"shapes": {name: shape}, "schemes": [...]}``, each with its ``name``, the ``kind`` of library
        whose files have it, the ``formats`` that are written in it, ``names`` by canonical name, and the ``layout``.
    """
    alone = replace(config, aux=False)
    schemes = []
    for scheme in SCHEMES.values():
        whole = config if scheme.heads else alone
        if scheme.names_all_of(whole):
            theirs = dict(foreign_names(scheme, whole))
            formats = [form for form, written in FORMATS.items() if written.scheme == scheme.name]
            facts = {"name": scheme.name, "kind": scheme.kind, "formats": formats}
            schemes.append({**facts, "names": theirs, "layout": scheme.layout})
    return {"shapes": spec.param_shapes(config), "schemes": schemes}


# ----------------------------------------------------------------------------------------------- presets side by side


def family(config: spec.Config) -> list[spec.Config]:
    """The presets of the same family, the network's own among them."""
    return [other for other in spec.PRESETS.values() if other.family == config.family]


def differences(left: spec.Config, right: spec.Config) -> list[dict[str, Any]]:
    """What differs between two tables, operation by operation of the same name, at each one's own size.

    Returns:
        JSON values: ``what`` is the setting, or ``there`` for operations that only one has; ``left`` and ``right`` are
        its values, and ``places`` the operations, in forward order.
    """
    found: dict[str, dict[str, Any]] = {}

    def add(what: str, ours: Any, theirs: Any, place: str) -> None:
        entry = {"what": what, "left": ours, "right": theirs, "places": []}
        found.setdefault(repr((what, ours, theirs)), entry)["places"].append(place)

    for what, ours, theirs in _images(left, right):
        add(what, ours, theirs, IMAGES)
    ours, theirs = ({node.name: node for node in spec.walk(config)} for config in (left, right))
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            add("there", name in ours, name in theirs, name)
            continue
        one, other = settings(ours[name]), settings(theirs[name])
        for what in dict.fromkeys([*one, *other]):
            if one.get(what) != other.get(what):
                add(what, one.get(what), other.get(what), name)
    return list(found.values())


def _images(left: spec.Config, right: spec.Config) -> Iterator[tuple[str, Any, Any]]:
    for what in ("in_channels", "input_size"):
        if (ours := getattr(left, what)) != (theirs := getattr(right, what)):
            yield what, ours, theirs


def comparisons(config: spec.Config) -> dict[str, Any]:
    """The networks of the family at their own sizes, and what differs between any two of them."""
    others = family(config)
    if len(others) < 2:
        return {"networks": {}, "differences": []}
    pairs = [
        {"left": one.preset, "right": other.preset, "differences": differences(one, other)}
        for one, other in combinations(others, 2)
    ]
    return {"networks": {other.preset: _light(other) for other in others}, "differences": pairs}


def _light(config: spec.Config) -> dict[str, Any]:
    """Without what only the page's own network shows."""
    network = drawn(config, config.input_size)
    for operation in network["operations"].values():
        del operation["reads"], operation["rows"], operation["columns"]
    return network
