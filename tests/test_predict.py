"""`googlenet predict` and `googlenet inspect`, as users meet them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import ROOT, TESTED, googlenet, here, weights_of

import spec
from harness import names, prediction
from harness.convert import read_weights
from harness.data import resized
from harness.inspection import examine
from harness.pictures import Preprocessing, preprocessing_of
from spec import checkpoint, reference
from spec.checkpoint import Checkpoint

LABELS = tuple("zero one two three four five six seven eight nine".split())


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Weights with labels, and pictures: a landscape one in color, one with a palette, one in a folder."""
    home = tmp_path_factory.mktemp("home")
    weights = weights_of("d2l")
    preprocessing = {"size": 28, "order": "gray", "mean": [0.25], "std": [0.5]}
    metadata = {"preprocessing": preprocessing, "labels": list(LABELS)}
    checkpoint.save(home / "weights.safetensors", weights.params, weights.config, metadata)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "a picture.png")
    (home / "folder" / "inner").mkdir(parents=True)
    Image.fromarray(pixels[:30, :30]).convert("P").save(home / "folder" / "inner" / "b.gif")
    (home / "folder" / "notes.txt").write_text("no picture")
    (home / "broken.png").write_bytes((home / "a picture.png").read_bytes()[:200])
    return home


def _expected(home: Path, picture: Path) -> np.ndarray:
    """By the referee, with the preprocessing written out."""
    weights = checkpoint.load(home / "weights.safetensors")
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("L").resize((28, 28), Image.Resampling.BILINEAR), dtype=np.float64)
    x = (pixels / 255 - 0.25) / 0.5
    params = {name: array.astype(np.float64) for name, array in weights.params.items()}
    logits = reference.activations(weights.config, params, x[None, None])["fc"][0]
    return np.exp(logits) / np.exp(logits).sum()


def _predict(home: Path, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return googlenet("predict", "--weights", str(home / "weights.safetensors"), *words, status=status)


def test_every_engine_says_the_same(home):
    engines = [*TESTED, "onnx"]
    words = [
        str(home / "a picture.png"),
        str(home / "folder"),
        "--backends",
        ",".join(engines),
        "--top",
        "10",
        "--json",
    ]
    rows = json.loads(_predict(home, *words).stdout)
    assert [Path(row["picture"]).name for row in rows] == ["a picture.png", "b.gif"]
    for row in rows:
        expected = _expected(home, Path(row["picture"]))
        assert [item["class"] for item in row["classes"]] == list(np.argsort(-expected))
        for item in row["classes"]:
            assert item["label"] == LABELS[item["class"]]
            assert list(item["probability"]) == engines
            for probability in item["probability"].values():
                assert probability == pytest.approx(expected[item["class"]], rel=2e-5)


def test_the_table(home):
    done = _predict(home, str(home / "a picture.png"), "--backends", "onnx", "--top", "3")
    expected = _expected(home, home / "a picture.png")
    best = LABELS[int(np.argmax(expected))]
    assert f"{expected.max():.4f}" in next(line for line in done.stdout.splitlines() if line.startswith(best))
    assert len([line for line in done.stdout.splitlines() if line.startswith(LABELS)]) == 3


def test_standard_input_and_other_labels(home, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"label {i}" for i in range(10)) + "\n")
    command = [sys.executable, "-m", "harness.cli", "predict", "-", "--weights", str(home / "weights.safetensors")]
    command += ["--backends", "onnx", "--labels", str(tmp_path / "labels.txt"), "--json", "--top", "1"]
    content = (home / "a picture.png").read_bytes()
    done = subprocess.run(command, input=content, capture_output=True, check=True, cwd=ROOT)
    (row,) = json.loads(done.stdout)
    assert row["picture"] == "standard input"
    assert row["classes"][0]["label"] == f"label {int(np.argmax(_expected(home, home / 'a picture.png')))}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "nothing.png: [Errno 2] No such file"),
        (["{home}/broken.png"], "not a picture that can be read: "),
        (["{home}/folder/notes.txt"], "not a picture that can be read: "),
        (["{home}/a picture.png", "--backends", "tf"], "expected one or more of pt, mx, jax, onnx, got tf"),
        (["{home}/a picture.png", "--mean", "a,b"], "--mean: expected numbers"),
        (["{home}/a picture.png", "--mean", "0.1,0.2"], "mean: expected 1 or 1 numbers, got 2"),
        (["{home}/a picture.png", "--std", "0"], "std: expected numbers above 0"),
        (["{home}/a picture.png", "--order", "RGB"], "order: expected one for 1 channels, got 'RGB'"),
        (["{home}/a picture.png", "--size", "0"], "size: expected 1 to 4096 pixels, got 0"),
        (["{home}/a picture.png", "--top", "0"], "--top: expected at least 1"),
        (["{home}/a picture.png", "--labels", "{home}/nothing"], "cannot be read"),
        (["{home}/a picture.png", "--labels", "{home}/folder/notes.txt"], "labels: expected 10, got 1"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(home, words, message):
    given = [word.format(home=home) for word in words]
    done = _predict(home, *(given if "--backends" in given else [*given, "--backends", "onnx"]), status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_picture_that_cannot_be_read_is_named(home):
    prepare = preprocessing_of(read_weights(home / "weights.safetensors", here).weights)
    with pytest.raises(spec.InvalidInput, match=r"broken\.png.*no\.png: \[Errno 2\] No such file"):
        prediction.read_pictures([str(home / "broken.png"), str(home / "no.png")], prepare)


# ---------------------------------------------------------------------------------------------------- preprocessing


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_prepared_as_in_training(channels):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8))
    order = {1: "gray", 3: "RGB"}[channels]
    got = Preprocessing(20, order, mean=(0.3,), std=(0.7,)).apply(picture)
    np.testing.assert_allclose(got, (resized(picture, channels, 20) / 255 - 0.3) / 0.7, rtol=1e-15, atol=1e-15)


def test_channel_order_scale_and_a_number_for_each_channel():
    """As BVLC's weights want them: blue, green, red, from 0 to 255, less a mean of each."""
    picture = Image.fromarray(np.full((4, 4, 3), (10, 20, 30), dtype=np.uint8))
    got = Preprocessing(4, "BGR", scale=1.0, mean=(1.0, 2.0, 3.0)).apply(picture)
    np.testing.assert_array_equal(got[:, 0, 0], [29, 18, 7])


@pytest.mark.parametrize(
    "preprocessing",
    [{"size": "big"}, {"size": 28, "order": "CMYK"}, {"mean": "x"}, {"std": [0.0]}, {"scale": 1e999}, 3],
)
def test_weights_that_say_something_impossible_of_pictures(preprocessing):
    weights = Checkpoint(weights_of("d2l").params, spec.preset("d2l"), {"preprocessing": preprocessing})
    with pytest.raises(spec.InvalidInput, match="preprocessing"):
        preprocessing_of(weights)


def test_without_a_word_pixels_go_from_0_to_1_at_the_preset_s_size():
    made = preprocessing_of(Checkpoint(weights_of("d2l").params, spec.preset("d2l")))
    assert (made.size, made.order, made.scale, made.mean, made.std) == (96, "gray", 1 / 255, (0.0,), (1.0,))


# ---------------------------------------------------------------------------------------------------------- inspect


def test_inspect_ours(home):
    done = googlenet("inspect", str(home / "weights.safetensors"))
    assert "fits preset d2l (in_channels=1, num_classes=10): 5,977,530 parameters" in done.stdout
    assert "as written: SHA-256" in done.stdout
    facts = json.loads(googlenet("inspect", str(home / "weights.safetensors"), "--json").stdout)
    assert (facts["format"], facts["names"], facts["sound"]) == ("safetensors", "canonical", True)
    assert facts["preprocessing"]["labels"] == list(LABELS)
    params = checkpoint.load(home / "weights.safetensors").params
    assert {tensor["name"] for tensor in facts["tensors"]} == set(params)
    first = next(tensor for tensor in facts["tensors"] if tensor["name"] == "conv1.weight")
    assert first["shape"] == [64, 1, 7, 7]
    assert first["std"] == pytest.approx(params["conv1.weight"].astype(float).std())


def test_inspect_names_what_is_not_finite_and_what_differs(tmp_path):
    from safetensors.numpy import save_file

    config = spec.preset("torchvision", num_classes=20)
    weights = weights_of("torchvision", num_classes=20)
    arrays = names.foreign(weights.params, names.SCHEMES["torchvision"], config)
    arrays = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    arrays["fc.weight"] = np.ascontiguousarray(arrays["fc.weight"].T)
    arrays["extra"] = np.array([1.0, np.nan, np.inf], np.float32)
    save_file(arrays, tmp_path / "odd.safetensors")
    found = examine(tmp_path / "odd.safetensors", here)
    assert not found.sound
    assert found.fits == []
    assert found.nearest.startswith("preset torchvision")
    assert any("extra" in difference for difference in found.differences)
    assert any("fc.weight" in difference for difference in found.differences)
    assert next(tensor.not_finite for tensor in found.tensors if tensor.name == "extra") == 2
    done = googlenet("inspect", str(tmp_path / "odd.safetensors"), status=1)
    assert "2 not finite" in done.stdout
    assert "fits no network; nearest is preset torchvision" in done.stdout


def test_inspect_says_that_a_file_was_changed(home, tmp_path):
    content = bytearray((home / "weights.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    found = examine(tmp_path / "changed.safetensors", here)
    assert not found.sound
    assert "damaged" in found.problem
    assert googlenet("inspect", str(tmp_path / "changed.safetensors"), status=1)


def test_the_largest_picture_from_standard_input_is_bounded(monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return b"x" * size

    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": Endless()}))
    with pytest.raises(spec.InvalidInput, match="expected a picture of at most"):
        prediction.read_pictures(["-"], Preprocessing(28, "gray"))
