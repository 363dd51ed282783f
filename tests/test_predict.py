"""`googlenet predict` and `googlenet inspect`, as users meet them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import FIRST, googlenet, googlenet_process, here, weights_of

import spec
from harness.backends.process import Answer
from harness.backends.registry import PACKAGES
from harness.images.sources import resized
from harness.weights import checkpoint, prediction
from harness.weights.checkpoint import Checkpoint
from harness.weights.convert import read_weights
from harness.weights.inspection import examine
from harness.weights.prediction import Predictions, ranked, softmax
from harness.weights.preprocessing import Preprocessing, chosen, preprocessing_of, published
from spec import reference

LABELS = tuple("zero one two three four five six seven eight nine".split())
STORED = {"size": 28, "order": "gray", "mean": [0.25], "std": [0.5]}


def _weights(**settings: Any) -> Checkpoint:
    """LeNet with weights so large that its probabilities tell pictures apart."""
    found = weights_of("lenet", **settings)
    params = {name: 4 * x if x.ndim > 1 else x for name, x in found.params.items()}
    return replace(found, params=params, metadata={"preprocessing": STORED, "labels": list(LABELS)})


def _save(path: Path, weights: Checkpoint) -> None:
    checkpoint.save(path, weights.params, weights.config, weights.metadata)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Weights with labels, and pictures: a landscape one in color, one with a palette, one in a folder."""
    home = tmp_path_factory.mktemp("home")
    _save(home / "weights.safetensors", _weights())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(home / "a picture.png")
    (home / "folder" / "inner").mkdir(parents=True)
    Image.fromarray(pixels[:30, :30]).convert("P").save(home / "folder" / "inner" / "b.gif")
    (home / "folder" / "notes.txt").write_text("no picture")
    (home / "broken.png").write_bytes((home / "a picture.png").read_bytes()[:200])
    return home


def _expected(weights: Checkpoint, x: np.ndarray) -> np.ndarray:
    """Probabilities by the referee."""
    params = {name: array.astype(np.float64) for name, array in weights.params.items()}
    logits = reference.activations(weights.config, params, x[None])["fc5"][0]
    return np.exp(logits) / np.exp(logits).sum()


def _probabilities(home: Path, picture: Path) -> np.ndarray:
    """What the stored weights make of it, with their preprocessing written out."""
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("L").resize((28, 28), Image.Resampling.BILINEAR), dtype=np.float64)
    return _expected(checkpoint.load(home / "weights.safetensors"), ((pixels / 255 - 0.25) / 0.5)[None])


def _predict(home: Path, *words: str, status: int = 0, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    words = ("predict", "--weights", str(home / "weights.safetensors"), *words)
    return googlenet(*words, status=status, stdin=stdin)


def _assert_classes(row: dict[str, Any], expected: np.ndarray, engines: list[str]) -> None:
    assert [item["class"] for item in row["classes"]] == list(np.argsort(-expected))[: len(row["classes"])]
    for item in row["classes"]:
        assert item["label"] == LABELS[item["class"]]
        assert list(item["probability"]) == engines
        for probability in item["probability"].values():
            assert probability == pytest.approx(expected[item["class"]], rel=2e-5)


# ---------------------------------------------------------------------------------------------------- engines


@pytest.mark.slow
def test_engines_in_processes_predict_what_the_referee_does(home):
    engines = [FIRST, "onnx", "openvino"]
    words = ["--weights", str(home / "weights.safetensors"), str(home / "a picture.png"), str(home / "folder")]
    words += ["--backends", ",".join(engines), "--top", "10", "--json"]
    rows = json.loads(googlenet_process("predict", *words).stdout)
    assert [Path(row["picture"]).name for row in rows] == ["a picture.png", "b.gif"]
    for row in rows:
        assert len(row["classes"]) == 10
        _assert_classes(row, _probabilities(home, Path(row["picture"])), engines)


def test_most_likely_classes_are_shown_in_a_table(home):
    done = _predict(home, str(home / "a picture.png"), "--backends", "onnx", "--top", "3")
    expected = _probabilities(home, home / "a picture.png")
    shown = [line.split() for line in done.stdout.splitlines() if line.startswith(LABELS)]
    assert shown == [[LABELS[i], f"{expected[i]:.4f}"] for i in np.argsort(-expected)[:3]]


def test_several_pictures_end_with_a_table_of_counts(home):
    done = _predict(home, str(home), str(home / "folder"), "--backends", "onnx", "--top", "1", status=2)
    assert "broken.png" in done.stderr
    pictures = [home / "a picture.png", home / "folder" / "inner" / "b.gif"]
    done = _predict(home, *map(str, [*pictures, pictures[0]]), "--backends", "onnx", "--top", "1")
    best = [LABELS[int(np.argmax(_probabilities(home, picture)))] for picture in [*pictures, pictures[0]]]
    table = done.stdout.split("3 pictures\n")[1].splitlines()
    assert [line.split() for line in table[1:]] == [[label, str(n)] for label, n in Counter(best).most_common()]


def test_every_backend_predicts_what_the_referee_does(home, backend):
    name = next(name for name, package in PACKAGES.items() if package == backend.__name__)
    words = ["--backends", f"onnx, {name}", "--dtype", "float64", "--json"]
    (row,) = json.loads(_predict(home, str(home / "a picture.png"), *words).stdout)
    expected = _probabilities(home, home / "a picture.png")
    _assert_classes(row, expected, ["onnx", name])
    assert len(row["classes"]) == 5
    for item in row["classes"]:
        assert item["probability"][name] == pytest.approx(expected[item["class"]], rel=1e-12)
        assert item["probability"]["onnx"] != pytest.approx(expected[item["class"]], rel=1e-12)


def test_picture_from_standard_input_with_labels_from_a_file(home, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f" label {i}" for i in range(10)) + "\n\n")
    words = ["-", "--backends", "onnx", "--labels", str(tmp_path / "labels.txt"), "--json", "--top", "1"]
    (row,) = json.loads(_predict(home, *words, stdin=(home / "a picture.png").read_bytes()).stdout)
    assert row["picture"] == "standard input"
    best = int(np.argmax(_probabilities(home, home / "a picture.png")))
    assert [(item["class"], item["label"]) for item in row["classes"]] == [(best, f"label {best}")]


def test_largest_picture_from_standard_input_is_bounded(monkeypatch):
    monkeypatch.setattr(prediction, "_LARGEST", 1000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 1001)))
    with pytest.raises(spec.InvalidInput, match="standard input: expected a picture of at most 1,000 bytes"):
        prediction.read_pictures(["-"], Preprocessing(28, "gray"))


def test_engine_that_dies_fails_and_the_others_are_shown(home, tmp_path):
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho it hurts >&2\nexit 3\n")
    dying.chmod(0o755)
    words = [str(home / "a picture.png"), "--backends", f"{FIRST},onnx", "--python", f"{FIRST}={dying}"]
    done = _predict(home, *words, "--json", status=1)
    (row,) = json.loads(done.stdout)
    _assert_classes(row, _probabilities(home, home / "a picture.png"), ["onnx"])
    assert done.stderr == f"{FIRST}: exit status 3\nit hurts\n"
    alone = _predict(home, *words[:2], FIRST, *words[3:], status=1)
    assert (alone.stdout, alone.stderr) == ("", done.stderr)


def test_engine_that_refuses_is_named(home, monkeypatch):
    monkeypatch.setattr("support.here", lambda *_: Answer(refused="not so"))
    done = _predict(home, str(home / "a picture.png"), "--backends", FIRST, status=2)
    assert done.stderr == f"error: {FIRST}: not so\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "nothing.png: No such file"),
        (["{home}/broken.png"], "not a picture that can be read (mend or remove it): "),
        (["{home}/folder/notes.txt"], "not a picture that can be read (mend or remove it): "),
        (["{home}/a picture.png", "--backends", "tf"], "expected one or more of pt, mx, jax, onnx, openvino, got tf"),
        (["{home}/a picture.png", "--mean", "a,b"], "--mean: expected numbers"),
        (["{home}/a picture.png", "--mean", "0.1,0.2"], "mean: expected 1 or 1 numbers, got 2"),
        (["{home}/a picture.png", "--std", "0"], "std: expected numbers above 0"),
        (["{home}/a picture.png", "--std", "1,2"], "std: expected 1 or 1 numbers, got 2"),
        (["{home}/a picture.png", "--scale", "inf"], "scale, mean and std: expected finite numbers"),
        (["{home}/a picture.png", "--order", "RGB"], "order: expected one for 1 channels, got 'RGB'"),
        (["{home}/a picture.png", "--size", "0"], "size: expected 1 to 4096 pixels, got 0"),
        (["{home}/a picture.png", "--size", "4097"], "size: expected 1 to 4096 pixels, got 4097"),
        (["{home}/a picture.png", "--size", "96"], "the dense layer fc3 needs maps of"),
        (["{home}/a picture.png", "--top", "0"], "--top: expected at least 1"),
        (["{home}/a picture.png", "--labels", "{home}/nothing"], "cannot be read"),
        (["{home}/a picture.png", "--labels", "{home}/folder/notes.txt"], "labels: expected 10, got 1"),
        (["{home}/a picture.png", "--labels", "/dev/zero"], "expected a file with a name a line"),
    ],
)
def test_request_that_cannot_be_met_is_refused_in_one_line(home, words, message):
    given = [word.format(home=home) for word in words]
    done = _predict(home, *(given if "--backends" in given else [*given, "--backends", "onnx"]), status=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_picture_that_cannot_be_read_is_named(home):
    prepare = preprocessing_of(read_weights(home / "weights.safetensors", here).weights)
    with pytest.raises(spec.InvalidInput, match=r"(?s)broken\.png.*no\.png: No such file"):
        prediction.read_pictures([str(home / "broken.png"), str(home / "no.png")], prepare)


# ---------------------------------------------------------------------------------------------------- the ranking


def test_classes_are_ranked_by_the_first_engine_and_equal_ones_by_number():
    found = Predictions({"a": np.array([[0.2, 0.5, 0.2, 0.1]]), "b": np.array([[0.7, 0.1, 0.1, 0.1]])})
    (row,) = ranked(["x.png"], found, [], 3)
    assert row["picture"] == "x.png"
    assert [(item["class"], item["label"]) for item in row["classes"]] == [(1, "1"), (0, "0"), (2, "2")]
    assert [item["probability"] for item in row["classes"]] == [
        {"a": 0.5, "b": 0.1},
        {"a": 0.2, "b": 0.7},
        {"a": 0.2, "b": 0.1},
    ]


def test_every_picture_has_its_own_ranking():
    found = Predictions({"a": np.array([[0.1, 0.9], [0.8, 0.2]])})
    rows = ranked(["x.png", "y.png"], found, ["no", "yes"], 1)
    labels = {row["picture"]: [item["label"] for item in row["classes"]] for row in rows}
    assert labels == {"x.png": ["yes"], "y.png": ["no"]}


def test_probabilities_of_large_logits_add_up_to_one():
    found = softmax(np.array([[1000.0, 1000.0, -1000.0], [-2000.0, -2001.0, -2000.0]], np.float32))
    assert found.dtype == np.float64
    third = 1 / (2 + np.exp(-1))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [third, np.exp(-1) * third, third]], rtol=1e-15)


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
    got = Preprocessing(4, "BGR", scale=1.0, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 7.0)).apply(picture)
    np.testing.assert_array_equal(got[:, 0, 0], [29, 9, 1])
    got = Preprocessing(4, "RGB", scale=2.0, mean=(1.0, 2.0, 3.0)).apply(picture)
    np.testing.assert_array_equal(got[:, 0, 0], [19, 38, 57])


def test_options_take_the_place_of_what_is_stored(home, tmp_path):
    """In color, in every option; held against the referee on pixels that are prepared by hand."""
    weights = _weights(in_channels=3)
    _save(tmp_path / "weights.safetensors", replace(weights, metadata={"labels": list(LABELS)}))
    words = ["--size", "30", "--order", "BGR", "--scale", "0.01", "--mean", "0.1,0.2,0.3", "--std", "2,0.5,1"]
    (row,) = json.loads(
        _predict(tmp_path, str(home / "a picture.png"), "--backends", "onnx", "--json", "--top", "10", *words).stdout
    )
    with Image.open(home / "a picture.png") as opened:
        pixels = np.asarray(opened.resize((30, 30), Image.Resampling.BILINEAR), dtype=np.float64)[..., ::-1]
    x = (0.01 * pixels - [0.1, 0.2, 0.3]) / [2, 0.5, 1]
    _assert_classes(row, _expected(weights, x.transpose(2, 0, 1)), ["onnx"])


@pytest.mark.parametrize(
    "preprocessing",
    [{"size": "big"}, {"size": 28, "order": "CMYK"}, {"mean": "x"}, {"std": [0.0]}, {"scale": 1e999}, 3],
)
def test_stored_preprocessing_that_cannot_be_is_refused(preprocessing):
    weights = Checkpoint(weights_of("lenet").params, spec.preset("lenet"), {"preprocessing": preprocessing})
    with pytest.raises(spec.InvalidInput, match="preprocessing"):
        preprocessing_of(weights)


def test_without_stored_preprocessing_pixels_go_from_0_to_1_at_the_presets_size():
    made = preprocessing_of(Checkpoint({}, spec.preset("d2l")))
    assert (made.size, made.order, made.scale, made.mean, made.std) == (96, "gray", 1 / 255, (0.0,), (1.0,))
    assert (preprocessing_of(Checkpoint({}, spec.preset("bvlc"))).order, made.labels) == ("RGB", ())


def test_pictures_for_torchvision_s_weights_go_through_its_two_normalizations():
    """ImageNet's, which its users apply, and that of `transform_input`, which its network applies."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 13, 3), dtype=np.uint8))
    made = published("torchvision", spec.preset("torchvision"))
    mean, std = (np.reshape(x, (3, 1, 1)) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    middle = np.asarray(picture.resize((369, 256), Image.Resampling.BILINEAR))[16:240, 72:296]  # 72.5 to even
    normalized = (middle.transpose(2, 0, 1) / 255 - mean) / std
    np.testing.assert_allclose(made.apply(picture), normalized * (std / 0.5) + (mean - 0.5) / 0.5, atol=1e-14)
    assert (made.assumed, made.size) == (False, 224)
    trained = published("torchvision", spec.preset("torchvision", num_classes=5))
    assert (trained.assumed, trained.mean) == (True, (0.5,))
    assert "where it is False, --mean 0.485,0.456,0.406" in trained.source


def test_pictures_for_caffe_s_weights_are_blue_green_red_less_a_mean_of_each():
    pixels = np.tile(np.reshape([1, 2, 3], (3, 1, 1)), (2, 1, 4, 4))
    got = published("caffe", spec.preset("bvlc")).numbers(pixels)
    np.testing.assert_array_equal(got[:, :, 0, 0], [[3 - 104, 2 - 117, 1 - 123]] * 2)


@pytest.mark.parametrize(
    ("scheme", "settings", "assumed"),
    [("d2l-sequential", {}, False), ("d2l-sequential", {"in_channels": 3}, True), ("canonical", {}, True)],
)
def test_what_nobody_says_of_pictures_is_assumed_until_somebody_does(scheme, settings, assumed):
    config = spec.preset("d2l", **settings)
    made = published(scheme, config)
    weights = Checkpoint({}, config, {"preprocessing": made.as_json()})
    assert (preprocessing_of(weights), made.scale, made.assumed) == (made, 1 / 255, assumed)
    assert chosen(weights, size=32).assumed == assumed
    said = chosen(weights, mean="0.5", std="0.25")
    assert (said.assumed, said.source, said.mean, said.std) == (False, "", (0.5,), (0.25,))
    assert "source" not in said.as_json()


def test_preprocessing_of_a_run_is_its_recipes():
    run = {"recipe": {"size": 40, "mean": 0.3, "std": 0.6}, "classes": list(LABELS)}
    made = preprocessing_of(Checkpoint({}, spec.preset("d2l"), {"run": run}))
    assert (made.size, made.order, made.scale, made.mean, made.std) == (40, "gray", 1 / 255, (0.3,), (0.6,))
    assert made.labels == LABELS


# ---------------------------------------------------------------------------------------------------------- inspect


def test_inspection_of_our_own_file_says_what_it_holds(home):
    done = googlenet("inspect", str(home / "weights.safetensors"))
    assert "fits preset lenet (in_channels=1, num_classes=10): 44,426 parameters" in done.stdout
    assert "as written: SHA-256" in done.stdout
    facts = json.loads(googlenet("inspect", str(home / "weights.safetensors"), "--json").stdout)
    assert (facts["format"], facts["names"], facts["sound"]) == ("safetensors", "canonical", True)
    assert facts["preprocessing"] == {**STORED, "scale": 1 / 255, "labels": list(LABELS)}
    params = checkpoint.load(home / "weights.safetensors").params
    tensors = {tensor["name"]: tensor for tensor in facts["tensors"]}
    assert tensors.keys() == params.keys()
    x = params["conv1.weight"].astype(float)
    assert (tensors["conv1.weight"]["shape"], tensors["conv1.weight"]["dtype"]) == ([6, 1, 5, 5], "float32")
    found = [tensors["conv1.weight"][name] for name in ("mean", "std", "least", "largest")]
    assert found == pytest.approx([x.mean(), x.std(), x.min(), x.max()])


def test_inspection_names_what_is_not_finite_and_what_differs(tmp_path):
    from safetensors.numpy import save_file

    arrays = {**weights_of("lenet", num_classes=20).params, "extra": np.array([1.0, np.nan, np.inf], np.float32)}
    arrays["fc5.weight"] = np.ascontiguousarray(arrays["fc5.weight"].T)
    save_file(arrays, tmp_path / "odd.safetensors")
    found = examine(tmp_path / "odd.safetensors", here)
    assert not found.sound
    assert found.fits == []
    assert found.nearest.startswith("preset lenet")
    assert any("extra" in difference for difference in found.differences)
    assert any("fc5.weight" in difference for difference in found.differences)
    extra = next(tensor for tensor in found.tensors if tensor.name == "extra")
    assert (extra.not_finite, extra.mean, extra.largest) == (2, 1, 1)
    done = googlenet("inspect", str(tmp_path / "odd.safetensors"), status=1)
    assert "2 not finite" in done.stdout
    assert "fits no network; nearest is preset lenet" in done.stdout


def test_inspection_fails_where_the_file_was_changed(home, tmp_path):
    content = bytearray((home / "weights.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    found = examine(tmp_path / "changed.safetensors", here)
    assert not found.sound
    assert "damaged" in found.problem
    assert "damaged" in googlenet("inspect", str(tmp_path / "changed.safetensors"), status=1).stdout
