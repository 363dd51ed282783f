"""Every stage as calls of its own, to be timed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import spec
from googlenet_pt.device import autocast, precision, wait
from googlenet_pt.network import Network
from googlenet_pt.train import images_to_device

Call = Callable[[], None]


def stages(model: Network, images: spec.Array) -> Iterator[tuple[str, Call, Call]]:
    """Each stage in forward order: its name, a call that computes it, and one that computes its gradients too.

    `harness.bench.worker.operations.Operations.stages` says what the calls compute. Puts the model into
    training mode, and every call moves running statistics.

    Raises:
        spec.InvalidInput: when the images (N, C, H, W) do not fit.
    """
    model.train()
    names = spec.stage_names(model.config)
    x = images_to_device(model, images)
    for name in names:
        layer = getattr(model, name)
        parameters = list(layer.parameters())
        yield name, *_calls(model, layer, x, parameters if name == names[0] else [x, *parameters])
        if name not in spec.head_names(model.config):
            with torch.no_grad(), precision(model.tf32), autocast(model, x):
                x = layer(x).requires_grad_()


def _calls(model: Network, layer: nn.Module, x: Tensor, inputs: list[Tensor]) -> tuple[Call, Call]:
    def forward() -> None:
        with torch.no_grad(), precision(model.tf32), autocast(model, x):
            layer(x)
        wait()

    def gradients() -> None:
        with precision(model.tf32):
            with autocast(model, x):
                y = layer(x)
            torch.autograd.grad(y, inputs, torch.ones_like(y))
        wait()

    return forward, gradients
