"""The network as data: exact totals, names, shapes and costs; every error; and the initial parameters."""

import math
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from support import GOOGLENETS, INCEPTIONS

import spec
from spec.shapes import input_sizes
from spec.table import render, table

# ---------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("name", "settings", "total"),
    [
        ("d2l", {}, 5_977_530),
        ("d2l", {"in_channels": 3}, 5_983_802),
        ("d2l", {"num_classes": 1000}, 6_992_280),
        ("d2l", {"in_channels": 3, "num_classes": 1000}, 6_998_552),
        ("d2lzh", {}, 5_977_530),
        ("d2lzh-misprint", {}, 5_876_160),
        ("cnblogs", {}, 5_977_530),
        ("bvlc", {}, 13_378_280),
        ("bvlc", {"aux": False}, 6_998_552),
        ("bvlc", {"in_channels": 1}, 13_372_008),
        ("bvlc", {"in_channels": 1, "aux": False}, 6_992_280),
        ("bvlc", {"in_channels": 1, "num_classes": 10}, 10_327_758),
        ("bvlc", {"in_channels": 3, "num_classes": 10}, 10_334_030),
        ("bvlc", {"in_channels": 1, "num_classes": 10, "aux": False}, 5_977_530),
        ("bvlc", {"in_channels": 3, "num_classes": 10, "aux": False}, 5_983_802),
        ("torchvision", {}, 13_004_888),
        ("torchvision", {"aux": False}, 6_624_904),
        ("torchvision", {"num_classes": 10}, 9_960_638),
        ("torchvision", {"num_classes": 10, "aux": False}, 5_610_154),
    ],
)
def test_networks_have_the_published_parameter_counts(name, settings, total):
    config = spec.preset(name, **settings)
    assert spec.parameter_count(config) == total
    assert sum(cost.parameters for cost in costs(config).values()) == total


def costs(config):
    return spec.layer_costs(config, (config.in_channels, config.input_size, config.input_size))


def count_by_stage(config):
    counts = {}
    for name, cost in costs(config).items():
        stage = name.split(".")[0]
        counts[stage] = counts.get(stage, 0) + cost.parameters
    return counts


PLAIN = {
    "conv1": 3_200,
    "conv2_reduce": 4_160,
    "conv2": 110_784,
    "inception3a": 163_696,
    "inception3b": 388_736,
    "inception4a": 376_176,
    "inception4b": 449_160,
    "inception4c": 510_104,
    "inception4d": 605_376,
    "inception4e": 868_352,
    "inception5a": 1_043_456,
    "inception5b": 1_444_080,
    "fc": 10_250,
}
HEADS = {"aux1": 3_188_840, "aux2": 3_190_888}
TORCHVISION = {
    "conv1": 9_536,
    "conv2_reduce": 4_224,
    "conv2": 110_976,
    "inception3a": 155_872,
    "inception3b": 340_224,
    "inception4a": 364_512,
    "aux1": 3_188_968,
    "inception4b": 425_232,
    "inception4c": 486_192,
    "inception4d": 573_312,
    "aux2": 3_191_016,
    "inception4e": 803_840,
    "inception5a": 978_944,
    "inception5b": 1_347_040,
    "fc": 1_025_000,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d2l", PLAIN),
        ("d2lzh", PLAIN),
        ("cnblogs", PLAIN),
        ("d2lzh-misprint", PLAIN | {"inception4a": 289_676, "inception4b": 413_160, "inception4c": 531_234}),
        ("bvlc", PLAIN | HEADS | {"conv1": 9_472, "fc": 1_025_000}),
        ("torchvision", TORCHVISION),
    ],
)
def test_stages_have_the_parameter_counts_by_hand(name, expected):
    assert count_by_stage(spec.preset(name)) == expected


BRANCHES = ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("inception3a", (12_352, 18_528, 110_720, 3_088, 12_832, 6_176)),
        ("inception3b", (32_896, 32_896, 221_376, 8_224, 76_896, 16_448)),
        ("inception4a", (92_352, 46_176, 179_920, 7_696, 19_248, 30_784)),
        ("inception4b", (82_080, 57_456, 226_016, 12_312, 38_464, 32_832)),
        ("inception4c", (65_664, 65_664, 295_168, 12_312, 38_464, 32_832)),
        ("inception4d", (57_456, 73_872, 373_536, 16_416, 51_264, 32_832)),
        ("inception4e", (135_424, 84_640, 461_120, 16_928, 102_528, 67_712)),
        ("inception5a", (213_248, 133_280, 461_120, 26_656, 102_528, 106_624)),
        ("inception5b", (319_872, 159_936, 663_936, 39_984, 153_728, 106_624)),
    ],
)
def test_branches_have_the_parameter_counts_by_hand(block, expected):
    by_layer = costs(spec.preset("d2l"))
    assert tuple(by_layer[f"{block}.{branch}"].parameters for branch in BRANCHES) == expected


def test_heads_with_ten_classes_have_the_parameter_counts_by_hand():
    counts = count_by_stage(spec.preset("bvlc", num_classes=10))
    assert (counts["aux1"], counts["aux2"]) == (2_174_090, 2_176_138)


@pytest.mark.parametrize(
    ("name", "settings", "arrays", "layers"),
    [
        ("d2l", {}, 116, 58),
        ("d2lzh", {}, 116, 58),
        ("d2lzh-misprint", {}, 116, 58),
        ("cnblogs", {}, 116, 58),
        ("bvlc", {}, 128, 64),
        ("bvlc", {"aux": False}, 116, 58),
        # a torchvision state dict has one num_batches_tracked more for each of its 59 (57) batch norms
        ("torchvision", {}, 364 - 59, 64),
        ("torchvision", {"aux": False}, 344 - 57, 58),
    ],
)
def test_networks_have_the_published_numbers_of_arrays_and_layers(name, settings, arrays, layers):
    config = spec.preset(name, **settings)
    assert len(spec.param_shapes(config)) == arrays
    assert len(spec.layers(config)) == layers
    assert [layer.name for layer in spec.layers(config)] == list(costs(config))


@pytest.mark.parametrize(("aux", "total"), [(True, 15_072), (False, 14_560)])
def test_running_statistics_are_not_counted(aux, total):
    shapes = spec.param_shapes(spec.preset("torchvision", aux=aux))
    assert sum(math.prod(shape) for name, shape in shapes.items() if spec.is_statistic(name)) == total


@pytest.mark.parametrize("name", ["d2l", "bvlc"])
def test_only_batch_norm_has_statistics(name):
    assert not any(spec.is_statistic(array) for array in spec.param_shapes(spec.preset(name)))


def test_arrays_stand_in_forward_order_with_canonical_names():
    shapes = list(spec.param_shapes(spec.preset("d2l")).items())
    assert shapes[:18] == [
        ("conv1.weight", (64, 1, 7, 7)),
        ("conv1.bias", (64,)),
        ("conv2_reduce.weight", (64, 64, 1, 1)),
        ("conv2_reduce.bias", (64,)),
        ("conv2.weight", (192, 64, 3, 3)),
        ("conv2.bias", (192,)),
        ("inception3a.branch1x1.weight", (64, 192, 1, 1)),
        ("inception3a.branch1x1.bias", (64,)),
        ("inception3a.branch3x3_reduce.weight", (96, 192, 1, 1)),
        ("inception3a.branch3x3_reduce.bias", (96,)),
        ("inception3a.branch3x3.weight", (128, 96, 3, 3)),
        ("inception3a.branch3x3.bias", (128,)),
        ("inception3a.branch5x5_reduce.weight", (16, 192, 1, 1)),
        ("inception3a.branch5x5_reduce.bias", (16,)),
        ("inception3a.branch5x5.weight", (32, 16, 5, 5)),
        ("inception3a.branch5x5.bias", (32,)),
        ("inception3a.pool_proj.weight", (32, 192, 1, 1)),
        ("inception3a.pool_proj.bias", (32,)),
    ]
    assert shapes[-3:] == [
        ("inception5b.pool_proj.bias", (128,)),
        ("fc.weight", (10, 1024)),
        ("fc.bias", (10,)),
    ]


def test_batch_norm_takes_the_place_of_the_bias():
    shapes = spec.param_shapes(spec.preset("torchvision"))
    start = {name: shape for name, shape in shapes.items() if name.startswith("conv1")}
    assert list(start.items()) == [
        ("conv1.weight", (64, 3, 7, 7)),
        ("conv1.norm.weight", (64,)),
        ("conv1.norm.bias", (64,)),
        ("conv1.norm.running_mean", (64,)),
        ("conv1.norm.running_var", (64,)),
    ]
    assert shapes["inception3a.branch5x5.weight"] == (32, 16, 3, 3)
    assert "aux1.fc1.bias" in shapes
    assert "aux1.conv.bias" not in shapes


def test_the_heads_stand_where_they_branch_off():
    names = list(spec.param_shapes(spec.preset("bvlc")))
    head = [name for name in names if name.startswith("aux2")]
    assert head == [f"aux2.{leaf}.{array}" for leaf in ("conv", "fc1", "fc2") for array in ("weight", "bias")]
    for number, before, after in (("1", "4a", "4b"), ("2", "4d", "4e")):
        first, last = names.index(f"aux{number}.conv.weight"), names.index(f"aux{number}.fc2.bias")
        assert names[first - 1] == f"inception{before}.pool_proj.bias"
        assert names[last + 1] == f"inception{after}.branch1x1.weight"
    shapes = spec.param_shapes(spec.preset("bvlc"))
    assert (shapes["aux2.conv.weight"], shapes["aux2.fc1.weight"]) == ((128, 528, 1, 1), (1024, 2048))
    assert shapes["aux2.fc2.weight"] == (1000, 1024)


@pytest.mark.parametrize("name", spec.PRESETS)
def test_without_heads_every_other_array_stays(name):
    config = spec.preset(name)
    rest = {array: s for array, s in spec.param_shapes(config).items() if not array.startswith("aux")}
    assert spec.param_shapes(replace(config, aux=False)) == rest


def test_only_classifiers_and_the_stem_of_d2lzh_are_linear():
    linear = {
        name: {layer.name for layer in spec.layers(spec.preset(name)) if layer.op.activation is None}
        for name in GOOGLENETS
    }
    assert linear == {
        "d2l": {"fc"},
        "d2lzh": {"conv2_reduce", "conv2", "fc"},
        "d2lzh-misprint": {"conv2_reduce", "conv2", "fc"},
        "cnblogs": {"fc"},
        "bvlc": {"aux1.fc2", "aux2.fc2", "fc"},
        "torchvision": {"aux1.fc2", "aux2.fc2", "fc"},
    }


@pytest.mark.parametrize("name", GOOGLENETS)
def test_every_convolution_but_the_first_keeps_the_size(name):
    for layer in spec.layers(spec.preset(name)):
        if layer.name == "conv1":
            assert (layer.op.kernel, layer.op.stride, layer.op.pad) == (7, 2, 3)
        elif not layer.is_dense:
            assert (layer.op.stride, 2 * layer.op.pad) == (1, layer.op.kernel - 1)


# -------------------------------------------------------------------------------------------------- stage shapes


def test_stage_shapes_of_d2l_are_those_of_the_book():
    shapes = spec.stage_shapes(spec.preset("d2l"), (1, 96, 96))
    assert list(shapes.items()) == [
        ("conv1", (64, 48, 48)),
        ("pool1", (64, 24, 24)),
        ("conv2_reduce", (64, 24, 24)),
        ("conv2", (192, 24, 24)),
        ("pool2", (192, 12, 12)),
        ("inception3a", (256, 12, 12)),
        ("inception3b", (480, 12, 12)),
        ("pool3", (480, 6, 6)),
        ("inception4a", (512, 6, 6)),
        ("inception4b", (512, 6, 6)),
        ("inception4c", (512, 6, 6)),
        ("inception4d", (528, 6, 6)),
        ("inception4e", (832, 6, 6)),
        ("pool4", (832, 3, 3)),
        ("inception5a", (832, 3, 3)),
        ("inception5b", (1024, 3, 3)),
        ("pool5", (1024, 1, 1)),
        ("fc", (10,)),
    ]


def test_stage_shapes_of_bvlc_are_those_of_the_paper():
    shapes = spec.stage_shapes(spec.preset("bvlc"), (3, 224, 224))
    assert list(shapes.items()) == [
        ("conv1", (64, 112, 112)),
        ("pool1", (64, 56, 56)),
        ("norm1", (64, 56, 56)),
        ("conv2_reduce", (64, 56, 56)),
        ("conv2", (192, 56, 56)),
        ("norm2", (192, 56, 56)),
        ("pool2", (192, 28, 28)),
        ("inception3a", (256, 28, 28)),
        ("inception3b", (480, 28, 28)),
        ("pool3", (480, 14, 14)),
        ("inception4a", (512, 14, 14)),
        ("aux1", (1000,)),
        ("inception4b", (512, 14, 14)),
        ("inception4c", (512, 14, 14)),
        ("inception4d", (528, 14, 14)),
        ("aux2", (1000,)),
        ("inception4e", (832, 14, 14)),
        ("pool4", (832, 7, 7)),
        ("inception5a", (832, 7, 7)),
        ("inception5b", (1024, 7, 7)),
        ("pool5", (1024, 1, 1)),
        ("fc", (1000,)),
    ]


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("d2l", 28, [14, 7, 4, 2, 1]),
        ("d2l", 96, [48, 24, 12, 6, 3]),
        ("d2l", 97, [49, 25, 13, 7, 4]),
        ("d2l", 224, [112, 56, 28, 14, 7]),
        ("d2l", 231, [116, 58, 29, 15, 8]),
        ("d2lzh", 97, [49, 25, 13, 7, 4]),
        ("d2lzh-misprint", 96, [48, 24, 12, 6, 3]),
        ("cnblogs", 224, [112, 56, 28, 14, 7]),
        ("cnblogs", 231, [116, 58, 29, 15, 8]),
        ("bvlc", 96, [48, 24, 12, 6, 3]),
        ("bvlc", 97, [49, 24, 12, 6, 3]),
        ("bvlc", 224, [112, 56, 28, 14, 7]),
        ("bvlc", 231, [116, 58, 29, 14, 7]),
        ("torchvision", 28, [14, 7, 3, 1, 1]),
        ("torchvision", 97, [49, 24, 12, 6, 3]),
        ("torchvision", 224, [112, 56, 28, 14, 7]),
        ("torchvision", 231, [116, 58, 29, 14, 7]),
    ],
)
def test_maps_have_the_sides_by_hand(name, size, sides):
    """After conv1 and the four pools; at 29 the third pool tells padding from rounding up: 15 or 14."""
    config = spec.preset(name, aux=False)
    shapes = spec.stage_shapes(config, (config.in_channels, size, size))
    assert [shapes[stage][1:] for stage in ("conv1", "pool1", "pool2", "pool3", "pool4")] == [(s, s) for s in sides]


def test_pools_between_the_stages_pad_or_round_up():
    ceil, padded = spec.MaxPool(3, stride=2, ceil=True), spec.MaxPool(3, stride=2, pad=1)
    names = ("pool1", "pool2", "pool3", "pool4")
    pools = {name: [dict(spec.preset(name).table)[pool] for pool in names] for name in GOOGLENETS}
    assert pools.pop("bvlc") == [ceil] * 4
    assert pools.pop("torchvision") == [*[ceil] * 3, spec.MaxPool(2, stride=2, ceil=True)]
    assert all(each == [padded] * 4 for each in pools.values())


def test_height_and_width_are_independent():
    shapes = spec.stage_shapes(spec.preset("d2l"), (1, 96, 224))
    assert (shapes["conv1"], shapes["pool4"], shapes["pool5"]) == ((64, 48, 112), (832, 3, 7), (1024, 1, 1))


def test_the_misprint_narrows_4a_and_nothing_after_it():
    right, wrong = (spec.stage_shapes(spec.preset(name), (1, 96, 96)) for name in ("d2lzh", "d2lzh-misprint"))
    assert {stage: shape for stage, shape in wrong.items() if shape != right[stage]} == {"inception4a": (412, 6, 6)}
    config = spec.preset("d2lzh-misprint")
    nodes = spec.nodes(config)
    assert nodes["inception4b.branch1x1"].in_channels == 412
    assert nodes["inception4c.branch5x5_reduce"].out_channels == 34


@pytest.mark.parametrize("name", GOOGLENETS)
def test_blocks_fit_each_other(name):
    nodes = spec.nodes(spec.preset(name))
    blocks = [stage for stage in nodes if stage.startswith("inception") and "." not in stage]
    first = [nodes[f"{block}.branch1x1"].in_channels for block in blocks]
    assert first == [192, *(nodes[block].out_channels for block in blocks[:-1])]
    assert nodes[blocks[-1]].out_channels == 1024


@pytest.mark.parametrize("name", spec.PRESETS)
def test_stage_names_are_those_of_the_shapes(name):
    config = spec.preset(name)
    shapes = spec.stage_shapes(config, (config.in_channels, config.input_size, config.input_size))
    assert spec.stage_names(config) == tuple(shapes)
    assert shapes[config.logits] == (config.num_classes,)
    assert list(shapes)[-1] == config.logits


@pytest.mark.parametrize(
    ("name", "aux", "low", "high"),
    [
        ("d2l", False, 1, None),
        ("d2lzh", False, 1, None),
        ("d2lzh-misprint", False, 1, None),
        ("cnblogs", False, 193, 416),
        ("bvlc", True, 223, 270),
        ("bvlc", False, 31, None),
        ("torchvision", True, 15, None),
        ("torchvision", False, 15, None),
    ],
)
def test_images_fit_from_the_smallest_to_the_largest_size(name, aux, low, high):
    """Every size from the smallest to the largest fits, and none outside."""
    config = spec.preset(name, aux=aux)
    assert spec.minimum_input_size(config) == low
    assert input_sizes(config) == (low, high, None)
    for size in range(low, (high or low + 300) + 1):
        spec.stage_shapes(config, (config.in_channels, size, size))
    for size in (low - 1, *([high + 1] if high else [])):
        with pytest.raises(spec.InvalidInput, match=f"cannot take {size} x {size} pixels"):
            spec.stage_shapes(config, (config.in_channels, size, size))


# ---------------------------------------------------------------------------------------------------------- costs


@pytest.mark.parametrize(
    ("name", "settings", "shape", "total"),
    [
        ("d2l", {}, (1, 96, 96), 276_066_304),
        ("d2l", {}, (1, 28, 28), 28_774_656),
        ("d2l", {}, (1, 224, 224), 1_502_982_144),
        ("bvlc", {"aux": False}, (3, 224, 224), 1_582_671_872),
        ("bvlc", {}, (3, 224, 224), 1_582_671_872 + 4_169_728 + 4_202_496),
    ],
)
def test_multiply_adds_are_those_by_hand(name, settings, shape, total):
    config = spec.preset(name, **settings)
    assert sum(cost.multiply_adds for cost in spec.layer_costs(config, shape).values()) == total


def test_costs_of_single_layers_are_those_by_hand():
    by_layer = costs(spec.preset("bvlc"))
    assert by_layer["conv1"] == (9_472, 3 * 64 * 7 * 7 * 112 * 112, 3 * 224 * 224, 64 * 112 * 112)
    assert by_layer["inception3a.branch5x5"] == (12_832, 16 * 32 * 5 * 5 * 28 * 28, 16 * 28 * 28, 32 * 28 * 28)
    assert by_layer["inception3a.pool_proj"] == (6_176, 192 * 32 * 28 * 28, 192 * 28 * 28, 32 * 28 * 28)
    assert by_layer["aux1.conv"] == (65_664, 512 * 128 * 4 * 4, 512 * 4 * 4, 128 * 4 * 4)
    assert by_layer["aux1.fc1"] == (2_098_176, 2048 * 1024, 2048, 1024)
    assert by_layer["aux2.fc2"] == (1_025_000, 1024 * 1000, 1024, 1000)
    assert by_layer["fc"] == (1_025_000, 1024 * 1000, 1024, 1000)


@pytest.mark.parametrize("name", spec.PRESETS)
def test_an_operation_reads_what_others_put_out(name):
    nodes = spec.walk(spec.preset(name))
    outputs = {node.name: node.out for node in nodes}
    for node in nodes[1:]:
        assert node.into == outputs[node.reads[0]], node.name


def test_a_head_stands_beside_the_trunk():
    """What it reads goes on to the next block."""
    config = spec.preset("bvlc")
    nodes = {node.name: node for node in spec.walk(config, (3, 224, 231))}
    assert nodes["conv1"].into == (3, 224, 231)
    assert nodes["aux1.pool"].reads == nodes["inception4b.branch1x1"].reads == ("inception4a",)
    assert nodes["inception4b.branch1x1"].into == (512, 14, 14)


# ------------------------------------------------------------------------------------------------------- the table


def table_of(name):
    """The rows of a preset's table by stage, for images of its own size."""
    config = spec.preset(name)
    return {row.stage: row for row in table(config, (config.in_channels, config.input_size, config.input_size))}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("d2l", {}),
        ("cnblogs", {"pool5": "7x7/7"}),
        ("bvlc", {"norm1": "", "norm2": "", "aux1": "5x5/3", "aux2": "5x5/3"}),
        ("torchvision", {"pool4": "2x2/2", "aux1": "to 4x4", "aux2": "to 4x4"}),
    ],
)
def test_the_table_shows_windows_and_strides(name, changed):
    kernels = {stage: row.kernel for stage, row in table_of(name).items() if not stage.startswith("inception")}
    pools = dict.fromkeys(["pool1", "pool2", "pool3", "pool4"], "3x3/2")
    expected = {"conv1": "7x7/2", "conv2_reduce": "1x1/1", "conv2": "3x3/1", **pools, "pool5": "global", "fc": ""}
    assert kernels == expected | changed


BRANCHES = ("branch1x1", "branch3x3_reduce", "branch3x3", "branch5x5_reduce", "branch5x5", "pool_proj")


def test_the_table_shows_the_six_widths_and_the_costs_of_a_block():
    row = table_of("d2l")["inception4e"]
    assert (row.kernel, row.shape) == ("", (832, 6, 6))
    assert row.branches == dict(zip(BRANCHES, (256, 160, 320, 32, 128, 128), strict=True))
    biases = 256 + 160 + 320 + 32 + 128 + 128
    assert (row.parameters, row.multiply_adds) == (868_352, (868_352 - biases) * 6 * 6)
    assert table_of("d2l")["pool4"].parameters == 0


HEADS_SAID = "auxiliary heads (loss weight 0.3, dropout 0.7)"
STATISTICS_SAID = "running statistics beside the parameters)"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("d2l", ""),
        ("d2lzh", "no ReLU after conv2_reduce and conv2"),
        ("cnblogs", "dropout 0.4"),
        ("bvlc", f"max pools round up; local response normalization; dropout 0.4; {HEADS_SAID}"),
        (
            "torchvision",
            "max pools round up; the '5x5' branch is 3x3; "
            f"batch norm (15,072 {STATISTICS_SAID}; dropout 0.2; {HEADS_SAID}",
        ),
        ("lenet-bn", f"sigmoid activations; batch norm (452 {STATISTICS_SAID}"),
        ("lenet-bn-frozen", f"sigmoid activations; batch norm without scale and shift (452 {STATISTICS_SAID}"),
        ("nin", "dropout 0.5"),
    ],
)
def test_the_table_says_what_its_columns_do_not_show(name, said):
    config = spec.preset(name)
    lines = render(config, (config.in_channels, config.input_size, config.input_size)).splitlines()
    assert lines[0] == f"{name}: {config.source}"
    assert lines[2] == said


# -------------------------------------------------------------------------------------------------------- presets


def test_presets_are_found_by_name():
    ancestors = ["lenet", "lenet-bn", "lenet-bn-scratch", "lenet-bn-frozen", "alexnet", "vgg11", "vgg11-narrow", "nin"]
    assert list(spec.PRESETS) == [
        "d2l",
        "d2lzh",
        "d2lzh-misprint",
        "cnblogs",
        "bvlc",
        "torchvision",
        *ancestors,
        *INCEPTIONS,
    ]
    for name, config in spec.PRESETS.items():
        assert config.preset == name
        assert spec.preset(name) == config


def test_presets_drop_the_published_fractions():
    fractions = {name: (config.dropout, config.aux_dropout) for name, config in spec.PRESETS.items()}
    assert fractions == {
        "d2l": (0, 0),
        "d2lzh": (0, 0),
        "d2lzh-misprint": (0, 0),
        "cnblogs": (0.4, 0),
        "bvlc": (0.4, 0.7),
        "torchvision": (0.2, 0.7),
        **dict.fromkeys(["lenet", "lenet-bn", "lenet-bn-scratch", "lenet-bn-frozen"], (0, 0)),
        **dict.fromkeys(["alexnet", "vgg11", "vgg11-narrow", "nin"], (0.5, 0)),
        **dict.fromkeys(INCEPTIONS, (0, 0)),
        "inception-v3": (0.5, 0),
    }


def test_settings_replace_those_of_the_preset():
    config = spec.preset("bvlc", in_channels=4, num_classes=5, aux=False, dropout=0)
    assert config == replace(
        spec.PRESETS["bvlc"], in_channels=4, num_classes=5, aux=False, dropout=0.0, aux_dropout=0.0
    )
    assert spec.preset("bvlc", aux=True) == spec.PRESETS["bvlc"]


def test_settings_of_the_loss_become_floats():
    v3 = {"inception-v3", "inception-v3-tf", "inception-v3-fid"}
    assert {name for name, config in spec.PRESETS.items() if config.aux_weight == 0.4} == v3
    assert {config.aux_weight for config in spec.PRESETS.values()} == {0.3, 0.4}
    assert {config.label_smoothing for config in spec.PRESETS.values()} == {0.0}
    config = spec.preset("bvlc", aux_weight=1, label_smoothing=np.float32(0.5))
    assert config == replace(spec.PRESETS["bvlc"], aux_weight=1.0, label_smoothing=0.5)
    assert (type(config.aux_weight), type(config.label_smoothing)) == (float, float)
    assert spec.preset("bvlc", aux_weight=0).aux_weight == 0
    assert spec.preset("d2l", aux_weight=0.5) == replace(spec.PRESETS["d2l"], aux_weight=0.5)


def test_everything_is_frozen():
    config = spec.preset("bvlc")
    parts = {
        config: "num_classes",
        dict(config.table)["inception3a"]: "branches",
        dict(config.table)["pool1"]: "kernel",
        dict(config.table)["norm1"]: "alpha",
        spec.preset("torchvision").batch_norm: "epsilon",
        spec.layers(config)[0]: "name",
        spec.layers(config)[0].op: "kernel",
    }
    for part, field in parts.items():
        with pytest.raises(FrozenInstanceError):
            setattr(part, field, 1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vgg", {}, "unknown preset 'vgg': expected one of d2l, d2lzh, d2lzh-misprint, cnblogs, bvlc, torchvision"),
        ("d2l", {"in_channels": 0}, "in_channels: expected a whole number of at least 1, got 0"),
        ("d2l", {"in_channels": 1.0}, "in_channels: expected a whole number of at least 1, got 1.0"),
        ("d2l", {"num_classes": -1}, "num_classes: expected a whole number of at least 1, got -1"),
        ("d2l", {"num_classes": True}, "num_classes: expected a whole number of at least 1, got True"),
        ("d2l", {"aux": True}, "preset d2l has no auxiliary heads"),
        ("cnblogs", {"aux": True}, "take one of bvlc, torchvision"),
        ("bvlc", {"dropout": 1}, "dropout: expected a fraction from 0 to below 1, got 1"),
        ("bvlc", {"dropout": -0.1}, "dropout: expected a fraction from 0 to below 1, got -0.1"),
        ("bvlc", {"dropout": math.nan}, "dropout: expected a fraction from 0 to below 1, got nan"),
        ("bvlc", {"aux_weight": -0.1}, "aux_weight: expected a number of at least 0, got -0.1"),
        ("bvlc", {"aux_weight": math.inf}, "aux_weight: expected a number of at least 0, got inf"),
        ("bvlc", {"aux_weight": math.nan}, "aux_weight: expected a number of at least 0, got nan"),
        ("bvlc", {"aux_weight": "0.3"}, "aux_weight: expected a number of at least 0, got '0.3'"),
        ("d2l", {"label_smoothing": 1}, "label_smoothing: expected a share from 0 to below 1, got 1"),
        ("d2l", {"label_smoothing": -0.1}, "label_smoothing: expected a share from 0 to below 1, got -0.1"),
        ("d2l", {"label_smoothing": math.nan}, "label_smoothing: expected a share from 0 to below 1, got nan"),
        ("d2l", {"label_smoothing": "0.1"}, "label_smoothing: expected a share from 0 to below 1, got '0.1'"),
    ],
)
def test_preset_refuses_what_no_network_can_have(name, settings, message):
    with pytest.raises(spec.InvalidInput, match=re.escape(message)):
        spec.preset(name, **settings)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("d2l", (96, 96), r"expected \(channels, height, width\), got \(96, 96\)"),
        ("d2l", (3, 96, 96), "expected images of 1 channels, got 3; .* in_channels=3"),
        ("d2l", (1, 0, 96), "cannot take 0 x 96 pixels: it is empty; .* 1 or more pixels"),
        ("torchvision", (3, 224, 14), "cannot take 224 x 14 pixels: nothing is left at pool3; .* 15 or more pixels"),
        ("cnblogs", (1, 96, 96), "nothing is left at pool5; .* 193 to 416 pixels"),
        ("cnblogs", (1, 224, 417), "layer fc needs maps of 1 x 1 and gets 1 x 2; .* 193 to 416 pixels"),
        ("bvlc", (3, 16, 16), "nothing is left at pool4; .* 223 to 270 pixels"),
        ("bvlc", (3, 96, 96), r"aux1.fc1 needs maps of 4 x 4 and gets 1 x 1; .* 223 to 270 pixels; .*aux=False"),
        ("bvlc", (3, 224, 271), r"aux1.fc1 needs maps of 4 x 4 and gets 4 x 5; .* 223 to 270 pixels; .*aux=False"),
    ],
)
def test_stage_shapes_refuses_images_that_do_not_fit(name, shape, message):
    with pytest.raises(spec.InvalidInput, match=message):
        spec.stage_shapes(spec.preset(name), shape)


def test_leaving_the_heads_out_is_advised_only_where_it_helps():
    for name, shape in (("cnblogs", (1, 96, 96)), ("bvlc", (3, 16, 16))):
        with pytest.raises(spec.InvalidInput) as caught:
            spec.stage_shapes(spec.preset(name), shape)
        assert "aux=False" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_check_images_takes_any_number(dtype):
    images = np.ones((2, 1, 28, 28), dtype=dtype)
    assert spec.check_images(spec.preset("d2l"), images) is images


def test_check_images_takes_lists():
    assert spec.check_images(spec.preset("d2l"), [[[[0.5]]]]).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.ones((1, 28, 28)), r"expected \(N, channels, height, width\) with N at least 1, got \(1, 28, 28\)"),
        (np.ones((0, 1, 28, 28)), r"N at least 1, got \(0, 1, 28, 28\)"),
        (np.float64(1), r"N at least 1, got \(\)"),
        (np.ones((1, 1, 28, 28), dtype=bool), "expected numbers, got an array of bool"),
        (np.ones((1, 1, 28, 28), dtype=complex), "expected numbers, got an array of complex128"),
        (np.full((1, 1, 1, 1), "a"), "expected numbers, got an array of <U1"),
        (np.ones((1, 28, 28, 1)), "expected images of 1 channels, got 28"),
        (np.ones((1, 1, 28, 0)), "cannot take 28 x 0 pixels"),
    ],
)
def test_check_images_refuses_what_are_no_images(images, message):
    with pytest.raises(spec.InvalidInput, match=message):
        spec.check_images(spec.preset("d2l"), images)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_check_images_names_the_images_that_are_not_finite(bad):
    images = np.random.default_rng(0).standard_normal((5, 1, 4, 4))
    images[1, 0, 2, 3] = images[4, 0, 0, 0] = images[4, 0, 1, 1] = bad
    with pytest.raises(spec.InvalidInput, match=r"NaN or infinity in 2 of 5 images \(first: image 1\)"):
        spec.check_images(spec.preset("d2l"), images)


@pytest.mark.parametrize("labels", [[0, 9, 3], np.array([0, 9, 3], np.uint8), np.array([0, 9, 3], np.int32)])
def test_check_labels_returns_int64(labels):
    checked = spec.check_labels(spec.preset("d2l"), labels, 3)
    assert checked.dtype == np.int64
    assert checked.tolist() == [0, 9, 3]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"one for each of the 3 images, shape \(3,\), got \(2,\)"),
        ([[0], [1], [2]], r"shape \(3,\), got \(3, 1\)"),
        ([0.0, 1.0, 2.0], "expected whole numbers, got an array of float64"),
        ([True, False, True], "expected whole numbers, got an array of bool"),
        ([0, 10, 3], r"expected classes from 0 to 9, got \[10\]"),
        ([12, -1, 12], r"expected classes from 0 to 9, got \[-1, 12\]"),
    ],
)
def test_check_labels_refuses_what_are_no_classes(labels, message):
    with pytest.raises(spec.InvalidInput, match=f"labels: .*{message}"):
        spec.check_labels(spec.preset("d2l"), labels, 3)


@pytest.mark.parametrize(
    ("name", "shape", "stage"),
    [("torchvision", (1, 3, 15, 15), "inception4a"), ("torchvision", (1, 3, 33, 33), "inception5a")],
)
def test_batch_norm_cannot_train_on_a_single_value(name, shape, stage):
    config = spec.preset(name)
    message = f"one image of {shape[2]} x {shape[3]} pixels: .* single value per channel at {stage}; .* at least 2"
    with pytest.raises(spec.InvalidInput, match=message):
        spec.check_training_batch(config, shape)
    spec.check_training_batch(config, (2, *shape[1:]))


@pytest.mark.parametrize(("name", "shape"), [("torchvision", (1, 3, 224, 224)), ("d2l", (1, 1, 1, 1))])
def test_a_single_image_may_be_trained_on_where_maps_have_several_values(name, shape):
    spec.check_training_batch(spec.preset(name), shape)


# ---------------------------------------------------------------------------------------------- sets of parameters


def zeros(config):
    return {name: np.zeros(shape) for name, shape in spec.param_shapes(config).items()}


@pytest.mark.parametrize("name", ["d2l", "torchvision"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_params_accepts_what_fits(name, dtype):
    config = spec.preset(name, num_classes=10)
    params = {array: value.astype(dtype) for array, value in zeros(config).items()}
    spec.check_params(config, dict(reversed(params.items())))


def test_check_params_names_every_mismatch_at_once():
    config = spec.preset("d2l")
    params = zeros(config)
    del params["fc.bias"], params["conv2.weight"]
    params["fc.kernel"] = np.zeros((1024, 10))
    params["fc.weight"] = np.zeros((5, 1024))
    params["conv1.weight"] = np.zeros((7, 7, 1, 64))
    params["conv1.bias"] = np.zeros(64, dtype=np.int64)
    params["conv2.bias"] = np.full(192, np.nan)
    params["conv2_reduce.bias"] = np.full(64, np.inf)
    with pytest.raises(spec.InvalidInput) as caught:
        spec.check_params(config, params)
    assert str(caught.value).splitlines() == [
        "parameters do not fit preset d2l (in_channels=1, num_classes=10):",
        "  missing (2):",
        "    conv2.weight (192, 64, 3, 3)",
        "    fc.bias (10,)",
        "  unexpected (1):",
        "    fc.kernel (1024, 10)",
        "  wrong shape (2):",
        "    conv1.weight: expected (64, 1, 7, 7), got (7, 7, 1, 64); this looks like HWIO (JAX, TensorFlow): "
        "canonical is OIHW, transpose(3, 2, 0, 1)",
        "    fc.weight: expected (10, 1024), got (5, 1024)",
        "  wrong type (1):",
        "    conv1.bias: expected floating point, got int64",
        "  NaN or infinity (2):",
        "    conv2_reduce.bias",
        "    conv2.bias",
    ]


@pytest.mark.parametrize(
    ("array", "axes", "hint"),
    [
        ("conv1.weight", (2, 3, 1, 0), r"HWIO .* transpose\(3, 2, 0, 1\)"),
        ("conv2.weight", (0, 2, 3, 1), r"OHWI: canonical is OIHW, transpose\(0, 3, 1, 2\)"),
        ("fc.weight", (1, 0), r"\(in, out\): canonical is \(out, in\), transpose it"),
    ],
)
def test_check_params_recognizes_other_layouts(array, axes, hint):
    config = spec.preset("d2l")
    params = zeros(config)
    params[array] = params[array].transpose(axes)
    with pytest.raises(spec.InvalidInput, match=rf"{array}: expected .*, got .*; this looks like {hint}"):
        spec.check_params(config, params)


def test_the_transposes_of_the_hints_restore_the_array():
    """The transposes that the hints advise restore the array."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    np.testing.assert_array_equal(weight.transpose(2, 3, 1, 0).transpose(3, 2, 0, 1), weight)
    np.testing.assert_array_equal(weight.transpose(0, 2, 3, 1).transpose(0, 3, 1, 2), weight)


def test_check_params_says_which_network_it_means():
    config = spec.preset("bvlc")
    with pytest.raises(spec.InvalidInput, match=r"preset bvlc \(in_channels=3, num_classes=1000, with auxiliary heads"):
        spec.check_params(config, {})


def test_check_params_refuses_the_heads_of_a_network_without():
    config = spec.preset("bvlc", num_classes=10)
    with pytest.raises(spec.InvalidInput, match=r"unexpected \(12\):\n    aux1\.conv\.weight \(128, 512, 1, 1\)"):
        spec.check_params(replace(config, aux=False), zeros(config))


# ------------------------------------------------------------------------------------------------ initial parameters


@pytest.fixture(scope="module")
def xavier():
    return spec.init_params(spec.preset("bvlc", num_classes=10), seed=0)


def assert_same(params, expected):
    assert list(params) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(params[name], value, err_msg=name)


SMALL = [name for name, config in spec.PRESETS.items() if spec.parameter_count(config) < 2e7]


@pytest.mark.parametrize("name", SMALL)
def test_initial_arrays_fit_the_network(name):
    config = spec.preset(name, num_classes=10)
    params = spec.init_params(config)
    assert {array: value.shape for array, value in params.items()} == spec.param_shapes(config)
    assert list(params) == list(spec.param_shapes(config))
    assert {value.dtype for value in params.values()} == {np.dtype(np.float64)}
    spec.check_params(config, params)


@pytest.mark.parametrize("scheme", spec.SCHEMES)
def test_the_seed_decides_the_weights(scheme):
    config = spec.preset("lenet")
    params = spec.init_params(config, seed=5, scheme=scheme)
    assert_same(spec.init_params(config, seed=5, scheme=scheme), params)
    other = spec.init_params(config, seed=6, scheme=scheme)
    for name in params:
        if name.endswith("weight"):
            assert not (params[name] == other[name]).any()


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_seeds_cover_64_bits(seed):
    spec.init_params(spec.preset("lenet"), seed=seed)


def test_arrays_of_one_shape_differ(xavier):
    assert not (xavier["inception5a.branch3x3.weight"] == xavier["inception4e.branch3x3.weight"]).any()


def test_without_heads_the_rest_starts_from_the_same_bits(xavier):
    rest = {name: value for name, value in xavier.items() if not name.startswith("aux")}
    assert_same(spec.init_params(spec.preset("bvlc", num_classes=10, aux=False), seed=0), rest)


def test_other_channels_change_only_the_first_layer(xavier):
    gray = spec.init_params(spec.preset("bvlc", num_classes=10, in_channels=1), seed=0)
    changed = {name for name, value in xavier.items() if not np.array_equal(gray[name], value)}
    assert changed == {"conv1.weight"}


def test_xavier_values_never_change(xavier):
    """A regression: whoever changes these changes where every framework starts."""
    expected = {
        "conv2.weight": [-0.0024227524921621147, -0.042555185486406376],
        "inception3a.branch1x1.weight": [-0.006643912721864215, 0.08458553640379339, -0.10439180960742996],
        "fc.weight": [-0.07460835924617196, -0.024217499407583765, 0.05237831585232795],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(xavier[name].ravel()[: len(values)], values, rtol=1e-15, err_msg=name)


@pytest.mark.parametrize(
    ("scheme", "first"),
    [
        ("torch", [-0.001978169126284494, -0.034746163450395995]),
        ("gluon", [-0.0033233241321579503, -0.058373554596665274]),
        ("flax", [0.02649535014574577, -0.04240725000942126]),
        ("caffe", [-0.003426289432688878, -0.06018212046417859]),
        ("he", [0.12361431781379356, -0.05275370893712357]),
    ],
)
def test_values_of_other_schemes_never_change(scheme, first):
    params = spec.init_params(spec.preset("d2l"), seed=0, scheme=scheme)
    np.testing.assert_allclose(params["conv2.weight"].ravel()[:2], first, rtol=1e-14)


UNIFORM_BOUNDS = {
    "xavier": lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)),
    "torch": lambda fan_in, fan_out: 1 / math.sqrt(fan_in),
    "gluon": lambda fan_in, fan_out: 0.07,
    "caffe": lambda fan_in, fan_out: math.sqrt(3 / fan_in),
}
FANS = {  # conv 64 -> 192 with 3 x 3, dense 2048 -> 1024, conv 832 -> 384 with 1 x 1
    "conv2.weight": (64 * 9, 192 * 9),
    "aux1.fc1.weight": (2048, 1024),
    "inception5b.branch1x1.weight": (832, 384),
}


@pytest.mark.parametrize("scheme", UNIFORM_BOUNDS)
def test_uniform_schemes_fill_their_bounds(scheme):
    """The largest of 1e5 values comes within 0.1 % of the bound, their deviation within 1 % of bound / sqrt(3)."""
    params = spec.init_params(spec.preset("bvlc", num_classes=10), seed=1, scheme=scheme)
    for name, fans in FANS.items():
        bound, weights = UNIFORM_BOUNDS[scheme](*fans), params[name]
        assert 0.999 * bound < weights.max() <= bound
        assert -bound <= weights.min() < -0.999 * bound
        assert weights.std() == pytest.approx(bound / math.sqrt(3), rel=0.01)
        assert abs(weights.mean()) < 0.02 * bound


@pytest.mark.parametrize(("scheme", "gain", "largest"), [("flax", 1, 2 / 0.87962566103423978), ("he", 2, math.inf)])
def test_normal_schemes_have_their_deviation(scheme, gain, largest):
    """Deviation sqrt(gain / fan_in); flax cuts at two deviations of the normal before the cut."""
    params = spec.init_params(spec.preset("bvlc", num_classes=10), seed=1, scheme=scheme)
    for name, (fan_in, _) in FANS.items():
        std, weights = math.sqrt(gain / fan_in), params[name]
        assert weights.std() == pytest.approx(std, rel=0.01)
        assert abs(weights.mean()) < 0.02 * std
        assert 0.999 * min(largest, 4) * std < np.abs(weights).max() <= largest * std


@pytest.mark.parametrize(
    ("scheme", "bound"), [("xavier", 0.0510), ("torch", 0.0417), ("gluon", 0.07), ("caffe", 0.0722)]
)
def test_bounds_are_those_measured_in_the_frameworks(scheme, bound):
    """Measured on a 3 x 3 convolution from 64 to 192 channels in PyTorch, Gluon, Flax and Caffe."""
    weights = spec.init_params(spec.preset("d2l"), seed=2, scheme=scheme)["conv2.weight"]
    assert np.abs(weights).max() == pytest.approx(bound, abs=6e-5)


@pytest.mark.parametrize("scheme", ["xavier", "gluon", "flax", "he"])
def test_biases_start_at_zero(scheme):
    params = spec.init_params(spec.preset("lenet"), scheme=scheme)
    assert not any(value.any() for name, value in params.items() if name.endswith(".bias"))


def test_biases_of_torch_are_drawn_like_its_weights():
    params = spec.init_params(spec.preset("bvlc", num_classes=10), scheme="torch")
    bias, bound = params["aux1.fc1.bias"], 1 / math.sqrt(2048)
    assert 0.99 * bound < np.abs(bias).max() <= bound
    assert bias.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_biases_of_caffe_are_a_fifth_except_the_classifiers():
    params = spec.init_params(spec.preset("bvlc", num_classes=10), scheme="caffe")
    zero = {name for name, value in params.items() if name.endswith(".bias") and (value == 0).all()}
    fifth = {name for name, value in params.items() if name.endswith(".bias") and (value == 0.2).all()}
    assert zero == {"fc.bias", "aux1.fc2.bias", "aux2.fc2.bias"}
    assert len(fifth) == 61


@pytest.mark.parametrize("scheme", spec.SCHEMES)
def test_batch_norm_starts_as_the_identity(scheme):
    params = spec.init_params(spec.preset("lenet-bn"), scheme=scheme)
    starts = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
    leaves = {name: starts[name.split(".")[-1]] for name in params if ".norm." in name}
    assert len(leaves) == 4 * 4
    assert all((params[name] == start).all() for name, start in leaves.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "zeros"}, "unknown initialization scheme 'zeros': expected one of xavier, torch, gluon, flax"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 2^64 - 1, got -1"),
        ({"seed": 2**64}, "seed: expected a whole number from 0 to 2^64 - 1, got 18446744073709551616"),
    ],
)
def test_init_params_refuses_unknown_schemes_and_seeds_out_of_range(arguments, message):
    with pytest.raises(spec.InvalidInput, match=re.escape(message)):
        spec.init_params(spec.preset("d2l"), **arguments)


def test_init_params_refuses_a_seed_that_is_not_whole():
    with pytest.raises(spec.InvalidInput, match="seed: expected a whole number"):
        spec.init_params(spec.preset("d2l"), seed=1.5)
