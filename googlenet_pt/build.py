"""The network of any preset."""

from __future__ import annotations

import spec
from googlenet_pt.ancestors import VGG, AlexNet, LeNet, NiN
from googlenet_pt.googlenet import GoogLeNet
from googlenet_pt.network import Network

NETWORKS: dict[str, type[Network]] = {network.__name__: network for network in (GoogLeNet, LeNet, AlexNet, VGG, NiN)}


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
