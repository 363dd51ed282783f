"""What a page is about: a network with weights, and pictures, those that are given or some that are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import spec
from harness.atomic import StrPath
from harness.check.reference import Reference, usual_preparation
from harness.images.pictures import pictures_in
from harness.images.sources import load_batch, scikit_learn
from harness.weights.checkpoint import Checkpoint
from harness.weights.prediction import read_pictures
from harness.weights.preprocessing import Preprocessing, chosen
from spec import Array, Arrays, InvalidInput
from spec.shapes import find_misfit

_COUNT = 4  # pictures, where none are given
_MOST = 8  # that a page shows


@dataclass(frozen=True)
class Subject:
    """A network with its arrays, and pictures as it wants them."""

    config: spec.Config  # with its auxiliary heads, where it has any and they fit: they are drawn
    params: Arrays  # of the network without them, float64
    weights: str  # where the parameters come from; empty: they are drawn at random
    names: Sequence[str]  # of the pictures
    images: Array  # (N, C, H, W), prepared
    prepare: Preprocessing  # how

    @property
    def trunk(self) -> spec.Config:
        """The network without its heads, which classification does not compute."""
        return replace(self.config, aux=False)


def drawn(
    preset: str, pictures: Sequence[str], size: int | None, data_dir: StrPath | None
) -> tuple[Subject, Sequence[str]]:
    """A preset with random weights, and lines for the user.

    Weights are He's, biases and batch norm away from 0 and 1; running statistics are those of photographs.

    Raises:
        InvalidInput: for an unknown preset, and for pictures and sizes that do not fit.
    """
    config = spec.preset(preset)
    prepare = usual_preparation(config).at(size or config.input_size)
    config = _fitting(config, prepare.size)
    names, images, lines = _pictures(config, pictures, prepare, "digits", data_dir)
    shape = (config.in_channels, prepare.size, prepare.size)
    params, _ = Reference(config).material(shape)
    return Subject(config, _float64(params), "", names, images, prepare), lines


def of_weights(
    weights: Checkpoint, path: str, pictures: Sequence[str], size: int | None, data_dir: StrPath | None
) -> tuple[Subject, Sequence[str]]:
    """The network of a file, and lines for the user; pictures are prepared as the file says.

    Raises:
        InvalidInput: for pictures and sizes that do not fit.
    """
    prepare = chosen(weights, size=size)
    config = _fitting(weights.config, prepare.size)
    run = weights.metadata.get("run", {})
    dataset = "fashion-mnist" if run.get("data") == "fashion-mnist" else "digits"
    names, images, lines = _pictures(config, pictures, prepare, dataset, data_dir)
    params = {name: weights.params[name] for name in spec.param_shapes(replace(config, aux=False))}
    return Subject(config, _float64(params), path, names, images, prepare), lines


def _fitting(config: spec.Config, size: int) -> spec.Config:
    """Without its heads where the pictures are too small for them."""
    misfit = find_misfit(config, (config.in_channels, size, size))
    return replace(config, aux=False) if misfit and misfit.in_head else config


def _pictures(
    config: spec.Config, pictures: Sequence[str], prepare: Preprocessing, dataset: str, data_dir: StrPath | None
) -> tuple[list[str], Array, Sequence[str]]:
    """Names, numbers, and lines for the user; of a network of three channels photographs, where none are given."""
    spec.stage_shapes(config, (config.in_channels, prepare.size, prepare.size))
    if not pictures and config.in_channels == 1:
        batch = load_batch([dataset], config, prepare.size, _COUNT, data_dir, prepare.apply)
        return [f"{batch.source}, {i}" for i in range(1, _COUNT + 1)], batch.images, ()
    count = sum(len(pictures_in(Path(name))[0]) if Path(name).is_dir() else 1 for name in pictures)
    if count > _MOST:
        raise InvalidInput(f"expected at most {_MOST} pictures, got {count:,}; name some of them")
    photographs = sorted(map(str, scikit_learn("images").glob("*.jpg")))
    names, images, lines = read_pictures(pictures or photographs, prepare)
    return [Path(name).name for name in names], images, lines


def _float64(params: Arrays) -> Arrays:
    return {name: np.asarray(x, np.float64) for name, x in params.items()}
