"""Layers as Gluon blocks, each made from the `spec.Node` that it computes. Arrays are (N, C, H, W)."""

from __future__ import annotations

from collections.abc import Callable

from mxnet.gluon import HybridBlock, nn

import spec


def relu(F, x):
    """The larger of x and 0, by oneDNN. `F.relu` is not, and changes the layout twice: 1.6 times as slow."""
    return F.Activation(x, act_type="relu")


ACTIVATIONS: dict[str | None, Callable] = {
    None: lambda F, x: x,
    "relu": relu,
    "sigmoid": lambda F, x: F.sigmoid(x),
}


class Dropout(HybridBlock):
    """Dropout of what it is not told to keep; without a mask the identity. MXNet's own rounds its scale to float32."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def hybrid_forward(self, F, x, mask=None):
        return x if mask is None else x * mask / (1 - self.rate)

    def hybridize(self, active: bool = True, **kwargs) -> None:
        """Do nothing: MXNet cannot differentiate a graph that returns its input."""


class BatchNorm(nn.BatchNorm):
    """Batch norm that leaves the running statistics to `update`, and offers the batch's for it.

    With momentum 1 MXNet's operator never changes the running statistics. It would do so during the backward pass,
    with the biased variance on a CPU and the unbiased one on a GPU.
    """

    def __init__(self, channels: int, settings: spec.BatchNorm) -> None:
        learned = {"scale": settings.scale, "center": settings.shift}
        super().__init__(momentum=1, epsilon=settings.epsilon, in_channels=channels, **learned)
        self.settings = settings
        self.batch_statistics = None  # of the last call, for `update`

    def hybrid_forward(self, F, x, gamma, beta, running_mean, running_var):
        y, mean, inverse_std = F.BatchNorm(
            x, gamma, beta, running_mean, running_var, output_mean_var=True, name="fwd", **self._kwargs
        )
        self.batch_statistics = mean, inverse_std, F.size_array(x)
        return y

    def update(self, mean, inverse_std, size) -> None:
        """Move the running statistics towards a batch's.

        Args:
            mean: (channels,).
            inverse_std: (channels,), 1 / sqrt(biased variance + epsilon).
            size: (1,), number of values in the batch, all channels together.
        """
        m = self.settings.momentum
        var = 1 / inverse_std**2 - self.settings.epsilon
        if self.settings.unbiased:
            count = size.astype(mean.dtype) / mean.size
            var = var * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            running.set_data((1 - m) * running.data() + m * new)


class Conv(nn.Conv2D):
    """Dropout, convolution, batch norm and activation: those that the node has."""

    def __init__(self, node: spec.Node) -> None:
        op = node.op
        window = op.sides, op.strides, op.symmetric_pads
        super().__init__(node.out_channels, *window, in_channels=node.in_channels, use_bias=node.has_bias)
        self.dropout = None if node.dropout is None else Dropout(node.dropout)
        self.norm = BatchNorm(node.out_channels, node.norm) if node.norm else None
        self.activation = op.activation

    def hybrid_forward(self, F, x, mask=None, *, weight, bias=None):
        if self.dropout is not None:
            x = self.dropout(x, mask)
        x = super().hybrid_forward(F, x, weight, bias)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](F, x)


class Dense(nn.Dense):
    """Dropout, dense layer, batch norm and activation, on all values of a map in the order (C, H, W)."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__(node.out_channels, in_units=node.in_channels, use_bias=node.has_bias)
        self.dropout = None if node.dropout is None else Dropout(node.dropout)
        self.norm = BatchNorm(node.out_channels, node.norm) if node.norm else None
        self.activation = node.op.activation

    def hybrid_forward(self, F, x, mask=None, *, weight, bias=None):
        x = F.flatten(x)  # in the order (C, H, W)
        if self.dropout is not None:
            x = self.dropout(x, mask)
        x = super().hybrid_forward(F, x, weight, bias)
        if self.norm is not None:
            x = self.norm(x)
        return ACTIVATIONS[self.activation](F, x)


class MaxPool(HybridBlock):
    """Largest value of each window; minus infinity outside the image."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op, self.pads = node.op, node.op.symmetric_pads

    def hybrid_forward(self, F, x):
        op = self.op
        if op.ceil:
            # Rounding up is rounding down with stride - 1 more pixels below and to the right. MXNet's own "full"
            # convention refuses windows larger than the map.
            below, right = (stride - 1 for stride in op.strides)
            x = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, below, 0, right), constant_value=float("-inf"))
        return F.Pooling(x, kernel=op.sides, stride=op.strides, pad=self.pads, pool_type="max")


class AveragePool(HybridBlock):
    """Mean of each window, or of what covers the map."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op = node.op

    def hybrid_forward(self, F, x):
        op = self.op
        if isinstance(op, spec.GlobalAverage):
            return F.mean(x, axis=(2, 3))
        if isinstance(op, spec.AdaptiveAverage) and op.side == 1:
            return F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg")
        if isinstance(op, spec.AdaptiveAverage):
            return F.contrib.AdaptiveAvgPooling2D(x, output_size=op.side)
        window = {"kernel": op.sides, "stride": op.strides, "pad": op.symmetric_pads}
        return F.Pooling(x, **window, pool_type="avg", count_include_pad=op.count_pad)


class LRN(HybridBlock):
    """Local response normalization, written out: MXNet's operator cannot compute in float64."""

    def __init__(self, node: spec.Node) -> None:
        super().__init__()
        self.op = node.op

    def hybrid_forward(self, F, x):
        lrn = self.op
        channels = F.reshape(x**2, shape=(0, -4, 1, -1, -3))  # N x 1 x C x HW: the channels as the rows of a map
        mean = F.Pooling(channels, kernel=(lrn.size, 1), pad=(lrn.size // 2, 0), pool_type="avg")
        return x * (lrn.k + lrn.alpha * F.reshape_like(mean, x)) ** -lrn.beta
