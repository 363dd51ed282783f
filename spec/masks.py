"""What dropout keeps: drawn once, by NumPy, for every framework.

No two frameworks' generators agree, and none of their states means anything to another framework. Masks that depend on
nothing but a seed and the number of the step make dropout comparable, and a run resumable anywhere.
"""

from __future__ import annotations

import zlib

import numpy as np

from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.network import AUX_AFTER, Config, Shape, layers


def mask_shapes(config: Config, count: int) -> dict[str, Shape]:
    """What each head drops from for `count` images: ``fc`` (count, channels), ``aux1`` and ``aux2`` (count, 1024)."""
    inputs = {layer.name: layer.in_channels for layer in layers(config)}
    shapes: dict[str, Shape] = {"fc": (count, inputs["fc"])}
    if config.aux:
        shapes |= {head: (count, inputs[f"{head}.fc2"]) for head in AUX_AFTER.values()}
    return shapes


def dropout_masks(config: Config, count: int, seed: int, step: int) -> dict[str, Array]:
    """What each head that drops keeps of `count` images in one step: boolean, shapes as `mask_shapes` says.

    Args:
        config: The network; a head whose dropout is 0 gets no mask.
        count: Images in the batch.
        seed: Of the run, 0 to 2^64 - 1.
        step: Number of the step in the run, from 0.

    Raises:
        InvalidInput: for a seed or a step that is none.
    """
    for what, value, limit in (("seed", seed, "2^64"), ("step", step, "2^63")):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2 ** int(limit[2:]):
            raise InvalidInput(f"{what}: expected a whole number from 0 to {limit} - 1, got {value!r}")
    masks = {}
    for head, shape in mask_shapes(config, count).items():
        fraction = config.dropout if head == "fc" else config.aux_dropout
        if fraction > 0:
            key = np.array([seed, zlib.crc32(f"dropout/{head}".encode())], np.uint64)
            # Drawing counts up the lowest of the four words, so that the steps' streams never meet.
            generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(step)]))
            masks[head] = generator.random(shape) >= fraction
    return masks


def check_masks(config: Config, masks: Arrays, count: int) -> Arrays:
    """The masks, after making sure that they fit.

    Raises:
        InvalidInput: unless they are boolean arrays of shapes that `mask_shapes` has.
    """
    expected = mask_shapes(config, count)
    for head, mask in masks.items():
        if head not in expected or np.shape(mask) != expected[head] or np.asarray(mask).dtype != bool:
            raise InvalidInput(
                f"masks: expected boolean arrays of {expected}, got {head} {np.asarray(mask).dtype} {np.shape(mask)}"
            )
    return masks
