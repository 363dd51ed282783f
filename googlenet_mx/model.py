"""GoogLeNet as Gluon hybrid blocks. Memory layout (N, C, H, W); attribute names are the canonical names.

Source: Szegedy et al. 2015, Table 1; every number is held against `spec.param_shapes` and `spec.reference`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, nn

import spec
from googlenet_mx.device import select_device, select_dtype
from googlenet_mx.params import load_params
from spec.network import AUX_POOL_KERNEL, AUX_POOL_STRIDE, BRANCH_POOL

# A graph keeps the memory that it computes in, as the last shape needed it. New memory for every step costs 50,000 page
# faults, and 8 % of the time at 96 pixels and 128 images. Another shape is fine, and costs one new plan.
STATIC = {"static_alloc": True, "static_shape": True}


def relu(F, x):
    """The larger of x and 0, by oneDNN. `F.relu` is not, and changes the layout twice: 1.6 times as slow."""
    return F.Activation(x, act_type="relu")


def max_pool(F, x, pool: spec.Pool):
    """Largest value of each window; minus infinity outside the image."""
    if pool.ceil:
        # Rounding up is rounding down with stride - 1 more pixels below and to the right. MXNet's own "full"
        # convention refuses windows larger than the map.
        edge = pool.stride - 1
        x = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, edge, 0, edge), constant_value=float("-inf"))
    sides = [(n, n) for n in (pool.kernel, pool.stride, pool.pad)]
    return F.Pooling(x, kernel=sides[0], stride=sides[1], pad=sides[2], pool_type="max")


class BatchNorm(nn.BatchNorm):
    """Batch norm that leaves the running statistics to `update`, and offers the batch's for it.

    With momentum 1 MXNet's operator never changes the running statistics. It would do so during the backward pass,
    with the biased variance on a CPU and the unbiased one on a GPU.
    """

    def __init__(self, channels: int, settings: spec.BatchNorm) -> None:
        super().__init__(momentum=1, epsilon=settings.epsilon, in_channels=channels)
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
        count = size.astype(mean.dtype) / mean.size
        biased = 1 / inverse_std**2 - self.settings.epsilon
        for running, new in ((self.running_mean, mean), (self.running_var, biased * (count / (count - 1)))):
            running.set_data((1 - m) * running.data() + m * new)


class Conv(nn.Conv2D):
    """Convolution, then batch norm where the preset has it, then ReLU unless told otherwise."""

    def __init__(
        self, config: spec.Config, into: int, out: int, kernel: int, *, stride: int = 1, pad: int = 0, relu: bool = True
    ) -> None:
        norm = config.batch_norm
        super().__init__(out, kernel, stride, pad, in_channels=into, use_bias=norm is None)
        self.norm = BatchNorm(out, norm) if norm else None
        self.relu = relu

    def hybrid_forward(self, F, x, weight, bias=None):
        x = super().hybrid_forward(F, x, weight, bias)
        if self.norm is not None:
            x = self.norm(x)
        return relu(F, x) if self.relu else x


class Dropout(HybridBlock):
    """Dropout of what it is not told to keep; told nothing, it keeps all. MXNet's own rounds its scale to float32."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def hybrid_forward(self, F, x, kept=None):
        return x if kept is None else x * kept / (1 - self.rate)

    def hybridize(self, active: bool = True, **kwargs) -> None:
        """No graph of its own: MXNet cannot differentiate one that returns what it is given."""


class Inception(HybridBlock):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, config: spec.Config, row: spec.Inception) -> None:
        super().__init__()
        conv, into, k = partial(Conv, config), row.in_channels, config.branch5x5_kernel
        self.branch1x1 = conv(into, row.branch1x1, 1)
        self.branch3x3_reduce = conv(into, row.branch3x3_reduce, 1)
        self.branch3x3 = conv(row.branch3x3_reduce, row.branch3x3, 3, pad=1)
        self.branch5x5_reduce = conv(into, row.branch5x5_reduce, 1)
        self.branch5x5 = conv(row.branch5x5_reduce, row.branch5x5, k, pad=k // 2)
        self.pool_proj = conv(into, row.pool_proj, 1)

    def hybrid_forward(self, F, x):
        return F.concat(
            *[
                self.branch1x1(x),
                self.branch3x3(self.branch3x3_reduce(x)),
                self.branch5x5(self.branch5x5_reduce(x)),
                self.pool_proj(max_pool(F, x, BRANCH_POOL)),
            ],
            dim=1,
        )


class AuxHead(HybridBlock):
    """A classifier on an early stage, used in training only."""

    def __init__(self, config: spec.Config, into: int) -> None:
        super().__init__()
        self.config = config
        self.conv = Conv(config, into, 128, 1)
        self.fc1 = nn.Dense(1024, in_units=128 * 4 * 4)
        self.dropout = Dropout(config.aux_dropout)
        self.fc2 = nn.Dense(config.num_classes, in_units=1024)

    def hybrid_forward(self, F, x, kept=None):
        if self.config.aux_adaptive:
            x = F.contrib.AdaptiveAvgPooling2D(x, output_size=4)  # 4 x 4 x channels
        else:
            kernel, stride = (AUX_POOL_KERNEL,) * 2, (AUX_POOL_STRIDE,) * 2
            x = F.Pooling(x, kernel=kernel, stride=stride, pool_type="avg")  # 4 x 4 x channels
        x = self.conv(x)  # 4 x 4 x 128
        x = F.flatten(x)  # 2048, in the order (C, H, W)
        x = relu(F, self.fc1(x))
        return self.fc2(self.dropout(x, kept))


class GoogLeNet(HybridBlock):
    """The network of a `spec.Config`, with the initial parameters of `spec.init_params(config, seed)`.

    In training mode (inside ``autograd.record()``) the auxiliary heads run as well. Dropout keeps what `masks` says
    (see `spec.dropout_masks`), or draws from MXNet's own generator (``mx.random.seed``).

    Args:
        config: From `spec.preset`.
        dtype: ``float32`` or ``float64``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters.

    Raises:
        spec.InvalidInput: for a device that is not there or an unknown dtype.
    """

    def __init__(self, config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> None:
        super().__init__()
        self.config = config
        conv, inception, head = partial(Conv, config), partial(Inception, config), partial(AuxHead, config)
        row, relu = config.inception, config.stem_relu
        self.conv1 = conv(config.in_channels, 64, 7, stride=2, pad=3)
        self.conv2_reduce = conv(64, 64, 1, relu=relu)
        self.conv2 = conv(64, 192, 3, pad=1, relu=relu)
        self.inception3a = inception(row("inception3a"))
        self.inception3b = inception(row("inception3b"))
        self.inception4a = inception(row("inception4a"))
        self.aux1 = head(row("inception4a").out_channels) if config.aux else None
        self.inception4b = inception(row("inception4b"))
        self.inception4c = inception(row("inception4c"))
        self.inception4d = inception(row("inception4d"))
        self.aux2 = head(row("inception4d").out_channels) if config.aux else None
        self.inception4e = inception(row("inception4e"))
        self.inception5a = inception(row("inception5a"))
        self.inception5b = inception(row("inception5b"))
        self.dropout = Dropout(config.dropout)
        self.fc = nn.Dense(config.num_classes, in_units=row("inception5b").out_channels)
        self.cast(select_dtype(dtype))
        self.initialize(ctx=select_device(device))
        load_params(self, spec.init_params(config, seed))
        self.hybridize(**STATIC)
        # Not a child: it holds the network, not the network it.
        object.__setattr__(self, "training_pass", TrainingPass(self))

    def layers(self, F, masks: Mapping | None = None) -> list[tuple[str, Callable]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        config, masks = self.config, masks or {}
        pool, pool4 = partial(max_pool, F, pool=config.pool), partial(max_pool, F, pool=config.pool4)
        lrn, aux = partial(self.lrn, F) if config.lrn else None, config.aux
        layers = [
            ("conv1", self.conv1),  # 112 x 112 x 64
            ("pool1", pool),  # 56 x 56 x 64
            ("norm1", lrn),  # 56 x 56 x 64
            ("conv2_reduce", self.conv2_reduce),  # 56 x 56 x 64
            ("conv2", self.conv2),  # 56 x 56 x 192
            ("norm2", lrn),  # 56 x 56 x 192
            ("pool2", pool),  # 28 x 28 x 192
            ("inception3a", self.inception3a),  # 28 x 28 x 256
            ("inception3b", self.inception3b),  # 28 x 28 x 480
            ("pool3", pool),  # 14 x 14 x 480
            ("inception4a", self.inception4a),  # 14 x 14 x 512
            ("aux1", (lambda x: self.aux1(x, masks.get("aux1"))) if aux else None),  # num_classes
            ("inception4b", self.inception4b),  # 14 x 14 x 512
            ("inception4c", self.inception4c),  # 14 x 14 x 512
            ("inception4d", self.inception4d),  # 14 x 14 x 528
            ("aux2", (lambda x: self.aux2(x, masks.get("aux2"))) if aux else None),  # num_classes
            ("inception4e", self.inception4e),  # 14 x 14 x 832
            ("pool4", pool4),  # 7 x 7 x 832
            ("inception5a", self.inception5a),  # 7 x 7 x 832
            ("inception5b", self.inception5b),  # 7 x 7 x 1024
            ("pool5", partial(self.head_pool, F)),  # 1 x 1 x 1024
            ("fc", partial(self.classify, F, kept=masks.get("fc"))),  # num_classes
        ]
        return [(name, layer) for name, layer in layers if layer is not None]

    def stages(self, F, x, *, heads: bool, masks: Mapping | None = None) -> Iterator[tuple]:
        """Every stage's name and output, in forward order; the auxiliary heads if asked for."""
        for name, layer in self.layers(F, masks):
            if name not in ("aux1", "aux2"):
                yield name, (x := layer(x))
            elif heads:
                yield name, layer(x)

    def forward(self, x, masks: Mapping | None = None) -> spec.Outputs:
        """Images (N, C, H, W) to logits (N, num_classes); in training mode the auxiliary logits too."""
        if not autograd.is_training():
            return spec.Outputs(super().forward(x))
        ends, statistics = self.training_pass(x, *self.training_pass.kept(x, masks or {}))
        with autograd.pause():
            for norm, batch in zip(self.training_pass.norms(), statistics, strict=True):
                norm.update(*batch)
        return self.training_pass.outputs(ends)

    def hybrid_forward(self, F, x):
        return dict(self.stages(F, x, heads=False))["fc"]

    def _build_cache(self, *args) -> None:
        with warnings.catch_warnings():
            # The heads' parameters are not used in this graph, and that is intended.
            warnings.filterwarnings("ignore", "Parameter .* not used by any computation", UserWarning)
            super()._build_cache(*args)

    def lrn(self, F, x):
        """Local response normalization, written out: MXNet's operator cannot compute in float64."""
        lrn = self.config.lrn
        channels = F.reshape(x**2, shape=(0, -4, 1, -1, -3))  # N x 1 x C x HW: the channels as the rows of a map
        mean = F.Pooling(channels, kernel=(lrn.size, 1), pad=(lrn.size // 2, 0), pool_type="avg")
        return x * (lrn.k + lrn.alpha * F.reshape_like(mean, x)) ** -lrn.beta

    def head_pool(self, F, x):
        """The average before the classifier: the whole map, or one window of `head_pool` pixels."""
        side = self.config.head_pool
        if side is None:
            return F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg")
        return F.Pooling(x, kernel=(side, side), stride=(side, side), pool_type="avg")

    def classify(self, F, x, kept=None):
        """Dropout and the dense layer on the averaged map."""
        return self.fc(self.dropout(F.flatten(x), kept))


class TrainingPass(HybridBlock):
    """The graph of a training pass: the logits of every head, and what every batch norm saw of the batch."""

    def __init__(self, network: GoogLeNet) -> None:
        super().__init__()
        self.network = network
        config = network.config
        aux = config.aux_dropout if config.aux else 0.0
        rates = {"fc": config.dropout, "aux1": aux, "aux2": aux}
        self.rates = {head: rate for head, rate in rates.items() if rate > 0}
        self.hybridize(**STATIC)

    def kept(self, x, masks: Mapping) -> list:
        """For every head that drops its mask, drawn here where none is given."""
        shapes = spec.mask_shapes(self.network.config, len(x))
        return [
            masks[head] if head in masks else nd.random.uniform(shape=shapes[head], dtype=x.dtype, ctx=x.ctx) >= rate
            for head, rate in self.rates.items()
        ]

    def norms(self) -> list[BatchNorm]:
        """Every batch norm of the network, always in the same order."""
        found: list[BatchNorm] = []
        self.network.apply(lambda block: found.append(block) if isinstance(block, BatchNorm) else None)
        return found

    def hybrid_forward(self, F, x, *kept):
        stages = self.network.stages(F, x, heads=True, masks=dict(zip(self.rates, kept, strict=True)))
        ends = [y for name, y in stages if name in ("aux1", "aux2", "fc")]
        return ends, [norm.batch_statistics for norm in self.norms()]

    @staticmethod
    def outputs(ends: list) -> spec.Outputs:
        """The logits by name: the pass yields them in forward order, the classifier's last."""
        *aux, logits = ends
        return spec.Outputs(logits, *aux)
