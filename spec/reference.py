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
from spec.inputs import check_batch, check_images
from spec.network import (
    LRN,
    Activation,
    AdaptiveAverage,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Config,
    Conv,
    Dense,
    GlobalAverage,
    MaxPool,
    Node,
    Pads,
    Pair,
    Step,
    is_statistic,
    loss_weights,
    pads,
    pair,
    param_shapes,
    walk,
)
from spec.optimizers import Optimizer, State
from spec.params import check_params

Back = Callable[[Array], Array]
Back3 = Callable[[Array], tuple[Array, Array, Array]]  # to the input, the weights and the biases

# ---------------------------------------------------------------------------------------------------- operations


def convolution(x: Array, w: Array, b: Array | None, stride: int | Pair, pad: int | Pair | Pads) -> tuple[Array, Back3]:
    """Cross-correlation of x (N, C, H, W) with w (O, C, h, w), zeros outside the image.

    Returns:
        (N, O, H', W') with H' = (H + above + below - h) // stride + 1, and back(dy) -> dx, dw, db.
    """
    sides, strides, edges = (w.shape[2], w.shape[3]), pair(stride), pads(pad)
    padded = np.pad(x, ((0, 0), (0, 0), *edges))
    windows = _windows(padded, sides, strides)  # N, C, H', W', h, w
    y = np.tensordot(windows, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    if b is not None:
        y = y + b[:, None, None]

    def back(dy: Array) -> tuple[Array, Array, Array]:
        dw = np.tensordot(dy, windows, axes=((0, 2, 3), (0, 2, 3)))
        dpadded = np.zeros_like(padded)
        for i, j in np.ndindex(*sides):
            _places(dpadded, i, j, strides, dy)[...] += np.tensordot(dy, w[:, :, i, j], (1, 0)).transpose(0, 3, 1, 2)
        return _inside(dpadded, edges, x), dw, dy.sum((0, 2, 3))

    return y, back


def identity(x: Array) -> tuple[Array, Back]:
    """x as it is."""
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


def max_pool(x: Array, pool: MaxPool) -> tuple[Array, Back]:
    """Largest value of each window, minus infinity outside the image.

    The gradient goes to the first maximum of the window in row-major order, and to no other. After a ReLU ties are
    the rule (zeros), so which one is first matters.
    """
    sides, strides = pool.sides, pool.strides
    counts = [pool.output_size(size, axis) for axis, size in enumerate(x.shape[2:])]
    down, across = map(_edges, x.shape[2:], counts, sides, strides, pool.pads)
    padded = np.pad(x, ((0, 0), (0, 0), down, across), constant_values=-np.inf)
    windows = _windows(padded, sides, strides)[:, :, : counts[0], : counts[1]].reshape(*x.shape[:2], *counts, -1)
    first = windows.argmax(-1)

    def back(dy: Array) -> Array:
        dpadded = np.zeros(padded.shape)
        for place, (i, j) in enumerate(np.ndindex(*sides)):
            _places(dpadded, i, j, strides, dy)[...] += dy * (first == place)
        return _inside(dpadded, (down, across), x)

    return windows.max(-1), back


def _edges(size: int, count: int, side: int, stride: int, pad: Pair) -> Pair:
    """The padding along one axis: a last window may hang over the edge by more than the pool pads."""
    before, after = pad
    return before, max((count - 1) * stride + side - (size + before), after)


Windows = Sequence[tuple[int, int]]  # first and one past the last pixel of each window along one side


def strided_windows(size: int, kernel: int, stride: int, pad: Pair = (0, 0)) -> Windows:
    """Windows of `kernel` pixels, `stride` apart, on `size` pixels with so many before and after; cut at the edges."""
    starts = range(-pad[0], size + pad[1] - kernel + 1, stride)
    return [(max(start, 0), min(start + kernel, size)) for start in starts]


def adaptive_windows(size: int, count: int) -> Windows:
    """`count` windows that cover `size` pixels: from floor(i·size / count) to ceil((i + 1)·size / count)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def average_pool(
    x: Array, rows: Windows, columns: Windows, divisors: tuple[int | None, int | None] = (None, None)
) -> tuple[Array, Back]:
    """Mean of every rectangle rows[i] x columns[j]: (N, C, len(rows), len(columns)).

    Divisors in place of the windows' own lengths make zeros outside the image count.
    """
    a, b = averaging_matrix(x.shape[2], rows, divisors[0]), averaging_matrix(x.shape[3], columns, divisors[1])
    return a @ x @ b.T, lambda dy: a.T @ dy @ b


def averaging_matrix(size: int, windows: Windows, divisor: int | None = None) -> Array:
    """(len(windows), size): row i holds 1 / length inside window i, or 1 / divisor, and 0 outside."""
    matrix = np.zeros((len(windows), size))
    for row, (start, stop) in zip(matrix, windows, strict=True):
        row[start:stop] = 1 / (divisor or stop - start)
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


def dropout(x: Array, mask: Array | None, fraction: float) -> tuple[Array, Back]:
    """x where `mask` (boolean, like x), zero elsewhere, divided by 1 - fraction; None keeps everything as it is."""
    if mask is None:
        return identity(x)
    scale = mask / (1 - fraction)
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


def _windows(x: Array, sides: Pair, strides: Pair) -> Array:
    windows: Array = sliding_window_view(x, sides, axis=(2, 3))  # type: ignore[call-overload]  # its stub: one axis
    return windows[:, :, :: strides[0], :: strides[1]]


def _places(padded: Array, i: int, j: int, strides: Pair, dy: Array) -> Array:
    """The pixels that stand at row i, column j of each window; a view."""
    (down, across), (rows, columns) = strides, dy.shape[2:]
    return padded[:, :, i : i + down * rows : down, j : j + across * columns : across]


def _inside(padded: Array, edges: Pads, x: Array) -> Array:
    """The part of a padded array that lies on the pixels of x."""
    (above, _), (left, _) = edges
    return padded[:, :, above : above + x.shape[2], left : left + x.shape[3]]


# ------------------------------------------------------------------------------------------------------- network


Backs = list[tuple[Node, Callable[[Array], tuple[Array, ...]]]]


def send_back(backs: Backs, gradients: dict[str, Array]) -> dict[str, Array]:
    """Send the gradients of stages' outputs back to every array, and return what arrives at the first input.

    Where several operations read the same output, their gradients add up.
    """
    ends = {node.stage: node.name for node, _ in backs}
    arriving = {ends[stage]: gradient for stage, gradient in gradients.items()}
    for node, back in reversed(backs):
        for name, dx in zip(node.reads, back(arriving.pop(node.name)), strict=True):
            arriving[name] = arriving[name] + dx if name in arriving else dx
    return arriving


@dataclass
class _Pass:
    """One run through a network; collects gradients and running statistics by canonical name."""

    config: Config
    params: Arrays
    training: bool
    masks: Arrays
    grads: dict[str, Array] = field(default_factory=dict)
    statistics: dict[str, Array] = field(default_factory=dict)

    def forward(self, nodes: Sequence[Node], x: Array) -> tuple[dict[str, Array], Backs]:
        """Run these nodes, the first of which reads x.

        Returns:
            Every stage's output, and every node's `back`, in forward order. The pass keeps neither: `back` refers to
            the pass, and all arrays would live on until Python looks for cycles.
        """
        outputs = {nodes[0].reads[0]: x}
        stages: dict[str, Array] = {}
        backs: Backs = []
        for node in nodes:
            read = [outputs[name] for name in node.reads]
            y, back = self.join(node, read) if isinstance(node.op, Concat | Add) else self.compute(node, read[0])
            stages[node.stage] = outputs[node.name] = y
            backs.append((node, back))
        return stages, backs

    def join(self, node: Node, read: list[Array]) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        """Branches side by side, or the end of a residual."""
        if isinstance(node.op, Add):
            *shortcut, branch = read
            y, back_activation = ACTIVATIONS[node.op.activation](sum(shortcut, node.op.scale * branch))
            return y, lambda dy: (*[d := back_activation(dy)] * len(shortcut), node.op.scale * d)
        edges = np.cumsum([y.shape[1] for y in read])[:-1]
        return np.concatenate(read, axis=1), lambda dy: tuple(np.split(dy, edges, axis=1))

    def compute(self, node: Node, x: Array) -> tuple[Array, Callable[[Array], tuple[Array, ...]]]:
        """An operation on one input."""
        y, back = _OPERATIONS[type(node.op)](self, node, x)
        return y, lambda dy: (back(dy),)

    def conv(self, node: Node, x: Array) -> tuple[Array, Back]:
        """Dropout where the layer has it, convolution, batch norm, activation."""
        dropped, back_dropout = self.dropout(node, x)
        weight, bias = self.params[f"{node.name}.weight"], self.params.get(f"{node.name}.bias")
        y, back_layer = convolution(dropped, weight, bias, node.op.stride, node.op.pad)
        y, back = self.finish(node, y, back_layer)
        return y, lambda dy: back_dropout(back(dy))

    def dense(self, node: Node, x: Array) -> tuple[Array, Back]:
        """The map flattened as (C, H, W), dropout where the layer has it, dense layer, batch norm, activation."""
        dropped, back_dropout = self.dropout(node, x.reshape(len(x), -1))
        weight, bias = self.params[f"{node.name}.weight"], self.params.get(f"{node.name}.bias")
        y, back_layer = dense(dropped, weight, bias)
        y, back = self.finish(node, y, back_layer)
        return y, lambda dy: back_dropout(back(dy)).reshape(x.shape)

    def dropout(self, node: Node, x: Array) -> tuple[Array, Back]:
        """The layer's input after dropout."""
        return identity(x) if node.dropout is None else dropout(x, self.masks.get(node.stage), node.dropout)

    def finish(self, node: Node, y: Array, back_layer: Back3) -> tuple[Array, Back]:
        """Batch norm and activation, where the layer has them."""
        y, back_norm = self.norm(f"{node.name}.norm", y, node.norm) if node.norm else identity(y)
        y, back_activation = ACTIVATIONS[node.op.activation](y)

        def back(dy: Array) -> Array:
            dx, dw, db = back_layer(back_norm(back_activation(dy)))
            self.grads[f"{node.name}.weight"] = dw
            if node.has_bias:
                self.grads[f"{node.name}.bias"] = db
            return dx

        return y, back

    def norm(self, name: str, x: Array, settings: BatchNorm) -> tuple[Array, Back]:
        """Batch norm: by the batch's own mean and biased variance in training, by the running ones otherwise."""
        mean, var = self.params[f"{name}.running_mean"], self.params[f"{name}.running_var"]
        shape, x = x.shape, x.reshape(*x.shape, *[1] * (4 - x.ndim))  # a dense layer's output counts as 1 x 1 maps
        if self.training:
            m, count = settings.momentum, x.size // x.shape[1]
            x = np.ascontiguousarray(x)  # with channels last NumPy would add a map's values one after the other
            batch_mean, batch_var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            correction = count / (count - 1) if settings.unbiased else 1.0
            self.statistics[f"{name}.running_mean"] = (1 - m) * mean + m * batch_mean
            self.statistics[f"{name}.running_var"] = (1 - m) * var + m * batch_var * correction
            mean, var = batch_mean, batch_var
        weight = self.params[f"{name}.weight"] if settings.scale else np.ones_like(mean)
        bias = self.params[f"{name}.bias"] if settings.shift else np.zeros_like(mean)
        y, back_norm = batch_norm(x, weight, bias, mean, var, settings.epsilon, of_batch=self.training)

        def back(dy: Array) -> Array:
            dx, dweight, dbias = back_norm(dy.reshape(x.shape))
            grads = {"weight": dweight, "bias": dbias}
            self.grads |= {f"{name}.{leaf}": grads[leaf] for leaf in settings.learned}
            return dx.reshape(shape)

        return y.reshape(shape), back

    def max_pool(self, node: Node, x: Array) -> tuple[Array, Back]:
        """The max pool."""
        return max_pool(x, node.op)

    def average_pool(self, node: Node, x: Array) -> tuple[Array, Back]:
        """The mean of each window."""
        op = node.op
        rows, columns = map(strided_windows, x.shape[2:], op.sides, op.strides, op.pads)
        return average_pool(x, rows, columns, op.sides if op.count_pad else (None, None))

    def adaptive_average(self, node: Node, x: Array) -> tuple[Array, Back]:
        """Means of as many windows as it makes."""
        rows, columns = (adaptive_windows(size, node.op.side) for size in x.shape[2:])
        return average_pool(x, rows, columns)

    def global_average(self, node: Node, x: Array) -> tuple[Array, Back]:
        """(N, C): the mean of every map."""
        rows, columns = (adaptive_windows(size, 1) for size in x.shape[2:])
        y, back = average_pool(x, rows, columns)
        return y.reshape(x.shape[:2]), lambda dy: back(dy.reshape(y.shape))

    def local_response_norm(self, node: Node, x: Array) -> tuple[Array, Back]:
        """Local response normalization."""
        return local_response_norm(x, node.op)


_OPERATIONS: dict[type, Callable[[_Pass, Any, Array], tuple[Array, Back]]] = {
    Conv: _Pass.conv,
    Dense: _Pass.dense,
    MaxPool: _Pass.max_pool,
    AveragePool: _Pass.average_pool,
    AdaptiveAverage: _Pass.adaptive_average,
    GlobalAverage: _Pass.global_average,
    LRN: _Pass.local_response_norm,
}


@dataclass(frozen=True)
class Training:
    """The results of one training pass, by canonical name, in the order of `param_shapes`."""

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
    run = _Pass(config, _float64(params), training=False, masks={})
    stages, _ = run.forward(walk(config, images.shape[1:]), images.astype(np.float64))
    return stages


def predict(config: Config, params: Arrays, images: Array) -> Array:
    """Logits (N, num_classes) in inference mode; arguments and errors as `activations`."""
    return activations(config, params, images)[config.logits]


def loss_and_grads(
    config: Config, params: Arrays, images: Array, labels: Array, masks: Arrays | None = None
) -> Training:
    """Loss and its gradients in training mode (statistics of the batch, auxiliary heads weighted in).

    loss = CE(logits) + aux_weight · Σ CE(head), each the mean cross-entropy over the batch.

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
    images, labels, masks = check_batch(config, images, labels, masks)
    run = _Pass(config, _float64(params), training=True, masks=masks)
    outputs, backs = run.forward(walk(config, images.shape[1:]), images.astype(np.float64))
    loss, gradients = 0.0, {}
    for name, weight in loss_weights(config).items():
        cross_entropy, gradient = softmax_cross_entropy(outputs[name], labels, config.label_smoothing)
        loss += weight * cross_entropy
        gradients[name] = weight * gradient
    send_back(backs, gradients)
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
    scale: float = 1.0,
) -> tuple[Step, dict[str, Array]]:
    """One step on a batch: the loss before it, and every array after it.

    Args:
        state: The optimizer's, changed in place; empty before the first step.
        optimizer: With the rate of this step.
        scale: Factor of the loss's gradient, for a batch that is to count for less than a whole one.

    The other arguments, and what is raised, are those of `loss_and_grads`.
    """
    training = loss_and_grads(config, params, images, labels, masks)
    grads = {name: scale * gradient for name, gradient in training.grads.items()}
    stepped = optimizer.update(params, grads, state)
    return Step(training.loss, training.correct), {**params, **stepped, **training.statistics}


def _float64(params: Arrays) -> Arrays:
    return {name: np.asarray(value, dtype=np.float64) for name, value in params.items()}
