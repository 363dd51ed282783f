"""Layers that somebody wrote out by hand are read as what they are, and what only looks like one is not."""

from __future__ import annotations

import numpy as np
import pytest

from harness.check.graph import Activation, Graph, Input, Node, Recording, Scale, Unknown
from harness.check.readers.rewriting import Channels, ChannelSum, Power, Product, rewritten
from harness.check.readers.written_norm import read_norm
from spec.network import LRN, Add

ALPHA, SIZE, CHANNELS = 2e-4, 5, 8


def _read(*operations: tuple, channels: dict[int, int] | None = None) -> list[Node]:
    """The nodes, Input left out, of operations that each read the nodes of these numbers; 0 is the input."""
    nodes = [Node(Input(), (), "", (CHANNELS, 4, 4))]
    for number, (op, *reads) in enumerate(operations, 1):
        nodes.append(Node(op, tuple(reads), "", ((channels or {}).get(number, CHANNELS), 4, 4)))
    recording = Recording(Graph(tuple(nodes), (len(nodes) - 1,)), [], [np.zeros(i) for i in range(len(nodes))])
    made = rewritten(recording)
    assert len(made.samples) == len(made.graph.nodes)
    assert made.samples[-1].size == len(nodes) - 1
    return list(made.graph.nodes[1:])


def _slices(*starts: int, squares: object = None) -> tuple[list[tuple], dict[int, int]]:
    """Squares, zeros around them, and the sum of slices: as code for channels in the last axis has it."""
    operations: list[tuple] = [(squares or Power(exponent=2.0), 0), (Channels(start=-2), 1)]
    operations += [(Channels(start=start), 2) for start in starts]
    last = 3
    for number in range(4, 3 + len(starts)):
        operations.append((Add(activation=None), last, number))
        last = len(operations)
    operations += [(Scale(ALPHA / SIZE), last), (Scale(shift=2.0), last + 1), (Power(exponent=-0.75), last + 2)]
    return [*operations, (Product(), 0, last + 3)], {2: CHANNELS + 4}


def test_sum_of_slices_is_local_response_norm():
    operations, channels = _slices(*range(SIZE))
    (node,) = _read(*operations, channels=channels)
    assert node.reads == (0,)
    assert (node.op.size, node.op.beta, node.op.k) == (SIZE, 0.75, 2.0)
    assert node.op.alpha == pytest.approx(ALPHA)


@pytest.mark.parametrize("inverted", [True, False])
def test_pool_over_the_channels_is_local_response_norm(inverted):
    """x · x in place of a square, a factor before the sum, and a quotient."""
    total = ChannelSum(size=3, before=1, factor=1 / 3)
    power = Power(exponent=0.5 if inverted else -0.5)
    (node,) = _read(
        (Product(), 0, 0),
        (Scale(3e-4), 1),
        (total, 2),
        (Scale(shift=1.0), 3),
        (power, 4),
        (Product(inverted=inverted), 0, 5),
    )
    assert node.op == LRN(3, pytest.approx(3e-4), 0.5, 1.0)


@pytest.mark.parametrize(
    ("starts", "squares"),
    [
        pytest.param((1, 2, 3, 4), None, id="lopsided"),
        pytest.param((0, 1, 3, 4), None, id="a channel is missing"),
        pytest.param((1, 2, 2, 3), None, id="one counts twice"),
        pytest.param(range(5), Power(exponent=4.0), id="another power"),
    ],
)
def test_another_sum_is_not_understood(starts, squares):
    operations, channels = _slices(*starts, squares=squares)
    nodes = _read(*operations, channels=channels)
    assert not any(isinstance(node.op, LRN) for node in nodes)
    assert isinstance(nodes[-1].op, Unknown)


@pytest.mark.parametrize(
    "summed",
    [
        pytest.param([(Scale(ALPHA, 1.0), 1), (ChannelSum(size=3, before=1), 2)], id="no zeros around a number"),
        pytest.param([(Channels(start=1), 1), (Channels(start=-1), 2)], id="a channel is cut off"),
    ],
)
def test_zeros_are_counted_where_they_are(summed):
    end = [(Scale(shift=1.0), 3), (Power(exponent=-0.75), 4), (Product(), 0, 5)]
    nodes = _read((Power(exponent=2.0), 0), *summed, *end, channels={2: CHANNELS - isinstance(summed[0][0], Channels)})
    assert nodes[-1].op == Unknown(Product.name)


def test_gate_of_the_same_map_is_silu():
    (node,) = _read((Activation("sigmoid"), 0), (Product(), 1, 0))
    assert (node.op, node.reads) == (Activation("silu"), (0,))
    gate = _read((Activation("relu"), 0), (Activation("sigmoid"), 1), (Product(), 2, 0))
    assert gate[-1].op == Unknown(Product.name)


def test_factors_that_undo_each_other_are_none():
    halves = _read((Scale(0.3), 0), (Scale(1 / 0.3), 1))
    assert [node.op for node in halves] == [Scale()]
    shifted = _read((Scale(2.0, 1.0), 0), (Scale(3.0, 1.0), 1))
    assert [node.op for node in shifted] == [Scale(6.0, 4.0)]


def test_layers_that_nothing_depends_on_stay_and_unknown_operations_do_not():
    nodes = _read((Activation("relu"), 0), (Unknown("fft"), 0), (Activation("tanh"), 2), (Activation("sigmoid"), 0))
    assert [node.op.kind for node in nodes] == ["relu", "sigmoid"]


def test_numbers_that_are_not_by_channel_are_no_batch_norm():
    arrays = {"mean": np.full(3, 2.0), "var": np.full(3, 0.25)}
    assert read_norm(np.full(3, 2.0), np.full(3, -4.0), ["var"], ["mean"], arrays) == (
        0.0,
        {"mean": "mean", "var": "var"},
    )
    arrays["var"] = np.full(6, 0.25)
    assert read_norm(np.full(3, 2.0), np.full(3, -4.0), ["var"], ["mean"], arrays) is None
