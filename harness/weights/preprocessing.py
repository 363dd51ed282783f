"""How pictures are prepared for a network: stored with the weights, and the same in every framework."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from harness.images.sources import resized
from harness.weights.checkpoint import Checkpoint
from spec import Array, InvalidInput

_ORDERS = {"gray": 1, "RGB": 3, "BGR": 3}


@dataclass(frozen=True)
class Preprocessing:
    """x = (scale · pixel - mean) / std, of pixels from 0 to 255.

    Attributes:
        size: Side in pixels that a picture is resized to.
        order: The channels: ``gray``, ``RGB`` or ``BGR``.
        scale: Factor of the pixels.
        mean, std: A number for each channel.
        labels: The classes' names; empty where nobody has named them.
    """

    size: int
    order: str
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the labels, which files hold apart."""
        table = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        del table["labels"]
        return table

    def apply(self, picture: Image.Image) -> Array:
        """One picture as the network takes it: (channels, size, size), float64."""
        pixels = resized(picture, _ORDERS[self.order], self.size)[:: -1 if self.order == "BGR" else 1]
        mean, std = (np.reshape(numbers, (-1, 1, 1)) for numbers in (self.mean, self.std))
        return np.ascontiguousarray((self.scale * pixels - mean) / std)


def preprocessing_of(weights: Checkpoint) -> Preprocessing:
    """How pictures are prepared for these weights: as the file says, or as in the run that it comes from.

    Otherwise pixels go from 0 to 1, at the preset's size.

    Raises:
        InvalidInput: when the file says something that cannot be.
    """
    config, metadata = weights.config, weights.metadata
    order = "gray" if config.in_channels == 1 else "RGB"
    table: Any = {"size": config.input_size, "order": order}
    labels = metadata.get("labels", ())
    try:
        if "preprocessing" in metadata:
            table |= metadata["preprocessing"]
        elif "run" in metadata:
            recipe, labels = metadata["run"]["recipe"], metadata["run"]["classes"]
            table |= {"size": recipe["size"], "mean": [recipe["mean"]], "std": [recipe["std"]]}
        made = Preprocessing(
            size=table["size"],
            order=table["order"],
            scale=float(table.get("scale", 1 / 255)),
            mean=tuple(float(x) for x in table.get("mean", [0.0])),
            std=tuple(float(x) for x in table.get("std", [1.0])),
            labels=tuple(str(label) for label in labels),
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InvalidInput(f"preprocessing: expected size, order, scale, mean and std, got {error}") from error
    check_preprocessing(made, config.in_channels, config.num_classes)
    return made


def check_preprocessing(made: Preprocessing, channels: int, classes: int) -> None:
    """Check that it fits a network of so many channels and classes.

    Raises:
        InvalidInput: naming everything that does not fit.
    """
    lengths = (1, channels)
    numbers = (made.scale, *made.mean, *made.std)
    checks = [
        (isinstance(made.size, int) and 0 < made.size <= 4096, f"size: expected 1 to 4096 pixels, got {made.size!r}"),
        (_ORDERS.get(made.order) == channels, f"order: expected one for {channels} channels, got {made.order!r}"),
        (len(made.mean) in lengths, f"mean: expected 1 or {channels} numbers, got {len(made.mean)}"),
        (len(made.std) in lengths, f"std: expected 1 or {channels} numbers, got {len(made.std)}"),
        (all(map(math.isfinite, numbers)), "scale, mean and std: expected finite numbers"),
        (all(x > 0 for x in made.std), "std: expected numbers above 0"),
        (len(made.labels) in (0, classes), f"labels: expected {classes}, got {len(made.labels)}"),
    ]
    if problems := [problem for passed, problem in checks if not passed]:
        raise InvalidInput("preprocessing: " + "; ".join(problems))
