"""Bounds for a port's distance from the referee, each with the measurement that it was set from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """Of what was computed in one dtype, relative to the largest number of an array."""

    stages: float  # each from the port's own input
    loss: float
    statistics: float
    gradients: float
    steps: float  # each from the port's own gradients


# Measured: PyTorch on the kits of lenet, lenet-bn, d2l, bvlc, torchvision, inception-bn and inception-v3.
#   float64   stages 3.3e-15; loss 8.1e-15; statistics 2.4e-13; gradients 1.6e-11; steps 2.1e-16
#   float32   stages 1.8e-6; loss 1.1e-5; statistics 1.1e-4; gradients 0.23, since a ReLU or a max pool that two numbers
#             come near to sends them elsewhere; steps 5.9e-8
BOUNDS = {
    "float64": Bounds(stages=1e-12, loss=1e-12, statistics=1e-11, gradients=2e-10, steps=1e-12),
    "float32": Bounds(stages=1e-5, loss=1e-4, statistics=1e-3, gradients=0.5, steps=1e-6),
}
