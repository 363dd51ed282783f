"""The network of any preset."""

from __future__ import annotations

import spec
from googlenet_pt.model import GoogLeNet
from googlenet_pt.network import Network
from googlenet_pt.sequence import Sequence

_KINDS: dict[type[spec.Config], type[Network]] = {network.takes: network for network in (GoogLeNet, Sequence)}


def build(config: spec.Config, dtype: str = "float32", device: str = "auto", seed: int = 0) -> Network:
    """A `GoogLeNet` or a `Sequence`, whichever the configuration is of; the arguments are those of `Network`.

    Raises:
        spec.InvalidInput: for a device that is not there or an unknown dtype.
    """
    return _KINDS[type(config)](config, dtype, device, seed)
