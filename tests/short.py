"""Short networks of the Inception family: one block of each kind, with few channels, of each backend's own classes."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import spec
from spec.network import AdaptiveAverage, Block, Chain, Conv, Dense, Head, Operation, Residual

# The blocks that stay, beside all layers, with their classes. v3's 7b is its 7c but for the pool, which 6b has too.
_BLOCKS = {
    "InceptionBN": {"inception3a": "Mixed", "inception3c": "Halving", "inception5b": "Mixed"},
    "InceptionV3": {
        "mixed5b": "Mixed5",
        "mixed6a": "Mixed6a",
        "mixed6b": "Mixed6",
        "aux1": "AuxHead",
        "mixed7a": "Mixed7a",
        "mixed7c": "Mixed7",
    },
    "InceptionV4": {
        "mixed3a": "PoolFirst",
        "mixed4a": "Mixed4a",
        "mixed5a": "PoolLast",
        "mixed5b": "Mixed",
        "mixed6a": "Mixed6a",
        "mixed6b": "Mixed6",
        "mixed7a": "Mixed7a",
        "mixed7b": "Mixed7",
    },
    "InceptionResNetV2": {
        "mixed5b": "Mixed5",
        "block35_1": "Block35",
        "mixed6a": "Mixed6a",
        "block17_1": "Block17",
        "mixed7a": "ResNetMixed7a",
        "block8_1": "Block8",
        "block8_10": "Block8",
    },
}


def narrow(config: spec.Config) -> spec.Config:
    """The network with few channels: no two layers side by side need have the same number."""
    for i, (name, part) in enumerate(config.table):
        up = _channels_before(config, i) if isinstance(part, Residual) else None
        config = replace(config, table=(*config.table[:i], (name, _narrow(part, up)), *config.table[i + 1 :]))
    return config


def _channels_before(config: spec.Config, i: int) -> int:
    """Of the map that stage i reads."""
    return spec.walk(replace(config, table=config.table[:i], aux=False))[-1].out_channels


def _narrow(part: Operation | Block | Residual | Head, up: int | None) -> Any:
    if isinstance(part, Block):
        return Block(tuple(_narrow_chain(branch, up) for branch in part.branches))
    if isinstance(part, Residual | Head):
        return replace(part, chain=_narrow_chain(part.chain, up))
    if isinstance(part, Conv | Dense) and part.channels is not None:
        return replace(part, channels=3 + part.channels // 64)
    return part


def _narrow_chain(chain: Chain, up: int | None) -> Chain:
    return tuple(
        (leaf, replace(part, channels=up) if leaf == "up" else _narrow(part, up))  # type: ignore[arg-type, type-var]
        for leaf, part in chain
    )


def short(preset: str, **settings: Any) -> spec.Config:
    """A short network with the preset's topology, kernels, strides and pads; its class is that of `model`."""
    config = spec.preset(preset, **{"num_classes": 10, **settings})
    kept = _BLOCKS[config.family]
    table = tuple((name, part) for name, part in config.table if name in kept or not isinstance(part, Block | Residual))
    return replace(narrow(replace(config, table=table)), family="Short")


def model(backend: ModuleType, config: spec.Config, params: spec.Arrays, dtype: str = "float64") -> Any:
    """The short network in a backend, on the CPU, with those parameters."""
    return _class(backend, spec.PRESETS[config.preset].family)(config, dtype=dtype, device="cpu", params=params)


@cache
def _class(backend: ModuleType, family: str) -> type:
    layers, inception = (importlib.import_module(f"{backend.__name__}.{name}") for name in ("layers", "inception"))

    class Short(backend.Network):  # type: ignore[misc, valid-type]
        def __init__(self, config: spec.Config, **settings: Any) -> None:
            super().__init__(config)
            nodes = spec.nodes(config)
            for name, part in config.stages:
                if name in _BLOCKS[family]:
                    setattr(self, name, getattr(inception, _BLOCKS[family][name])(nodes, name))
                else:
                    kind = "AveragePool" if isinstance(part, AdaptiveAverage) else type(part).__name__
                    setattr(self, name, getattr(layers, kind)(nodes[name]))
            self.finish(**settings)

        def forward(self, x: Any, masks: Any, watch: Any = None) -> spec.Outputs:
            watch, heads = watch or (lambda stage, y: y), {}
            for name, part in self.config.stages:
                if isinstance(part, Head):
                    if self.runs_heads(watch):
                        heads[name] = watch(name, getattr(self, name)(x))
                    continue
                y = getattr(self, name)(x, masks.get(name)) if isinstance(part, Dense) else getattr(self, name)(x)
                x = watch(name, y)
            return spec.Outputs(x, heads)

    return Short
