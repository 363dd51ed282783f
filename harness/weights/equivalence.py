"""Networks with the same arrays: how far apart they compute, and which weights of one are exactly those of another.

Before a batch norm that predicts, a bias is a part of the mean, and epsilon a part of the variance; its scale γ is a
part of the weights before it, of the mean and of the variance, but for γ's size, which the division takes out again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

import numpy as np

import spec
from harness.agreement import relative_error
from harness.weights.checkpoint import Checkpoint
from spec import Array, Arrays, Config, InvalidInput, Node, reference
from spec.shapes import fits, input_sizes
from spec.tolerances import TOLERANCES

_SIZE = 32  # pixels a side, of pictures of noise; another size where the network needs it
_FEW = 3  # layers in an error


def noise(number: int, *configs: Config, least: int = _SIZE) -> Array:
    """Images (number, C, side, side) of noise, in which no two pixels tie, of a side that all networks take.

    Where a network needs larger ones, its last maps are one pixel at the least size, and its kernels read little but
    padding there: so it gets some more pixels, if it can.
    """
    bounds = [input_sizes(config) for config in configs]
    side = max(least, *(sizes.low for sizes in bounds))
    if not all(fits(config, side) for config in configs):
        side = min(sizes.high for sizes in bounds if sizes.high is not None)
    elif side > least and not any(config.aux for config in configs):
        side += _SIZE * all(fits(config, side + _SIZE) for config in configs)
    return np.random.Generator(np.random.Philox(0)).random((number, configs[0].in_channels, side, side))


@dataclass(frozen=True)
class Distance:
    """Where two networks with the same arrays part, and how far."""

    presets: tuple[str, str]
    stage: str | None  # the first, in forward order, that differs; None where none does
    logits: float  # relative; infinite where they are not finite
    side: int  # of the picture, in pixels

    def __str__(self) -> str:
        first, second = self.presets
        picture = f"on a picture of noise of {self.side} pixels a side"
        if self.stage is None:
            return f"{first} and {second} compute the same {picture}"
        size = f"differ by {self.logits:.2g} of the largest" if np.isfinite(self.logits) else "are not finite"
        return f"{first} and {second} part at {self.stage}, {picture}: their logits {size}"


def measured(first: Checkpoint, second: Checkpoint) -> Distance:
    """How far the referee takes two networks apart, each with its own parameters."""
    image = noise(1, first.config, second.config, least=2 * _SIZE)
    with np.errstate(all="ignore"):  # other people's numbers may be any
        stages, others = (
            reference.activations(each.config, {name: x.astype("float64") for name, x in each.params.items()}, image)
            for each in (first, second)
        )
        errors = {name: relative_error(others[name], x) for name, x in stages.items() if name in others}
    bound = TOLERANCES["float64"].activations
    stage = next((name for name, error in errors.items() if not error <= bound), None)
    logits = relative_error(others[second.config.logits], stages[first.config.logits])
    return Distance((first.config.preset, second.config.preset), stage, logits, image.shape[-1])


# ------------------------------------------------------------------------------------------------------------ folding


def to_fold(config: Config) -> str:
    """What a user may do where batch norm has a form that no setting of the preset makes; empty where one does."""
    own = spec.PRESETS[config.preset].batch_norm
    if own is None or config.batch_norm is None or config.batch_norm.after_bias == own.after_bias:
        return ""
    have, lack = ("has none", "biases") if config.batch_norm.after_bias else ("has some", "no biases")
    return (
        f"it has {lack} before batch norm, and preset {config.preset} {have}: googlenet convert --fold-into "
        f"{config.preset} makes weights that compute the same"
    )


def sized(preset: str, config: Config) -> Config:
    """A preset with the channels and classes of a network, and its heads where both have them."""
    aux = None if spec.preset(preset).aux and config.aux else False
    return spec.preset(preset, in_channels=config.in_channels, num_classes=config.num_classes, aux=aux)


def folded(weights: Checkpoint, target: Config) -> Checkpoint:
    """The weights of a network that computes the same in prediction: only batch norm, and a bias before it, may differ.

    Numbers are computed in float64 and rounded to what they were, half precision to float32.

    Raises:
        InvalidInput: when the network computes something else, with how far apart they are; when a scale is 0, or a
            variance would be negative.
    """
    config = weights.config
    asked = f"--fold-into {target.preset}"
    ours, theirs = spec.nodes(config), spec.nodes(target)
    if {name: _shape(node) for name, node in ours.items()} != {name: _shape(node) for name, node in theirs.items()}:
        heads = "; leave the auxiliary heads out with --no-aux" if config.aux and not target.aux else ""
        raise InvalidInput(f"{asked}: expected a network with the layers of {config}{heads}")
    problems: list[str] = []
    params: dict[str, Array] = {}
    for node in spec.layers(config):
        arrays = {name.removeprefix(f"{node.name}."): x for name, x in weights.params.items() if _is_of(name, node)}
        made = _layer(arrays, node, theirs[node.name], problems)
        params |= {f"{node.name}.{leaf}": x for leaf, x in made.items()}
    if problems:
        more = f"; and {len(problems) - _FEW} more" if len(problems) > _FEW else ""
        raise InvalidInput(
            f"{asked}: expected numbers that batch norm's other form can hold: {'; '.join(problems[:_FEW])}{more}; "
            f"keep {config.preset}"
        )
    dtype = np.result_type("float32", *(x.dtype for x in weights.params.values()))
    params = {name: params[name].astype(dtype) for name in spec.param_shapes(target)}
    result = Checkpoint(params, target, weights.metadata)
    if others := [name for name, node in ours.items() if _computes(node) != _computes(theirs[name])]:
        raise InvalidInput(
            f"{asked}: expected a network that computes what {config.preset} does, and they differ from "
            f"{others[0]} on ({_difference(ours[others[0]], theirs[others[0]])}). {measured(weights, result)}. "
            "No arrays make up for that: name with --preset the network that these weights were trained as"
        )
    return result


def _shape(node: Node) -> tuple[object, ...]:
    return (node.weight_shape if node.has_weights else None, node.stage)


def _computes(node: Node) -> tuple[object, ...]:
    """All of a node but its batch norm, and what is there in training only."""
    return (node.op, node.reads, node.norm is None)


def _difference(ours: Node, theirs: Node) -> str:
    """``count_pad True and False``; two kinds of operations by their names."""
    if type(ours.op) is not type(theirs.op) or not is_dataclass(ours.op):
        return f"{type(ours.op).__name__} and {type(theirs.op).__name__}"
    pairs = [(field.name, getattr(ours.op, field.name), getattr(theirs.op, field.name)) for field in fields(ours.op)]
    return ", ".join(f"{name} {x} and {y}" for name, x, y in pairs if x != y)


def _is_of(name: str, node: Node) -> bool:
    layer, _, leaf = name.rpartition(".")
    return layer.removesuffix(".norm") == node.name and leaf != ""


def _layer(arrays: Arrays, ours: Node, theirs: Node, problems: list[str]) -> dict[str, Array]:
    """A layer's arrays, by their last parts, with its batch norm in another form."""
    before, after = ours.norm, theirs.norm
    if before is None or after is None or (before == after and ours.has_bias == theirs.has_bias):
        return dict(arrays)
    made = {leaf: x.astype("float64") for leaf, x in arrays.items()}
    mean, var = made["norm.running_mean"], made["norm.running_var"]
    if ours.has_bias and not theirs.has_bias:
        mean = mean - made.pop("bias")
    if theirs.has_bias and not ours.has_bias:
        made["bias"] = np.zeros_like(mean)
    if after.scale and not before.scale:
        made["norm.weight"] = np.ones_like(mean)
    if before.scale and not after.scale:
        scale = made.pop("norm.weight")
        if not scale.all():
            problems.append(f"{ours.name} has a scale of 0")
            scale = np.where(scale == 0, 1, scale)
        sign = np.sign(scale)
        made["weight"] = made["weight"] * sign.reshape(-1, *(1,) * (made["weight"].ndim - 1))
        if "bias" in made:
            made["bias"] = made["bias"] * sign
        mean, var = mean * sign, (var + before.epsilon) / scale**2 - after.epsilon
    elif before.epsilon != after.epsilon:
        var = var + before.epsilon - after.epsilon
    if (var < 0).any():
        problems.append(f"{ours.name} would have a variance of {var.min():.2g}")
    made |= {"norm.running_mean": mean, "norm.running_var": var}
    return made
