"""Other people's names: every scheme there and back, what arrays are taken for, and torchvision's own logits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from networks import thin, with_stages
from recorded import torchvision_googlenet
from short import short
from support import TESTED, loaded, numbered

import spec
from harness.agreement import probe_params, relative_error
from harness.backends.registry import load
from harness.backends.textbook import block_widths
from harness.weights.formats import gluon
from harness.weights.names import SCHEMES, foreign, foreign_names, rename
from harness.weights.recognition import nearest, recognize
from harness.weights.schemes.scheme import Scheme
from spec import reference

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def torch_backend() -> ModuleType:
    """PyTorch, imported apart from the tests of its notebooks."""
    if "pt" not in TESTED:
        pytest.skip("PyTorch is not tested")
    return load("pt")


@pytest.fixture(scope="module")
def mxnet_backend() -> ModuleType:
    """MXNet, imported apart from the tests of its notebooks."""
    if "mx" not in TESTED:
        pytest.skip("MXNet is not tested")
    return load("mx")


needs_torch = pytest.mark.usefixtures("torch_backend")
needs_mxnet = pytest.mark.usefixtures("mxnet_backend")


def recognized(arrays: Arrays, preset: str | None = None) -> tuple[Scheme, list[spec.Config]]:
    """The scheme and the networks that the arrays are."""
    network = recognize(arrays, preset)
    return network.scheme, network.configs


V3 = ["inception-v3", "inception-v3-tf", "inception-v3-fid"]
BN = ["inception-bn", "inception-bn-mxnet"]
PLAIN = ["d2l", "d2lzh", "cnblogs", "bvlc"]  # the same arrays, but for the heads
NORMED = ["lenet-bn", "lenet-bn-scratch"]


def same_arrays(scheme: str, preset: str, aux: bool) -> list[str]:
    """The presets whose files have the same arrays."""
    same = [preset]
    if preset in PLAIN and not aux:
        same = PLAIN
    elif preset == "lenet-bn-frozen" and SCHEMES[scheme].fixed:
        same = [*NORMED, preset]  # a scale of 1 and a shift of 0 may have been learned
    elif preset in NORMED:
        same = NORMED
    elif preset in BN:
        same = BN
    elif preset in V3 and not aux and (preset != "inception-v3-tf" or SCHEMES[scheme].fixed):
        same = V3
    return [name for name in same if name in SCHEMES[scheme].presets]


def with_and_without_heads(preset: str, scheme: str = "canonical") -> list[bool]:
    return [True, False] if spec.PRESETS[preset].aux and SCHEMES[scheme].heads else [False]


def scaleless(scheme: str) -> dict[str, bool]:
    """The setting of a network whose names a scheme has: Keras' and TF-slim's have no scale in batch norm."""
    return {} if SCHEMES[scheme].scales else {"norm_scale": False}


def empty(config: spec.Config, scheme: str = "canonical", dtype: Any = np.float32) -> Arrays:
    """Names and shapes of a file, zeros but for what is fixed; every number of an array is the same one in memory."""
    params = {name: np.broadcast_to(np.float32(0), shape) for name, shape in spec.param_shapes(config).items()}
    arrays = foreign(params, SCHEMES[scheme], config)
    return {name: np.broadcast_to(np.asarray(x.flat[0], dtype), x.shape) for name, x in arrays.items()}


# ------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize(
    ("scheme", "preset", "aux"),
    [
        (name, preset, aux)
        for name in SCHEMES
        for preset in SCHEMES[name].presets
        for aux in with_and_without_heads(preset, name)
    ],
)
def test_arrays_are_renamed_there_and_back(scheme, preset, aux):
    small = short if preset.startswith("inception") else thin
    config = small(preset, aux=aux, in_channels=2, num_classes=7, **scaleless(scheme))
    params = numbered(config)
    theirs = foreign(params, SCHEMES[scheme], config)
    norms = [layer.norm for layer in spec.layers(config) if layer.norm]
    not_learned = sum(2 - len(norm.learned) for norm in norms) if SCHEMES[scheme].fixed else 0
    assert len(theirs) == len(params) + not_learned
    back = rename(theirs, SCHEMES[scheme], config)
    assert list(back) == list(params)
    assert all(np.array_equal(back[name], x) and np.shares_memory(back[name], x) for name, x in params.items())
    # In whatever order a file has them.
    back = rename(dict(reversed(theirs.items())), SCHEMES[scheme], config)
    assert list(back) == list(params)


LITERAL = {
    "canonical": {
        "conv1.weight": "conv1.weight",
        "inception4a.pool_proj.norm.running_var": "inception4a.pool_proj.norm.running_var",
    },
    "gluon": {
        "conv1.weight": "conv1.weight",
        "conv1.norm.weight": "conv1.norm.gamma",
        "aux1.conv.norm.bias": "aux1.conv.norm.beta",
        "inception3a.branch1x1.norm.running_mean": "inception3a.branch1x1.norm.running_mean",
        "inception3a.branch1x1.norm.running_var": "inception3a.branch1x1.norm.running_var",
        "fc.bias": "fc.bias",
    },
    "nnx": {
        "conv1.weight": "conv1.kernel",
        "conv1.norm.weight": "conv1.norm.scale",
        "conv1.norm.bias": "conv1.norm.bias",
        "inception5b.branch3x3_reduce.norm.running_mean": "inception5b.branch3x3_reduce.norm.mean",
        "inception5b.branch3x3_reduce.norm.running_var": "inception5b.branch3x3_reduce.norm.var",
        "aux2.fc1.weight": "aux2.fc1.kernel",
        "fc.bias": "fc.bias",
    },
    "torchvision": {
        "conv1.weight": "conv1.conv.weight",
        "conv1.norm.running_mean": "conv1.bn.running_mean",
        "conv2_reduce.weight": "conv2.conv.weight",
        "conv2.norm.bias": "conv3.bn.bias",
        "inception3a.branch1x1.weight": "inception3a.branch1.conv.weight",
        "inception3a.branch3x3_reduce.weight": "inception3a.branch2.0.conv.weight",
        "inception4e.branch3x3.norm.weight": "inception4e.branch2.1.bn.weight",
        "inception4e.branch5x5_reduce.norm.running_var": "inception4e.branch3.0.bn.running_var",
        "inception5b.branch5x5.weight": "inception5b.branch3.1.conv.weight",
        "inception5b.pool_proj.weight": "inception5b.branch4.1.conv.weight",
        "aux1.conv.weight": "aux1.conv.conv.weight",
        "aux1.fc1.bias": "aux1.fc1.bias",
        "aux2.fc2.weight": "aux2.fc2.weight",
        "fc.weight": "fc.weight",
    },
    "d2l-sequential": {
        "conv1.weight": "0.0.weight",
        "conv2_reduce.bias": "1.0.bias",
        "conv2.weight": "1.2.weight",
        "inception3a.branch1x1.weight": "2.0.p1_1.weight",
        "inception3b.branch3x3_reduce.weight": "2.1.p2_1.weight",
        "inception4a.branch3x3.weight": "3.0.p2_2.weight",
        "inception4e.branch5x5_reduce.weight": "3.4.p3_1.weight",
        "inception5a.branch5x5.bias": "4.0.p3_2.bias",
        "inception5b.pool_proj.weight": "4.1.p4_2.weight",
        "fc.weight": "5.weight",
    },
    "d2lzh-sequential": {
        "conv1.weight": "0.0.weight",
        "conv2_reduce.weight": "1.0.weight",
        "conv2.weight": "1.1.weight",
        "inception3a.branch1x1.weight": "2.0.p1_1.weight",
        "inception4d.pool_proj.bias": "3.3.p4_2.bias",
        "fc.weight": "6.weight",
    },
    "gluon-sequential": {
        "conv1.weight": "0.0.weight",
        "conv2_reduce.weight": "1.0.weight",
        "conv2.weight": "1.1.weight",
        "inception4c.branch5x5_reduce.weight": "3.2.p3_1.weight",
        "fc.bias": "5.bias",
    },
    "hand-written": {
        "conv1.weight": "conv1.0.weight",
        "conv2_reduce.weight": "conv2.0.weight",
        "conv2.weight": "conv2.2.weight",
        "inception3a.branch1x1.weight": "inception_3a.branch1.weight",
        "inception3a.branch3x3_reduce.weight": "inception_3a.branch2_1.weight",
        "inception4b.branch3x3.bias": "inception_4b.branch2_2.bias",
        "inception4b.branch5x5_reduce.bias": "inception_4b.branch3_1.bias",
        "inception5a.branch5x5.bias": "inception_5a.branch3_2.bias",
        "inception5b.pool_proj.weight": "inception_5b.branch4_2.weight",
        "fc.weight": "fc.weight",
    },
    "caffe": {
        "conv1.weight": "conv1/7x7_s2.weight",
        "conv2_reduce.bias": "conv2/3x3_reduce.bias",
        "conv2.weight": "conv2/3x3.weight",
        "inception3a.branch1x1.weight": "inception_3a/1x1.weight",
        "inception3a.branch3x3_reduce.weight": "inception_3a/3x3_reduce.weight",
        "inception4c.branch3x3.weight": "inception_4c/3x3.weight",
        "inception4c.branch5x5_reduce.weight": "inception_4c/5x5_reduce.weight",
        "inception5b.branch5x5.bias": "inception_5b/5x5.bias",
        "inception5b.pool_proj.bias": "inception_5b/pool_proj.bias",
        "aux1.conv.weight": "loss1/conv.weight",
        "aux1.fc1.weight": "loss1/fc.weight",
        "aux2.fc2.bias": "loss2/classifier.bias",
        "fc.weight": "loss3/classifier.weight",
    },
    "d2l-today": {
        "conv2.weight": "net.1.2.weight",
        "inception3a.branch1x1.weight": "net.2.0.b1_1.weight",
        "inception5b.pool_proj.bias": "net.4.1.b4_2.bias",
        "fc.weight": "net.5.weight",
    },
    "d2l-today-sequential": {"conv2.weight": "1.2.weight", "inception4a.branch3x3.weight": "3.0.b2_2.weight"},
    "d2l-attributes": {"inception4a.branch3x3.weight": "b4.0.p2_2.weight", "fc.bias": "fc.bias"},
    "d2l-today-attributes": {"conv2.weight": "b2.2.weight", "inception5b.branch5x5.weight": "b5.1.b3_2.weight"},
    "gluon-today": {"conv2.weight": "net.1.1.weight", "inception4a.branch3x3.weight": "net.3.0.b2_2.weight"},
    "gluon-today-sequential": {"conv2.weight": "1.1.weight", "fc.weight": "5.weight"},
    "gluon-prefixed": {
        "conv2.weight": "googlenet0_conv2_weight",
        "inception3b.branch3x3.bias": "googlenet0_inception1_conv2_bias",
        "fc.weight": "googlenet0_dense0_weight",
    },
    "gluoncv": {
        "conv1.weight": "conv1.0.weight",
        "conv2.norm.weight": "conv3.1.gamma",
        "inception3a.branch1x1.weight": "inception3a.0.0.0.weight",
        "inception4e.branch3x3.norm.bias": "inception4e.1.1.1.beta",
        "inception5b.pool_proj.norm.running_var": "inception5b.3.1.1.running_var",
        "aux1.conv.weight": "aux1.1.0.weight",
        "aux1.fc1.bias": "aux1.3.bias",
        "aux2.fc2.weight": "aux2.6.weight",
        "fc.weight": "output.weight",
    },
    "torchvision-v3": {
        "conv1a.weight": "Conv2d_1a_3x3.conv.weight",
        "mixed5b.branch5x5_reduce.weight": "Mixed_5b.branch5x5_1.conv.weight",
        "mixed6a.branch3x3.norm.bias": "Mixed_6a.branch3x3.bn.bias",
        "aux1.conv2.norm.running_var": "AuxLogits.conv1.bn.running_var",
        "aux1.fc.weight": "AuxLogits.fc.weight",
        "mixed7a.branch7x7x3.weight": "Mixed_7a.branch7x7x3_4.conv.weight",
        "mixed7c.branch3x3dbl_b.weight": "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "mixed7c.pool_proj.norm.weight": "Mixed_7c.branch_pool.bn.weight",
        "fc.bias": "fc.bias",
    },
    "timm": {
        "mixed3a.branch3x3.weight": "features.3.conv.conv.weight",
        "mixed5b.branch1x1.norm.weight": "features.6.branch0.bn.weight",
        "mixed5b.pool_proj.weight": "features.6.branch3.1.conv.weight",
        "mixed7d.branch3x3dbl_b.weight": "features.21.branch2_3b.conv.weight",
        "fc.weight": "last_linear.weight",
    },
    "cadene": {
        "conv2_reduce.bias": "conv2_3x3_reduce.bias",
        "inception3a.branch3x3dbl_reduce.weight": "inception_3a_double_3x3_reduce.weight",
        "inception3a.branch3x3dbl_2.norm.running_var": "inception_3a_double_3x3_2_bn.running_var",
        "fc.weight": "last_linear.weight",
    },
    "gluon-zoo": {
        "conv3b.weight": "features.4.0.weight",
        "mixed5b.pool_proj.norm.weight": "features.7.3.1.1.gamma",
        "mixed7b.branch3x3_reduce.weight": "features.16.1.0.0.0.weight",
        "mixed7b.branch3x3_b.weight": "features.16.1.1.1.0.0.weight",
        "fc.weight": "output.weight",
    },
    "gluon-zoo-prefixed": {
        "conv1a.norm.weight": "inception30_batchnorm0_gamma",
        "mixed6b.branch7x7dbl_4.weight": "inception30_C1_conv8_weight",
        "fc.weight": "inception30_dense0_weight",
    },
    "mxnet-symbol": {
        "conv1.bias": "conv_1_bias",
        "conv2_reduce.norm.weight": "bn_2_red_gamma",
        "inception3a.branch3x3dbl_1.weight": "conv_3a_double_3x3_0_weight",
        "inception5b.pool_proj.norm.running_mean": "bn_5b_proj_moving_mean",
        "fc.bias": "fc1_bias",
    },
    "mxnet-symbol-unnamed": {"fc.weight": "fullyconnected0_weight"},
    "tensorflow-2015": {
        "conv1a.weight": "conv/conv2d_params",
        "conv4a.norm.running_var": "conv_4/batchnorm/moving_variance",
        "mixed5b.branch1x1.weight": "mixed/conv/conv2d_params",
        "mixed5c.branch3x3dbl_2.norm.bias": "mixed_1/tower_1/conv_2/batchnorm/beta",
        "mixed7a.branch3x3.weight": "mixed_8/tower/conv_1/conv2d_params",
        "mixed7b.branch3x3_b.weight": "mixed_9/tower/mixed/conv_1/conv2d_params",
        "mixed7c.pool_proj.norm.weight": "mixed_10/tower_2/conv/batchnorm/gamma",
        "fc.weight": "softmax/weights",
    },
    "keras": {
        "conv1a.weight": "layers/conv2d/vars/0",
        "mixed5b.branch1x1.weight": "layers/conv2d_8/vars/0",
        "mixed5b.branch1x1.norm.running_var": "layers/batch_normalization_8/vars/2",
        "mixed5b.branch3x3dbl_reduce.weight": "layers/conv2d_5/vars/0",
        "fc.bias": "layers/dense/vars/1",
    },
    "keras-layers": {
        "conv1a.weight": "conv2d/kernel",
        "mixed5b.branch1x1.weight": "conv2d_5/kernel",
        "mixed5b.branch1x1.norm.running_var": "batch_normalization_5/moving_variance",
        "fc.bias": "predictions/bias",
    },
    "slim": {
        "conv1a.norm.bias": "InceptionV4/Conv2d_1a_3x3/BatchNorm/beta",
        "mixed6h.branch7x7dbl_4.weight": "InceptionV4/Mixed_6h/Branch_2/Conv2d_0e_1x7/weights",
        "fc.bias": "InceptionV4/Logits/Logits/biases",
    },
    "slim-v3": {
        "mixed7b.branch3x3_b.norm.running_mean": "InceptionV3/Mixed_7b/Branch_1/Conv2d_0b_3x1/BatchNorm/moving_mean",
        "fc.weight": "InceptionV3/Logits/Conv2d_1c_1x1/weights",
    },
    "linen": {
        "conv1.weight": "Conv_0.kernel",
        "inception3b.branch3x3_reduce.weight": "Inception_1.Conv_1.kernel",
        "fc.bias": "Dense_0.bias",
    },
    "linen-today": {
        "conv2.weight": "net.layers_1.layers_2.kernel",
        "inception3a.branch1x1.weight": "net.layers_2.layers_0.b1_1.kernel",
        "fc.weight": "net.layers_5.kernel",
    },
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_scheme_has_the_names_that_were_published(scheme):
    preset = "torchvision" if scheme in ("canonical", "gluon", "nnx") else SCHEMES[scheme].presets[0]
    aux = SCHEMES[scheme].heads and spec.PRESETS[preset].aux
    names = foreign_names(SCHEMES[scheme], spec.preset(preset, aux=aux, **scaleless(scheme)))
    assert {name: names[name] for name in LITERAL[scheme]} == LITERAL[scheme]
    assert len(set(names.values())) == len(names)


def test_a_scheme_of_jax_has_the_layouts_of_jax():
    config = spec.preset("lenet")
    params = numbered(config)
    theirs = foreign(params, SCHEMES["nnx"], config)
    assert theirs["conv2.kernel"].shape == (5, 5, 6, 16)
    assert theirs["conv2.kernel"][3, 4, 2, 5] == params["conv2.weight"][5, 2, 3, 4]
    assert theirs["fc5.kernel"].shape == (84, 10)
    assert theirs["fc5.kernel"][50, 3] == params["fc5.weight"][3, 50]
    assert foreign(params, SCHEMES["gluon-sequential"], config)["0.weight"] is not params["conv1.weight"]


def test_a_preset_without_names_in_a_scheme_is_refused():
    config = spec.preset("bvlc")
    with pytest.raises(
        spec.InvalidInput,
        match="no names in scheme hand-written: expected one of canonical, gluon, nnx, gluon-prefixed, caffe",
    ):
        foreign(empty(config), SCHEMES["hand-written"], config)
    with pytest.raises(spec.InvalidInput, match="heads have no names in scheme gluon-prefixed: leave them out with"):
        foreign(empty(config), SCHEMES["gluon-prefixed"], config)


def test_batch_norm_written_out_in_a_notebook_has_no_names_of_the_libraries():
    config = spec.preset("lenet-bn-scratch")
    for scheme in ("d2l-sequential", "gluon-sequential"):
        with pytest.raises(spec.InvalidInput, match=r"expected one of canonical, gluon, nnx$"):
            foreign(empty(config), SCHEMES[scheme], config)


@pytest.mark.parametrize("scheme", ["gluon", "gluon-sequential"])
def test_gluon_stores_a_scale_and_a_shift_that_are_not_learned(scheme):
    """Its own loader asks for a scale and a shift, whether or not they are learned."""
    config = spec.preset("lenet-bn-frozen")
    arrays = foreign(numbered(config), SCHEMES[scheme], config)
    learned = set(foreign_names(SCHEMES[scheme], config).values())
    fixed = {name: x for name, x in arrays.items() if name not in learned}
    assert {name.rpartition(".")[2]: x.min() for name, x in fixed.items()} == {"gamma": 1, "beta": 0}
    assert {name.rpartition(".")[2]: x.max() for name, x in fixed.items()} == {"gamma": 1, "beta": 0}
    assert fixed.keys() == empty(spec.preset("lenet-bn"), scheme).keys() - learned
    for name, x in fixed.items():
        for wrong, message in (
            (
                {name: np.append(x[:-1], x[-1] + 1e-3)},
                f"wrong value: {name}: expected {x[0]:.0f} everywhere, as it is not learned",
            ),
            ({name: np.full_like(x, np.nan)}, f"wrong value: {name}"),
            ({name: x[1:]}, f"wrong shape: {name}"),
        ):
            with pytest.raises(spec.InvalidInput, match=message):
                rename(arrays | wrong, SCHEMES[scheme], config)
        with pytest.raises(spec.InvalidInput, match=f"missing: {name}"):
            rename(without(arrays, name), SCHEMES[scheme], config)


def test_arrays_that_do_not_fit_are_not_renamed():
    config = spec.preset("d2l")
    with pytest.raises(
        spec.InvalidInput, match=r"do not fit scheme caffe.*missing: conv1/7x7_s2.weight \(64, 3, 7, 7\)"
    ):
        rename(empty(config), SCHEMES["caffe"], spec.preset("bvlc"))
    with pytest.raises(spec.InvalidInput, match=r"do not fit scheme canonical.*fc.weight: expected \(11, 1024\), got"):
        foreign(empty(config), SCHEMES["d2l-sequential"], spec.preset("d2l", num_classes=11))


# ------------------------------------------------------------------------------------------- the frameworks' names


def own_arrays(backend: ModuleType, model: Any) -> Arrays:
    """As the framework itself names and lays them out, PyTorch's counters too."""
    if backend.__name__ == "googlenet_pt":
        return {name: x.numpy() for name, x in model.state_dict().items()}
    if backend.__name__ == "googlenet_mx":
        return {name: x.data().asnumpy() for name, x in model._collect_params_with_prefix().items()}
    from flax import nnx

    kinds = (nnx.Param, nnx.BatchStat)
    found = {".".join(map(str, path)): x for path, x in nnx.iter_graph(model) if isinstance(x, kinds)}
    return {name: np.asarray(x[...]) for name, x in found.items()}


NATIVE = {"googlenet_pt": "canonical", "googlenet_mx": "gluon", "googlenet_jax": "nnx"}


@pytest.mark.parametrize("preset", ["lenet-bn", "torchvision"])
def test_each_framework_has_the_names_of_its_scheme(preset, backend):
    config = thin(preset, aux=False, in_channels=2, num_classes=7)
    params = numbered(config, "float32")
    arrays = own_arrays(backend, loaded(backend, config, params, "float32"))
    back = rename(arrays, SCHEMES[NATIVE[backend.__name__]], config)
    assert all(np.array_equal(back[name], x) for name, x in params.items())


@pytest.mark.parametrize("preset", ["lenet", "lenet-bn", "lenet-bn-frozen"])
def test_a_model_of_each_framework_is_recognized(preset, backend):
    config = spec.preset(preset, in_channels=2, num_classes=7)
    arrays = own_arrays(backend, loaded(backend, config, probe_params(config, seed=4), "float32"))
    scheme, configs = recognized(arrays)
    # PyTorch counts batches in its own batch norm only; Gluon stores a scale and a shift of 1 and 0 as any others.
    others = {"lenet-bn": ["lenet-bn-scratch"], "lenet-bn-frozen": NORMED}.get(preset, [])
    if backend.__name__ == "googlenet_pt" or (backend.__name__, preset) == ("googlenet_jax", "lenet-bn-frozen"):
        others = []
    assert {found.preset for found in configs} == {preset, *others}
    assert config in configs
    # Without batch norm Gluon's names are PyTorch's.
    assert scheme.name == (
        "canonical" if (NATIVE[backend.__name__], preset) == ("gluon", "lenet") else NATIVE[backend.__name__]
    )


# ------------------------------------------------------------------------------------- the textbooks' own networks

Rows = dict[str, tuple[Any, ...]]
ROWS: Rows = {  # what goes in, and the notebooks' c1 to c4
    "3a": (192, 64, (96, 128), (16, 32), 32),
    "3b": (256, 128, (128, 192), (32, 96), 64),
    "4a": (480, 192, (96, 208), (16, 48), 64),
    "4b": (512, 160, (112, 224), (24, 64), 64),
    "4c": (512, 128, (128, 256), (24, 64), 64),
    "4d": (512, 112, (144, 288), (32, 64), 64),
    "4e": (528, 256, (160, 320), (32, 128), 128),
    "5a": (832, 256, (160, 320), (32, 128), 128),
    "5b": (832, 384, (192, 384), (48, 128), 128),
}
MISPRINTED = ROWS | {"4a": (480, 192, (96, 108), (16, 48), 64), "4c": (512, 128, (128, 256), (34, 64), 64)}
PATHS = ("p1_1", "p2_1", "p2_2", "p3_1", "p3_2", "p4_1", "p4_2")
BRANCHES = ("branch1", "branch2_1", "branch2_2", "branch3_1", "branch3_2", "branch4_1", "branch4_2")


def rows_of(config: spec.Config) -> Rows:
    """What a notebook with the widths of that network would have for `ROWS`."""
    nodes = spec.nodes(config)
    blocks = [name for name in spec.stage_names(config) if name.startswith("inception")]
    return {
        name.removeprefix("inception"): (nodes[f"{name}.branch1x1"].in_channels, *block_widths(nodes, name))
        for name in blocks
    }


def in_torch(scheme: str, rows: Rows) -> Any:
    """The network built as a notebook of that scheme builds it, in float64."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Inception(nn.Module):
        def __init__(self, into, c1, c2, c3, c4):
            super().__init__()
            self.names = BRANCHES if scheme == "hand-written" else PATHS
            reduce3, conv3 = nn.Conv2d(into, c2[0], 1), nn.Conv2d(c2[0], c2[1], 3, padding=1)
            reduce5, conv5 = nn.Conv2d(into, c3[0], 1), nn.Conv2d(c3[0], c3[1], 5, padding=2)
            layers = (
                nn.Conv2d(into, c1, 1),
                reduce3,
                conv3,
                reduce5,
                conv5,
                nn.MaxPool2d(3, 1, 1),
                nn.Conv2d(into, c4, 1),
            )
            for name, layer in zip(self.names, layers, strict=True):
                setattr(self, name, layer)

        def forward(self, x):
            one, reduce3, conv3, reduce5, conv5, pool, proj = (getattr(self, name) for name in self.names)
            ends = one(x), conv3(F.relu(reduce3(x))), conv5(F.relu(reduce5(x))), proj(pool(x))
            return torch.cat([F.relu(end) for end in ends], 1)

    def pool():
        return nn.MaxPool2d(3, 2, 1)

    blocks = {name: Inception(*row) for name, row in rows.items()}
    _, one, (_, three), (_, five), pooled = rows["5b"]
    classifier = nn.Linear(one + three + five + pooled, 10)
    conv1 = nn.Sequential(nn.Conv2d(1, 64, 7, 2, 3), nn.ReLU(), pool())
    reduce, conv2 = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 192, 3, padding=1)
    if scheme == "hand-written":
        net = nn.Sequential()
        net.conv1, net.conv2 = conv1, nn.Sequential(reduce, nn.ReLU(), conv2, nn.ReLU(), pool())
        for name, block in blocks.items():
            setattr(net, f"inception_{name}", block)
            if name in ("3b", "4e"):
                setattr(net, f"pool_{name}", pool())
        net.end = nn.Sequential(nn.AvgPool2d(7), nn.Dropout(0.4), nn.Flatten())
        net.fc = classifier
        return net.double().eval()
    block3, block4, block5 = list(blocks.values())[:2], list(blocks.values())[2:7], list(blocks.values())[7:]
    trunk = [nn.Sequential(*block3, pool()), nn.Sequential(*block4, pool())]
    if scheme == "d2l-sequential":
        stage2 = nn.Sequential(reduce, nn.ReLU(), conv2, nn.ReLU(), pool())
        end = [nn.Sequential(*block5, nn.AdaptiveAvgPool2d(1), nn.Flatten()), classifier]
    else:
        stage2 = nn.Sequential(reduce, conv2, pool())
        end = [nn.Sequential(*block5, nn.AdaptiveAvgPool2d(1)), nn.Flatten(), classifier]
    return nn.Sequential(conv1, stage2, *trunk, *end).double().eval()


def zeros(shapes: dict[str, tuple[int, ...]]) -> Arrays:
    """Arrays of these names and shapes that take no memory."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


TORCH_NOTEBOOKS = [("d2l-sequential", "d2l"), ("d2lzh-sequential", "d2lzh"), ("hand-written", "cnblogs")]


@needs_torch
@pytest.mark.parametrize(("scheme", "preset"), TORCH_NOTEBOOKS)
def test_a_notebook_s_googlenet_in_torch_is_recognized(scheme, preset):
    import torch

    with torch.device("meta"):  # shapes only
        notebook = in_torch(scheme, ROWS)
    found, configs = recognized(zeros({name: tuple(x.shape) for name, x in notebook.state_dict().items()}))
    assert (found.name, configs) == (scheme, [spec.preset(preset)])


@needs_torch
@pytest.mark.parametrize(("scheme", "preset"), TORCH_NOTEBOOKS)
def test_a_notebook_s_googlenet_in_torch_computes_what_the_referee_does(scheme, preset):
    import torch

    torch.manual_seed(5)
    config = thin(preset)
    notebook = in_torch(scheme, rows_of(config))
    side = 193 if preset == "cnblogs" else 28
    images = np.random.default_rng(5).normal(size=(1, 1, side, side))
    with torch.inference_mode():
        expected = notebook(torch.from_numpy(images)).numpy()
    arrays = {name: x.numpy() for name, x in notebook.state_dict().items()}
    params = rename(arrays, SCHEMES[scheme], config)
    assert relative_error(reference.predict(config, params, images), expected) <= 1e-12
    stages = dict(config.stages)  # the ReLUs of stage 2: nothing that names could tell
    flipped = {
        name: replace(stages[name], activation=None if stages[name].activation else "relu")
        for name in ("conv2_reduce", "conv2")
    }
    other = with_stages(config, **flipped)
    assert relative_error(reference.predict(other, params, images), expected) > 1e-6


def in_gluon(rows: Rows, relu: str | None) -> Any:
    """The network as the notebooks in MXNet build it: activations inside convolutions, input channels inferred."""
    from mxnet.gluon import nn

    class Inception(nn.HybridBlock):
        def __init__(self, c1, c2, c3, c4):
            super().__init__()
            self.p1_1 = nn.Conv2D(c1, 1, activation="relu")
            self.p2_1 = nn.Conv2D(c2[0], 1, activation="relu")
            self.p2_2 = nn.Conv2D(c2[1], 3, padding=1, activation="relu")
            self.p3_1 = nn.Conv2D(c3[0], 1, activation="relu")
            self.p3_2 = nn.Conv2D(c3[1], 5, padding=2, activation="relu")
            self.p4_1 = nn.MaxPool2D(3, 1, 1)
            self.p4_2 = nn.Conv2D(c4, 1, activation="relu")

        def hybrid_forward(self, F, x):
            ends = self.p1_1(x), self.p2_2(self.p2_1(x)), self.p3_2(self.p3_1(x)), self.p4_2(self.p4_1(x))
            return F.concat(*ends, dim=1)

    def pool():
        return nn.MaxPool2D(3, 2, 1)

    blocks = [Inception(*widths) for _, *widths in rows.values()]
    net = sequential(
        sequential(nn.Conv2D(64, 7, 2, 3, activation="relu"), pool()),
        sequential(nn.Conv2D(64, 1, activation=relu), nn.Conv2D(192, 3, padding=1, activation=relu), pool()),
        sequential(*blocks[:2], pool()),
        sequential(*blocks[2:7], pool()),
        sequential(*blocks[7:], nn.GlobalAvgPool2D()),
        nn.Dense(10),
    )
    net.cast("float64")
    return net


def sequential(*layers: Any) -> Any:
    """As the notebooks' `nn.Sequential`, but that it tells its shapes without memory for them."""
    from mxnet.gluon import nn

    block = nn.HybridSequential()
    block.add(*layers)
    return block


def shapes_in_gluon(notebook: Any, side: int) -> dict[str, tuple[int, ...]]:
    """Of the parameters, inferred from pictures of that side; batch norm's statistics too."""
    from mxnet import nd

    notebook.infer_shape(nd.zeros((1, 1, side, side), dtype="float64"))
    return {name: x.shape for name, x in notebook._collect_params_with_prefix().items()}


GLUON_NOTEBOOKS = [
    ("d2l", ROWS, "relu", ["d2l", "d2lzh"]),
    ("d2lzh", ROWS, None, ["d2l", "d2lzh"]),
    ("d2lzh-misprint", MISPRINTED, None, ["d2lzh-misprint"]),
]


@needs_mxnet
@pytest.mark.parametrize(("preset", "rows", "relu", "found"), GLUON_NOTEBOOKS)
def test_a_notebook_s_googlenet_in_gluon_is_recognized(preset, rows, relu, found):
    scheme, configs = recognized(zeros(shapes_in_gluon(in_gluon(rows, relu), 28)))
    assert (scheme.name, [config.preset for config in configs]) == ("gluon-sequential", found)


@needs_mxnet
@pytest.mark.parametrize(("preset", "relu"), [("d2l", "relu"), ("d2lzh", None)])
def test_a_notebook_s_googlenet_in_gluon_computes_what_the_referee_does(preset, relu):
    from mxnet import nd, random

    random.seed(5)
    config = thin(preset)
    notebook = in_gluon(rows_of(config), relu)
    notebook.initialize()
    images = np.random.default_rng(5).normal(size=(1, 1, 28, 28))
    expected = notebook(nd.array(images, dtype="float64")).asnumpy()
    arrays = {name: x.data().asnumpy() for name, x in notebook._collect_params_with_prefix().items()}
    params = rename(arrays, SCHEMES["gluon-sequential"], config)
    assert relative_error(reference.predict(config, params, images), expected) <= 1e-12


# Thin ones take small pictures; LeNets are thin as they are, and their files say what they are.
LENETS = {"lenet": 28, "lenet-bn": 31, "lenet-bn-frozen": 28}
THIN = {"nin": 67, "alexnet": 67, "vgg11": 33}
PUBLISHED = {"nin": 224, "alexnet": 224, "vgg11": 224, "vgg11-narrow": 224}  # at the sizes that the notebooks have


def widths(config: spec.Config) -> Iterator[tuple[int, int]]:
    """Of every layer, in forward order: what goes in and what comes out."""
    return iter([(layer.in_channels, layer.out_channels) for layer in spec.layers(config)])


def sequence_in_torch(config: spec.Config, pool: str = "MaxPool2d") -> Any:
    """The sequence built as Dive into Deep Learning does in PyTorch, with the network's widths, in float64."""
    from torch import nn

    preset, following = config.preset, widths(config)

    def conv(*window, **settings):
        return nn.Conv2d(*next(following), *window, **settings)

    def vgg_block(convolutions):
        layers = []
        for _ in range(convolutions):
            layers += [conv(3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.MaxPool2d(2, 2))

    def nin_block(kernel, stride, padding):
        return nn.Sequential(conv(kernel, stride, padding), nn.ReLU(), conv(1), nn.ReLU(), conv(1), nn.ReLU())

    def norm(kind, channels):
        return [getattr(nn, kind)(channels, affine=preset != "lenet-bn-frozen")] if preset != "lenet" else []

    def dense():
        layers = [nn.Flatten()]
        for _ in range(2):
            layers += [nn.Linear(*next(following)), nn.ReLU(), nn.Dropout(0.5)]
        return [*layers, nn.Linear(*next(following))]

    if preset.startswith("lenet"):
        layers = []
        for _ in range(2):
            first = conv(5)
            layers += [first, *norm("BatchNorm2d", first.out_channels), nn.Sigmoid(), getattr(nn, pool)(2, 2)]
        layers.append(nn.Flatten())
        for _ in range(2):
            first = nn.Linear(*next(following))
            layers += [first, *norm("BatchNorm1d", first.out_features), nn.Sigmoid()]
        layers.append(nn.Linear(*next(following)))
    elif preset == "alexnet":
        layers = [conv(11, 4, 1), nn.ReLU(), nn.MaxPool2d(3, 2), conv(5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        for _ in range(3):
            layers += [conv(3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2), *dense()]
    elif preset == "nin":
        layers = []
        for window in ((11, 4, 0), (5, 1, 2), (3, 1, 1)):
            layers += [nin_block(*window), nn.MaxPool2d(3, 2)]
        layers += [nn.Dropout(0.5), nin_block(3, 1, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    else:
        layers = [*(vgg_block(convolutions) for convolutions in (1, 1, 2, 2, 2)), *dense()]
    return nn.Sequential(*layers).double().eval()


def sequence_in_gluon(config: spec.Config, padding: int = 1) -> Any:
    """The sequence built as the first Chinese edition does in MXNet, but for AlexNet's first padding, in float64."""
    from mxnet.gluon import nn

    preset, following = config.preset, widths(config)

    def conv(kernel, stride=1, pad=0):
        return nn.Conv2D(next(following)[1], kernel, stride, pad, activation="relu")

    def vgg_block(convolutions):
        return sequential(*(conv(3, pad=1) for _ in range(convolutions)), nn.MaxPool2D(2, 2))

    def nin_block(*window):
        return sequential(conv(*window), conv(1), conv(1))

    def ends(layer, *settings):
        """The layer with its activation inside, or behind batch norm."""
        given = (next(following)[1], *settings)
        if preset == "lenet":
            return [layer(*given, activation="sigmoid")]
        learned = preset != "lenet-bn-frozen"
        return [layer(*given), nn.BatchNorm(center=learned, scale=learned), nn.Activation("sigmoid")]

    def dense():
        layers = []
        for _ in range(2):
            layers += [nn.Dense(next(following)[1], activation="relu"), nn.Dropout(0.5)]
        return [*layers, nn.Dense(next(following)[1])]

    if preset.startswith("lenet"):
        layers = [*ends(nn.Conv2D, 5), nn.MaxPool2D(2, 2), *ends(nn.Conv2D, 5), nn.MaxPool2D(2, 2)]
        layers += [*ends(nn.Dense), *ends(nn.Dense), nn.Dense(next(following)[1])]
    elif preset == "alexnet":
        layers = [conv(11, 4, padding), nn.MaxPool2D(3, 2), conv(5, pad=2), nn.MaxPool2D(3, 2)]
        layers += [*(conv(3, pad=1) for _ in range(3)), nn.MaxPool2D(3, 2), *dense()]
    elif preset == "nin":
        layers = []
        for window in ((11, 4, 0), (5, 1, 2), (3, 1, 1)):
            layers += [nin_block(*window), nn.MaxPool2D(3, 2)]
        layers += [nn.Dropout(0.5), nin_block(3, 1, 1), nn.GlobalAvgPool2D(), nn.Flatten()]
    else:
        layers = [*(vgg_block(convolutions) for convolutions in (1, 1, 2, 2, 2)), *dense()]
    net = sequential(*layers)
    net.cast("float64")
    return net


@dataclass(frozen=True)
class Textbook:
    """A network's arrays in a notebook's names, pictures, and what the referee makes of them."""

    scheme: Scheme
    config: spec.Config
    params: Arrays
    theirs: Arrays
    images: np.ndarray
    expected: np.ndarray

    def assert_recognized(self, arrays: Arrays, presets: list[str]) -> None:
        """As of those presets, where the network has a preset's widths; and as the same bits."""
        if self.config.preset in LENETS:
            found, configs = recognized(arrays)
            assert (found, [config.preset for config in configs]) == (self.scheme, presets)
            assert self.config in configs
        back = rename(arrays, self.scheme, self.config)
        assert all(np.array_equal(back[name], x) for name, x in self.params.items())


def textbook(scheme: str, preset: str) -> Textbook:
    side = (LENETS | THIN)[preset]
    config = spec.preset(preset) if preset in LENETS else thin(preset, side)
    params = probe_params(config, seed=6)
    images = np.random.default_rng(6).normal(size=(1, 1, side, side))
    theirs = foreign(params, SCHEMES[scheme], config)
    return Textbook(SCHEMES[scheme], config, params, theirs, images, reference.predict(config, params, images))


@needs_torch
@pytest.mark.parametrize("preset", [*LENETS, *THIN])
def test_a_notebook_s_sequence_in_torch_computes_what_the_referee_does(preset):
    import torch

    book = textbook("d2l-sequential", preset)
    notebook = sequence_in_torch(book.config)
    notebook.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in book.theirs.items()})
    with torch.inference_mode():
        got = notebook(torch.from_numpy(book.images)).numpy()
    assert relative_error(got, book.expected) <= 1e-12
    arrays = {name: x.numpy() for name, x in notebook.state_dict().items()}  # with PyTorch's counters
    assert len(arrays) == len(book.theirs) + (4 if "-bn" in preset else 0)
    book.assert_recognized(arrays, [preset])


@needs_mxnet
@pytest.mark.parametrize("preset", [*LENETS, *THIN])
def test_a_notebook_s_sequence_in_gluon_computes_what_the_referee_does(preset, tmp_path):
    from mxnet import nd

    book = textbook("gluon-sequential", preset)
    notebook = sequence_in_gluon(book.config)
    gluon.write(tmp_path / "theirs.params", book.theirs, {})
    notebook.load_parameters(str(tmp_path / "theirs.params"))  # MXNet's own, which misses and refuses
    got = notebook(nd.array(book.images, dtype="float64")).asnumpy()
    assert relative_error(got, book.expected) <= 1e-12
    notebook.save_parameters(str(tmp_path / "ours.params"))
    presets = ["lenet-bn", "lenet-bn-frozen"] if preset == "lenet-bn-frozen" else [preset]
    book.assert_recognized(gluon.read(tmp_path / "ours.params").arrays, presets)


@needs_torch
@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_notebook_s_sequence_in_torch_is_recognized(preset):
    import torch

    with torch.device("meta"):  # shapes only
        notebook = sequence_in_torch(spec.preset(preset))
    found, configs = recognized(zeros({name: tuple(x.shape) for name, x in notebook.state_dict().items()}))
    assert (found.name, configs) == ("d2l-sequential", [spec.preset(preset)])


@needs_mxnet
@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_notebook_s_sequence_in_gluon_is_recognized(preset):
    found, configs = recognized(zeros(shapes_in_gluon(sequence_in_gluon(spec.preset(preset)), PUBLISHED[preset])))
    assert (found.name, configs) == ("gluon-sequential", [spec.preset(preset)])


@needs_torch
def test_an_average_pool_in_place_of_the_maximum_shows_in_what_is_computed_only():
    """Dive into Deep Learning's own LeNet with batch norm, which `lenet-bn` is not."""
    import torch

    book = textbook("d2l-sequential", "lenet-bn")
    notebook = sequence_in_torch(book.config, pool="AvgPool2d")
    notebook.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in book.theirs.items()})
    with torch.inference_mode():
        assert relative_error(notebook(torch.from_numpy(book.images)).numpy(), book.expected) > 1e-3


@needs_mxnet
def test_another_padding_shows_in_what_is_computed_only(tmp_path):
    """The AlexNet of the MXNet notebooks, which `alexnet` is not."""
    from mxnet import nd

    book = textbook("gluon-sequential", "alexnet")
    notebook = sequence_in_gluon(book.config, padding=0)
    gluon.write(tmp_path / "theirs.params", book.theirs, {})
    notebook.load_parameters(str(tmp_path / "theirs.params"))
    assert relative_error(notebook(nd.array(book.images, dtype="float64")).asnumpy(), book.expected) > 1e-3


# --------------------------------------------------------------------------------------------------- recognizing

DISTINCT = [  # of the presets with the same arrays the first
    (scheme, preset, aux)
    for scheme in SCHEMES
    for preset in SCHEMES[scheme].presets
    for aux in with_and_without_heads(preset, scheme)
    if SCHEMES[scheme].heads or preset == SCHEMES[scheme].presets[0]  # the other ones are told by `recognize` too
    if preset == "lenet-bn-frozen" or same_arrays(scheme, preset, aux)[0] == preset
]


@pytest.mark.parametrize(("scheme", "preset", "aux"), DISTINCT)
def test_arrays_are_recognized_as_every_preset_that_has_them(scheme, preset, aux):
    """With the channels and classes that they have."""
    config = spec.preset(preset, aux=aux, in_channels=2, num_classes=7, **scaleless(scheme))
    found, configs = recognized(empty(config, scheme))
    alike = scheme == "gluon" and config.batch_norm is None
    assert found is SCHEMES["canonical" if alike else scheme]
    assert [other.preset for other in configs] == same_arrays(scheme, preset, aux)
    sizes = {(other.in_channels, other.num_classes, other.aux) for other in configs}
    assert sizes == {(2, 7, aux)}
    assert config in configs


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floating_point_of_any_size_is_recognized(dtype):
    config = spec.preset("bvlc")
    arrays = empty(config, "caffe", dtype)
    scheme, configs = recognized(arrays)
    assert configs == [config]
    assert {x.dtype for x in rename(arrays, scheme, config).values()} == {np.dtype(dtype)}


@pytest.mark.skipif("jax" not in TESTED, reason="NumPy has bfloat16 from what JAX brings along")
def test_bfloat16_is_recognized():
    import ml_dtypes

    config = spec.preset("d2l")
    assert recognized(empty(config, "d2l-sequential", ml_dtypes.bfloat16))[1] == [config]


@pytest.mark.parametrize(("scheme", "counter"), [("canonical", "norm"), ("torchvision", "bn")])
def test_pytorch_s_counters_of_batches_are_ignored(scheme, counter):
    config = spec.preset("torchvision")
    names = foreign_names(SCHEMES[scheme], config)
    layers = [theirs.removesuffix(".weight") for name, theirs in names.items() if name.endswith(".norm.weight")]
    assert len(layers) == 59
    counters = {f"{layer}.num_batches_tracked": np.array(3) for layer in layers}
    arrays = empty(config, scheme)
    assert recognized(arrays | counters)[1] == [config]
    assert list(rename(arrays | counters, SCHEMES[scheme], config)) == list(spec.param_shapes(config))
    with pytest.raises(spec.InvalidInput, match="unexpected: num_batches_tracked"):
        recognized(arrays | {"num_batches_tracked": np.array(3)})
    with pytest.raises(spec.InvalidInput, match=rf"unexpected: conv1.{counter}.num_batches_tracked"):
        recognized(empty(config, "nnx") | {f"conv1.{counter}.num_batches_tracked": np.array(3)})


def test_the_caller_says_which_of_several_presets_it_is():
    arrays = empty(spec.preset("d2l"))
    assert [config.preset for config in recognized(arrays)[1]] == PLAIN
    best = nearest(arrays)
    assert (best.scheme, best.config, best.lines()) == (SCHEMES["canonical"], spec.preset("d2l"), [])
    assert [config.preset for config in recognized(arrays, "cnblogs")[1]] == ["cnblogs"]
    with pytest.raises(
        spec.InvalidInput, match="expected arrays of preset torchvision, got ones of d2l, d2lzh, cnblogs, "
    ):
        recognized(arrays, "torchvision")
    with pytest.raises(spec.InvalidInput, match="unknown preset 'resnet'"):
        recognized(arrays, "resnet")
    with pytest.raises(spec.InvalidInput, match="do not fit preset bvlc; nearest is scheme canonical, preset bvlc"):
        recognized(arrays | {"x": np.zeros(1)}, "bvlc")


def test_a_scale_other_than_one_is_not_taken_for_a_fixed_one():
    arrays = empty(spec.preset("lenet-bn"), "gluon")  # zeros
    assert [config.preset for config in recognized(arrays)[1]] == NORMED
    with pytest.raises(spec.InvalidInput, match="expected arrays of preset lenet-bn-frozen, got ones of lenet-bn, "):
        recognized(arrays, "lenet-bn-frozen")
    assert recognized(empty(spec.preset("lenet-bn-frozen"), "gluon"), "lenet-bn-frozen")[1] == [
        spec.preset("lenet-bn-frozen")
    ]


def test_a_counter_of_batches_tells_pytorch_s_own_batch_norm():
    counters = {f"{layer}.norm.num_batches_tracked": np.array(3) for layer in ("conv1", "conv2", "fc3", "fc4")}
    assert recognized(empty(spec.preset("lenet-bn")) | counters)[1] == [spec.preset("lenet-bn")]


# -------------------------------------------------------------------------------------------------------- refusals


def without(arrays: Arrays, *parts: str) -> Arrays:
    return {name: x for name, x in arrays.items() if not any(part in name for part in parts)}


def transposed(arrays: Arrays, *axes: int) -> Arrays:
    return {name: x.transpose(axes) if x.ndim == len(axes) else x for name, x in arrays.items()}


D2L = empty(spec.preset("d2l"))
BVLC = empty(spec.preset("bvlc"), "caffe")
LENET = empty(spec.preset("lenet"), "d2l-sequential")
NIN = empty(spec.preset("nin"))
VISION = empty(spec.preset("torchvision"), "torchvision")
REFUSED: dict[str, tuple[Arrays, list[str]]] = {
    "nothing": ({}, ["these 0 arrays", "missing: ", "and 113 more"]),
    "one missing": (
        without(D2L, "conv2.bias"),
        ["nearest is scheme canonical, preset d2l (in_channels=1, num_classes=10): missing: conv2.bias (192,)"],
    ),
    "one too many": (D2L | {"extra": np.zeros(3)}, ["preset d2l (in_channels=1, num_classes=10): unexpected: extra"]),
    "several of each": (
        without(VISION, "inception5b.branch1.") | {f"x{i}": np.zeros(1) for i in range(7)},
        [
            "scheme torchvision, preset torchvision (in_channels=3, num_classes=1000, with auxiliary heads)",
            "missing: inception5b.branch1.conv.weight (384, 832, 1, 1), inception5b.branch1.bn.weight (384,), "
            "inception5b.branch1.bn.bias (384,) and 2 more; unexpected: x0, x1, x2 and 4 more",
        ],
    ),
    "one head": (
        without(BVLC, "loss2"),
        ["with auxiliary heads): missing: loss2/conv.weight (128, 528, 1, 1)", "heads are there in part"],
    ),
    "one head, where other presets have none": (
        without(empty(spec.preset("bvlc")), "aux2"),
        ["scheme canonical, preset bvlc (in_channels=3, num_classes=1000, with auxiliary heads): missing: aux2.conv"],
    ),
    "a counter where nothing is counted": (
        D2L | {"conv1.norm.num_batches_tracked": np.array(3)},
        ["preset d2l (in_channels=1, num_classes=10): unexpected: conv1.norm.num_batches_tracked"],
    ),
    "half a head": (
        without(VISION, "aux1.fc", "aux2"),
        ["num_classes=1000): unexpected: aux1.conv.conv.weight", "heads are there in part: expected both or neither"],
    ),
    "heads where there are none": (
        D2L | {"aux1.conv.weight": np.zeros((128, 512, 1, 1))},
        ["unexpected: aux1.conv.weight"],
    ),
    "heads of other classes": (
        BVLC | {"loss1/classifier.bias": np.zeros(10), "loss1/classifier.weight": np.zeros((10, 1024))},
        ["wrong shape: loss1/classifier.weight: expected (1000, 1024), got (10, 1024), loss1/classifier.bias: "],
    ),
    "dense layers transposed": (
        transposed(VISION, 1, 0),
        [
            "aux1.fc1.weight: expected (1024, 2048), got (2048, 1024)",
            "shapes look like IO: expected OI (O out, I in), transpose them",
        ],
    ),
    "kernels as in TensorFlow": (
        transposed(BVLC, 2, 3, 1, 0),
        [
            "num_classes=1000, with auxiliary heads): wrong shape: conv1/7x7_s2.weight: expected (64, 3, 7, 7), "
            "got (7, 7, 3, 64), conv2/3x3_reduce.weight",
            " and 56 more; shapes look like HWIO: expected OIHW (O out, I in), transpose them",
        ],
    ),
    "kernels as in NHWC": (transposed(D2L, 0, 2, 3, 1), ["shapes look like OHWI: expected OIHW"]),
    "PyTorch's kernels under JAX's names": (
        transposed(transposed(empty(spec.preset("torchvision"), "nnx"), 3, 2, 0, 1), 1, 0),
        ["scheme nnx", "shapes look like OIHW: expected HWIO", "shapes look like OI: expected IO"],
    ),
    "the LeNet of Dive into Deep Learning, which pads": (
        LENET | {"7.weight": np.zeros((120, 400))},
        ["scheme d2l-sequential, preset lenet", "wrong shape: 7.weight: expected (120, 256), got (120, 400)"],
    ),
    "a part of a LeNet in a class": (
        {f"model.{name}": x for name, x in LENET.items() if name != "0.bias"},
        ["nearest is scheme d2l-sequential, preset lenet", "missing: 0.bias"],
    ),
    "as many channels as classes, elsewhere": (
        NIN | {"conv4_mlp2.weight": np.zeros((7, 7, 1, 1)), "conv4_mlp2.bias": np.zeros(7)},
        [
            "preset nin (in_channels=1, num_classes=10): ",
            "conv4_mlp2.weight: expected (10, 10, 1, 1), got (7, 7, 1, 1)",
        ],
    ),
    "no classes in NiN": (
        NIN | {"conv4.weight": np.zeros((0, 384, 3, 3))},
        ["conv4.weight: expected (10, 384, 3, 3), got (0, 384, 3, 3)"],
    ),
    "another width": (
        D2L | {"inception4a.branch3x3.bias": np.zeros(108)},
        ["wrong shape: inception4a.branch3x3.bias: expected (208,), got (108,)"],
    ),
    "no channels": (
        D2L | {"conv1.weight": np.zeros((64, 0, 7, 7))},
        ["in_channels=1", "conv1.weight: expected (64, 1, 7, 7), got (64, 0, 7, 7)"],
    ),
    "no classes": (
        D2L | {"fc.weight": np.zeros((0, 1024)), "fc.bias": np.zeros(0)},
        ["fc.weight: expected (10, 1024), got (0, 1024)"],
    ),
    "no dimensions": (D2L | {"fc.weight": np.zeros(()), "fc.bias": np.zeros(())}, ["expected (10, 1024), got ()"]),
    "whole numbers": (
        empty(spec.preset("d2l"), dtype=np.int8),
        ["wrong type: conv1.weight: expected floating point of 16 to 64 bits, got int8", "and 113 more"],
    ),
    "complex numbers": (D2L | {"fc.bias": np.zeros(10, complex)}, ["wrong type: fc.bias: ", "got complex128"]),
    "objects": (D2L | {"fc.bias": np.full(10, None)}, ["wrong type: fc.bias: ", "got object"]),
    "records": (D2L | {"fc.bias": np.zeros(10, "f4,f4")}, ["wrong type: fc.bias: ", "got void64"]),
    "no statistics": (
        without(VISION, "running_var"),
        ["missing: conv1.bn.running_var (64,), conv2.bn.running_var (64,), conv3.bn.running_var (192,) and 56 more"],
    ),
    "two conventions mixed": (
        without(D2L, "conv1.weight") | {"conv1.kernel": np.zeros((7, 7, 1, 64))},
        ["missing: conv1.weight (64, 1, 7, 7); unexpected: conv1.kernel"],
    ),
    "names that write on the screen": (
        D2L | {"\x1b[2J\nfits": np.zeros(1), "\udc80\u202e": np.zeros(1), "n" * 10**6: np.zeros(1)},
        [r"unexpected: \x1b[2J\nfits, \udc80\u202e, nnn", "nnn..."],
    ),
    "as many axes as there can be": (D2L | {"fc.bias": np.zeros((1,) * 32)}, ["fc.bias: expected (10,), got (1, 1, 1"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_arrays_of_no_network_are_refused_with_the_nearest_and_the_differences(what):
    arrays, parts = REFUSED[what]
    before = dict(arrays)
    with pytest.raises(spec.InvalidInput) as refused:
        recognized(arrays)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 1500
    for part in parts:
        assert part in message
    best = nearest(arrays)
    assert f"nearest is scheme {best.scheme.name}, preset {best.config.preset} " in message
    assert best.lines()
    assert all(line.isprintable() for line in best.lines())
    with pytest.raises(spec.InvalidInput, match="do not fit scheme"):
        rename(best.arrays, best.scheme, best.config)
    assert arrays.keys() == before.keys()


def test_nearest_names_every_difference():
    arrays = without(VISION, "running_var") | {"x": np.zeros(1)}
    best = nearest(arrays)
    differences = best.lines()
    assert (best.scheme.name, best.config) == ("torchvision", spec.preset("torchvision"))
    assert len(differences) == 60
    assert differences[0] == "missing: conv1.bn.running_var (64,)"
    assert differences[-1] == "unexpected: x"


def test_a_hundred_thousand_arrays_are_refused_within_two_seconds():
    arrays = {f"layer{i}.odd": np.zeros((), np.int8) for i in range(100_000)}
    start = time.process_time()
    with pytest.raises(spec.InvalidInput, match="these 100000 arrays do not fit any preset; nearest is"):
        recognized(arrays)
    assert len(nearest(arrays).lines()) == 100_116
    assert time.process_time() - start < 2


# --------------------------------------------------------------------------------------------- torchvision's logits

BOUNDS = {"float64": 1e-12, "float32": 1e-5}
HEADS = {"fc": "logits", "aux1": "aux_logits1", "aux2": "aux_logits2"}


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(torchvision_googlenet.RECORDED) as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights(recorded) -> Arrays:
    """torchvision's arrays, by its names, that the logits were computed with."""
    arrays = torchvision_googlenet.weights(shapes(recorded, "recorded"))
    assert torchvision_googlenet.digest(arrays) == str(recorded["weights_sha256"]), "NumPy draws other numbers now"
    return arrays


def shapes(recorded: dict[str, np.ndarray], variant: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in json.loads(str(recorded["state_dicts"]))[variant].items()}


def canonical(weights: Arrays, dtype: str, scheme: Scheme = SCHEMES["torchvision"]) -> tuple[spec.Config, Arrays]:
    _, (config,) = recognized(weights)
    return config, {name: x.astype(dtype) for name, x in rename(weights, scheme, config).items()}


def head_errors(stages: Arrays, recorded: dict[str, np.ndarray], dtype: str) -> dict[str, float]:
    return {stage: relative_error(stages[stage], recorded[f"{dtype}/{head}"]) for stage, head in HEADS.items()}


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("with heads", {}), ("without heads", {"aux": False}), ("recorded", {"num_classes": 10})],
)
def test_torchvision_s_state_dicts_are_recognized(variant, settings, recorded):
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(recorded, variant).items()}
    assert len(arrays) == (344 if variant == "without heads" else 364)
    scheme, configs = recognized(arrays)
    assert (scheme.name, configs) == ("torchvision", [spec.preset("torchvision", **settings)])
    assert len(rename(arrays, scheme, configs[0])) == len(arrays) - (57 if variant == "without heads" else 59)


def assert_same_logits(backend: ModuleType, dtype: str, recorded: dict[str, np.ndarray], weights: Arrays) -> None:
    config, params = canonical(weights, dtype)
    model = loaded(backend, config, params, dtype)
    images = torchvision_googlenet.images().astype(dtype)
    errors = head_errors(backend.activations(model, images), recorded, dtype)
    assert max(errors.values()) <= BOUNDS[dtype], errors


@pytest.mark.parametrize("dtype", BOUNDS)
def test_pytorch_computes_torchvision_s_logits(dtype, torch_backend, recorded, weights):
    assert_same_logits(torch_backend, dtype, recorded, weights)


@pytest.mark.slow  # JAX compiles 10 s; that it computes what the referee does, test_parity.py says
@pytest.mark.parametrize("dtype", BOUNDS)
def test_every_backend_computes_torchvision_s_logits(dtype, backend, recorded, weights):
    assert_same_logits(backend, dtype, recorded, weights)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_the_referee_computes_torchvision_s_logits(dtype, recorded, weights):
    stages = reference.activations(*canonical(weights, dtype), torchvision_googlenet.images().astype(dtype))
    errors = head_errors(stages, recorded, dtype)
    assert max(errors.values()) <= BOUNDS[dtype], errors


def test_torchvision_s_transform_input_is_another_normalization(recorded, weights):
    """Images normalized for ImageNet and transformed are (x - 0.5) / 0.5 of the pixels."""
    images = (torchvision_googlenet.images() - 0.5) / 0.5
    logits = reference.predict(*canonical(weights, "float64"), images)
    assert relative_error(logits, recorded["float64/logits_of_transformed_input"]) <= 1e-12


def swapped(table: Any, one: str, other: str) -> dict[str, str]:
    return {**table, one: table[other], other: table[one]}


@pytest.mark.parametrize(
    ("table", "one", "other", "wrong"),
    [
        ("layers", "inception4c.branch1x1", "inception4c.branch3x3_reduce", {"aux2", "fc"}),
        ("layers", "inception5a.branch5x5", "inception5a.pool_proj", set()),  # other shapes: refused
        ("layers", "aux1.fc2", "aux2.fc2", {"aux1", "aux2"}),
        ("convolution", "norm.weight", "norm.running_var", {"aux1", "aux2", "fc"}),
        ("convolution", "norm.bias", "norm.running_mean", {"aux1", "aux2", "fc"}),
    ],
)
def test_a_wrong_table_of_names_shows_in_the_logits(table, one, other, wrong, recorded, weights):
    scheme = SCHEMES["torchvision"]
    tables = (
        {"layers": {"torchvision": swapped(scheme.layers["torchvision"], one, other)}}
        if table == "layers"
        else {table: swapped(getattr(scheme, table), one, other)}
    )
    scheme = replace(scheme, **tables)
    if not wrong:
        with pytest.raises(spec.InvalidInput, match="wrong shape"):
            canonical(weights, "float64", scheme)
        return
    config, params = canonical(weights, "float64", scheme)
    errors = head_errors(reference.activations(config, params, torchvision_googlenet.images()), recorded, "float64")
    assert {stage for stage, error in errors.items() if error > 1e-4} == wrong
    assert {stage for stage, error in errors.items() if error > 1e-12} == wrong
