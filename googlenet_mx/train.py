"""Training in MXNet: the loss, the optimizers of `spec.optimizers`, one step."""

from __future__ import annotations

import mxnet as mx
from mxnet import autograd, gluon, nd

import spec
from googlenet_mx.model import GoogLeNet

_cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()


def loss(config: spec.Config, outputs: spec.Outputs, labels: nd.NDArray) -> nd.NDArray:
    """Mean cross-entropy, the auxiliary heads' weighted in."""
    total = _cross_entropy(outputs.logits, labels).mean()
    for logits in (outputs.aux1, outputs.aux2):
        if logits is not None:
            total = total + config.aux_weight * _cross_entropy(logits, labels).mean()
    return total


class TextbookSGD(mx.optimizer.Optimizer):
    """`spec.SGD`. MXNet's own keeps the rate inside the momentum buffer, and rounds settings to float32."""

    def __init__(self, row: spec.SGD) -> None:
        super().__init__(learning_rate=row.rate)
        self.row = row

    def create_state(self, index: int, weight: nd.NDArray) -> nd.NDArray:
        """The momentum buffer."""
        return nd.zeros_like(weight)

    def update(self, index: int, weight: nd.NDArray, grad: nd.NDArray, state: nd.NDArray) -> None:
        """One step for one array, in place."""
        state *= self.row.momentum
        state += grad
        weight -= self.learning_rate * state


class TextbookAdam(mx.optimizer.Optimizer):
    """`spec.Adam`. MXNet's own leaves epsilon out of the bias correction, and rounds settings to float32."""

    def __init__(self, row: spec.Adam) -> None:
        super().__init__(learning_rate=row.rate)
        self.row = row

    def create_state(self, index: int, weight: nd.NDArray) -> tuple[nd.NDArray, nd.NDArray]:
        """The running means of the gradient and of its square."""
        return nd.zeros_like(weight), nd.zeros_like(weight)

    def update(self, index: int, weight: nd.NDArray, grad: nd.NDArray, state: tuple) -> None:
        """One step for one array, in place."""
        self._update_count(index)
        row, t = self.row, self._index_update_count[index]
        m, v = state
        m *= row.beta1
        m += (1 - row.beta1) * grad
        v *= row.beta2
        v += (1 - row.beta2) * grad**2
        weight -= self.learning_rate * (m / (1 - row.beta1**t)) / ((v / (1 - row.beta2**t)).sqrt() + row.epsilon)


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> gluon.Trainer:
    """Gluon's trainer around a row of `spec.optimizers`."""
    own = TextbookSGD(optimizer) if isinstance(optimizer, spec.SGD) else TextbookAdam(optimizer)
    return gluon.Trainer(model.collect_params(), own, kvstore=None)


def train_step(model: GoogLeNet, optimizer: gluon.Trainer, images: spec.Array, labels: spec.Array) -> mx.np.ndarray:
    """One step on a batch, in training mode; returns the loss before it, still on the device.

    Args:
        model: Changed in place, running statistics included.
        optimizer: From `make_optimizer`.
        images: (N, C, H, W).
        labels: (N,) classes.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    x, y = to_device(model, images, labels)
    with autograd.record():
        value = loss(model.config, model(x), y)
    value.backward()
    optimizer.step(1)  # the loss is already a mean
    return value.as_np_ndarray()  # which float() can read


def to_device(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[nd.NDArray, nd.NDArray]:
    """The batch as arrays of the model's dtype on its device, checked for training."""
    images = spec.check_images(model.config, images)
    labels = spec.check_labels(model.config, labels, len(images))
    spec.check_training_batch(model.config, images.shape)
    weight = model.fc.weight.data()
    return nd.array(images, weight.ctx, weight.dtype), nd.array(labels, weight.ctx, weight.dtype)
