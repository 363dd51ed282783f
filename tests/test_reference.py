"""The NumPy network: each operation worked out by hand, and every gradient against finite differences."""

import gc
import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import numpy as np
import pytest
from networks import with_stages, with_widths

import spec
from spec import reference
from spec.googlenet import BRANCH_POOL
from spec.network import LRN, AveragePool, MaxPool

PADDED = MaxPool(kernel=3, stride=2, pad=1)
CEIL = MaxPool(kernel=3, stride=2, ceil=True)


def image(*rows):
    """One image of one channel."""
    return np.array(rows, dtype=float)[None, None]


def count_to(rows, columns):
    """One image of one channel that holds 1, 2, 3, … in row-major order."""
    return np.arange(1.0, rows * columns + 1).reshape(1, 1, rows, columns)


# ------------------------------------------------------------------------------------------- operations, by hand


def test_convolution_is_a_cross_correlation_with_a_bias():
    y, back = reference.convolution(count_to(3, 3), image([1, 2], [3, 4]), np.array([10.0]), stride=1, pad=0)
    np.testing.assert_array_equal(y, image([47, 57], [77, 87]))
    dx, dw, db = back(image([1, 0], [0, 2]))
    np.testing.assert_array_equal(dx, image([1, 2, 0], [3, 6, 4], [0, 6, 8]))
    np.testing.assert_array_equal(dw, image([11, 14], [20, 23]))
    np.testing.assert_array_equal(db, [3])


def test_convolution_sums_over_channels_with_stride_and_padding():
    x = np.concatenate([count_to(3, 3), 10 * count_to(3, 3)], axis=1)
    w = np.array([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    y, _ = reference.convolution(x, w, None, stride=2, pad=1)
    np.testing.assert_array_equal(y, image([1, 23], [47, 154]))


def test_convolution_keeps_images_and_output_channels_apart():
    x = np.concatenate([count_to(2, 2), -count_to(2, 2)])
    w = np.array([1.0, 100.0]).reshape(2, 1, 1, 1)
    y, _ = reference.convolution(x, w, np.array([0.5, 0.25]), stride=1, pad=0)
    expected = [[[[1.5, 2.5], [3.5, 4.5]], [[100.25, 200.25], [300.25, 400.25]]]]
    expected += [[[[-0.5, -1.5], [-2.5, -3.5]], [[-99.75, -199.75], [-299.75, -399.75]]]]
    np.testing.assert_array_equal(y, expected)


def test_relu_has_no_gradient_at_zero():
    y, back = reference.relu(np.array([-2.0, 0.0, 3.0]))
    np.testing.assert_array_equal(y, [0, 0, 3])
    np.testing.assert_array_equal(back(np.array([5.0, 5.0, 5.0])), [0, 0, 5])


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (PADDED, [[6, 8], [14, 16]]),
        (CEIL, [[11, 12], [15, 16]]),
        (MaxPool(kernel=3, stride=2), [[11]]),
        (MaxPool(kernel=2, stride=2, ceil=True), [[6, 8], [14, 16]]),
        (BRANCH_POOL, [[6, 7, 8, 8], [10, 11, 12, 12], [14, 15, 16, 16], [14, 15, 16, 16]]),
    ],
)
def test_max_pool_takes_the_largest_of_each_window(pool, expected):
    np.testing.assert_array_equal(reference.max_pool(count_to(4, 4), pool)[0], image(*expected))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [(PADDED, [[-1, -2], [-5, -6]]), (CEIL, [[-1, -3], [-9, -11]])],
)
def test_max_pool_never_takes_the_padding(pool, expected):
    """Outside the image is minus infinity, not zero."""
    np.testing.assert_array_equal(reference.max_pool(-count_to(4, 4), pool)[0], image(*expected))


@pytest.mark.parametrize(
    ("pool", "size", "out"),
    [
        (PADDED, 29, 15),
        (PADDED, 28, 14),
        (CEIL, 29, 14),
        (CEIL, 28, 14),
        (MaxPool(kernel=3, stride=2), 29, 14),
        (MaxPool(kernel=3, stride=2), 28, 13),
        (MaxPool(kernel=2, stride=2, ceil=True), 7, 4),
        (MaxPool(kernel=2, stride=2), 7, 3),
        (BRANCH_POOL, 7, 7),
        (CEIL, 2, 1),
        (PADDED, 1, 1),
    ],
)
def test_max_pool_puts_out_as_many_rows_as_the_spec_says(pool, size, out):
    assert pool.output_size(size) == out
    assert reference.max_pool(np.zeros((1, 1, size, 3)), pool)[0].shape[2] == out


@pytest.mark.parametrize("size", [6, 7, 8])
@pytest.mark.parametrize("kernel", [2, 3])
def test_ceiling_is_one_more_row_and_column_of_minus_infinity(kernel, size):
    x = np.random.default_rng(1).standard_normal((2, 3, size, size + 1))
    extra = [(0, 0), (0, 0), *((0, (kernel - s) % 2) for s in x.shape[2:])]
    padded = np.pad(x, extra, constant_values=-np.inf)
    y, back = reference.max_pool(x, MaxPool(kernel, stride=2, ceil=True))
    expected, expected_back = reference.max_pool(padded, MaxPool(kernel, stride=2))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(back(y), expected_back(y)[:, :, :size, : size + 1])


@pytest.mark.parametrize(
    ("pool", "x", "dy", "dx"),
    [
        (PADDED, np.zeros((3, 3)), [[1, 2], [3, 4]], [[1, 2, 0], [3, 4, 0], [0, 0, 0]]),
        (BRANCH_POOL, np.zeros((3, 3)), [[1, 2, 3], [4, 5, 6], [7, 8, 9]], [[12, 9, 0], [15, 9, 0], [0, 0, 0]]),
        (CEIL, np.zeros((4, 4)), [[1, 2], [3, 4]], [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]),
        (MaxPool(kernel=2, stride=2), [[0, 1], [1, 0]], [[7]], [[0, 7], [0, 0]]),
        (MaxPool(kernel=2, stride=2), [[0, 0], [1, 1]], [[7]], [[0, 0], [7, 0]]),
    ],
)
def test_max_pool_gradient_goes_to_the_first_maximum(pool, x, dy, dx):
    _, back = reference.max_pool(image(*x), pool)
    np.testing.assert_array_equal(back(image(*dy)), image(*dx))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (reference.strided_windows(14, 5, 3), [(0, 5), (3, 8), (6, 11), (9, 14)]),
        (reference.strided_windows(16, 5, 3), [(0, 5), (3, 8), (6, 11), (9, 14)]),
        (reference.strided_windows(8, 7, 7), [(0, 7)]),
        (reference.adaptive_windows(14, 4), [(0, 4), (3, 7), (7, 11), (10, 14)]),
        (reference.adaptive_windows(7, 4), [(0, 2), (1, 4), (3, 6), (5, 7)]),
        (reference.adaptive_windows(2, 4), [(0, 1), (0, 1), (1, 2), (1, 2)]),
        (reference.adaptive_windows(7, 1), [(0, 7)]),
    ],
)
def test_average_pool_windows_are_those_by_hand(windows, expected):
    assert windows == expected


def test_average_pool_takes_the_mean_of_each_window():
    y, back = reference.average_pool(count_to(3, 3), [(0, 2), (1, 3)], [(0, 3), (1, 2)])
    np.testing.assert_allclose(y, image([3.5, 3.5], [6.5, 6.5]), rtol=1e-15)
    sixth, half = 1 / 6, 1 / 2
    dx = image([sixth, sixth + half, sixth], [sixth, sixth + half, sixth], [0, 0, 0])
    np.testing.assert_allclose(back(image([1, 1], [0, 0])), dx, rtol=1e-15)


def test_average_pools_of_the_heads_differ_at_14_pixels():
    x = np.random.default_rng(2).standard_normal((1, 1, 14, 14))
    strided, adaptive = reference.strided_windows(14, 5, 3), reference.adaptive_windows(14, 4)
    five = reference.average_pool(x, strided, strided)[0]
    four = reference.average_pool(x, adaptive, adaptive)[0]
    assert five.shape == four.shape == (1, 1, 4, 4)
    assert five[0, 0, 1, 2] == pytest.approx(x[0, 0, 3:8, 6:11].mean(), rel=1e-12)
    assert four[0, 0, 1, 2] == pytest.approx(x[0, 0, 3:7, 7:11].mean(), rel=1e-12)


def test_local_response_norm_sums_squares_of_near_channels():
    """The sums of squares of channels 0 to 5 are 14, 30, 55, 90, 86, 77."""
    x = np.arange(1.0, 7).reshape(1, 6, 1, 1)
    y, _ = reference.local_response_norm(x, LRN(size=5, alpha=0.5, beta=1.0, k=2.0))
    expected = [1 / 3.4, 2 / 5, 3 / 7.5, 4 / 11, 5 / 10.6, 6 / 9.7]
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-15)


def test_local_response_norm_divides_alpha_and_starts_at_one():
    x = np.full((1, 1, 1, 1), 100.0)
    assert reference.local_response_norm(x, LRN())[0].item() == pytest.approx(100 / 1.2**0.75, rel=1e-15)


def test_batch_norm_of_the_batch_sends_gradients_through_its_statistics():
    """Mean 2 and biased variance 1; with epsilon 3 the divisor is 2."""
    x, dy = np.array([1.0, 3.0]).reshape(2, 1, 1, 1), np.array([1.0, 0.0]).reshape(2, 1, 1, 1)
    weight, bias, mean, var = (np.array([a]) for a in (4.0, 10.0, 2.0, 1.0))
    y, back = reference.batch_norm(x, weight, bias, mean, var, epsilon=3.0, of_batch=True)
    np.testing.assert_array_equal(y.ravel(), [8, 12])
    dx, dweight, dbias = back(dy)
    # dx = 4 / 2 · (dy - 1/2 - unit · mean(dy · unit)), unit = (-1/2, 1/2), mean(dy · unit) = -1/4
    np.testing.assert_array_equal(dx.ravel(), [0.75, -0.75])
    assert (dweight.item(), dbias.item()) == (-0.5, 1.0)


def test_batch_norm_takes_running_statistics_as_constants():
    x, dy = np.array([1.0, 4.0]).reshape(2, 1, 1, 1), np.array([1.0, 2.0]).reshape(2, 1, 1, 1)
    weight, bias, mean, var = (np.array([a]) for a in (6.0, 10.0, 1.0, 6.0))
    y, back = reference.batch_norm(x, weight, bias, mean, var, epsilon=3.0, of_batch=False)
    np.testing.assert_array_equal(y.ravel(), [10, 16])
    dx, dweight, dbias = back(dy)
    np.testing.assert_array_equal(dx.ravel(), [2, 4])
    assert (dweight.item(), dbias.item()) == (2.0, 3.0)


def test_dense_multiplies_by_the_transposed_weights():
    x, w, b = np.array([[1.0, 2.0]]), np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]), np.array([0.5, 0.0, -0.5])
    y, back = reference.dense(x, w, b)
    np.testing.assert_array_equal(y, [[21.5, 42, 62.5]])
    dx, dw, db = back(np.array([[1.0, 0.0, -1.0]]))
    np.testing.assert_array_equal(dx, [[-2, -20]])
    np.testing.assert_array_equal(dw, [[1, 2], [0, 0], [-1, -2]])
    np.testing.assert_array_equal(db, [1, 0, -1])


def test_dropout_keeps_what_the_mask_says_and_scales_it_up():
    x, kept = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[True, False, True, False]])
    y, back = reference.dropout(x, kept, 0.75)
    np.testing.assert_array_equal(y, [[4, 0, 12, 0]])
    np.testing.assert_array_equal(back(np.array([[1.0, 1.0, -1.0, -1.0]])), [[4, 0, -4, 0]])


def test_dropout_without_a_mask_changes_nothing():
    x = np.array([[1.0, 2.0]])
    y, back = reference.dropout(x, None, 0.75)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(back(x), x)


def test_softmax_cross_entropy_is_the_mean_over_the_batch():
    """Softmax (1/4, 3/4) and (1/2, 1/2)."""
    loss, gradient = reference.softmax_cross_entropy(np.array([[0.0, math.log(3)], [7.0, 7.0]]), np.array([1, 0]))
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2, rel=1e-15)
    np.testing.assert_allclose(gradient, [[1 / 8, -1 / 8], [-1 / 4, 1 / 4]], rtol=1e-14)


def test_softmax_cross_entropy_does_not_overflow():
    loss, gradient = reference.softmax_cross_entropy(np.array([[1e4, -1e4, 0.0]] * 2), np.array([0, 1]))
    assert loss == 1e4
    np.testing.assert_array_equal(gradient, [[0, 0, 0], [0.5, -0.5, 0]])


def test_smoothing_mixes_the_label_with_all_classes():
    """Softmax (1/2, 1/3, 1/6), target 0.7 · (0, 1, 0) + 0.1."""
    logits = np.log([[3.0, 2.0, 1.0]])
    loss, gradient = reference.softmax_cross_entropy(logits, np.array([1]), 0.3)
    assert loss == pytest.approx(0.1 * math.log(2) + 0.8 * math.log(3) + 0.1 * math.log(6), rel=1e-14)
    np.testing.assert_allclose(gradient, [[1 / 2 - 0.1, 1 / 3 - 0.8, 1 / 6 - 0.1]], rtol=1e-13)


def test_softmax_cross_entropy_without_smoothing_is_the_plain_one():
    logits, labels = noise(4, 7), np.array([6, 0, 3, 3])
    loss, gradient = reference.softmax_cross_entropy(logits, labels, 0.0)
    assert loss == pytest.approx(entropy(logits, labels), rel=1e-14)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected[np.arange(4), labels] -= 1
    np.testing.assert_allclose(gradient, expected / 4, rtol=1e-13)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.99])
def test_softmax_cross_entropy_has_the_least_loss_at_its_target(smoothing):
    """Where the softmax is the target the gradient is zero, and the loss the target's entropy."""
    target = np.full(5, max(smoothing / 5, 1e-300))
    target[2] = 1 - 4 * smoothing / 5
    loss, gradient = reference.softmax_cross_entropy(np.log(target)[None], np.array([2]), smoothing)
    np.testing.assert_allclose(gradient, np.zeros((1, 5)), atol=1e-15)
    assert loss == pytest.approx(-(target * np.log(target)).sum(), rel=1e-13, abs=1e-15)


# ---------------------------------------------------------------------------- operations, by finite differences

STEP = 1e-5
# Rounding costs about 1e-16 / STEP = 1e-11 of sums of a few units, truncation STEP² = 1e-10 times a third
# derivative of order one; the worst measured below is 2.0e-10.
OPERATION_TOLERANCE = 1e-8


def noise(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def tie_free(*shape):
    """Distinct values 0.1 apart, none nearer to zero than 0.05: no step crosses a kink."""
    size = math.prod(shape)
    return (np.random.default_rng(shape).permutation(size).reshape(shape) - size // 2 + 0.5) / 10


def strided_average(x):
    return reference.average_pool(x, reference.strided_windows(8, 5, 3), reference.strided_windows(9, 5, 3))


def adaptive_average(x):
    return reference.average_pool(x, reference.adaptive_windows(5, 4), reference.adaptive_windows(3, 4))


def batch_norm_of_batch(x, weight, bias):
    return reference.batch_norm(x, weight, bias, x.mean((0, 2, 3)), x.var((0, 2, 3)), 1e-3, of_batch=True)


def batch_norm_running(x, weight, bias):
    return reference.batch_norm(x, weight, bias, np.array([0.3, -0.2]), np.array([0.5, 2.0]), 1e-3, of_batch=False)


def half_dropped(x):
    return reference.dropout(x, np.arange(x.size).reshape(x.shape) % 2 == 0, 0.5)


def cross_entropy(logits):
    loss, gradient = reference.softmax_cross_entropy(logits, np.array([3, 0, 3]))
    return np.array(loss), lambda dy: dy * gradient


def smoothed_cross_entropy(logits):
    loss, gradient = reference.softmax_cross_entropy(logits, np.array([3, 0, 3]), 0.3)
    return np.array(loss), lambda dy: dy * gradient


OPERATIONS = {
    "convolution": (
        lambda x, w, b: reference.convolution(x, w, b, stride=1, pad=1),
        (noise(2, 2, 4, 5), noise(3, 2, 3, 3), noise(3)),
    ),
    "convolution-no-padding": (
        lambda x, w, b: reference.convolution(x, w, b, stride=1, pad=0),
        (noise(2, 3, 2, 3), noise(2, 3, 1, 1), noise(2)),
    ),
    "convolution-stride": (
        lambda x, w, b: reference.convolution(x, w, b, stride=2, pad=3),
        (noise(1, 2, 7, 6), noise(2, 2, 7, 7), noise(2)),
    ),
    "convolution-no-bias": (
        lambda x, w: reference.convolution(x, w, None, stride=2, pad=0),
        (noise(2, 2, 6, 5), noise(2, 2, 2, 2)),
    ),
    "relu": (reference.relu, (tie_free(2, 3, 4),)),
    "max-pool-padded": (lambda x: reference.max_pool(x, PADDED), (tie_free(2, 2, 6, 5),)),
    "max-pool-ceil": (lambda x: reference.max_pool(x, CEIL), (tie_free(2, 2, 6, 7),)),
    "max-pool-branch": (lambda x: reference.max_pool(x, BRANCH_POOL), (tie_free(1, 2, 4, 3),)),
    "average-pool-strided": (strided_average, (noise(1, 2, 8, 9),)),
    "average-pool-adaptive": (adaptive_average, (noise(2, 2, 5, 3),)),
    "local-response-norm": (
        lambda x: reference.local_response_norm(x, LRN(size=3, alpha=0.6, beta=0.75, k=1.0)),
        (noise(2, 5, 2, 3),),
    ),
    "batch-norm-of-batch": (batch_norm_of_batch, (noise(3, 2, 2, 3), noise(2), noise(2) + 1)),
    "batch-norm-running": (batch_norm_running, (noise(3, 2, 2, 3), noise(2), noise(2) + 1)),
    "dense": (reference.dense, (noise(3, 4), noise(5, 4), noise(5))),
    "dropout": (half_dropped, (noise(3, 5),)),
    "softmax-cross-entropy": (cross_entropy, (noise(3, 4),)),
    "softmax-cross-entropy-smoothed": (smoothed_cross_entropy, (noise(3, 4),)),
}


@cache
def analytic(name):
    """The gradients of an operation of `OPERATIONS` at its inputs, and the dy that they are for."""
    operation, inputs = OPERATIONS[name]
    y, back = operation(*inputs)
    dy = np.random.default_rng(0).standard_normal(y.shape)
    gradients = back(dy)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return gradients[: len(inputs)], dy


@cache
def numeric(name):
    """The same gradients as central differences."""
    operation, inputs = OPERATIONS[name]
    _, dy = analytic(name)
    found = []
    for which, x in enumerate(inputs):
        differences = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            ends = []
            for step in (STEP, -STEP):
                moved = x.copy()
                moved[place] += step
                ends.append(np.vdot(operation(*inputs[:which], moved, *inputs[which + 1 :])[0], dy))
            differences[place] = (ends[0] - ends[1]) / (2 * STEP)
        found.append(differences)
    return found


def gradient_error(gradients, differences):
    """The largest |analytic - central difference| / max |central difference| over the inputs."""
    errors = []
    for gradient, difference in zip(gradients, differences, strict=True):
        assert gradient.shape == difference.shape
        errors.append(np.abs(gradient - difference).max() / np.abs(difference).max())
    return max(errors)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_gradients_are_central_differences(name):
    gradients, _ = analytic(name)
    assert gradient_error(gradients, numeric(name)) < OPERATION_TOLERANCE


def scaled(gradient):
    return 1.001 * gradient


def swapped(gradient):
    """The largest and the smallest element change places."""
    flat = gradient.flatten()
    low, high = flat.argmin(), flat.argmax()
    flat[low], flat[high] = flat[high], flat[low]
    return flat.reshape(gradient.shape)


@pytest.mark.parametrize("fault", [scaled, swapped, np.negative])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_gradient_check_finds_a_wrong_gradient(name, fault):
    """A fault in the gradient of any one input is found."""
    gradients, _ = analytic(name)
    for which in range(len(gradients)):
        wrong = [fault(g) if i == which else g for i, g in enumerate(gradients)]
        assert gradient_error(wrong, numeric(name)) > 1e4 * OPERATION_TOLERANCE


# ------------------------------------------------------------------------------------------------------- network


@dataclass(frozen=True)
class Case:
    """A network with everything that one training pass takes, all read-only."""

    config: spec.Config
    params: dict
    images: np.ndarray
    labels: np.ndarray
    masks: dict

    def train(self, **changed):
        """The training pass with some parameters replaced."""
        return reference.loss_and_grads(self.config, self.params | changed, self.images, self.labels, self.masks)


def quarter(name, **settings):
    """A GoogLeNet with a quarter of the channels in its blocks: every kind of fault shows, in a tenth of the time."""
    return with_widths(spec.preset(name, **settings), lambda block, leaf, channels: channels // 4)


def make_case(name, *shape, stages=None, **settings):
    """Random weights with nothing at its starting value, images of (N, height, width), and dropout masks."""
    config = quarter(name, **{"in_channels": 2, "num_classes": 7, **settings})
    if stages:
        config = with_stages(replace(config, input_size=shape[1]), **stages)
    rng = np.random.default_rng(7)
    params = spec.init_params(config, seed=3, scheme="he")
    for leaf, value in params.items():
        if leaf.endswith("running_var"):
            params[leaf] = value + rng.random(value.shape)
        elif value.ndim == 1:
            params[leaf] = value + 0.2 * rng.standard_normal(value.shape)
    batch = shape[0]
    images, labels = rng.standard_normal((batch, 2, *shape[1:])), rng.integers(0, config.num_classes, batch)
    rates, shapes = spec.dropout_rates(config), spec.mask_shapes(config, images.shape)
    masks = {stage: rng.random(shapes[stage]) >= rate for stage, rate in rates.items()}
    for array in (*params.values(), images, labels, *masks.values()):
        array.setflags(write=False)
    return Case(config, params, images, labels, masks)


# The heads of `bvlc` need a map of 14 x 14, and the classifier of `cnblogs` one of 7 x 7. Pools that leave the size as
# it is, and a window of 2 x 2, bring that about with small images.
CASES = {
    "d2l": lambda: make_case("d2l", 2, 33, 37),
    "d2lzh": lambda: make_case("d2lzh", 2, 33, 37),
    "cnblogs": lambda: make_case("cnblogs", 1, 65, 65, stages={"pool5": AveragePool(2, stride=2)}),
    "bvlc": lambda: make_case("bvlc", 1, 28, 27, stages=dict.fromkeys(["pool1", "pool2", "pool3"], BRANCH_POOL)),
    "bvlc-without-heads": lambda: make_case("bvlc", 2, 37, 33, aux=False),
    "torchvision": lambda: make_case("torchvision", 3, 49, 53),
    "torchvision-smoothed": lambda: make_case(
        "torchvision", 3, 49, 53, num_classes=3, aux_weight=0.7, label_smoothing=0.2
    ),
}


@cache
def case(name):
    return CASES[name]()


@cache
def trained(name):
    """The training pass of a case."""
    return case(name).train()


@lru_cache(maxsize=2)
def directions(name):
    """A direction for each trained array, as large as the array: random, but no array's own slope is small by chance.

    Arrays that the loss hardly feels go up to ten times as far, those that dominate it down to a tenth, so that a
    fault in any of them shows in the sum.
    """
    rng = np.random.default_rng(11)
    found, slopes = {}, {}
    for array, gradient in trained(name).grads.items():
        uphill = gradient / np.sqrt(np.mean(gradient**2))
        size = np.sqrt(np.mean(case(name).params[array] ** 2))
        found[array] = (rng.standard_normal(gradient.shape) + uphill) * size
        slopes[array] = np.vdot(gradient, found[array])
    middle = np.median(np.abs(list(slopes.values())))
    return {a: d * np.sign(slopes[a]) * np.clip(middle / abs(slopes[a]), 0.1, 10) for a, d in found.items()}


@cache
def inferred(name):
    """Every stage of a case in inference mode."""
    return reference.activations(case(name).config, case(name).params, case(name).images)


# Thousands of ReLUs and pools have a kink, and the share that a step crosses shrinks with the step: along all arrays
# at once 1e-6 misses by up to 1e-2, 1e-8 by nothing that shows. What is left is rounding: about 1e-15 of the loss,
# over the step and a slope near 1. The worst measured is 2.6e-8.
STEP_ALONG_ALL, TOLERANCE_ALONG_ALL = 1e-8, 3e-7
# One array alone crosses fewer kinks, but its slope is down to 1e-2. The worst measured is 1.6e-7.
STEP_ALONG_ONE, TOLERANCE_ALONG_ONE = 1e-7, 2e-6


def slope(case, direction, step):
    """The central difference of the training loss along a direction."""
    ends = (case.train(**{a: case.params[a] + s * d for a, d in direction.items()}).loss for s in (step, -step))
    return (next(ends) - next(ends)) / (2 * step)


@lru_cache(maxsize=2)
def slope_along_all(name):
    return slope(case(name), directions(name), STEP_ALONG_ALL)


def slope_error(numeric, grads, direction):
    """|analytic - numeric| / |numeric|, the analytic slope being the sum over the direction's arrays."""
    return abs(sum(np.vdot(grads[array], d) for array, d in direction.items()) - numeric) / abs(numeric)


@pytest.fixture(scope="module", autouse=True)
def freed():
    """What the cases hold goes with the last test of this file."""
    yield
    for kept in (case, trained, inferred):
        kept.cache_clear()


@pytest.mark.parametrize("name", CASES)
def test_network_gradients_are_central_differences_along_all_arrays_at_once(name):
    assert slope_error(slope_along_all(name), trained(name).grads, directions(name)) < TOLERANCE_ALONG_ALL


ARRAYS = {
    "d2l": [
        "conv1.weight",
        "conv2_reduce.bias",
        "inception3a.branch1x1.weight",
        "inception4e.branch3x3.weight",
        "inception3b.branch5x5_reduce.bias",
        "inception5a.branch5x5.weight",
        "inception4c.pool_proj.weight",
        "fc.weight",
    ],
    "d2lzh": ["conv2_reduce.weight"],
    "bvlc-without-heads": ["conv1.weight", "conv2.weight"],
    "torchvision": ["conv1.weight", "inception4b.branch3x3.norm.bias", "aux2.fc1.bias"],
}


@pytest.mark.parametrize(("name", "array"), [(name, array) for name, arrays in ARRAYS.items() for array in arrays])
def test_network_gradient_is_a_central_difference_along_one_array(name, array):
    direction = {array: directions(name)[array]}
    numeric = slope(case(name), direction, STEP_ALONG_ONE)
    assert slope_error(numeric, trained(name).grads, direction) < TOLERANCE_ALONG_ONE


def test_network_gradient_check_finds_a_gradient_one_percent_off():
    """A gradient that is 1 % off in any single array is found, and so are two that stand in each other's place."""
    grads, direction, numeric = trained("d2l").grads, directions("d2l"), slope_along_all("d2l")
    for array, gradient in grads.items():
        assert slope_error(numeric, grads | {array: 1.01 * gradient}, direction) > 10 * TOLERANCE_ALONG_ALL, array
    one, other = "inception5a.branch3x3.weight", "inception4e.branch3x3.weight"
    exchanged = grads | {one: grads[other], other: grads[one]}
    assert slope_error(numeric, exchanged, direction) > 10 * TOLERANCE_ALONG_ALL
    halved = grads | {name: g / 2 for name, g in grads.items() if name.endswith(".bias")}
    assert slope_error(numeric, halved, direction) > 10 * TOLERANCE_ALONG_ALL


@pytest.mark.parametrize("name", CASES)
def test_stages_have_the_shapes_of_the_spec(name):
    config, images = case(name).config, case(name).images
    shapes = {stage: out.shape for stage, out in inferred(name).items()}
    expected = spec.stage_shapes(config, images.shape[1:])
    assert shapes == {stage: (len(images), *shape) for stage, shape in expected.items()}
    assert tuple(shapes) == spec.stage_names(config)


@pytest.mark.parametrize("name", ["d2l", "torchvision"])
def test_inception_concatenates_its_branches_in_order(name):
    """1x1, 3x3, 5x5, pool; each recomputed from the stage before."""
    config, params, stages = case(name).config, case(name).params, inferred(name)
    layers = {layer.name: layer for layer in spec.layers(config)}

    def conv(leaf, x):
        layer, path = layers[f"inception3b.{leaf}"], f"inception3b.{leaf}"
        y, _ = reference.convolution(x, params[f"{path}.weight"], params.get(f"{path}.bias"), 1, layer.op.pad)
        if layer.norm:
            norm = [params[f"{path}.norm.{array}"] for array in ("weight", "bias", "running_mean", "running_var")]
            y, _ = reference.batch_norm(y, *norm, epsilon=1e-3, of_batch=False)
        return np.maximum(y, 0)

    x = stages["inception3a"]
    pooled = reference.max_pool(x, BRANCH_POOL)[0]
    branches = [
        conv("branch1x1", x),
        conv("branch3x3", conv("branch3x3_reduce", x)),
        conv("branch5x5", conv("branch5x5_reduce", x)),
        conv("pool_proj", pooled),
    ]
    np.testing.assert_allclose(stages["inception3b"], np.concatenate(branches, axis=1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "linear"), [("d2l", False), ("d2lzh", True)])
def test_stage_2_is_linear_only_in_d2lzh(name, linear):
    stages = inferred(name)
    assert (stages["conv1"] >= 0).all()
    for stage in ("conv2_reduce", "conv2"):
        assert bool((stages[stage] < 0).any()) is linear
    assert (stages["inception3a"] >= 0).all()


@pytest.mark.parametrize(("stage", "before"), [("norm1", "pool1"), ("norm2", "conv2")])
def test_bvlc_normalizes_after_the_first_pool_and_before_the_second(stage, before):
    stages = inferred("bvlc-without-heads")
    np.testing.assert_array_equal(stages[stage], reference.local_response_norm(stages[before], LRN())[0])
    follower = {"norm1": "conv2_reduce", "norm2": "pool2"}[stage]
    assert list(stages)[list(stages).index(stage) + 1] == follower
    np.testing.assert_array_equal(stages["pool2"], reference.max_pool(stages["norm2"], CEIL)[0])


def test_torchvision_ends_with_a_2x2_pool():
    stages = inferred("torchvision")
    pooled = reference.max_pool(stages["inception4e"], MaxPool(kernel=2, stride=2, ceil=True))[0]
    np.testing.assert_array_equal(stages["pool4"], pooled)


def test_cnblogs_averages_the_first_window_of_the_last_map():
    """The last map is 3 x 3, and its last row and column are left out."""
    stages = inferred("cnblogs")
    assert stages["inception5b"].shape[2:] == (3, 3)
    average = stages["inception5b"][:, :, :2, :2].mean((2, 3))
    np.testing.assert_allclose(stages["pool5"][:, :, 0, 0], average, rtol=1e-12)


def test_predict_is_the_last_activation():
    c = case("d2l")
    np.testing.assert_array_equal(reference.predict(c.config, c.params, c.images), inferred("d2l")["fc"])


@pytest.mark.parametrize("name", ["d2l", "torchvision"])
def test_inference_treats_each_image_by_itself(name):
    c = case(name)
    alone = np.concatenate([reference.predict(c.config, c.params, one[None]) for one in c.images])
    np.testing.assert_allclose(alone, inferred(name)["fc"], rtol=1e-10)


def head_logits(case, stages, head, windows):
    """An auxiliary head on the stage that it reads, with the case's mask."""
    stage = {"aux1": "inception4a", "aux2": "inception4d"}[head]
    pooled, _ = reference.average_pool(stages[stage], windows, windows)
    weight, bias = case.params[f"{head}.conv.weight"], case.params[f"{head}.conv.bias"]
    maps = np.maximum(np.einsum("nchw,oc->nohw", pooled, weight[:, :, 0, 0]) + bias[:, None, None], 0)
    flat = maps.reshape(len(maps), 128 * 4 * 4)
    hidden = np.maximum(flat @ case.params[f"{head}.fc1.weight"].T + case.params[f"{head}.fc1.bias"], 0)
    if case.masks:
        hidden = hidden * case.masks[head] / (1 - 0.7)
    return hidden @ case.params[f"{head}.fc2.weight"].T + case.params[f"{head}.fc2.bias"]


def entropy(logits, labels):
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(softmax[np.arange(len(labels)), labels]).mean()


def test_loss_is_the_cross_entropy_plus_three_tenths_of_the_heads():
    """Without batch norm the trunk is the same in both modes, so inference gives what the heads read."""
    c, stages = case("bvlc"), inferred("bvlc")
    kept = stages["pool5"].reshape(1, -1) * c.masks["fc"] / (1 - 0.4)
    logits = kept @ c.params["fc.weight"].T + c.params["fc.bias"]
    aux1, aux2 = (head_logits(c, stages, head, [(0, 5), (3, 8), (6, 11), (9, 14)]) for head in ("aux1", "aux2"))
    expected = entropy(logits, c.labels) + 0.3 * (entropy(aux1, c.labels) + entropy(aux2, c.labels))
    assert trained("bvlc").loss == pytest.approx(expected, rel=1e-11)


def test_a_smoothed_loss_is_a_mixture_of_plain_ones():
    """1 - smoothing of the labels' loss, and smoothing of every class's in equal parts: of the heads' loss too."""
    smoothed = case("torchvision-smoothed")
    plain = replace(smoothed, config=replace(smoothed.config, label_smoothing=0.0))
    parts = [(0.8, plain.train())]
    parts += [(0.2 / 3, replace(plain, labels=np.full(3, label)).train()) for label in range(3)]
    found = trained("torchvision-smoothed")
    assert found.loss == pytest.approx(sum(share * part.loss for share, part in parts), rel=1e-12)
    for array in ("conv1.weight", "inception4e.branch3x3.weight", "aux1.fc1.weight", "aux2.fc2.bias", "fc.bias"):
        expected = sum(share * part.grads[array] for share, part in parts)
        np.testing.assert_allclose(found.grads[array], expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_without_their_weight_the_heads_learn_nothing():
    c = replace(case("torchvision"), config=replace(case("torchvision").config, aux_weight=0.0))
    result = c.train()
    for array, gradient in result.grads.items():
        assert bool(gradient.any()) is not array.startswith("aux"), array
    assert result.loss < trained("torchvision").loss


@pytest.mark.parametrize("head", ["aux1", "aux2"])
def test_heads_in_inference_drop_nothing(head):
    c = case("bvlc")
    whole = Case(c.config, c.params, c.images, c.labels, {})
    expected = head_logits(whole, inferred("bvlc"), head, [(0, 5), (3, 8), (6, 11), (9, 14)])
    np.testing.assert_allclose(inferred("bvlc")[head], expected, rtol=1e-10)


def test_without_a_mask_nothing_is_dropped():
    c = case("bvlc-without-heads")
    loss = reference.loss_and_grads(c.config, c.params, c.images, c.labels).loss
    assert loss == pytest.approx(entropy(inferred("bvlc-without-heads")["fc"], c.labels), rel=1e-12)
    assert loss != pytest.approx(trained("bvlc-without-heads").loss, rel=1e-3)


def test_a_mask_that_drops_everything_leaves_the_bias():
    c = case("bvlc-without-heads")
    dropped = {"fc": np.zeros_like(c.masks["fc"])}
    result = reference.loss_and_grads(c.config, c.params, c.images, c.labels, dropped)
    assert result.loss == pytest.approx(entropy(np.tile(c.params["fc.bias"], (2, 1)), c.labels), rel=1e-14)
    assert {name for name, gradient in result.grads.items() if gradient.any()} == {"fc.bias"}


def first_convolution():
    c = case("torchvision")
    return reference.convolution(c.images, c.params["conv1.weight"], None, stride=2, pad=3)[0]


def test_running_statistics_take_a_tenth_of_the_batch():
    """The variance that they store is the unbiased one."""
    c, after = case("torchvision"), trained("torchvision").statistics
    values = first_convolution().transpose(1, 0, 2, 3).reshape(64, -1)
    mean = 0.9 * c.params["conv1.norm.running_mean"] + 0.1 * values.mean(1)
    var = 0.9 * c.params["conv1.norm.running_var"] + 0.1 * values.var(1, ddof=1)
    np.testing.assert_allclose(after["conv1.norm.running_mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(after["conv1.norm.running_var"], var, rtol=1e-12)
    biased = 0.9 * c.params["conv1.norm.running_var"] + 0.1 * values.var(1)
    assert np.abs(after["conv1.norm.running_var"] / biased - 1).min() > 1e-6


def test_inference_uses_the_running_statistics():
    c = case("torchvision")
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, var = (c.params[f"conv1.norm.{name}"][:, None, None] for name in names)
    expected = np.maximum(weight * (first_convolution() - mean) / np.sqrt(var + 1e-3) + bias, 0)
    np.testing.assert_allclose(inferred("torchvision")["conv1"], expected, rtol=1e-12, atol=1e-13)


def test_training_ignores_the_running_statistics():
    c = case("torchvision")
    other = {n: value + 5.0 for n, value in c.params.items() if spec.is_statistic(n)}
    assert c.train(**other).loss == trained("torchvision").loss


@pytest.mark.parametrize("name", ["d2l", "torchvision"])
def test_training_yields_its_arrays_in_canonical_order(name):
    shapes, result = spec.param_shapes(case(name).config), trained(name)
    grads = {n: g.shape for n, g in result.grads.items()}
    statistics = {n: s.shape for n, s in result.statistics.items()}
    assert list(grads.items()) == [(n, s) for n, s in shapes.items() if not spec.is_statistic(n)]
    assert list(statistics.items()) == [(n, s) for n, s in shapes.items() if spec.is_statistic(n)]
    assert {array.dtype for array in (*result.grads.values(), *result.statistics.values())} == {np.dtype(float)}


def test_training_yields_canonical_order_whatever_the_order_of_the_parameters():
    c = case("d2l")
    backward = dict(reversed(c.params.items()))
    result = reference.loss_and_grads(c.config, backward, c.images, c.labels)
    assert list(result.grads) == list(c.params)


@pytest.mark.parametrize("name", ["bvlc-without-heads", "torchvision"])
def test_the_arrays_of_the_caller_stay_as_they_are(name):
    """Every array of a case is read-only, so a write would fail; nothing is added or replaced either."""
    c, fresh = case(name), CASES[name]()
    c.train()
    reference.predict(c.config, c.params, c.images)
    assert list(c.params) == list(fresh.params)
    assert list(c.masks) == list(fresh.masks)
    for mine, theirs in ((c.params, fresh.params), (c.masks, fresh.masks)):
        for array in mine:
            np.testing.assert_array_equal(mine[array], theirs[array])
    np.testing.assert_array_equal(c.images, fresh.images)
    np.testing.assert_array_equal(c.labels, fresh.labels)


def test_float32_arrays_are_computed_in_float64():
    c = case("d2l")
    single = {name: value.astype(np.float32) for name, value in c.params.items()}
    double = {name: value.astype(np.float64) for name, value in single.items()}
    images = c.images.astype(np.float32)
    logits = reference.predict(c.config, single, images)
    assert logits.dtype == np.float64
    np.testing.assert_array_equal(logits, reference.predict(c.config, double, images.astype(np.float64)))
    assert reference.loss_and_grads(c.config, single, images, c.labels).grads["fc.bias"].dtype == np.float64


# --------------------------------------------------------------------------------------------------- a training step


def test_correct_counts_the_classifier_s_hits():
    c = case("d2l")
    answers = inferred("d2l")["fc"].argmax(1)
    for wrong in (0, 1, 2):
        labels = answers.copy()
        labels[:wrong] = (labels[:wrong] + 1) % 7
        correct = reference.loss_and_grads(c.config, c.params, c.images, labels).correct
        assert (type(correct), correct) == (int, 2 - wrong)


def test_correct_is_of_the_training_pass():
    """With everything dropped but the bias each image gets the same answer, which the heads' answers do not change."""
    c = case("bvlc-without-heads")
    answer = int(c.params["fc.bias"].argmax())
    dropped = {"fc": np.zeros_like(c.masks["fc"])}
    labels = np.array([answer, (answer + 1) % 7])
    assert reference.loss_and_grads(c.config, c.params, c.images, labels, dropped).correct == 1


@pytest.mark.parametrize("optimizer", [spec.SGD(momentum=0.5, weight_decay=0.1), spec.AdamW(clip_norm=1.0)])
def test_a_training_step_is_gradients_then_an_update(optimizer):
    """Twice, so that the second step sees the first one's weights, statistics and state."""
    c, state, expected_state = make_case("torchvision", 3, 33, 33, aux=False), {}, {}
    params = expected = c.params
    for _ in range(2):
        training = reference.loss_and_grads(c.config, expected, c.images, c.labels, c.masks)
        trainable = {name: x for name, x in expected.items() if not spec.is_statistic(name)}
        expected = optimizer.update(trainable, training.grads, expected_state) | training.statistics
        step, params = reference.train_step(c.config, params, state, optimizer, c.images, c.labels, c.masks)
        assert step == spec.Step(training.loss, training.correct)
        assert list(params) == list(spec.param_shapes(c.config))
        for name, x in expected.items():
            np.testing.assert_array_equal(params[name], x)
    spec.check_state(c.config, optimizer.slots, state)
    for name, x in expected_state.items():
        np.testing.assert_array_equal(state[name], x)
    assert not np.array_equal(params["conv1.norm.running_mean"], c.params["conv1.norm.running_mean"])


def test_a_training_step_lowers_the_loss():
    c = case("d2l")
    first, params = reference.train_step(c.config, c.params, {}, spec.SGD(rate=1e-3), c.images, c.labels)
    second, _ = reference.train_step(c.config, params, {}, spec.SGD(rate=1e-3), c.images, c.labels)
    assert first.loss == trained("d2l").loss
    assert second.loss < first.loss


def test_a_training_step_refuses_what_the_gradients_refuse_and_keeps_the_state():
    c, state = case("d2l"), {}
    with pytest.raises(spec.InvalidInput, match="labels: "):
        reference.train_step(c.config, c.params, state, spec.Adam(), c.images, c.labels[:1])
    assert state == {}


@pytest.mark.slow
def test_a_pass_leaves_nothing_for_the_garbage_collector():
    """What it computed may be gigabytes, and would fill the memory before Python looks for cycles."""
    config = spec.preset("lenet")
    params, images = spec.init_params(config), np.zeros((1, 1, 28, 28))
    gc.collect()
    gc.disable()
    try:
        reference.activations(config, params, images)
        reference.loss_and_grads(config, params, images, np.zeros(1, int))
        assert [x for x in gc.get_objects() if type(x) is reference._Pass] == []
    finally:
        gc.enable()


def test_misfits_are_refused_before_any_arithmetic():
    c = case("d2l")
    short = {name: value for name, value in c.params.items() if name != "fc.bias"}
    for function, arguments in (
        (reference.activations, (c.config, short, c.images)),
        (reference.predict, (c.config, short, c.images)),
        (reference.loss_and_grads, (c.config, short, c.images, c.labels)),
    ):
        with pytest.raises(spec.InvalidInput, match=r"missing \(1\):\n    fc\.bias"):
            function(*arguments)
    with pytest.raises(spec.InvalidInput, match="expected images of 2 channels, got 1"):
        reference.predict(c.config, c.params, c.images[:, :1])
    with pytest.raises(spec.InvalidInput, match=r"labels: .* shape \(2,\), got \(1,\)"):
        reference.loss_and_grads(c.config, c.params, c.images, c.labels[:1])
    c = case("torchvision")
    with pytest.raises(spec.InvalidInput, match="cannot train on one image of 33 x 33 pixels"):
        reference.loss_and_grads(c.config, c.params, c.images[:1, :, :33, :33], c.labels[:1])


@pytest.mark.parametrize(
    "masks",
    [
        {"head": np.ones((2, 1024), bool)},
        {"aux1": np.ones((2, 1024), bool)},  # d2l has no such head
        {"fc": np.ones((1, 1024), bool)},
        {"fc": np.ones(1024, bool)},
        {"fc": np.ones((2, 1024))},
    ],
)
def test_masks_that_do_not_fit_are_refused(masks):
    config = spec.preset("d2l", dropout=0.5)
    params = {name: np.broadcast_to(0.0, shape) for name, shape in spec.param_shapes(config).items()}
    images = np.zeros((2, 1, 28, 28))
    with pytest.raises(spec.InvalidInput, match=r"masks: expected boolean arrays of \{'fc': \(2, 1024\)\}, got"):
        reference.loss_and_grads(config, params, images, np.zeros(2, int), masks)
