"""Plain sequences as PyTorch modules: LeNet, AlexNet, VGG, NiN. Attribute names are the canonical names.

Source: `spec.sequences`; every number is held against `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec
from googlenet_pt.network import Dropout, Layer, Network, max_pool
from spec.sequences import GlobalAverage, MaxPool, Row

ACTIVATIONS: dict[str | None, Callable[[Tensor], Tensor]] = {
    None: nn.Identity(),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


class WrittenOutNorm(nn.Module):
    """Batch norm in array operations, of maps and of dense layers' outputs alike."""

    def __init__(self, channels: int, settings: spec.BatchNorm) -> None:
        super().__init__()
        self.settings = settings
        self.weight = nn.Parameter(torch.ones(channels)) if settings.affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if settings.affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        computed, x = x.dtype, x.to(self.running_mean.dtype)  # bfloat16 has too few digits for a variance
        axes, shape = (0, *range(2, x.dim())), (1, -1, *[1] * (x.dim() - 2))
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean = x.mean(axes)
            var = ((x - mean.reshape(shape)) ** 2).mean(axes)
            m, count = self.settings.momentum, x.numel() // x.shape[1]
            correction = count / (count - 1) if self.settings.unbiased else 1
            with torch.no_grad():
                self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
                self.running_var.copy_((1 - m) * self.running_var + m * correction * var)
        x = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + self.settings.epsilon)
        if self.weight is not None:
            x = self.weight.reshape(shape) * x + self.bias.reshape(shape)
        return x.to(computed)


def batch_norm(layer: spec.Layer) -> nn.Module | None:
    """What follows the layer, if anything does: PyTorch's own, or the one written out."""
    norm = layer.norm
    if norm is None:
        return None
    if norm.written_out:
        return WrittenOutNorm(layer.out_channels, norm)
    kind = nn.BatchNorm1d if layer.kernel is None else nn.BatchNorm2d
    return kind(layer.out_channels, norm.epsilon, norm.momentum, norm.affine)


class ConvLayer(nn.Conv2d):
    """Convolution, then batch norm where the preset has it, then the activation."""

    def __init__(self, layer: spec.Layer) -> None:
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.pad)
        self.norm, self.activation = batch_norm(layer), ACTIVATIONS[layer.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return self.activation(x if self.norm is None else self.norm(x))


class DenseLayer(nn.Linear):
    """Dense layer on a map as (C, H, W), then batch norm where the preset has it, then the activation."""

    def __init__(self, layer: spec.Layer) -> None:
        super().__init__(layer.in_channels, layer.out_channels)
        self.norm, self.activation = batch_norm(layer), ACTIVATIONS[layer.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(torch.flatten(x, 1))
        return self.activation(x if self.norm is None else self.norm(x))


class Sequence(Network):
    """The network of a `spec.SequenceConfig`; the rest is as `Network` says."""

    config: spec.SequenceConfig
    takes = spec.SequenceConfig

    def add_layers(self) -> None:
        """A module for every row that has weights."""
        self.dropout = Dropout(self.config.dropout)
        for layer in spec.layers(self.config):
            setattr(self, layer.name, (DenseLayer if layer.kernel is None else ConvLayer)(layer))

    def layers(self, masks: Mapping[str, Tensor] | None = None) -> list[tuple[str, Layer]]:
        """Every row's name and what computes it, in forward order."""
        masks = masks or {}
        return [(row.name, self._layer(row, masks.get(row.name))) for row in self.config.rows]

    def _layer(self, row: Row, kept: Tensor | None) -> Layer:
        if isinstance(row, MaxPool):
            return partial(max_pool, pool=row.pool)
        if isinstance(row, GlobalAverage):
            return lambda x: x.mean((2, 3))
        layer = getattr(self, row.name)
        return (lambda x: layer(self.dropout(x, kept))) if row.drop else layer
