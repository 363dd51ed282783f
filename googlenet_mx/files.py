"""MXNet's own files: Gluon's parameters, and the symbol that `export` leaves, run the way that their users do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import mxnet as mx
from mxnet import gluon, nd

import spec
from googlenet_mx.build import build
from googlenet_mx.device import select_dtype
from googlenet_mx.network import Network
from googlenet_mx.params import named_parameters
from googlenet_mx.probe import activations


def write_file(path: Path, arrays: spec.Arrays, config: spec.Config) -> None:
    """Write the graph of the network, with its heads, as MXNet's JSON: ``-symbol.json``.

    Its input is ``data``, its outputs the logits and then those of the heads, its parameters have the canonical names;
    of the arrays only the dtype enters it. A scale and a shift that are not learned stand in the graph itself.
    """
    dtype = str(next(iter(arrays.values())).dtype)
    with mx.name.NameManager():  # counts the names of the nodes from 0
        model = build(config, dtype=dtype, device="cpu")
        for name, parameter in named_parameters(model).items():
            parameter.name, parameter._var = name, None
        for layer in spec.layers(config):
            if layer.norm:
                _fill(model, f"{layer.name}.norm", layer.norm)
        logits, heads = model.forward(mx.sym.var("data"), {}, lambda stage, x: x)  # watched, so that the heads run
        symbol = mx.sym.Group([logits, *heads.values()])
    symbol.save(str(path))


def _fill(model: Network, name: str, norm: spec.BatchNorm) -> None:
    """Put ones and zeros into the graph for a scale and a shift that are not learned, of whatever dtype the rest is."""
    parameters = model._collect_params_with_prefix()
    mean = parameters[f"{name}.running_mean"].var()
    if not norm.scale:
        parameters[f"{name}.gamma"]._var = mx.sym.ones_like(mean)
    if not norm.shift:
        parameters[f"{name}.beta"]._var = mx.sym.zeros_like(mean)


def run_file(
    path: Path, config: spec.Config, dtype: str, images: spec.Array, names: Mapping[str, str] | None = None
) -> dict[str, spec.Array]:
    """Every stage's output when Gluon itself loads the parameters; of a symbol, with its parameters, only the ends.

    `names` has the file's names by our network's, where these differ.
    """
    if path.name.endswith("-symbol.json"):
        params = path.with_name(path.name.replace("-symbol.json", "-0000.params"))
        with warnings.catch_warnings():
            # MXNet says so of every symbol; the parameters, which come after, decide the type.
            warnings.filterwarnings("ignore", "Cannot decide type", UserWarning)
            block = gluon.SymbolBlock.imports(str(path), ["data"], str(params))
        block.cast(select_dtype(dtype))
        outputs = block(nd.array(images, dtype=select_dtype(dtype)))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return {name: x.asnumpy() for name, x in zip((config.logits, *spec.head_names(config)), outputs, strict=True)}
    model = build(config, dtype=dtype, device="cpu")
    if names is None:
        model.load_parameters(str(path), cast_dtype=True)
    else:
        arrays, parameters = nd.load(str(path)), model._collect_params_with_prefix()
        for name, file_name in names.items():
            parameters[name].set_data(arrays[file_name].astype(select_dtype(dtype)))
    return activations(model, images)
