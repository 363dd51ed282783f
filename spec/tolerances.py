"""Bounds for a backend's distance from the referee, each with the measurement that it was set from.

An error is max |backend - referee| / max |referee| of one array; of a set of arrays the largest counts. In float64 at
these bounds nothing but rounding passes: a wrong pad or a lost ReLU shows as 1e-4 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spec.network import LRN, Config, walk


@dataclass(frozen=True)
class Tolerances:
    """Bounds for one dtype."""

    activations: float  # every stage, inference mode
    logits: float
    loss: float
    gradients: float  # every array
    step: float  # every array after one optimizer step


# Measured on a 2-core x86-64 CPU, the largest of pt, mx and jax (`make test test-slow` holds them to it):
#   float64   activations and logits 4e-15; loss 5e-14; gradients 6e-15 without batch norm, 5e-13 with it, 9e-12 where
#             it normalizes four values (1 x 1 maps, batch 4); step 5e-13.
#   float32   activations 1.2e-6; logits 3e-7; loss 1.6e-6; gradients 2.8e-6 where no two values tie.
#   tf32      no device of ours had it: PyTorch in float32 with what convolutions and products read rounded to 10 bits,
#             forward and backward, on four digits and on noise. Activations 1.1e-3; logits 9.8e-4; loss 8.8e-4; without
#             batch norm gradients 0.14 (all of them as one vector 2.6e-2), step 8.7e-3.
#   bfloat16  with 8 bits of mantissa, pt on four digits: logits 7.8e-3, loss 2.7e-3, gradients 0.30, step 4.5e-3. A
#             bound of 1 would let a gradient of zeros pass.
TOLERANCES = {
    "float64": Tolerances(activations=1e-12, logits=1e-12, loss=1e-12, gradients=1e-11, step=1e-12),
    "float32": Tolerances(activations=5e-6, logits=5e-6, loss=5e-6, gradients=2e-5, step=2e-5),
    "tf32": Tolerances(activations=5e-3, logits=5e-3, loss=5e-3, gradients=0.5, step=5e-2),
    "bfloat16": Tolerances(activations=5e-2, logits=5e-2, loss=5e-2, gradients=0.6, step=5e-2),
}

# All gradients as one vector, |backend - referee| / |referee|, on pictures and without batch norm. Measured: tf32
# 2.6e-2; bfloat16 0.07 to 0.18 (pt and jax, d2l on four images of digits or Fashion-MNIST, twelve trainings).
TOGETHER = {"tf32": 0.1, "bfloat16": 0.3}


def onnx_tolerances(config: Config, dtype: str) -> Tolerances:
    """The bounds for an evaluator that runs an ONNX graph in that dtype.

    ONNX holds the numbers of an operator in float32: epsilon of batch norm, alpha and beta of LRN. Float64 shows that.
    Measured: 5e-12 (bvlc), 6.5e-11 (torchvision), 3.9e-9 (torchvision where the statistics are those of pictures).
    """
    bounds, has_lrn = TOLERANCES[dtype], any(isinstance(node.op, LRN) for node in walk(config))
    rounded = dtype == "float64" and (config.batch_norm is not None or has_lrn)
    return replace(bounds, activations=2e-8, logits=2e-8) if rounded else bounds


@dataclass(frozen=True)
class Trajectory:
    """Bounds for a whole training in float64."""

    losses: float  # of every step
    parameters: float  # every array after the last step


# Measured over 20 steps on Fashion-MNIST, the largest of pt, mx and jax, losses and parameters
# (tests/test_trajectory.py has the settings and holds them to it):
#   SGD with momentum   8e-16 and 4e-15 (d2l, bvlc, cnblogs); 1.3e-13 and 3e-13 with batch norm.
#   Adam                8e-15 and 1.1e-12 (d2l, bvlc); 4e-14 and 2.0e-12 with batch norm and an epsilon of 1e-3.
# The rest is rounding: docs/testing.md, "Trajectories".
TRAJECTORY = Trajectory(losses=1e-12, parameters=1e-11)


def picture_tolerances(config: Config, dtype: str, shape: Sequence[int]) -> Tolerances:
    """The bounds for pictures, and for any images that were not chosen to be free of ties; shape is (N, C, H, W).

    Max pools and ReLUs meet values that tie but for rounding: float32 rounds them apart differently in each framework,
    and a gradient then goes to another pixel. Measured: gradients 2e-2, step 2e-5. Batch norm on a small batch
    amplifies that: gradients 0.28, step 0.04, and nudging the referee's own float64 weights by a few float32 roundings
    moves its gradients by as much as 0.6. There float32 proves the forward pass, and float64 the gradients.

    Batch norm also loses digits in its sums: see `rounding_of_sums`. The bounds are shares of that. Measured: gradients
    in float64 0.22 of it (Inception v4 at 107 pixels, 1.6e-10), 0.06 (v3 at 299) and 0.03 or less (the others), the
    step 0.15; the loss in float32 1e-3 of it (v4, 2.0e-4) and 2e-4 (v3 at 299, 2.1e-4). Batch norm's epsilon
    rounded to float32, a very small mistake, moves the gradients by 6.9e-6 (v4) and 5.7e-7 (v3 at 107).

    In tf32 batch norm moved single gradients by 2.6 times their largest value and the step by 0.26; in bfloat16 by 1.5
    and 0.11 (torchvision at 96 pixels, two seeds). Without it single gradients in bfloat16 are off by 0.30 to 0.72 in
    pt (d2l at 96 pixels, nine seeds) and 0.28 to 0.96 in jax (five): the worst is that of a bias of 16 channels, some
    pixels of which have taken the other side of a ReLU. No bound tells that from a lost gradient. `TOGETHER` does where
    much is lost, and the proof in float32 always.
    """
    bounds = TOLERANCES[dtype]
    if dtype in TOGETHER and config.batch_norm:
        return replace(bounds, gradients=5.0, step=0.5)
    if dtype == "bfloat16":
        return replace(bounds, gradients=2.0)
    if dtype == "tf32":
        return bounds
    lost = rounding_of_sums(config, dtype, shape)
    loss = max(bounds.loss, 2e-3 * lost)
    if dtype == "float64":
        return replace(bounds, loss=loss, gradients=max(bounds.gradients, lost / 2), step=max(bounds.step, lost / 4))
    if config.batch_norm:
        return replace(bounds, loss=min(loss, 1e-3), gradients=1.0, step=0.2)
    return replace(bounds, gradients=5e-2, step=5e-3)


def rounding_of_sums(config: Config, dtype: str, shape: Sequence[int]) -> float:
    """The most values that batch norm adds up for one mean, times its layers, in roundings of the dtype; 0 without it.

    MXNet and PyTorch add up a channel's values one after the other; PyTorch's threads and JAX add up parts; the referee
    adds pairwise. Where a picture is flat the values are equal, so that their roundings do not cancel: the variance of
    22,472 values is off by 3.4e-13 (JAX: 8e-14; in float32, PyTorch in channels_last: 1.5e-4), and every layer passes
    it on. That moves the gradients of Inception v4 at 107 pixels by 1.6e-10, all other rounding by 1.3e-12.
    """
    counts = [shape[0] * math.prod(node.out[1:]) for node in walk(config, tuple(shape[1:])) if node.norm]
    return float(max(counts, default=0) * len(counts) * np.finfo(dtype).eps)
