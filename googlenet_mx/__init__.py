"""GoogLeNet in MXNet Gluon.

What differs here: inference and training are two graphs of one network, compiled on the first call; batch norm keeps
its running statistics itself, since MXNet stores the biased variance on CPUs and the unbiased one with cuDNN; both
optimizers are written out, since MXNet's differ from the textbook.
"""

import googlenet_mx.device  # noqa: F401 (first: it sees to what MXNet needs before it is imported)
from googlenet_mx.ancestors import VGG, AlexNet, LeNet, NiN
from googlenet_mx.build import build
from googlenet_mx.device import describe, free_memory, peak_memory, wait
from googlenet_mx.googlenet import GoogLeNet
from googlenet_mx.inception import InceptionBN, InceptionResNetV2, InceptionV3, InceptionV4
from googlenet_mx.network import Network
from googlenet_mx.optimizer import dump_optimizer, load_optimizer, make_optimizer, set_rate
from googlenet_mx.params import dump_params, load_params
from googlenet_mx.predict import predict, predictor
from googlenet_mx.probe import activations, loss_and_grads
from googlenet_mx.train import (
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
