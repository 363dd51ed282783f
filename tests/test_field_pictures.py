"""Pictures and folders of pictures as people have them: every row of two tables in docs/formats.md."""

from __future__ import annotations

import io
import os
import struct
import types
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from field import Row, rows
from PIL import Image
from support import digits, googlenet, weights_of

import spec
from harness.images import pictures
from harness.images.batches import open_dataset
from harness.images.prepared import prepare
from harness.images.sources import load_batch
from harness.training import train as training
from harness.training.recipe import recipe
from harness.weights import checkpoint, prediction
from harness.weights.preprocessing import Preprocessing
from spec import reference

Maker = Callable[[Path], Path]  # makes a file or a folder in a folder
SILENT = "nothing that needs a word"
PICTURES, FOLDERS = "Pictures", "Folders of pictures"
MAKERS: dict[str, dict[str, Maker]] = {PICTURES: {}, FOLDERS: {}}
# Pictures that are read, and have not the pixels of all the others: those of the digit in black and white, and others.
INKS = {"16 bits, white on a transparent black", "white on a transparent color of the palette"}
OTHERS = {"black and white", "wider than high", "of one pixel"}


def makes(what: str, section: str = PICTURES) -> Callable[[Maker], Maker]:
    def register(maker: Maker) -> Maker:
        assert what not in MAKERS[section]
        MAKERS[section][what] = maker
        return maker

    return register


def _digit() -> Image.Image:
    """A handwritten 5 of 64 x 64 pixels, white on black."""
    return Image.fromarray(digits()[0][5]).resize((64, 64), Image.Resampling.BILINEAR)


DIGIT = _digit()
LEVELS = np.asarray(DIGIT)
COLOR = DIGIT.convert("RGB")
INK = np.where(LEVELS > 100, 255, 0).astype(np.uint8)  # the digit in black and white
JPEG = {"format": "JPEG", "quality": 98}


def picture(what: str, name: str, image: Image.Image, **options: object) -> None:
    @makes(what)
    def _(folder: Path) -> Path:
        image.save(folder / name, **options)
        return folder / name


def content(what: str, name: str, data: bytes) -> None:
    @makes(what)
    def _(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name


def _encoded(form: str, image: Image.Image = DIGIT) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def _png(width: int, height: int, bits: int, color: int, data: bytes) -> bytes:
    """A PNG of a kind that Pillow does not write."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    framed = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def _deep_color(values: np.ndarray) -> bytes:
    rows = np.repeat(values[..., None], 3, axis=2).astype(">u2")
    return _png(64, 64, 16, 2, b"".join(b"\0" + row.tobytes() for row in rows))


def _with_alpha(image: Image.Image, alpha: Image.Image | int) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def _palette() -> Image.Image:
    image = Image.fromarray(INK // 255, "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    return image


def _turned(orientation: int, turn: Image.Transpose | None) -> dict[str, object]:
    exif = Image.Exif()
    exif[274] = orientation
    return {"image": COLOR if turn is None else COLOR.transpose(turn), "exif": exif}


T = Image.Transpose
BLANK = Image.new("L", DIGIT.size, 0)

picture("8 bits, grey", "a.png", DIGIT)
picture("8 bits, color", "a.png", COLOR)
picture("16 bits, PNG", "a.png", Image.fromarray(LEVELS.astype(np.uint16) * 257))
picture("16 bits, TIFF", "a.tif", Image.fromarray(LEVELS.astype(np.uint16) * 257))
content("16 bits a color", "a.png", _deep_color(LEVELS.astype(np.uint16) * 257))
picture("12 bits in 16", "a.png", Image.fromarray(LEVELS.astype(np.uint16) * 16))
picture("8 bits in 16", "a.tif", Image.fromarray(LEVELS.astype(np.uint16)))
content("12 bits in 16, in color", "a.png", _deep_color(LEVELS.astype(np.uint16) * 16))
picture("32-bit whole numbers up to 65,535", "a.tif", Image.fromarray(LEVELS.astype(np.int32) * 257))
picture("32-bit whole numbers beyond", "a.tif", Image.fromarray(LEVELS.astype(np.int32) * 65537))
picture("floats from 0 to 1", "a.tif", Image.fromarray((LEVELS / 255).astype(np.float32)))
picture("floats from 0 to 255", "a.tif", Image.fromarray(LEVELS.astype(np.float32)))
picture("floats of another range", "a.tif", Image.fromarray(LEVELS.astype(np.float32) - 100))
picture("floats, not all numbers", "a.tif", Image.fromarray(np.where(LEVELS > 9, LEVELS, np.nan).astype(np.float32)))
picture("CMYK", "a.jpg", COLOR.convert("CMYK"), **JPEG)
picture("palette", "a.png", DIGIT.convert("P"))
picture("black and white", "a.png", DIGIT.convert("1"))
picture("alpha, opaque", "a.png", _with_alpha(COLOR, 255))
picture("black on nothing, in alpha", "a.png", _with_alpha(BLANK, Image.eval(DIGIT, lambda x: 255 - x)))
picture("white on nothing, in alpha, color", "a.png", _with_alpha(Image.new("RGB", DIGIT.size, "white"), DIGIT))
picture("white on nothing, in alpha, grey", "a.png", _with_alpha(Image.new("L", DIGIT.size, 255), DIGIT))
picture("16 bits, white on a transparent black", "a.png", Image.fromarray(INK * np.uint16(257)), transparency=0)
picture("white on a transparent color of the palette", "a.png", _palette(), transparency=0)
for _number, _turn in enumerate(
    [None, T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE, T.ROTATE_90, T.TRANSVERSE, T.ROTATE_270], 1
):
    picture(f"turned by EXIF, {_number}", "a.jpg", **_turned(_number, _turn), **JPEG)
picture("turned by EXIF, PNG", "a.png", **_turned(6, T.ROTATE_90))
picture("turned by EXIF, TIFF", "a.tif", **_turned(6, T.ROTATE_90))
picture("animated, the picture first", "a.gif", DIGIT, save_all=True, append_images=[BLANK])
picture("animated, a blank frame first", "a.gif", BLANK, save_all=True, append_images=[DIGIT, BLANK])
picture("several pages", "a.tif", DIGIT, save_all=True, append_images=[BLANK])
picture("a telephone's file of two pictures", "a.jpg", COLOR, format="MPO", save_all=True, append_images=[COLOR])
picture("letters of any script and spaces in the name", "ünïcödé 数字 (1).png", DIGIT)
picture("suffix in capitals", "UPPER.PNG", DIGIT)
picture("no suffix, named itself", "noext", COLOR, format="PNG")
picture("another format's suffix", "a.png", COLOR, **JPEG)
picture("PPM", "a.ppm", COLOR)
picture("PGM", "a.pgm", DIGIT)
picture("WebP", "a.webp", COLOR, lossless=True)
picture("JFIF", "a.jfif", COLOR, **JPEG)
picture("JPEG 2000", "a.jp2", COLOR)
picture("AVIF", "a.avif", COLOR, quality=98)
picture("wider than high", "wide.png", Image.fromarray(np.tile(LEVELS, (1, 8))))
picture("of one pixel", "one.png", Image.new("L", (1, 1), 9))
content("cut off", "a.jpg", _encoded("JPEG")[:-200])
content("empty file", "a.jpg", b"")
content("HEIC, without its plugin", "a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
content("JPEG XL, without its plugin", "a.jxl", b"\xff\x0a\0\0")
content("a web page under a picture's name", "a.jpg", b"<!DOCTYPE html><title>404</title>")
content("a pointer of Git LFS", "a.png", b"version https://git-lfs.github.com/spec/v1\n")
content("what macOS leaves beside a file", "._a.png", b"\0\5\x16\7\0\2\0\0Mac OS X        ")
content("more pixels than half of the memory holds", "huge.png", _png(2**24, 2**24, 8, 0, b""))
content("EPS", "a.png", _encoded("EPS", COLOR))
content("DDS", "a.png", _encoded("DDS", COLOR))
content("BLP", "a.png", b"BLP2" + bytes(200))
content("IM", "a.png", b"Image type: L image\r\nName: a\r\n" + bytes(500))
content("SPIDER", "a.png", np.ones(64, ">f4").tobytes())
content("AVIF, damaged", "a.avif", _encoded("AVIF", COLOR)[:300])


@makes("above Pillow's own limit of pixels")
def _large(folder: Path) -> Path:
    assert Image.MAX_IMAGE_PIXELS is None, "it takes seconds to read a picture that is really so large"
    DIGIT.save(folder / "large.png")
    return folder / "large.png"


@makes("a pipe")
def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


@makes("a device")
def _device(folder: Path) -> Path:
    (folder / "zero.png").symlink_to("/dev/zero")
    return folder / "zero.png"


@makes("a folder among the files")
def _below(folder: Path) -> Path:
    (folder / "below" / "deeper").mkdir(parents=True)
    DIGIT.save(folder / "below" / "deeper" / "a.png")
    return folder / "below"


@makes("a folder with other files")
def _mixed(folder: Path) -> Path:
    DIGIT.save(folder / "a.png")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for name in ("a.heic", "b.heic", "labels.csv", "README"):
        (folder / name).touch()
    return folder


@makes("a folder without pictures")
def _none(folder: Path) -> Path:
    (folder / "labels.csv").touch()
    return folder


@pytest.fixture(scope="module")
def network() -> tuple[spec.Config, spec.Arrays]:
    weights = weights_of("lenet", dtype="float64")
    return weights.config, weights.params


def _class(network: tuple[spec.Config, spec.Arrays], images: np.ndarray) -> int:
    return int(np.argmax(reference.activations(*network, images)["fc5"]))


def _row(section: str, what: str) -> Row:
    (row,) = (row for row in rows(section) if row.what == what)
    return row


@pytest.mark.parametrize("section", MAKERS)
def test_every_row_is_tried(section):
    assert [row.what for row in rows(section)] == list(MAKERS[section])
    assert {row.outcome for row in rows(section)} == {"read", "refused"}


@pytest.mark.parametrize("what", MAKERS[PICTURES])
def test_what_becomes_of_a_picture(what, tmp_path, network):
    row = _row(PICTURES, what)
    path = MAKERS[PICTURES][what](tmp_path)
    prepare = Preprocessing(28, "gray")
    if row.outcome == "refused":
        with pytest.raises(spec.InvalidInput) as refused:
            prediction.read_pictures([str(path)], prepare)
        assert row.words in str(refused.value)
        assert str(path) in str(refused.value)
        return
    _, images, lines = prediction.read_pictures([str(path)], prepare)
    assert images.shape == (1, 1, 28, 28)
    assert (lines == []) if row.words == SILENT else (row.words in "\n".join(lines))
    if what in INKS:
        np.testing.assert_array_equal(images[0], prepare.apply(Image.fromarray(INK)))
    elif what not in OTHERS:
        expected = prepare.apply(DIGIT)
        assert np.abs(images[0] - expected).max() < 2.5 / 255
        assert _class(network, images) == _class(network, expected[None])


def test_one_reader_serves_predict_compare_and_train(tmp_path):
    """The same pixels of a turned picture of 16 bits; Pillow alone reads it otherwise."""
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(2):
            exif = {"exif": _turned(6, None)["exif"]}
            Image.fromarray(LEVELS.T[::-1].astype(np.uint16) * 16).save(tmp_path / "data" / name / f"{i}.png", **exif)
    expected = Preprocessing(20, "gray").apply(DIGIT)
    config = spec.preset("lenet")
    compared = load_batch([str(tmp_path / "data" / "a")], config, 20, None)
    trained = open_dataset(prepare(f"folder:{tmp_path / 'data'}", 1, 20)).train
    for images in (compared.images, trained.images / 255):
        assert np.abs(images - expected).max() < 1.5 / 255
    assert compared.remarks[0].startswith("taken as 12 bits deep")


def test_an_installed_plugin_is_used(tmp_path, monkeypatch):
    """A package that registers a format with Pillow as the real ones do."""
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")

    class Heif(Image.Image):
        def __init__(self, file: object, name: str) -> None:
            super().__init__()
            self._im, self._mode, self._size = DIGIT.im, "L", DIGIT.size

    def load(name: str) -> None:
        assert name == "pillow_heif.HeifImagePlugin"
        monkeypatch.setitem(Image.OPEN, "HEIF", (Heif, lambda start: start[4:12] == b"ftypheic"))

    monkeypatch.setattr(pictures, "_installed", lambda plugin: plugin.package == "pillow-heif")
    monkeypatch.setattr(pictures, "importlib", types.SimpleNamespace(import_module=load))
    (path,), lines = pictures.pictures_in(tmp_path)
    assert lines == []
    np.testing.assert_array_equal(np.asarray(pictures.read(path, "a", pictures.Remarks())), LEVELS)


def test_predict_says_what_it_left_out(tmp_path):
    weights = weights_of("lenet")
    checkpoint.save(tmp_path / "w.safetensors", weights.params, weights.config, weights.metadata)
    folder = tmp_path / "photos"
    folder.mkdir()
    DIGIT.save(folder / "good.png")
    (folder / "bad.png").write_bytes(b"<html>")
    (folder / "a.heic").touch()
    words = ["predict", str(folder), "--weights", str(tmp_path / "w.safetensors"), "--backends", "onnx", "--size", "28"]
    refused = googlenet(*words, status=2)
    assert "--skip-damaged): " in refused.stderr
    done = googlenet(*words, "--skip-damaged")
    assert f"left out in {folder}: 1 .heic file, and pillow-heif is not installed, which reads .heic" in done.stderr
    assert f"left out, cannot be read: {folder / 'bad.png'}: expected a picture" in done.stderr
    assert "good.png" in done.stdout
    assert "bad.png" not in done.stdout


# ------------------------------------------------------------------------------------------------------- folders


def _fill(folder: Path, names: list[str], count: int = 6) -> Path:
    suffixes = (".jpg", ".JPG", ".png", ".Png", ".bmp", ".tif")
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            suffix = suffixes[i % len(suffixes)]
            DIGIT.resize((12, 12)).save(folder / name / f"IMG {i:03}{suffix}")
    return folder


CLASSES = ["cat", "golden retriever", "köter"]


def folder(what: str, names: list[str] = CLASSES, count: int = 6) -> Callable[[Callable[[Path], object]], None]:
    """A row of a folder that is filled, and then changed by a function."""

    def register(change: Callable[[Path], object]) -> None:
        @makes(what, FOLDERS)
        def _(place: Path) -> Path:
            change(_fill(place / "data", names, count))
            return place / "data"

    return register


folder("one subfolder a class, suffixes in any case")(lambda data: None)


@folder("beside what systems and programs leave")
def _messy(data: Path) -> None:
    for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "cat/._IMG 000.jpg", "labels.csv"):
        (data / name).write_bytes(b"x")
    (data / ".ipynb_checkpoints").mkdir()
    (data / "__MACOSX" / "cat").mkdir(parents=True)
    (data / "__MACOSX" / "cat" / "IMG 000.jpg").write_bytes(b"x")


folder("an empty class")(lambda data: (data / "horse").mkdir())


@folder("a class of files that are not read")
def _unread(data: Path) -> None:
    (data / "horse").mkdir()
    (data / "horse" / "a.heic").touch()


@folder("a class of one picture")
def _single(data: Path) -> None:
    (data / "horse").mkdir()
    DIGIT.save(data / "horse" / "a.png")


folder("one picture in every class", count=1)(lambda data: None)
folder("train, val and test", ["train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog"])(lambda _: None)
folder("training and validation", ["Training/cat", "Training/dog", "validation/cat"])(lambda data: None)
folder("train alone", ["train/cat", "train/dog"])(lambda data: None)
folder("test and val alone", ["test/cat", "test/dog", "val/cat", "val/dog"])(lambda data: None)
folder("a class in test alone", ["train/cat", "train/dog", "test/cat", "test/bird"])(lambda data: None)
folder("train, test and another folder", ["train/cat", "train/dog", "test/cat", "more/cat"])(lambda data: None)


@folder("test without classes", ["train/cat", "train/dog"])
def _flat(data: Path) -> None:
    (data / "test").mkdir()
    DIGIT.save(data / "test" / "1.png")


folder("one level too deep", [f"data/{name}" for name in CLASSES])(lambda data: None)
folder("one class", ["cat"])(lambda data: None)
folder("pictures outside the classes")(lambda data: DIGIT.save(data / "loose.png"))
folder("a picture cut off")(
    lambda data: (data / "cat" / "IMG 000.jpg").write_bytes((data / "cat" / "IMG 000.jpg").read_bytes()[:300])
)
folder("an empty file among the pictures")(lambda data: (data / "cat" / "IMG 001.JPG").write_bytes(b""))
folder("a pipe among the pictures")(lambda data: os.mkfifo(data / "cat" / "pipe.png"))


@folder("classes of PPM", ["00000", "00001"])
def _ppm(data: Path) -> None:
    for path in list(data.rglob("IMG*")):
        Image.open(path).convert("RGB").save(path.with_suffix(".ppm"))
        path.unlink()


folder("classes that are numbers", [str(i) for i in range(11)], count=2)(lambda data: None)


@folder("16 bits", ["c0", "c1"])
def _sixteen(data: Path) -> None:
    for path in list(data.rglob("IMG*")):
        Image.fromarray(LEVELS.astype(np.uint16) * 257).save(path.with_suffix(".png"))


@makes("a folder that is not there", FOLDERS)
def _missing(place: Path) -> Path:
    return place / "nothing"


@pytest.mark.parametrize("what", MAKERS[FOLDERS])
def test_what_becomes_of_a_folder(what, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = _row(FOLDERS, what)
    source = f"folder:{MAKERS[FOLDERS][what](tmp_path)}"
    lines: list[str] = []
    if row.outcome == "refused":
        with pytest.raises(spec.InvalidInput) as refused:
            prepare(source, 1, 8, say=lines.extend)
        assert row.words in str(refused.value)
        return
    found = open_dataset(prepare(source, 1, 8, say=lines.extend))
    said = [f"classes: {', '.join(found.classes)}", *lines]
    assert row.words in "\n".join(said)
    assert len(found.classes) == len(set(found.train.labels.tolist()))


def test_train_names_damaged_pictures_and_how_to_go_on(tmp_path):
    data = _fill(tmp_path / "data", CLASSES, 2)
    (data / "cat" / "IMG 000.jpg").write_bytes(b"")
    words = ["train", "--data", f"folder:{data}", "--run", str(tmp_path / "run")]
    refused = googlenet(*words, status=2, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "or leave it out with --skip-damaged): " in refused.stderr
    assert str(data / "cat" / "IMG 000.jpg") in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_goes_on_with_its_order_of_classes_and_without_what_was_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = _fill(tmp_path / "data", [str(i) for i in range(11)], 2)
    (data / "3" / "bad.png").write_bytes(b"")
    before = sorted(str(i) for i in range(11))
    made = prepare(f"folder:{data}", 1, 28, skip_damaged=True, classes=before)
    settings = training.settings_for(recipe("fast"), made, 0, "float32", "cpu")
    parts = training.create(tmp_path / "run", ["pt"], settings)
    begun = []
    monkeypatch.setattr(training, "reopen", lambda folder, backend: parts)
    monkeypatch.setattr(training, "train", lambda parts, dataset, *_, **__: begun.append(dataset) or [])
    googlenet("train", "--resume", str(tmp_path / "run"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert begun == [made]
