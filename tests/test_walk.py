"""The walk through a table, and what no preset has of it: residuals, windows that are not square, padding on one side.

Every network here is a small table of its own.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import spec
from harness.bench.analysis.roofline import work
from spec import reference
from spec.network import (
    CLASSES,
    Add,
    AveragePool,
    BatchNorm,
    Block,
    Concat,
    Conv,
    Dense,
    GlobalAverage,
    Head,
    MaxPool,
    Residual,
    named,
)
from spec.shapes import find_misfit


def network(*rows, **settings):
    shape = {"in_channels": 2, "num_classes": 3, "input_size": 7}
    return spec.Config(
        **{"preset": "small", "family": "Small", "source": "tests"} | shape | settings, table=rows, aux=True
    )


BRANCHES = (
    named(left=Conv(3)),
    named(narrow=Conv(2), right=Conv(5, 3, pad=1)),
    named(pool=MaxPool(3, stride=1, pad=1)),
)
CONFIG = network(
    ("stem", Conv(4, 3, pad=1)),
    ("block", Block(BRANCHES)),
    ("sum", Residual(named(one=Conv(6), two=Conv(12, activation=None)), scale=0.5, activation="sigmoid")),
    ("aux", Head(named(conv=Conv(12), fc=Dense(CLASSES, activation=None, drop_input=True)))),
    ("last", Conv(CLASSES, norm=False, drop_input=True)),
    ("mean", GlobalAverage()),
    batch_norm=BatchNorm(),
    dropout=0.25,
    aux_dropout=0.75,
)
NODES = spec.nodes(CONFIG)

# ----------------------------------------------------------------------------------------------------------- the walk


def test_every_operation_has_its_name_and_reads_the_one_before_it():
    """In forward order; branches read the same, a head what the trunk goes on with, a sum what its chain reads too."""
    assert [(node.name, node.reads) for node in spec.walk(CONFIG)] == [
        ("stem", ("images",)),
        ("block.left", ("stem",)),
        ("block.narrow", ("stem",)),
        ("block.right", ("block.narrow",)),
        ("block.pool", ("stem",)),
        ("block", ("block.left", "block.right", "block.pool")),
        ("sum.one", ("block",)),
        ("sum.two", ("sum.one",)),
        ("sum", ("block", "sum.two")),
        ("aux.conv", ("sum",)),
        ("aux.fc", ("aux.conv",)),
        ("last", ("sum",)),
        ("mean", ("last",)),
    ]
    assert {node.stage for node in NODES.values() if node.in_head} == {"aux"}


def test_parts_within_parts_have_the_stage_before_their_names():
    inner = Block((named(a=Conv(2)), named(b=Conv(3))))
    config = network(("sum", Residual(named(joined=inner, up=Conv(2, activation=None)))))
    assert [(node.name, node.stage, node.reads) for node in spec.walk(config)] == [
        ("sum.a", "sum", ("images",)),
        ("sum.b", "sum", ("images",)),
        ("sum.joined", "sum", ("sum.a", "sum.b")),
        ("sum.up", "sum", ("sum.joined",)),
        ("sum", "sum", ("images", "sum.up")),
    ]


def test_a_block_has_the_channels_of_all_its_branches():
    assert isinstance(NODES["block"].op, Concat)
    assert {name: NODES[name].out for name in ("block.pool", "block", "sum", "aux.fc", "last", "mean")} == {
        "block.pool": (4, 7, 7),
        "block": (12, 7, 7),
        "sum": (12, 7, 7),
        "aux.fc": (3,),
        "last": (3, 7, 7),
        "mean": (3,),
    }
    assert NODES["aux.fc"].in_channels == 12 * 7 * 7


def test_a_sum_has_the_scale_and_the_activation_of_its_residual():
    assert NODES["sum"].op == Add(0.5, "sigmoid")


def test_heads_drop_a_fraction_of_their_own():
    assert {name: node.dropout for name, node in NODES.items() if node.dropout is not None} == {
        "aux.fc": 0.75,
        "last": 0.25,
    }


def test_batch_norm_takes_the_bias_where_the_table_has_it():
    normed = {"stem", "block.left", "block.narrow", "block.right", "sum.one", "sum.two", "aux.conv"}
    assert {name for name, node in NODES.items() if node.norm} == normed
    assert {name for name, node in NODES.items() if node.has_bias} == {"aux.fc", "last"}


ODD = Conv(4, (1, 3), stride=(3, 2), pad=((0, 1), (2, 0)))  # everything differs between the axes, and the sides


def test_height_and_width_have_numbers_of_their_own():
    (node,) = spec.walk(network(("odd", ODD)), (2, 9, 10))
    assert node.out == (4, (9 + 1 - 1) // 3 + 1, (10 + 2 - 3) // 2 + 1)
    assert node.weight_shape == (4, 2, 1, 3)
    assert (node.op.sides, node.op.strides, node.op.pads) == ((1, 3), (3, 2), ((0, 1), (2, 0)))
    assert Conv(4, 3, pad=1).pads == ((1, 1), (1, 1))
    assert Conv(4, 3, pad=(0, 1)).pads == ((0, 0), (1, 1))


def test_pads_that_differ_are_refused_where_a_framework_cannot_have_them():
    assert Conv(4, 3, pad=(0, 1)).symmetric_pads == (0, 1)
    for pad in (((0, 1), (2, 2)), ((1, 1), (2, 0))):
        with pytest.raises(spec.InvalidInput, match="needs as much above as below, and left as right"):
            _ = Conv(4, 3, pad=pad).symmetric_pads


# ------------------------------------------------------------------------------------------------------ what fits


def test_a_block_whose_branches_end_in_different_sizes_is_refused():
    """A convolution rounds down what the pool beside it rounds up: at even sizes."""
    branches = named(conv=Conv(3, 3, stride=2)), named(pool=MaxPool(3, stride=2, ceil=True))
    config = network(("block", Block(branches)), ("mean", GlobalAverage()))
    assert spec.stage_shapes(config, (2, 9, 7))["block"] == (5, 4, 3)
    with pytest.raises(spec.InvalidInput, match=r"the branches of block end in maps of 3 x 3, 4 x 4"):
        spec.stage_shapes(config, (2, 8, 8))


def test_a_residual_whose_chain_changes_the_shape_is_refused():
    config = network(("sum", Residual(named(conv=Conv(2, 3)))), ("mean", GlobalAverage()))
    assert find_misfit(config, (2, 8, 8)) == ("sum adds maps of (2, 6, 6) and (2, 8, 8)", False)


def test_a_network_that_takes_no_image_says_so():
    branches = named(conv=Conv(3, 3)), named(pool=MaxPool(2, stride=1))
    config = network(("block", Block(branches)), ("mean", GlobalAverage()))
    with pytest.raises(spec.InvalidInput, match="takes no square image of up to 2048 pixels a side"):
        spec.stage_shapes(config, (2, 8, 8))


def test_a_misfit_of_the_trunk_comes_before_that_of_a_head():
    assert find_misfit(CONFIG, (2, 7, 7)) is None
    assert find_misfit(CONFIG, (2, 7, 8)) == ("the dense layer aux.fc needs maps of 7 x 7 and gets 7 x 8", True)
    too_large = ("wide", Conv(3, 9))  # nothing is left of 7 pixels, after a head that takes no others
    config = network(CONFIG.table[3], too_large, ("mean", GlobalAverage()))
    assert find_misfit(config, (2, 8, 8)) == ("nothing is left at wide", False)


# ----------------------------------------------------------------------------------------------------- the referee


def noise(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def windows(x, op, outside):
    """Every window of x with so much around it: what overlaps nothing else, at [row][column]."""
    (above, _), (left, _) = op.pads
    (height, width), (down, across) = op.sides, op.strides
    far = np.full((*x.shape[:2], 40, 40), outside, float)
    far[:, :, 10 : 10 + x.shape[2], 10 : 10 + x.shape[3]] = x
    rows, columns = op.output_sizes(x.shape[1:])
    tops, lefts = (
        range(10 - above, 10 - above + down * rows, down),
        range(10 - left, 10 - left + across * columns, across),
    )
    return [[far[:, :, i : i + height, j : j + width] for j in lefts] for i in tops]


def assembled(x, op, outside, value):
    """(N, ?, rows, columns) of a function of windows."""
    return np.stack([np.stack([value(w) for w in row], -1) for row in windows(x, op, outside)], -2)


def differences(f, x, dy):
    """Central differences of dy · f(x)."""
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-5
        found[place] = np.vdot(f(x + step) - f(x - step), dy) / 2e-5
    return found


def test_a_convolution_goes_its_own_way_down_and_across():
    x, w = noise(2, 2, 7, 6), noise(4, 2, 1, 3)
    y, back = reference.convolution(x, w, None, ODD.stride, ODD.pad)
    expected = assembled(x, ODD, 0, lambda window: np.einsum("nchw,ochw->no", window, w))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    dy = noise(*y.shape)
    dx, dw, _ = back(dy)
    computed = {
        "x": (dx, differences(lambda x: reference.convolution(x, w, None, ODD.stride, ODD.pad)[0], x, dy)),
        "w": (dw, differences(lambda w: reference.convolution(x, w, None, ODD.stride, ODD.pad)[0], w, dy)),
    }
    for gradient, expected in computed.values():
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


POOLS = {
    "down": MaxPool((2, 3), stride=(3, 1), pad=((1, 0), (0, 2))),
    "up": MaxPool((3, 2), stride=(2, 3), pad=((0, 1), (1, 0)), ceil=True),
}


@pytest.mark.parametrize("rounding", POOLS)
def test_a_max_pool_goes_its_own_way_down_and_across(rounding):
    op = POOLS[rounding]
    x = np.random.default_rng(0).permutation(1.0 * np.arange(2 * 2 * 6 * 7)).reshape(2, 2, 6, 7)  # no ties
    y, back = reference.max_pool(x, op)
    np.testing.assert_array_equal(y, assembled(x, op, -np.inf, lambda window: window.max((2, 3))))
    dy = noise(*y.shape)
    expected = differences(lambda x: reference.max_pool(x, op)[0], x, dy)
    np.testing.assert_allclose(back(dy), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count_pad", [True, False])
def test_an_average_pool_counts_its_padding_or_not(count_pad):
    op = AveragePool((2, 3), stride=(1, 2), pad=((1, 0), (1, 2)), count_pad=count_pad)
    config = network(("pool", op), ("mean", GlobalAverage()))
    images = noise(2, 2, 6, 7)
    mean = {True: lambda window: np.nan_to_num(window).mean((2, 3)), False: lambda window: np.nanmean(window, (2, 3))}
    expected = assembled(images, op, np.nan, mean[count_pad])
    got = reference.activations(config, {}, images)["pool"]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@cache
def params():
    drawn = spec.init_params(CONFIG, 0)
    moved = {name: x + 0.1 * noise(*x.shape) if x.ndim == 1 else x for name, x in drawn.items()}
    return moved | {name: abs(x) + 0.1 for name, x in moved.items() if name.endswith("running_var")}


IMAGES, LABELS = noise(3, 2, 7, 7), np.array([0, 2, 1])


def test_a_residual_adds_its_scaled_chain_to_what_the_chain_reads():
    inner = network(*NODES_OF_SUM, in_channels=12, batch_norm=CONFIG.batch_norm)
    stages = reference.activations(CONFIG, params(), IMAGES)
    own = {name.removeprefix("sum."): x for name, x in params().items() if name.startswith("sum.")}
    chain = reference.activations(inner, own, stages["block"])["two"]
    np.testing.assert_allclose(stages["sum"], 1 / (1 + np.exp(-stages["block"] - 0.5 * chain)), rtol=1e-12)


NODES_OF_SUM = dict(CONFIG.table)["sum"].chain


def test_a_block_joins_its_branches_in_the_order_of_the_table():
    stages = reference.activations(CONFIG, params(), IMAGES)
    pooled = reference.max_pool(stages["stem"], NODES["block.pool"].op)[0]
    np.testing.assert_array_equal(stages["block"][:, 8:], pooled)
    left = network(*BRANCHES[0], in_channels=4, batch_norm=CONFIG.batch_norm)
    own = {name.removeprefix("block."): x for name, x in params().items() if name.startswith("block.left.")}
    first = reference.activations(left, own, stages["stem"])["left"]
    np.testing.assert_allclose(stages["block"][:, :3], first, rtol=1e-12)


@pytest.mark.parametrize("stage", ["stem", "block", "sum", "aux", "last"])
def test_gradients_of_a_stage_are_central_differences(stage):
    """Along one direction over all of the stage's arrays: through a sum, branches, a head and dropout."""
    masks = spec.dropout_masks(CONFIG, IMAGES.shape, 0, 0)
    grads = reference.loss_and_grads(CONFIG, params(), IMAGES, LABELS, masks).grads
    direction = {name: noise(*x.shape) for name, x in grads.items() if name.split(".")[0] == stage}

    def loss(step):
        moved = {name: params()[name] + step * along for name, along in direction.items()}
        return reference.loss_and_grads(CONFIG, params() | moved, IMAGES, LABELS, masks).loss

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert sum(np.vdot(grads[name], along) for name, along in direction.items()) == pytest.approx(slope, rel=1e-5)


# ---------------------------------------------------------------------------------------------------------- costs


def test_a_sum_moves_both_that_it_reads():
    whole, chain = (network(("sum", row), ("mean", GlobalAverage())) for row in (Residual(named(one=Conv(2))), Conv(2)))
    moved = [work(config, 7, "infer", 1, "float32").bytes for config in (whole, chain)]
    assert moved[0] - moved[1] == 4 * 3 * 2 * 7 * 7
