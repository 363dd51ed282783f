"""Every operation of every backend, forward and backward, against the referee's on a few hundred numbers.

A fault in one operation is found here, in a fraction of a second and by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from networks import thin, with_stages
from operations import ADAPTERS, QUICKLY, Result, Stage, draw, in_referee, register, small
from support import NOT_QUICK_IN_JAX, TESTED, loaded

import spec
from harness.agreement import relative_error, relative_errors
from spec import reference
from spec.googlenet import BRANCH_POOL, STAGE_POOL
from spec.network import LRN, AveragePool, BatchNorm, Conv, Dense, GlobalAverage, MaxPool
from spec.tolerances import TOLERANCES

# -------------------------------------------------------------------------------------------------------- the table


class Case(NamedTuple):
    """An operation in one setting."""

    operation: str
    setting: str
    make: Callable[..., Stage]  # of a dtype

    def __str__(self) -> str:
        return f"{self.operation} {self.setting}".replace(" ", "-")


def of(operation: str, setting: str, config: spec.Config, name: str, *shape: int, **how: Any) -> Case:
    """A stage of a network, on two images' values of that (channels, height, width)."""
    return Case(operation, setting, partial(draw, config, name, (2, *shape), **how))


def conv(kernel: int, stride: int, pad: int, height: int, width: int, activation: str | None = "relu") -> Case:
    setting = f"{kernel}x{kernel} stride {stride} pad {pad} on {height}x{width} {activation or 'bare'}"
    config = small(Conv(4, kernel, stride, pad, activation=activation), 3)
    return of("convolution", setting, config, "one", 3, height, width)


def pool(window: MaxPool, height: int, width: int) -> Case:
    """Of whole numbers, of which most tie."""
    k, ends = window.kernel, "ceiling" if window.ceil else "floor"
    setting = f"{k}x{k} stride {window.stride} pad {window.pad} {ends} on {height}x{width}"
    return of("max pool", setting, small(window, 3), "one", 3, height, width, whole=True)


def norm(setting: str, op: Conv | Dense, settings: BatchNorm, training: bool = True) -> Case:
    mode = "training" if training else "inference"
    config = small(op, 3, 4, batch_norm=settings)
    return Case("batch norm", f"{setting} {mode}", partial(draw, config, "one", (4, 3, 4, 4), training=training))


CEIL = MaxPool(3, 2, ceil=True)
# Max pools that round up, heads with the paper's pool; the average before the classifier is that of the whole map.
NORM = LRN(size=5, alpha=0.5, beta=0.6, k=2.0)
CAFFE = with_stages(thin("bvlc"), norm1=NORM, norm2=NORM)
# Batch norm, a pool4 of its own, 3x3 in the "5x5" branch, heads with an adaptive pool; and from other presets no ReLU
# in stage 2, and an average over 7x7 pixels.
NORMED = with_stages(
    thin("torchvision"),
    conv2_reduce=Conv(64, activation=None),
    conv2=Conv(192, 3, pad=1, activation=None),
    pool5=AveragePool(7, stride=7),
)
BLOCKS = ("inception3b", "inception4a", "inception4d", "inception5b")
WIDTHS = [spec.nodes(CAFFE)[name].out_channels for name in BLOCKS]
INTO_4A, INTO_AUX1, INTO_AUX2, INTO_FC = WIDTHS
LIBRARY = BatchNorm(epsilon=0.02, momentum=0.3, after_bias=True)
FROZEN = replace(LIBRARY, scale=False, shift=False)
SHIFTED = replace(LIBRARY, scale=False)
BIASED = replace(LIBRARY, unbiased=False)
NOTEBOOK = replace(FROZEN, momentum=1.0, unbiased=False)
MAPS, VALUES = Conv(4, 3, pad=1), Dense(6, norm=True)
DROPPING_MAPS = small(replace(MAPS, drop_input=True), 3, dropout=0.3)
DROPPING_VALUES = small(replace(VALUES, drop_input=True), 12, 1, dropout=0.3)
FORWARD = {"training": False}  # alone: what goes back is the same as in another case

CASES = [
    # Kernel, stride and padding of every network; height and width.
    conv(3, 1, 1, 7, 9),
    conv(1, 1, 0, 7, 9),
    conv(5, 1, 2, 7, 9),
    conv(5, 1, 0, 7, 9),
    conv(7, 2, 3, 9, 14),
    conv(11, 4, 1, 16, 13),
    conv(11, 4, 0, 13, 16),
    # Kernels that are not square.
    of("convolution", "1x7 on 5x9", small(Conv(4, (1, 7), pad=(0, 3)), 3), "one", 3, 5, 9),
    of("convolution", "7x1 on 5x9", small(Conv(4, (7, 1), pad=(3, 0)), 3), "one", 3, 5, 9),
    of("convolution", "3x1 stride 2x1 on 5x4", small(Conv(4, (3, 1), (2, 1), (1, 0)), 3), "one", 3, 5, 4),
    # Maps smaller than the kernel.
    conv(3, 1, 1, 1, 2),
    conv(5, 1, 2, 2, 3),
    conv(5, 1, 2, 2, 9),
    conv(7, 2, 3, 3, 2),
    conv(3, 1, 1, 7, 9, "sigmoid"),
    conv(3, 1, 1, 7, 9, None),
    of("convolution", "then relu at exactly 0", small(MAPS, 3), "one", 3, 3, 4, whole=True),
    of("convolution", "conv1", CAFFE, "conv1", 3, 9, 14),
    of("convolution", "conv2 reduce", CAFFE, "conv2_reduce", 64, 3, 4, **FORWARD),
    of("convolution", "conv2", CAFFE, "conv2", 64, 3, 4, **FORWARD),
    of("convolution", "conv2 reduce without relu", NORMED, "conv2_reduce", 64, 3, 4, **FORWARD),
    of("convolution", "conv2 without relu", NORMED, "conv2", 64, 3, 4, **FORWARD),
    of("dense", "on values", small(VALUES, 12, 1), "one", 12),
    of("dense", "on a map as channels height width", small(VALUES, 3, 4), "one", 3, 2, 8),
    of("dense", "then sigmoid", small(Dense(6, activation="sigmoid"), 12, 1), "one", 12),
    of("dense", "then relu at exactly 0", small(VALUES, 12, 1), "one", 12, whole=True),
    pool(STAGE_POOL, 7, 9),
    pool(STAGE_POOL, 6, 8),
    pool(STAGE_POOL, 1, 1),
    pool(BRANCH_POOL, 5, 7),
    pool(BRANCH_POOL, 1, 2),
    pool(CEIL, 6, 8),
    pool(CEIL, 2, 5),
    pool(MaxPool(3, 2), 6, 7),
    pool(MaxPool(2, 2), 6, 7),
    pool(MaxPool(2, 2, ceil=True), 6, 7),
    pool(MaxPool(2, 2, ceil=True), 1, 1),
    of("max pool", "pool1", NORMED, "pool1", 3, 7, 8, **FORWARD),
    of("max pool", "pool4", NORMED, "pool4", 3, 7, 8, **FORWARD),
    of("local response norm", "over 12 channels", CAFFE, "norm1", 12, 3, 4),
    of("local response norm", "over 2 channels", CAFFE, "norm2", 2, 3, 4, **FORWARD),
    norm("of maps", MAPS, LIBRARY),
    norm("of maps", MAPS, LIBRARY, training=False),
    norm("of maps not affine", MAPS, FROZEN),
    norm("of maps without scale", MAPS, SHIFTED),
    norm("of maps without scale", MAPS, SHIFTED, training=False),
    norm("of maps biased", MAPS, BIASED),
    norm("of maps biased", MAPS, BIASED, training=False),
    norm("of maps biased not affine", MAPS, NOTEBOOK),
    norm("of values", VALUES, LIBRARY),
    norm("of values", VALUES, LIBRARY, training=False),
    norm("of values biased", VALUES, BIASED),
    norm("of values biased", VALUES, BIASED, training=False),
    of("batch norm", "conv1 training", NORMED, "conv1", 3, 7, 9),
    of("dropout", "of maps", DROPPING_MAPS, "one", 3, 5, 6, dropout=True),
    of("dropout", "of maps inference", DROPPING_MAPS, "one", 3, 5, 6, **FORWARD),
    of("dropout", "of values", DROPPING_VALUES, "one", 12, dropout=True),
    of("dropout", "of values inference", DROPPING_VALUES, "one", 12, **FORWARD),
    of("dropout", "before the classifier", CAFFE, "fc", INTO_FC, 1, 1, dropout=True),
    of("dropout", "before the classifier inference", CAFFE, "fc", INTO_FC, 1, 1, **FORWARD),
    of("average", "of the whole map", CAFFE, "pool5", 12, 5, 7),
    of("average", "of the whole map in a sequence", small(GlobalAverage(), 3), "one", 3, 5, 7),
    of("average", "of 7x7 pixels", NORMED, "pool5", 12, 7, 7),
    of("average", "of 7x7 pixels of 15x8", NORMED, "pool5", 12, 15, 8, **FORWARD),
    of("average", "3x3 with its padding", small(AveragePool(3, 1, pad=1), 3), "one", 3, 5, 7),
    of("average", "3x3 without its padding", small(AveragePool(3, 1, pad=1, count_pad=False), 3), "one", 3, 5, 7),
    of("average", "2x3 stride 2x1", small(AveragePool((2, 3), (2, 1)), 3), "one", 3, 5, 7),
    of("max pool", "3x2 stride 2x1", small(MaxPool((3, 2), (2, 1), (1, 0)), 3), "one", 3, 5, 7, whole=True),
    of("Inception", "on 5x6", CAFFE, "inception4a", INTO_4A, 5, 6),
    of("Inception", "with batch norm training", NORMED, "inception4a", INTO_4A, 3, 4),
    of("Inception", "with batch norm inference", NORMED, "inception4a", INTO_4A, 3, 4, **FORWARD),
    of("head", "on 14x14", CAFFE, "aux1", INTO_AUX1, 14, 14, dropout=True),
    of("head", "on 16x15 inference", CAFFE, "aux2", INTO_AUX2, 16, 15, **FORWARD),
    of("head", "adaptive on 7x9", NORMED, "aux1", INTO_AUX1, 7, 9, dropout=True),
    of("head", "adaptive on 14x14 inference", NORMED, "aux2", INTO_AUX2, 14, 14, **FORWARD),
    of("head", "adaptive on 1x3 inference", NORMED, "aux1", INTO_AUX1, 1, 3, **FORWARD),
]
ONCE = [next(case for case in CASES if case.operation == name) for name in dict.fromkeys(c.operation for c in CASES)]


def _faults(got: Result, expected: Result, dtype: str) -> dict[str, float]:
    """What is further from the referee's than rounding takes it, and how far."""
    bounds = TOLERANCES[dtype]
    found = {"y": (relative_error(got.y, expected.y), bounds.activations)}
    for moved, ours, bound in (
        (got.gradients, expected.gradients, bounds.gradients),
        (got.statistics, expected.statistics, bounds.step),
    ):
        errors = relative_errors(moved, ours) if ours or moved else {}
        found |= {name: (error, bound) for name, error in errors.items()}
    return {name: error for name, (error, bound) in found.items() if error > bound}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_operation_is_the_referees(case, backend):
    _assert_is_the_referees(case, "float64", backend)


@pytest.mark.parametrize("case", ONCE, ids=str)
@NOT_QUICK_IN_JAX
def test_the_operation_is_the_referees_in_float32(case, backend):
    _assert_is_the_referees(case, "float32", backend)


def _assert_is_the_referees(case: Case, dtype: str, backend: ModuleType) -> None:
    stage = case.make(dtype=dtype)
    got, expected = ADAPTERS[backend.__name__].stage(stage, dtype), in_referee(stage)
    assert _faults(got, expected, dtype) == {}
    assert {x.dtype for x in (got.y, *got.gradients.values())} == {np.dtype(dtype)}


def test_the_textbooks_inception_block_is_the_referees(backend):
    stage = draw(thin("d2l"), "inception4a", (2, INTO_4A, 5, 6))
    got, expected = ADAPTERS[backend.__name__].textbook_block(stage, "float64"), in_referee(stage)
    assert _faults(got, expected, "float64") == {}


# ------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("heads", [True, False], ids=["with heads", "without heads"])
def test_the_loss_is_the_weighted_sum_of_mean_smoothed_cross_entropies(heads, smoothing, dtype, backend):
    rng = np.random.default_rng(4)
    logits = [x.astype(dtype) for x in rng.normal(scale=3, size=(3 if heads else 1, 4, 5))]
    labels = np.array([3, 0, 4, 3])
    config = spec.preset("bvlc", num_classes=5, aux_weight=0.4, label_smoothing=smoothing)
    each = [reference.softmax_cross_entropy(x.astype(np.float64), labels, smoothing) for x in logits]
    weights = (1.0, 0.4, 0.4)[: len(logits)]

    loss, grads = ADAPTERS[backend.__name__].loss(config, logits, labels, dtype)

    expected = sum(weight * value for weight, (value, _) in zip(weights, each, strict=True))
    assert loss.dtype == dtype
    assert abs(loss.item() - expected) <= TOLERANCES[dtype].loss * expected
    for got, weight, (_, gradient) in zip(grads, weights, each, strict=True):
        assert relative_error(got, weight * gradient) <= TOLERANCES[dtype].gradients


# ---------------------------------------------------------------------------------------- dropout without a mask


def test_without_a_mask_dropout_draws_one_of_the_right_share_and_scales_what_it_keeps(backend):
    """The weights that read a dropped value get no gradient."""
    register(backend.__name__)
    last = ("last", Dense(None, activation=None, drop_input=True))
    config = small(GlobalAverage(), 1000, 1, dropout=0.3)
    config = replace(config, table=(config.table[0], last))
    rng = np.random.default_rng(5)
    params = {name: rng.normal(size=shape) for name, shape in spec.param_shapes(config).items()}
    images, labels = rng.normal(size=(1, 1000, 1, 1)), np.array([2])

    loss, grads = backend.loss_and_grads(loaded(backend, config, params), images, labels)

    kept = np.any(grads["last.weight"] != 0, axis=0)[None]
    assert abs((~kept).mean() - 0.3) < 0.07  # five deviations
    expected = reference.loss_and_grads(config, params, images, labels, {"last": kept})
    assert abs(loss - expected.loss) <= TOLERANCES["float64"].loss * expected.loss
    assert max(relative_errors(grads, expected.grads).values()) <= TOLERANCES["float64"].gradients


# ------------------------------------------------------------------------------------------- what only JAX does

only_jax = pytest.mark.parametrize("backend", [name for name in TESTED if name == "jax"], indirect=True)


@only_jax
@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "size", "by_xla"),
    [
        ((1, 1), (1, 1), ((0, 0), (0, 0)), (3, 4), False),
        ((1, 1), (2, 2), ((0, 0), (0, 0)), (7, 9), True),
        ((1, 1), (1, 2), ((0, 0), (0, 0)), (3, 4), True),
        ((1, 1), (1, 1), ((1, 1), (1, 1)), (3, 4), True),
        ((1, 1), (1, 1), ((0, 0), (0, 1)), (3, 4), True),
        ((1, 7), (1, 1), ((0, 0), (3, 3)), (5, 9), True),
        ((1, 7), (1, 1), ((0, 0), (0, 0)), (5, 9), True),
        ((7, 1), (1, 1), ((0, 0), (0, 0)), (9, 5), True),
        ((1, 7), (1, 1), ((0, 0), (3, 3)), (5, 4), False),
        ((7, 1), (1, 1), ((3, 3), (0, 0)), (4, 5), False),
        ((5, 5), (1, 1), ((1, 1), (1, 1)), (4, 7), False),
        ((5, 3), (1, 1), ((2, 2), (1, 1)), (7, 2), False),
        ((2, 3), (1, 1), ((1, 0), (0, 2)), (1, 5), False),
        ((3, 5), (2, 1), ((1, 0), (2, 1)), (2, 4), True),
        ((5, 5), (2, 2), ((2, 2), (2, 2)), (3, 4), True),
    ],
    ids=str,
)
def test_jax_convolves_by_any_kernel_strides_and_pads(kernel, strides, pads, size, by_xla, backend, monkeypatch):
    """By a matrix product where that is faster: much in float64, and with strides of 1 for 1x1 and for small maps."""
    backend.device.select_dtype("float64")
    import jax

    from googlenet_jax import fast_cpu
    from googlenet_jax.fast_cpu import convolution

    monkeypatch.setattr(fast_cpu, "MUCH", 0)

    rng = np.random.default_rng(6)
    x, w = rng.normal(size=(2, 3, *size)), rng.normal(size=(4, 3, *kernel))
    expected, back = reference.convolution(x, w, None, strides, pads)
    dy = rng.normal(size=expected.shape)

    def forward_and_back(x: Any, w: Any, dy: Any) -> Any:
        layouts = ("NHWC", "HWIO", "NHWC")
        y, back = jax.vjp(lambda x, w: convolution(x, w, strides, pads, dimension_numbers=layouts), x, w)
        return y, *back(dy)

    for dtype in ("float64", "float32") if by_xla else ("float64",):
        given = [a.astype(dtype) for a in (x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), dy.transpose(0, 2, 3, 1))]
        y, dx, dw = map(np.asarray, jax.jit(forward_and_back, compiler_options=QUICKLY)(*given))
        got = y.transpose(0, 3, 1, 2), dx.transpose(0, 3, 1, 2), dw.transpose(3, 2, 0, 1)
        errors = [relative_error(a, b) for a, b in zip(got, (expected, *back(dy)[:2]), strict=True)]
        assert max(errors) <= TOLERANCES[dtype].activations
        assert dtype == "float32" or "conv_general_dilated" not in str(jax.make_jaxpr(forward_and_back)(*given))
    given = [a.astype("float32") for a in given]
    assert ("conv_general_dilated" in str(jax.make_jaxpr(forward_and_back)(*given))) == by_xla


@only_jax
def test_what_jax_leaves_to_xla_on_a_gpu_is_the_referees_too(backend):
    """A GPU is needed to see that its compiler agrees: test_gpu.py."""
    stage = draw(CAFFE, "inception4a", (2, INTO_4A, 2, 3), training=False)
    got, expected = ADAPTERS[backend.__name__].stage(stage, "float64", for_gpu=True), in_referee(stage)
    assert _faults(got, expected, "float64") == {}


@only_jax
@pytest.mark.parametrize("pool", [STAGE_POOL, BRANCH_POOL, CEIL], ids=str)
def test_the_first_maximum_takes_the_gradient_by_xla_too(pool, backend):
    """On a GPU that is XLA's own."""
    backend.device.select_dtype("float64")
    import jax

    from googlenet_jax.layers import max_pool

    rng = np.random.default_rng(7)
    x = rng.integers(-1, 2, (2, 3, 6, 7)).astype(float)
    expected, back = reference.max_pool(x, pool)
    dy = rng.integers(-8, 9, expected.shape).astype(float)
    y, back_xla = jax.vjp(lambda x: max_pool(x, pool), x.transpose(0, 2, 3, 1))
    (dx,) = back_xla(dy.transpose(0, 2, 3, 1))
    assert np.array_equal(np.asarray(y).transpose(0, 3, 1, 2), expected)
    assert np.array_equal(np.asarray(dx).transpose(0, 3, 1, 2), back(dy))
