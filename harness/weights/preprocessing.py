"""How pictures are prepared for a network: stored with the weights, and the same in every framework."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.atomic import StrPath
from harness.images.sources import resized
from harness.weights.checkpoint import Checkpoint
from spec import Array, Config, InvalidInput

_ORDERS = {"gray": 1, "RGB": 3, "BGR": 3}
_LARGEST_LABELS = 2**20  # bytes


@dataclass(frozen=True)
class Preprocessing:
    """x = (scale · pixel - mean) / std, of pixels from 0 to 255.

    Attributes:
        size: Side in pixels that a picture is resized to.
        order: The channels: ``gray``, ``RGB`` or ``BGR``.
        scale: Factor of the pixels.
        mean, std: A number for each channel.
        labels: The classes' names; empty where nobody has named them.
        source: Whose way this is, where the file is foreign.
        assumed: Whether nobody has said that it is the way of these weights.
    """

    size: int
    order: str
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] = ()
    source: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        pixel = {1.0: "pixel", 1 / 255: "pixel / 255"}.get(self.scale, f"{self.scale:g} pixel")
        mean, std = (
            f"({', '.join(f'{x:g}' for x in numbers)})" if len(numbers) > 1 else f"{numbers[0]:g}"
            for numbers in (self.mean, self.std)
        )
        return f"{self.size} x {self.size}, {self.order}, ({pixel} - {mean}) / {std}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the labels, which files hold apart."""
        table = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        del table["labels"]
        if not self.source:
            del table["source"], table["assumed"]
        return table

    def apply(self, picture: Image.Image) -> Array:
        """One picture as the network takes it: (channels, size, size), float64."""
        return self.numbers(resized(picture, _ORDERS[self.order], self.size))

    def numbers(self, pixels: Array) -> Array:
        """What the network takes of pixels (..., channels, H, W), gray or RGB, from 0 to 255; float64."""
        ordered = pixels[..., ::-1, :, :] if self.order == "BGR" else pixels
        mean, std = (np.reshape(numbers, (-1, 1, 1)) for numbers in (self.mean, self.std))
        return np.ascontiguousarray((self.scale * ordered - mean) / std)


@dataclass(frozen=True)
class _Publisher:
    """Whoever published weights under a scheme's names, and how pictures are prepared for them.

    With another number of classes somebody else has trained the network, mostly from these weights.
    """

    way: str
    channels: int
    classes: int
    settings: dict[str, Any] = field(default_factory=dict)
    otherwise: str = ""  # what is common too, where others have trained


_BOOK = _Publisher("as in the book's notebooks, on Fashion-MNIST", 1, 10)
# By scheme of `harness.weights.names`. Sources: docs/names.md, "Other people's files"; gluoncv/data/transforms/presets.
_PUBLISHERS = {
    "torchvision": _Publisher(
        "as for torchvision's own weights, which have transform_input=True",
        3,
        1000,
        {"mean": (0.5,), "std": (0.5,)},
        "; where it is False, --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
    "caffe": _Publisher(
        "as for BVLC's own weights", 3, 1000, {"order": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 123.0)}
    ),
    "d2l-sequential": _BOOK,
    "d2lzh-sequential": _BOOK,
    "gluon-sequential": _BOOK,
    "d2l-today": _BOOK,
    "d2l-today-sequential": _BOOK,
    "d2l-attributes": _BOOK,
    "d2l-today-attributes": _BOOK,
    "gluon-today": _BOOK,
    "gluon-today-sequential": _BOOK,
    "linen-today": _BOOK,
    "gluoncv": _Publisher(
        "as for GluonCV's own weights", 3, 1000, {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    ),
}


def published(scheme: str, config: Config) -> Preprocessing:
    """How pictures are prepared for a foreign file in a scheme's names: as its publisher says, or else as assumed."""
    plain = Preprocessing(config.input_size, "gray" if config.in_channels == 1 else "RGB")
    publisher = _PUBLISHERS.get(scheme)
    if publisher is None or publisher.channels != config.in_channels:
        return replace(plain, source="as the file does not say", assumed=True)
    known = publisher.classes == config.num_classes
    source = publisher.way if known else publisher.way + publisher.otherwise
    return replace(plain, **publisher.settings, source=source, assumed=not known)


def preprocessing_of(weights: Checkpoint) -> Preprocessing:
    """How pictures are prepared for these weights: as the file says, or as in the run that it comes from.

    Otherwise it is assumed that pixels go from 0 to 1, at the preset's size.

    Raises:
        InvalidInput: when the file says something that cannot be.
    """
    config, metadata = weights.config, weights.metadata
    assumed = published("", config)
    table: dict[str, Any] = assumed.as_json()
    labels = metadata.get("labels", ())
    try:
        if "preprocessing" in metadata:
            table |= {"source": "", "assumed": False} | metadata["preprocessing"]
        elif "run" in metadata:
            recipe, labels = metadata["run"]["recipe"], metadata["run"]["classes"]
            table |= {"size": recipe["size"], "mean": np.ravel(recipe["mean"]), "std": np.ravel(recipe["std"])}
            table |= {"source": "", "assumed": False}
        made = Preprocessing(
            size=table["size"],
            order=table["order"],
            scale=float(table["scale"]),
            mean=tuple(float(x) for x in table["mean"]),
            std=tuple(float(x) for x in table["std"]),
            labels=tuple(str(label) for label in labels),
            source=str(table["source"]),
            assumed=bool(table["assumed"]),
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InvalidInput(f"preprocessing: expected size, order, scale, mean and std, got {error}") from error
    check_preprocessing(made, config.in_channels, config.num_classes)
    return made


def chosen(weights: Checkpoint, labels: StrPath | None = None, **options: Any) -> Preprocessing:
    """How pictures are prepared: as stored with the weights, except for the options.

    Args:
        weights: The weights.
        labels: A file with the classes' names, one a line.
        **options: ``size``, ``order``, ``scale``, and ``mean`` and ``std`` as texts, ``0.5`` or ``0.5,0.4,0.3``; None
            leaves what is stored.

    Raises:
        InvalidInput: when it does not fit the network, or the labels cannot be read.
    """
    labels = None if labels is None else Path(labels)
    changes = {name: value for name, value in options.items() if value is not None}
    changes |= {name: _parsed(f"--{name}", changes[name]) for name in ("mean", "std") if name in changes}
    if changes.keys() - {"size"}:
        changes |= {"source": "", "assumed": False}
    if labels is not None:
        changes["labels"] = _read_labels(labels)
    prepare = replace(preprocessing_of(weights), **changes)
    check_preprocessing(prepare, weights.config.in_channels, weights.config.num_classes)
    return prepare


def _parsed(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(f"{option}: expected numbers separated by commas, got {text!r}") from error


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        if path.exists() and not path.is_file():  # a pipe may never end
            raise InvalidInput(
                f"--labels {path}: expected a file with a name a line, got something else; save it as one"
            )
        with path.open("rb") as file:
            lines = file.read(_LARGEST_LABELS).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--labels {path}: cannot be read ({error})") from error
    return tuple(line.strip() for line in lines if line.strip())


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
