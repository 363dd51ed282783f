"""Which array is which where names are other people's own: shapes decide, and the order of numbers where shapes tie.

Branches of an Inception block are told by the shapes that they have in all blocks together, and blocks by the shapes in
them; the remaining layers by their shapes in the order of their names, in which 10 follows 9. What this does not decide
is not guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import spec
from spec import Arrays
from spec.network import Node, Shape

_LEAVES = {  # the last part of a name in the frameworks
    "weight": "weight",
    "kernel": "weight",
    "bias": "bias",
    "gamma": "norm.weight",
    "scale": "norm.weight",
    "beta": "norm.bias",
    "running_mean": "norm.running_mean",
    "mean": "norm.running_mean",
    "running_var": "norm.running_var",
    "var": "norm.running_var",
}
_NAME = re.compile(rf"(.+?)[._/]({'|'.join(sorted(_LEAVES, key=len, reverse=True))})")

Layers = dict[str, dict[str, str]]  # names of arrays, by the layer's part of the name and the canonical last part
Matches = dict[str, str]  # canonical layers, and the file's


def told_by_shapes(arrays: Arrays, config: spec.Config) -> dict[str, str] | None:
    """The name of every array of the network in a file, by canonical name; None where the arrays do not decide that.

    Args:
        arrays: Of the file without counters of batches, in PyTorch's layouts, or in JAX's where a name ends in
            ``kernel``.
        config: The network, without auxiliary heads. Its numbers of channels and classes do not count.
    """
    parsed = _layers(arrays)
    nodes = spec.layers(config)
    if parsed is None or len(parsed[0]) != len(nodes):
        return None
    layers, norms = parsed
    shapes = {stem: _canonical(arrays, leaves["weight"]) for stem, leaves in layers.items()}
    matches = _matched(_fitted(nodes, shapes), shapes)
    if matches is None:
        return None
    pairs = _paired([matches[node.name] for node in nodes if node.norm], norms)
    if pairs is None:
        return None
    names = {
        f"{node.name}.{leaf}": name
        for node in nodes
        for part in (layers[matches[node.name]], norms.get(pairs.get(matches[node.name], ""), {}))
        for leaf, name in part.items()
    }
    wanted = spec.param_shapes(config)
    return {name: names[name] for name in wanted} if names.keys() == wanted.keys() else None


def sides(arrays: Arrays, names: Mapping[str, str], config: spec.Config) -> tuple[int, int]:
    """Channels of the images and number of classes of a file whose names `told_by_shapes` has told."""
    nodes = spec.layers(config)
    first, last = (_canonical(arrays, names[f"{node.name}.weight"]) for node in (nodes[0], nodes[-1]))
    return first[1], last[0]


def _layers(arrays: Arrays) -> tuple[Layers, Layers] | None:
    """Convolutions and dense layers, and batch norms."""
    stems: Layers = {}
    for name, x in arrays.items():
        parts = _NAME.fullmatch(name)
        if parts is None or not 1 <= x.ndim <= 4 or _LEAVES[parts[2]] in stems.get(parts[1], {}):
            return None
        stems.setdefault(parts[1], {})[_LEAVES[parts[2]]] = name
    layers, norms = {}, {}
    for stem, leaves in stems.items():
        if "weight" in leaves and arrays[leaves["weight"]].ndim in (2, 4):
            layers[stem] = leaves
        else:  # PyTorch's batch norm has a weight and a bias
            norms[stem] = {leaf if leaf.startswith("norm.") else f"norm.{leaf}": name for leaf, name in leaves.items()}
    return layers, norms


def _canonical(arrays: Arrays, name: str) -> Shape:
    """The shape of a layer's weight as PyTorch has it."""
    shape = arrays[name].shape
    return shape[::-1][:2] + shape[:-2] if name.endswith("kernel") else shape


def _fitted(nodes: Iterable[Node], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of the network's weights by layer, with the channels and classes that the file has."""
    wanted = {node.name: node.weight_shape for node in nodes}
    first, last = next(iter(wanted)), list(wanted)[-1]
    for name, open_side in ((first, 1), (last, 0)):
        expected = list(wanted[name])
        lengths = [
            shape[open_side]
            for shape in shapes.values()
            if len(shape) == len(expected)
            and all(a == b for i, (a, b) in enumerate(zip(shape, expected, strict=True)) if i != open_side)
        ]
        expected[open_side] = min(lengths, default=expected[open_side])
        wanted[name] = tuple(expected)
    return wanted


def _matched(wanted: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> Matches | None:
    if Counter(wanted.values()) != Counter(shapes.values()):
        return None
    blocks: dict[str, dict[str, Shape]] = {}
    for layer, shape in wanted.items():
        block, _, branch = layer.rpartition(".")
        if block:
            blocks.setdefault(block, {})[branch] = shape
    matches = _blocks(blocks, shapes) if blocks else {}
    if matches is None:
        return _in_order(wanted, shapes)
    rest = {layer: shape for layer, shape in wanted.items() if layer not in matches}
    used = set(matches.values())
    outside = _in_order(rest, {stem: shape for stem, shape in shapes.items() if stem not in used})
    return None if outside is None else matches | outside


def _in_order(wanted: Mapping[str, Shape], shapes: Mapping[str, Shape]) -> Matches | None:
    """All layers in the order of their names, convolutions first; or each by a shape that no other has."""
    ordered = sorted(shapes, key=lambda stem: (-len(shapes[stem]), _natural(stem)))
    if [shapes[stem] for stem in ordered] == list(wanted.values()):
        return dict(zip(wanted, ordered, strict=True))
    by_shape = {shape: stem for stem, shape in shapes.items()}
    if len(by_shape) < len(shapes) or set(by_shape) != set(wanted.values()):
        return None
    return {layer: by_shape[shape] for layer, shape in wanted.items()}


def _blocks(blocks: Mapping[str, Mapping[str, Shape]], shapes: Mapping[str, Shape]) -> Matches | None:
    """The layers of every block; None where the names do not show blocks, or the branches cannot be told."""
    groups: dict[str, list[str]] = {}  # by what stands before
    for stem in shapes:
        for cut in re.finditer(r"[._/]", stem):
            groups.setdefault(stem[: cut.end()], []).append(stem)
    kinds = {block: Counter(branches.values()) for block, branches in blocks.items()}
    matches: dict[str, tuple[str, frozenset[str]]] = {}
    for block, kind in kinds.items():
        matching = {
            frozenset(stems): prefix
            for prefix, stems in groups.items()
            if len(stems) == kind.total() and Counter(shapes[stem] for stem in stems) == kind
        }
        if len(matching) != 1:
            return None
        ((stems, prefix),) = matching.items()
        matches[block] = prefix, stems
    if len({stems for _, stems in matches.values()}) < len(blocks):
        return None
    # A name inside of the block has one meaning in all blocks.
    possible: dict[str, set[str]] = {}
    for block, (prefix, stems) in matches.items():
        for stem in stems:
            branches = {branch for branch, shape in blocks[block].items() if shape == shapes[stem]}
            inner = stem.removeprefix(prefix)
            possible[inner] = possible.get(inner, branches) & branches
    if len(possible) != len(set.union(*possible.values())) or any(len(branches) != 1 for branches in possible.values()):
        return None
    return {
        f"{block}.{next(iter(possible[stem.removeprefix(prefix)]))}": stem
        for block, (prefix, stems) in matches.items()
        for stem in stems
    }


def _paired(layers: Iterable[str], norms: Layers) -> dict[str, str] | None:
    """The batch norm of every layer: beside it in the file, and as far in the order of names."""
    beside: dict[str, tuple[list[str], list[str]]] = {}
    for i, stems in enumerate((layers, norms)):
        for stem in sorted(stems, key=_natural):
            beside.setdefault(re.sub(r"[^./]*$", "", stem), ([], []))[i].append(stem)
    if norms and any(len(ours) != len(others) for ours, others in beside.values()):
        return None
    return {layer: norm for ours, others in beside.values() for layer, norm in zip(ours, others, strict=False)}


def _natural(name: str) -> list[tuple[int, str]]:
    """The order in which 10 follows 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
