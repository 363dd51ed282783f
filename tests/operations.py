"""One stage of a network alone, forward and backward: in the referee, and in every framework by the backend's code.

Arrays are NumPy's in float64, (N, C, H, W), and go by canonical names. The adapters have the same methods in the same
order, and hold nothing but what their framework wants to be asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from support import loaded

import spec
from harness.agreement import probe_params
from harness.backends.registry import load
from harness.backends.textbook import block_widths
from spec import Array, reference
from spec.network import Conv, Dense, MaxPool, Operation


class Stage(NamedTuple):
    """A stage of a network, what it reads, and the gradient of what it puts out."""

    config: spec.Config
    name: str
    params: dict[str, Array]  # the whole network's
    x: Array
    dy: Array
    kept: Array | None = None  # by dropout
    training: bool = True
    whole: bool = False  # all numbers are

    @property
    def masks(self) -> dict[str, Array]:
        return {} if self.kept is None else {self.name: self.kept}

    @property
    def images(self) -> spec.Shape:
        """Shape of the images that masks are checked against."""
        if self.config.family == "Small":
            return (*self.x.shape, 1, 1)[:4]
        return len(self.x), self.config.in_channels, self.config.input_size, self.config.input_size

    def owns(self, name: str) -> bool:
        """Whether the array of that canonical name is one of this stage's."""
        return name.split(".")[0] == self.name


@dataclass(frozen=True)
class Result:
    """What a stage computes; gradients in training only."""

    y: Array
    gradients: dict[str, Array] = field(default_factory=dict)  # of ``x`` and of the stage's parameters
    statistics: dict[str, Array] = field(default_factory=dict)  # the running ones, after it


# ---------------------------------------------------------------------------------------------------------- networks


def small(op: Operation, channels: int, size: int = 16, **settings: Any) -> spec.Config:
    """A network of this operation, ``one``, and of a last one."""
    last = Conv(None, norm=False) if isinstance(op, Conv | MaxPool) else Dense(None, activation=None)
    shape = {"in_channels": channels, "num_classes": 5, "input_size": size}
    rows = (("one", op), ("last", last))
    return spec.Config(preset="small", family="Small", source="tests", table=rows, **shape, **settings)


@lru_cache
def _params(config: spec.Config, dtype: str, whole: bool) -> dict[str, Array]:
    """Values that `dtype` has."""
    rng, params = np.random.default_rng(2), probe_params(config, 3)
    if whole:
        params = {name: rng.integers(-2, 3, x.shape) for name, x in params.items()}
    return {name: x.astype(dtype).astype(np.float64) for name, x in params.items()}


@lru_cache
def _small(package: str) -> type:
    """The class of `small` networks in a backend, made of its layers."""
    layers, network = (importlib.import_module(f"{package}.{module}") for module in ("layers", "network"))

    class Small(network.Network):  # type: ignore[name-defined]
        def __init__(self, config: spec.Config, **settings: Any) -> None:
            super().__init__(config)
            for node in spec.walk(config):
                kind = type(node.op).__name__
                layer = layers.AveragePool if "Average" in kind else getattr(layers, kind)
                setattr(self, node.name, layer(node))
            self.finish(**settings)

        def forward(self, x: Any, masks: Any, watch: Any) -> spec.Outputs:
            for stage in spec.stage_names(self.config):
                x = watch(stage, _with_mask(getattr(self, stage), masks.get(stage))(x))
            return spec.Outputs(x)

    return Small


def register(package: str) -> None:
    """Have the backend build `small` networks."""
    importlib.import_module(f"{package}.build").NETWORKS["Small"] = _small(package)


@lru_cache
def _loaded(package: str, config: spec.Config, dtype: str, whole: bool) -> Any:
    register(package)
    return loaded(importlib.import_module(package), config, _params(config, dtype, whole), dtype)


def _model(backend: ModuleType, stage: Stage, dtype: str) -> Any:
    """The network, with the running statistics that it began with."""
    model = _loaded(backend.__name__, stage.config, dtype, stage.whole)
    if stage.config.batch_norm:
        backend.load_params(model, stage.params)
    return model


# ------------------------------------------------------------------------------------------------------ the referee


def draw(
    config: spec.Config,
    name: str,
    shape: spec.Shape,
    *,
    whole: bool = False,
    dropout: bool = False,
    training: bool = True,
    dtype: str = "float64",
) -> Stage:
    """A stage with arrays for it, of values that `dtype` has.

    Args:
        config: The network.
        name: The stage's.
        shape: Of what it reads.
        whole: Draw small whole numbers, of which sums are exact and many tie or are 0.
        dropout: Give it a mask.
        training: In training mode.
        dtype: ``float32`` or ``float64``.
    """
    rng = np.random.default_rng(0)

    def values(*shape: int) -> Array:
        drawn = rng.integers(-2, 3, shape) if whole else rng.normal(size=shape)
        return drawn.astype(dtype).astype(np.float64)

    params = _params(config, dtype, whole)
    stage = Stage(config, name, params, values(*shape), np.zeros(()), training=training, whole=whole)
    if dropout:
        rates, shapes = spec.dropout_rates(config), spec.mask_shapes(config, stage.images)
        stage = stage._replace(kept=rng.random(shapes[name]) >= rates[name])
    _, y, _ = _forward(stage)
    return stage._replace(dy=values(*y.shape))


def in_referee(stage: Stage) -> Result:
    """What the stage computes by definition."""
    run, y, back = _forward(stage)
    statistics = {name: x for name, x in stage.params.items() if stage.owns(name) and spec.is_statistic(name)}
    if not stage.training:
        return Result(y, statistics=statistics)
    dx = back(stage.dy)
    return Result(y, {"x": dx, **run.grads}, statistics | run.statistics)


def _forward(stage: Stage) -> tuple[Any, Array, reference.Back]:
    nodes = [node for node in spec.walk(stage.config) if node.stage == stage.name]
    run = reference._Pass(stage.config, stage.params, stage.training, stage.masks)
    stages, backs = run.forward(nodes, stage.x)
    return run, stages[stage.name], lambda dy: reference.send_back(backs, {stage.name: dy})[nodes[0].reads[0]]


# ------------------------------------------------------------------------------------------------------- frameworks

QUICKLY = {"xla_backend_optimization_level": 0}  # how XLA compiles: these programs run once
BLOCK = {  # the textbooks' names of an Inception block's convolutions
    "p1_1": "branch1x1",
    "p2_1": "branch3x3_reduce",
    "p2_2": "branch3x3",
    "p3_1": "branch5x5_reduce",
    "p3_2": "branch5x5",
    "p4_2": "pool_proj",
}
Losses = tuple[Array, list[Array]]  # the loss, and its gradients with respect to the logits of each head


def _block(stage: Stage) -> dict[str, str]:
    """The textbooks' name of every array of the Inception block, by canonical name."""
    return {f"{stage.name}.{ours}.{leaf}": f"{p}.{leaf}" for p, ours in BLOCK.items() for leaf in ("weight", "bias")}


def _widths(stage: Stage) -> tuple[int, tuple[int, int], tuple[int, int], int]:
    """Of an Inception block, as the textbooks pass them."""
    return block_widths(spec.nodes(stage.config), stage.name)


def _statistics(stage: Stage, backend: ModuleType, model: Any) -> dict[str, Array]:
    """The stage's running statistics as they are now."""
    now = backend.dump_params(model) if stage.config.batch_norm else {}
    return {name: x for name, x in now.items() if stage.owns(name) and spec.is_statistic(name)}


def _outputs(config: spec.Config, logits: list[Any]) -> spec.Outputs:
    """Of the classifier's logits, and then those of the heads, which may be left out."""
    return spec.Outputs(logits[0], dict(zip(spec.head_names(config), logits[1:], strict=False)))


def _with_mask(layer: Callable[..., Any], kept: Any) -> Callable[[Any], Any]:
    return layer if kept is None else lambda x: layer(x, kept)


class PyTorch:
    """How PyTorch is asked."""

    def stage(self, stage: Stage, dtype: str) -> Result:
        """One stage of the network."""
        backend = load("pt")
        model = _model(backend, stage, dtype)
        model.train(stage.training).zero_grad()
        kept = backend.masks_to_device(model, stage.masks)
        layer, trained = _with_mask(getattr(model, stage.name), kept.get(stage.name)), dict(model.named_parameters())
        result = self._run(layer, {name: x for name, x in trained.items() if stage.owns(name)}, stage, dtype)
        return replace(result, statistics=_statistics(stage, backend, model))

    def textbook_block(self, stage: Stage, dtype: str) -> Result:
        """The textbook's Inception block in the place of the network's."""
        import torch

        from googlenet_pt.textbook import Inception

        block = Inception(stage.x.shape[1], *_widths(stage)).to(getattr(torch, dtype))
        native = dict(block.named_parameters())
        trained = {name: native[theirs] for name, theirs in _block(stage).items()}
        for name, x in trained.items():
            x.data.copy_(torch.tensor(stage.params[name]))
        return self._run(block, trained, stage, dtype)

    def _run(self, layer: Callable[[Any], Any], trained: dict[str, Any], stage: Stage, dtype: str) -> Result:
        import torch

        x, dy = (torch.tensor(a, dtype=getattr(torch, dtype)) for a in (stage.x, stage.dy))
        y = layer(x.requires_grad_())
        if not stage.training:
            return Result(y.detach().numpy())
        (y * dy).sum().backward()  # `y.backward(dy)` would import SymPy, for three seconds
        return Result(y.detach().numpy(), {name: p.grad.numpy() for name, p in {"x": x, **trained}.items()})

    def loss(self, config: spec.Config, logits: list[Array], labels: Array, dtype: str) -> Losses:
        """The loss of the logits of every head, the classifier's first."""
        import torch

        from googlenet_pt.train import loss

        outputs = [torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True) for x in logits]
        value = loss(config, _outputs(config, outputs), torch.tensor(labels))
        value.backward()
        return value.detach().numpy(), [x.grad.numpy() for x in outputs]


class MXNet:
    """How MXNet is asked."""

    def stage(self, stage: Stage, dtype: str) -> Result:
        """One stage of the network, as a graph."""
        backend = load("mx")
        model = _model(backend, stage, dtype)
        from mxnet import autograd

        from googlenet_mx.layers import BatchNorm
        from googlenet_mx.network import STATIC, Graph
        from googlenet_mx.params import named_parameters

        class Alone(Graph):
            """The stage, and what its batch norms see of the batch: as `TrainingPass` has a whole network."""

            def __init__(self) -> None:
                super().__init__()
                self.part = getattr(model, stage.name)
                self.hybridize(**STATIC)

            def norms(self) -> list[BatchNorm]:
                found: list[BatchNorm] = []
                self.part.apply(lambda block: found.append(block) if isinstance(block, BatchNorm) else None)
                return found

            def hybrid_forward(self, F: Any, x: Any, *kept: Any) -> tuple[Any, list[Any]]:
                return self.part(x, *kept), [norm.batch_statistics for norm in self.norms()]

        kept = backend.masks_to_device(model, stage.masks)
        alone, seen = Alone(), []

        def layer(x: Any) -> Any:
            y, seen[:] = alone(x, *kept.values())
            return y

        trained = {name: x for name, x in named_parameters(model).items() if stage.owns(name)}
        result = self._run(layer, trained, stage, dtype)
        with autograd.pause():
            for norm, batch in zip(alone.norms() if stage.training else [], seen, strict=stage.training):
                norm.update(*batch)
        return replace(result, statistics=_statistics(stage, backend, model))

    def textbook_block(self, stage: Stage, dtype: str) -> Result:
        """The textbook's Inception block in the place of the network's."""
        load("mx")
        from mxnet import nd

        from googlenet_mx.textbook import Inception

        block = Inception(*_widths(stage))
        block.cast(dtype)
        block.initialize()
        block(nd.array(stage.x, dtype=dtype))  # now it knows its shapes
        native = block._collect_params_with_prefix()
        trained = {name: native[theirs] for name, theirs in _block(stage).items()}
        for name, x in trained.items():
            x.set_data(nd.array(stage.params[name], dtype=dtype))
        return self._run(block, trained, stage, dtype)

    def _run(self, layer: Callable[[Any], Any], trained: dict[str, Any], stage: Stage, dtype: str) -> Result:
        from mxnet import autograd, nd

        x, dy = (nd.array(a, dtype=dtype) for a in (stage.x, stage.dy))
        if not stage.training:
            with autograd.predict_mode():
                return Result(layer(x).asnumpy())
        x.attach_grad()
        with autograd.record():
            y = layer(x)
        y.backward(dy)
        grads = {name: p.grad().asnumpy() for name, p in trained.items() if p.grad_req != "null"}
        return Result(y.asnumpy(), {"x": x.grad.asnumpy(), **grads})

    def loss(self, config: spec.Config, logits: list[Array], labels: Array, dtype: str) -> Losses:
        """The loss of the logits of every head, the classifier's first."""
        load("mx")
        from mxnet import autograd, nd

        from googlenet_mx.train import loss

        outputs = [nd.array(x, dtype=dtype) for x in logits]
        for x in outputs:
            x.attach_grad()
        with autograd.record():
            value = loss(config, _outputs(config, outputs), nd.array(labels, dtype=dtype))
        value.backward()
        return value.asnumpy(), [x.grad.asnumpy() for x in outputs]


class JAX:
    """How JAX is asked; its own arrays are (N, H, W, C)."""

    def stage(self, stage: Stage, dtype: str, for_gpu: bool = False) -> Result:
        """One stage of the network, as one program; or the program that a GPU would get."""
        backend = load("jax")
        if for_gpu:
            from googlenet_jax import fast_cpu

            with mock.patch.object(fast_cpu, "make_fast"):
                model = loaded(backend, stage.config, stage.params, dtype)
        else:
            model = _model(backend, stage, dtype)
        from flax import nnx

        model.train() if stage.training else model.eval()
        kept = backend.masks_to_device(model, stage.masks)

        def own(path: tuple, leaf: Any) -> bool:
            return path[0] == stage.name

        # Of the network's hundreds of arrays only the stage's go through the program.
        definition, params, others = nnx.split(model, nnx.All(nnx.Param, own), ...)

        def forward(params: nnx.State, x: Any) -> tuple[Any, nnx.State]:
            model = nnx.merge(definition, params, others, copy=True)
            y = _with_mask(getattr(model, stage.name), kept.get(stage.name))(x)
            return y, nnx.state(model, nnx.All(nnx.BatchStat, own))

        result, statistics = self._run(forward, params, stage, dtype)
        nnx.update(model, statistics)
        return replace(result, statistics=_statistics(stage, backend, model))

    def textbook_block(self, stage: Stage, dtype: str) -> Result:
        """The textbook's Inception block in the place of the network's."""
        load("jax")
        from flax import nnx

        from googlenet_jax.device import select_dtype
        from googlenet_jax.params import canonical_name, to_jax
        from googlenet_jax.textbook import Inception

        def zeros(key: Any, shape: tuple, dtype: Any, *sharding: Any) -> Any:  # what draws would be compiled first
            return np.zeros(shape, dtype)

        how = {"dtype": select_dtype(dtype), "param_dtype": select_dtype(dtype), "rngs": nnx.Rngs(0)}
        conv = partial(nnx.Conv, kernel_init=zeros, bias_init=zeros, **how)
        definition, params = nnx.split(Inception(stage.x.shape[1], *_widths(stage), conv))
        names = _block(stage)
        native = {canonical_name(path): leaf for path, leaf in nnx.to_flat_state(params)}
        for name, theirs in names.items():
            native[theirs].value = to_jax(stage.params[name]).astype(dtype)
        result, _ = self._run(lambda params, x: (nnx.merge(definition, params)(x), None), params, stage, dtype)
        canonical = {theirs: name for name, theirs in names.items()}
        return replace(result, gradients={canonical.get(name, name): x for name, x in result.gradients.items()})

    def _run(self, forward: Callable, params: Any, stage: Stage, dtype: str) -> tuple[Result, Any]:
        import jax
        from flax import nnx

        from googlenet_jax.params import canonical_name, to_canonical

        x, dy = (_channels_last(a).astype(dtype) for a in (stage.x, stage.dy))
        if not stage.training:
            y, statistics = jax.jit(forward, compiler_options=QUICKLY)(params, x)
            return Result(_channels_first(y)), statistics

        @partial(jax.jit, compiler_options=QUICKLY)
        def both(params: nnx.State, x: Any, dy: Any) -> tuple:
            y, back, statistics = jax.vjp(forward, params, x, has_aux=True)
            return y, back(dy), statistics

        y, (grads, dx), statistics = both(params, x, dy)
        named = {canonical_name(path): to_canonical(leaf[...]) for path, leaf in nnx.to_flat_state(grads)}
        return Result(_channels_first(y), {"x": _channels_first(dx), **named}), statistics

    def loss(self, config: spec.Config, logits: list[Array], labels: Array, dtype: str) -> Losses:
        """The loss of the logits of every head, the classifier's first."""
        load("jax")
        import jax

        from googlenet_jax.device import select_dtype
        from googlenet_jax.train import loss

        outputs = [np.asarray(x, select_dtype(dtype)) for x in logits]
        compute = jax.jit(jax.value_and_grad(lambda outputs: loss(config, _outputs(config, outputs), labels)))
        value, grads = compute(outputs)
        return np.asarray(value), [np.asarray(x) for x in grads]


def _channels_last(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def _channels_first(x: Any) -> Array:
    return np.asarray(x).transpose(0, 3, 1, 2) if x.ndim == 4 else np.asarray(x)


ADAPTERS = {"googlenet_pt": PyTorch(), "googlenet_mx": MXNet(), "googlenet_jax": JAX()}
