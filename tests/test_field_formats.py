"""Weights in the formats that people have: every row of the table in docs/formats.md."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from field import rows
from PIL import Image
from safetensors.numpy import save_file
from support import TESTED, googlenet, here, weights_of

import spec
from harness.weights import checkpoint, names
from harness.weights.convert import read_weights
from harness.weights.formats import FORMATS, gluon, onnx_file

TABLE = rows("Weights: formats")
LENET = weights_of("lenet")
Words = list[str]  # of the command


def _written(path: Path, content: bytes) -> Words:
    path.write_bytes(content)
    return ["inspect", str(path)]


def _begins(name: str, beginning: bytes) -> Callable[[Path], Words]:
    return lambda folder: _written(folder / name, beginning + bytes(600))


def _npz(folder: Path, compressed: bool = False) -> Words:
    (np.savez_compressed if compressed else np.savez)(folder / "a.npz", **LENET.params)
    return ["inspect", str(folder / "a.npz")]


def _npz_by_columns(folder: Path) -> Words:
    np.savez(folder / "a.npz", **{name: np.asfortranarray(x) for name, x in LENET.params.items()})
    got = read_weights(folder / "a.npz", here).weights.params
    assert all(np.array_equal(got[name], x) for name, x in LENET.params.items())
    return ["inspect", str(folder / "a.npz")]


def _halves(x: np.ndarray) -> np.ndarray:
    """The upper halves of float32, which are bfloat16 rounded down."""
    return (np.ascontiguousarray(x).view("<u4") >> 16).astype("<u2")


def _npz_of_bfloat16(folder: Path) -> Words:
    np.savez(folder / "a.npz", **{name: _halves(x).view("V2") for name, x in LENET.params.items()})
    return ["convert", str(folder / "a.npz"), str(folder / "a.safetensors")]


def _safetensors_of_bfloat16(folder: Path) -> Words:
    halves = {name: _halves(x) for name, x in LENET.params.items()}
    size, offsets = 0, {}
    for name, x in halves.items():
        offsets[name] = {"dtype": "BF16", "shape": x.shape, "data_offsets": [size, size := size + x.nbytes]}
    header = json.dumps(offsets).encode()
    content = b"".join(x.tobytes() for x in halves.values())
    (folder / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + content)
    got = read_weights(folder / "a.safetensors", here).weights.params
    assert all(np.array_equal(_halves(got[name]), _halves(x)) for name, x in LENET.params.items())
    return ["convert", str(folder / "a.safetensors"), str(folder / "a.onnx")]


def _torchscript(folder: Path) -> Words:
    from torch import jit, nn, zeros

    convolutions = [
        nn.Conv2d(1, 6, 5),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
    ]
    dense = [nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10)]
    model = nn.Sequential(*convolutions, nn.Flatten(), *dense)
    jit.save(jit.trace(model, zeros(1, 1, 28, 28)), folder / "a.pt")
    got = read_weights(folder / "a.pt", here).weights.params
    assert np.array_equal(got["fc5.weight"], model[11].weight.detach().numpy())
    return ["inspect", str(folder / "a.pt")]


def _float16(folder: Path, target: str) -> Words:
    save_file({name: x.astype("float16") for name, x in LENET.params.items()}, folder / "a.safetensors")
    return ["convert", str(folder / "a.safetensors"), str(folder / target)]


def _pytorch(folder: Path, name: str) -> Words:
    FORMATS["pytorch"].write(folder / "a.pt", LENET, here)
    return ["inspect", str((folder / "a.pt").rename(folder / name))]


def _run(folder: Path, *backends: str) -> Words:
    for name in backends:
        (folder / "run" / name).mkdir(parents=True)
        checkpoint.save(folder / "run" / name / "checkpoint.safetensors", LENET.params, LENET.config, LENET.metadata)
    Image.new("L", (9, 9)).save(folder / "a.png")
    return ["predict", str(folder / "a.png"), "--weights", str(folder / "run"), "--backends", "onnx", "--size", "28"]


def _npz_of_objects(folder: Path) -> Words:
    np.savez(folder / "a.npz", a=np.array([{}]))
    return ["inspect", str(folder / "a.npz")]


def _npz_of_a_gigabyte(folder: Path) -> Words:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2**23))
    return ["inspect", str(folder / "a.npz")]


def _zip(folder: Path, name: str, *entries: str) -> Words:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for entry in entries:
            archive.writestr(entry, b"{}")
    return ["inspect", str(folder / name)]


def _tar(folder: Path) -> Words:
    with tarfile.open(folder / "a.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return ["inspect", str(folder / "a.pth.tar")]


def _names_of_imagenet(folder: Path, classes: int) -> Words:
    weights = weights_of("lenet", num_classes=classes)
    checkpoint.save(folder / "a.safetensors", weights.params, weights.config, {})
    (folder / "labels.txt").write_text("\n".join(f"n{i:08}" for i in range(1000)))
    return ["convert", str(folder / "a.safetensors"), str(folder / "a.npz"), "--labels", str(folder / "labels.txt")]


def _picture(folder: Path) -> Words:
    Image.new("L", (9, 9)).save(folder / "a.png")
    return ["predict", str(folder / "a.png"), "--weights", str(folder / "a.png")]


def _onnx(folder: Path) -> Words:
    model = onnx_file.build(spec.preset("lenet"), LENET.params)
    return _written(folder / "a.onnx", model.SerializeToString())


def _pipe(folder: Path, name: str) -> Words:
    (folder / name).parent.mkdir(exist_ok=True)
    os.mkfifo(folder / name)
    return ["inspect", str(folder / name)]


def _pipe_beside_a_symbol(folder: Path) -> Words:
    _pipe(folder, "a-0000.params")
    return _written(folder / "a-symbol.json", b'{"nodes": []}')


def _pipe_beside_orbax(folder: Path) -> Words:
    _pipe(folder, "a/googlenet.json")
    (folder / "a" / "_METADATA").write_text("{}")
    return ["inspect", str(folder / "a")]


def _pipe_in_orbax(folder: Path) -> Words:
    _pipe(folder, "a/d")
    (folder / "a" / "_METADATA").write_text("{}")
    return ["inspect", str(folder / "a")]


def _sparse(folder: Path) -> Words:
    words = _written(folder / "a.params", gluon.LIST.to_bytes(8, "little"))
    os.truncate(folder / "a.params", 300 * 2**30)
    return words


def _many_arrays(folder: Path) -> Words:
    array = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"a{i}": array for i in range(10_001)}).encode()
    return _written(folder / "a.safetensors", len(header).to_bytes(8, "little") + header)


MAKERS: dict[str, Callable[[Path], Words]] = {
    "`.npz` of the arrays": _npz,
    "`.npz`, compressed": partial(_npz, compressed=True),
    "`.npz` of arrays by columns, as Fortran has them": _npz_by_columns,
    "`.npz` of bfloat16, as JAX leaves it": _npz_of_bfloat16,
    "safetensors of bfloat16, to ONNX": _safetensors_of_bfloat16,
    "float16, to ONNX": partial(_float16, target="a.onnx"),
    "float16, to a format that holds it": partial(_float16, target="a.npz"),
    "float16, to an MXNet symbol": partial(_float16, target="a-symbol.json"),
    "PyTorch's file as `.bin`": partial(_pytorch, name="a.bin"),
    "PyTorch's file as `.pth.tar`": partial(_pytorch, name="a.pth.tar"),
    "PyTorch's file as `.ckpt`, as Lightning has it": partial(_pytorch, name="a.ckpt"),
    "PyTorch's file as `.params`, as the book has it": partial(_pytorch, name="a.params"),
    "TorchScript: its tensors, without its code": _torchscript,
    "a run's folder, of one backend": lambda folder: _run(folder, "pt"),
    "a run's folder, of several backends": lambda folder: _run(folder, "pt", "jax"),
    "`.npz` with objects of Python": _npz_of_objects,
    "`.npz` that unpacks to much more": _npz_of_a_gigabyte,
    "`.npy`": _begins("a.npy", b"\x93NUMPY\x01\0"),
    "`.pt2` of torch.export": lambda folder: _zip(folder, "a.pt2", "a/archive_format", "a/data/weights/0"),
    "a ZIP archive of something else": lambda folder: _zip(folder, "a.zip", "\x1b[2J.png", "b.png", "c.png", "d.png"),
    "a pickle": lambda folder: _written(folder / "a.pkl", pickle.dumps({"a": 0.5})),
    "`.caffemodel`": _begins("a.caffemodel", b"\x0a\x09GoogleNet\xa2\x06"),
    "`.caffemodel` of before 2014": _begins("a", b"\x0a\x09GoogleNet\x12\x05"),
    "TensorFlow's `.ckpt.data-00000-of-00001`": _begins("a.ckpt.data-00000-of-00001", b"\x01"),
    "`.gguf`": _begins("a.gguf", b"GGUF\x03"),
    "a tar archive": _tar,
    "`.gz`": _begins("a.pt.gz", b"\x1f\x8b\x08"),
    "`.xz`, `.bz2`, `.7z`, `.zst`, `.rar`": _begins("a.7z", b"7z\xbc\xaf\x27\x1c"),
    "a picture in place of weights": _picture,
    "an empty file": lambda folder: _written(folder / "a.pt", b""),
    "a page of the web": lambda folder: _written(folder / "a.pth", b"<!DOCTYPE html><html>"),
    "an ONNX graph of another program": _onnx,
    "a pipe": partial(_pipe, name="a.pt"),
    "a pipe as a symbol's `-0000.params`": _pipe_beside_a_symbol,
    "a pipe as an Orbax folder's `googlenet.json`": _pipe_beside_orbax,
    "a pipe in an Orbax folder": _pipe_in_orbax,
    "a file of 300 GB with nothing in it": _sparse,
    "300,000 empty arrays": _many_arrays,
    "ImageNet's 1,000 names for the 1,008 classes of FID's network": partial(_names_of_imagenet, classes=1008),
    "ImageNet's 1,000 names for 1,001 classes": partial(_names_of_imagenet, classes=1001),
}


def test_every_row_has_its_file_and_every_file_its_row():
    assert [row.what for row in TABLE] == list(MAKERS)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("row", TABLE, ids=[row.what for row in TABLE])
def test_what_people_have_has_the_outcome_in_the_table(row, tmp_path):
    if ("PyTorch's file" in row.what or "TorchScript" in row.what) and "pt" not in TESTED:
        pytest.skip("PyTorch is not tested")
    words = MAKERS[row.what](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    verified = words[0] != "convert" or words[2].endswith(("onnx", "npz", "safetensors")) or "mx" in TESTED
    done = googlenet(*words, *([] if verified else ["--no-verify"]), status={"read": 0, "refused": 2}[row.outcome])
    if row.outcome == "read":
        assert row.words in done.stdout
        return
    assert row.words in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "\x1b" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_state_dict_under_foreign_names_is_read_from_an_npz(tmp_path):
    arrays = names.foreign(LENET.params, names.SCHEMES["d2l-sequential"], LENET.config)
    np.savez(tmp_path / "a.npz", **arrays)
    source = read_weights(tmp_path / "a.npz", here)
    assert (source.form, source.scheme) == ("npz", "d2l-sequential")
    assert all(np.array_equal(source.weights.params[name], x) for name, x in LENET.params.items())
