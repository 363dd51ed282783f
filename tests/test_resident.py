"""A dataset that lives on the device gives the batches that the host gives, bit for bit, and the same training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import spec
from harness.bench.worker.operations import to_numpy
from harness.images.batches import Split, pixel_table, pixels, training_batches, training_rows
from harness.training.loop import fits_device

RNG = np.random.default_rng(3)
LABELS = np.arange(9, dtype=np.int64)


def _images(channels: int) -> np.ndarray:
    images = RNG.integers(0, 256, (9, channels, 29, 28), dtype=np.uint8)
    images.flags.writeable = False  # as those of a file are
    return images


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("channels", "mean", "std"), [(1, 0.3, 0.2), (3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (3, 0.5, 0.25)]
)
def test_batches_of_the_device_are_those_of_the_host(channels, mean, std, dtype, backend):
    images, rows = _images(channels), np.array([7, 0, 0, 8])
    model = backend.build(spec.preset("lenet-bn", in_channels=channels), dtype=dtype, device="cpu")
    expected = backend.to_device(model, pixels(images[rows], dtype, mean, std), LABELS[rows])
    batch = backend.dataset_to_device(model, images, LABELS, pixel_table(dtype, mean, std))
    for got, right in zip(batch(rows), expected, strict=True):
        assert got.dtype == right.dtype
        np.testing.assert_array_equal(to_numpy(got), to_numpy(right))


def test_rows_are_those_of_the_batches():
    split = Split(_images(1), LABELS)
    batches = training_batches(split, 4, seed=5, epoch=1, first=1, dtype="float32", mean=0.0, std=1.0)
    rows = training_rows(9, 4, seed=5, epoch=1, first=1)
    assert [len(chosen) for chosen in rows] == [4, 1]
    assert [labels.tolist() for _, labels in batches] == [LABELS[chosen].tolist() for chosen in rows]


@pytest.mark.parametrize(
    ("devices", "free", "fits"), [(1, None, False), (1, 4 * 812, True), (1, 4 * 812 - 1, False), (2, 10**9, False)]
)
def test_images_live_on_a_single_gpu_that_has_room_for_four_times_as_many(devices, free, fits):
    team = SimpleNamespace(devices=devices, package=SimpleNamespace(free_memory=lambda device: free))
    assert fits_device(team, Split(np.zeros((1, 1, 29, 28), np.uint8), LABELS[:1]), "auto") == fits


def test_nothing_lives_on_a_cpu(backend):
    assert backend.free_memory("cpu") is None
