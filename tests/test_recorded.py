"""Files that the code wrote before its tables had one form are read as before.

`recorded/formats.py` wrote `recorded/formats.tar.xz` with the code of commit c212ed8: a LeNet with batch norm and two
classes in every format, torchvision's network with two classes, and a run of three steps.
"""

from __future__ import annotations

import lzma
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support import FIRST, TESTED, googlenet, here

import spec
from harness.training.runs import CHECKPOINT, of_checkpoint
from harness.weights import checkpoint
from harness.weights.convert import read_weights

ARCHIVE = Path(__file__).parent / "recorded" / "formats.tar.xz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files."""
    path = tmp_path_factory.mktemp("recorded")
    with lzma.open(ARCHIVE) as content, tarfile.open(fileobj=content) as archive:
        archive.extractall(path, filter="data")
    return path / "formats"


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("lenet-hf", None),
        ("lenet.pt", "pt"),
        ("lenet.params", None),
        ("lenet-symbol.json", None),
        ("lenet.msgpack", None),
        ("lenet-orbax", "jax"),
        ("lenet.onnx", None),
    ],
)
def test_a_lenet_is_the_same_in_every_format(name, backend, folder):
    if backend not in (None, *TESTED):
        pytest.skip("the format's framework is not tested")
    written = checkpoint.load(folder / "lenet.safetensors")
    found = read_weights(folder / name, here).weights
    assert found.config == written.config == spec.preset("lenet-bn", num_classes=2)
    assert list(found.params) == list(spec.param_shapes(found.config))
    assert all(np.array_equal(x, written.params[array]) for array, x in found.params.items())


def test_a_googlenet_with_heads_is_the_same_in_onnx(folder):
    written = checkpoint.load(folder / "torchvision.safetensors")
    found = read_weights(folder / "torchvision.onnx", here).weights
    assert found.config == written.config == spec.preset("torchvision", in_channels=1, num_classes=2)
    assert all(np.array_equal(x, written.params[array]) for array, x in found.params.items())


@pytest.mark.usefixtures("first", "pictures")
def test_a_run_goes_on(folder):
    run = folder / "run"
    _, position = of_checkpoint(checkpoint.load(run / "pt" / CHECKPOINT), run)
    assert position.step == 3
    googlenet("train", "--resume", str(run / "pt"), "--backend", FIRST, "--steps", "5", cwd=folder)
    checkpoints = list(run.rglob(CHECKPOINT))
    assert max(of_checkpoint(checkpoint.load(path), run)[1].step for path in checkpoints) == 5
