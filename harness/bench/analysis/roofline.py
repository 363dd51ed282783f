"""The work of a network's call, and the best speed at which this machine could do it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import spec
from spec.network import Concat

_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}
_TRAINING = 3  # times the forward pass: it, the gradients of the activations, the gradients of the weights


@dataclass(frozen=True)
class Work:
    """The cost of one call: floating point operations, and the bytes that have to move at the least."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


def work(config: spec.Config, size: int, task: str, batch: int, dtype: str) -> Work:
    """The cost of a call, counted from the spec.

    Operations are the multiply-adds of convolutions and dense layers, two operations each; nothing else counts. The
    bytes are a model: every convolution, dense layer and pool reads its input and its weights once and writes its
    output once, in the dtype that it computes in; ReLU, biases, batch norm and joining the branches cost nothing. A
    cache larger than an activation moves less, a layer split over several passes more. Training is three times the
    forward pass in both, auxiliary heads included; in inference these do not run.

    Args:
        config: The network.
        size: Side of the images in pixels.
        task: ``train`` or ``infer``.
        batch: Images.
        dtype: ``float32``, ``tf32`` or ``bfloat16``.
    """
    passes = _TRAINING if task == "train" else 1
    flops = bytes_moved = 0.0
    for _, multiply_adds, moved, weights in _parts(config, size, heads=task == "train"):
        flops += 2 * multiply_adds * batch
        bytes_moved += _BYTES[dtype] * (moved * batch + weights)
    return Work(passes * flops, passes * bytes_moved)


def stage_flops(config: spec.Config, size: int, batch: int) -> dict[str, int]:
    """Operations of each stage's forward pass, by name; its gradients take twice as many."""
    flops = dict.fromkeys(spec.stage_names(config), 0)
    for stage, multiply_adds, _, _ in _parts(config, size, heads=True):
        flops[stage] += 2 * multiply_adds * batch
    return flops


def _parts(config: spec.Config, size: int, *, heads: bool) -> Iterable[tuple[str, int, int, int]]:
    """(stage, multiply-adds, scalars read and written, both for one image, weights) of every operation but joins."""
    image = (config.in_channels, size, size)
    costs = spec.layer_costs(config, image)
    for node in spec.walk(config, image):
        if isinstance(node.op, Concat) or (node.in_head and not heads):
            continue
        moved = len(node.reads) * math.prod(node.into) + math.prod(node.out)
        if node.has_weights:
            yield node.stage, costs[node.name].multiply_adds, moved, math.prod(node.weight_shape)
        else:
            yield node.stage, 0, moved, 0


@dataclass(frozen=True)
class Machine:
    """The best that any framework was measured to reach on this machine: the roof."""

    flops: Mapping[str, float]  # a second, by dtype
    bandwidth: float | None  # bytes a second

    def roof(self, intensity: float, dtype: str) -> float | None:
        """Operations a second that a call of that intensity can reach; None without measurements."""
        peak = self.flops.get(dtype)
        return None if peak is None or self.bandwidth is None else min(peak, intensity * self.bandwidth)


def machine_of(peaks: Iterable[Mapping[str, Any]]) -> Machine:
    """The best of all measurements: products and convolutions by dtype, copies in any dtype."""
    flops: dict[str, float] = {}
    bandwidth = None
    for peak in peaks:
        if peak["name"] == "copy":
            bandwidth = max(bandwidth or 0.0, peak["per_second"])
        else:
            flops[peak["dtype"]] = max(flops.get(peak["dtype"], 0.0), peak["per_second"])
    return Machine(flops, bandwidth)
