"""NumPy in, NumPy out: what the network computes, for comparing and for predicting."""

from __future__ import annotations

from mxnet import autograd, nd

import spec
from googlenet_mx.model import GoogLeNet
from googlenet_mx.params import named_parameters
from googlenet_mx.train import loss, to_device


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """Logits (N, num_classes) of images (N, C, H, W), in inference mode.

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with autograd.predict_mode():
        return model(_images(model, images)).logits.asnumpy()


def activations(model: GoogLeNet, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, num_classes).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    with autograd.predict_mode():
        return {name: x.asnumpy() for name, x in model.stages(nd, _images(model, images), heads=True)}


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    x, y = to_device(model, images, labels)
    parameters = named_parameters(model)
    with autograd.record():
        ends, _ = model.training_pass(x, *model.training_pass.kept(x, {}))
        value = loss(model.config, model.training_pass.outputs(ends), y)
    value.backward()
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return value.asscalar().item(), {name: parameters[name].grad().asnumpy() for name in trained}


def _images(model: GoogLeNet, images: spec.Array) -> nd.NDArray:
    weight = model.fc.weight.data()
    return nd.array(spec.check_images(model.config, images), weight.ctx, weight.dtype)
