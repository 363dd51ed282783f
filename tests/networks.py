"""Thin networks, and everything that a backend computes with one: in JAX by one compiled program.

A thin network has its preset's topology, kernels and pads, and a few channels in place of some hundred: how the layers
are wired shows in it as well, and it costs next to nothing. Widths are the spec's, which its own tests prove.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from support import loaded

import spec
from harness.agreement import probe_params
from harness.backends.process import Answer
from harness.compare.comparison import OPTIMIZER, Expected, expect
from harness.worker import probe
from spec import reference
from spec.network import Block, Conv, Dense, Operation

ABOUT = {"framework": "", "version": "", "device": "cpu", "threads": None}


def thin(preset: str, size: int | None = None, **settings: Any) -> spec.Config:
    """A preset with few channels.

    In every Inception block the 5x5 and the pool branch have equal widths, so that exchanging them changes no shape; no
    two blocks have the same widths otherwise.

    Args:
        preset: Its name.
        size: Side of the images in pixels, where dense layers after a map fix it; None for the preset's own.
        **settings: Of `spec.preset`.
    """
    config = spec.preset(preset, **{"num_classes": 10, **settings})
    if config.family != "GoogLeNet":
        table = tuple((name, _thin(op)) for name, op in config.table)
        return replace(config, table=table, input_size=size or config.input_size)
    blocks = [name for name, part in config.table if isinstance(part, Block)]
    widths = {
        name: {
            "branch1x1": 5 + i,
            "branch3x3_reduce": 3,
            "branch3x3": 7,
            "branch5x5_reduce": 2,
            "branch5x5": 4 + i % 3,
            "pool_proj": 4 + i % 3,
        }
        for i, name in enumerate(blocks)
    }
    return with_widths(config, lambda block, leaf, channels: widths[block][leaf])


def _thin(op: Operation) -> Operation:
    if isinstance(op, Conv | Dense) and op.channels is not None and op.channels > 16:
        return replace(op, channels=4 + op.channels // 64)
    return op


def with_widths(config: spec.Config, width: Callable[[str, str, int], int]) -> spec.Config:
    """The network with other channels in its blocks: of the block's name, the convolution's, and its own channels."""

    def of(stage: str, part: Block) -> Block:
        return Block(tuple(tuple((leaf, one(stage, leaf, op)) for leaf, op in branch) for branch in part.branches))

    def one(stage: str, leaf: str, op: Operation) -> Operation:
        return replace(op, channels=width(stage, leaf, op.channels)) if isinstance(op, Conv) else op

    table = tuple((name, of(name, part) if isinstance(part, Block) else part) for name, part in config.table)
    return replace(config, table=table)


def with_stages(config: spec.Config, **changed: Operation) -> spec.Config:
    """The network with other operations for some of its stages."""
    assert changed.keys() <= dict(config.table).keys()
    return replace(config, table=tuple((name, changed.get(name, part)) for name, part in config.table))


class Case(NamedTuple):
    """A thin network, the images that it sees, and whether JAX computes gradients too."""

    preset: str
    size: int
    batch: int
    backward_in_jax: bool = True
    dtype: str = "float64"

    def __str__(self) -> str:
        return f"{self.preset}-{self.size}-{self.batch}-{self.dtype}"


class Material(NamedTuple):
    """A network's configuration, parameters and inputs."""

    config: spec.Config
    params: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray


@cache
def material(case: Case) -> Material:
    """Parameters and inputs of a case, without dropout; do not change them."""
    config = thin(case.preset, case.size, dropout=0.0)
    shape = (config.in_channels, case.size, case.size)
    try:
        spec.stage_shapes(config, shape)
    except spec.InvalidInput:  # the auxiliary heads need larger images
        config = replace(config, aux=False)
    rng = np.random.default_rng(7)
    images = rng.normal(size=(case.batch, *shape)).astype(case.dtype)
    params = {name: x.astype(case.dtype) for name, x in probe_params(config, seed=3).items()}
    return Material(config, params, images, rng.integers(0, config.num_classes, case.batch))


@cache
def expected(case: Case) -> Expected:
    """What the referee computes."""
    return expect(*material(case))


def forward_only(backend: ModuleType, case: Case) -> bool:
    """Whether the answer has no gradients; its loss is then that of `masked_loss`."""
    return backend.__name__.endswith("jax") and not case.backward_in_jax


def _dropping(config: spec.Config) -> spec.Config:
    return replace(config, dropout=0.25, aux_dropout=0.5)


def _masks(config: spec.Config, images: np.ndarray) -> dict[str, np.ndarray]:
    return spec.dropout_masks(_dropping(config), images.shape, seed=11, step=0)


def masked_loss(case: Case) -> float:
    """The referee's training loss with dropout before the classifier and in the heads."""
    config, params, images, labels = material(case)
    return reference.loss_and_grads(_dropping(config), params, images, labels, _masks(config, images)).loss


def answer(backend: ModuleType, case: Case) -> Answer:
    """Everything that `googlenet compare` asks of a backend; without gradients if the case has none in JAX."""
    config, params, images, labels = material(case)
    if not forward_only(backend, case):
        return answer_of(backend, loaded(backend, config, params, case.dtype), images, labels)
    model = loaded(backend, _dropping(config), params, case.dtype)
    return answer_of(backend, model, images, labels, masks=_masks(config, images))


def answer_of(
    backend: ModuleType,
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    masks: dict[str, np.ndarray] | None = None,
) -> Answer:
    """The same of a model, which is trained for one step. With masks, and in JAX only, there is no backward pass."""
    if not backend.__name__.endswith("jax"):
        facts, arrays = probe(backend, model, images, labels, OPTIMIZER)
        return Answer(ABOUT | facts, arrays)
    from flax import nnx

    from googlenet_jax.params import canonical_name, to_canonical
    from googlenet_jax.probe import _canonical_layout

    parameters = sum(x.size for name, x in backend.dump_params(model).items() if not spec.is_statistic(name))
    x, y = backend.to_device(model, images, labels)
    optimizer = backend.make_optimizer(model, OPTIMIZER) if masks is None else None
    kept = None if masks is None else backend.masks_to_device(model, masks)
    stages, loss, grads = _program(backward=masks is None)(model, optimizer, x, y, kept)
    arrays = {"logits": np.array(stages[model.config.logits])}  # a pass that nobody watches would be a second program
    arrays |= {f"stage/{name}": _canonical_layout(stages[name]) for name in spec.stage_names(model.config)}
    facts = {"parameters": parameters, "loss": float(loss), "stages": list(spec.stage_names(model.config))}
    if grads is not None:
        flat = nnx.to_flat_state(grads)
        arrays |= {f"gradient/{canonical_name(path)}": to_canonical(leaf[...]) for path, leaf in flat}
    arrays |= {f"step/{name}": x for name, x in backend.dump_params(model).items()}
    return Answer(ABOUT | facts, arrays)


@cache
def _program(*, backward: bool) -> Any:
    """Stages, logits, loss, gradients and one step as one program: compiling four would take three times as long."""
    from flax import nnx

    from googlenet_jax.probe import watched
    from googlenet_jax.train import loss, value_and_grads

    @nnx.jit
    def program(model: Any, optimizer: Any, x: Any, y: Any, kept: Any) -> tuple[Any, ...]:
        stages = watched(model, x)
        model.train()
        if backward:
            (value, _), grads = value_and_grads(model, x, y, {})
            optimizer.update(model, grads)
        else:
            value, grads = loss(model.config, model(x, kept), y), None
        model.eval()
        return stages, value, grads

    return program
