"""Layers as PyTorch modules, each made from the `spec.Node` that it computes. Arrays are (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec

# In place: at 96 pixels a training step is 1.2 times as fast.
ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: nn.Identity(),
    "relu": partial(F.relu, inplace=True),
    "sigmoid": torch.sigmoid,
}


class Dropout(nn.Dropout):
    """Dropout that can be told what to keep; otherwise PyTorch's generator decides."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(x) if mask is None else x * mask / (1 - self.p)


class BiasedNorm(nn.Module):
    """Batch norm that stores the biased running variance; PyTorch's own stores the unbiased one."""

    def __init__(self, channels: int, settings: spec.BatchNorm) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.ones(channels)) if settings.scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if settings.shift else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        computed, x = x.dtype, x.to(self.running_mean.dtype)  # bfloat16 has too few digits for a variance
        axes, shape = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean = x.mean(axes)
            var = ((x - mean.reshape(shape)) ** 2).mean(axes)
            m = self.settings.momentum
            with torch.no_grad():
                self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
                self.running_var.copy_((1 - m) * self.running_var + m * var)
        x = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + self.settings.epsilon)
        if self.weight is not None:
            x = self.weight.reshape(shape) * x
        if self.bias is not None:
            x = x + self.bias.reshape(shape)
        return x.to(computed)


def batch_norm(node: spec.Node) -> nn.Module | None:
    """The layer's batch norm, if it has one."""
    norm = node.norm
    if norm is None:
        return None
    if not norm.unbiased:
        return BiasedNorm(node.out_channels, norm)
    kind = nn.BatchNorm1d if node.is_dense else nn.BatchNorm2d
    made = kind(node.out_channels, norm.epsilon, norm.momentum)
    if not norm.scale:
        made.weight = None
    if not norm.shift:
        made.bias = None
    return made


class Conv(nn.Conv2d):
    """Dropout, convolution, batch norm and activation: those that the node has."""

    def __init__(self, node: spec.Node) -> None:
        op = node.op
        channels = node.in_channels, node.out_channels
        super().__init__(*channels, op.sides, op.strides, op.symmetric_pads, bias=node.has_bias)
        self.dropout = None if node.dropout is None else Dropout(node.dropout)
        self.norm = batch_norm(node)
        self.activation = op.activation

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.dropout is not None:
            x = self.dropout(x, mask)
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](x)


class Dense(nn.Linear):
    """Dropout, dense layer, batch norm and activation, on all values of a map in the order (C, H, W)."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__(node.in_channels, node.out_channels, bias=node.has_bias)
        self.dropout = None if node.dropout is None else Dropout(node.dropout)
        self.norm = batch_norm(node)
        self.activation = node.op.activation

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = torch.flatten(x, 1)  # in the order (C, H, W)
        if self.dropout is not None:
            x = self.dropout(x, mask)
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](x)


class MaxPool(nn.Module):
    """Largest value of each window; minus infinity outside the image."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op, self.pads = node.op, node.op.symmetric_pads

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.op.sides, self.op.strides, self.pads, ceil_mode=self.op.ceil)


class AveragePool(nn.Module):
    """Mean of each window, or of what covers the map."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op = node.op

    def forward(self, x: Tensor) -> Tensor:
        op = self.op
        if isinstance(op, spec.GlobalAverage):
            return x.mean((2, 3))
        if isinstance(op, spec.AdaptiveAverage):
            return F.adaptive_avg_pool2d(x, op.side)
        return F.avg_pool2d(x, op.sides, op.strides, op.symmetric_pads, count_include_pad=op.count_pad)


class LRN(nn.Module):
    """Local response normalization; PyTorch divides alpha by the size as Caffe does."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op = node.op

    def forward(self, x: Tensor) -> Tensor:
        lrn = self.op
        return F.local_response_norm(x, lrn.size, lrn.alpha, lrn.beta, lrn.k)
