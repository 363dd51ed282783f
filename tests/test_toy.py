"""A network that no preset has, from its table to every framework's files: what adding a network takes.

A table, and a module in each backend. Here the three modules are one, since their layers have the same names.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from networks import answer_of
from support import NOT_QUICK_IN_JAX, TESTED, googlenet, loaded

import spec
from harness.agreement import probe_params, relative_errors
from harness.compare.comparison import expect, judge
from harness.weights import checkpoint
from harness.weights.formats.onnx_file import build
from harness.weights.onnx_run import onnx_reference
from spec import reference
from spec.network import AveragePool, BatchNorm, Block, Conv, Dense, GlobalAverage, Residual, named
from spec.tolerances import TOLERANCES

MIXED = Block(
    (
        named(branch1x1=Conv(2)),
        named(
            branch7x7_reduce=Conv(2),
            branch7x7_1=Conv(3, (1, 7), pad=(0, 3)),
            branch7x7_2=Conv(2, (7, 1), pad=(3, 0)),
        ),
        named(pool=AveragePool(3, stride=1, pad=1, count_pad=False), pool_proj=Conv(2)),
    )
)
BESIDE = named(
    branches=Block((named(branch1x1=Conv(2)), named(branch3x3_reduce=Conv(2), branch3x3=Conv(3, 3, pad=1)))),
    up=Conv(6, norm=False, activation=None),
)
TOY = spec.Config(
    preset="toy",
    family="Toy",
    source="this test",
    in_channels=3,
    num_classes=3,
    input_size=13,
    batch_norm=BatchNorm(epsilon=1e-3),
    table=named(
        conv1=Conv(4, 3, stride=2),  # 6 x 6 x 4
        mixed=MIXED,  # 6 x 6 x 6
        block=Residual(BESIDE, scale=0.17),  # 6 x 6 x 6
        pool=GlobalAverage(),  # 6
        fc=Dense(None, activation=None),  # num_classes
    ),
)


def _pt() -> tuple[type, Any, Any]:
    import torch

    return torch.nn.Module, lambda parts: torch.cat(parts, dim=1), torch.relu


def _mx() -> tuple[type, Any, Any]:
    from mxnet import nd, sym
    from mxnet.gluon import HybridBlock

    def of(x: Any) -> ModuleType:
        return sym if isinstance(x, sym.Symbol) else nd

    return HybridBlock, lambda parts: of(parts[0]).concat(*parts, dim=1), lambda x: of(x).relu(x)


def _jax() -> tuple[type, Any, Any]:
    import jax.numpy as jnp
    from flax import nnx

    return nnx.Module, lambda parts: jnp.concatenate(parts, axis=-1), nnx.relu


MAKERS = {"googlenet_pt": _pt, "googlenet_mx": _mx, "googlenet_jax": _jax}


def _toy(package: str) -> type:
    """The network in a framework, of the backend's own layers."""
    layers, network = (importlib.import_module(f"{package}.{module}") for module in ("layers", "network"))
    module, concat, relu = MAKERS[package]()

    class Mixed(module):  # type: ignore[misc, valid-type]
        def __init__(self, nodes: spec.Nodes) -> None:
            super().__init__()
            self.branch1x1 = layers.Conv(nodes["mixed.branch1x1"])
            self.branch7x7_reduce = layers.Conv(nodes["mixed.branch7x7_reduce"])
            self.branch7x7_1 = layers.Conv(nodes["mixed.branch7x7_1"])
            self.branch7x7_2 = layers.Conv(nodes["mixed.branch7x7_2"])
            self.pool = layers.AveragePool(nodes["mixed.pool"])
            self.pool_proj = layers.Conv(nodes["mixed.pool_proj"])

        def compute(self, x: Any) -> Any:
            factorized = self.branch7x7_2(self.branch7x7_1(self.branch7x7_reduce(x)))
            return concat([self.branch1x1(x), factorized, self.pool_proj(self.pool(x))])

    class Beside(module):  # type: ignore[misc, valid-type]
        def __init__(self, nodes: spec.Nodes) -> None:
            super().__init__()
            self.branch1x1 = layers.Conv(nodes["block.branch1x1"])
            self.branch3x3_reduce = layers.Conv(nodes["block.branch3x3_reduce"])
            self.branch3x3 = layers.Conv(nodes["block.branch3x3"])
            self.up = layers.Conv(nodes["block.up"])

        def compute(self, x: Any) -> Any:
            y = concat([self.branch1x1(x), self.branch3x3(self.branch3x3_reduce(x))])
            return relu(x + 0.17 * self.up(y))

    class Toy(network.Network):  # type: ignore[misc, name-defined]
        def __init__(self, config: spec.Config, **settings: Any) -> None:
            super().__init__(config)
            nodes = spec.nodes(config)
            self.conv1 = layers.Conv(nodes["conv1"])
            self.mixed = Mixed(nodes)
            self.block = Beside(nodes)
            self.pool = layers.AveragePool(nodes["pool"])
            self.fc = layers.Dense(nodes["fc"])
            self.finish(**settings)

        def forward(self, x: Any, masks: Any, watch: Any) -> spec.Outputs:
            x = watch("conv1", self.conv1(x))  # 6 x 6 x 4
            x = watch("mixed", self.mixed.compute(x))  # 6 x 6 x 6
            x = watch("block", self.block.compute(x))  # 6 x 6 x 6
            x = watch("pool", self.pool(x))  # 6
            x = watch("fc", self.fc(x))  # num_classes
            return spec.Outputs(x)

    return Toy


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network among the presets."""
    monkeypatch.setitem(spec.PRESETS, "toy", TOY)


@pytest.fixture
def toy(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A backend that knows the network."""
    networks = importlib.import_module(f"{backend.__name__}.build").NETWORKS
    monkeypatch.setitem(networks, "Toy", _toy(backend.__name__))
    return backend


PARAMS = probe_params(TOY, seed=3)
RNG = np.random.default_rng(1)
IMAGES, LABELS = RNG.normal(size=(4, 3, 13, 13)), RNG.integers(0, 3, 4)


def test_the_table_says_names_shapes_and_sizes():
    shapes = spec.param_shapes(TOY)
    assert shapes["mixed.branch7x7_1.weight"] == (3, 2, 1, 7)
    assert shapes["mixed.branch7x7_2.weight"] == (2, 3, 7, 1)
    assert shapes["block.up.bias"] == (6,)
    assert "block.up.norm.weight" not in shapes
    stages = {"conv1": (4, 6, 6), "mixed": (6, 6, 6), "block": (6, 6, 6), "pool": (6,), "fc": (3,)}
    assert spec.stage_shapes(TOY, (3, 13, 13)) == stages
    convolutions = 3 * 9 * 4 + 4 * 2 + (4 * 2 + 2 * 7 * 3 + 3 * 7 * 2) + 4 * 2 + 6 * 2 + 6 * 2 + 2 * 9 * 3 + 5 * 6 + 6
    norms = 2 * (4 + 2 + 2 + 3 + 2 + 2 + 2 + 2 + 3)
    assert spec.parameter_count(TOY) == convolutions + norms + 6 * 3 + 3


def test_the_referee_computes_it_and_its_gradients():
    right = reference.loss_and_grads(TOY, PARAMS, IMAGES, LABELS)
    rng = np.random.default_rng(2)
    for name, gradient in right.grads.items():
        direction = rng.normal(size=gradient.shape)
        ends = [
            reference.loss_and_grads(TOY, PARAMS | {name: PARAMS[name] + step * direction}, IMAGES, LABELS).loss
            for step in (1e-6, -1e-6)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(np.vdot(gradient, direction), rel=1e-5, abs=1e-8), name


@NOT_QUICK_IN_JAX
def test_every_backend_computes_what_the_referee_does(toy):
    """Stages, logits, loss, gradients, and a step."""
    model = loaded(toy, TOY, PARAMS)
    found = answer_of(toy, model, IMAGES, LABELS)
    report = judge(found, expect(TOY, PARAMS, IMAGES, LABELS), TOLERANCES["float64"])
    assert report.passed, report


def test_onnx_computes_what_the_referee_does():
    got = onnx_reference(build(TOY, PARAMS).SerializeToString(), IMAGES)
    expected = reference.activations(TOY, PARAMS, IMAGES)
    assert list(got) == list(expected)
    assert max(relative_errors(got, expected).values()) < 2e-8  # ONNX keeps epsilon in float32


@pytest.mark.parametrize("form", ["pt", "params", "msgpack", "onnx"])
def test_its_weights_go_into_every_format_and_back(form, tmp_path: Path):
    if form in ("pt", "params", "msgpack") and {"pt": "pt", "params": "mx", "msgpack": "jax"}[form] not in TESTED:
        pytest.skip("the format's framework is not tested")
    source, there, back = tmp_path / "a.safetensors", tmp_path / f"b.{form}", tmp_path / "c.safetensors"
    params = {name: x.astype(np.float32) for name, x in PARAMS.items()}
    checkpoint.save(source, params, TOY, {})
    googlenet("convert", str(source), str(there), "--no-verify", cwd=tmp_path)
    googlenet("convert", str(there), str(back), "--no-verify", cwd=tmp_path)
    found = checkpoint.load(back)
    assert found.config == TOY
    assert all(np.array_equal(x, found.params[name]) for name, x in params.items())
