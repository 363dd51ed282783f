"""What dropout keeps: the same everywhere, always, and different wherever it should be."""

import re
import zlib
from itertools import combinations

import numpy as np
import pytest
from support import GOOGLENETS

import spec


def masks_of(config, count, seed, step):
    """What is kept of `count` images of the default size."""
    return spec.dropout_masks(config, shape_of(config, count), seed, step)


def shape_of(config, count):
    return (count, config.in_channels, config.input_size, config.input_size)


def fingerprint(masks):
    return {head: zlib.crc32(np.packbits(mask).tobytes()) for head, mask in masks.items()}


@pytest.mark.parametrize(
    ("preset", "seed", "step", "expected"),
    [
        ("cnblogs", 7, 0, {"fc": 2560155903}),
        ("cnblogs", 7, 1, {"fc": 1458624429}),
        ("cnblogs", 7, 2**63 - 1, {"fc": 560468677}),
        ("torchvision", 7, 0, {"fc": 3904252237, "aux1": 1527927736, "aux2": 2002965758}),
        ("torchvision", 7, 1, {"fc": 2550516763, "aux1": 3592217360, "aux2": 585551854}),
        ("bvlc", 2**64 - 1, 3, {"fc": 660366643, "aux1": 507798510, "aux2": 752845516}),
    ],
)
def test_the_values_of_a_seed_and_step_never_change(preset, seed, step, expected):
    """Pinned: with another NumPy, or other code, a run that was interrupted would go on as another run."""
    assert fingerprint(masks_of(spec.preset(preset), 4, seed, step)) == expected


def test_seed_and_step_may_be_numpy_s_integers():
    config = spec.preset("cnblogs")
    masks = masks_of(config, 4, np.uint64(2**64 - 1), np.int64(3))
    assert fingerprint(masks) == fingerprint(masks_of(config, 4, 2**64 - 1, 3))


def test_every_seed_step_and_head_has_masks_of_its_own():
    config, masks = spec.preset("bvlc", dropout=0.5), {}
    for seed, step in [(0, 0), (0, 1), (1, 0), (1, 1), (2**64 - 1, 0), (0, 2**63 - 1)]:
        for head, mask in masks_of(config, 8, seed, step).items():
            masks[seed, step, head] = mask
    assert len(masks) == 18
    for one, other in combinations(masks, 2):
        agreement = (masks[one] == masks[other]).mean()
        assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(8 * 1024), (one, other)


def test_no_step_s_values_are_another_s_shifted():
    """The next step's mask is not this step's, shifted."""
    config = spec.preset("cnblogs", dropout=0.5)
    first, second = (masks_of(config, 64, 0, step)["fc"].ravel() for step in (0, 1))
    start = second[:64]
    windows = np.lib.stride_tricks.sliding_window_view(first, 64)
    assert not (windows == start).all(1).any()


@pytest.mark.parametrize(("dropout", "heads"), [(None, (0.4, 0.7, 0.7)), (0.1, (0.1,) * 3), (0.9, (0.9,) * 3)])
def test_the_share_that_is_dropped_is_the_network_s(dropout, heads):
    masks = masks_of(spec.preset("bvlc", dropout=dropout), 400, 3, 5)
    assert list(masks) == ["aux1", "aux2", "fc"]
    for mask, fraction in zip(map(masks.get, ("fc", "aux1", "aux2")), heads, strict=True):
        deviation = np.sqrt(fraction * (1 - fraction) / mask.size)
        assert abs((~mask).mean() - fraction) < 5 * deviation
        assert np.ptp((~mask).mean(1)) < 12 * deviation * np.sqrt(400)  # every image alike


@pytest.mark.parametrize("name", GOOGLENETS)
@pytest.mark.parametrize("count", [1, 3])
def test_the_masks_fit_the_network(name, count):
    config = spec.preset(name, dropout=0.5)
    masks = masks_of(config, count, 0, 0)
    assert {head: mask.shape for head, mask in masks.items()} == spec.mask_shapes(config, shape_of(config, count))
    assert {mask.dtype for mask in masks.values()} == {np.dtype(bool)}
    assert set(masks) == ({"fc", "aux1", "aux2"} if config.aux else {"fc"})
    assert spec.check_masks(config, masks, shape_of(config, count)) is masks


@pytest.mark.parametrize("name", spec.PRESETS)
def test_where_nothing_is_dropped_there_is_no_mask(name):
    assert masks_of(spec.preset(name, dropout=0.0), 4, 0, 0) == {}


def test_leaving_the_heads_out_does_not_change_the_classifier_s_mask():
    whole, trunk = (masks_of(spec.preset("bvlc", aux=aux), 4, 0, 0) for aux in (True, False))
    assert list(trunk) == ["fc"]
    np.testing.assert_array_equal(whole["fc"], trunk["fc"])


def test_what_a_plain_sequence_drops_is_what_its_rows_read():
    """NiN drops values of maps, whose size is the images'; the others of what their dense layers read."""
    nin = spec.preset("nin")
    for size, side in ((224, 5), (67, 1)):
        shape = (3, 1, size, size)
        assert spec.mask_shapes(nin, shape) == {"conv4": (3, 384, side, side)}
        masks = spec.dropout_masks(nin, shape, 0, 0)
        assert masks["conv4"].shape == (3, 384, side, side)
        assert spec.check_masks(nin, masks, shape) is masks
    with pytest.raises(spec.InvalidInput, match="expected boolean arrays"):
        spec.check_masks(nin, masks, (3, 1, 224, 224))
    for name in ("alexnet", "vgg11", "vgg11-narrow"):
        assert spec.dropout_rates(spec.preset(name)) == {"fc7": 0.5, "fc8": 0.5}
        assert spec.mask_shapes(spec.preset(name), (2, 1, 224, 224)) == {"fc7": (2, 4096), "fc8": (2, 4096)}
    assert spec.mask_shapes(spec.preset("lenet-bn"), (2, 1, 28, 28)) == {}


def test_googlenets_drop_what_their_classifiers_read():
    assert spec.mask_shapes(spec.preset("d2l"), (5, 1, 96, 96)) == {"fc": (5, 1024)}
    assert spec.mask_shapes(spec.preset("torchvision"), (5, 3, 224, 224)) == dict.fromkeys(
        ("fc", "aux1", "aux2"), (5, 1024)
    )


@pytest.mark.parametrize(
    ("seed", "step", "message"),
    [
        (-1, 0, "seed: expected a whole number from 0 to 2^64 - 1, got -1"),
        (2**64, 0, "seed: expected a whole number from 0 to 2^64 - 1, got 18446744073709551616"),
        (1.0, 0, "seed: expected a whole number from 0 to 2^64 - 1, got 1.0"),
        (0, -1, "step: expected a whole number from 0 to 2^63 - 1, got -1"),
        (0, 2**63, "step: expected a whole number from 0 to 2^63 - 1, got 9223372036854775808"),
        (0, None, "step: expected a whole number from 0 to 2^63 - 1, got None"),
    ],
)
def test_seed_or_step_out_of_range_is_refused(seed, step, message):
    with pytest.raises(spec.InvalidInput, match=re.escape(message)):
        masks_of(spec.preset("cnblogs"), 4, seed, step)


@pytest.mark.parametrize(
    ("masks", "got"),
    [
        ({"head": np.ones((2, 1024), bool)}, "head bool (2, 1024)"),
        ({"fc": np.ones((2, 1024), bool), "aux1": np.ones((2, 1024), bool)}, "aux1 bool (2, 1024)"),
        ({"fc": np.ones((3, 1024), bool)}, "fc bool (3, 1024)"),
        ({"fc": np.ones((2, 1024, 1, 1), bool)}, "fc bool (2, 1024, 1, 1)"),
        ({"fc": np.ones((2, 1024))}, "fc float64 (2, 1024)"),
        ({"fc": None}, "fc object ()"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, got):
    with pytest.raises(spec.InvalidInput) as caught:
        spec.check_masks(spec.preset("cnblogs"), masks, (2, 1, 224, 224))
    assert str(caught.value) == f"masks: expected boolean arrays of {{'fc': (2, 1024)}}, got {got}"


def test_an_empty_set_of_masks_fits():
    assert spec.check_masks(spec.preset("bvlc"), {}, (2, 3, 224, 224)) == {}
