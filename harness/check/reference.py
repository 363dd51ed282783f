"""What a model is held against, a network of the spec or another model, as trees; the nearest one; edits' effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

import spec
from harness.agreement import probe_params, relative_error
from harness.check.align import Alignment, align
from harness.check.arithmetic import Run, flat
from harness.check.differences import Difference, edited
from harness.check.graph import Activation, Convolution, Dropout, Graph, Input, Linear, Node, Norm, Scale, probe_images
from harness.check.tree import Chain, Fork, Item, Side, Step, logits, read
from harness.check.trial import LARGER, Trial
from harness.images.sources import load_batch, scikit_learn
from harness.weights.preprocessing import Preprocessing, named, published
from spec.network import IMAGES, Add
from spec.shapes import find_misfit

_CANDIDATES = 4  # presets that are aligned, of those whose layers are most alike
_OF_TRAINING = 0.1  # of a distance, what is in training mode

# ----------------------------------------------------------------------------------------------------- the table


def graph_of_table(config: spec.Config, shape: spec.Shape, *, training: bool = False) -> Graph:
    """The graph of a network on images of (channels, height, width); the arrays have their canonical names."""
    made = _Graph(shape, training)
    for node in spec.walk(config, shape):
        made.add(node)
    outputs = [config.logits, *(f"{head}.{_last(config, head)}" for head in spec.head_names(config))]
    return Graph(tuple(made.nodes), tuple(made.ends[name] for name in outputs))


def _last(config: spec.Config, head: str) -> str:
    return dict(config.table)[head].chain[-1][0]  # type: ignore[union-attr]  # it is a head


class _Graph:
    def __init__(self, shape: spec.Shape, training: bool) -> None:
        self.training = training
        self.nodes = [Node(Input(), (), IMAGES, shape)]
        self.ends = {IMAGES: 0}

    def add(self, node: spec.Node) -> None:
        """All that a node of the table does."""
        reads = [self.ends[name] for name in node.reads]
        op: Any = node.op
        if node.dropout:
            reads = [self.step(node, Dropout(node.dropout), reads, self.nodes[reads[0]].shape)]
        if isinstance(op, Add) and op.scale != 1:
            reads[-1] = self.step(node, Scale(op.scale), reads[-1:], node.out)
        ended = isinstance(op, Add) and len(reads) == 1  # a residual without its shortcut
        end = reads[0] if ended else self.step(node, _alone(node), reads, node.out, _layer(node))
        if norm := node.norm:
            alone = Norm(norm.epsilon, norm.momentum, norm.scale, norm.shift, of_batch=self.training)
            end = self.step(node, alone, [end], node.out, _norm(node))
        if getattr(op, "activation", None):
            end = self.step(node, Activation(op.activation), [end], node.out)
        self.ends[node.name] = end

    def step(
        self, node: spec.Node, op: Any, reads: list[int], shape: spec.Shape, arrays: Mapping[str, str] | None = None
    ) -> int:
        self.nodes.append(Node(op, tuple(reads), node.name, shape, arrays or {}))
        return len(self.nodes) - 1


def _alone(node: spec.Node) -> Any:
    """The operation without what belongs to its layer."""
    op = node.op
    if isinstance(op, spec.network.Conv):
        return Convolution(node.out_channels, op.sides, op.strides, op.pads, bias=node.has_bias)
    if isinstance(op, spec.network.Dense):
        return Linear(node.out_channels, bias=node.has_bias)
    if isinstance(op, spec.GlobalAverage):
        return spec.AdaptiveAverage(1)
    return Add(activation=None) if isinstance(op, Add) else op


def _layer(node: spec.Node) -> dict[str, str]:
    roles = ("weight",) * node.has_weights + ("bias",) * node.has_bias
    return {role: f"{node.name}.{role}" for role in roles}


def _norm(node: spec.Node) -> dict[str, str]:
    learned = node.norm.learned if node.norm else ()
    roles = {role: role for role in learned} | {"mean": "running_mean", "var": "running_var"}
    return {role: f"{node.name}.norm.{leaf}" for role, leaf in roles.items()}


# ---------------------------------------------------------------------------------------------- trees and effects


class Reference:
    """A network of the spec as trees; `folded` makes batch norm a part of the layer before it, at inference."""

    def __init__(self, config: spec.Config, *, folded: bool = False) -> None:
        self.config = config
        self.folded = folded
        self.name = config.preset
        self.parameters = spec.parameter_count(self.config)
        self.heads = spec.head_names(self.config)
        self.places = [node.name for node in spec.walk(self.config)]  # of its operations in forward order

    def tree(self, shape: spec.Shape, *, training: bool = False) -> Chain:
        """Its tree on images of a shape; in training with its heads and with dropout."""
        config = self.config if training else replace(self.config, aux=False, dropout=0.0)
        return _tree(config, shape, training, self.folded and not training)

    def fits(self, shape: spec.Shape, *, heads: bool = False) -> bool:
        """Whether it takes images of a shape."""
        return find_misfit(self.config if heads else replace(self.config, aux=False), shape) is None

    def material(self, shape: spec.Shape) -> tuple[dict[str, spec.Array], spec.Array]:
        """Weights and two pictures with which effects are measured.

        Weights are He's, which keep the scale of what passes through them; nothing else is neutral, and running
        statistics are those of the pictures.
        """
        config, arrays = replace(self.config, aux=False), dict(self._drawn)
        x = _pictures(config, shape)
        if self.folded:
            rng = np.random.default_rng(0)
            biases = {name: op.channels for name, op in arrays_of(self.tree(shape)) if name not in arrays}
            arrays |= {name: 0.1 * rng.random(channels) for name, channels in biases.items()}
        elif config.batch_norm:
            run = Run(arrays)
            run.chain(read(graph_of_table(config, shape, training=True), heads=False), x)
            arrays |= run.statistics
        return arrays, x

    @cached_property
    def _drawn(self) -> dict[str, spec.Array]:
        config = replace(self.config, aux=False)
        weights = {name: x for name, x in spec.init_params(config, 0, "he").items() if x.ndim > 1}
        return probe_params(config, 0) | weights


class Model:
    """Somebody's model in the place of a network of the spec, by the trees of its passes, with its own weights."""

    def __init__(self, name: str, trial: Trial, trees: Mapping[str, Chain], arrays: spec.Arrays) -> None:
        self.name = name
        self.arrays = arrays
        self.trial = trial
        self.trees = trees
        self.parameters = trial.parameters
        self.heads = [item.place for item in trees.get("training", ()) if isinstance(item, Side)]
        recording = trial.recordings["training" if "training" in trees else "inference"]
        self.places = [node.place for node in recording.graph.nodes]

    def tree(self, shape: spec.Shape, *, training: bool = False) -> Chain:
        """Its tree on images of a shape."""
        return self.trees[self._kind(shape, training)]

    def fits(self, shape: spec.Shape, *, heads: bool = False) -> bool:
        """Whether there is one."""
        return self._kind(shape, heads) in self.trees

    def _kind(self, shape: spec.Shape, training: bool) -> str:
        kinds = ["training"] if training else ["inference", LARGER]
        return next((kind for kind in kinds if self.trial.shape_of(kind) == shape), "")

    def material(self, shape: spec.Shape) -> tuple[dict[str, spec.Array], spec.Array]:
        """Its own weights, and two pictures as the preset that is nearest to it wants them; noise if there is none."""
        inference = self.trees["inference"]
        arrays = dict(self.arrays)
        try:
            name = nearest(self.trial.shape, inference, self.trees.get("training"), logits(inference)[0])
        except spec.InvalidInput:
            return arrays, probe_images(shape)
        return arrays, _pictures(spec.preset(name, in_channels=shape[0]), shape)


@lru_cache(maxsize=64)
def _tree(config: spec.Config, shape: spec.Shape, training: bool, folded: bool) -> Chain:
    tree = read(graph_of_table(config, shape, training=training), heads=training)
    return folded_in(tree) if folded else tree


def folded_in(chain: Chain, arrays: dict[str, spec.Array] | None = None) -> Chain:
    """A tree whose batch norm is a part of the layers before it; where there are `arrays` they are changed as well."""
    items: list[Item] = []
    for item in chain:
        if isinstance(item, Fork):
            items.append(replace(item, branches=tuple(folded_in(branch, arrays) for branch in item.branches)))
        elif isinstance(item, Step) and isinstance(item.op, Norm) and items and isinstance(layer := items[-1], Step):
            named = {**layer.arrays, "bias": layer.arrays.get("bias", f"{layer.place}.bias")}
            items[-1] = replace(layer, op=replace(layer.op, bias=True), arrays=named)
            if arrays is not None:
                _fold(arrays, named, item)
        else:
            items.append(item)
    return tuple(items)


def _fold(arrays: dict[str, spec.Array], layer: Mapping[str, str], norm: Step) -> None:
    mean, var = (arrays[norm.arrays[role]] for role in ("mean", "var"))
    scale, shift = (arrays[norm.arrays[role]] if role in norm.arrays else 1.0 - i for i, role in _LEARNED)
    factor = scale / np.sqrt(var + norm.op.epsilon)
    weight, bias = arrays[layer["weight"]], arrays.get(layer["bias"], 0.0)
    arrays[layer["weight"]] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    arrays[layer["bias"]] = (bias - mean) * factor + shift


_LEARNED = tuple(enumerate(("weight", "bias")))


def arrays_of(chain: Chain) -> Iterator[tuple[str, Any]]:
    """The names of all arrays in a tree, each with its operation."""
    for item in chain:
        if isinstance(item, Step):
            yield from ((name, item.op) for name in item.arrays.values())
        else:
            for inner in item.branches if isinstance(item, Fork) else (item.chain,):
                yield from arrays_of(inner)


_PIXELS = {
    "bvlc": "caffe",
    "torchvision": "torchvision",
    "inception-bn": "cadene-bn",
    "inception-bn-mxnet": "mxnet-bn",
    "inception-v3": "torchvision",
    "inception-v3-tf": "keras",
    "inception-v3-fid": "pytorch-fid",
    "inception-v4": "timm",
    "inception-resnet-v2": "timm-resnet-v2",
}


def _pictures(config: spec.Config, shape: spec.Shape) -> spec.Array:
    """Two pictures as the preset's own weights want them."""
    if config.in_channels not in (1, 3) or shape[1] != shape[2]:
        return probe_images(shape)
    way = usual_preparation(config).at(shape[1])
    return load_batch([str(scikit_learn("images"))], config, shape[1], 2, None, way.apply).images


def usual_preparation(config: spec.Config) -> Preprocessing:
    """How whole pictures are prepared as the preset's own weights want them."""
    usual = config.in_channels == spec.PRESETS[config.preset].in_channels and config.preset in _PIXELS
    return (named(_PIXELS[config.preset], config) if usual else published("", config)).whole()


class Effects:
    """What edits of a reference do to its logits, on pictures of one size."""

    def __init__(self, reference: Reference | Model, shape: spec.Shape) -> None:
        self.arrays, self.x = reference.material(shape)
        self.chain: Chain = ()
        self.outputs: list[spec.Array] = []

    def of(self, alignment: Alignment, group: Sequence[Difference]) -> tuple[float | None, bool]:
        """How far the logits are off, None where the edit does not fit, and whether the maps' shapes differ."""
        if not self.outputs:
            self.chain = edited(alignment, {})
            self.outputs = self._run(self.chain, 0, self.x)
        chosen: dict[int, set[str]] = {}
        for difference in group:
            chosen.setdefault(id(difference.pair), set()).add(difference.part)
        chain = edited(alignment, chosen)
        same = next((i for i, (x, y) in enumerate(zip(chain, self.chain, strict=False)) if x is not y), len(self.chain))
        same = min(same, len(chain))
        try:
            outputs = self._run(chain[same:], same, self.outputs[same - 1] if same else self.x)
        except (ValueError, IndexError):
            return None, True
        shapes = [x.shape for x in outputs] != [x.shape for x in self.outputs[same:]]
        error = relative_error(flat(outputs[-1]), flat(self.outputs[-1])) if outputs else 0.0
        return (error if np.isfinite(error) else None), shapes and len(chain) == len(self.chain)

    def _run(self, chain: Chain, start: int, x: spec.Array) -> list[spec.Array]:
        run, outputs = Run(self.arrays), []
        for item in chain:
            x = run.item(item, x)
            outputs.append(x)
        return outputs


def nearest(shape: spec.Shape, inference: Chain, training: Chain | None, classes: int, *, folded: bool = False) -> str:
    """The preset with the least distance from a model; what is for training only counts little."""
    counted = {}
    for name in spec.PRESETS:
        reference = Reference(spec.preset(name, in_channels=shape[0], num_classes=classes), folded=folded)
        if reference.fits(shape):
            config = replace(reference.config, aux=False)
            layers = Counter(_kind(node.op, node.out_channels) for node in spec.layers(config))
            counted[name] = _unlike(layers, Counter(_layers(inference)))
    if not counted:
        raise spec.InvalidInput(
            f"no preset takes images of {' x '.join(map(str, shape))}, as the model does; --input gives it others"
        )
    costs = {}
    for name in sorted(counted, key=lambda name: counted[name])[:_CANDIDATES]:
        reference = Reference(spec.preset(name, in_channels=shape[0], num_classes=classes), folded=folded)
        costs[name] = align(reference.tree(shape), inference)[0]
        if training is not None and reference.fits(shape, heads=True):
            costs[name] += _OF_TRAINING * align(reference.tree(shape, training=True), training)[0]
    return min(costs, key=lambda name: costs[name])


def _layers(chain: Chain) -> Iterator[Any]:
    """The kind of every layer."""
    for item in chain:
        if isinstance(item, Step):
            if isinstance(item.op, Convolution | Linear):
                yield _kind(item.op, item.op.channels)
            continue
        for inner in item.branches if isinstance(item, Fork) else (item.chain,):
            yield from _layers(inner)


def _kind(op: Any, channels: int) -> Any:
    return channels, spec.network.pair(op.kernel) if hasattr(op, "kernel") else None


def _unlike(one: Counter[Any], other: Counter[Any]) -> int:
    return (one - other).total() + (other - one).total()
