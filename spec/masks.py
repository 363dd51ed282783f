"""Dropout masks: drawn once, by NumPy, for every framework.

No two frameworks' generators agree, and none of their states means anything to another framework. Masks that depend on
nothing but a seed and the number of the step make dropout comparable, and a run resumable anywhere.
"""

from __future__ import annotations

import zlib

import numpy as np

from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.network import Config, Shape, walk
from spec.shapes import stage_shapes


def mask_shapes(config: Config, shape: Shape) -> dict[str, Shape]:
    """The shape of each stage's dropout mask, for images of `shape` (N, channels, height, width).

    A dense layer's mask is flat. In a GoogLeNet: ``fc`` (N, channels), ``aux1`` and ``aux2`` (N, 1024).

    Raises:
        InvalidInput: when such images do not fit.
    """
    stage_shapes(config, shape[1:])
    return {
        node.stage: (shape[0], *((node.in_channels,) if node.is_dense else node.into))
        for node in walk(config, tuple(shape[1:]))
        if node.dropout is not None
    }


def dropout_rates(config: Config) -> dict[str, float]:
    """The fraction that each stage drops of its input, by the names of `mask_shapes`; only those above 0."""
    return {node.stage: node.dropout for node in walk(config) if node.dropout}


def dropout_masks(config: Config, shape: Shape, seed: int, step: int) -> dict[str, Array]:
    """The masks of one step: boolean, true where dropout keeps a value, shapes as `mask_shapes` says.

    Args:
        config: The network; a stage whose dropout is 0 gets no mask.
        shape: (N, channels, height, width) of the batch.
        seed: Of the run, 0 to 2^64 - 1.
        step: Number of the step in the run, from 0.

    Raises:
        InvalidInput: for a seed or a step that is none, or images that do not fit.
    """
    for what, value, limit in (("seed", seed, "2^64"), ("step", step, "2^63")):
        if not isinstance(value, (int, np.integer)) or not 0 <= value < 2 ** int(limit[2:]):
            raise InvalidInput(f"{what}: expected a whole number from 0 to {limit} - 1, got {value!r}")
    masks, rates = {}, dropout_rates(config)
    shapes = mask_shapes(config, shape) if rates else {}
    for stage, fraction in rates.items():
        key = np.array([seed, zlib.crc32(f"dropout/{stage}".encode())], np.uint64)
        # Drawing counts up the lowest of the four words, so that the steps' streams never meet.
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, int(step)]))
        masks[stage] = generator.random(shapes[stage]) >= fraction
    return masks


def check_masks(config: Config, masks: Arrays, shape: Shape) -> Arrays:
    """The masks, after making sure that they fit images of `shape` (N, channels, height, width).

    Raises:
        InvalidInput: unless they are boolean arrays of shapes that `mask_shapes` has.
    """
    expected = mask_shapes(config, shape) if masks else {}
    for stage, mask in masks.items():
        if stage not in expected or np.shape(mask) != expected[stage] or np.asarray(mask).dtype != bool:
            raise InvalidInput(
                f"masks: expected boolean arrays of {expected}, got {stage} {np.asarray(mask).dtype} {np.shape(mask)}"
            )
    return masks
