"""Weights as people have them, under their own names and in their wrappers: every row of docs/formats.md is tried.

And the way out: what is written with other people's names loads into their own classes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field import rows
from networks import thin
from support import TESTED, googlenet, here

import spec
from harness.agreement import probe_params, relative_error
from harness.weights import names
from harness.weights.convert import fingerprint, foreign_source, prepared, read_weights
from harness.weights.formats import flax, foreign, gluon
from harness.weights.names import SCHEMES
from harness.weights.recognition import recognize
from spec import InvalidInput, reference

Arrays = dict[str, np.ndarray]
Maker = Callable[[Path], Path]


def needs(*backends: str) -> pytest.MarkDecorator:
    missing = [backend for backend in backends if backend not in TESTED]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not listed in GOOGLENET_BACKENDS")


LENET = spec.preset("lenet")
NUMBERS = {name: x.astype("float32") for name, x in probe_params(LENET, 2).items()}
PLAIN = names.foreign(NUMBERS, SCHEMES["d2l-sequential"], LENET)


def marked(preset: str, scheme: str | None = None, **settings: Any) -> tuple[spec.Config, Arrays]:
    """Arrays of a preset that hold one number each, its place in forward order: they take no memory."""
    config = spec.preset(preset, **{"aux": False, **settings})
    shapes = spec.param_shapes(config).values()
    params = {name: np.broadcast_to(np.float16(i), shape) for i, (name, shape) in enumerate(zip(
        spec.param_shapes(config), shapes, strict=True))}  # fmt: skip
    return config, params if scheme is None else foreign.renamed(params, SCHEMES[scheme], config)


# --------------------------------------------------------------------------------------------------------- the rows


def torch_file(state: Callable[[Any], Any], name: str = "a.pt", **settings: Any) -> Maker:
    """A maker of what `torch.save` writes of a state, which is made of PyTorch."""

    def make(folder: Path) -> Path:
        import torch

        torch.save(state(torch), folder / name, **settings)
        return folder / name

    return make


def tensors(torch: Any, arrays: Arrays, prefix: str = "") -> dict[str, Any]:
    return {prefix + name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}


def wrapped(prefix: str) -> Maker:
    return torch_file(lambda torch: tensors(torch, PLAIN, prefix))


def named_in_torch(scheme: str, preset: str = "d2l", **settings: Any) -> Maker:
    return torch_file(lambda torch: tensors(torch, marked(preset, scheme)[1]), **settings)


def checkpoint(**beside: Any) -> Maker:
    """A training script's file: `None` in it becomes the network's state, a function is called with PyTorch."""

    def state(torch: Any) -> dict[str, Any]:
        made = {name: x(torch) if callable(x) else x for name, x in beside.items()}
        return {name: tensors(torch, PLAIN) if x is None else x for name, x in made.items()}

    return torch_file(state)


def optimizer(torch: Any) -> dict[str, Any]:
    """The state dict of PyTorch's SGD, as it was saved."""
    groups = [{"lr": 0.1, "momentum": 0.9, "nesterov": False, "params": [0, 1]}]
    return {"state": {i: {"momentum_buffer": torch.ones(2)} for i in range(2)}, "param_groups": groups}


def in_gluon(arrays: Callable[[], Arrays], name: str = "a.params") -> Maker:
    def make(folder: Path) -> Path:
        gluon.write(folder / name, arrays(), {})
        return folder / name

    return make


def prefixed(prefix: str, preset: str = "d2l") -> Arrays:
    own = marked(preset, "gluon-prefixed")[1]
    return {prefix + name.removeprefix("googlenet0_"): x for name, x in own.items()}


def exported(folder: Path) -> Path:
    arrays = {f"arg:{name}": x for name, x in prefixed("googlenet0_").items()}
    gluon.write(folder / "a-0000.params", arrays, {})
    (folder / "a-symbol.json").write_text(json.dumps({"nodes": [], "arg_nodes": [], "heads": []}))
    return folder / "a-symbol.json"


def gluoncv_flat() -> Arrays:
    """GluonCV's network by `collect_params`: convolutions and batch norms are counted through all blocks."""
    config, params = marked("torchvision")
    layers = [layer.name for layer in spec.layers(config)]
    leaves = {"norm.weight": "gamma", "norm.bias": "beta"}

    def name(canonical: str) -> str:
        layer = next(layer for layer in layers if canonical.startswith(f"{layer}."))
        leaf = canonical.removeprefix(f"{layer}.")
        kind = "dense" if layer == "fc" else "batchnorm" if leaf.startswith("norm") else "conv"
        number = 0 if layer == "fc" else layers.index(layer)
        return f"googlenet0_{kind}{number}_{leaves.get(leaf, leaf).removeprefix('norm.')}"

    return {name(canonical): x for canonical, x in params.items()}


def gluoncv() -> Arrays:
    arrays = marked("torchvision", "gluoncv")[1]
    return arrays | {f"head.2.{leaf}": arrays[f"output.{leaf}"] for leaf in ("weight", "bias")}


def in_flax(arrays: Callable[[], Arrays], **beside: Any) -> Maker:
    def make(folder: Path) -> Path:
        flax.write_tree(folder / "a.msgpack", {**arrays(), **beside})
        return folder / "a.msgpack"

    return make


def compact() -> Arrays:
    """Of a compact module whose expressions nest: the outer convolution is made, and counted, before the inner one."""
    turned = {"Conv_1": "Conv_2", "Conv_2": "Conv_1", "Conv_3": "Conv_4", "Conv_4": "Conv_3"}

    def name(own: str) -> str:
        outer, inner, rest = own.partition("Inception_")
        if not inner:
            return own
        return f"{outer}InceptionBlock_" + re.sub(r"Conv_\d", lambda conv: turned.get(conv[0], conv[0]), rest)

    return {name(own): x for own, x in marked("d2l", "linen")[1].items()}


def without_collection(arrays: Arrays) -> Arrays:
    return {name.removeprefix("params."): x for name, x in arrays.items()}


def train_state() -> Arrays:
    return {**{f"opt_state.0.trace.{name}": x for name, x in without_collection(compact()).items()}, **compact()}


def in_orbax(folder: Path) -> Path:
    import orbax.checkpoint as ocp

    noise = np.random.default_rng(0).random(10**6, dtype="float32").astype("float16")
    tree: dict[str, Any] = {"step": np.int32(100), "opt_state": [{"count": np.int32(3)}, None]}
    for name, x in marked("d2l", "linen")[1].items():
        *path, leaf = name.split(".")
        below = tree
        for key in path:
            below = below.setdefault(key, {})
        # Orbax compresses; a folder that is much smaller than its arrays is refused.
        below[leaf] = np.array(x) if x.ndim == 1 else noise[: x.size].reshape(x.shape).copy()
        below[leaf].flat[0] = x.flat[0]
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "orbax", tree)
    return folder / "orbax"


def pruned(torch: Any) -> dict[str, Any]:
    arrays = marked("torchvision", "torchvision")[1]
    thinner = {name: x[:32] for name, x in arrays.items() if name.startswith("conv1.")}
    return tensors(torch, arrays | thinner | {"conv2.conv.weight": arrays["conv2.conv.weight"][:, :32]}, "module.")


def in_safetensors(folder: Path) -> Path:
    from safetensors.numpy import save_file

    arrays = {f"module.{name}": np.array(x) for name, x in PLAIN.items()}
    save_file(arrays, folder / "a.safetensors", {"format": "pt"})
    return folder / "a.safetensors"


def in_safetensors_of(arrays: Callable[[], Arrays]) -> Maker:
    def make(folder: Path) -> Path:
        from safetensors.numpy import save_file

        save_file({name: np.array(x) for name, x in arrays().items()}, folder / "a.safetensors")
        return folder / "a.safetensors"

    return make


def rows_of_old() -> Arrays:
    arrays = marked("inception-bn", "cadene")[1]
    return {name: x[None] if "_bn." in name else x for name, x in arrays.items()}


def without_biases() -> Arrays:
    arrays = marked("inception-bn", "cadene")[1]
    return {name: x for name, x in arrays.items() if not name.endswith(".bias") or "_bn." in name or "last" in name}


def graph_of_2015(folder: Path) -> Path:
    np.savez(folder / "a.npz", **marked("inception-v3-fid", "tensorflow-2015")[1])
    return folder / "a.npz"


def another_program(folder: Path) -> Path:
    from torch import jit, nn, zeros

    jit.save(jit.trace(nn.Sequential(nn.Linear(3, 4)), zeros(1, 3)), folder / "a.pt")
    return folder / "a.pt"


MAKERS: dict[str, tuple[str, Maker]] = {  # by row: what it needs, and the maker
    "a state dict of `nn.DataParallel`: `module.` before all names": ("pt", wrapped("module.")),
    "a state dict of `torch.compile`: `_orig_mod.`": ("pt", wrapped("_orig_mod.")),
    "both: `module._orig_mod.`": ("pt", wrapped("module._orig_mod.")),
    "an attribute of a class: `net.`, `model.`, `backbone.`": ("pt", wrapped("backbone.")),
    "the same in safetensors": ("", in_safetensors),
    "`model`, `optimizer` and `epoch`": ("pt", checkpoint(model=None, optimizer=optimizer, epoch=3)),
    "`state_dict` and a tensor `best_acc1` beside": (
        "pt",
        checkpoint(state_dict=None, best_acc1=lambda torch: torch.tensor(0.9), optimizer=optimizer),
    ),
    "`model_state_dict` of PyTorch's tutorial": ("pt", checkpoint(model_state_dict=None, loss=0.4)),
    "the ImageNet example's `.pth.tar`: `state_dict` of `nn.DataParallel`": (
        "pt",
        torch_file(
            lambda torch: {"epoch": 90, "arch": "x", "state_dict": tensors(torch, PLAIN, "module.")}, "a.pth.tar"
        ),
    ),
    "`ema` before `net`, both with all names": (
        "pt",
        torch_file(lambda torch: {"ema": tensors(torch, PLAIN), "net": tensors(torch, PLAIN)}),
    ),
    "a NumPy number beside": ("pt", checkpoint(state_dict=None, best=np.float64(0.91), at=np.int64(3))),
    "`argparse.Namespace` beside": ("pt", checkpoint(state_dict=None, args=argparse.Namespace(lr=0.1))),
    "a whole module: `torch.save(model)`": ("pt", torch_file(lambda torch: torch.nn.Sequential(torch.nn.Linear(2, 2)))),
    "lazy layers that have seen no image": (
        "pt",
        torch_file(lambda torch: torch.nn.Sequential(torch.nn.LazyLinear(2)).state_dict()),
    ),
    "the book's first edition: `2.0.p1_1.weight`": ("pt", named_in_torch("d2l-sequential")),
    "the book of today: `net.2.0.b1_1.weight`": ("pt", named_in_torch("d2l-today")),
    "its `net` alone: `2.0.b1_1.weight`": ("pt", named_in_torch("d2l-today-sequential")),
    "parts as attributes: `b1.0.weight` to `fc.bias`": ("pt", named_in_torch("d2l-attributes")),
    "torchvision's `googlenet`": ("pt", named_in_torch("torchvision", "torchvision")),
    "the same from before PyTorch 1.6": (
        "pt",
        named_in_torch("torchvision", "torchvision", _use_new_zipfile_serialization=False),
    ),
    "torchvision's, pruned by hand, with `module.`": ("pt", torch_file(pruned)),
    "Gluon: the book's first edition, `save_parameters`": (
        "",
        in_gluon(lambda: marked("d2l", "gluon-sequential")[1]),
    ),
    "Gluon: the book of today, `net.2.0.b1_1.weight`": ("", in_gluon(lambda: marked("d2l", "gluon-today")[1])),
    "Gluon: its `net` alone": ("", in_gluon(lambda: marked("d2l", "gluon-today-sequential")[1])),
    "Gluon: `collect_params().save`, `hybridsequential0_conv0_weight`": (
        "",
        in_gluon(lambda: prefixed("hybridsequential0_")),
    ),
    "Gluon: `save_params`, `conv0_weight`": ("", in_gluon(lambda: prefixed(""))),
    "Gluon: `googlenet0_conv0_weight`": ("", in_gluon(lambda: prefixed("googlenet0_"))),
    "MXNet: `arg:googlenet0_conv0_weight`": (
        "",
        in_gluon(lambda: {f"arg:{name}": x for name, x in prefixed("googlenet0_").items()}),
    ),
    "MXNet: `export`, with `-symbol.json`": ("", exported),
    "GluonCV's `googlenet`, `save_parameters`": ("", in_gluon(gluoncv)),
    "GluonCV's `googlenet`, `collect_params().save`": ("", in_gluon(gluoncv_flat)),
    "torchvision's `inception_v3`, with `AuxLogits`": (
        "pt",
        torch_file(lambda torch: tensors(torch, marked("inception-v3", "torchvision-v3", aux=True)[1])),
    ),
    "FID's graph of 2015-12-05: `mixed/tower/conv/conv2d_params` in `.npz`": ("", graph_of_2015),
    "Cadene's Inception-BN of old, with batch norm in rows": ("", in_safetensors_of(rows_of_old)),
    "MXNet: the symbol Inception-BN, `arg:conv_1_weight`": (
        "",
        in_gluon(lambda: marked("inception-bn-mxnet", "mxnet-symbol")[1]),
    ),
    "Inception-BN without biases before batch norm": ("", in_safetensors_of(without_biases)),
    "TorchScript of another network": ("pt", another_program),
    "Flax linen: the book's `setup` style": ("", in_flax(lambda: marked("d2l", "linen-today")[1])),
    "Flax linen: its `params` alone": ("", in_flax(lambda: without_collection(marked("d2l", "linen-today")[1]))),
    "Flax linen: compact, `InceptionBlock_0/Conv_0`": ("", in_flax(compact)),
    "Flax linen: compact, `params` alone": ("", in_flax(lambda: without_collection(compact()))),
    "Flax: a `TrainState`, with its optimizer": ("", in_flax(train_state)),
    "Orbax: a tree with `params`, `step` and an optimizer": ("jax", in_orbax),
}
ROWS = {row.what: row for row in rows("Weights: names")}


def test_every_row_is_made_and_every_file_has_a_row():
    assert list(MAKERS) == list(ROWS)


def outcome(path: Path) -> tuple[str, str]:
    """What becomes of a file, and all that is said of it; what is read is read right."""
    try:
        source = read_weights(path, here)
    except InvalidInput as error:
        if "say which with --preset" not in str(error):
            return "refused", str(error)
        source = read_weights(path, here, preset="d2l")
    params = source.weights.params
    if source.weights.config == LENET:
        assert all(np.array_equal(params[name], x) for name, x in NUMBERS.items())
    else:
        assert [x.flat[0] for x in params.values()] == list(range(len(params)))
        assert all((x == x.flat[0]).all() for name, x in params.items() if x.ndim == 1)
    return "read", "; ".join([f"names of {source.scheme}, {source.weights.config}", *source.notes])


@pytest.fixture(scope="module", autouse=True)
def frameworks() -> None:
    """The backends that the makers need, imported apart from the tests."""
    from harness.backends.registry import load

    for backend in TESTED:
        load(backend)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("what", MAKERS)
def test_what_people_have_becomes_what_the_table_says(what, tmp_path):
    backend, make = MAKERS[what]
    if backend and backend not in TESTED:
        pytest.skip(f"{backend} is not listed in GOOGLENET_BACKENDS")
    row = ROWS[what]
    became, said = outcome(make(tmp_path))
    assert (became, row.words in said) == (row.outcome, True), said


# --------------------------------------------------------------------------------------- wrappers, and what shapes tell


@pytest.mark.parametrize("wrappers", [*itertools.permutations(("module", "_orig_mod", "model"), 2)], ids=".".join)
def test_a_wrapped_network_has_the_hash_of_the_plain_one(wrappers):
    def sha256(arrays: Arrays) -> str:
        found = recognize(arrays, "lenet")
        return fingerprint(foreign_source(Path("a.pt"), "pytorch", found, found.configs[0]).weights)

    wrapped = {".".join([*wrappers, name]): x for name, x in PLAIN.items()}
    beside = {"optimizer.0.momentum": np.zeros(3), "n_averaged": np.array(4)}
    assert sha256(wrapped) == sha256(wrapped | beside) == sha256(PLAIN)
    found = recognize(beside | wrapped)
    assert (found.taken_off, found.left_out) == (".".join(wrappers), list(beside))


def test_inspect_says_what_was_taken_off_and_the_hash_that_convert_says(tmp_path):
    path, target = in_safetensors(tmp_path), tmp_path / "b.safetensors"
    shown = googlenet("inspect", str(path)).stdout
    assert "took off `module`, which stands before all names\n" in shown
    assert re.search(r"^0\.weight +6 x 1 x 5 x 5", shown, re.MULTILINE)
    said = googlenet("convert", str(path), str(target)).stdout
    (sha256,) = re.findall(r"SHA-256 (\w{64})", said)
    assert f"what convert makes of it has SHA-256 {sha256}" in shown
    assert f"SHA-256 {sha256}" in googlenet("inspect", str(target)).stdout


def test_inspect_names_the_nearest_network_inside_of_wrappers_and_what_to_do(tmp_path):
    from safetensors.numpy import save_file

    arrays = {f"module.{name}": np.array(x) for name, x in PLAIN.items() if name != "0.bias"}
    save_file(arrays, tmp_path / "a.safetensors")
    shown = googlenet("inspect", str(tmp_path / "a.safetensors"), status=1).stdout
    nearest = "nearest is preset lenet (in_channels=1, num_classes=10) in the names of d2l-sequential:\n"
    assert f"{nearest}  missing: 0.bias (6,)\nwhat to do: give the arrays these names and shapes" in shown


def assert_marked(arrays: Arrays) -> None:
    found = recognize(arrays, "d2l")
    params = found.params(found.configs[0])
    assert [x.flat[0] for x in params.values()] == list(range(len(params)))


def test_shapes_tell_blocks_and_branches_in_any_order():
    """Two branches of 3b and of 4c have one shape, and parts of 4b and 4c: what the other blocks say decides."""
    letters = ["a3", "b3", "a4", "b4", "c4", "d4", "e4", "a5", "b5"]  # which sort as a3, a4, a5, b3

    def name(own: str) -> str:
        block, branch, leaf = own.split(".") if own.count(".") == 2 else ("", "", own)
        return f"{letters[BLOCKS.index(block)]}.{branch[::-1]}.{leaf}" if block else own

    assert_marked(dict(sorted((name(own), x) for own, x in marked("d2l")[1].items())))


def test_statistics_that_flax_keeps_apart_come_together():
    config, arrays = marked("torchvision", "linen")
    assert {name.partition(".")[0] for name in arrays} == {"params", "batch_stats"}
    found = recognize({"step": np.array(3), **arrays})
    assert (found.configs, found.left_out) == ([config], ["step"])
    params = found.params(config)
    assert [x.flat[0] for x in params.values()] == list(range(len(params)))


def test_what_shapes_do_not_tell_is_not_guessed():
    """Where the branches have other names in every block, nothing tells two of one shape."""
    letters = "abcdef"

    def name(own: str) -> str:
        block, branch, leaf = own.split(".") if own.count(".") == 2 else ("", "", own)
        number = BLOCKS.index(block) if block else 0
        order = letters[number % 6 :] + letters[: number % 6]
        return f"part{number}.{order[list(BRANCHES).index(branch)]}.{leaf}" if block else own

    arrays = {name(own): x for own, x in marked("d2l")[1].items()}
    with pytest.raises(InvalidInput, match="these 116 arrays do not fit preset d2l; nearest is scheme"):
        recognize(arrays, "d2l")


# ----------------------------------------------------------------------------------------- into other people's classes

THIN = thin("d2l")
THIN_PARAMS = {name: x.astype("float32") for name, x in probe_params(THIN, 3).items()}
IMAGES = np.random.default_rng(0).random((2, 1, 32, 32), dtype="float32")
BRANCHES = {
    "branch1x1": "b1_1",
    "branch3x3_reduce": "b2_1",
    "branch3x3": "b2_2",
    "branch5x5_reduce": "b3_1",
    "branch5x5": "b3_2",
    "pool_proj": "b4_2",
}
GROUPS = ("ab", "abcde", "ab")
BLOCKS = [f"inception{i + 3}{letter}" for i, group in enumerate(GROUPS) for letter in group]


def widths(block: str) -> dict[str, int]:
    layers = {layer.name: layer.out_channels for layer in spec.layers(THIN)}
    return {own: layers[f"{block}.{branch}"] for branch, own in BRANCHES.items()}


def expected_logits() -> np.ndarray:
    params = {name: x.astype("float64") for name, x in THIN_PARAMS.items()}
    return reference.activations(THIN, params, IMAGES.astype("float64"))[THIN.logits]


@needs("pt")
def test_the_book_s_class_of_today_loads_a_state_dict():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Inception(nn.Module):
        def __init__(self, block: str) -> None:
            super().__init__()
            for own, width in widths(block).items():
                kernel = {"b2_2": 3, "b3_2": 5}.get(own, 1)
                setattr(self, own, nn.LazyConv2d(width, kernel, padding=kernel // 2))

        def forward(self, x: Any) -> Any:
            def path(x: Any, *layers: Any) -> Any:
                for layer in layers:
                    x = F.relu(layer(x))
                return x

            pooled = F.max_pool2d(x, 3, 1, 1)
            first, second = path(x, self.b1_1), path(x, self.b2_1, self.b2_2)
            return torch.cat((first, second, path(x, self.b3_1, self.b3_2), path(pooled, self.b4_2)), 1)

    class Book(nn.Module):
        def __init__(self) -> None:
            super().__init__()

            def pool() -> Any:
                return nn.MaxPool2d(3, 2, 1)

            groups = [[Inception(f"inception{i + 3}{letter}") for letter in group] for i, group in enumerate(GROUPS)]
            stem = [nn.LazyConv2d(w, 1) for w in (THIN_PARAMS["conv2_reduce.bias"].size,)]
            self.net = nn.Sequential(
                nn.Sequential(nn.LazyConv2d(THIN_PARAMS["conv1.bias"].size, 7, 2, 3), nn.ReLU(), pool()),
                nn.Sequential(
                    *stem, nn.ReLU(), nn.LazyConv2d(THIN_PARAMS["conv2.bias"].size, 3, padding=1), nn.ReLU(), pool()
                ),
                nn.Sequential(*groups[0], pool()),
                nn.Sequential(*groups[1], pool()),
                nn.Sequential(*groups[2], nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                nn.LazyLinear(10),
            )

        def forward(self, x: Any) -> Any:
            return self.net(x)

    model = Book()
    model(torch.zeros(1, 1, 32, 32))
    arrays = foreign.renamed(THIN_PARAMS, foreign.asked_scheme("d2l-today", "pytorch", THIN), THIN)
    model.load_state_dict({name: torch.from_numpy(x.copy()) for name, x in arrays.items()})
    with torch.no_grad():
        assert relative_error(model(torch.from_numpy(IMAGES)).numpy(), expected_logits()) < 1e-5


def book_in_gluon(own: Callable[[str], str], **settings: Any) -> Any:
    from mxnet.gluon import nn

    class Inception(nn.HybridBlock):
        def __init__(self, block: str) -> None:
            super().__init__()
            with self.name_scope():
                for name, width in widths(block).items():
                    kernel = {"b2_2": 3, "b3_2": 5}.get(name, 1)
                    layer = nn.Conv2D(width, kernel, padding=kernel // 2, activation="relu")
                    setattr(self, own(name), layer)
                self.pool = nn.MaxPool2D(3, 1, 1)

        def hybrid_forward(self, F: Any, x: Any) -> Any:
            def layer(name: str) -> Any:
                return getattr(self, own(name))

            second, third = layer("b2_2")(layer("b2_1")(x)), layer("b3_2")(layer("b3_1")(x))
            return F.concat(layer("b1_1")(x), second, third, layer("b4_2")(self.pool(x)), dim=1)

    def sequence(*layers: Any) -> Any:
        made = nn.HybridSequential()
        made.add(*layers)
        return made

    def convolution(name: str, *rest: int) -> Any:
        return nn.Conv2D(THIN_PARAMS[f"{name}.bias"].size, *rest, activation="relu")

    def pool() -> Any:
        return nn.MaxPool2D(3, 2, 1)

    net = nn.HybridSequential(**settings)
    with net.name_scope():
        groups = [[Inception(f"inception{i + 3}{letter}") for letter in group] for i, group in enumerate(GROUPS)]
        net.add(
            sequence(convolution("conv1", 7, 2, 3), pool()),
            sequence(convolution("conv2_reduce", 1), convolution("conv2", 3, 1, 1), pool()),
            sequence(*groups[0], pool()),
            sequence(*groups[1], pool()),
            sequence(*groups[2], nn.GlobalAvgPool2D()),
            nn.Dense(10),
        )
    return net


@needs("mx")
@pytest.mark.parametrize("asked", ["d2l-today", "d2l", "gluon-prefixed"])
def test_the_book_s_network_in_gluon_loads_its_parameters(asked, tmp_path):
    from mxnet import gluon as of_mxnet
    from mxnet import nd

    path = tmp_path / "a.params"
    gluon.write(path, foreign.renamed(THIN_PARAMS, foreign.asked_scheme(asked, "gluon", THIN), THIN), {})
    net = book_in_gluon(lambda name: name if asked == "d2l-today" else name.replace("b", "p"), prefix="googlenet0_")
    if asked == "gluon-prefixed":
        net.collect_params().load(str(path))
    elif asked == "d2l-today":
        classifier = of_mxnet.nn.HybridBlock()
        classifier.net = net
        classifier.load_parameters(str(path))
    else:
        net.load_parameters(str(path))
    assert relative_error(net(nd.array(IMAGES)).asnumpy(), expected_logits()) < 1e-5


def in_linen() -> Any:
    from flax import linen as nn
    from jax import numpy as jnp

    class Inception(nn.Module):
        block: str

        @nn.compact
        def __call__(self, x: Any) -> Any:
            wide = widths(self.block)
            first = nn.relu(nn.Conv(wide["b1_1"], (1, 1))(x))
            second = nn.relu(nn.Conv(wide["b2_1"], (1, 1))(x))
            second = nn.relu(nn.Conv(wide["b2_2"], (3, 3))(second))
            third = nn.relu(nn.Conv(wide["b3_1"], (1, 1))(x))
            third = nn.relu(nn.Conv(wide["b3_2"], (5, 5))(third))
            fourth = nn.relu(nn.Conv(wide["b4_2"], (1, 1))(nn.max_pool(x, (3, 3), (1, 1), "SAME")))
            return jnp.concatenate((first, second, third, fourth), -1)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            def pool(x: Any) -> Any:
                return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

            x = pool(nn.relu(nn.Conv(THIN_PARAMS["conv1.bias"].size, (7, 7), (2, 2), padding=3)(x)))
            x = nn.relu(nn.Conv(THIN_PARAMS["conv2_reduce.bias"].size, (1, 1))(x))
            x = pool(nn.relu(nn.Conv(THIN_PARAMS["conv2.bias"].size, (3, 3), padding=1)(x)))
            for i, group in enumerate(GROUPS):
                for letter in group:
                    x = Inception(f"inception{i + 3}{letter}")(x)
                x = pool(x) if i < 2 else x
            return nn.Dense(10)(x.mean((1, 2)))

    return Network()


def linen_variables(folder: Path, shapes: Any) -> Any:
    from flax import serialization

    path = folder / "a.msgpack"
    flax.write_tree(path, foreign.renamed(THIN_PARAMS, foreign.asked_scheme("linen", "flax", THIN), THIN))
    return serialization.from_bytes(shapes, path.read_bytes())


@needs("jax")
def test_a_compact_module_of_linen_has_the_names_that_we_write(tmp_path):
    import jax

    shapes = jax.eval_shape(in_linen().init, jax.random.key(0), IMAGES.transpose(0, 2, 3, 1))
    read = linen_variables(tmp_path, shapes)
    assert jax.tree.map(np.shape, read) == jax.tree.map(np.shape, shapes)


@needs("jax")
@pytest.mark.slow
def test_a_compact_module_of_linen_computes_what_the_referee_does(tmp_path):
    import jax

    model, images = in_linen(), IMAGES.transpose(0, 2, 3, 1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    logits = jax.jit(model.apply)(linen_variables(tmp_path, shapes), images)
    assert relative_error(np.asarray(logits), expected_logits()) < 1e-5


# -------------------------------------------------------------------------------------------------- convert --names


@needs("pt")
def test_convert_writes_the_names_that_are_asked_for_and_proves_it(tmp_path):
    import torch

    source, target = in_safetensors(tmp_path), tmp_path / "a.pt"
    said = googlenet("convert", str(source), str(target), "--names", "d2l-today").stdout
    assert "written with the names of d2l-today\n" in said
    assert "the NumPy referee and PyTorch on the same" in said
    assert list(torch.load(target, weights_only=True)) == [f"net.{name}" for name in PLAIN]
    # The names stay where nothing else is asked for, and with them all that our own files hold.
    said = googlenet("convert", str(target), str(tmp_path / "b.pt")).stdout
    assert "written with the names of d2l-today, as in the source; --names canonical writes ours\n" in said
    assert list(torch.load(tmp_path / "b.pt", weights_only=True)) == [f"net.{name}" for name in PLAIN]
    again = read_weights(tmp_path / "b.pt", here)
    assert again.weights.metadata["labels"] == prepared(again, None, aux=True).metadata["labels"]
    googlenet("convert", str(target), str(tmp_path / "c.pt"), "--names", "canonical")
    assert list(torch.load(tmp_path / "c.pt", weights_only=True)) == list(NUMBERS)


def test_names_that_a_format_does_not_hold_are_refused_with_those_that_it_does(tmp_path):
    source = in_safetensors(tmp_path)
    refused = googlenet("convert", str(source), str(tmp_path / "a.params"), "--names", "linen", status=2).stderr
    assert "--names linen: expected names that Gluon parameters holds of preset lenet" in " ".join(refused.split())
    assert not (tmp_path / "a.params").exists()


@pytest.mark.parametrize("name", foreign.NAMES)
def test_every_name_can_be_asked_for_in_some_format(name):
    forms = ("pytorch", "safetensors", "gluon", "flax", "orbax", "keras")
    chosen = []
    for form, preset in itertools.product(forms, spec.PRESETS):
        with contextlib.suppress(InvalidInput):
            chosen.append(foreign.asked_scheme(name, form, spec.preset(preset, aux=False)))
        with contextlib.suppress(InvalidInput):  # TF-slim's and Keras' batch norm has no scale
            chosen.append(foreign.asked_scheme(name, form, spec.preset(preset, aux=False, norm_scale=False)))
    assert chosen
