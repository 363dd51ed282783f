"""A picture on its way through a network: the strongest feature maps of every stage and branch, as small pictures."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

import spec
from spec import Array
from spec.network import Concat

STAGE, BRANCH = 16, 8  # channels that are shown
_LARGEST = 112  # pixels: the largest side of a map as it is shown
# From nothing to the most, and below 0: colors that the color-blind tell apart, on dark and on light paper.
_RISING = ((18, 20, 40), (30, 80, 130), (45, 150, 140), (160, 205, 90), (253, 240, 160))
_FALLING = ((18, 20, 40), (110, 35, 80), (200, 60, 60), (250, 150, 90))


def _palette() -> tuple[bytes, bytes]:
    """Of 256 colors each: for maps that are 0 or more, and for those that are not, whose color 128 is 0."""

    def ramp(stops: tuple[tuple[int, int, int], ...], count: int) -> Array:
        places, colors = np.linspace(0, 1, count), np.array(stops)
        return np.stack([np.interp(places, np.linspace(0, 1, len(stops)), c) for c in colors.T], axis=1)

    both = np.concatenate([ramp(_FALLING, 129)[:0:-1], ramp(_RISING, 128)])
    return tuple(np.rint(x).astype(np.uint8).tobytes() for x in (ramp(_RISING, 256), both))  # type: ignore[return-value]


_POSITIVE, _SIGNED = _palette()


def branches(config: spec.Config, shape: spec.Shape) -> dict[str, tuple[str, int, int]]:
    """Of each branch that ends in a stage's output, by its last operation: the stage, its first channel, one past it.

    A branch that divides again is there as a whole, and by its parts.
    """
    nodes = {node.name: node for node in spec.walk(config, shape)}
    found: dict[str, tuple[str, int, int]] = {}

    def enter(name: str, stage: str, start: int) -> None:
        for read in nodes[name].reads:
            if nodes[read].stage == stage:
                found[read] = (stage, start, start + nodes[read].out_channels)
                if isinstance(nodes[read].op, Concat):
                    enter(read, stage, start)
            start += nodes[read].out_channels

    for name, node in nodes.items():
        if name == node.stage and isinstance(node.op, Concat):
            enter(name, node.stage, 0)
    return found


def feature_maps(stages: spec.Arrays, config: spec.Config, shape: spec.Shape) -> dict[str, list[dict[str, Any]]]:
    """The strongest channels of every stage and branch by name, for each picture.

    Args:
        stages: Outputs (N, C, H, W) or (N, C) by stage.
        config: The network.
        shape: (channels, height, width) of the pictures.

    Returns:
        JSON values: numbers of ``channels``, the strongest first (by the mean of |x|), each one's value with the
        largest |x| as ``peaks`` and where it is, [row, column], as ``at``; the channels' ``count``, the ``size`` of a
        map as it is shown, whether numbers are ``signed``, and all maps below one another as a PNG in base64.
    """
    parts = {stage: (stage, 0, x.shape[1], STAGE) for stage, x in stages.items()}
    parts |= {name: (*place, BRANCH) for name, place in branches(config, shape).items() if place[0] in stages}
    maps = {}
    for name, (stage, start, stop, most) in parts.items():
        x = stages[stage][:, start:stop]
        x = x.reshape(*x.shape[:2], *(x.shape[2:] or (1, 1)))
        maps[name] = [_strongest(picture, start, most) for picture in x]
    return maps


def _strongest(x: Array, start: int, most: int) -> dict[str, Any]:
    """Of one picture's maps (C, H, W), whose first is the stage's channel `start`."""
    order = np.argsort(-np.abs(x).mean((1, 2)), kind="stable")[:most]
    chosen = x[order]
    flat = chosen.reshape(len(chosen), -1)
    largest = np.abs(flat).argmax(1)
    peaks = flat[np.arange(len(flat)), largest]
    places = [divmod(int(i), x.shape[2]) for i in largest]
    signed = bool(chosen.min() < 0)
    share = chosen / np.where(peaks == 0, 1, np.abs(peaks))[:, None, None]
    levels = np.rint(128 + 127 * share if signed else 255 * share)
    size = [min(side, _LARGEST) for side in x.shape[1:]]
    return {
        "channels": (start + order).tolist(),
        "peaks": [float(f"{peak:.3g}") for peak in peaks],
        "at": places,
        "count": len(x),
        "size": size,
        "signed": signed,
        "png": _png(levels, size, _SIGNED if signed else _POSITIVE),
    }


def _png(levels: Array, size: list[int], palette: bytes) -> str:
    """Maps (N, H, W) of levels below one another; those that are too large are made smaller by means."""
    height, width = size
    gray = [Image.fromarray(x.astype(np.uint8)).resize((width, height), Image.Resampling.BOX) for x in levels]
    strip = Image.fromarray(np.concatenate([np.asarray(x) for x in gray]))
    strip.putpalette(palette)
    return encoded(strip)


def encoded(picture: Image.Image) -> str:
    """A picture as PNG, in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
