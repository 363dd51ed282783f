"""The referee: the network, forward and backward, in plain NumPy float64. This file is the definition.

Every operation returns its output and `back`, the function that takes the gradient of the loss with respect to that
output to the gradients with respect to the operation's inputs. Arrays are (N, C, H, W): images, channels, height,
width. It is written to be read; its gradients are checked by finite differences in `tests/test_reference.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from spec.arrays import Array, Arrays
from spec.googlenet import (
    AUX_AFTER,
    AUX_POOL_KERNEL,
    AUX_POOL_STRIDE,
    AUX_SIDE,
    BRANCH_POOL,
    GoogLeNetConfig,
)
from spec.inputs import check_images, check_labels, check_training_batch
from spec.masks import check_masks
from spec.network import LRN, Activation, BatchNorm, Config, Layer, Pool, Step, is_statistic, layers, param_shapes
from spec.optimizers import Optimizer, State
from spec.params import check_params
from spec.sequences import Conv, Dense, GlobalAverage, MaxPool, SequenceConfig

Back = Callable[[Array], Array]
Back3 = Callable[[Array], tuple[Array, Array, Array]]  # to the input, the weights and the biases
Stages = tuple[dict[str, Array], list[tuple[str, Back]]]  # outputs, and how gradients go back, in forward order

# ---------------------------------------------------------------------------------------------------- operations


def convolution(x: Array, w: Array, b: Array | None, stride: int, pad: int) -> tuple[Array, Back3]:
    """Cross-correlation of x (N, C, H, W) with w (O, C, k, k), zeros outside the image.

    Returns:
        (N, O, H', W') with H' = (H + 2·pad - k) // stride + 1, and back(dy) -> dx, dw, db.
    """
    k = w.shape[-1]
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = _windows(padded, k, stride)  # N, C, H', W', k, k
    y = np.tensordot(windows, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    if b is not None:
        y = y + b[:, None, None]

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dw = np.tensordot(dy, windows, axes=((0, 2, 3), (0, 2, 3)))
        dpadded = np.zeros_like(padded)
        for i, j in np.ndindex(k, k):
            _places(dpadded, i, j, stride, dy)[...] += np.tensordot(dy, w[:, :, i, j], (1, 0)).transpose(0, 3, 1, 2)
        return _unpad(dpadded, pad), dw, dy.sum((0, 2, 3))

    return y, back


def identity(x: Array) -> tuple[Array, Back]:
    """x as it is: what stands in for an operation that a preset leaves out."""
    return x, lambda dy: dy


def relu(x: Array) -> tuple[Array, Back]:
    """max(x, 0); the gradient at 0 is 0."""
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def sigmoid(x: Array) -> tuple[Array, Back]:
    """1 / (1 + exp(-x)), by way of the tangent, which does not overflow."""
    y = (1 + np.tanh(x / 2)) / 2
    return y, lambda dy: dy * y * (1 - y)


ACTIVATIONS: dict[Activation, Callable[[Array], tuple[Array, Back]]] = {
    None: identity,
    "relu": relu,
    "sigmoid": sigmoid,
}


def max_pool(x: Array, pool: Pool) -> tuple[Array, Back]:
    """Largest value of each window, minus infinity outside the image.

    The gradient goes to the first maximum of the window in row-major order, and to no other. After a ReLU ties are
    the rule (zeros), so which one is first matters.
    """
    n, c, h, w = x.shape
    k, stride, pad = pool.kernel, pool.stride, pool.pad
    rows, columns = pool.output_size(h), pool.output_size(w)
    below, right = ((out - 1) * stride + k - (size + pad) for out, size in ((rows, h), (columns, w)))
    edges = ((0, 0), (0, 0), (pad, max(below, 0)), (pad, max(right, 0)))  # a last window may hang over the edge
    padded = np.pad(x, edges, constant_values=-np.inf)
    windows = _windows(padded, k, stride)[:, :, :rows, :columns].reshape(n, c, rows, columns, k * k)
    first = windows.argmax(-1)

    def back(dy: Array) -> Array:
        dpadded = np.zeros(padded.shape)
        for i, j in np.ndindex(k, k):
            _places(dpadded, i, j, stride, dy)[...] += dy * (first == i * k + j)
        return dpadded[:, :, pad : pad + h, pad : pad + w]

    return windows.max(-1), back


Windows = Sequence[tuple[int, int]]  # first and one past the last pixel of each window along one side


def strided_windows(size: int, kernel: int, stride: int) -> Windows:
    """Windows of `kernel` pixels, `stride` apart, that lie inside `size` pixels."""
    return [(start, start + kernel) for start in range(0, size - kernel + 1, stride)]


def adaptive_windows(size: int, count: int) -> Windows:
    """`count` windows that cover `size` pixels: from floor(i·size / count) to ceil((i + 1)·size / count)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def average_pool(x: Array, rows: Windows, columns: Windows) -> tuple[Array, Back]:
    """Mean of every rectangle rows[i] x columns[j]: (N, C, len(rows), len(columns))."""
    a, b = averaging_matrix(x.shape[2], rows), averaging_matrix(x.shape[3], columns)
    return a @ x @ b.T, lambda dy: a.T @ dy @ b


def averaging_matrix(size: int, windows: Windows) -> Array:
    """(len(windows), size): row i holds 1 / length inside window i, and 0 outside."""
    matrix = np.zeros((len(windows), size))
    for row, (start, stop) in zip(matrix, windows, strict=True):
        row[start:stop] = 1 / (stop - start)
    return matrix


def local_response_norm(x: Array, lrn: LRN) -> tuple[Array, Back]:
    """x / (k + alpha / size · Σ x²)^beta, the sum over the `size` channels around each one, fewer at the ends."""
    c, reach = x.shape[1], lrn.size // 2
    near = (np.abs(np.subtract.outer(np.arange(c), np.arange(c))) <= reach).astype(x.dtype)  # C x C, symmetric

    def neighbors(a: Array) -> Array:
        total: Array = np.einsum("cd,ndhw->nchw", near, a, optimize=True)
        return total

    scale = lrn.k + lrn.alpha / lrn.size * neighbors(x**2)
    y = x * scale**-lrn.beta

    def back(dy: Array) -> Array:
        dx: Array = dy * scale**-lrn.beta - 2 * lrn.alpha * lrn.beta / lrn.size * x * neighbors(dy * y / scale)
        return dx

    return y, back


def batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, var: Array, epsilon: float, of_batch: bool
) -> tuple[Array, Back3]:
    """weight · (x - mean) / sqrt(var + epsilon) + bias, per channel of x (N, C, H, W).

    `of_batch` says that mean and var are x's own, so that the gradient flows through them as well.

    Returns:
        y like x, and back(dy) -> dx, dweight, dbias.
    """
    mean, var, gain = (a[:, None, None] for a in (mean, var, weight))
    std = np.sqrt(var + epsilon)
    unit = (x - mean) / std
    axes = (0, 2, 3)

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dx = gain / std * dy
        if of_batch:
            center = dy.mean(axes, keepdims=True) + unit * (dy * unit).mean(axes, keepdims=True)
            dx = dx - gain / std * center
        return dx, (dy * unit).sum(axes), dy.sum(axes)

    return gain * unit + bias[:, None, None], back


def dense(x: Array, w: Array, b: Array | None) -> tuple[Array, Back3]:
    """x (N, in) times w (out, in) transposed, plus b; back(dy) -> dx, dw, db."""
    y = x @ w.T
    return y if b is None else y + b, lambda dy: (dy @ w, dy.T @ x, dy.sum(0))


def dropout(x: Array, kept: Array | None, fraction: float) -> tuple[Array, Back]:
    """x where `kept` (boolean, like x), zero elsewhere, divided by 1 - fraction; None keeps everything as it is."""
    if kept is None:
        return identity(x)
    scale = kept / (1 - fraction)
    return x * scale, lambda dy: dy * scale


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[float, Array]:
    """Mean over the batch of -Σ target · log softmax(logits), and its gradient with respect to the logits (N, K).

    target = (1 - smoothing) · [class is the label] + smoothing / K (Szegedy et al. 2016, section 7).
    """
    n, classes = logits.shape
    target = np.full(logits.shape, smoothing / classes)
    target[np.arange(n), labels] += 1 - smoothing
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return float(-(target * log_softmax).sum(1).mean()), (np.exp(log_softmax) - target) / n


def _windows(x: Array, k: int, stride: int) -> Array:
    windows: Array = sliding_window_view(x, (k, k), axis=(2, 3))  # type: ignore[call-overload]  # its stub: one axis
    return windows[:, :, ::stride, ::stride]


def _places(padded: Array, i: int, j: int, stride: int, dy: Array) -> Array:
    """The pixels that stand at row i, column j of each window; a view."""
    rows, columns = dy.shape[2:]
    return padded[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride]


def _unpad(x: Array, pad: int) -> Array:
    return x[:, :, pad : x.shape[2] - pad, pad : x.shape[3] - pad]


# ------------------------------------------------------------------------------------------------------- network


@dataclass
class _Pass:
    """One run through a network; collects gradients and running statistics by canonical name."""

    config: Any  # a Config: of which kind, the subclass knows
    params: Arrays
    training: bool
    masks: Arrays
    grads: dict[str, Array] = field(default_factory=dict)
    statistics: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layers = {layer.name: layer for layer in layers(self.config)}

    def stages(self, x: Array) -> Stages:
        """Every stage's output, and every stage's `back`, in forward order."""
        raise NotImplementedError

    def conv(self, name: str, x: Array) -> tuple[Array, Back]:
        """Convolution, then batch norm and an activation where the layer has them."""
        layer = self.layers[name]
        y, back = convolution(x, self.params[f"{name}.weight"], self.bias(layer), layer.stride, layer.pad)
        return self.finish(layer, y, back)

    def fc(self, name: str, x: Array) -> tuple[Array, Back]:
        """Dense layer, then batch norm and an activation where the layer has them."""
        layer = self.layers[name]
        y, back = dense(x, self.params[f"{name}.weight"], self.bias(layer))
        return self.finish(layer, y, back)

    def bias(self, layer: Layer) -> Array | None:
        """The layer's, if it has one."""
        return self.params[f"{layer.name}.bias"] if layer.bias else None

    def finish(self, layer: Layer, y: Array, back_layer: Back3) -> tuple[Array, Back]:
        """What comes after the sums: batch norm and an activation, where the layer has them."""
        y, back_norm = self.norm(f"{layer.name}.norm", y, layer.norm) if layer.norm else identity(y)
        y, back_activation = ACTIVATIONS[layer.activation](y)

        def back(dy: Array) -> Array:
            dx, dw, db = back_layer(back_norm(back_activation(dy)))
            self.grads[f"{layer.name}.weight"] = dw
            if layer.bias:
                self.grads[f"{layer.name}.bias"] = db
            return dx

        return y, back

    def norm(self, name: str, x: Array, settings: BatchNorm) -> tuple[Array, Back]:
        """Batch norm: by the batch's own mean and biased variance in training, by the running ones otherwise."""
        mean, var = self.params[f"{name}.running_mean"], self.params[f"{name}.running_var"]
        shape, x = x.shape, x.reshape(*x.shape, *[1] * (4 - x.ndim))  # what a dense layer puts out is a 1 x 1 map
        if self.training:
            m, count = settings.momentum, x.size // x.shape[1]
            batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            correction = count / (count - 1) if settings.unbiased else 1.0
            self.statistics[f"{name}.running_mean"] = (1 - m) * mean + m * batch_mean
            self.statistics[f"{name}.running_var"] = (1 - m) * var + m * batch_var * correction
            mean, var = batch_mean, batch_var
        weight = self.params[f"{name}.weight"] if settings.affine else np.ones_like(mean)
        bias = self.params[f"{name}.bias"] if settings.affine else np.zeros_like(mean)
        y, back_norm = batch_norm(x, weight, bias, mean, var, settings.epsilon, of_batch=self.training)

        def back(dy: Array) -> Array:
            dx, dweight, dbias = back_norm(dy.reshape(x.shape))
            if settings.affine:
                self.grads[f"{name}.weight"], self.grads[f"{name}.bias"] = dweight, dbias
            return dx.reshape(shape)

        return y.reshape(shape), back


class _GoogLeNet(_Pass):
    config: GoogLeNetConfig

    def stages(self, x: Array) -> Stages:
        """Every stage's output, and every stage's `back`, in forward order."""
        config = self.config
        outputs: dict[str, Array] = {}
        backs: list[tuple[str, Back]] = []

        def stage(name: str, result: tuple[Array, Back]) -> Array:
            outputs[name] = result[0]
            backs.append((name, result[1]))
            return result[0]

        x = stage("conv1", self.conv("conv1", x))
        x = stage("pool1", max_pool(x, config.pool))
        if config.lrn:
            x = stage("norm1", local_response_norm(x, config.lrn))
        x = stage("conv2_reduce", self.conv("conv2_reduce", x))
        x = stage("conv2", self.conv("conv2", x))
        if config.lrn:
            x = stage("norm2", local_response_norm(x, config.lrn))
        x = stage("pool2", max_pool(x, config.pool))
        x = stage("inception3a", self.inception("inception3a", x))
        x = stage("inception3b", self.inception("inception3b", x))
        x = stage("pool3", max_pool(x, config.pool))
        x = stage("inception4a", self.inception("inception4a", x))
        if config.aux:
            stage("aux1", self.aux_head("aux1", x))
        x = stage("inception4b", self.inception("inception4b", x))
        x = stage("inception4c", self.inception("inception4c", x))
        x = stage("inception4d", self.inception("inception4d", x))
        if config.aux:
            stage("aux2", self.aux_head("aux2", x))
        x = stage("inception4e", self.inception("inception4e", x))
        x = stage("pool4", max_pool(x, config.pool4))
        x = stage("inception5a", self.inception("inception5a", x))
        x = stage("inception5b", self.inception("inception5b", x))
        x = stage("pool5", self.head_pool(x))
        stage("fc", self.classifier(x))
        return outputs, backs

    def inception(self, name: str, x: Array) -> tuple[Array, Back]:
        """Four branches side by side, concatenated over the channels in the order 1x1, 3x3, 5x5, pool."""
        y1, back1 = self.conv(f"{name}.branch1x1", x)
        reduced3, back3_reduce = self.conv(f"{name}.branch3x3_reduce", x)
        y3, back3 = self.conv(f"{name}.branch3x3", reduced3)
        reduced5, back5_reduce = self.conv(f"{name}.branch5x5_reduce", x)
        y5, back5 = self.conv(f"{name}.branch5x5", reduced5)
        pooled, back_pool = max_pool(x, BRANCH_POOL)
        yp, back_proj = self.conv(f"{name}.pool_proj", pooled)
        branches = [y1, y3, y5, yp]

        def back(dy: Array) -> Array:
            d1, d3, d5, dp = np.split(dy, np.cumsum([y.shape[1] for y in branches])[:-1], axis=1)
            return back1(d1) + back3_reduce(back3(d3)) + back5_reduce(back5(d5)) + back_pool(back_proj(dp))

        return np.concatenate(branches, axis=1), back

    def aux_head(self, name: str, x: Array) -> tuple[Array, Back]:
        """A classifier on an early stage: average pool to 4 x 4, 1x1 convolution, two dense layers."""
        if self.config.aux_adaptive:
            rows, columns = (adaptive_windows(size, AUX_SIDE) for size in x.shape[2:])
        else:
            rows, columns = (strided_windows(size, AUX_POOL_KERNEL, AUX_POOL_STRIDE) for size in x.shape[2:])
        pooled, back_pool = average_pool(x, rows, columns)
        y, back_conv = self.conv(f"{name}.conv", pooled)
        hidden, back_fc1 = self.fc(f"{name}.fc1", y.reshape(len(y), -1))  # flattened as (C, H, W)
        hidden, back_dropout = dropout(hidden, self.masks.get(name), self.config.aux_dropout)
        logits, back_fc2 = self.fc(f"{name}.fc2", hidden)

        def back(dy: Array) -> Array:
            dhidden = back_fc1(back_dropout(back_fc2(dy)))
            return back_pool(back_conv(dhidden.reshape(y.shape)))

        return logits, back

    def head_pool(self, x: Array) -> tuple[Array, Back]:
        """The average before the classifier: the whole map, or the one 7x7 window of `cnblogs`."""
        kernel = self.config.head_pool
        if kernel is None:
            rows, columns = (adaptive_windows(size, 1) for size in x.shape[2:])
        else:
            rows, columns = (strided_windows(size, kernel, kernel) for size in x.shape[2:])
        return average_pool(x, rows, columns)

    def classifier(self, x: Array) -> tuple[Array, Back]:
        """Dropout and the last dense layer on (N, C, 1, 1)."""
        kept, back_dropout = dropout(x.reshape(len(x), -1), self.masks.get("fc"), self.config.dropout)
        logits, back_fc = self.fc("fc", kept)
        return logits, lambda dy: back_dropout(back_fc(dy)).reshape(x.shape)


class _Sequence(_Pass):
    config: SequenceConfig

    def stages(self, x: Array) -> Stages:
        """Every row's output, and every row's `back`, in forward order."""
        kinds: dict[type, Callable[[Any, Array], tuple[Array, Back]]] = {
            Conv: self.conv_row,
            Dense: self.dense_row,
            MaxPool: self.pool_row,
            GlobalAverage: self.average_row,
        }
        outputs: dict[str, Array] = {}
        backs: list[tuple[str, Back]] = []
        for row in self.config.rows:
            x, back = kinds[type(row)](row, x)
            outputs[row.name] = x
            backs.append((row.name, back))
        return outputs, backs

    def conv_row(self, row: Conv, x: Array) -> tuple[Array, Back]:
        """Dropout where the row has it, and the convolution."""
        kept, back_dropout = dropout(x, self.masks.get(row.name), self.config.dropout)
        y, back_conv = self.conv(row.name, kept)
        return y, lambda dy: back_dropout(back_conv(dy))

    def dense_row(self, row: Dense, x: Array) -> tuple[Array, Back]:
        """Maps flattened as (C, H, W), dropout where the row has it, and the dense layer."""
        kept, back_dropout = dropout(x.reshape(len(x), -1), self.masks.get(row.name), self.config.dropout)
        y, back_dense = self.fc(row.name, kept)
        return y, lambda dy: back_dropout(back_dense(dy)).reshape(x.shape)

    def pool_row(self, row: MaxPool, x: Array) -> tuple[Array, Back]:
        """The max pool."""
        return max_pool(x, row.pool)

    def average_row(self, row: GlobalAverage, x: Array) -> tuple[Array, Back]:
        """(N, C): the mean of every map."""
        rows, columns = (adaptive_windows(size, 1) for size in x.shape[2:])
        y, back = average_pool(x, rows, columns)
        return y.reshape(x.shape[:2]), lambda dy: back(dy.reshape(y.shape))


_PASSES: dict[type[Config], type[_Pass]] = {GoogLeNetConfig: _GoogLeNet, SequenceConfig: _Sequence}


@dataclass(frozen=True)
class Training:
    """What one training-mode pass yields, by canonical name and in the order of `param_shapes`."""

    loss: float
    correct: int  # how many of the batch the classifier got right
    grads: dict[str, Array]
    statistics: dict[str, Array]  # the running statistics after the pass; empty without batch norm


def activations(config: Config, params: Arrays, images: Array) -> dict[str, Array]:
    """Every stage's output in inference mode (running statistics, no dropout), auxiliary heads included.

    Args:
        config: The network.
        params: Arrays by canonical name, as `param_shapes` says.
        images: (N, C, H, W), finite.

    Returns:
        Arrays by stage, in forward order: (N, C, H, W), or (N, C) where it ends in a dense layer.

    Raises:
        InvalidInput: when the parameters or the images do not fit.
    """
    check_params(config, params)
    images = check_images(config, images)
    return _PASSES[type(config)](config, _float64(params), training=False, masks={}).stages(images.astype(np.float64))[
        0
    ]


def predict(config: Config, params: Arrays, images: Array) -> Array:
    """Logits (N, num_classes) in inference mode; arguments and errors as `activations`."""
    return activations(config, params, images)[config.logits]


def loss_and_grads(
    config: Config, params: Arrays, images: Array, labels: Array, masks: Arrays | None = None
) -> Training:
    """Loss and its gradients in training mode (statistics of the batch, auxiliary heads weighted in).

    loss = CE(logits) + aux_weight · (CE(aux1) + CE(aux2)), each the mean cross-entropy over the batch.

    Args:
        config: The network.
        params: Arrays by canonical name, as `param_shapes` says; not changed.
        images: (N, C, H, W), finite.
        labels: (N,) whole numbers below num_classes.
        masks: What dropout keeps, boolean, as `mask_shapes` says. Without a mask a stage drops nothing.

    Raises:
        InvalidInput: when parameters, images, labels or masks do not fit.
    """
    check_params(config, params)
    images = check_images(config, images)
    labels = check_labels(config, labels, len(images))
    check_training_batch(config, images.shape)
    masks = check_masks(config, masks or {}, images.shape)
    run = _PASSES[type(config)](config, _float64(params), training=True, masks=masks)
    outputs, backs = run.stages(images.astype(np.float64))
    loss, gradient = softmax_cross_entropy(outputs[config.logits], labels, config.label_smoothing)
    for name, back in reversed(backs):
        if name in AUX_AFTER.values():  # a side branch: its gradient joins the trunk's
            aux_loss, aux_gradient = softmax_cross_entropy(outputs[name], labels, config.label_smoothing)
            loss += config.aux_weight * aux_loss
            gradient = gradient + back(config.aux_weight * aux_gradient)
        else:
            gradient = back(gradient)
    trained = (name for name in param_shapes(config) if not is_statistic(name))
    correct = int((outputs[config.logits].argmax(1) == labels).sum())
    return Training(loss, correct, {name: run.grads[name] for name in trained}, run.statistics)


def train_step(
    config: Config,
    params: Arrays,
    state: State,
    optimizer: Optimizer,
    images: Array,
    labels: Array,
    masks: Arrays | None = None,
) -> tuple[Step, dict[str, Array]]:
    """One step on a batch: the loss before it, and every array after it.

    Args:
        state: The optimizer's, changed in place; empty before the first step.
        optimizer: With the rate of this step.

    The other arguments, and what is raised, are those of `loss_and_grads`.
    """
    training = loss_and_grads(config, params, images, labels, masks)
    stepped = optimizer.update(params, training.grads, state)
    return Step(training.loss, training.correct), {**params, **stepped, **training.statistics}


def _float64(params: Arrays) -> Arrays:
    return {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
