"""What networks cost: against published counts, arithmetic by hand, and a count of what the referee really does."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support import googlenet
from tracing import trace

import spec
from harness.compare.sizes import COMPARED, FLOAT, PARTS, Part, depth, draw, measure, measure_all
from spec import reference
from spec.network import Block, Conv, Dense, named

DOCS = Path(__file__).parent.parent / "docs"


# ------------------------------------------------------------------------------------------- published, and by hand


@pytest.mark.parametrize(
    ("name", "parameters", "layers"),
    [
        ("lenet", 44_426, 5),
        ("alexnet", 46_764_746, 8),
        ("vgg11", 128_806_154, 11),
        ("vgg11-narrow", 29_815_850, 11),
        ("nin", 1_992_166, 12),
        ("d2l", 5_977_530, 22),
        ("bvlc", 6_998_552, 22),  # without its heads
        ("torchvision", 6_624_904, 22),
    ],
)
def test_parameters_and_depth_are_the_published_ones(name, parameters, layers):
    found = measure(spec.preset(name))
    assert found.total.parameters == parameters
    assert found.depth == depth(spec.preset(name)) == layers


def test_parts_of_lenet_cost_what_was_worked_out_by_hand():
    """28 -> 24 -> 12 -> 8 -> 4 pixels; 6 and 16 channels; 120, 84 and 10 values."""
    found = measure(spec.preset("lenet")).parts
    convolutions = (6 * 25 + 6) + (16 * 6 * 25 + 16)
    dense = (256 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
    assert found == {
        "convolutions": Part(
            convolutions, 25 * 6 * 24**2 + 6 * 25 * 16 * 8**2, 4 * convolutions, 4 * (6 * 24**2 + 16 * 8**2)
        ),
        "dense layers": Part(dense, 256 * 120 + 120 * 84 + 84 * 10, 4 * dense, 4 * (120 + 84 + 10)),
        "pools": Part(0, 0, 0, 4 * (6 * 12**2 + 16 * 4**2)),
    }


def test_blocks_of_nin_have_the_published_parameter_counts():
    costs = spec.layer_costs(spec.preset("nin"), (1, 224, 224))
    blocks = [sum(cost.parameters for name, cost in costs.items() if name.startswith(f"conv{i}")) for i in range(1, 5)]
    assert blocks == [30_336, 746_240, 1_180_800, 34_790]
    found = measure(spec.preset("nin"))
    assert found.parts["convolutions"].parameters == sum(blocks)
    assert found.parts["dense layers"] == Part()


def test_the_pool_inside_an_inception_block_counts():
    """At 1 x 1 pixel every map is one value a channel."""
    config = spec.preset("d2l")
    between = 64 + 192 + 480 + 832 + 1024  # pool1 to pool5
    inside = sum(node.into[0] for node in spec.walk(config) if node.name.endswith(".pool"))
    assert measure(config, 1).parts["pools"].activation_bytes == FLOAT * (between + inside)


def test_running_statistics_are_stored_and_not_trained():
    plain, normed, frozen = (measure(spec.preset(name)).total for name in ("lenet", "lenet-bn", "lenet-bn-frozen"))
    channels = 6 + 16 + 120 + 84
    assert normed.parameters - plain.parameters == 2 * channels
    assert frozen.parameters == plain.parameters
    assert [x.weight_bytes - plain.weight_bytes for x in (normed, frozen)] == [4 * 4 * channels, 4 * 2 * channels]
    assert normed.activation_bytes == plain.activation_bytes


# --------------------------------------------------------------------------------------------- against the referee


@pytest.mark.parametrize("name", spec.PRESETS)
def test_the_referee_does_what_was_counted(name):
    config = spec.preset(name, aux=False)
    size = spec.minimum_input_size(config)
    seen, found = trace(config, size), measure(spec.preset(name), size)
    assert found.depth == seen.depth
    assert found.total.multiply_adds == seen.multiply_adds
    assert found.total.activation_bytes == FLOAT * seen.outputs
    arrays = spec.param_shapes(config).values()
    assert found.total.weight_bytes == FLOAT * sum(math.prod(shape) for shape in arrays)


@pytest.mark.parametrize("name", spec.PRESETS)
def test_parts_make_up_the_whole(name):
    config = spec.preset(name, aux=False)
    found = measure(config)
    assert tuple(found.parts) == PARTS
    assert found.total == tuple(sum(column) for column in zip(*found.parts.values(), strict=True))
    assert found.total.parameters == spec.parameter_count(config)
    assert not any(found.parts["pools"][:3])


def test_heads_are_left_out():
    assert measure(spec.preset("bvlc")) == measure(spec.preset("bvlc", aux=False))
    assert depth(spec.preset("bvlc")) == 22


def test_a_shorter_sequence_is_less_deep():
    config = spec.preset("nin")
    shorter = replace(config, table=tuple((name, op) for name, op in config.table if name != "conv3_mlp1"))
    assert depth(shorter) == 11


def test_the_longest_chain_of_a_block_counts_whatever_its_layers_are_called():
    """A convolution, a block whose longest branch is a chain of three, and a classifier: five layers deep.

    No name ends in `_reduce` but that of a layer which no other one reads.
    """
    block = Block(
        (
            named(wide_reduce=Conv(2)),
            named(first=Conv(3), second=Conv(3, 3, pad=1), third=Conv(4, 3, pad=1)),
            named(narrow=Conv(2)),
        )
    )
    rows = named(stem=Conv(8, 3, pad=1), block=block, fc=Dense(None))
    shape = {"in_channels": 3, "num_classes": 10, "input_size": 8}
    assert depth(spec.Config(preset="toy", family="Toy", source="", table=rows, **shape)) == 5


# ------------------------------------------------------------------------------------------------- sizes of images


@pytest.mark.parametrize(("name", "low", "high"), [("lenet", 28, 31), ("nin", 67, None), ("bvlc", 31, None)])
def test_sizes_of_images_are_those_that_fit_without_heads(name, low, high):
    config = spec.preset(name)
    assert measure(config, low).fitting == (low, high, None)
    with pytest.raises(spec.InvalidInput, match=f"cannot take {low - 1} x {low - 1} pixels"):
        measure(config, low - 1)


@pytest.mark.parametrize("name", ["lenet", "nin"])
def test_the_referee_takes_the_smallest_image(name):
    config = spec.preset(name)
    size = spec.minimum_input_size(config)
    assert reference.predict(config, spec.init_params(config), np.ones((1, 1, size, size))).shape == (1, 10)


# ----------------------------------------------------------------------------------------------------- the verb


def rows(*arguments: str) -> list[dict]:
    return json.loads(googlenet("sizes", *arguments, "--json").stdout)


def test_json_has_every_figure_of_every_network():
    found = rows()
    assert [row["preset"] for row in found] == list(COMPARED)
    alexnet = found[1]
    assert {key: value for key, value in alexnet.items() if key != "parts"} == {
        "preset": "alexnet",
        "input": [1, 224, 224],
        "classes": 10,
        "minimum_input_size": 193,
        "maximum_input_size": 224,
        "sizes_repeat_every": None,
        "depth": 8,
        "parameters": 46_764_746,
        "multiply_adds": 938_146_176,
        "weight_bytes": 4 * 46_764_746,
        "activation_bytes": measure(spec.preset("alexnet")).total.activation_bytes,
    }
    assert alexnet["parts"]["dense layers"]["parameters"] == 6401 * 4096 + 4097 * 4096 + 4097 * 10
    for row in found:
        for key in Part._fields:
            assert row[key] == sum(part[key] for part in row["parts"].values())


def test_larger_images_cost_more_and_weigh_the_same():
    small, large = (rows("nin", "d2l", "--size", size) for size in ("96", "224"))
    assert [row["input"] for row in large] == [[1, 224, 224]] * 2
    assert large[1]["multiply_adds"] == 1_502_982_144
    assert small[1] == rows("d2l")[0]
    for a, b in zip(small, large, strict=True):
        assert a["parameters"] == b["parameters"]
        assert a["activation_bytes"] < b["activation_bytes"]


def test_all_is_every_preset_and_a_name_counts_once():
    assert [row["preset"] for row in rows("all")] == list(spec.PRESETS)
    assert [row["preset"] for row in rows("nin", "lenet", "nin")] == ["nin", "lenet"]


def test_the_table_has_a_row_for_each_part_that_there_is():
    lines = [line.split() for line in googlenet("sizes", "lenet", "nin").stdout.splitlines()]
    assert lines[1] == "lenet 28 28 to 31 5 44,426 281,640 177.7 kB 23.3 kB".split()
    assert [line[0] for line in lines] == ["network", "lenet", "convolutions", "dense", "pools", "nin", *PARTS[::2]]
    assert lines[5][:7] == "nin 224 67 or more 12 1,992,166".split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vgg"], "unknown preset 'vgg': expected one of d2l"),
        (["all", "nin"], "unknown preset 'all'"),
        (
            ["--size", "96"],
            "--size 96: expected a size that every network takes, but lenet takes 28 to 31 pixels; alexnet takes "
            "193 to 224 pixels; vgg11 takes 224 to 255 pixels; vgg11-narrow takes 224 to 255 pixels",
        ),
        (["nin", "d2l", "--size", "0"], "nin takes 67 or more pixels; d2l takes 1 or more pixels"),
        (["nin", "--plot", "sizes.xyz"], "sizes.xyz: expected a name that ends in one of "),
        (["nin", "--plot", "sizes"], "sizes: expected a name that ends in one of "),
        (["nin", "--plot", "nowhere/sizes.png"], "sizes.png: there is no folder nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_clear_error_and_leaves_nothing(arguments, message, tmp_path):
    done = googlenet("sizes", *arguments, status=2, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not done.stdout
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------- the picture


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), dtype=float)


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")])
def test_the_suffix_is_the_format(suffix, start, tmp_path):
    path = tmp_path / f"sizes.{suffix}"
    googlenet("sizes", "nin", "--plot", str(path))
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_picture_shows_every_part_in_its_color(tmp_path):
    draw(measure_all([]), tmp_path / "sizes.png")
    picture = pixels(tmp_path / "sizes.png")
    height, width, _ = picture.shape
    assert 800 < width < 2000
    assert 300 < height < 1000
    for color in ([0x56, 0xB4, 0xE9], [0xD5, 0x5E, 0x00], [0xDD, 0xDD, 0xDD]):
        assert (np.abs(picture - color).max(-1) < 3).sum() > 1000


def test_bars_are_as_long_as_what_they_show(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *rest, **options: figures.append(figure))
    found = measure_all(["lenet", "nin"])
    draw(found, tmp_path / "sizes.png")
    for axis, what in zip(figures[0].axes, ("parameters", "multiply_adds", "activation_bytes"), strict=True):
        for i, sizes in enumerate(found):
            bars = [container.patches[i] for container in axis.containers]
            widths = [bar.get_width() for bar in bars]
            assert widths == [getattr(part, what) for part in sizes.parts.values()]
            assert [bar.get_x() for bar in bars] == [sum(widths[:j]) for j in range(3)]
        assert [text.get_text() for text in axis.texts] == {
            "parameters": ["44.4 thousand, 94.2% dense", "2.0 million, 0.0% dense"],
            "multiply_adds": ["281.6 thousand", "762.3 million"],
            "activation_bytes": ["23.3 kB", "6.5 MB"],
        }[what]


# ----------------------------------------------------------------------------------------------------- the docs


PAGE = (DOCS / "sizes.md").read_text()
SHOWN = re.search(r"^\$ googlenet sizes (.*--plot sizes\.png)$", PAGE, re.MULTILINE)[1].split()


def test_the_documents_table_is_what_the_command_prints():
    table = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1]
    printed = googlenet("sizes", *SHOWN[:-2]).stdout  # without the picture, which is the next test's
    assert [line.rstrip() for line in printed.splitlines()] == table.splitlines()


@pytest.mark.slow
def test_the_documents_picture_is_what_the_command_draws(tmp_path):
    """A single bar of another length would show."""
    googlenet("sizes", *SHOWN, cwd=tmp_path)
    found = measure_all(SHOWN[:5], 224)
    nin = found[3]
    doubled = nin.parts["convolutions"]._replace(multiply_adds=2 * nin.total.multiply_adds)
    found[3] = replace(nin, parts={**nin.parts, "convolutions": doubled})
    draw(found, tmp_path / "other.png")
    committed, drawn, other = map(pixels, (DOCS / "sizes.png", tmp_path / "sizes.png", tmp_path / "other.png"))
    assert committed.shape == drawn.shape
    assert np.abs(committed - drawn).mean() < 0.05 < np.abs(committed - other).mean()
