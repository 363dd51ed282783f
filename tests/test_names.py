"""Other people's names: every scheme there and back, what arrays are taken for, and torchvision's own logits."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from recorded import torchvision_googlenet
from support import TESTED, loaded

import spec
from harness.backend import load
from harness.compare import probe_params, relative_error
from harness.formats import gluon
from harness.names import SCHEMES, Scheme, foreign, foreign_names, identify, nearest, rename
from spec import reference

Arrays = dict[str, np.ndarray]


LARGE = ("alexnet", "vgg11")  # 47 and 129 million numbers: only names and shapes of them are quick


def every(large: tuple[str, ...] = ()) -> list:
    """Every scheme with each of its presets, with and without heads."""
    return [
        pytest.param(
            *(scheme, preset, aux),
            id=f"{scheme}-{preset}{'-heads' if aux else ''}",
            marks=[pytest.mark.large] if preset in large else [],
        )
        for scheme in SCHEMES
        for preset in SCHEMES[scheme].presets
        for aux in ([True, False] if spec.PRESETS[preset].aux else [False])
    ]


def numbered(config: spec.Config) -> Arrays:
    """No two numbers of an array alike, and no two arrays."""
    shapes = spec.param_shapes(config).items()
    return {
        name: np.arange(np.prod(shape), dtype=np.float64).reshape(shape) + i for i, (name, shape) in enumerate(shapes)
    }


def empty(config: spec.Config, scheme: str = "canonical", dtype: Any = np.float32) -> Arrays:
    """Names and shapes of a file, zeros but for what is fixed; every number of an array is the same one in memory."""
    params = {name: np.broadcast_to(np.float32(0), shape) for name, shape in spec.param_shapes(config).items()}
    arrays = foreign(params, SCHEMES[scheme], config)
    return {name: np.broadcast_to(np.asarray(x.flat[0], dtype), x.shape) for name, x in arrays.items()}


# ------------------------------------------------------------------------------------------------ there and back


@pytest.mark.parametrize(("scheme", "preset", "aux"), every(large=LARGE))
def test_there_and_back(scheme, preset, aux):
    config = spec.preset(preset, aux=aux, in_channels=2, num_classes=7)
    params = numbered(config)
    theirs = foreign(params, SCHEMES[scheme], config)
    fixed = preset == "lenet-bn-frozen" and scheme in ("gluon", "gluon-sequential")
    assert len(theirs) == len(params) + (8 if fixed else 0)
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
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_as_published(scheme):
    preset = "torchvision" if scheme in ("canonical", "gluon", "nnx") else SCHEMES[scheme].presets[0]
    names = foreign_names(SCHEMES[scheme], spec.preset(preset))
    assert {name: names[name] for name in LITERAL[scheme]} == LITERAL[scheme]
    assert len(set(names.values())) == len(names)


def test_layouts():
    config = spec.preset("d2l")
    params = numbered(config)
    theirs = foreign(params, SCHEMES["nnx"], config)
    assert theirs["conv1.kernel"].shape == (7, 7, 1, 64)
    assert theirs["conv1.kernel"][3, 4, 0, 5] == params["conv1.weight"][5, 0, 3, 4]
    assert theirs["fc.kernel"].shape == (1024, 10)
    assert theirs["fc.kernel"][100, 3] == params["fc.weight"][3, 100]
    assert foreign(params, SCHEMES["gluon-sequential"], config)["0.0.weight"] is not params["conv1.weight"]


def test_a_scheme_names_its_presets_only():
    config = spec.preset("bvlc")
    with pytest.raises(
        spec.InvalidInput, match="no names in scheme hand-written: expected one of canonical, gluon, nnx, caffe"
    ):
        foreign(numbered(config), SCHEMES["hand-written"], config)


def test_batch_norm_of_a_notebook_s_own_has_no_names_of_the_library_s():
    config = spec.preset("lenet-bn-scratch")
    for scheme in ("d2l-sequential", "gluon-sequential"):
        with pytest.raises(spec.InvalidInput, match=r"expected one of canonical, gluon, nnx$"):
            foreign(empty(config), SCHEMES[scheme], config)


@pytest.mark.parametrize("scheme", ["gluon", "gluon-sequential"])
def test_gluon_stores_what_is_fixed(scheme):
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
            ({name: x + 1e-3}, f"wrong value: {name}: expected {x[0]:.0f} everywhere, as it is not learned"),
            ({name: np.full_like(x, np.nan)}, f"wrong value: {name}"),
            ({name: x[1:]}, f"wrong shape: {name}"),
        ):
            with pytest.raises(spec.InvalidInput, match=message):
                rename(arrays | wrong, SCHEMES[scheme], config)
        with pytest.raises(spec.InvalidInput, match=f"missing: {name}"):
            rename(without(arrays, name), SCHEMES[scheme], config)


def test_what_does_not_fit_is_not_renamed():
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


@pytest.mark.parametrize("preset", ["torchvision", "bvlc", "nin", "lenet", "lenet-bn", "lenet-bn-frozen"])
def test_each_framework_has_the_names_of_its_scheme(preset, backend):
    config = spec.preset(preset, in_channels=2, num_classes=7)
    params = {name: x.astype(np.float32) for name, x in probe_params(config, seed=4).items()}
    arrays = own_arrays(backend, loaded(backend, config, params, "float32"))
    scheme, configs = identify(arrays)
    # PyTorch counts batches in its own batch norm only; Gluon stores a scale and a shift of 1 and 0 as any others.
    others = {"lenet-bn": ["lenet-bn-scratch"], "lenet-bn-frozen": ["lenet-bn", "lenet-bn-scratch"]}.get(preset, [])
    if backend.__name__ == "googlenet_pt" or (backend.__name__, preset) == ("googlenet_jax", "lenet-bn-frozen"):
        others = []
    assert {found.preset for found in configs} == {preset, *others}
    assert config in configs
    native = {"googlenet_pt": "canonical", "googlenet_mx": "gluon", "googlenet_jax": "nnx"}[backend.__name__]
    if backend.__name__ == "googlenet_mx" and config.batch_norm is None:
        native = "canonical"  # without batch norm the two are one
    assert scheme.name == native
    back = rename(arrays, scheme, config)
    assert all(np.array_equal(back[name], x) for name, x in params.items())


# ------------------------------------------------------------------------------------- the textbooks' own networks

ROWS = {  # what goes in, and the notebooks' c1 to c4
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


def in_torch(scheme: str) -> Any:
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

    blocks = {name: Inception(*row) for name, row in ROWS.items()}
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
        net.fc = nn.Linear(1024, 10)
        return net.double().eval()
    block3, block4, block5 = list(blocks.values())[:2], list(blocks.values())[2:7], list(blocks.values())[7:]
    trunk = [nn.Sequential(*block3, pool()), nn.Sequential(*block4, pool())]
    if scheme == "d2l-sequential":
        stage2 = nn.Sequential(reduce, nn.ReLU(), conv2, nn.ReLU(), pool())
        end = [nn.Sequential(*block5, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(1024, 10)]
    else:
        stage2 = nn.Sequential(reduce, conv2, pool())
        end = [nn.Sequential(*block5, nn.AdaptiveAvgPool2d(1)), nn.Flatten(), nn.Linear(1024, 10)]
    return nn.Sequential(conv1, stage2, *trunk, *end).double().eval()


@pytest.mark.skipif("pt" not in TESTED, reason="these notebooks are in PyTorch")
@pytest.mark.parametrize(
    ("scheme", "preset", "size"),
    [("d2l-sequential", "d2l", 28), ("d2lzh-sequential", "d2lzh", 28), ("hand-written", "cnblogs", 193)],
)
def test_a_notebook_in_torch_computes_the_same(scheme, preset, size):
    import torch

    torch.manual_seed(5)
    notebook, backend = in_torch(scheme), load("pt")
    arrays = {name: x.numpy() for name, x in notebook.state_dict().items()}
    found, (config,) = identify(arrays)
    assert (found.name, config) == (scheme, spec.preset(preset))
    images = np.random.default_rng(5).normal(size=(1, 1, size, size))
    with torch.inference_mode():
        expected = notebook(torch.from_numpy(images)).numpy()
    params = rename(arrays, found, config)
    assert relative_error(backend.predict(loaded(backend, config, params), images), expected) <= 1e-12
    other = spec.preset("d2l" if preset == "d2lzh" else "d2lzh")  # the ReLUs of stage 2: nothing that names could tell
    assert relative_error(backend.predict(loaded(backend, other, params), images), expected) > 1e-6


def in_gluon(rows: dict[str, tuple], relu: str | None) -> Any:
    """The network as the notebooks in MXNet build it: activations inside convolutions, input channels inferred."""
    from mxnet import nd
    from mxnet.gluon import nn

    class Inception(nn.Block):
        def __init__(self, c1, c2, c3, c4):
            super().__init__()
            self.p1_1 = nn.Conv2D(c1, 1, activation="relu")
            self.p2_1 = nn.Conv2D(c2[0], 1, activation="relu")
            self.p2_2 = nn.Conv2D(c2[1], 3, padding=1, activation="relu")
            self.p3_1 = nn.Conv2D(c3[0], 1, activation="relu")
            self.p3_2 = nn.Conv2D(c3[1], 5, padding=2, activation="relu")
            self.p4_1 = nn.MaxPool2D(3, 1, 1)
            self.p4_2 = nn.Conv2D(c4, 1, activation="relu")

        def forward(self, x):
            ends = self.p1_1(x), self.p2_2(self.p2_1(x)), self.p3_2(self.p3_1(x)), self.p4_2(self.p4_1(x))
            return nd.concat(*ends, dim=1)

    def sequential(*layers):
        block = nn.Sequential()
        block.add(*layers)
        return block

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
    net.initialize()
    return net


@pytest.mark.skipif("mx" not in TESTED, reason="these notebooks are in MXNet")
@pytest.mark.parametrize(
    ("preset", "rows", "relu", "found"),
    [
        ("d2l", ROWS, "relu", ["d2l", "d2lzh"]),
        ("d2lzh", ROWS, None, ["d2l", "d2lzh"]),
        ("d2lzh-misprint", MISPRINTED, None, ["d2lzh-misprint"]),
    ],
)
def test_a_notebook_in_gluon_computes_the_same(preset, rows, relu, found):
    from mxnet import nd, random

    random.seed(5)
    notebook, backend = in_gluon(rows, relu), load("mx")
    images = np.random.default_rng(5).normal(size=(1, 1, 28, 28))
    expected = notebook(nd.array(images, dtype="float64")).asnumpy()
    arrays = {name: x.data().asnumpy() for name, x in notebook._collect_params_with_prefix().items()}
    scheme, configs = identify(arrays)
    assert (scheme.name, [config.preset for config in configs]) == ("gluon-sequential", found)
    config = spec.preset(preset)
    model = loaded(backend, config, rename(arrays, scheme, config))
    assert relative_error(backend.predict(model, images), expected) <= 1e-12


SIZES = {"lenet": 28, "lenet-bn": 31, "lenet-bn-frozen": 28, "nin": 67, "vgg11-narrow": 224}
SIZES_OF_LARGE = {"alexnet": 224, "vgg11": 224}
WIDTHS = {"vgg11": (64, 128, 256, 512, 512), "vgg11-narrow": (8, 16, 32, 64, 64)}
SEQUENCES = [*SIZES, *(pytest.param(preset, marks=pytest.mark.large) for preset in SIZES_OF_LARGE)]


def sequence_in_torch(preset: str, pool: str = "MaxPool2d") -> Any:
    """The sequence built as Dive into Deep Learning does in PyTorch, in float64."""
    from torch import nn

    def vgg_block(convolutions, into, out):
        layers = []
        for _ in range(convolutions):
            layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
            into = out
        return nn.Sequential(*layers, nn.MaxPool2d(2, 2))

    def nin_block(into, out, kernel, stride, padding):
        first = [nn.Conv2d(into, out, kernel, stride, padding), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(out, out, 1), nn.ReLU(), nn.Conv2d(out, out, 1), nn.ReLU())

    def norm(kind, channels):
        return [getattr(nn, kind)(channels, affine=preset != "lenet-bn-frozen")] if preset != "lenet" else []

    def dense(values):
        first = [nn.Linear(values, 4096), nn.ReLU(), nn.Dropout(0.5)]
        return [nn.Flatten(), *first, nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 10)]

    if preset.startswith("lenet"):
        layers = []
        for into, out in ((1, 6), (6, 16)):
            layers += [nn.Conv2d(into, out, 5), *norm("BatchNorm2d", out), nn.Sigmoid(), getattr(nn, pool)(2, 2)]
        layers.append(nn.Flatten())
        for into, out in ((256, 120), (120, 84)):
            layers += [nn.Linear(into, out), *norm("BatchNorm1d", out), nn.Sigmoid()]
        layers.append(nn.Linear(84, 10))
    elif preset == "alexnet":
        layers = [nn.Conv2d(1, 96, 11, 4, 1), nn.ReLU(), nn.MaxPool2d(3, 2)]
        layers += [nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        for into, out in ((256, 384), (384, 384), (384, 256)):
            layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2), *dense(6400)]
    elif preset == "nin":
        layers = []
        for *block, stride, padding in ((1, 96, 11, 4, 0), (96, 256, 5, 1, 2), (256, 384, 3, 1, 1)):
            layers += [nin_block(*block, stride, padding), nn.MaxPool2d(3, 2)]
        layers += [nn.Dropout(0.5), nin_block(384, 10, 3, 1, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    else:
        widths = WIDTHS[preset]
        blocks = zip((1, 1, 2, 2, 2), (1, *widths), widths, strict=False)
        layers = [*(vgg_block(*block) for block in blocks), *dense(widths[-1] * 49)]
    return nn.Sequential(*layers).double().eval()


def sequence_in_gluon(preset: str, padding: int = 1) -> Any:
    """The sequence built as the first Chinese edition does in MXNet, but for AlexNet's first padding, in float64."""
    from mxnet.gluon import nn

    def sequential(*layers):
        block = nn.Sequential()
        block.add(*layers)
        return block

    def conv(channels, kernel, stride=1, pad=0):
        return nn.Conv2D(channels, kernel, stride, pad, activation="relu")

    def vgg_block(convolutions, channels):
        return sequential(*(conv(channels, 3, pad=1) for _ in range(convolutions)), nn.MaxPool2D(2, 2))

    def nin_block(channels, *window):
        return sequential(conv(channels, *window), conv(channels, 1), conv(channels, 1))

    def ends(layer, *settings):
        """The layer with its activation inside, or behind batch norm."""
        if preset == "lenet":
            return [layer(*settings, activation="sigmoid")]
        learned = preset != "lenet-bn-frozen"
        return [layer(*settings), nn.BatchNorm(center=learned, scale=learned), nn.Activation("sigmoid")]

    dense = [nn.Dense(4096, activation="relu"), nn.Dropout(0.5), nn.Dense(4096, activation="relu"), nn.Dropout(0.5)]
    if preset.startswith("lenet"):
        layers = [*ends(nn.Conv2D, 6, 5), nn.MaxPool2D(2, 2), *ends(nn.Conv2D, 16, 5), nn.MaxPool2D(2, 2)]
        layers += [*ends(nn.Dense, 120), *ends(nn.Dense, 84), nn.Dense(10)]
    elif preset == "alexnet":
        layers = [conv(96, 11, 4, padding), nn.MaxPool2D(3, 2), conv(256, 5, pad=2), nn.MaxPool2D(3, 2)]
        layers += [
            *(conv(channels, 3, pad=1) for channels in (384, 384, 256)),
            nn.MaxPool2D(3, 2),
            *dense,
            nn.Dense(10),
        ]
    elif preset == "nin":
        layers = []
        for block in ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1)):
            layers += [nin_block(*block), nn.MaxPool2D(3, 2)]
        layers += [nn.Dropout(0.5), nin_block(10, 3, 1, 1), nn.GlobalAvgPool2D(), nn.Flatten()]
    else:
        blocks = zip((1, 1, 2, 2, 2), WIDTHS[preset], strict=True)
        layers = [*(vgg_block(*block) for block in blocks), *dense, nn.Dense(10)]
    net = sequential(*layers)
    net.cast("float64")
    return net


class Textbook(NamedTuple):
    """A preset's arrays in a notebook's names, pictures, and what the referee makes of them."""

    config: spec.Config
    params: Arrays
    theirs: Arrays
    images: np.ndarray
    expected: np.ndarray


def textbook(scheme: str, preset: str) -> Textbook:
    config = spec.preset(preset)
    params = probe_params(config, seed=6)
    side = (SIZES | SIZES_OF_LARGE)[preset]
    images = np.random.default_rng(6).normal(size=(1, 1, side, side))
    theirs = foreign(params, SCHEMES[scheme], config)
    return Textbook(config, params, theirs, images, reference.predict(config, params, images))


def assert_recognized(arrays: Arrays, scheme: str, book: Textbook, presets: list[str]) -> None:
    """As of those presets, and as the same bits."""
    found, configs = identify(arrays)
    assert (found.name, [config.preset for config in configs]) == (scheme, presets)
    assert book.config in configs
    back = rename(arrays, found, book.config)
    assert all(np.array_equal(back[name], x) for name, x in book.params.items())


@pytest.mark.skipif("pt" not in TESTED, reason="these notebooks are in PyTorch")
@pytest.mark.parametrize("preset", SEQUENCES)
def test_a_sequence_in_torch_computes_the_same(preset):
    import torch

    book, notebook = textbook("d2l-sequential", preset), sequence_in_torch(preset)
    notebook.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in book.theirs.items()})
    with torch.inference_mode():
        got = notebook(torch.from_numpy(book.images)).numpy()
    assert relative_error(got, book.expected) <= 1e-12
    arrays = {name: x.numpy() for name, x in notebook.state_dict().items()}  # with PyTorch's counters
    assert len(arrays) == len(book.theirs) + (4 if "-bn" in preset else 0)
    assert_recognized(arrays, "d2l-sequential", book, [preset])


@pytest.mark.skipif("mx" not in TESTED, reason="these notebooks are in MXNet")
@pytest.mark.parametrize("preset", SEQUENCES)
def test_a_sequence_in_gluon_computes_the_same(preset, tmp_path):
    load("mx")
    from mxnet import nd

    book, notebook = textbook("gluon-sequential", preset), sequence_in_gluon(preset)
    gluon.write(tmp_path / "theirs.params", book.theirs, {})
    notebook.load_parameters(str(tmp_path / "theirs.params"))  # MXNet's own, which misses and refuses
    got = notebook(nd.array(book.images, dtype="float64")).asnumpy()
    assert relative_error(got, book.expected) <= 1e-12
    notebook.save_parameters(str(tmp_path / "ours.params"))
    presets = ["lenet-bn", "lenet-bn-frozen"] if preset == "lenet-bn-frozen" else [preset]
    assert_recognized(gluon.read(tmp_path / "ours.params").arrays, "gluon-sequential", book, presets)


@pytest.mark.skipif("pt" not in TESTED, reason="this notebook is in PyTorch")
def test_what_no_array_tells_of_an_average():
    """Dive into Deep Learning's own LeNet with batch norm, which `lenet-bn` is not."""
    import torch

    book, notebook = textbook("d2l-sequential", "lenet-bn"), sequence_in_torch("lenet-bn", pool="AvgPool2d")
    notebook.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in book.theirs.items()})
    with torch.inference_mode():
        assert relative_error(notebook(torch.from_numpy(book.images)).numpy(), book.expected) > 1e-3


@pytest.mark.large
@pytest.mark.skipif("mx" not in TESTED, reason="this notebook is in MXNet")
def test_what_no_array_tells_of_a_padding(tmp_path):
    """The AlexNet of the MXNet notebooks, which `alexnet` is not."""
    load("mx")
    from mxnet import nd

    book, notebook = textbook("gluon-sequential", "alexnet"), sequence_in_gluon("alexnet", padding=0)
    gluon.write(tmp_path / "theirs.params", book.theirs, {})
    notebook.load_parameters(str(tmp_path / "theirs.params"))
    assert relative_error(notebook(nd.array(book.images, dtype="float64")).asnumpy(), book.expected) > 1e-3


# --------------------------------------------------------------------------------------------------- recognizing

PLAIN = ["d2l", "d2lzh", "cnblogs", "bvlc"]  # the same arrays, but for the heads
NORMED = ["lenet-bn", "lenet-bn-scratch"]


def same_arrays(scheme: str, preset: str, aux: bool) -> list[str]:
    """The presets whose files have the same arrays."""
    if preset in PLAIN and not aux:
        return PLAIN
    if preset == "lenet-bn-frozen" and SCHEMES[scheme].fixed:
        return [*NORMED, preset]  # a scale of 1 and a shift of 0 may have been learned
    return NORMED if preset in NORMED else [preset]


@pytest.mark.parametrize(("scheme", "preset", "aux"), every())
def test_what_arrays_are_taken_for(scheme, preset, aux):
    for config in (spec.preset(preset, aux=aux), spec.preset(preset, aux=aux, in_channels=2, num_classes=7)):
        found, configs = identify(empty(config, scheme))
        alike = scheme == "gluon" and config.batch_norm is None
        assert found is SCHEMES["canonical" if alike else scheme]
        same = same_arrays(scheme, preset, aux)
        assert [other.preset for other in configs] == [name for name in same if name in SCHEMES[scheme].presets]
        sizes = {(other.in_channels, other.num_classes, other.aux) for other in configs}
        assert sizes == {(config.in_channels, config.num_classes, aux)}
        assert config in configs


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_floating_point_of_any_size(dtype):
    config = spec.preset("bvlc")
    arrays = empty(config, "caffe", dtype)
    scheme, configs = identify(arrays)
    assert configs == [config]
    assert {x.dtype for x in rename(arrays, scheme, config).values()} == {np.dtype(dtype)}


@pytest.mark.skipif("jax" not in TESTED, reason="NumPy has bfloat16 from what JAX brings along")
def test_bfloat16():
    import ml_dtypes

    config = spec.preset("d2l")
    assert identify(empty(config, "d2l-sequential", ml_dtypes.bfloat16))[1] == [config]


@pytest.mark.parametrize(("scheme", "counter"), [("canonical", "norm"), ("torchvision", "bn")])
def test_counters_of_batches_are_ignored(scheme, counter):
    config = spec.preset("torchvision")
    names = foreign_names(SCHEMES[scheme], config)
    layers = [theirs.removesuffix(".weight") for name, theirs in names.items() if name.endswith(".norm.weight")]
    assert len(layers) == 59
    counters = {f"{layer}.num_batches_tracked": np.array(3) for layer in layers}
    arrays = empty(config, scheme)
    assert identify(arrays | counters)[1] == [config]
    assert list(rename(arrays | counters, SCHEMES[scheme], config)) == list(spec.param_shapes(config))
    with pytest.raises(spec.InvalidInput, match="unexpected: num_batches_tracked"):
        identify(arrays | {"num_batches_tracked": np.array(3)})
    with pytest.raises(spec.InvalidInput, match=rf"unexpected: conv1.{counter}.num_batches_tracked"):
        identify(empty(config, "nnx") | {f"conv1.{counter}.num_batches_tracked": np.array(3)})


def test_the_caller_says_which():
    arrays = empty(spec.preset("d2l"))
    assert [config.preset for config in identify(arrays)[1]] == PLAIN
    assert nearest(arrays) == (SCHEMES["canonical"], spec.preset("d2l"), [])
    assert [config.preset for config in identify(arrays, "cnblogs")[1]] == ["cnblogs"]
    with pytest.raises(
        spec.InvalidInput, match="expected arrays of preset torchvision, got ones of d2l, d2lzh, cnblogs, "
    ):
        identify(arrays, "torchvision")
    with pytest.raises(spec.InvalidInput, match="unknown preset 'resnet'"):
        identify(arrays, "resnet")
    with pytest.raises(spec.InvalidInput, match="do not fit preset bvlc; nearest is scheme canonical, preset bvlc"):
        identify(arrays | {"x": np.zeros(1)}, "bvlc")


def test_a_scale_that_is_learned_is_not_one_that_is_fixed():
    arrays = empty(spec.preset("lenet-bn"), "gluon")  # zeros
    assert [config.preset for config in identify(arrays)[1]] == NORMED
    with pytest.raises(spec.InvalidInput, match="expected arrays of preset lenet-bn-frozen, got ones of lenet-bn, "):
        identify(arrays, "lenet-bn-frozen")
    assert identify(empty(spec.preset("lenet-bn-frozen"), "gluon"), "lenet-bn-frozen")[1] == [
        spec.preset("lenet-bn-frozen")
    ]


def test_who_counts_batches_has_pytorch_s_own_batch_norm():
    counters = {f"{layer}.norm.num_batches_tracked": np.array(3) for layer in ("conv1", "conv2", "fc3", "fc4")}
    assert identify(empty(spec.preset("lenet-bn")) | counters)[1] == [spec.preset("lenet-bn")]


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
    "LeNet in a class": (
        {f"net.{name}": x for name, x in LENET.items()},
        ["missing: conv1.weight", "unexpected: net.0.weight, net.0.bias, net.3.weight and 7 more"],
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
        [r"unexpected: '\x1b[2J\nfits', '\udc80\u202e', nnn", "nnn..."],
    ),
    "as many axes as there can be": (D2L | {"fc.bias": np.zeros((1,) * 32)}, ["fc.bias: expected (10,), got (1, 1, 1"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    arrays, parts = REFUSED[what]
    before = dict(arrays)
    with pytest.raises(spec.InvalidInput) as refused:
        identify(arrays)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 1500
    for part in parts:
        assert part in message
    scheme, config, differences = nearest(arrays)
    assert f"nearest is scheme {scheme.name}, preset {config.preset} " in message
    assert differences
    assert all(line.isprintable() for line in differences)
    with pytest.raises(spec.InvalidInput, match="do not fit scheme"):
        rename(arrays, scheme, config)
    assert arrays.keys() == before.keys()


def test_nearest_says_everything():
    arrays = without(VISION, "running_var") | {"x": np.zeros(1)}
    scheme, config, differences = nearest(arrays)
    assert (scheme.name, config) == ("torchvision", spec.preset("torchvision"))
    assert len(differences) == 60
    assert differences[0] == "missing: conv1.bn.running_var (64,)"
    assert differences[-1] == "unexpected: x"


def test_a_great_many_arrays_take_little_time():
    arrays = {f"layer{i}.odd": np.zeros((), np.int8) for i in range(100_000)}
    start = time.monotonic()
    with pytest.raises(spec.InvalidInput, match="these 100000 arrays do not fit any preset; nearest is"):
        identify(arrays)
    assert len(nearest(arrays)[2]) == 100_116
    assert time.monotonic() - start < 2


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
    _, (config,) = identify(weights)
    return config, {name: x.astype(dtype) for name, x in rename(weights, scheme, config).items()}


def head_errors(stages: Arrays, recorded: dict[str, np.ndarray], dtype: str) -> dict[str, float]:
    return {stage: relative_error(stages[stage], recorded[f"{dtype}/{head}"]) for stage, head in HEADS.items()}


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("with heads", {}), ("without heads", {"aux": False}), ("recorded", {"num_classes": 10})],
)
def test_torchvision_state_dicts_are_known(variant, settings, recorded):
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes(recorded, variant).items()}
    assert len(arrays) == (344 if variant == "without heads" else 364)
    scheme, configs = identify(arrays)
    assert (scheme.name, configs) == ("torchvision", [spec.preset("torchvision", **settings)])
    assert len(rename(arrays, scheme, configs[0])) == len(arrays) - (57 if variant == "without heads" else 59)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_torchvision_logits(dtype, backend, recorded, weights):
    config, params = canonical(weights, dtype)
    model = loaded(backend, config, params, dtype)
    images = torchvision_googlenet.images().astype(dtype)
    errors = head_errors(backend.activations(model, images), recorded, dtype)
    assert max(errors.values()) <= BOUNDS[dtype], errors


@pytest.mark.parametrize("dtype", BOUNDS)
def test_torchvision_logits_by_the_referee(dtype, recorded, weights):
    stages = reference.activations(*canonical(weights, dtype), torchvision_googlenet.images().astype(dtype))
    errors = head_errors(stages, recorded, dtype)
    assert max(errors.values()) <= BOUNDS[dtype], errors


def test_torchvision_transform_input_is_another_normalization(recorded, weights):
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
def test_a_wrong_table_would_be_seen(table, one, other, wrong, recorded, weights):
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
