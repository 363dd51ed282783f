"""GoogLeNet as the textbook's notebook has it in Gluon: operator by operator, every default left as it is.

The benchmark times it beside `googlenet_mx`. Functions that are missing here are the package's. MXNet's SGD rounds its
rate to float32, which float64 shows.

Source: Zhang et al., Dive into Deep Learning, chapters 8.4 and 3.6, MXNet tab.
"""

from __future__ import annotations

from collections.abc import Callable

from mxnet import autograd, gluon, nd
from mxnet.gluon import HybridBlock, nn

import spec
from googlenet_mx.device import select_device, select_dtype
from googlenet_mx.train import images_to_device, to_device
from harness.backends.textbook import check_config, check_optimizer
from harness.weights.names import SCHEMES, foreign, rename

_SCHEME = SCHEMES["gluon-sequential"]
_cross_entropy = gluon.loss.SoftmaxCrossEntropyLoss()


class Inception(HybridBlock):
    """Four branches side by side, concatenated over the channels."""

    def __init__(self, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> None:
        super().__init__()
        self.p1_1 = nn.Conv2D(c1, kernel_size=1, activation="relu")
        self.p2_1 = nn.Conv2D(c2[0], kernel_size=1, activation="relu")
        self.p2_2 = nn.Conv2D(c2[1], kernel_size=3, padding=1, activation="relu")
        self.p3_1 = nn.Conv2D(c3[0], kernel_size=1, activation="relu")
        self.p3_2 = nn.Conv2D(c3[1], kernel_size=5, padding=2, activation="relu")
        self.p4_1 = nn.MaxPool2D(pool_size=3, strides=1, padding=1)
        self.p4_2 = nn.Conv2D(c4, kernel_size=1, activation="relu")

    def hybrid_forward(self, F, x):
        b1 = self.p1_1(x)
        b2 = self.p2_2(self.p2_1(x))
        b3 = self.p3_2(self.p3_1(x))
        b4 = self.p4_2(self.p4_1(x))
        return F.concat(b1, b2, b3, b4, dim=1)


class GoogLeNet(nn.HybridSequential):
    """The notebook's network with those parameters.

    Raises:
        spec.InvalidInput: for another network or dtype, parameters that do not fit, or a device that is not there.
    """

    def __init__(self, config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> None:
        super().__init__()
        check_config(config, dtype)
        self.config = config
        b1, b2, b3, b4, b5 = (nn.HybridSequential() for _ in range(5))
        b1.add(nn.Conv2D(64, kernel_size=7, strides=2, padding=3, activation="relu"))
        b1.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
        b2.add(nn.Conv2D(64, kernel_size=1, activation="relu"))
        b2.add(nn.Conv2D(192, kernel_size=3, padding=1, activation="relu"))
        b2.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
        b3.add(Inception(64, (96, 128), (16, 32), 32))
        b3.add(Inception(128, (128, 192), (32, 96), 64))
        b3.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
        b4.add(Inception(192, (96, 208), (16, 48), 64))
        b4.add(Inception(160, (112, 224), (24, 64), 64))
        b4.add(Inception(128, (128, 256), (24, 64), 64))
        b4.add(Inception(112, (144, 288), (32, 64), 64))
        b4.add(Inception(256, (160, 320), (32, 128), 128))
        b4.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
        b5.add(Inception(256, (160, 320), (32, 128), 128))
        b5.add(Inception(384, (192, 384), (48, 128), 128))
        b5.add(nn.GlobalAvgPool2D())
        self.add(b1, b2, b3, b4, b5, nn.Dense(config.num_classes))
        self.cast(select_dtype(dtype))
        parameters = self._collect_params_with_prefix()
        for name, x in foreign(params, _SCHEME, config).items():
            parameters[name].shape = x.shape
            parameters[name].initialize(ctx=select_device(device))
            parameters[name].set_data(nd.array(x, dtype=parameters[name].dtype))

    @property
    def parameter(self) -> nd.NDArray:
        """Any parameter: its dtype and device are the images'."""
        return self[5].weight.data()


build = GoogLeNet


def dump_params(model: GoogLeNet) -> dict[str, spec.Array]:
    """Like `googlenet_mx.dump_params`."""
    parameters = model._collect_params_with_prefix()
    return rename({name: p.data().asnumpy() for name, p in parameters.items()}, _SCHEME, model.config)


def compiled(model: GoogLeNet) -> GoogLeNet:
    """The model itself, compiled to a graph from now on."""
    model.hybridize(static_alloc=True, static_shape=True)
    return model


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> gluon.Trainer:
    """Gluon's trainer with MXNet's own SGD; any other optimizer is refused."""
    check_optimizer(optimizer)
    return gluon.Trainer(model.collect_params(), "sgd", {"learning_rate": optimizer.rate})


def update(
    model: GoogLeNet, optimizer: gluon.Trainer, x: nd.NDArray, y: nd.NDArray, masks: dict[str, nd.NDArray]
) -> spec.Step:
    """Like `googlenet_mx.update`; without dropout `masks` is empty."""
    with autograd.record():
        logits = model(x)
        value = _cross_entropy(logits, y).mean()
    value.backward()
    # The loss is a mean. The notebook divides in the trainer instead, which rounds 1 / images to float32.
    optimizer.step(1)
    correct = (logits.argmax(axis=1) == y).sum()
    return spec.Step(value.as_np_ndarray(), correct.as_np_ndarray())


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """Like `googlenet_mx.loss_and_grads`."""
    x, y = to_device(model, images, labels)
    with autograd.record():
        value = _cross_entropy(model(x), y).mean()
    value.backward()
    grads = {name: p.grad().asnumpy() for name, p in model._collect_params_with_prefix().items()}
    return value.asscalar().item(), rename(grads, _SCHEME, model.config)


def predictor(model: GoogLeNet, x: nd.NDArray) -> Callable[[nd.NDArray], nd.NDArray]:
    """The notebook's forward pass, in inference mode."""
    return model


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """Like `googlenet_mx.predict`."""
    return model(images_to_device(model, images)).asnumpy()
