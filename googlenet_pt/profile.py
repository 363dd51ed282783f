"""Every stage as calls of its own, to be timed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import spec
from googlenet_pt.device import autocast, wait
from googlenet_pt.network import Network
from googlenet_pt.train import images_to_device

Call = Callable[[], None]


def stages(model: Network, images: spec.Array) -> Iterator[tuple[str, Call, Call]]:
    """Each stage in forward order: its name, a call that computes it, and one that computes its gradients too.

    Both calls compute in training mode on the stage's real input, and wait. The gradients are those of the sum of the
    output by the stage's parameters and its input; the images have none, as in training. Running statistics move with
    every call.

    Args:
        model: Put into training mode.
        images: (N, C, H, W).

    Raises:
        spec.InvalidInput: when the images do not fit.
    """
    model.train()
    names = spec.stage_names(model.config)
    x = images_to_device(model, images)
    for name in names:
        layer = getattr(model, name)
        parameters = list(layer.parameters())
        yield name, *_calls(model, layer, x, parameters if name == names[0] else [x, *parameters])
        if name not in spec.head_names(model.config):
            with torch.no_grad(), autocast(model, x):
                x = layer(x).requires_grad_()


def _calls(model: Network, layer: nn.Module, x: Tensor, inputs: list[Tensor]) -> tuple[Call, Call]:
    def forward() -> None:
        with torch.no_grad(), autocast(model, x):
            layer(x)
        wait()

    def gradients() -> None:
        with autocast(model, x):
            y = layer(x)
        torch.autograd.grad(y, inputs, torch.ones_like(y))
        wait()

    return forward, gradients
