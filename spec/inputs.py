"""Checks of images, labels and masks, with the same messages for the referee and every backend.

Public functions check what they are given, once. Those that take arrays on a device check nothing.
"""

from __future__ import annotations

import math

import numpy as np

from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.masks import check_masks
from spec.network import Config, Shape, walk
from spec.shapes import stage_shapes


def check_images(config: Config, images: Array) -> Array:
    """The images as an array, after making sure that the network can take them.

    Raises:
        InvalidInput: unless they are finite numbers of shape (N, C, H, W), N at least 1, that fit the network.
    """
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0:
        raise InvalidInput(f"images: expected (N, channels, height, width) with N at least 1, got {images.shape}")
    if images.dtype.kind not in "fiu":
        raise InvalidInput(f"images: expected numbers, got an array of {images.dtype}")
    stage_shapes(config, images.shape[1:])
    finite = np.isfinite(images)
    if not finite.all():
        bad = np.flatnonzero(~finite.all((1, 2, 3))).tolist()
        raise InvalidInput(
            f"images: NaN or infinity in {len(bad)} of {len(images)} images (first: image {bad[0]}); "
            "every pixel must be a finite number"
        )
    return images


def check_labels(config: Config, labels: Array, count: int) -> Array:
    """The labels as an int64 array, after making sure that there is one class for each image.

    Raises:
        InvalidInput: unless they are (count,) whole numbers from 0 to num_classes - 1.
    """
    labels = np.asarray(labels)
    if labels.shape != (count,):
        raise InvalidInput(f"labels: expected one for each of the {count} images, shape ({count},), got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise InvalidInput(f"labels: expected whole numbers, got an array of {labels.dtype}")
    outside = labels[(labels < 0) | (labels >= config.num_classes)]
    if len(outside):
        raise InvalidInput(
            f"labels: expected classes from 0 to {config.num_classes - 1}, got {sorted(set(outside.tolist()))}; "
            f"build the network with more num_classes or relabel"
        )
    return labels.astype(np.int64)


def check_batch(
    config: Config, images: Array, labels: Array, masks: Arrays | None = None
) -> tuple[Array, Array, Arrays]:
    """Images, labels and dropout masks as arrays, after making sure that the network can train on them.

    Raises:
        InvalidInput: as `check_images`, `check_labels`, `check_training_batch` and `check_masks` do.
    """
    images = check_images(config, images)
    labels = check_labels(config, labels, len(images))
    check_training_batch(config, images.shape)
    return images, labels, check_masks(config, masks or {}, images.shape)


def check_training_batch(config: Config, shape: Shape) -> None:
    """Make sure that batch norm has more than one value per channel to take a variance of.

    Args:
        config: The network.
        shape: (N, channels, height, width) of the batch.

    Raises:
        InvalidInput: when a normalized map is 1 x 1 and the batch is a single image.
    """
    if config.batch_norm is None or shape[0] > 1:
        return
    for node in walk(config, tuple(shape[1:])):
        if node.norm and math.prod(node.out[1:]) == 1:
            remedy = "" if node.is_dense else ", or larger images"
            raise InvalidInput(
                f"preset {config.preset} cannot train on one image of {shape[2]} x {shape[3]} pixels: batch norm "
                f"sees a single value per channel at {node.stage}; take a batch of at least 2{remedy}"
            )
