"""Prepared datasets and their batches: every pixel, both splits, the order, the thread, and what is refused."""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fashion import stand_in
from PIL import Image

import spec
from harness.images import prepared, sources
from harness.images.batches import Dataset, Split, evaluation_batches, open_dataset, pixels, shuffled, training_batches
from harness.images.framing import framed
from harness.images.pictures import Remarks, read
from harness.images.prepared import prepare
from harness.images.sources import load_batch

GREY, COLOR = spec.preset("d2l"), spec.preset("torchvision")
ROOT = Path(__file__).parent.parent
PLAIN = {"dtype": "float64", "mean": 0.0, "std": 1.0}  # pixels from 0 to 1, as `load_batch` gives them


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where prepared datasets appear in these tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "googlenet" / "prepared"


@pytest.fixture
def flowers(tmp_path):
    """Three classes of 1-, 3- and 4-channel pictures of unequal sizes, hidden files, notes, a folder below."""
    folder = tmp_path / "Blüten"
    rng = np.random.default_rng(0)
    for name, count in (("rose", 11), ("aster", 2), ("Lily", 5)):
        (folder / name / "below").mkdir(parents=True)
        for i in range(count):
            shape = (17 + i, 23, 3) if i % 2 else (30, 12 + i)
            place = folder / name / "below" if i == 1 else folder / name
            Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(place / f"{i}.{'PNG' if i % 3 else 'bmp'}")
    (folder / "rose" / "._0.bmp").write_text("what some systems leave beside a picture")
    (folder / "._rose.png").write_text("or beside a folder")
    (folder / "rose" / "notes.txt").write_text("not a picture, and not named as one")
    for place in (folder, folder / "rose", folder / "aster", folder / "Lily"):
        (place / ".thumbnails").mkdir()
        shutil.copy(folder / "rose" / "0.bmp", place / ".thumbnails")
    return folder


def run(script: str, cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that writes into the same cache."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(cache.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("config", "size"), [(GREY, 8), (COLOR, 29)], ids=["grey", "color"])
def test_digits_are_the_pixels_of_load_batch(config, size):
    found = open_dataset(prepare("digits", config.in_channels, size))
    everything = load_batch(["digits"], config, size, 1797)
    test = np.arange(1797) % 6 == 5
    for split, chosen in ((found.train, ~test), (found.test, test)):
        np.testing.assert_array_equal(split.images / 255, everything.images[chosen])
        np.testing.assert_array_equal(split.labels, everything.labels[chosen])
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
    assert (len(found.train), len(found.test)) == (1498, 299)
    assert found.classes == tuple("0123456789")
    assert (found.source, found.channels, found.size) == ("digits", config.in_channels, size)


def test_the_prepared_folder_holds_what_its_json_says(cache):
    folder = prepare("digits", 1, 8)
    assert (folder.parent, list(cache.iterdir())) == (cache, [folder])
    assert folder.name.startswith("digits-1x8x8-")
    names = [f"{part}-{what}" for part in ("train", "test") for what in ("images", "labels")]
    assert {path.name for path in folder.iterdir()} == {"dataset.json", *(f"{name}.npy" for name in names)}
    about = json.loads((folder / "dataset.json").read_text())
    arrays = [np.load(folder / f"{name}.npy") for name in names]
    assert about == {
        "source": "digits",
        "description": "scikit-learn's handwritten digits",
        "classes": list("0123456789"),
        "channels": 1,
        "size": 8,
        "train": 1498,
        "test": 299,
        "sha256": hashlib.sha256(b"".join(x.tobytes() for x in arrays)).hexdigest(),
        "remarks": [],
        "damaged": [],
    }
    found = open_dataset(folder)
    assert found.sha256 == about["sha256"]
    assert all(isinstance(split.images, np.memmap) for split in (found.train, found.test))
    assert not found.train.images.flags.writeable


def test_channels_and_size_decide_the_folder(flowers):
    source = f"folder:{flowers}"
    assert len({prepare(source, channels, size) for channels in (1, 3) for size in (8, 9)}) == 4


def test_fashion_mnist_is_prepared_as_load_batch_resizes_it(cache, tmp_path, monkeypatch):
    parts = stand_in(tmp_path / "official", monkeypatch)
    folder = prepare("fashion-mnist", 1, 28, tmp_path / "official")
    found = open_dataset(folder)
    for part, split in (("train", found.train), ("t10k", found.test)):
        images, labels = parts[part]
        np.testing.assert_array_equal(split.images[:, 0], images)
        np.testing.assert_array_equal(split.labels, labels)
    names = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"  # the official order
    assert found.classes == tuple(names.split(","))
    # Prepared once, the official files are not needed any more.
    assert prepare("fashion-mnist", 1, 28, cache / "nowhere") == folder

    first = open_dataset(prepare("fashion-mnist", 3, 33, tmp_path / "official")).test.images
    expected = load_batch(["fashion-mnist"], COLOR, 33, 5, tmp_path / "official").images
    np.testing.assert_array_equal(first / 255, expected)


def test_missing_fashion_mnist_leaves_nothing(cache, tmp_path):
    with pytest.raises(spec.InvalidInput, match="no such file; expected a folder with the four files"):
        prepare("fashion-mnist", 1, 28, tmp_path)
    assert list(cache.iterdir()) == []


def _split_by_hand(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    parts: dict[str, list[tuple[int, Path]]] = {"train": [], "test": []}
    for label, name in enumerate(("Lily", "aster", "rose")):  # as Python sorts them, capitals first
        paths = {str(path.relative_to(folder)): path for path in (folder / name).rglob("[0-9]*.*")}
        del paths[f"{name}/.thumbnails/0.bmp"]
        ordered = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).hexdigest())
        held_out = math.ceil(len(ordered) / 5)
        parts["test"] += [(label, paths[path]) for path in ordered[:held_out]]
        parts["train"] += [(label, paths[path]) for path in ordered[held_out:]]
    return parts


@pytest.mark.parametrize("config", [GREY, COLOR], ids=["grey", "color"])
def test_a_folder_of_folders_is_split_class_by_class(config, flowers):
    found = open_dataset(prepare(f"folder:{flowers}", config.in_channels, 20))
    assert found.classes == ("Lily", "aster", "rose")
    assert (found.source, found.description) == (f"folder:{flowers}", f"pictures in {flowers}")
    assert np.bincount(found.train.labels).tolist() == [4, 1, 8]
    assert np.bincount(found.test.labels).tolist() == [1, 1, 3]
    for part, pictures in _split_by_hand(flowers).items():
        split = getattr(found, part)
        assert split.labels.tolist() == [label for label, _ in pictures]
        expected = load_batch([str(path) for _, path in pictures], config, 20, None).images
        np.testing.assert_array_equal(split.images / 255, expected)


def test_a_folder_is_cut_and_resized_as_weights_want_it(flowers):
    """In 8 bits; beside the folder of whole pictures."""
    frame = {"resize": (24,), "crop": 0.875, "interpolation": "bilinear-tf1"}
    found = open_dataset(prepare(f"folder:{flowers}", 3, 20, frame=frame))
    for part, pictures in _split_by_hand(flowers).items():
        for image, (_, path) in zip(getattr(found, part).images, pictures, strict=True):
            expected = framed(read(path, str(path), Remarks()), 3, 20, **frame)
            np.testing.assert_array_equal(image, np.rint(expected))
    whole = open_dataset(prepare(f"folder:{flowers}", 3, 20))
    assert not np.array_equal(whole.train.images, found.train.images)


def test_a_folder_that_changes_is_another_dataset(flowers, monkeypatch):
    first = prepare(f"folder:{flowers}", 1, 8)
    monkeypatch.chdir(flowers.parent)
    assert prepare(f"folder:{flowers.name}", 1, 8) == first
    picture = flowers / "rose" / "2.PNG"
    before = picture.stat()
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    touched = prepare(f"folder:{flowers}", 1, 8)
    assert touched != first
    assert open_dataset(touched).sha256 == open_dataset(first).sha256  # the same pictures after all
    picture.unlink()
    removed = prepare(f"folder:{flowers}", 1, 8)
    assert open_dataset(removed).sha256 != open_dataset(first).sha256
    # Same paths, sizes and times elsewhere may be other pictures.
    copy = flowers.with_name("copy")
    shutil.copytree(flowers, copy)
    assert prepare(f"folder:{copy}", 1, 8) != removed


def test_another_picture_leaves_the_other_classes_as_they_were(flowers):
    before = open_dataset(prepare(f"folder:{flowers}", 1, 8)).test
    Image.new("L", (9, 9)).save(flowers / "rose" / "more.png")
    after = open_dataset(prepare(f"folder:{flowers}", 1, 8)).test
    np.testing.assert_array_equal(before.images[before.labels < 2], after.images[after.labels < 2])


def test_pictures_that_cannot_be_read_are_all_named(flowers, cache):
    for i in range(23):
        (flowers / "rose" / f"broken{i:02}.png").write_text("hello")
    (flowers / "aster" / "cut.png").write_bytes((flowers / "rose" / "2.PNG").read_bytes()[:200])
    with pytest.raises(spec.InvalidInput, match="not a picture that can be read") as refused:
        prepare(f"folder:{flowers}", 1, 8)
    message = str(refused.value)
    assert str(flowers / "aster" / "cut.png") in message
    assert [i for i in range(23) if f"broken{i:02}.png" in message] == list(range(19))
    assert message.endswith("and 4 more")
    assert list(cache.iterdir()) == []


def test_all_that_is_wrong_with_a_folder_stands_in_one_error(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "lonely").mkdir(parents=True)
    Image.new("L", (9, 9)).save(folder / "lonely" / "one.png")
    for i in range(22):
        (folder / f"loose{i:02}.jpg").touch()
    with pytest.raises(spec.InvalidInput) as refused:
        prepare(f"folder:{folder}", 1, 8)
    message = str(refused.value)
    assert "expected at least 2 subfolders, one a class, with pictures (" in message
    assert ", found lonely\n" in message
    assert "pictures outside the class folders" in message
    assert [i for i in range(22) if f"loose{i:02}.jpg" in message] == list(range(20))
    assert message.endswith("and 2 more")


def _said(folder: Path, **options) -> tuple[Dataset, list[str]]:
    """The dataset of a folder, and what a user is told."""
    lines: list[str] = []
    return open_dataset(prepare(f"folder:{folder}", 1, 8, say=lines.extend, **options)), lines


def test_an_empty_class_is_skipped_and_a_single_picture_is_trained_on(flowers):
    (flowers / "empty").mkdir()
    (flowers / "__MACOSX" / "rose").mkdir(parents=True)
    (flowers / "aster" / "0.bmp").unlink()
    found, lines = _said(flowers)
    assert found.classes == ("Lily", "aster", "rose")
    assert (np.bincount(found.train.labels).tolist(), np.bincount(found.test.labels).tolist()) == ([4, 1, 8], [1, 0, 3])
    assert lines[0] == "skipped: .thumbnails, __MACOSX, empty (empty)"
    assert lines[1] == "left out: 1 .txt file"
    assert lines[2] == "without test images, since there is one picture only: aster"


def test_a_class_whose_files_are_no_pictures_is_not_lost_in_silence(flowers):
    (flowers / "tulip").mkdir()
    (flowers / "tulip" / "a.xcf").touch()
    with pytest.raises(spec.InvalidInput, match=r"tulip would be no class, for lack of pictures: 1 \.xcf file"):
        prepare(f"folder:{flowers}", 1, 8)


def test_one_picture_a_class_leaves_nothing_to_test_on(tmp_path):
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / "data" / name / "one.png")
    with pytest.raises(spec.InvalidInput, match="expected a second picture in at least one class, to test on"):
        prepare(f"folder:{tmp_path / 'data'}", 1, 8)


@pytest.mark.parametrize(
    ("names", "test", "line"),
    [
        (["Train", "test"], "test", "training images come from Train, test images from test"),
        (["train", "test", "validation"], "test", "validation is not used: test images come from test"),
        (["training", "valid"], "valid", "training images come from training, test images from valid"),
    ],
)
def test_the_users_own_split_is_kept(names, test, line, flowers, tmp_path):
    for name in names:
        shutil.copytree(flowers, tmp_path / "data" / "inner" / name)
    shutil.rmtree(tmp_path / "data" / "inner" / test / "rose")
    found, lines = _said(tmp_path / "data")
    assert found.classes == ("Lily", "aster", "rose")
    assert np.bincount(found.train.labels).tolist() == [5, 2, 11]
    assert np.bincount(found.test.labels).tolist() == [5, 2]
    assert {"the pictures are those below inner", line, "without test images: rose"} <= set(lines)


def test_a_part_without_classes_is_not_used(flowers, tmp_path):
    shutil.copytree(flowers, tmp_path / "data" / "train")
    (tmp_path / "data" / "test").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "data" / "test" / "1.png")
    found, lines = _said(tmp_path / "data")
    assert (len(found.train), len(found.test)) == (13, 5)
    assert lines[0] == "test is not used: no subfolder of a class, pictures in it: 1"
    assert lines[1] == "training images come from train, test images from the same, a fifth of each class"


@pytest.mark.parametrize("names", [["test", "val"], ["train", "Training", "test"], ["train", "test", "more"]])
def test_parts_that_are_not_clear_are_refused(names, flowers, tmp_path):
    for name in names:
        shutil.copytree(flowers, tmp_path / "data" / name)
    with pytest.raises(spec.InvalidInput, match="expected train, and beside it test, val or both, and nothing else"):
        prepare(f"folder:{tmp_path / 'data'}", 1, 8)


def test_a_class_of_test_images_alone_is_refused(flowers, tmp_path):
    for name in ("train", "test"):
        shutil.copytree(flowers, tmp_path / "data" / name)
    shutil.rmtree(tmp_path / "data" / "train" / "rose")
    with pytest.raises(spec.InvalidInput, match="of every class, found test images alone of rose"):
        prepare(f"folder:{tmp_path / 'data'}", 1, 8)


def test_classes_that_are_numbers_come_in_their_order_unless_a_run_has_another(tmp_path):
    for name in range(11):
        (tmp_path / "data" / str(name)).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (9, 9), 20 * name).save(tmp_path / "data" / str(name) / f"{i}.png")
    found, _ = _said(tmp_path / "data")
    assert found.classes == tuple(map(str, range(11)))
    assert (found.train.images[:, 0, 0, 0] == 20 * found.train.labels).all()
    before = sorted(found.classes)
    again, _ = _said(tmp_path / "data", classes=before)
    assert list(again.classes) == before
    assert [before[label] for label in again.train.labels] == [str(x // 20) for x in again.train.images[:, 0, 0, 0]]
    assert _said(tmp_path / "data", classes=["other"])[0].classes == found.classes


def test_damaged_pictures_are_left_out_when_asked_and_named_each_time(flowers):
    damaged = [flowers / "rose" / "2.PNG", flowers / "aster" / "more.png"]
    whole, _ = _said(flowers)
    for path in damaged:
        path.write_bytes(b"no picture")
    for _ in range(2):  # made, and found
        found, lines = _said(flowers, skip_damaged=True)
        assert len(found.train) + len(found.test) == len(whole.train) + len(whole.test) - 1
        assert lines[-1].startswith("left out, cannot be read: ")
        assert all(f"{path}: expected a picture" in lines[-1] for path in damaged)
    with pytest.raises(spec.InvalidInput, match=r"(?s)leave it out with --skip-damaged:.*more\.png"):
        _said(flowers)
    kept = {x.tobytes() for part in (found.train, found.test) for x in part.images}
    assert kept < {x.tobytes() for part in (whole.train, whole.test) for x in part.images}


def test_a_class_is_not_lost_with_its_damaged_pictures(flowers, cache):
    for path in (flowers / "aster").rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(spec.InvalidInput, match="training images of every class, found none that can be read of aster"):
        _said(flowers, skip_damaged=True)
    assert list(cache.iterdir()) == []


def test_remarks_on_pictures_are_kept_with_the_dataset(flowers):
    Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(flowers / "rose" / "deep.png")
    for _ in range(2):
        _, lines = _said(flowers)
        assert lines[-1].startswith("taken as 12 bits deep, since no pixel needs more: ")
        assert lines[-1].endswith("deep.png (up to 4,000)")


def test_a_dataset_of_before_can_be_opened():
    folder = prepare("digits", 1, 8)
    about = json.loads((folder / "dataset.json").read_text())
    del about["remarks"], about["damaged"]
    (folder / "dataset.json").write_text(json.dumps(about))
    assert open_dataset(folder).damaged == ()


def test_a_class_may_be_called_like_a_part(flowers):
    (flowers / "rose").rename(flowers / "test")
    assert open_dataset(prepare(f"folder:{flowers}", 1, 8)).classes == ("Lily", "aster", "test")


@pytest.mark.parametrize(
    ("source", "channels", "size", "message"),
    [
        ("imagenet", 1, 8, "expected digits, fashion-mnist, or folder:PATH .* got 'imagenet'$"),
        ("tests", 1, 8, "got 'tests'; to train on the pictures in that folder, write folder:tests"),
        ("folder:", 1, 8, "got 'folder:'"),
        ("folder:nowhere", 1, 8, r"nowhere: expected a folder .* \(No such file or directory\)"),
        ("folder:README.md", 1, 8, r"README.md: expected a folder .* \(Not a directory\)"),
        ("folder:docs/results", 1, 8, "expected at least 2 subfolders"),
        ("digits", 2, 0, "1 or 3 channels; this network takes 2; size: expected at least 1 pixel, got 0"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(source, channels, size, message, cache, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(spec.InvalidInput, match=message):
        prepare(source, channels, size)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_progress_is_reported_and_nothing_is_done_the_second_time(flowers, monkeypatch):
    seen = []
    folder = prepare("digits", 1, 8, progress=lambda done, total: seen.append((done, total)))
    assert seen == [*((done, 1797) for done in range(100, 1797, 100)), (1797, 1797)]
    pictures = prepare(f"folder:{flowers}", 1, 8)

    def refuse(*arguments):
        raise AssertionError("work was done")

    monkeypatch.setattr(sources, "digits", refuse)
    monkeypatch.setattr(prepared, "framed", refuse)
    assert prepare("digits", 1, 8, progress=refuse) == folder
    assert prepare(f"folder:{flowers}", 1, 8, progress=refuse) == pictures
    with pytest.raises(AssertionError, match="work was done"):
        prepare("digits", 1, 9)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, spec.InvalidInput])
def test_an_interrupted_preparation_leaves_nothing(error, cache):
    def interrupt(done, total):
        assert len(list(cache.iterdir())) == 1
        raise error

    with pytest.raises((error, spec.InvalidInput)):
        prepare("digits", 1, 8, progress=interrupt)
    assert list(cache.iterdir()) == []
    assert len(open_dataset(prepare("digits", 1, 8)).train) == 1498


def test_a_killed_process_leaves_nothing_under_the_name(flowers, cache):
    script = """
import os, signal, sys
from harness.images.prepared import prepare
prepare(sys.argv[1], 1, 8, progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
"""
    process = run(script, cache, f"folder:{flowers}")
    process.communicate()
    assert process.returncode == -9
    (left,) = cache.iterdir()
    assert left.name.startswith(".")
    folder = prepare(f"folder:{flowers}", 1, 8)
    assert len(open_dataset(folder).test) == 5
    assert list(cache.iterdir()) == [folder]  # what the killed one left is gone


def test_two_processes_at_once_prepare_one_folder(flowers, cache, tmp_path):
    script = """
import sys, time
from pathlib import Path
from harness.images.prepared import prepare
mine, other = map(Path, sys.argv[2:])
def progress(done, total):
    mine.touch()
    while not other.exists():
        time.sleep(0.01)
print(prepare(sys.argv[1], 1, 8, progress=progress))
"""
    source, marks = f"folder:{flowers}", [str(tmp_path / "a"), str(tmp_path / "b")]
    both = [run(script, cache, source, *marks), run(script, cache, source, *reversed(marks))]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    (folder,) = cache.iterdir()
    assert [out.strip() for out, _ in answers] == [str(folder)] * 2
    assert len(open_dataset(folder).train) == 13


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(spec.InvalidInput, match=r"file/cache/.*/digits-1x8x8-.* set XDG_CACHE_HOME"):
        prepare("digits", 1, 8)


def test_a_full_disk_is_an_error_and_leaves_nothing(flowers, cache):
    script = """
import resource, sys, spec
from harness.images.prepared import prepare
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    prepare(sys.argv[1], 1, 100)
except spec.InvalidInput as error:
    print(error)
"""
    process = run(script, cache, f"folder:{flowers}")
    out, problems = process.communicate()
    assert (process.returncode, problems) == (0, "")
    assert str(cache / "folder-1x100x100-") in out
    assert "(File too large); make room" in out
    assert "set XDG_CACHE_HOME" in out
    assert list(cache.iterdir()) == []


def test_a_dataset_that_the_disk_cannot_hold_is_not_begun(flowers, cache, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=18 * 10**4 - 1))
    with pytest.raises(
        spec.InvalidInput, match=r"prepared images take 0.0 GB, and 0.0 GB are free; make room, or set XDG"
    ):
        prepare(f"folder:{flowers}", 1, 100, progress=lambda done, total: pytest.fail("begun"))
    assert list(cache.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=18 * 10**4))
    assert prepare(f"folder:{flowers}", 1, 100).exists()


def _rewrite(folder: Path, **changes) -> None:
    about = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(about | changes))


DAMAGE = {
    "json missing": (lambda folder: (folder / "dataset.json").unlink(), ["dataset.json: .*No such file"]),
    "json cut": (lambda folder: (folder / "dataset.json").write_text('{"source": '), ["dataset.json: Expecting"]),
    "json a list": (lambda folder: (folder / "dataset.json").write_text("[]"), ["dataset.json: 'list'"]),
    "fields": (
        lambda folder: _rewrite(folder, sha256=None, classes=[], size="8"),
        ["classes is missing, empty", "size is missing", "sha256 is missing"],
    ),
    "images missing": (lambda folder: (folder / "test-images.npy").unlink(), ["test-images.npy: .*No such file"]),
    "images cut": (
        lambda folder: (folder / "train-images.npy").write_bytes((folder / "train-images.npy").read_bytes()[:-1]),
        ["train-images.npy: "],
    ),
    "no header": (
        lambda folder: (folder / "train-images.npy").write_bytes(bytes(1000)),
        ["train-images.npy: .*magic string"],
    ),
    "pickled": (
        lambda folder: np.save(folder / "test-labels.npy", np.array([{}], dtype=object)),
        ["test-labels.npy: .*Python objects"],
    ),
    "types and counts": (
        lambda folder: (
            np.save(folder / "train-images.npy", np.zeros((1498, 1, 8, 8))),
            np.save(folder / "test-labels.npy", np.zeros(298, np.int64)),
        ),
        [r"train-images.npy: expected uint8 \(1498, 1, 8, 8\), found float64", r"expected int64 \(299,\), found .*298"],
    ),
    "labels": (
        lambda folder: np.save(folder / "test-labels.npy", np.arange(299) % 11),
        ["test-labels.npy: expected classes from 0 to 9, found 0 to 10"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_is_refused_and_all_damage_named(damage):
    inflict, messages = DAMAGE[damage]
    folder = prepare("digits", 1, 8)
    inflict(folder)
    for opening in (lambda: open_dataset(folder), lambda: prepare("digits", 1, 8)):
        with pytest.raises(spec.InvalidInput, match="delete the folder and run again") as refused:
            opening()
        for message in messages:
            assert refused.match(message)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(spec.InvalidInput, match="nowhere: not a prepared dataset"):
        open_dataset(tmp_path / "nowhere")


def test_the_loader_imports_nothing_but_numpy():
    script = "import sys, harness.images.batches; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"numpy", "spec", "harness"} <= loaded
    assert not loaded & {"PIL", "sklearn", "scipy", "pooch", "typer", "rich"}


def test_the_order_is_a_permutation_of_its_own_for_every_seed_and_epoch():
    orders = [shuffled(1000, seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in (0, 1, 2)]
    for order in orders:
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(1000))
    for i, order in enumerate(orders):
        # Two permutations agree in one place on average.
        assert all((order == other).sum() < 10 for other in orders[:i])
    np.testing.assert_array_equal(shuffled(1000, 1, 2), orders[5])


def test_the_order_of_a_seed_and_epoch_never_changes():
    # Written down once: no version of NumPy and of this project may shuffle otherwise, or no run could be repeated.
    assert shuffled(10, seed=0, epoch=0).tolist() == [8, 7, 9, 0, 4, 5, 3, 2, 6, 1]
    assert shuffled(10, seed=7, epoch=3).tolist() == [2, 3, 0, 9, 4, 5, 6, 8, 1, 7]


@pytest.mark.parametrize(("seed", "epoch", "name"), [(-1, 0, "seed"), (0, 2**64, "epoch"), (0.5, 0, "seed")])
def test_seeds_and_epochs_out_of_range_are_refused(seed, epoch, name):
    with pytest.raises(spec.InvalidInput, match=f"^{name}: expected a whole number from 0 to 2\\^64 - 1"):
        shuffled(10, seed, epoch)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_pixels_are_computed_in_float64_and_rounded_once(dtype):
    images = np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)
    found = pixels(images, dtype, 0.1307, 0.3081)
    assert (found.dtype, found.shape) == (spec.array_dtype(dtype), images.shape)
    expected = ((images.astype(np.float64) / 255 - 0.1307) / 0.3081).astype(spec.array_dtype(dtype))
    np.testing.assert_array_equal(found, expected)


def test_pixels_of_each_channel_have_numbers_of_their_own():
    images = np.arange(192, dtype=np.uint8).reshape(1, 3, 8, 8)
    found = pixels(images, "float64", (0.1, 0.2, 0.3), 0.5)
    for channel, mean in enumerate((0.1, 0.2, 0.3)):
        np.testing.assert_array_equal(found[:, channel], (images[:, channel] / 255 - mean) / 0.5)
    with pytest.raises(spec.InvalidInput, match="mean and std: expected 1 or 3 numbers, got 2"):
        pixels(images, "float64", 0.1, (0.5, 0.4))


def test_pixels_refuses_other_types_and_settings_out_of_range():
    with pytest.raises(spec.InvalidInput, match="images: expected uint8, got float64"):
        pixels(np.zeros((1, 1, 8, 8)), "float32", 0, 1)
    with pytest.raises(spec.InvalidInput, match=r"dtype: .* 'int8'; mean: .* nan; std: expected .* above 0, got 0"):
        pixels(np.zeros((1, 1, 8, 8), np.uint8), "int8", math.nan, 0)


@pytest.fixture
def split():
    """103 images of 1 x 2 x 2; image i holds i only, and its label is i."""
    images = np.repeat(np.arange(103, dtype=np.uint8), 4).reshape(103, 1, 2, 2)
    return Split(images, np.arange(103, dtype=np.int64))


def test_training_batches_follow_the_order_and_end_with_a_smaller_one(split):
    order = shuffled(103, 5, 2)
    batches = list(training_batches(split, 10, seed=5, epoch=2, dtype="float32", mean=0.5, std=0.25))
    assert [len(labels) for _, labels in batches] == [10] * 10 + [3]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), order)
    for images, labels in batches:
        assert (images.dtype, images.shape, labels.dtype) == (np.float32, (len(labels), 1, 2, 2), np.int64)
        np.testing.assert_array_equal(images[:, 0, 1, 0], ((labels / 255 - 0.5) / 0.25).astype(np.float32))
        assert images.flags.writeable  # frameworks warn of arrays that are not
        assert labels.flags.writeable


def test_evaluation_batches_follow_the_stored_order(split):
    batches = list(evaluation_batches(split, 25, **PLAIN))
    assert [len(labels) for _, labels in batches] == [25] * 4 + [3]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.images / 255)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), split.labels)


@pytest.mark.parametrize("first", [0, 1, 7, 10, 11])
def test_a_resumed_epoch_is_the_end_of_the_whole_one(split, first):
    whole = list(training_batches(split, 10, seed=1, epoch=0, **PLAIN))
    rest = list(training_batches(split, 10, seed=1, epoch=0, first=first, **PLAIN))
    assert len(rest) == 11 - first
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[first:], strict=True):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_batches_of_a_mapped_dataset_are_plain_arrays():
    found = open_dataset(prepare("digits", 1, 8))
    everything = load_batch(["digits"], GREY, 8, 1797)
    images, labels = next(iter(evaluation_batches(found.test, 299, **PLAIN)))
    assert (type(images), type(labels)) == (np.ndarray, np.ndarray)
    assert images.flags.writeable
    assert labels.flags.writeable
    np.testing.assert_array_equal(images, everything.images[5::6])
    np.testing.assert_array_equal(labels, everything.labels[5::6])


def test_settings_out_of_range_are_refused_at_once_and_together(split):
    with pytest.raises(spec.InvalidInput, match=r"batch: .* got 0; first: .* got -1"):
        training_batches(split, 0, seed=0, epoch=0, first=-1, **PLAIN)
    with pytest.raises(spec.InvalidInput, match="first: expected a batch from 0 to 11, the end of the epoch, got 12"):
        training_batches(split, 10, seed=0, epoch=0, first=12, **PLAIN)
    with pytest.raises(spec.InvalidInput, match="std: expected finite numbers above 0, got 0"):
        evaluation_batches(split, 10, dtype="float32", mean=0, std=0)


@pytest.fixture
def threads():
    """Counts the threads that prepare batches, without those of other tests: an error that is kept keeps them."""
    before = set(threading.enumerate())
    return lambda: sum(thread.name.startswith("batches") for thread in set(threading.enumerate()) - before)


class Watched:
    """Images that count how often they are read, and may fail."""

    dtype = np.dtype(np.uint8)

    def __init__(self, images: np.ndarray, fail_at: int | None = None) -> None:
        self.images, self.fail_at, self.reads = images, fail_at, 0

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        self.reads += 1
        if self.reads == self.fail_at:
            raise OSError("the disk went away")
        return self.images[chosen]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_batches_are_prepared_than_may_wait(split, threads, ahead, monkeypatch):
    monkeypatch.setattr("harness.images.batches._AHEAD", ahead)
    watched = Watched(split.images)
    batches = evaluation_batches(Split(watched, split.labels), 5, **PLAIN)
    assert (watched.reads, threads()) == (0, 0)
    next(batches)
    expected = 1 + ahead  # taken, and waiting
    deadline = time.monotonic() + 10
    while watched.reads < expected and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert (watched.reads, threads()) == (expected, 1)
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 1
    assert (watched.reads, threads()) == (expected, 0)


@pytest.mark.parametrize("taken", [1, 2, 20, 21])
def test_no_thread_outlives_its_batches(split, threads, taken):
    for _ in range(50):
        batches = training_batches(split, 5, seed=0, epoch=0, **PLAIN)
        for count, _ in enumerate(batches, 1):
            if count == taken:
                break
        del batches
        gc.collect(0)
        assert threads() == 0
    assert len(list(training_batches(split, 5, seed=0, epoch=0, **PLAIN))) == 21
    assert threads() == 0


def test_an_error_in_the_thread_is_raised_in_the_loop(split, threads):
    batches = evaluation_batches(Split(Watched(split.images, fail_at=3), split.labels), 5, **PLAIN)
    seen = []
    with pytest.raises(OSError, match="the disk went away"):
        seen.extend(labels[0] for _, labels in batches)
    assert seen == [0, 5]
    assert threads() == 0


def test_a_process_ends_with_batches_waiting():
    script = """
import numpy as np
from harness.images.batches import Dataset, Split, evaluation_batches
split = Split(np.zeros((100, 1, 8, 8), np.uint8), np.zeros(100, np.int64))
batches = evaluation_batches(split, 1, dtype="float32", mean=0, std=1)
next(batches)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
