"""The roofline's arithmetic: operations and bytes of a call, by hand and as the referee does them, and the roof."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tracing import trace

import spec
from harness.bench.analysis.roofline import Machine, machine_of, stage_flops, work
from spec.googlenet import TABLE
from spec.network import Conv, Dense, named

D2L = spec.preset("d2l")
MULTIPLY_ADDS = 276_066_304  # of d2l at 96 pixels: the sum of the layers', counted by hand in the spec's tests


def weights_of(config):
    """Scalars of convolutions' and dense layers' weights."""
    shapes = spec.param_shapes(config).items()
    return sum(math.prod(shape) for name, shape in shapes if name.endswith("weight") and ".norm." not in name)


# -------------------------------------------------------------------------------------------- against the referee


@pytest.mark.parametrize("name", spec.PRESETS)
def test_inference_moves_what_the_referee_reads_and_writes(name):
    config = spec.preset(name)
    size = spec.minimum_input_size(config)
    seen, found = trace(replace(config, aux=False), size), work(config, size, "infer", 3, "float32")
    assert found.flops == 2 * 3 * seen.multiply_adds
    assert found.bytes == 4 * (3 * (seen.inputs + seen.outputs) + seen.weights)


@pytest.mark.parametrize("name", ["bvlc", "torchvision"])
def test_training_moves_what_the_heads_read_and_write_too(name):
    """Their pools included."""
    config = spec.preset(name)
    size = spec.minimum_input_size(config)
    seen, found = trace(config, size), work(config, size, "train", 2, "float32")
    assert found.flops == 3 * 2 * 2 * seen.multiply_adds
    assert found.bytes == 3 * 4 * (2 * (seen.inputs + seen.outputs) + seen.weights)


# ------------------------------------------------------------------------------------------------------- by hand


def test_operations_are_those_of_the_spec():
    found = work(D2L, 96, "infer", 4, "float32")
    assert found.flops == 2 * 4 * MULTIPLY_ADDS
    assert sum(stage_flops(D2L, 96, 4).values()) == found.flops
    assert stage_flops(D2L, 96, 1)["conv1"] == 2 * (64 * 7 * 7) * 48 * 48
    assert stage_flops(D2L, 96, 1)["pool1"] == 0


def test_training_is_three_forward_passes():
    infer, train = (work(D2L, 96, task, 4, "float32") for task in ("infer", "train"))
    assert (train.flops, train.bytes) == (3 * infer.flops, 3 * infer.bytes)
    assert train.intensity == infer.intensity == infer.flops / infer.bytes


def test_bfloat16_moves_half_the_bytes():
    single, half = (work(D2L, 96, "infer", 4, dtype) for dtype in ("float32", "bfloat16"))
    assert (half.flops, half.bytes) == (single.flops, single.bytes / 2)


def test_weights_are_read_once_for_the_whole_batch():
    one, four = (work(D2L, 96, "infer", batch, "float32").bytes for batch in (1, 4))
    assert four - 4 * one == -3 * 4 * weights_of(D2L)


def test_bytes_of_the_smallest_image_are_those_of_its_channels():
    """At 1 x 1 pixels every map is 1 x 1: every layer and pool moves its channels, in and out."""
    moved = 1 + 64  # conv1
    moved += (64 + 64) + (64 + 192) + (64 + 64) + (192 + 192)  # the stem's other convolutions and its pools
    into = 192
    for one, three_reduce, three, five_reduce, five, proj in TABLE.values():
        moved += (into + one) + (into + three_reduce) + (three_reduce + three)
        moved += (into + five_reduce) + (five_reduce + five) + (into + proj)
        moved += 2 * into  # the fourth branch's pool
        into = one + three + five + proj
    moved += 2 * 480 + 2 * 832 + 2 * 1024 + (1024 + 10)  # pool3, pool4, pool5, fc
    assert work(D2L, 1, "infer", 1, "float32").bytes == 4 * (moved + weights_of(D2L))


def test_a_convolution_without_padding_reads_all_of_its_map():
    """LeNet: 28 -> 24 -> 12 -> 8 -> 4 pixels. Its second convolution reads 12 x 12 and puts out 8 x 8."""
    moved = (28**2 + 6 * 24**2) + (6 * 24**2 + 6 * 12**2)
    moved += (6 * 12**2 + 16 * 8**2) + (16 * 8**2 + 16 * 4**2)
    moved += (256 + 120) + (120 + 84) + (84 + 10)
    weights = 25 * 6 + 6 * 25 * 16 + 256 * 120 + 120 * 84 + 84 * 10
    assert work(spec.preset("lenet"), 28, "infer", 1, "float32").bytes == 4 * (moved + weights)


def test_a_strided_convolution_reads_each_scalar_once_wherever_it_stands():
    """9 -> 9 -> 5 -> 2 pixels: the second and the third have strides, and the third skips most of what it is given."""
    config = spec.Config(
        preset="toy",
        family="Toy",
        source="",
        in_channels=3,
        num_classes=7,
        input_size=9,
        table=named(
            conv1=Conv(4, 3, pad=1), conv2=Conv(5, 3, stride=2, pad=1), conv3=Conv(6, stride=4), fc=Dense(None)
        ),
    )
    costs = spec.layer_costs(config, (3, 9, 9))
    assert {name: (cost.inputs, cost.outputs) for name, cost in costs.items()} == {
        "conv1": (3 * 81, 4 * 81),
        "conv2": (4 * 81, 5 * 25),
        "conv3": (5 * 25, 6 * 4),
        "fc": (6 * 4, 7),
    }
    moved = sum(cost.inputs + cost.outputs for cost in costs.values())
    weights = 3 * 4 * 9 + 4 * 5 * 9 + 5 * 6 + 24 * 7
    assert work(config, 9, "infer", 1, "float32").bytes == 4 * (moved + weights)
    seen = trace(config, 9)
    assert (seen.inputs + seen.outputs, seen.weights) == (moved, weights)


def test_a_pool_counts_whatever_its_name_is():
    config = spec.preset("nin")
    renamed = replace(config, table=(*config.table[:-1], ("mean", config.table[-1][1])))
    assert work(renamed, 67, "infer", 1, "float32") == work(config, 67, "infer", 1, "float32")


def test_heads_count_in_training_only():
    config = spec.preset("bvlc")
    plain = replace(config, aux=False)
    assert work(config, 224, "infer", 1, "float32") == work(plain, 224, "infer", 1, "float32")
    assert work(config, 224, "train", 1, "float32").flops > work(plain, 224, "train", 1, "float32").flops
    assert stage_flops(config, 224, 1)["aux1"] == 2 * 4_169_728  # counted by hand in the spec's tests


def test_bytes_of_a_head_are_those_of_its_pool_and_its_layers():
    """At 224 pixels it reads 14 x 14 maps of 512 channels."""
    config = spec.preset("bvlc")
    with_heads, without = (
        work(replace(config, aux=aux), 224, "train", 1, "float32").bytes / (3 * 4) for aux in (True, False)
    )
    moved = weights = 0
    for channels in (512, 528):
        moved += channels * 14**2 + channels * 4**2  # the pool
        moved += (channels * 4**2 + 128 * 4**2) + (2048 + 1024) + (1024 + 1000)
        weights += channels * 128 + 2048 * 1024 + 1024 * 1000
    assert with_heads - without == moved + weights


# ------------------------------------------------------------------------------------------------------ the roof


def test_the_roof_is_the_best_of_all_frameworks():
    peaks = [
        {"backend": "pt", "dtype": "float32", "name": "matrix product", "per_second": 3e11},
        {"backend": "mx", "dtype": "float32", "name": "convolution", "per_second": 4e11},
        {"backend": "jax", "dtype": "float32", "name": "convolution", "per_second": 2e11},
        {"backend": "pt", "dtype": "float32", "name": "copy", "per_second": 2e10},
        {"backend": "mx", "dtype": "float32", "name": "copy", "per_second": 1e10},
    ]
    found = machine_of(peaks)
    assert found == Machine({"float32": 4e11}, 2e10)
    assert found.roof(1.0, "float32") == 2e10
    assert found.roof(1000.0, "float32") == 4e11
    assert found.roof(1.0, "bfloat16") is None


def test_without_a_measured_copy_there_is_no_roof():
    assert Machine({"float32": 4e11}, None).roof(1000.0, "float32") is None
