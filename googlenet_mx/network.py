"""The base of every network in Gluon. Arrays are (N, C, H, W)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from mxnet import autograd, nd
from mxnet.gluon import Block, HybridBlock
from mxnet.ndarray import NDArray

import spec
from googlenet_mx.device import select_device, select_dtype
from googlenet_mx.layers import BatchNorm
from googlenet_mx.params import load_params

# A graph keeps the memory that it computes in, as the last shape needed it. New memory for every step costs 50,000 page
# faults, and 8 % of the time at 96 pixels and 128 images. Another shape is fine, and costs one new plan.
STATIC = {"static_alloc": True, "static_shape": True}

Masks = Mapping[str, NDArray]  # what dropout keeps, by stage
Watch = Callable[[str, NDArray], NDArray]  # takes every stage's name and output, and returns the output


def ignore(stage: str, x: NDArray) -> NDArray:
    """Watch nothing."""
    return x


class Network(Block):
    """A network of a `spec.Config`.

    In training mode (inside ``autograd.record()``) the auxiliary heads run as well, where there are some. Dropout keeps
    what `masks` says (see `spec.dropout_masks`), or draws from MXNet's own generator (``mx.random.seed``).
    """

    def __init__(self, config: spec.Config) -> None:
        if config.family != type(self).__name__:
            raise spec.InvalidInput(f"{type(self).__name__} is not the network of {config}: build(config) makes that")
        super().__init__()
        self.config = config

    def finish(
        self,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: spec.Arrays | None = None,
        *,
        tuned: bool = True,
    ) -> None:
        """Give the layers their dtype, device and parameters.

        Args:
            dtype: ``float32`` or ``float64``.
            device: ``auto`` (a GPU where there is one), ``cpu`` or ``gpu``.
            seed: Of `spec.init_params`, where no parameters are given.
            params: By canonical name.
            tuned: False leaves out everything that is there for speed.

        Raises:
            spec.InvalidInput: for a device that is not there, an unknown dtype, or parameters that do not fit.
        """
        self.cast(select_dtype(dtype))
        self.initialize(ctx=select_device(device))
        load_params(self, spec.init_params(self.config, seed) if params is None else params)
        # object.__setattr__ avoids Gluon's registration of children: the passes refer back to this network, and the
        # parameter, which is slow to look up, belongs to a layer already.
        object.__setattr__(self, "inference_pass", InferencePass(self))
        object.__setattr__(self, "training_pass", TrainingPass(self))
        object.__setattr__(self, "_first", next(iter(self.collect_params().values())))
        if tuned:
            self.compile()

    def compile(self) -> None:
        """Have graphs computed from now on, not operator by operator."""
        for block in (self, self.inference_pass, self.training_pass):
            block.hybridize(**STATIC)

    @property
    def parameter(self) -> NDArray:
        """Any parameter: its dtype and device are the images'."""
        return self._first.data()

    def runs_heads(self, watch: Watch) -> bool:
        """Whether the auxiliary heads run: in training, and where the stages are watched."""
        return self.config.aux and (autograd.is_training() or watch is not ignore)

    def __call__(self, x: NDArray, masks: Masks | None = None, watch: Watch = ignore) -> spec.Outputs:
        """Images (N, C, H, W) to logits (N, num_classes); in training mode those of the auxiliary heads too.

        As one graph, unless somebody watches the stages.
        """
        if watch is not ignore:
            return super().__call__(x, masks or {}, watch)
        if not autograd.is_training():
            return spec.Outputs(self.inference_pass(x))
        ends, statistics = self.training_pass(x, *self.training_pass.masks(x, masks or {}))
        with autograd.pause():
            for norm, batch in zip(self.training_pass.norms(), statistics, strict=True):
                norm.update(*batch)
        return self.training_pass.outputs(ends)


class Graph(HybridBlock):
    """A block whose graph need not use all of its parameters: inference has no heads, training no statistics."""

    def _build_cache(self, *args) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Parameter .* not used by any computation", UserWarning)
            super()._build_cache(*args)


class Pass(Graph):
    """A graph of a network's layers."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.config = network.config
        self.forward_network = network.forward
        for name, child in network._children.items():  # the graph takes their parameters
            self.register_child(child, name)


class InferencePass(Pass):
    """The graph of the logits."""

    def hybrid_forward(self, F, x):
        return self.forward_network(x, {}, ignore).logits


class TrainingPass(Pass):
    """The graph of a training pass: the logits of every head, and the batch's statistics in every batch norm."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.rates = spec.dropout_rates(network.config)

    def masks(self, x: NDArray, masks: Masks) -> list[NDArray]:
        """The mask of every stage that drops: the given one, or one drawn here."""
        shapes = spec.mask_shapes(self.config, x.shape) if self.rates else {}
        return [
            masks[stage] if stage in masks else nd.random.uniform(shape=shapes[stage], dtype=x.dtype, ctx=x.ctx) >= rate
            for stage, rate in self.rates.items()
        ]

    def norms(self) -> list[BatchNorm]:
        """Every batch norm of the network, always in the same order."""
        norms: list[BatchNorm] = []
        self.apply(lambda block: norms.append(block) if isinstance(block, BatchNorm) else None)
        return norms

    def hybrid_forward(self, F, x, *masks):
        logits, heads = self.forward_network(x, dict(zip(self.rates, masks, strict=True)), ignore)
        return [logits, *heads.values()], [norm.batch_statistics for norm in self.norms()]

    def outputs(self, ends: list) -> spec.Outputs:
        """The logits by name. The pass yields the classifier's first, then the heads' in forward order."""
        logits, *heads = ends
        return spec.Outputs(logits, dict(zip(spec.head_names(self.config), heads, strict=True)))
