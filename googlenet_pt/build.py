"""The network of any preset."""

from __future__ import annotations

import spec
from googlenet_pt.ancestors import VGG, AlexNet, LeNet, NiN
from googlenet_pt.googlenet import GoogLeNet
from googlenet_pt.inception import InceptionBN, InceptionResNetV2, InceptionV3, InceptionV4
from googlenet_pt.network import Network

_NETWORKS = (GoogLeNet, LeNet, AlexNet, VGG, NiN, InceptionBN, InceptionV3, InceptionV4, InceptionResNetV2)
NETWORKS: dict[str, type[Network]] = {network.__name__: network for network in _NETWORKS}


def build(
    config: spec.Config,
    dtype: str = "float32",
    device: str = "auto",
    seed: int = 0,
    params: spec.Arrays | None = None,
) -> Network:
    """The network of the configuration's family; the other arguments are those of `Network.finish`.

    Raises:
        spec.InvalidInput: for a device that is not there, an unknown dtype, or parameters that do not fit.
    """
    return NETWORKS[config.family](config, dtype=dtype, device=device, seed=seed, params=params)
