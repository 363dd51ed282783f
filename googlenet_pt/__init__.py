"""GoogLeNet in PyTorch.

What differs here: images and weights are laid out as the spec has them (N, C, H, W); the framework's names are the
canonical ones; batch norm stores the unbiased running variance by itself; SGD and Adam are the textbook's.
"""

from googlenet_pt.ancestors import VGG, AlexNet, LeNet, NiN
from googlenet_pt.build import build
from googlenet_pt.device import describe, free_memory, peak_memory, wait
from googlenet_pt.googlenet import GoogLeNet
from googlenet_pt.inception import InceptionBN, InceptionResNetV2, InceptionV3, InceptionV4
from googlenet_pt.network import Network
from googlenet_pt.optimizer import dump_optimizer, load_optimizer, make_optimizer, set_rate
from googlenet_pt.params import dump_params, load_params
from googlenet_pt.predict import predict, predictor
from googlenet_pt.probe import activations, loss_and_grads
from googlenet_pt.train import (
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
