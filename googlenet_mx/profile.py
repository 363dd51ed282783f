"""Every stage as calls of its own, to be timed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from mxnet import autograd, nd

import spec
from googlenet_mx.device import wait
from googlenet_mx.network import Network
from googlenet_mx.train import images_to_device

Call = Callable[[], None]


def stages(model: Network, images: spec.Array) -> Iterator[tuple[str, Call, Call]]:
    """Each stage in forward order: its name, a call that computes it, and one that computes its gradients too.

    `harness.bench.worker.operations.Operations.stages` says what the calls compute. Each stage is a
    graph of its own.

    Raises:
        spec.InvalidInput: when the images (N, C, H, W) do not fit.
    """
    names = spec.stage_names(model.config)
    x = images_to_device(model, images)
    masks = dict(zip(model.training_pass.rates, model.training_pass.masks(x, {}), strict=True))
    for name in names:
        layer = getattr(model, name)
        if name in masks:
            layer = partial(_with_mask, layer, masks[name])
        stage_input = x.copy()
        if name != names[0]:
            stage_input.attach_grad()
        yield name, partial(_forward, layer, x), partial(_forward_and_backward, layer, stage_input)
        if name not in spec.head_names(model.config):
            with autograd.train_mode():
                x = layer(x)


def _with_mask(layer: Callable[..., nd.NDArray], mask: nd.NDArray, x: nd.NDArray) -> nd.NDArray:
    return layer(x, mask)


def _forward(layer: Callable[[nd.NDArray], nd.NDArray], x: nd.NDArray) -> None:
    with autograd.train_mode():
        wait(layer(x))


def _forward_and_backward(layer: Callable[[nd.NDArray], nd.NDArray], x: nd.NDArray) -> None:
    with autograd.record():
        y = layer(x)
    y.backward()
    nd.waitall()
