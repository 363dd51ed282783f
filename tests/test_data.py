"""Images: where they come from, what they become, and every kind of file that cannot be used."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pytest
from fashion import stand_in
from PIL import Image
from support import DATA

import spec
from harness.images import sources
from harness.images.sources import fashion_mnist, load_batch

GREY, COLOR = spec.preset("d2l"), spec.preset("torchvision")


def test_four_digits_come_by_default():
    batch = load_batch(["digits"], GREY, 8, None)
    assert batch.images.shape == (4, 1, 8, 8)
    assert batch.labels.tolist() == [0, 1, 2, 3]
    assert (batch.images.min(), batch.images.max()) == (0, 1)
    # The first digit's second row is 0 0 13 15 10 15 5 0 of 16.
    np.testing.assert_array_equal(
        batch.images[0, 0, 1] * 255, np.round(np.array([0, 0, 13, 15, 10, 15, 5, 0]) * 255 / 16)
    )


@pytest.mark.slow  # scikit-learn takes seconds to import
def test_the_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, labels = sources.digits()
    np.testing.assert_array_equal(images, np.round(load_digits().images * 255 / 16))
    np.testing.assert_array_equal(labels, load_digits().target)


def test_without_scikit_learn_its_pictures_are_refused(monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(spec.InvalidInput, match="expected scikit-learn, which comes with images: pip install"):
        sources.scikit_learn("images")


def test_resizing_is_pillows_bilinear_and_happens_once():
    small, large = (load_batch(["digits"], GREY, size, 2).images for size in (8, 96))
    pixels = Image.fromarray((small[1, 0] * 255).astype(np.uint8)).resize((96, 96), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(large[1, 0] * 255, np.asarray(pixels))


def test_three_channels_of_a_grey_picture_are_equal():
    images = load_batch(["digits"], COLOR, 32, 3).images
    assert images.shape == (3, 3, 32, 32)
    assert np.array_equal(images[:, 0], images[:, 2])


def test_pictures_come_from_files_and_folders(tmp_path):
    folder = tmp_path / "Bilder äöü"
    (folder / "below").mkdir(parents=True)
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    for name in ("b.png", "below/a.PNG", "c.jpg"):
        Image.fromarray(red).save(folder / name)
    (folder / "notes.txt").write_text("not a picture, and not named as one")

    batch = load_batch([str(folder)], COLOR, 16, None)
    assert batch.images.shape == (3, 3, 16, 16)
    np.testing.assert_allclose(batch.images[0, :, 8, 8], [1, 0, 0])
    assert load_batch([str(folder)], GREY, 16, 2).images.shape == (2, 1, 16, 16)

    named = load_batch([str(folder / "b.png"), str(folder / "c.jpg")], COLOR, 16, None)
    assert named.images.shape == (2, 3, 16, 16)
    assert named.source == "b.png, c.jpg"
    assert named.labels.tolist() == [0, 1]


def test_a_palette_with_transparency_and_16_bits_can_be_read(tmp_path):
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16)).save(tmp_path / "deep.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 4)).quantize().save(tmp_path / "palette.gif")
    assert load_batch([str(tmp_path)], COLOR, 16, 2).images.shape == (2, 3, 16, 16)


def test_every_file_that_is_not_a_picture_is_named(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    with pytest.raises(spec.InvalidInput) as refused:
        load_batch([str(tmp_path)], GREY, 28, None)
    message = str(refused.value)
    assert message.startswith("not a picture that can be read")
    assert all(name in message for name in ("text.png", "empty.jpg", "cut.png"))
    assert "whole.png" not in message


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "large.png")
    monkeypatch.setattr("harness.images.pictures._BYTES_A_PIXEL", 2**40)
    with pytest.raises(spec.InvalidInput, match=r"large\.png: expected .* half of the memory .* got 100 x 100 pixels"):
        load_batch([str(tmp_path / "large.png")], GREY, 28, None)


@pytest.mark.parametrize(
    ("sources", "size", "count", "message"),
    [
        (["digits"], 96, 0, "batch: expected at least 1"),
        (["digits"], 0, 1, "size: expected at least 1"),
        (["digits"], 8, 2000, r"expected at least 2000 images \(--batch\), found 1797"),
        (["nowhere"], 96, 1, "there is no nowhere"),
        (["digits", "nowhere"], 96, 1, "there is no digits, nowhere"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(sources, size, count, message):
    with pytest.raises(spec.InvalidInput, match=message):
        load_batch(sources, GREY, size, count)


def test_folders_without_pictures_or_beside_files_are_refused(tmp_path):
    with pytest.raises(spec.InvalidInput, match="found none"):
        load_batch([str(tmp_path)], GREY, 28, None)
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(spec.InvalidInput, match="expected one folder, or picture files only"):
        load_batch([str(tmp_path / "a.png"), str(tmp_path)], GREY, 28, None)
    with pytest.raises(spec.InvalidInput, match=r"expected at least 2 images \(--batch\), found 1"):
        load_batch([str(tmp_path)], GREY, 28, 2)


def test_a_network_of_two_channels_has_no_pictures():
    with pytest.raises(spec.InvalidInput, match="pictures have 1 or 3 channels; this network takes 2"):
        load_batch(["digits"], spec.preset("d2l", in_channels=2), 28, None)


def test_fashion_mnist_is_read_as_the_files_hold_it(tmp_path, monkeypatch):
    parts = stand_in(tmp_path, monkeypatch)
    for part, expected in parts.items():
        for found, array in zip(fashion_mnist(part, tmp_path), expected, strict=True):
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, array)
    batch = load_batch(["fashion-mnist"], GREY, 28, 5, tmp_path)
    images, labels = parts["t10k"]
    np.testing.assert_array_equal(batch.images[:, 0], images / 255)
    np.testing.assert_array_equal(batch.labels, labels)
    assert batch.source == "Fashion-MNIST, test images"


@pytest.mark.skipif(DATA is None, reason="GOOGLENET_DATA does not name the official files")
def test_fashion_mnist_is_the_official_data():
    images, labels = fashion_mnist("train", DATA)
    assert (images.shape, images.dtype, labels.shape) == ((60000, 28, 28), np.uint8, (60000,))
    assert labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    shares = sum(np.bincount(some.ravel(), minlength=256) for some in np.array_split(images, 100)) / images.size
    values = np.arange(256) / 255
    mean = shares @ values
    assert round(mean, 5) == 0.28604
    assert round(np.sqrt(shares @ (values - mean) ** 2), 5) == 0.35302


def test_missing_fashion_mnist_files_are_named(tmp_path):
    with pytest.raises(spec.InvalidInput, match="no such file; expected a folder with the four files"):
        fashion_mnist("t10k", tmp_path)


@pytest.mark.parametrize("fault", ["truncated", "bit flipped", "other data"])
def test_fashion_mnist_files_with_another_checksum_are_refused_and_left(fault, tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    flipped = whole[:20] + bytes([whole[20] ^ 1]) + whole[21:]
    wrong = {"truncated": whole[:-10], "bit flipped": flipped, "other data": gzip.compress(bytes(8 + 5))}[fault]
    path.write_bytes(wrong)
    with pytest.raises(spec.InvalidInput, match=r"not the official file .* it is unchanged"):
        fashion_mnist("t10k", tmp_path)
    assert path.read_bytes() == wrong


def _download(monkeypatch, tmp_path, arrives: bytes) -> bytes:
    """A cache of its own, a small file that counts as the official one, and a network that delivers `arrives`."""
    import pooch

    packed = gzip.compress(bytes(8) + bytes(range(10)), mtime=0)  # else it says which second it is
    name = "t10k-labels-idx1-ubyte.gz"
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    monkeypatch.setitem(sources._FASHION_FILES, name, (hashlib.md5(packed).hexdigest(), (10,)))

    def download(url, output_file, pooch_, check_only=False):
        output_file = getattr(output_file, "name", output_file)
        with open(output_file, "wb") as out:  # noqa: PTH123
            out.write(arrives or packed)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: download)
    return packed


def test_a_download_goes_to_the_cache_once(monkeypatch, tmp_path):
    packed = _download(monkeypatch, tmp_path, b"")
    for _ in range(2):
        path = sources._cached("t10k-labels-idx1-ubyte.gz")
        assert path == tmp_path / "googlenet" / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz"
        assert path.read_bytes() == packed
        _download(monkeypatch, tmp_path, b"from now on the network delivers something else")
    assert sources._read_idx(path).tolist() == list(range(10))


def test_a_download_of_other_data_is_refused_and_leaves_nothing(monkeypatch, tmp_path):
    _download(monkeypatch, tmp_path, b"plain MNIST, from a proxy")
    with pytest.raises(spec.InvalidInput, match=r"could not download .*MD5 hash of downloaded file"):
        sources._cached("t10k-labels-idx1-ubyte.gz")
    assert list((tmp_path / "googlenet" / "fashion-mnist").iterdir()) == []


def test_a_failed_download_names_what_to_do(monkeypatch, tmp_path):
    import pooch

    _download(monkeypatch, tmp_path, b"")

    def no_network(url, progressbar):
        raise OSError("network is unreachable")

    monkeypatch.setattr(pooch.core, "choose_downloader", no_network)
    with pytest.raises(spec.InvalidInput, match=r"could not download .*network is unreachable.* or use --data digits"):
        sources._cached("t10k-labels-idx1-ubyte.gz")
