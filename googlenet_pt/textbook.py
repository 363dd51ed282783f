"""The network as textbooks write it in PyTorch, for comparison: eager, (N, C, H, W), every default left as it is.

It has the functions that the package has, for presets without anything that the textbooks do not have.

Source: Zhang et al., Dive into Deep Learning, chapter 8.4, PyTorch tab.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec
from googlenet_pt.device import describe, full_precision, peak_memory, select_device, select_dtype, wait
from googlenet_pt.train import images_to_device, masks_to_device, to_device
from harness.backends.textbook import block_widths, check_config, check_optimizer
from harness.weights.names import SCHEMES, foreign_names

__all__ = [
    "GoogLeNet",
    "build",
    "compiled",
    "describe",
    "dump_params",
    "images_to_device",
    "load_params",
    "loss_and_grads",
    "make_optimizer",
    "masks_to_device",
    "peak_memory",
    "predict",
    "predictor",
    "to_device",
    "train_step",
    "update",
    "wait",
]


class Inception(nn.Module):
    """Four branches side by side, concatenated over the channels; c1 to c4 are the widths of each."""

    def __init__(self, into: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> None:
        super().__init__()
        self.p1_1 = nn.Conv2d(into, c1, kernel_size=1)
        self.p2_1 = nn.Conv2d(into, c2[0], kernel_size=1)
        self.p2_2 = nn.Conv2d(c2[0], c2[1], kernel_size=3, padding=1)
        self.p3_1 = nn.Conv2d(into, c3[0], kernel_size=1)
        self.p3_2 = nn.Conv2d(c3[0], c3[1], kernel_size=5, padding=2)
        self.p4_1 = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
        self.p4_2 = nn.Conv2d(into, c4, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        b1 = F.relu(self.p1_1(x))
        b2 = F.relu(self.p2_2(F.relu(self.p2_1(x))))
        b3 = F.relu(self.p3_2(F.relu(self.p3_1(x))))
        b4 = F.relu(self.p4_2(self.p4_1(x)))
        return torch.cat((b1, b2, b3, b4), dim=1)


class GoogLeNet(nn.Sequential):
    """The network of a plain `spec.Config`, with those parameters, else `spec.init_params(config, seed)`.

    Raises:
        spec.InvalidInput: for a configuration or dtype that the textbooks do not have, and for a device that is not
            there.
    """

    def __init__(
        self,
        config: spec.Config,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: spec.Arrays | None = None,
    ) -> None:
        check_config(config, dtype)
        nodes = spec.nodes(config)
        inceptions = [_inception(nodes, name) for name in spec.stage_names(config) if name.startswith("inception")]
        b1 = nn.Sequential(nn.Conv2d(config.in_channels, 64, kernel_size=7, stride=2, padding=3), nn.ReLU(), _pool())
        b2 = nn.Sequential(
            nn.Conv2d(64, 64, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(64, 192, kernel_size=3, padding=1),
            nn.ReLU(),
            _pool(),
        )
        b3 = nn.Sequential(*inceptions[:2], _pool())
        b4 = nn.Sequential(*inceptions[2:7], _pool())
        b5 = nn.Sequential(*inceptions[7:], nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten())
        super().__init__(b1, b2, b3, b4, b5, nn.Linear(1024, config.num_classes))
        self.config = config
        self.to(select_device(device), select_dtype(dtype))
        load_params(self, spec.init_params(config, seed) if params is None else params)

    @property
    def parameter(self) -> nn.Parameter:
        """One of them: its dtype and device are the images'."""
        return next(self.parameters())


build = GoogLeNet  # the only network that the textbooks have here


def _inception(nodes: spec.Nodes, name: str) -> Inception:
    first = nodes[f"{name}.branch1x1"]
    return Inception(first.in_channels, *block_widths(nodes, name))


def _pool() -> nn.MaxPool2d:
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)


def compiled(model: GoogLeNet) -> GoogLeNet:
    """The model itself, which torch.compile will compile when it is first called.

    Raises:
        spec.InvalidInput: where PyTorch finds no C++ compiler, which it needs for the CPU.
    """
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise spec.InvalidInput("torch.compile: expected a C++ compiler, found neither g++ nor clang++; install g++")
    model.compile()
    return model


# ------------------------------------------------------------------------------------- names, in and out of the model


def _parameters(model: GoogLeNet) -> dict[str, nn.Parameter]:
    """The parameters by canonical name."""
    native = dict(model.named_parameters())
    return {name: native[theirs] for name, theirs in foreign_names(SCHEMES["d2l-sequential"], model.config).items()}


def load_params(model: GoogLeNet, params: spec.Arrays) -> None:
    """As `googlenet_pt.load_params`."""
    spec.check_params(model.config, params)
    with torch.no_grad():
        for name, parameter in _parameters(model).items():
            parameter.copy_(torch.from_numpy(np.array(params[name])))


def dump_params(model: GoogLeNet) -> dict[str, spec.Array]:
    """As `googlenet_pt.dump_params`."""
    return {name: _numpy(parameter) for name, parameter in _parameters(model).items()}


# ------------------------------------------------------------------------------------------- training and predicting


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's SGD as it comes.

    Raises:
        spec.InvalidInput: for anything but plain SGD.
    """
    check_optimizer(optimizer)
    return torch.optim.SGD(model.parameters(), lr=optimizer.rate)


def train_step(
    model: GoogLeNet,
    optimizer: torch.optim.Optimizer,
    images: spec.Array,
    labels: spec.Array,
    masks: spec.Arrays | None = None,
) -> spec.Step:
    """As `googlenet_pt.train_step`."""
    x, y = to_device(model, images, labels)
    return update(model, optimizer, x, y, {})


def update(
    model: GoogLeNet, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, kept: dict[str, Tensor]
) -> spec.Step:
    """As `googlenet_pt.update`; there is no dropout, so `kept` is empty."""
    model.train()
    optimizer.zero_grad()
    logits = model(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    optimizer.step()
    return spec.Step(loss.detach(), (logits.argmax(1) == y).sum())


def predictor(model: GoogLeNet, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The model itself in inference mode, whatever the shape of `x`."""
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x)

    return logits


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """As `googlenet_pt.predict`."""
    x = images_to_device(model, images)
    with full_precision():
        return _numpy(predictor(model, x)(x))


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """As `googlenet_pt.loss_and_grads`."""
    x, y = to_device(model, images, labels)
    parameters = _parameters(model)
    with full_precision():
        loss = F.cross_entropy(model(x), y)
        grads = torch.autograd.grad(loss, list(parameters.values()))
    return loss.item(), {name: _numpy(grad) for name, grad in zip(parameters, grads, strict=True)}


def _numpy(x: Tensor) -> spec.Array:
    return x.detach().cpu().numpy().copy()
