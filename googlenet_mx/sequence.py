"""Plain sequences as Gluon hybrid blocks: LeNet, AlexNet, VGG, NiN. Attribute names are the canonical names.

Source: `spec.sequences`; every number is held against `spec.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mxnet import autograd
from mxnet.gluon import nn

import spec
from googlenet_mx.network import BatchNorm, Dropout, Network, max_pool, relu
from spec.sequences import GlobalAverage, MaxPool, Row

ACTIVATIONS: dict[str | None, Callable] = {
    None: lambda F, x: x,
    "relu": relu,
    "sigmoid": lambda F, x: F.sigmoid(x),
}


class WrittenOutNorm(BatchNorm):
    """Batch norm in array operations, of maps and of dense layers' outputs alike."""

    def __init__(self, channels: int, settings: spec.BatchNorm, *, of_maps: bool) -> None:
        super().__init__(channels, settings)
        self.shape = (1, -1, 1, 1) if of_maps else (1, -1)  # of what broadcasts over (N, channels, ...)

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        def each(values):
            return F.reshape(values, shape=self.shape)

        mean, var = running_mean, running_var
        if autograd.is_training():
            mean = F.mean(x, axis=1, exclude=True)
            var = F.mean(F.broadcast_sub(x, each(mean)) ** 2, axis=1, exclude=True)
        inverse_std = 1 / F.sqrt(var + self.settings.epsilon)
        self.batch_statistics = mean, inverse_std, F.size_array(x)
        x = F.broadcast_mul(F.broadcast_sub(x, each(mean)), each(inverse_std))
        return F.broadcast_add(F.broadcast_mul(x, each(gamma)), each(beta)) if self.settings.affine else x


def batch_norm(layer: spec.Layer) -> BatchNorm | None:
    """What follows the layer, if anything does: MXNet's own, or the one written out."""
    norm = layer.norm
    if norm is None:
        return None
    if norm.written_out:
        return WrittenOutNorm(layer.out_channels, norm, of_maps=layer.kernel is not None)
    return BatchNorm(layer.out_channels, norm)


class ConvLayer(nn.Conv2D):
    """Convolution, then batch norm where the preset has it, then the activation."""

    def __init__(self, layer: spec.Layer) -> None:
        window = (layer.kernel, layer.stride, layer.pad)
        super().__init__(layer.out_channels, *window, in_channels=layer.in_channels)
        self.norm, self.activation = batch_norm(layer), ACTIVATIONS[layer.activation]

    def hybrid_forward(self, F, x, weight, bias):
        x = super().hybrid_forward(F, x, weight, bias)
        return self.activation(F, x if self.norm is None else self.norm(x))


class DenseLayer(nn.Dense):
    """Dense layer on a map as (C, H, W), then batch norm where the preset has it, then the activation."""

    def __init__(self, layer: spec.Layer) -> None:
        super().__init__(layer.out_channels, in_units=layer.in_channels)
        self.norm, self.activation = batch_norm(layer), ACTIVATIONS[layer.activation]

    def hybrid_forward(self, F, x, weight, bias):
        x = super().hybrid_forward(F, x, weight, bias)
        return self.activation(F, x if self.norm is None else self.norm(x))


class Sequence(Network):
    """The network of a `spec.SequenceConfig`; the rest is as `Network` says."""

    config: spec.SequenceConfig
    takes = spec.SequenceConfig

    def add_layers(self) -> None:
        """A block for every row that has weights."""
        self.dropout = Dropout(self.config.dropout)
        for layer in spec.layers(self.config):
            setattr(self, layer.name, (DenseLayer if layer.kernel is None else ConvLayer)(layer))

    def layers(self, F, masks: Mapping | None = None) -> list[tuple[str, Callable]]:
        """Every row's name and what computes it, in forward order."""
        masks = masks or {}
        return [(row.name, self._layer(F, row, masks.get(row.name))) for row in self.config.rows]

    def _layer(self, F, row: Row, kept) -> Callable:
        if isinstance(row, MaxPool):
            return partial(max_pool, F, pool=row.pool)
        if isinstance(row, GlobalAverage):
            return lambda x: F.mean(x, axis=(2, 3))
        layer = getattr(self, row.name)
        return (lambda x: layer(self.dropout(x, kept))) if row.drop else layer
