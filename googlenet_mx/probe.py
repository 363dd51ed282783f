"""Every stage's output, the loss and its gradients, as NumPy arrays, to be compared."""

from __future__ import annotations

from mxnet import autograd, nd

import spec
from googlenet_mx.network import Network
from googlenet_mx.params import named_parameters
from googlenet_mx.train import images_to_device, loss, to_device


def activations(model: Network, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output in inference mode, auxiliary heads included: (N, C, H, W) or (N, num_classes).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    stages: dict[str, spec.Array] = {}

    def watch(stage: str, x: nd.NDArray) -> nd.NDArray:
        stages[stage] = x.asnumpy()
        return x

    with autograd.predict_mode():
        model(images_to_device(model, spec.check_images(model.config, images)), watch=watch)
    return stages


def loss_and_grads(model: Network, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """The training loss and its gradients by canonical name; the model stays as it was.

    Training mode: batch norm uses the batch's statistics, dropout drops as the configuration says, and the
    auxiliary losses are weighted in.

    Raises:
        spec.InvalidInput: when images or labels do not fit.
    """
    images, labels, _ = spec.check_batch(model.config, images, labels)
    x, y = to_device(model, images, labels)
    parameters = named_parameters(model)
    with autograd.record():
        ends, _ = model.training_pass(x, *model.training_pass.masks(x, {}))
        value = loss(model.config, model.training_pass.outputs(ends), y)
    value.backward()
    trained = (name for name in spec.param_shapes(model.config) if not spec.is_statistic(name))
    return value.asscalar().item(), {name: parameters[name].grad().asnumpy() for name in trained}
