"""How pictures are prepared for a network: stored with the weights, and the same in every framework.

Publishers prepare them differently, and nothing in a file of weights says so: `PUBLISHERS` has them by name.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.atomic import StrPath
from harness.images.framing import INTERPOLATIONS, framed
from harness.weights.checkpoint import Checkpoint
from spec import Array, Config, InvalidInput
from spec.errors import did_you_mean

_ORDERS = {"gray": 1, "RGB": 3, "BGR": 3}
_LARGEST_LABELS = 2**20  # bytes
_LARGEST_SIDE = 4096  # pixels
_USUAL: dict[str, Any] = {"resize": (), "crop": 1.0, "interpolation": "bilinear"}


@dataclass(frozen=True)
class Preprocessing:
    """x = (scale · pixel - mean) / std, of pixels from 0 to 255, of the middle of a resized picture.

    Attributes:
        size: Side in pixels of what the network takes.
        resize, crop, interpolation: How a picture becomes that, as in `harness.images.framing.framed`.
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
    resize: tuple[int, ...] = ()
    crop: float = 1.0
    interpolation: str = "bilinear"
    labels: tuple[str, ...] = ()
    source: str = ""
    assumed: bool = False

    def __str__(self) -> str:
        pixel = {1.0: "pixel", 1 / 255: "pixel / 255"}.get(self.scale, f"{self.scale:g} pixel")
        mean, std = (
            f"({', '.join(f'{x:g}' for x in numbers)})" if len(numbers) > 1 else f"{numbers[0]:g}"
            for numbers in (self.mean, self.std)
        )
        side = f"{self.size} x {self.size}"
        cut = f"the middle {self.crop:.1%} of height and width, " if self.crop < 1 else ""
        if self.resize:
            whole = " x ".join(map(str, self.resize)) if self.resize[1:] else f"shorter side {self.resize[0]}"
            frame = f"{cut}{whole} ({self.interpolation}), of that the middle {side}"
        else:
            frame = f"{cut}{side} ({self.interpolation})"
        return f"{frame}, {self.order}, ({pixel} - {mean}) / {std}"

    def as_json(self) -> dict[str, Any]:
        """Plain values, without the labels, which files hold apart, and without what is as usual."""
        table = asdict(self) | {"mean": list(self.mean), "std": list(self.std), "resize": list(self.resize)}
        del table["labels"]
        if not self.source:
            del table["source"], table["assumed"]
        return {name: value for name, value in table.items() if name not in _USUAL or name in self.frame}

    @property
    def frame(self) -> dict[str, Any]:
        """How a picture is cut and resized, where it is not as usual: arguments of `harness.images.framing.framed`."""
        return {name: getattr(self, name) for name, usual in _USUAL.items() if getattr(self, name) != usual}

    def apply(self, picture: Image.Image) -> Array:
        """One picture as the network takes it: (channels, size, size), float64."""
        return self.numbers(framed(picture, _ORDERS[self.order], self.size, **self.frame))

    def numbers(self, pixels: Array) -> Array:
        """What the network takes of pixels (..., channels, H, W), gray or RGB, from 0 to 255; float64."""
        ordered = pixels[..., ::-1, :, :] if self.order == "BGR" else pixels
        mean, std = (np.reshape(numbers, (-1, 1, 1)) for numbers in (self.mean, self.std))
        return np.ascontiguousarray((self.scale * ordered - mean) / std)

    def at(self, size: int) -> Preprocessing:
        """The same for another size: it shows the same part of a picture."""
        return replace(self, size=size, resize=tuple(round(side * size / self.size) for side in self.resize))

    def whole(self) -> Preprocessing:
        """As the batches of a training are prepared: nothing is cut off, and Pillow's bilinear filter resizes."""
        made = replace(self, **_USUAL)
        source = ", but ".join(filter(None, [self.source, "whole and bilinear, as in training"]))
        return made if made == self else replace(made, source=source)


@dataclass(frozen=True)
class Publisher:
    """Whoever published weights, and how pictures are prepared for them.

    With another number of classes somebody else has trained the network, mostly from these weights.
    """

    way: str
    classes: int
    settings: dict[str, Any]  # of `Preprocessing`, at the publisher's own size
    channels: int = 3
    otherwise: str = ""  # what is common too, where others have trained

    def prepare(self, config: Config) -> Preprocessing:
        """For a network that may be of another size."""
        own = {"size": config.input_size, "order": "gray" if config.in_channels == 1 else "RGB"} | self.settings
        return replace(Preprocessing(**own), source=self.way).at(config.input_size)


_HALF = {"mean": (0.5,), "std": (0.5,)}  # pixels from -1 to 1
_HALF_OF_256 = {"scale": 1.0, "mean": (128.0,), "std": (128.0,)}  # from -1 to almost 1
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_OPENCV, _TF1 = ({"interpolation": f"bilinear-{name}"} for name in ("opencv", "tf1"))
_256, _341, _333 = (
    {"size": size, "resize": (side,)} for side, size in [(256, 224), (341, 299), (333, 299)]
)  # shorter side, and of that the middle
# In a table, with what is known of each: docs/preprocessing.md. Sources: torchvision/transforms/_presets.py;
# timm/data/transforms_factory.py and default configurations; pretrainedmodels/utils.py of Cadene/pretrained-models;
# scripts/classification/imagenet of dmlc/gluon-cv; example/image-classification/test_score.py of apache/mxnet;
# preprocessing/inception_preprocessing.py of research/slim; keras/applications/imagenet_utils.py; the three of FID.
PUBLISHERS = {
    "torchvision": Publisher(
        "as for torchvision's own weights, which have transform_input=True",
        1000,
        _256 | _HALF,
        otherwise="; where it is False, --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
    "timm": Publisher("as for timm's Inception v3 and v4", 1000, _341 | {"interpolation": "bicubic"} | _HALF),
    "timm-resnet-v2": Publisher("as for timm's Inception-ResNet-v2", 1000, _333 | {"interpolation": "bicubic"} | _HALF),
    "cadene": Publisher("as for Cadene's Inception v4 and Inception-ResNet-v2", 1000, _341 | _HALF),
    "cadene-bn": Publisher(
        "as for Cadene's Inception-BN", 1000, _256 | {"order": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 128.0)}
    ),
    "caffe": Publisher(
        "as for BVLC's own weights",
        1000,
        _OPENCV | {"size": 224, "resize": (256, 256), "order": "BGR", "scale": 1.0, "mean": (104.0, 117.0, 123.0)},
    ),
    "mxnet-bn": Publisher(
        "as for MXNet's Inception-BN", 1000, _256 | _OPENCV | {"scale": 1.0, "mean": (123.68, 116.779, 103.939)}
    ),
    "gluon": Publisher("as for Gluon's and GluonCV's own weights", 1000, _256 | _OPENCV | _IMAGENET),
    "keras": Publisher("as for Keras' own weights, with load_img", 1000, {"interpolation": "nearest"} | _HALF),
    "slim": Publisher("as for slim's own weights", 1001, {"crop": 0.875} | _TF1 | _HALF),
    "pytorch-fid": Publisher("as in pytorch-fid", 1008, {"interpolation": "bilinear-torch"} | _HALF),
    "torch-fidelity": Publisher("as in torch-fidelity and torchmetrics", 1008, _TF1 | _HALF_OF_256),
    "clean-fid": Publisher("as in clean-fid", 1008, {"interpolation": "bicubic-floats"} | _HALF_OF_256),
    "d2l": Publisher("as in the book's notebooks, on Fashion-MNIST", 10, {}, channels=1),
}
_V3, _V3_TF, _V3_FID, _V4, _RESNET = (
    "inception-v3",
    "inception-v3-tf",
    "inception-v3-fid",
    "inception-v4",
    "inception-resnet-v2",
)
# By scheme of `harness.weights.names` and preset, if that matters: who may have published such a file, the likeliest
# first.
_OF_NAMES: dict[str | tuple[str, str], tuple[str, ...]] = {
    "torchvision": ("torchvision",),
    "caffe": ("caffe",),
    "gluoncv": ("gluon",),
    **dict.fromkeys(
        [
            "d2l-sequential",
            "d2lzh-sequential",
            "gluon-sequential",
            "d2l-today",
            "d2l-today-sequential",
            "d2l-attributes",
            "d2l-today-attributes",
            "gluon-today",
            "gluon-today-sequential",
            "linen-today",
        ],
        ("d2l",),
    ),
    ("torchvision-v3", _V3): ("torchvision", "timm"),
    ("torchvision-v3", _V3_TF): ("timm",),
    ("torchvision-v3", _V3_FID): ("pytorch-fid", "torch-fidelity"),
    ("tensorflow-2015", _V3_FID): ("torch-fidelity", "pytorch-fid"),
    ("timm", _V4): ("timm", "cadene"),
    ("timm", _RESNET): ("timm-resnet-v2",),
    ("cadene", _RESNET): ("cadene",),
    ("cadene", "inception-bn"): ("cadene-bn",),
    ("mxnet-symbol", "inception-bn-mxnet"): ("mxnet-bn",),
    ("mxnet-symbol-unnamed", "inception-bn-mxnet"): ("mxnet-bn",),
    "gluon-zoo": ("gluon",),
    "gluon-zoo-prefixed": ("gluon",),
    "keras": ("keras",),
    "keras-layers": ("keras",),
    "slim": ("slim",),
    "slim-v3": ("slim",),
}


def published(scheme: str, config: Config) -> Preprocessing:
    """How pictures are prepared for a foreign file in a scheme's names: as its publisher says, or else as assumed."""
    names = _OF_NAMES.get(scheme, _OF_NAMES.get((scheme, config.preset), ()))
    possible = [name for name in names if PUBLISHERS[name].channels == config.in_channels]
    if not possible:
        order = "gray" if config.in_channels == 1 else "RGB"
        return Preprocessing(config.input_size, order, source="as the file does not say", assumed=True)
    fitting = [name for name in possible if PUBLISHERS[name].classes == config.num_classes]
    made = PUBLISHERS[(fitting or possible)[0]].prepare(config)
    if not fitting:
        return replace(made, source=made.source + PUBLISHERS[possible[0]].otherwise, assumed=True)
    others = ", ".join(f"--preprocessing {name}" for name in fitting[1:])
    return replace(made, source=f"{made.source}; of the same names: {others}") if others else made


def named(name: str, config: Config) -> Preprocessing:
    """The way of one of `PUBLISHERS`.

    Raises:
        InvalidInput: for another name.
    """
    if name not in PUBLISHERS:
        near = did_you_mean(name, {known: known for known in PUBLISHERS})
        raise InvalidInput(f"--preprocessing: expected one of {', '.join(PUBLISHERS)}, got {name!r}{near}")
    return PUBLISHERS[name].prepare(config)


def preprocessing_of(weights: Checkpoint) -> Preprocessing:
    """How pictures are prepared for these weights: as the file says, or as in the run that it comes from.

    Otherwise it is assumed that pixels go from 0 to 1, at the preset's size.

    Raises:
        InvalidInput: when the file says something that cannot be.
    """
    config, metadata = weights.config, weights.metadata
    assumed = published("", config)
    table: dict[str, Any] = asdict(assumed)
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
            resize=tuple(table["resize"]),
            crop=float(table["crop"]),
            interpolation=str(table["interpolation"]),
            labels=tuple(str(label) for label in labels),
            source=str(table["source"]),
            assumed=bool(table["assumed"]),
        )
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise InvalidInput(f"preprocessing: expected size, order, scale, mean and std, got {error}") from error
    check_preprocessing(made, config.in_channels, config.num_classes)
    return made


def chosen(
    weights: Checkpoint, labels: StrPath | None = None, publisher: str | None = None, **options: Any
) -> Preprocessing:
    """How pictures are prepared: as stored with the weights, or as by a publisher, except for the options.

    Args:
        weights: The weights.
        labels: A file with the classes' names, one a line.
        publisher: One of `PUBLISHERS`; None for what is stored.
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
    prepare = preprocessing_of(weights)
    if publisher is not None:
        prepare = replace(named(publisher, weights.config).at(prepare.size), labels=prepare.labels)
    if "size" in changes:
        prepare = prepare.at(changes.pop("size"))
    prepare = replace(prepare, **changes)
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
    sized = isinstance(made.size, int) and 0 < made.size <= _LARGEST_SIDE
    sides = [isinstance(side, int) and sized and made.size <= side <= 2 * _LARGEST_SIDE for side in made.resize]
    why = _reason(len(made.labels), classes)
    checks = [
        (sized, f"size: expected 1 to {_LARGEST_SIDE} pixels, got {made.size!r}"),
        (_ORDERS.get(made.order) == channels, f"order: expected one for {channels} channels, got {made.order!r}"),
        (len(made.mean) in lengths, f"mean: expected 1 or {channels} numbers, got {len(made.mean)}"),
        (len(made.std) in lengths, f"std: expected 1 or {channels} numbers, got {len(made.std)}"),
        (all(map(math.isfinite, numbers)), "scale, mean and std: expected finite numbers"),
        (all(x > 0 for x in made.std), "std: expected numbers above 0"),
        (
            len(sides) <= 2 and all(sides),
            f"resize: expected the shorter side, or height and width, from size to {2 * _LARGEST_SIDE} pixels, got "
            f"{list(made.resize)}",
        ),
        (0 < made.crop <= 1, f"crop: expected a share above 0 and at most 1, got {made.crop!r}"),
        (
            made.interpolation in INTERPOLATIONS,
            f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {made.interpolation!r}",
        ),
        (
            len(made.labels) in (0, classes),
            f"labels: expected {classes}, got {len(made.labels)}{why}",
        ),
    ]
    if problems := [problem for passed, problem in checks if not passed]:
        raise InvalidInput("preprocessing: " + "; ".join(problems))


def _reason(labels: int, classes: int) -> str:
    """Why ImageNet's names are not those of a network with some more classes, or fewer."""
    if classes == 1008 and labels in (1000, 1001):
        return (
            "; the 1008 classes of FID's network come in another order than ImageNet's, so that no 1000 of them have "
            "these names: leave --labels out, or give the 1008 in the network's own order"
        )
    if (labels, classes) == (1000, 1001):
        return "; class 0 of such a network is the background: put a line for it before the others"
    if (labels, classes) == (1001, 1000):
        return "; the first of 1001 is the background, and this network has none: leave its line out"
    return ""
