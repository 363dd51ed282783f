"""How much work a network is, and how fast this machine could do it at best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import spec
from spec.googlenet import AUX_AFTER
from spec.network import Shape

_BYTES = {"float32": 4, "bfloat16": 2}
_TRAINING = 3  # times the forward pass: it, the gradients of the activations, the gradients of the weights


@dataclass(frozen=True)
class Work:
    """Of one call: floating point operations, and the bytes that have to move at the least."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


def work(config: spec.Config, size: int, task: str, batch: int, dtype: str) -> Work:
    """What a call costs, counted from the spec.

    Operations are the multiply-adds of convolutions and dense layers, two operations each; nothing else counts. The
    bytes are a model: every convolution, dense layer and pool reads its input and its weights once and writes its
    output once, in the dtype that it computes in; ReLU, biases, batch norm and joining the branches ride along for
    free. A cache larger than an activation moves less, a layer split over several passes more. Training is three times
    the forward pass in both, auxiliary heads included; in inference these do not run.

    Args:
        config: The network.
        size: Side of the images in pixels.
        task: ``train`` or ``infer``.
        batch: Images.
        dtype: ``float32`` or ``bfloat16``.
    """
    passes = _TRAINING if task == "train" else 1
    flops = bytes_moved = 0.0
    for _, multiply_adds, moved, weights in _parts(config, size, heads=task == "train"):
        flops += 2 * multiply_adds * batch
        bytes_moved += _BYTES[dtype] * (moved * batch + weights)
    return Work(passes * flops, passes * bytes_moved)


def stage_flops(config: spec.Config, size: int, batch: int) -> dict[str, int]:
    """Operations of each stage's forward pass, by name; its gradients are twice that."""
    found = dict.fromkeys(spec.stage_names(config), 0)
    for stage, multiply_adds, _, _ in _parts(config, size, heads=True):
        found[stage] += 2 * multiply_adds * batch
    return found


def _parts(config: spec.Config, size: int, *, heads: bool) -> Iterable[tuple[str, int, int, int]]:
    """(stage, multiply-adds, scalars read and written, both for one image, weights) of every layer and pool."""
    image = (config.in_channels, size, size)
    shapes = spec.stage_shapes(config, image)
    costs = spec.layer_costs(config, image)
    side_branches = set(AUX_AFTER.values())
    first, *_ = spec.layers(config)
    for layer in spec.layers(config):
        if layer.stage in side_branches and not heads:
            continue
        weights, cost = math.prod(layer.weight_shape), costs[layer.name]
        read = math.prod(image) if layer == first else layer.in_channels * (cost.multiply_adds // weights)
        yield layer.stage, cost.multiply_adds, read + cost.outputs, weights
    before: Shape = image
    for stage, shape in shapes.items():
        if stage in side_branches:
            continue
        if stage.startswith("inception"):
            yield stage, 0, 2 * math.prod((before[0], *shape[1:])), 0  # the pool of the fourth branch
        elif stage.startswith(("pool", "norm")):
            yield stage, 0, math.prod(before) + math.prod(shape), 0
        before = shape


@dataclass(frozen=True)
class Machine:
    """What it was measured to do at best, by any of the frameworks: the roof."""

    flops: Mapping[str, float]  # a second, by dtype
    bandwidth: float | None  # bytes a second

    def roof(self, intensity: float, dtype: str) -> float | None:
        """Operations a second that a call of that intensity can reach; None where it was not measured."""
        peak = self.flops.get(dtype)
        return None if peak is None or self.bandwidth is None else min(peak, intensity * self.bandwidth)


def machine_of(peaks: Iterable[Mapping[str, Any]]) -> Machine:
    """The best of every framework's measurements: of products and convolutions by dtype, of copies in any."""
    flops: dict[str, float] = {}
    bandwidth = None
    for peak in peaks:
        if peak["name"] == "copy":
            bandwidth = max(bandwidth or 0.0, peak["per_second"])
        else:
            flops[peak["dtype"]] = max(flops.get(peak["dtype"], 0.0), peak["per_second"])
    return Machine(flops, bandwidth)
