"""Weights of any file, made ready for training and evaluation.

Datasets hold RGB or grey pixels from 0 to 255, and a batch is (pixel / 255 - mean) / std. Weights that want anything
else are rewritten into the same function of such a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import spec
from harness.atomic import StrPath
from harness.images.batches import Dataset
from harness.shown import shown
from harness.training.recipe import Recipe
from harness.training.runs import Settings
from harness.weights.checkpoint import Checkpoint
from harness.weights.preprocessing import preprocessing_of
from spec import Array, InvalidInput

_NAMED = 20  # classes in one message


@dataclass(frozen=True)
class Start:
    """A network, its parameters, and the batches that it takes."""

    config: spec.Config
    params: dict[str, Array]  # by canonical name
    size: int  # side of the images in pixels
    mean: tuple[float, ...]  # of pixels from 0 to 1, one number or one for each channel
    std: tuple[float, ...]
    classes: tuple[str, ...]  # empty where the file does not name them


def start_of(weights: Checkpoint) -> Start:
    """The weights for RGB or grey batches: where they want BGR, the first layer's channels are turned around.

    Raises:
        InvalidInput: when the file's preprocessing cannot be.
    """
    prepare = preprocessing_of(weights)
    params = dict(weights.params)
    mean, std = ([x / (255 * prepare.scale) for x in numbers] for numbers in (prepare.mean, prepare.std))
    if prepare.order == "BGR":
        first = next(iter(spec.param_shapes(weights.config)))
        params[first] = params[first][:, ::-1]
        mean.reverse()
        std.reverse()
    return Start(weights.config, params, prepare.size, tuple(mean), tuple(std), prepare.labels)


def recipe_for(start: Start, recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe for a training that begins there: the weights' network and batches, with `changes`.

    Raises:
        InvalidInput: when a change asks for another network, or a value is out of range.
    """
    own: dict[str, Any] = {"preset": start.config.preset, "channels": start.config.in_channels}
    if wrong := [f"{key} {changes[key]}" for key in own if changes.get(key, own[key]) != own[key]]:
        raise InvalidInput(
            f"--weights: expected settings of {own['preset']} with {own['channels']} channels, whose weights these "
            f"are, got {', '.join(wrong)}: leave that out"
        )
    own |= {"size": start.size, "aux": start.config.aux, "mean": start.mean, "std": start.std}
    return replace(recipe, **own | changes, source="", published="")


def fitted(start: Start, settings: Settings) -> tuple[dict[str, Array], list[str]]:
    """The parameters that a run with those settings begins with, and the names of the layers that are new in them.

    What gives the logits is initialized anew where the classes are others, and so are heads that the file lacks. A
    file that does not name its classes, and has as many, is taken at its word.

    Raises:
        InvalidInput: when the weights fit the run's network in no other way.
    """
    config = settings.config
    made = spec.init_params(config, settings.seed, settings.recipe.init)
    shapes, more = (spec.param_shapes(replace(config, num_classes=config.num_classes + n)) for n in (0, 1))
    same = start.config.num_classes == config.num_classes and start.classes in ((), settings.classes)
    anew = {name for name in shapes if name not in start.params or (not same and shapes[name] != more[name])}
    dtype = "float64" if settings.dtype == "float64" else "float32"
    params = {name: (x if name in anew else start.params[name]).astype(dtype) for name, x in made.items()}
    spec.check_params(config, params)
    return params, list(dict.fromkeys(name.rsplit(".", 1)[0] for name in shapes if name in anew))


def check_classes(start: Start, file: StrPath, dataset: Dataset) -> None:
    """Refuse to evaluate weights on other classes than they have.

    Raises:
        InvalidInput: when their number or their names differ.
    """
    file = Path(file)
    if start.config.num_classes == len(dataset.classes) and start.classes in ((), dataset.classes):
        return
    own = listed(start.classes) if start.classes else f"{start.config.num_classes:,}, without names"
    raise InvalidInput(
        f"{dataset.source} has the classes {listed(dataset.classes)}; {file} has {own}: expected the same in the same "
        f"order; `googlenet train --weights {file} --data {dataset.source}` makes a network for those classes"
    )


def listed(classes: Sequence[str]) -> str:
    """The names in a sentence, the first ones where there are many."""
    more = f" and {len(classes) - _NAMED:,} more" if len(classes) > _NAMED else ""
    return ", ".join(map(shown, classes[:_NAMED])) + more
