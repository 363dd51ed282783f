"""What every network is in Gluon: stages, one after the other. Memory layout (N, C, H, W)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping

from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, nn

import spec
from googlenet_mx.device import select_device, select_dtype
from googlenet_mx.params import load_params

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
        learned = settings.affine
        super().__init__(momentum=1, epsilon=settings.epsilon, center=learned, scale=learned, in_channels=channels)
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


class Dropout(HybridBlock):
    """Dropout of what it is not told to keep; told nothing, it keeps all. MXNet's own rounds its scale to float32."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def hybrid_forward(self, F, x, kept=None):
        return x if kept is None else x * kept / (1 - self.rate)

    def hybridize(self, active: bool = True, **kwargs) -> None:
        """No graph of its own: MXNet cannot differentiate one that returns what it is given."""


class Graph(HybridBlock):
    """A block whose graph need not use all of its parameters: inference has no heads, training no statistics."""

    def _build_cache(self, *args) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Parameter .* not used by any computation", UserWarning)
            super()._build_cache(*args)


class Network(Graph):
    """A network of a `spec.Config`, with the initial parameters of `spec.init_params(config, seed)`.

    In training mode (inside ``autograd.record()``) the auxiliary heads run as well, where there are some. Dropout keeps
    what `masks` says (see `spec.dropout_masks`), or draws from MXNet's own generator (``mx.random.seed``).

    Args:
        config: From `spec.preset`.
        dtype: ``float32`` or ``float64``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
        seed: Of the initial parameters.

    Raises:
        spec.InvalidInput: for a device that is not there, an unknown dtype, or a network of the other kind.
    """

    takes: type[spec.Config]

    def __init__(self, config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> None:
        if not isinstance(config, self.takes):
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        super().__init__()
        self.config = config
        self.add_layers()
        self.cast(select_dtype(dtype))
        self.initialize(ctx=select_device(device))
        load_params(self, spec.init_params(config, seed))
        self.hybridize(**STATIC)
        # Not a child: it holds the network, not the network it. Nor is what is a child's already, and slow to look up.
        object.__setattr__(self, "training_pass", TrainingPass(self))
        object.__setattr__(self, "_first", next(iter(self.collect_params().values())))

    def add_layers(self) -> None:
        """Make every layer that has weights or drops, by its canonical name."""
        raise NotImplementedError

    def layers(self, F, masks: Mapping | None = None) -> list[tuple[str, Callable]]:
        """Every stage's name and what computes it, in forward order; ``aux1`` and ``aux2`` lie beside the trunk."""
        raise NotImplementedError

    @property
    def parameter(self) -> nd.NDArray:
        """One of them: its dtype and device are the images'."""
        return self._first.data()

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
        return dict(self.stages(F, x, heads=False))[self.config.logits]


class TrainingPass(Graph):
    """The graph of a training pass: the logits of every head, and what every batch norm saw of the batch."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.rates = spec.dropout_rates(network.config)
        self.hybridize(**STATIC)

    def kept(self, x, masks: Mapping) -> list:
        """For every stage that drops its mask, drawn here where none is given."""
        shapes = spec.mask_shapes(self.network.config, x.shape) if self.rates else {}
        return [
            masks[stage] if stage in masks else nd.random.uniform(shape=shapes[stage], dtype=x.dtype, ctx=x.ctx) >= rate
            for stage, rate in self.rates.items()
        ]

    def norms(self) -> list[BatchNorm]:
        """Every batch norm of the network, always in the same order."""
        found: list[BatchNorm] = []
        self.network.apply(lambda block: found.append(block) if isinstance(block, BatchNorm) else None)
        return found

    def hybrid_forward(self, F, x, *kept):
        stages = self.network.stages(F, x, heads=True, masks=dict(zip(self.rates, kept, strict=True)))
        ends = [y for name, y in stages if name in ("aux1", "aux2", self.network.config.logits)]
        return ends, [norm.batch_statistics for norm in self.norms()]

    @staticmethod
    def outputs(ends: list) -> spec.Outputs:
        """The logits by name: the pass yields them in forward order, the classifier's last."""
        *aux, logits = ends
        return spec.Outputs(logits, *aux)
