"""The stages one by one, to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from mxnet import autograd, nd

import spec
from googlenet_mx.device import wait
from googlenet_mx.network import Network
from googlenet_mx.train import images_to_device


def stages(model: Network, images: spec.Array) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Every stage in forward order: its name, a call that computes it, and one that computes it and its gradients.

    Both calls work on what the stage is given for these images, in training mode, and wait for what they compute; the
    gradients are those with respect to that input and to the stage's parameters; the images have none, as in training.
    Each stage is a graph of its own.

    Args:
        model: Its parameters stay as they are.
        images: (N, C, H, W).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    first, *_ = names = spec.stage_names(model.config)
    x = images_to_device(model, images)
    kept = dict(zip(model.training_pass.rates, model.training_pass.kept(x, {}), strict=True))
    for name in names:
        layer = getattr(model, name)
        if name in kept:
            layer = partial(_with_mask, layer, kept[name])
        given = x.copy()
        if name != first:
            given.attach_grad()
        yield name, partial(_forward, layer, x), partial(_forward_and_backward, layer, given)
        if name not in spec.head_names(model.config):
            with autograd.train_mode():
                x = layer(x)


def _with_mask(layer: Callable[..., nd.NDArray], kept: nd.NDArray, x: nd.NDArray) -> nd.NDArray:
    return layer(x, kept)


def _forward(layer: Callable[[nd.NDArray], nd.NDArray], x: nd.NDArray) -> None:
    with autograd.train_mode():
        wait(layer(x))


def _forward_and_backward(layer: Callable[[nd.NDArray], nd.NDArray], x: nd.NDArray) -> None:
    with autograd.record():
        y = layer(x)
    y.backward()
    nd.waitall()
