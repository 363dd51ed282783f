"""Keras' files and TF-slim's names: which array is which, and what is refused unread.

Where layers of a network have equal shapes, a wrong order loads without a word. So the order is computed here once more
from the network's graph, as Keras sorts its layers, and held against a digest of what Keras 3.15 wrote itself.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
from field import rows
from PIL import Image
from safetensors.numpy import save_file
from support import FIRST, googlenet, here, numbered, save_digits

import spec
from harness.agreement import probe_params
from harness.backends.registry import NotInstalled
from harness.weights import names
from harness.weights.checkpoint import save
from harness.weights.convert import read_weights
from harness.weights.formats import detect, keras
from harness.weights.names import SCHEMES
from harness.weights.recognition import recognize
from spec import Arrays, Config
from spec.network import Add, Block, Conv, Operation, Residual

V3, RESNET = PRESETS = ("inception-v3-tf", "inception-resnet-v2")


def narrow(config: Config) -> Config:
    """The network with a sixteenth of its channels, in which many more layers than before have equal shapes."""

    def one(part: Operation | Block | Residual) -> Operation | Block | Residual:
        if isinstance(part, Block):
            return Block(tuple(tuple((leaf, one(op)) for leaf, op in branch) for branch in part.branches))
        if isinstance(part, Residual):
            return replace(part, chain=tuple((leaf, one(op)) for leaf, op in part.chain))
        return replace(part, channels=part.channels // 16) if isinstance(part, Conv) else part

    return replace(config, table=tuple((stage, one(part)) for stage, part in config.table))


NETWORKS = {
    preset: narrow(spec.preset(preset, num_classes=10, norm_scale=False)) for preset in (*PRESETS, "inception-v4")
}
PARAMS = {preset: numbered(config, "float32") for preset, config in NETWORKS.items()}


# ------------------------------------------------------------------------------------------------------ Keras' order


def graph(config: Config) -> tuple[dict[str, list[str]], str]:
    """Keras' layers, each with those that it reads, and the last one. A layer of ours is three, or two, or one."""
    reads: dict[str, list[str]] = {}
    ends = {"images": "images"}
    for node in spec.walk(config):
        parts = [node.name]
        if isinstance(node.op, Conv) and node.norm:
            parts += [f"{node.name}.norm", f"{node.name} activation"]
        elif isinstance(node.op, Add) and node.op.activation:
            parts.append(f"{node.name} activation")
        reads[parts[0]] = [ends[read] for read in node.reads]
        reads |= {part: [before] for before, part in pairwise(parts)}
        ends[node.name] = parts[-1]
    return reads, ends[config.logits]


def by_depth(config: Config) -> list[str]:
    """Keras' order: the farthest from the end first, then as a walk back from the end meets them."""
    reads, last = graph(config)
    met: dict[str, int] = {}

    def walk_back(layer: str) -> None:
        if layer not in met and layer != "images":
            met[layer] = len(met)
            for read in reads[layer]:
                walk_back(read)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * limit)
    walk_back(last)
    sys.setrecursionlimit(limit)
    depths: dict[str, int] = defaultdict(int)
    for layer in reversed(reads):  # which stand in forward order
        for read in reads[layer]:
            depths[read] = max(depths[read], depths[layer] + 1)
    return sorted(reads, key=lambda layer: (-depths[layer], met[layer]))


@cache
def saved(preset: str) -> dict[str, str]:
    """The path of every array in a ``.weights.h5``, by canonical name, from Keras' order."""
    config = NETWORKS[preset]
    shapes, layers = spec.param_shapes(config), {layer.name: layer for layer in spec.layers(config)}
    counts: dict[str, int] = defaultdict(int)
    paths = {}
    for layer in by_depth(config):
        norm = layer.endswith(".norm")
        if layer.removesuffix(".norm") not in layers:
            continue
        kind = "batch_normalization" if norm else "dense" if layers[layer].is_dense else "conv2d"
        group = f"layers/{kind}" + (f"_{counts[kind]}" if counts[kind] else "") + "/vars"
        counts[kind] += 1
        leaves = ("bias", "running_mean", "running_var") if norm else ("weight", "bias")
        paths |= {f"{layer}.{leaf}": f"{group}/{i}" for i, leaf in enumerate(leaves) if f"{layer}.{leaf}" in shapes}
    return paths


def theirs(x: np.ndarray) -> np.ndarray:
    """In Keras' layout."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x.T


# Of the lines "layers/conv2d_5/vars conv2d_8", sorted: the name that Keras 3.15 gave the layer, which it writes beside
# the arrays, in a file of its own InceptionV3 and InceptionResNetV2.
WRITTEN_BY_KERAS = {
    V3: "3424acba245467597ccf24147382276635f236fa5a5b27e08da7c459618f7289",
    RESNET: "d9b4c402b090023dd9af6e7048d59eb1b5306a16f3313e76d0e04166158b6bc8",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_numbers_are_those_of_keras(preset):
    inner = SCHEMES["keras-layers"].layers[preset]
    lines = sorted(f"{path} {inner[layer]}" for layer, path in SCHEMES["keras"].layers[preset].items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == WRITTEN_BY_KERAS[preset]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_numbers_in_a_file_follow_from_the_graph(preset):
    paths = saved(preset)
    assert paths == names.foreign_names(SCHEMES["keras"], NETWORKS[preset])
    # They are not those of the layers' names, which are in forward order.
    layers = names.foreign_names(SCHEMES["keras-layers"], NETWORKS[preset])
    first = "mixed5b.branch3x3dbl_reduce.weight"
    assert (paths[first], layers[first]) == ("layers/conv2d_5/vars/0", "conv2d_8/kernel")
    shapes = spec.param_shapes(spec.preset(preset, norm_scale=False))
    swapped = {name: path.split("/")[1] for name, path in paths.items() if name.endswith(".weight")}
    forward = {name: layer.split("/")[0] for name, layer in layers.items() if name.endswith(".weight")}
    silent = [
        name
        for name, number in swapped.items()
        for other, layer in forward.items()
        if number == layer and name != other and shapes[name] == shapes[other]
    ]
    assert len(silent) > 10  # arrays that would load into another layer of the same shape


# ----------------------------------------------------------------------------------------------------------- reading


def saved_by_keras(preset: str, group: str = "layers/") -> dict[str, np.ndarray]:
    """The numbered arrays as a ``.weights.h5`` has them."""
    return {saved(preset)[name].replace("layers/", group): theirs(x) for name, x in PARAMS[preset].items()}


def nested() -> dict[str, np.ndarray]:
    """The network as a layer of another model, beside an optimizer's arrays and a dropout's."""
    arrays = saved_by_keras(V3, "layers/functional/layers/")
    arrays = {name.replace("functional/layers/dense", "dense"): x for name, x in arrays.items()}
    return arrays | {"optimizer/vars/0": np.zeros(3), "layers/dropout/seed_generator/vars/0": np.ones(2)}


def legacy(
    preset: str, first: int = 0, before: str = "", end: str = "", top: str = "predictions"
) -> dict[str, np.ndarray]:
    """The same under the layers' own names, which count from `first`, in the order of the letters."""
    arrays = {}
    for name, path in names.foreign_names(SCHEMES["keras-layers"], NETWORKS[preset]).items():
        layer, leaf = path.split("/")
        if parts := re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", layer):
            count = int(parts[2] or 0) + first
            layer = f"{parts[1]}_{count}" if count else parts[1]
        layer = top if layer == "predictions" else layer
        arrays[f"{before}{layer}/{layer}/{leaf}{end}"] = theirs(PARAMS[preset][name])
    return dict(sorted(arrays.items()))


def write(path: Path, arrays: Arrays) -> Path:
    with h5py.File(path, "w") as file:
        for name, x in arrays.items():
            file[name] = x
    return path


def packed(path: Path, arrays: Arrays) -> Path:
    """A ``.keras``; its Lambda would leave a file behind, if it ran."""
    weights = write(path.with_suffix(".h5"), arrays)
    code = f"__import__('pathlib').Path({str(path.with_suffix('.ran'))!r}).touch()"
    layers = [{"class_name": name, "config": {"name": name}} for name in ("InputLayer", "Conv2D")]
    layers += [{"class_name": "Lambda", "config": {"function": {"class_name": "__lambda__", "config": {"code": code}}}}]
    inner = {"class_name": "Functional", "config": {"name": "inner", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [inner]}}))
        archive.write(weights, "model.weights.h5")
    weights.unlink()
    return path


@pytest.fixture
def small() -> Iterator[None]:
    """Keras' presets with a sixteenth of their channels, in all that follows."""
    with mock.patch.dict(spec.PRESETS, {name: narrow(spec.PRESETS[name]) for name in NETWORKS}):
        yield


def assert_same(params: Arrays, expected: Arrays) -> None:
    assert params.keys() == expected.keys()
    assert all(np.array_equal(params[name], x) for name, x in expected.items())


@pytest.mark.parametrize(
    ("arrays", "left_out"),
    [
        (nested(), ["layers/dropout/seed_generator/vars/0", "optimizer/vars/0"]),
        (saved_by_keras(V3, "_layer_checkpoint_dependencies/"), []),  # Keras 2.12 to 2.15
        (legacy(V3), []),
        (legacy(V3, 7, end=":0", top="dense_2"), []),  # of the second model of a session
        (legacy(RESNET, 189), []),
        (
            legacy(V3, 3, "model_weights/inception_v3/") | {"optimizer_weights/Adam/iter:0": np.zeros(1)},
            ["optimizer_weights/Adam/iter:0"],
        ),
    ],
    ids=["in another model", "before Keras 3", "layers", "numbers from 7", "ResNet, from 189", "a whole model"],
)
def test_arrays_are_found_wherever_keras_puts_them(arrays, left_out, small):
    network = recognize(keras.renamed(arrays))
    (config,) = network.configs
    assert network.left_out == left_out
    assert_same(network.params(config), PARAMS[config.preset])


def test_of_a_network_without_its_classifier_that_is_said():
    arrays = {name: x for name, x in saved_by_keras(V3).items() if "dense" not in name}
    (advice,) = names.candidate_of(arrays, SCHEMES["keras"], NETWORKS[V3]).advice
    assert advice == "all but its last layer is there: expected weights with their classifier"


def test_a_model_is_told_by_the_classes_of_its_layers_and_never_run(tmp_path):
    path = packed(tmp_path / "a.keras", {"layers/conv2d/vars/0": np.ones((3, 3, 1, 4), "f4")})
    assert keras.read(path).remedy.startswith(
        "its layers are Functional, InputLayer, Conv2D, Lambda, whose code is not run; of Keras, its InceptionV3 and"
    )
    assert not path.with_suffix(".ran").exists()


# --------------------------------------------------------------------------------------- files that nobody has checked


def _linked(link: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, {"layers/a": np.ones(3)})
        with h5py.File(path, "a") as file:
            file["layers/b"] = link if link != "itself" else file["layers"]

    return make


def _dataset(**settings: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset("layers/a", **settings)

    return make


def _virtual(path: Path) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(path.with_name("b.h5")), "a", (3,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("layers/a", layout)


def _type(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layers/a"] = np.dtype("f4")


def _deep(path: Path) -> None:
    write(path, {"a/" * 30 + "b": np.ones(3)})


def _cut(path: Path) -> None:
    write(path, {"layers/a": np.ones(999)})
    path.write_bytes(path.read_bytes()[:-500])


def _zip_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**20))


def _large_settings(path: Path) -> None:
    packed(path, {"layers/a": np.ones(3)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("config.json", b" " * 2**23)


def _beginning(path: Path) -> None:
    path.write_bytes(keras.SIGNATURE + bytes(100))


BAD = {
    "a link to another file": (_linked(h5py.ExternalLink("/etc/passwd", "/a")), "layers/b is a link to another place"),
    "a soft link": (_linked(h5py.SoftLink("/layers/a")), "layers/b is a link to another place"),
    "a group within itself": (_linked("itself"), "or one within itself, at layers/b"),
    "groups in groups": (_deep, "more groups than a network has"),
    "a terabyte that is not there": (_dataset(shape=(2**38,), dtype="f4"), "arrays of 1,099,511,627,776 bytes in a"),
    "compressed": (
        _dataset(data=np.zeros(2**20), compression="gzip"),
        "layers/a is compressed, in pieces, or in another file: `h5repack -l CONTI -f NONE OLD NEW` makes it plain",
    ),
    "numbers in another file": (
        _dataset(shape=(3,), dtype="f4", external=[("/etc/passwd", 0, 12)]),
        "layers/a is compressed, in pieces, or in another file",
    ),
    "a view of other files": (_virtual, "layers/a is compressed, in pieces, or in another file"),
    "texts": (_dataset(data=["a", "b"]), "layers/a holds object, not numbers"),
    "records": (_dataset(data=np.zeros(2, "f4,i4")), "layers/a holds [('f0', '<f4'), ('f1', '<i4')], not numbers"),
    "a type": (_type, "layers/a is a type, not an array"),
    "cut off": (_cut, "expected plain arrays in HDF5 as Keras writes them"),
    "its beginning alone": (_beginning, "expected plain arrays in HDF5 as Keras writes them"),
    "an archive that unpacks to more": (_zip_bomb, "model.weights.h5 unpacks to 1,048,576 bytes, expected"),
    "settings of 8 MB": (_large_settings, "config.json unpacks to 8,388,608 bytes, expected 4,194,304 at most"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_keras_does_not_write_is_refused_unread(what, tmp_path):
    make, message = BAD[what]
    make(tmp_path / "a.keras")
    assert detect(tmp_path / "a.keras") == "keras"
    with pytest.raises(spec.InvalidInput, match=re.escape(message)) as caught:
        keras.read(tmp_path / "a.keras")
    assert len(str(caught.value).splitlines()) == 1


def test_numbers_of_bfloat16_are_read(tmp_path):
    halves = (np.float32([1.5, -2.25]).view("<u4") >> 16).astype("<u2").view("V2")
    got = keras.read(write(tmp_path / "a.weights.h5", {"layers/a/vars/0": halves})).arrays["layers/a/vars/0"]
    assert got.dtype == np.float32
    assert got.tolist() == [1.5, -2.25]


def test_without_h5py_its_extra_is_named(monkeypatch, tmp_path):
    path = write(tmp_path / "a.h5", {"a": np.ones(3)})
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "harness.weights.formats.keras.hdf5", raising=False)
    with pytest.raises(NotInstalled, match=r"need h5py, which is not installed: pip install '\.\[keras\]'"):
        keras.read(path)


# ----------------------------------------------------------------------------------------------------- TF-slim's names

HELD_BY_SLIM = {  # besides the network, by preset
    V3: ["InceptionV3/AuxLogits/Conv2d_2a_5x5/weights", "InceptionV3/Conv2d_1a_3x3/BatchNorm/beta/RMSProp_1"],
    "inception-v4": ["InceptionV4/AuxLogits/Aux_logits/biases", "InceptionV4/Logits/Logits/weights/Momentum"],
    RESNET: ["InceptionResnetV2/Block8/Conv2d_1x1/biases/ExponentialMovingAverage", "InceptionResnetV2/concat/axis"],
}


def slim(preset: str, classes: int = 10) -> dict[str, np.ndarray]:
    """Numbered arrays as TF-slim has them, in TensorFlow's layout; v3's classifier is a convolution of 1x1."""
    config = replace(NETWORKS[preset], num_classes=classes)
    layers = names.foreign_names(next(x for x in SCHEMES.values() if "slim" in x.name and preset in x.presets), config)
    arrays = {layers[name]: theirs(x) for name, x in numbered(config, "float32").items()}
    if preset == V3:
        last = "InceptionV3/Logits/Conv2d_1c_1x1/weights"
        arrays[last] = arrays[last].reshape(1, 1, *arrays[last].shape)
    return arrays


@pytest.mark.parametrize("preset", HELD_BY_SLIM)
def test_slim_s_arrays_are_found_among_what_stands_beside_them(preset, small):
    beside = {name: np.zeros(3) for name in [*HELD_BY_SLIM[preset], "global_step"]}
    network = recognize(slim(preset) | beside)
    assert network.left_out == sorted(beside)
    (config,) = network.configs
    assert (config.preset, config.batch_norm.scale) == (preset, False)
    assert_same(network.params(config), PARAMS[preset])


SLIM = {  # where slim's code has names of its own
    V3: {
        "mixed5c.branch5x5_reduce": "Mixed_5c/Branch_1/Conv2d_0b_1x1",
        "mixed5c.branch5x5": "Mixed_5c/Branch_1/Conv_1_0c_5x5",
        "mixed5d.branch5x5": "Mixed_5d/Branch_1/Conv2d_0b_5x5",
        "mixed6a.branch3x3": "Mixed_6a/Branch_0/Conv2d_1a_1x1",
        "mixed6a.branch3x3dbl_2": "Mixed_6a/Branch_1/Conv2d_1a_1x1",
        "mixed6e.pool_proj": "Mixed_6e/Branch_3/Conv2d_0b_1x1",
        "mixed7a.branch7x7x3": "Mixed_7a/Branch_1/Conv2d_1a_3x3",
        "mixed7b.branch3x3_b": "Mixed_7b/Branch_1/Conv2d_0b_3x1",
        "mixed7c.branch3x3_b": "Mixed_7c/Branch_1/Conv2d_0c_3x1",
        "mixed7c.branch3x3dbl_b": "Mixed_7c/Branch_2/Conv2d_0d_3x1",
        "fc": "Logits/Conv2d_1c_1x1",
    },
    "inception-v4": {
        "conv2b": "Conv2d_2b_3x3",
        "mixed3a.branch3x3": "Mixed_3a/Branch_1/Conv2d_0a_3x3",
        "mixed4a.branch7x7x3": "Mixed_4a/Branch_1/Conv2d_1a_3x3",
        "mixed5a.branch3x3": "Mixed_5a/Branch_0/Conv2d_1a_3x3",
        "mixed6h.branch7x7dbl_4": "Mixed_6h/Branch_2/Conv2d_0e_1x7",
        "mixed7d.branch3x3dbl_b": "Mixed_7d/Branch_2/Conv2d_0e_3x1",
        "fc": "Logits/Logits",
    },
    RESNET: {
        "mixed5b.branch1x1": "Mixed_5b/Branch_0/Conv2d_1x1",
        "block35_10.branch3x3dbl_2": "Repeat/block35_10/Branch_2/Conv2d_0c_3x3",
        "block17_1.up": "Repeat_1/block17_1/Conv2d_1x1",
        "mixed7a.branch3x3a": "Mixed_7a/Branch_0/Conv2d_1a_3x3",
        "block8_9.branch1x1": "Repeat_2/block8_9/Branch_0/Conv2d_1x1",
        "block8_10.branch3x3_2": "Block8/Branch_1/Conv2d_0c_3x1",
        "conv7b": "Conv2d_7b_1x1",
    },
}


@pytest.mark.parametrize("preset", SLIM)
def test_slim_s_names_are_those_of_its_code(preset):
    scopes = {V3: "InceptionV3", "inception-v4": "InceptionV4", RESNET: "InceptionResnetV2"}
    (scheme,) = (scheme for scheme in SCHEMES.values() if "slim" in scheme.name and preset in scheme.presets)
    layers = scheme.layers[preset]
    assert {layer: layers[layer] for layer in SLIM[preset]} == {
        layer: f"{scopes[preset]}/{name}" for layer, name in SLIM[preset].items()
    }
    assert layers["conv1a.norm"] == f"{scopes[preset]}/Conv2d_1a_3x3/BatchNorm"
    assert len(set(layers.values())) == len(layers)


# -------------------------------------------------------------------------------- the command, and what people have


def _npz(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)
    return path


def _without_its_classifier(folder: Path) -> Path:
    return write(folder / "a.weights.h5", {name: x for name, x in saved_by_keras(V3).items() if "dense" not in name})


def _another(folder: Path) -> Path:
    return packed(folder / "a.keras", {"layers/conv2d/vars/0": np.ones((3, 3, 1, 4), "f4")})


MAKERS: dict[str, Callable[[Path], Path]] = {
    "Keras' `.weights.h5`": lambda folder: write(folder / "a.weights.h5", saved_by_keras(V3)),
    "Keras' `.keras`": lambda folder: packed(folder / "a.keras", saved_by_keras(V3)),
    "Keras' `.h5` of weights": lambda folder: write(folder / "a.h5", legacy(V3, end=":0")),
    "Keras' `.h5` of a whole model, with an optimizer": lambda folder: write(
        folder / "a.h5", legacy(V3, 94, "model_weights/", ":0") | {"optimizer_weights/Adam/iter:0": np.zeros(1)}
    ),
    "Keras' network as a layer of another": lambda folder: write(folder / "a.weights.h5", nested()),
    "Keras' network without its classifier": _without_its_classifier,
    "another network of Keras, with a Lambda": _another,
    "TF-slim's arrays in an `.npz`": lambda folder: _npz(
        folder / "a.npz", slim(V3, 1001) | {"InceptionV3/AuxLogits/Conv2d_1b_1x1/weights": np.zeros(3)}
    ),
    "TF-slim's arrays in safetensors": lambda folder: (
        save_file({name: np.ascontiguousarray(x) for name, x in slim(RESNET).items()}, folder / "a.safetensors")
        or (folder / "a.safetensors")
    ),
}
TABLE = rows("Weights: Keras and TF-slim")


def test_every_row_has_its_file_and_every_file_its_row():
    assert [row.what for row in TABLE] == list(MAKERS)


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[pytest.mark.slow] * (row.outcome == "refused"), id=row.what) for row in TABLE]
)
def test_what_people_have_becomes_what_the_table_says(row, small, tmp_path):
    file = MAKERS[row.what](tmp_path)
    words = ["convert", str(file), str(tmp_path / "b.safetensors"), "--no-verify"]
    done = googlenet(*words, status={"read": 0, "refused": 2}[row.outcome])
    if row.outcome == "refused":
        assert row.words in done.stderr
        assert len(done.stderr.splitlines()) == 1
        return
    assert row.words in " ".join(done.stdout.split())
    weights = read_weights(tmp_path / "b.safetensors", here).weights
    assert_same(weights.params, numbered(weights.config, "float32"))
    assert not (tmp_path / "a.ran").exists()


@pytest.fixture
def written(small, tmp_path) -> dict[str, np.ndarray]:
    """Parameters, which `convert` has written to ``a.weights.h5`` with a proof."""
    params = {name: x.astype("f4") for name, x in probe_params(NETWORKS[V3], 2).items()}
    save(tmp_path / "a.safetensors", params, spec.preset(V3, num_classes=10))
    done = googlenet("convert", "a.safetensors", "a.weights.h5", cwd=tmp_path)
    assert "no stage by more than 1e-12" in done.stdout
    return params


def test_the_commands_take_a_file_of_keras_and_write_one(written, tmp_path):
    with h5py.File(tmp_path / "a.weights.h5", "a") as file:
        shapes = {path: file[path].shape for path in saved(V3).values()}
        assert shapes == {path: theirs(written[name]).shape for name, path in saved(V3).items()}
        assert json.loads(file["googlenet.json"][()].tobytes())["format"] == "googlenet-1"
        del file["googlenet.json"]  # now it is as Keras writes it
    facts = json.loads(googlenet("inspect", "a.weights.h5", "--json", cwd=tmp_path).stdout)
    assert (facts["format"], facts["names"]) == ("keras", "keras")
    assert facts["fits"] == [{"preset": V3, "channels": 3, "classes": 10, "auxiliary_heads": False}]


@pytest.mark.slow
def test_a_file_of_keras_is_converted_evaluated_and_predicted_with(written, tmp_path):
    assert "as written: SHA-256" in googlenet("inspect", "a.weights.h5", cwd=tmp_path).stdout
    googlenet("convert", "a.weights.h5", "b.npz", cwd=tmp_path)
    again = read_weights(tmp_path / "b.npz", here).weights.params
    assert all(np.array_equal(x, written[name]) for name, x in again.items())
    save_digits(tmp_path / "digits", 3)
    words = ["eval", "a.weights.h5", "--data", "folder:digits", "--size", "75", "--backend", FIRST, "--json"]
    done = googlenet(*words, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert 0 <= json.loads(done.stdout)["accuracy"] <= 1
    Image.new("RGB", (80, 80), "olive").save(tmp_path / "a.png")
    words = ["predict", "a.png", "--weights", "a.weights.h5", "--backends", FIRST, "--size", "75", "--json"]
    assert len(json.loads(googlenet(*words, "--top", "10", cwd=tmp_path).stdout)[0]["classes"]) == 10
