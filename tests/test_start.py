"""Weights of any file as the start of a training, and evaluated on a folder of pictures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import FIRST, googlenet, save_digits

import spec
from harness.agreement import probe_params
from harness.images.batches import open_dataset, pixels
from harness.images.prepared import prepare
from harness.training.recipe import recipe
from harness.training.runs import CHECKPOINT, read_settings
from harness.training.start import Start, fitted, recipe_for, start_of
from harness.training.train import create, settings_for
from harness.weights import checkpoint
from harness.weights.checkpoint import Checkpoint
from harness.weights.preprocessing import preprocessing_of
from spec import reference

pytestmark = pytest.mark.usefixtures("first")

CONFIG = spec.preset("lenet", in_channels=3, num_classes=10)
CAFFE = {"size": 28, "order": "BGR", "scale": 1.0, "mean": [104.0, 117.0, 123.0], "std": [2.0, 3.0, 4.0]}
IMAGENET = {"size": 28, "order": "RGB", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
STILL = """
preset = "lenet"
size = 28
batch = 10
epochs = 1
optimizer = { name = "sgd", rate = 0.0 }
"""


def weights(config: spec.Config = CONFIG, **metadata: Any) -> Checkpoint:
    return Checkpoint(probe_params(config, 1), config, metadata)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Pictures of ten classes (40 to train with, 10 to test), a recipe that learns nothing, and files of weights."""
    home = tmp_path_factory.mktemp("home")
    save_digits(home / "pictures", 5)
    (home / "still.toml").write_text(STILL)
    for name, classes in (("ten", 10), ("seven", 7)):
        config = replace(CONFIG, num_classes=classes)
        checkpoint.save(home / f"{name}.safetensors", probe_params(config, 1), config, {"preprocessing": IMAGENET})
    return home


def run(home: Path, *words: str, status: int = 0) -> tuple[str, str]:
    done = googlenet(*words, status=status, cwd=home, XDG_CACHE_HOME=str(home / "cache"))
    return done.stdout, " ".join(done.stderr.split())


@pytest.fixture
def dataset(home, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    return prepare(f"folder:{home / 'pictures'}", 3, 28)


@pytest.mark.parametrize("preprocessing", [CAFFE, IMAGENET], ids=["BGR", "RGB"])
def test_batches_mean_to_the_rewritten_weights_what_pictures_mean_to_the_file(preprocessing):
    source = weights(preprocessing=preprocessing)
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    prepared = preprocessing_of(source).apply(Image.fromarray(image))[None]
    start = start_of(source)
    batch = pixels(image.transpose(2, 0, 1)[None], "float64", start.mean, start.std)
    expected = reference.activations(source.config, source.params, prepared)[CONFIG.logits]
    np.testing.assert_allclose(
        reference.activations(start.config, start.params, batch)[CONFIG.logits], expected, rtol=1e-12
    )


def start(classes: tuple[str, ...] = (), config: spec.Config = CONFIG) -> Start:
    return replace(start_of(weights(config, preprocessing=IMAGENET)), classes=classes)


@pytest.mark.parametrize(
    ("begin", "anew"),
    [
        (start(), []),
        (start(tuple(f"digit {i}" for i in range(10))), []),
        (start(tuple("0123456789")), ["fc5"]),
        (start(config=replace(CONFIG, num_classes=7)), ["fc5"]),
    ],
    ids=["as many", "the same", "other names", "fewer"],
)
def test_what_gives_the_logits_is_new_where_the_classes_are_others(begin, anew, dataset):
    chosen = recipe_for(begin, recipe("fine-tune"), {})
    assert (chosen.preset, chosen.size, chosen.channels, chosen.mean) == ("lenet", 28, 3, tuple(IMAGENET["mean"]))
    settings = settings_for(chosen, dataset, 3, "float64", "cpu")
    params, names = fitted(begin, settings)
    assert names == anew
    made = spec.init_params(settings.config, 3, "he")
    for name, x in params.items():
        np.testing.assert_array_equal(x, (made if name.startswith("fc5") and anew else begin.params)[name])


def test_another_network_than_the_weights_is_refused():
    with pytest.raises(spec.InvalidInput, match="lenet with 3 channels, whose weights these are, got preset nin, cha"):
        recipe_for(start(), recipe("fine-tune"), {"preset": "nin", "channels": 1})


def test_a_training_begins_with_the_weights_of_a_file(home):
    words = ["--data", "folder:pictures", "--recipe", "still.toml", "--run", "fine"]
    _, noted = run(home, "train", FIRST, "--weights", "seven.safetensors", *words)
    assert "40 training and 10 test pictures of 10 classes, read as RGB, 28 x 28 pixels" in noted
    assert "num_classes=7); initialized anew: fc5" in noted
    expected = checkpoint.load(home / "seven.safetensors").params
    trained = checkpoint.load(home / "fine" / FIRST / CHECKPOINT)
    kept = [name for name, x in trained.params.items() if np.array_equal(x, expected[name].astype(np.float32))]
    assert [name for name in expected if name not in kept] == ["fc5.weight", "fc5.bias"]
    assert len(read_settings(home / "fine" / FIRST).weights) == 64


def test_a_run_with_weights_begins_with_the_state_of_its_optimizer(dataset, tmp_path):
    """RMSProp divides by a mean square that is 1 there, and the average is of the weights of the file."""
    optimizer = spec.RMSProp(average=0.9)
    chosen = recipe_for(start(), recipe("fine-tune"), {"optimizer": optimizer})
    settings = settings_for(chosen, dataset, 3, "float64", "cpu")
    params, _ = fitted(start(), settings)
    (part,) = create(tmp_path / "run", [FIRST], settings, params)
    found = checkpoint.load(part.folder / CHECKPOINT).state
    assert found.keys() == spec.state_shapes(settings.config, optimizer.slots).keys()
    assert (found["t"], found["v/fc3.weight"].min(), found["v/fc3.weight"].max()) == (0, 1, 1)
    np.testing.assert_array_equal(found["average/fc3.weight"], params["fc3.weight"])


def test_weights_of_a_file_are_evaluated_on_a_folder(home, dataset):
    said, noted = run(home, "eval", "ten.safetensors", "--data", "folder:pictures", "--backend", FIRST, "--json")
    assert "taken for digit 0, digit 1" in noted
    test = open_dataset(dataset).test
    batch = pixels(test.images, "float64", IMAGENET["mean"], IMAGENET["std"])
    logits = reference.activations(CONFIG, probe_params(CONFIG, 1), batch)[CONFIG.logits]
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(10), test.labels]
    assert json.loads(said)["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert json.loads(said)["step"] is None


def test_pictures_of_an_evaluation_are_cut_out_as_the_weights_want_them(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    params = probe_params(CONFIG, 1)
    way = IMAGENET | {"resize": [40], "interpolation": "bicubic", "source": "as somebody says", "assumed": False}
    checkpoint.save(home / "cut.safetensors", params, CONFIG, {"preprocessing": way})
    said, noted = run(home, "eval", "cut.safetensors", "--data", "folder:pictures", "--backend", FIRST, "--json")
    assert "pictures: shorter side 40 (bicubic), of that the middle 28 x 28, RGB" in noted
    frame = {"resize": (40,), "interpolation": "bicubic"}
    test = open_dataset(prepare(f"folder:{home / 'pictures'}", 3, 28, frame=frame)).test
    logits = reference.activations(CONFIG, params, pixels(test.images, "float64", way["mean"], way["std"]))[
        CONFIG.logits
    ]
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(10), test.labels]
    assert json.loads(said)["loss"] == pytest.approx(losses.mean(), rel=1e-5)


def test_an_evaluation_that_says_nothing_is_refused(home):
    _, noted = run(home, "eval", "ten.safetensors", status=2)
    assert "expected --data, since weights that are no run's" in noted
    _, noted = run(home, "eval", "seven.safetensors", "--data", "folder:pictures", status=2)
    assert "seven.safetensors has 7, without names: expected the same" in noted
    assert "`googlenet train --weights seven.safetensors" in noted
