"""A tree, run in NumPy with the referee's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.check.graph import (
    Activation,
    BorderedMaxPool,
    Convolution,
    Dropout,
    Flatten,
    Linear,
    Norm,
    NotUnderstood,
    Padding,
    Scale,
    Softmax,
)
from harness.check.tree import Chain, Fork, Item, Side, Step
from spec import AdaptiveAverage, Array, MaxPool, reference
from spec.network import LRN, Add, AveragePool, Concat

ACTIVATIONS: dict[str, Callable[[Array, float], Array]] = {
    "relu": lambda x, slope: np.maximum(x, 0),
    "relu6": lambda x, slope: np.clip(x, 0, 6),
    "leaky_relu": lambda x, slope: np.where(x < 0, slope * x, x),
    "sigmoid": lambda x, slope: reference.sigmoid(x)[0],
    "silu": lambda x, slope: x * reference.sigmoid(x)[0],
    "tanh": lambda x, slope: np.tanh(x),
}


@dataclass
class Run:
    """One pass. Nothing is dropped."""

    arrays: Mapping[str, Array]
    heads: list[Array] = field(default_factory=list)  # what the heads put out
    statistics: dict[str, Array] = field(default_factory=dict)  # the batch's own, by the name of the running ones

    def chain(self, chain: Chain, x: Array) -> Array:
        """Run operations one after the other on x (N, C, H, W) or (N, C)."""
        for item in chain:
            x = self.item(item, x)
        return x

    def item(self, item: Item, x: Array) -> Array:
        """Run one."""
        if isinstance(item, Side):
            self.heads.append(self.chain(item.chain, x))
            return x
        if isinstance(item, Fork):
            return joined(item.joint, [self.chain(branch, x) for branch in item.branches])
        return _OPERATIONS[type(item.op)](self, item, x)

    def role(self, step: Step, role: str) -> Array | None:
        """An array of a step; None where it has none of that role."""
        name = step.arrays.get(role)
        return None if name is None else self.arrays[name]

    def convolution(self, step: Step, x: Array) -> Array:
        """Each group of channels apart; a dilated kernel has zeros in between."""
        op, weight, bias = step.op, self.arrays[step.arrays["weight"]], self.role(step, "bias")
        if op.dilation != (1, 1):
            spread = np.zeros((*weight.shape[:2], *op.sides), weight.dtype)
            spread[:, :, :: op.dilation[0], :: op.dilation[1]] = weight
            weight = spread
        groups = zip(np.split(x, op.groups, 1), np.split(weight, op.groups), strict=True)
        y = np.concatenate([reference.convolution(x, w, None, op.stride, op.pad)[0] for x, w in groups], axis=1)
        return y if bias is None else y + bias[:, None, None]

    def linear(self, step: Step, x: Array) -> Array:
        """A dense layer; a 1 x 1 convolution's kernel serves as well. One pixel stays one."""
        weight, pixel = self.arrays[step.arrays["weight"]], (1,) * (x.ndim - 2)
        y = reference.dense(flat(x), weight.reshape(len(weight), -1), self.role(step, "bias"))[0]
        return y.reshape(*y.shape, *pixel) if x.shape[2:] == pixel else y

    def norm(self, step: Step, x: Array) -> Array:
        """Batch norm."""
        shape = x.shape
        x = x.reshape(*shape, *[1] * (4 - x.ndim))
        mean, var, weight, bias = (  # textbooks' have axes one number long beside the channels
            None if (array := self.role(step, role)) is None else array.reshape(-1)
            for role in ("mean", "var", "weight", "bias")
        )
        if step.op.of_batch or mean is None or var is None:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.statistics |= {step.arrays[r]: a for r, a in (("mean", mean), ("var", var)) if r in step.arrays}
        weight = np.ones_like(mean) if weight is None else weight
        bias = np.zeros_like(mean) if bias is None else bias
        return reference.batch_norm(x, weight, bias, mean, var, step.op.epsilon, of_batch=False)[0].reshape(shape)

    def average(self, step: Step, x: Array) -> Array:
        """Means of windows."""
        op = step.op
        rows, columns = map(reference.strided_windows, x.shape[2:], op.sides, op.strides, op.pads)
        return reference.average_pool(x, rows, columns, op.sides if op.count_pad else (None, None))[0]


def _adaptive(run: Run, step: Step, x: Array) -> Array:
    rows, columns = (reference.adaptive_windows(size, step.op.side) for size in x.shape[2:])
    return reference.average_pool(x, rows, columns)[0]


def _activation(run: Run, step: Step, x: Array) -> Array:
    if step.op.kind not in ACTIVATIONS:
        raise NotUnderstood(f"the activation {step.op.kind} at {step.place}")
    return ACTIVATIONS[step.op.kind](x, step.op.slope)


def _padding(run: Run, step: Step, x: Array) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *step.op.pad), constant_values=step.op.value)


def _flatten(run: Run, step: Step, x: Array) -> Array:
    return (x.transpose(0, 2, 3, 1) if step.op.last else x).reshape(len(x), -1)


def _softmax(run: Run, step: Step, x: Array) -> Array:
    shifted = x - x.max(1, keepdims=True)
    logarithms: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logarithms if step.op.log else np.exp(logarithms)


def _as_it_is(run: Run, step: Step, x: Array) -> Array:
    return x


def _max_pool(run: Run, step: Step, x: Array) -> Array:
    return reference.max_pool(x, step.op)[0]


def _bordered_max_pool(run: Run, step: Step, x: Array) -> Array:
    op = step.op
    return reference.max_pool(np.pad(x, ((0, 0), (0, 0), *op.pads)), MaxPool(op.kernel, op.stride, ceil=op.ceil))[0]


def _local_response_norm(run: Run, step: Step, x: Array) -> Array:
    return reference.local_response_norm(x, step.op)[0]


def _scale(run: Run, step: Step, x: Array) -> Array:
    y: Array = step.op.factor * x + step.op.shift
    return y


_OPERATIONS: dict[type, Callable[[Run, Any, Array], Array]] = {
    Activation: _activation,
    AdaptiveAverage: _adaptive,
    AveragePool: Run.average,
    BorderedMaxPool: _bordered_max_pool,
    Convolution: Run.convolution,
    Dropout: _as_it_is,
    Flatten: _flatten,
    LRN: _local_response_norm,
    Linear: Run.linear,
    MaxPool: _max_pool,
    Norm: Run.norm,
    Padding: _padding,
    Scale: _scale,
    Softmax: _softmax,
}


def joined(joint: Concat | Add, branches: Sequence[Array]) -> Array:
    """The sum of branches, or all their channels."""
    y: Array = sum(branches[1:], branches[0]) if isinstance(joint, Add) else np.concatenate(branches, axis=1)
    return y


def flat(x: Array) -> Array:
    """One row of numbers for each image."""
    return x.reshape(len(x), -1)
