"""What is recorded: files that the code once wrote, and what the publishers' own Inceptions compute.

`recorded/formats.py` wrote `recorded/formats.tar.xz` with the code of commit c212ed8, before tables had one form: a
LeNet with batch norm and two classes in every format, torchvision's network with two classes, and a run of three steps.

`recorded/inceptions.py` wrote `recorded/inceptions.npz` with the publishers' packages. The referee is held to it, and
every backend to the referee.
"""

from __future__ import annotations

import lzma
import math
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recorded import inceptions
from support import FIRST, TESTED, googlenet, here

import spec
from harness.agreement import relative_error
from harness.training.runs import CHECKPOINT, of_checkpoint
from harness.weights import checkpoint
from harness.weights.convert import read_weights
from spec import reference

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


@pytest.mark.usefixtures("first")
def test_a_run_goes_on(folder):
    run = folder / "run"
    _, position = of_checkpoint(checkpoint.load(run / "pt" / CHECKPOINT), run)
    assert position.step == 3
    googlenet("train", "--resume", str(run / "pt"), "--backend", FIRST, "--steps", "5", cwd=folder)
    checkpoints = list(run.rglob(CHECKPOINT))
    assert max(of_checkpoint(checkpoint.load(path), run)[1].step for path in checkpoints) == 5


TOLERANCES = {"float64": 1e-12, "float32": 2e-6}
# Half a second each. The others draw more weights, or have an image of 299 pixels.
QUICK = ("keras-v3", "pytorch-fid", "cadene-bn", "mxnet-bn")
PUBLISHERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in inceptions.RECORDS]


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(inceptions.RECORDED) as content:
        return dict(content)


@pytest.mark.parametrize("publisher", PUBLISHERS)
def test_the_referee_computes_what_the_publisher_computes(publisher, recorded):
    record = inceptions.RECORDS[publisher]
    config = record.config
    if record.epsilon:
        config = replace(config, batch_norm=replace(config.batch_norm, epsilon=record.epsilon))
    found = reference.activations(config, inceptions.weights(record, recorded), inceptions.images(record))
    expected = {name.partition("/")[2]: y for name, y in recorded.items() if name.startswith(f"{publisher}/")}
    assert list(expected) == [config.logits] + (["aux1"] if config.aux else [])
    errors = {stage: relative_error(found[stage], y) for stage, y in expected.items()}
    assert max(errors.values()) < TOLERANCES[record.dtype], errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("publisher", "others"),
    [
        ("torchvision-v3", ["inception-v3-tf", "inception-v3-fid"]),
        ("keras-v3", ["inception-v3", "inception-v3-fid"]),
        ("pytorch-fid", ["inception-v3", "inception-v3-tf"]),
        ("cadene-bn", ["inception-bn-mxnet"]),
        ("mxnet-bn", ["inception-bn"]),
    ],
)
def test_no_other_preset_computes_what_the_publisher_computes(publisher, others, recorded):
    """With the same arrays: these presets share names and shapes, but for the scales of batch norm."""
    record = inceptions.RECORDS[publisher]
    arrays, x = inceptions.weights(record, recorded), inceptions.images(record)
    scale = record.config.batch_norm.scale
    for other in others:
        config = spec.preset(other, num_classes=record.config.num_classes, aux=False, norm_scale=scale)
        shared = {name: arrays[name] for name in spec.param_shapes(config)}
        error = relative_error(reference.predict(config, shared, x), recorded[f"{publisher}/{config.logits}"])
        assert 0.02 < error < math.inf, other
