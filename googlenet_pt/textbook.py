"""GoogLeNet as textbooks write it in PyTorch: eager, (N, C, H, W), every default left as it is.

The benchmark times it beside `googlenet_pt`. Functions that are missing here are the package's.

Source: Zhang et al., Dive into Deep Learning, chapter 8.4, PyTorch tab.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spec
from googlenet_pt.device import precision, rounds, select_device, select_dtype
from googlenet_pt.predict import to_numpy
from googlenet_pt.train import images_to_device, to_device
from harness.backends.textbook import block_widths, check_config, check_optimizer
from harness.weights.names import SCHEMES, foreign, rename

_SCHEME = SCHEMES["d2l-sequential"]


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
    """The textbooks' network with those parameters.

    Raises:
        spec.InvalidInput: for another network or dtype, parameters that do not fit, or a device that is not there.
    """

    def __init__(self, config: spec.Config, dtype: str, device: str, params: spec.Arrays) -> None:
        check_config(config, dtype)
        nodes = spec.nodes(config)

        def inception(name: str) -> Inception:
            return Inception(nodes[f"{name}.branch1x1"].in_channels, *block_widths(nodes, name))

        b1 = nn.Sequential(nn.Conv2d(config.in_channels, 64, kernel_size=7, stride=2, padding=3), nn.ReLU(), _pool())
        b2 = nn.Sequential(
            nn.Conv2d(64, 64, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(64, 192, kernel_size=3, padding=1),
            nn.ReLU(),
            _pool(),
        )
        b3 = nn.Sequential(inception("inception3a"), inception("inception3b"), _pool())
        b4 = nn.Sequential(*(inception(f"inception4{letter}") for letter in "abcde"), _pool())
        b5 = nn.Sequential(
            inception("inception5a"), inception("inception5b"), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()
        )
        super().__init__(b1, b2, b3, b4, b5, nn.Linear(1024, config.num_classes))
        self.config = config
        self.to(select_device(device), select_dtype(dtype))
        self.tf32 = rounds(dtype, self.parameter.device)
        self.load_state_dict({name: torch.tensor(x) for name, x in foreign(params, _SCHEME, config).items()})

    @property
    def parameter(self) -> nn.Parameter:
        """Any parameter: its dtype and device are the images'."""
        return self[5].weight


build = GoogLeNet


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


def dump_params(model: GoogLeNet) -> dict[str, spec.Array]:
    """Like `googlenet_pt.dump_params`."""
    return _canonical(model, model.parameters())


def _canonical(model: GoogLeNet, tensors: Iterable[Tensor]) -> dict[str, spec.Array]:
    """Arrays by canonical name: one tensor for each parameter, in the model's order."""
    names = (name for name, _ in model.named_parameters())
    return rename(dict(zip(names, map(to_numpy, tensors), strict=True)), _SCHEME, model.config)


def make_optimizer(model: GoogLeNet, optimizer: spec.Optimizer) -> torch.optim.Optimizer:
    """PyTorch's own SGD; any other optimizer is refused."""
    check_optimizer(optimizer)
    return torch.optim.SGD(model.parameters(), lr=optimizer.rate)


def update(
    model: GoogLeNet, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, masks: dict[str, Tensor]
) -> spec.Step:
    """Like `googlenet_pt.update`; without dropout `masks` is empty."""
    model.train()
    optimizer.zero_grad()
    with precision(model.tf32):
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        loss.backward()
    optimizer.step()
    return spec.Step(loss.detach(), (logits.argmax(1) == y).sum())


def loss_and_grads(model: GoogLeNet, images: spec.Array, labels: spec.Array) -> tuple[float, dict[str, spec.Array]]:
    """Like `googlenet_pt.loss_and_grads`."""
    x, y = to_device(model, images, labels)
    with precision(model.tf32):
        loss = F.cross_entropy(model(x), y)
        grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), _canonical(model, grads)


def predictor(model: GoogLeNet, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The model itself in inference mode, for images of any size."""
    model.eval()

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad(), precision(model.tf32):
            return model(x)

    return logits


def predict(model: GoogLeNet, images: spec.Array) -> spec.Array:
    """Like `googlenet_pt.predict`."""
    x = images_to_device(model, images)
    return to_numpy(predictor(model, x)(x))
