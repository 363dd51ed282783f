"""Pictures as publishers of weights prepare them: cut, resized and scaled; `harness.images.framing` and the table."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support import ROOT, TESTED, googlenet, weights_of

import spec
from harness.backends.registry import load
from harness.images.framing import INTERPOLATIONS, framed
from harness.weights import checkpoint, names, preprocessing
from harness.weights.checkpoint import Checkpoint
from harness.weights.formats.huggingface import write_folder
from harness.weights.preprocessing import PUBLISHERS, Preprocessing, chosen, named, preprocessing_of, published

PIXELS = np.random.default_rng(2).integers(0, 256, (46, 61, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
SHAPES = [(20, 33), (46, 61), (23, 31), (90, 64)]  # height and width: smaller, equal, about half, larger
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


# ------------------------------------------------------------------------------------------------------ the filters


def _between(x: np.ndarray, at: float) -> np.ndarray:
    """A place between two of the first axis."""
    low = math.floor(at)
    return x[low] + (at - low) * (x[min(low + 1, len(x) - 1)] - x[low])


def _bilinear(pixels: np.ndarray, height: int, width: int, half: float) -> np.ndarray:
    """Row by row, then column by column."""
    rows = [max((i + half) * len(pixels) / height - half, 0) for i in range(height)]
    columns = [max((j + half) * pixels.shape[1] / width - half, 0) for j in range(width)]
    tall = np.stack([_between(pixels / 1, y) for y in rows])
    return np.stack([_between(tall.swapaxes(0, 1), x) for x in columns], axis=1)


def _square(interpolation: str, side: int, height: int, width: int) -> np.ndarray:
    """The middle of the resized picture, (side, side, 3)."""
    return framed(PICTURE, 3, side, (height, width), interpolation=interpolation).transpose(1, 2, 0)


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize(("interpolation", "half"), [("bilinear-tf1", 0.0), ("bilinear-torch", 0.5)])
def test_bilinear_filters_take_the_nearest_pixels_at_their_places(interpolation, half, height, width):
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    expected = _bilinear(PIXELS, height, width, half)[top : top + side, left : left + side]
    got = _square(interpolation, side, height, width)
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-11)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def mxnet():
    if "mx" not in TESTED:
        pytest.skip("MXNet is not under test")
    load("mx")  # mends MXNet for this NumPy
    return importlib.import_module("mxnet")


@pytest.mark.parametrize("side", [17, 46, 100])
def test_bilinear_torch_is_pytorch_s(torch, side):
    x = torch.from_numpy(PIXELS.transpose(2, 0, 1)[None].astype(np.float64))
    expected = torch.nn.functional.interpolate(x, (side, side), mode="bilinear", align_corners=False)
    got = framed(PICTURE, 3, side, interpolation="bilinear-torch")
    np.testing.assert_allclose(got, expected[0].numpy(), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (342, 454), (7, 46)])
def test_bilinear_opencv_is_what_mxnet_resizes_with_to_the_bit(mxnet, height, width):
    whole = mxnet.image.imresize(mxnet.nd.array(PIXELS, dtype="uint8"), width, height, interp=1)
    side = min(height, width)
    expected = mxnet.image.center_crop(whole, (side, side))[0].asnumpy()
    np.testing.assert_array_equal(_square("bilinear-opencv", side, height, width), expected)


def test_bicubic_floats_are_not_rounded_and_stay_in_range():
    """An edge from black to white overshoots in both directions."""
    edge = Image.fromarray(np.repeat([[0, 0, 0, 255, 255, 255]], 6, axis=0).astype(np.uint8))
    whole = np.asarray(edge.convert("F").resize((24, 24), Image.Resampling.BICUBIC))
    assert whole.min() < -1 < 256 < whole.max()
    got = framed(edge, 1, 24, interpolation="bicubic-floats")
    np.testing.assert_array_equal(got, [np.clip(whole, 0, 255)])
    assert not np.array_equal(got, np.rint(got))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_every_filter_leaves_a_picture_of_the_right_size_as_it_is(interpolation, mode, channels):
    square = PICTURE.crop((0, 0, 40, 40))
    expected = np.asarray(square.convert(mode)).reshape(40, 40, channels).transpose(2, 0, 1)
    np.testing.assert_array_equal(framed(square, channels, 40, interpolation=interpolation), expected)


def test_picture_that_is_too_narrow_is_refused_before_it_fills_the_memory():
    with pytest.raises(spec.InvalidInput, match="less narrow, got 1 x 60,000 pixels, which become 342 x 20,520,000"):
        framed(Image.new("L", (1, 60_000)), 1, 299, (342,))


# --------------------------------------------------------------------------------------------------- each publisher


def _pillow(width: int, height: int, resampling: Image.Resampling, side: int, left: int, top: int) -> np.ndarray:
    """(side, side, 3), as torchvision's Resize and CenterCrop."""
    return np.asarray(PICTURE.resize((width, height), resampling))[top : top + side, left : left + side] / 1


def _opencv(width: int, height: int, side: int, left: int, top: int) -> np.ndarray:
    """To one level: OpenCV rounds on the way."""
    return np.floor(_bilinear(PIXELS, height, width, 0.5) + 0.5)[top : top + side, left : left + side]


def _floats() -> np.ndarray:
    bands = [band.convert("F").resize((299, 299), Image.Resampling.BICUBIC) for band in PICTURE.split()]
    return np.clip(np.stack(bands, axis=-1), 0, 255).astype(np.float64)


def _normalized(pixels: np.ndarray) -> np.ndarray:
    return (pixels / 255 - IMAGENET[0]) / IMAGENET[1]


def _transformed(pixels: np.ndarray) -> np.ndarray:
    """For ImageNet, and then as torchvision's `transform_input` does."""
    return _normalized(pixels) * (np.array(IMAGENET[1]) / 0.5) + (np.array(IMAGENET[0]) - 0.5) / 0.5


BILINEAR, BICUBIC, NEAREST = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.NEAREST
# What becomes of the 61 x 46 pixels: (side, side, channels). Arguments: width and height, side, left and top.
EXPECTED: dict[tuple[str, str], Callable[[], np.ndarray]] = {
    ("torchvision", "inception-v3"): lambda: _transformed(_pillow(453, 342, BILINEAR, 299, 77, 22)),
    ("torchvision", "torchvision"): lambda: _transformed(_pillow(339, 256, BILINEAR, 224, 58, 16)),
    ("timm", "inception-v4"): lambda: _pillow(452, 341, BICUBIC, 299, 76, 21) / 127.5 - 1,
    ("timm-resnet-v2", "inception-resnet-v2"): lambda: _pillow(441, 333, BICUBIC, 299, 71, 17) / 127.5 - 1,
    ("cadene", "inception-v4"): lambda: _pillow(452, 341, BILINEAR, 299, 76, 21) / 127.5 - 1,
    ("cadene-bn", "inception-bn"): lambda: _pillow(339, 256, BILINEAR, 224, 58, 16)[..., ::-1] - [104.0, 117.0, 128.0],
    ("caffe", "bvlc"): lambda: _opencv(256, 256, 224, 16, 16)[..., ::-1] - [104.0, 117.0, 123.0],
    ("mxnet-bn", "inception-bn-mxnet"): lambda: _opencv(339, 256, 224, 57, 16) - [123.68, 116.779, 103.939],
    ("gluon", "inception-v3"): lambda: _normalized(_opencv(453, 342, 299, 77, 21)),
    ("keras", "inception-v3-tf"): lambda: _pillow(299, 299, NEAREST, 299, 0, 0) / 127.5 - 1,
    ("slim", "inception-v3-tf"): lambda: _bilinear(PIXELS[2:44, 3:58], 299, 299, 0.0) / 127.5 - 1,
    ("pytorch-fid", "inception-v3-fid"): lambda: 2 * _bilinear(PIXELS, 299, 299, 0.5) / 255 - 1,
    ("torch-fidelity", "inception-v3-fid"): lambda: (_bilinear(PIXELS, 299, 299, 0.0) - 128) / 128,
    ("clean-fid", "inception-v3-fid"): lambda: (_floats() - 128) / 128,
    ("d2l", "d2l"): lambda: np.asarray(PICTURE.convert("L").resize((96, 96), BILINEAR))[..., None] / 255,
}


@pytest.mark.parametrize(("name", "preset"), EXPECTED, ids=map("-".join, EXPECTED))
def test_picture_is_prepared_as_by_its_publisher(name, preset):
    made = named(name, spec.preset(preset))
    expected = EXPECTED[name, preset]()
    level = made.scale / min(made.std) if made.interpolation == "bilinear-opencv" else 0
    got = made.apply(PICTURE).transpose(1, 2, 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1.001 * level + 1e-11)
    assert np.abs(got - expected).mean() <= 0.2 * level + 1e-11


def test_every_publisher_is_tried():
    assert {name for name, _ in EXPECTED} == PUBLISHERS.keys()


def test_another_size_shows_the_same_part_of_a_picture():
    made = named("torchvision", spec.preset("torchvision")).at(112)
    assert (made.size, made.resize) == (112, (128,))
    assert made.apply(PICTURE).shape == (3, 112, 112)


def test_table_of_the_documentation_is_true():
    """Each for the network of its publisher."""
    presets = {"caffe": "bvlc", "cadene-bn": "inception-bn", "mxnet-bn": "inception-bn", "d2l": "d2l"}
    rows = [
        f"| `{name}` | {publisher.way} | {named(name, spec.preset(presets.get(name, 'inception-v3')))} |"
        for name, publisher in PUBLISHERS.items()
    ]
    assert "\n".join(rows) in (ROOT / "docs" / "preprocessing.md").read_text()


# -------------------------------------------------------------------------------------------- what is stored and said


@pytest.mark.parametrize(
    ("scheme", "preset", "classes", "name", "words"),
    [
        ("torchvision-v3", "inception-v3", 1000, "torchvision", "of the same names: --preprocessing timm"),
        (
            "torchvision-v3",
            "inception-v3-fid",
            1008,
            "pytorch-fid",
            "of the same names: --preprocessing torch-fidelity",
        ),
        ("torchvision-v3", "inception-v3-tf", 1000, "timm", ""),
        ("timm", "inception-v4", 1000, "timm", "of the same names: --preprocessing cadene"),
        ("timm", "inception-resnet-v2", 1000, "timm-resnet-v2", ""),
        ("cadene", "inception-resnet-v2", 1000, "cadene", ""),
        ("cadene", "inception-bn", 1000, "cadene-bn", ""),
        ("mxnet-symbol", "inception-bn-mxnet", 1000, "mxnet-bn", ""),
        ("gluon-zoo", "inception-v3", 1000, "gluon", ""),
        (
            "tensorflow-2015",
            "inception-v3-fid",
            1008,
            "torch-fidelity",
            "of the same names: --preprocessing pytorch-fid",
        ),
        ("keras", "inception-v3-tf", 1000, "keras", ""),
        ("slim-v3", "inception-v3-tf", 1001, "slim", ""),
    ],
)
def test_names_tell_the_publisher(scheme, preset, classes, name, words):
    config = spec.preset(preset, num_classes=classes)
    made = published(scheme, config)
    assert made == replace(named(name, config), source="; ".join(filter(None, [PUBLISHERS[name].way, words])))
    trained = published(scheme, replace(config, num_classes=7))
    assert (trained.assumed, trained.interpolation) == (True, made.interpolation)
    assert published(scheme, replace(config, in_channels=1)).source == "as the file does not say"


def test_names_and_presets_that_tell_a_publisher_exist():
    """A scheme that has another name would leave its files with a guess."""
    for key, publishers in preprocessing._OF_NAMES.items():
        scheme, *presets = (key,) if isinstance(key, str) else key
        assert set(presets) <= set(names.SCHEMES[scheme].presets)
        assert set(publishers) <= PUBLISHERS.keys()


def test_stored_way_is_read_again_and_a_usual_one_takes_no_room():
    config = spec.preset("inception-v3-tf", num_classes=1001)
    for made in [named("slim", config), named("torchvision", config), named("caffe", config)]:
        again = preprocessing_of(Checkpoint({}, config, json.loads(json.dumps({"preprocessing": made.as_json()}))))
        assert again == made
    assert Preprocessing(28, "gray").as_json().keys() == {"size", "order", "scale", "mean", "std"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"resize": [298]}, "resize: expected the shorter side, or height and width, from size to 8192 pixels"),
        ({"resize": [299, 299, 3]}, "resize: expected the shorter side, or height and width"),
        ({"resize": ["342"]}, "resize: expected the shorter side, or height and width"),
        ({"resize": [10**9]}, "resize: expected the shorter side, or height and width"),
        ({"resize": 342}, "preprocessing: expected"),
        ({"crop": 0}, "crop: expected a share above 0 and at most 1, got 0.0"),
        ({"crop": math.nan}, "crop: expected a share above 0 and at most 1, got nan"),
        ({"interpolation": "lanczos"}, "interpolation: expected one of nearest, bilinear, bicubic, .*got 'lanczos'"),
    ],
)
def test_stored_way_that_cannot_be_is_refused(stored, message):
    weights = Checkpoint({}, spec.preset("inception-v3"), {"preprocessing": stored})
    with pytest.raises(spec.InvalidInput, match=message):
        preprocessing_of(weights)


def test_predict_and_convert_prepare_pictures_as_by_the_publisher_that_is_named(tmp_path):
    """And say so; in a file of one's own too, and what was converted keeps it."""
    config = spec.preset("lenet", in_channels=3)
    weights = weights_of("lenet", in_channels=3)
    checkpoint.save(tmp_path / "a.safetensors", weights.params, config, {})
    PICTURE.save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "--backends", "onnx", "--json", "--weights"]
    assumed = googlenet(*words, str(tmp_path / "a.safetensors"))
    assert "warning: assumed of pictures: 28 x 28 (bilinear), RGB" in assumed.stderr
    assert "--preprocessing" in assumed.stderr
    named = googlenet(*words, str(tmp_path / "a.safetensors"), "--preprocessing", "slim")
    way = "pictures: the middle 87.5% of height and width, 28 x 28 (bilinear-tf1), RGB, (pixel / 255 - 0.5) / 0.5"
    assert named.stderr == f"{way}, as for slim's own weights\n"
    assert json.loads(named.stdout) != json.loads(assumed.stdout)
    googlenet("convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.onnx"), "--preprocessing", "slim")
    again = googlenet(*words, str(tmp_path / "b.onnx"))
    assert (again.stdout, again.stderr) == (named.stdout, named.stderr)
    wrong = googlenet(*words, str(tmp_path / "a.safetensors"), "--preprocessing", "Tim", status=2)
    assert "--preprocessing: expected one of torchvision, timm, " in wrong.stderr
    assert "got 'Tim'; did you mean timm?" in wrong.stderr


def test_weights_are_trained_on_whole_pictures_and_it_is_said():
    config = spec.preset("torchvision")
    made = named("torchvision", config)
    assert made.whole() == Preprocessing(
        224, "RGB", mean=(0.5,), std=(0.5,), source=f"{made.source}, but whole and bilinear, as in training"
    )
    whole = Preprocessing(28, "gray")
    assert whole.whole() == whole


def test_a_folder_for_hugging_face_says_what_is_cut_out(tmp_path):
    weights = weights_of("lenet", in_channels=3)
    prepare = replace(named("timm", weights.config), interpolation="bilinear-tf1", crop=0.5)
    write_folder(tmp_path / "a", replace(weights, metadata={"preprocessing": prepare.as_json()}))
    pictures = json.loads((tmp_path / "a" / "preprocessor_config.json").read_text())
    size = {"height": 28, "width": 28}
    expected = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": size, "resample": 2}
    expected |= {"central_crop": 0.5, "interpolation": "bilinear-tf1"}
    assert {name: pictures[name] for name in expected} == expected


def test_options_change_the_way_that_is_named():
    weights = Checkpoint({}, spec.preset("inception-v3"))
    made = chosen(weights, publisher="torchvision", size=107, std="0.25")
    assert (made.size, made.resize, made.mean, made.std) == (107, (122,), (0.5,), (0.25,))
    assert (made.source, made.assumed) == ("", False)
    assert chosen(weights, publisher="keras").source == "as for Keras' own weights, with load_img"


@pytest.mark.parametrize(
    ("preset", "classes", "labels", "message"),
    [
        ("inception-v3-fid", 1008, 1000, "labels: expected 1008, got 1000; the 1008 classes of FID's network come in"),
        ("inception-v3-tf", 1001, 1000, "labels: expected 1001, got 1000; class 0 of such a network is the background"),
        ("inception-v3", 1000, 1001, "labels: expected 1000, got 1001; the first of 1001 is the background"),
        ("inception-v3", 1000, 999, "labels: expected 1000, got 999$"),
    ],
)
def test_imagenet_s_names_for_another_number_of_classes_are_refused_with_the_reason(
    preset, classes, labels, message, tmp_path
):
    (tmp_path / "labels.txt").write_text("\n".join(f"n{i}" for i in range(labels)))
    weights = Checkpoint({}, spec.preset(preset, num_classes=classes))
    with pytest.raises(spec.InvalidInput, match=message):
        chosen(weights, tmp_path / "labels.txt")
