"""GoogLeNet in JAX, with Flax NNX.

What differs here: inside, images are (N, H, W, C) and kernels HWIO, so the auxiliary heads restore (C, H, W) before
they flatten; there is no ceiling mode, so pools pad below and to the right; batch norm is written out, since Flax
stores the biased running variance; float64 has to be switched on for the whole process.
"""

import googlenet_jax.device  # noqa: F401 (first: it sees to what XLA needs before it is used)
from googlenet_jax.ancestors import VGG, AlexNet, LeNet, NiN
from googlenet_jax.build import build
from googlenet_jax.device import describe, free_memory, peak_memory, wait
from googlenet_jax.googlenet import GoogLeNet
from googlenet_jax.inception import InceptionBN, InceptionResNetV2, InceptionV3, InceptionV4
from googlenet_jax.network import Network
from googlenet_jax.optimizer import dump_optimizer, load_optimizer, make_optimizer, set_rate
from googlenet_jax.params import dump_params, load_params
from googlenet_jax.predict import predict, predictor
from googlenet_jax.probe import activations, loss_and_grads
from googlenet_jax.train import (
    dataset_to_device,
    images_to_device,
    masks_to_device,
    to_device,
    train_step,
    update,
)

__all__ = [
    "VGG",
    "AlexNet",
    "GoogLeNet",
    "InceptionBN",
    "InceptionResNetV2",
    "InceptionV3",
    "InceptionV4",
    "LeNet",
    "Network",
    "NiN",
    "activations",
    "build",
    "dataset_to_device",
    "describe",
    "dump_optimizer",
    "dump_params",
    "free_memory",
    "images_to_device",
    "load_optimizer",
    "load_params",
    "loss_and_grads",
    "make_optimizer",
    "masks_to_device",
    "peak_memory",
    "predict",
    "predictor",
    "set_rate",
    "to_device",
    "train_step",
    "update",
    "wait",
]
