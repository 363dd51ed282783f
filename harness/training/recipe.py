"""A recipe says how a network is trained. It is a small TOML file; the folder `recipes` holds ours.

The loss is the mean over a batch of

    CE(logits) + aux_weight · (CE(aux1) + CE(aux2))        CE = -Σ target · log softmax(logits)
    target = (1 - label_smoothing) · [class is the label] + label_smoothing / classes

The optimizers are those of `spec.optimizers`. In a run of S steps with E steps an epoch, step s has the rate

    rate · schedule.factor(s, E, S)

The last batch of an epoch may be smaller. With `partial_batch` "mean" its loss is a mean over the images that it has;
with "nominal" its gradient is the sum over them, divided by the number of images in a whole batch; with "drop" it is
left out. The loss that is shown is the mean in any case.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, core_schema

from spec.errors import InvalidInput, did_you_mean
from spec.init import SCHEMES
from spec.network import Config
from spec.optimizers import SGD, Adam, AdamW, Optimizer, RMSProp
from spec.presets import PRESETS, preset


@dataclass(frozen=True)
class Constant:
    """1 at every step."""

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        """The factor of the rate in a step (from 0) of a run of `steps` steps, with `per_epoch` steps an epoch."""
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """drop^(number of `epochs` that are over)."""

    epochs: Annotated[tuple[float, ...], Field(strict=False)]  # TOML has lists only
    drop: float = 0.1

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        return self.drop ** sum(step >= epoch * per_epoch for epoch in self.epochs)


@dataclass(frozen=True)
class Paper:
    """drop^floor(epoch / every): the paper lowers its rate by 4 % every 8 epochs (Szegedy et al. 2015, section 6).

    That of Inception v3 has a drop of 0.94 every 2 epochs (Szegedy et al. 2016, section 8).
    """

    drop: float = 0.96
    every: int = 8  # epochs

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        return self.drop ** (step // (per_epoch * self.every))


@dataclass(frozen=True)
class Cosine:
    """(1 + cos(π · step / steps)) / 2: from 1 to nearly 0 (Loshchilov and Hutter 2017, without restarts)."""

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        return (1 + math.cos(math.pi * step / steps)) / 2


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up from `start` to 1 during the share `rise` of the run, then half a cosine down to `end`.

    Source: Smith and Topin 2018; the shape and its defaults are those that PyTorch's `OneCycleLR` made common.
    """

    rise: float = 0.3  # share of the run
    start: float = 0.04
    end: float = 4e-6

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        peak = self.rise * steps
        if step < peak:
            return 1 + (self.start - 1) * (1 + math.cos(math.pi * step / peak)) / 2
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * (step - peak) / (steps - peak))) / 2


Schedule = Constant | StepDecay | Paper | Cosine | OneCycle
OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "rmsprop": RMSProp, "adam": Adam, "adamw": AdamW}
SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "paper": Paper,
    "cosine": Cosine,
    "one-cycle": OneCycle,
}
_SECTIONS: dict[str, Mapping[str, type]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
PARTIAL_BATCHES = ("mean", "nominal", "drop")
_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class _Section:
    """Tells pydantic to choose the class of a table by its ``name``; the other keys are the fields of the class."""

    key: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices: dict[Any, CoreSchema] = {
            name: core_schema.no_info_before_validator_function(_without_name, handler.generate_schema(kind))
            for name, kind in _SECTIONS[self.key].items()
        }
        return core_schema.tagged_union_schema(choices, self._name)

    def _name(self, table: Any) -> str | None:
        name = table.get("name") if isinstance(table, dict) else None
        return name if isinstance(name, str) and name in _SECTIONS[self.key] else None


def _without_name(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "name"}


Numbers = float | tuple[float, ...]  # one for all channels, or one for each


@dataclass(frozen=True)
class Recipe:
    """One way to train. The fields are the keys of the file."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    preset: str
    size: int  # side of the images in pixels
    batch: int  # images
    epochs: int
    optimizer: Annotated[Optimizer, _Section("optimizer")]
    schedule: Annotated[Schedule, _Section("schedule")] = Constant()
    partial_batch: str = "mean"  # one of PARTIAL_BATCHES
    init: str = "xavier"  # one of spec.SCHEMES
    mean: Numbers = 0.0  # of the pixels, 0 to 1: the network sees (pixel - mean) / std
    std: Numbers = 1.0
    label_smoothing: float = 0.0
    aux_weight: float | None = None  # None: the preset's
    dropout: float | None = None  # None: the preset's
    norm_momentum: float | None = None  # share of the batch in batch norm's running statistics; None: the preset's
    norm_scale: bool | None = None  # whether batch norm has a scale that is learned; None: the preset's
    shortcuts: bool | None = None  # False drops the residuals' shortcuts; None: the preset's
    aux: bool | None = None  # with auxiliary heads; None: where the preset has them
    epoch_steps: int | None = None  # an epoch ends after so many batches of its random order; None: after all
    channels: int | None = None  # of the images: 1 (grey) or 3 (RGB); None: the preset's
    source: str = ""  # where the recipe comes from
    data: str = ""  # what the source trained on, as `googlenet train --data` takes it
    published: str = ""  # the result that the source reports on that data

    def __post_init__(self) -> None:
        """Refuse values out of range, all of them at once, and settings that the preset does not take."""
        problems = _out_of_range(_flat(asdict(self)))
        if not problems:
            try:
                channels = self.config().in_channels
            except InvalidInput as error:
                problems.append(str(error))
            else:
                problems += [
                    f"{key}: expected 1 or {channels} numbers, got {count}"
                    for key in ("mean", "std")
                    if (count := len(_several(getattr(self, key)))) not in (1, channels)
                ]
        if problems:
            raise _refusal(problems)

    def config(self, **changed: Any) -> Config:
        """The preset's configuration with the recipe's settings; `changed` are further settings of `spec.preset`."""
        names = ("aux", "aux_weight", "label_smoothing", "dropout", "norm_momentum", "norm_scale", "shortcuts")
        settings = {name: getattr(self, name) for name in names} | {"in_channels": self.channels}
        return preset(self.preset, **(settings | changed))

    def steps_per_epoch(self, images: int) -> int:
        """The steps of an epoch of so many images."""
        whole, rest = divmod(images, self.batch)
        batches = whole + (rest > 0 and self.partial_batch != "drop")
        return min(batches, self.epoch_steps or batches)

    def gradient_scale(self, images: int) -> float:
        """The factor of the mean loss's gradient in a batch of so many images."""
        return images / self.batch if self.partial_batch == "nominal" else 1.0

    def rate(self, step: int, per_epoch: int) -> float:
        """The rate of a step (from 0), with `per_epoch` steps an epoch."""
        return self.optimizer.rate * self.schedule.factor(step, per_epoch, self.epochs * per_epoch)

    def as_table(self) -> dict[str, Any]:
        """Plain values, as a TOML file has them; `recipe_of` makes the same recipe of them again."""
        table = {key: value for key, value in asdict(self).items() if value is not None}
        for section, kinds in _SECTIONS.items():
            name = next(name for name, kind in kinds.items() if type(getattr(self, section)) is kind)
            settings = {key: value for key, value in table[section].items() if value is not None}
            table[section] = {"name": name, **settings}
        return table


def _several(numbers: Numbers) -> tuple[float, ...]:
    return numbers if isinstance(numbers, tuple) else (numbers,)


def _rising(epochs: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise([0, *epochs]))


# Ranges: how a message says them, their test, and the keys that have them.
_RANGES: list[tuple[str, Callable[[Any], bool], list[str]]] = [
    (f"one of {', '.join(PRESETS)}", PRESETS.__contains__, ["preset"]),
    (f"one of {', '.join(SCHEMES)}", SCHEMES.__contains__, ["init"]),
    (f"one of {', '.join(PARTIAL_BATCHES)}", PARTIAL_BATCHES.__contains__, ["partial_batch"]),
    ("at least 1", lambda n: n >= 1, ["size", "batch", "epochs", "epoch_steps", "schedule.every"]),
    ("1 (grey) or 3 (RGB)", lambda n: n in (1, 3), ["channels"]),
    ("finite numbers", lambda x: all(map(math.isfinite, _several(x))), ["mean"]),
    ("numbers above 0", lambda x: all(0 < number < math.inf for number in _several(x)), ["std"]),
    (
        "a number above 0",
        lambda x: 0 < x < math.inf,
        ["optimizer.clip_norm", "optimizer.clip_value", "optimizer.epsilon", "schedule.drop"],
    ),
    (
        "a number of at least 0",
        lambda x: 0 <= x < math.inf,
        ["optimizer.rate", "optimizer.weight_decay", "schedule.start", "schedule.end"],
    ),
    (
        "0 to below 1",
        lambda x: 0 <= x < 1,
        [f"optimizer.{key}" for key in ("average", "momentum", "decay", "beta1", "beta2")],
    ),
    ("a share between 0 and 1", lambda x: 0 < x < 1, ["schedule.rise"]),
    ("rising numbers above 0", _rising, ["schedule.epochs"]),
]


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe, those of its sections under ``SECTION.KEY``."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": x for name, x in value.items()}
        else:
            flat[key] = value
    return flat


def _out_of_range(values: Mapping[str, Any]) -> list[str]:
    """The problems of values that have the right types."""
    problems = [
        f"{key}: expected {expected}, got {values[key]!r}"
        for expected, fits, keys in _RANGES
        for key in keys
        if values.get(key) is not None and not fits(values[key])
    ]
    if values.get("optimizer.nesterov") and values.get("optimizer.momentum") == 0:
        problems.append("optimizer.nesterov: needs a momentum above 0")
    return problems


def _refusal(problems: Iterable[str]) -> InvalidInput:
    return InvalidInput("\n".join(["recipe:", *(f"  {problem}" for problem in problems)]))


def recipes() -> tuple[str, ...]:
    """Names of this project's recipes."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def recipe_path(name: str) -> Path:
    """The file of one of our recipes, or the user's file of that path.

    Raises:
        InvalidInput: when there is neither.
    """
    if name in recipes():
        return _FOLDER / f"{name}.toml"
    with suppress(OSError):  # for example a name that is too long for a file
        if Path(name).is_file():
            return Path(name)
    meant = did_you_mean(name, {known: known for known in recipes()})
    raise InvalidInput(f"recipe: expected one of {', '.join(recipes())} or a TOML file, got {name!r}{meant}")


def recipe(name: str) -> Recipe:
    """The recipe of that name, or in that TOML file.

    Raises:
        InvalidInput: when there is none, or naming everything in it that is unknown, missing or wrong.
    """
    path = recipe_path(name)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, RecursionError, ValueError) as error:  # a TOML or UTF-8 error is a ValueError
        raise InvalidInput(f"{path}: expected a TOML file: {error}") from error
    try:
        return recipe_of(table)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def recipe_of(table: dict[str, Any]) -> Recipe:
    """The recipe that a table describes.

    Raises:
        InvalidInput: naming everything in it that is unknown, missing or wrong.
    """
    content = json.dumps(table, default=str)  # in strict mode pydantic makes a dataclass of JSON only
    try:
        made: Recipe = validator(Recipe).validate_json(content)
        return made
    except ValidationError as error:
        problems = error.errors()
    if problems[0]["type"] == "value_error":  # from `Recipe.__post_init__`
        raise problems[0]["ctx"]["error"]
    wrong = _wrong_types(problems, table)
    values = _flat({key: value for key, value in table.items() if key not in wrong})
    raise _refusal([*wrong.values(), *_out_of_range({key: x for key, x in values.items() if key not in wrong})])


@cache
def validator(kind: Any) -> TypeAdapter[Any]:
    """Pydantic's validator of a dataclass, made once: that takes as long as a small command."""
    return TypeAdapter(kind)


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list of numbers",
}


def _wrong_types(problems: list[ErrorDetails], values: Mapping[str, Any]) -> dict[str, str]:
    """A message for each key that is unknown, missing or of another type."""
    wrong = {}
    for problem in problems:
        kind = problem["type"]
        value = problem["input"]
        place = problem["loc"]
        section = place[0] if len(place) > 1 and place[0] in _SECTIONS else ""
        key = f"{section}.{place[2]}" if section else str(place[0])  # place[1] is the section's name
        if key in ("mean", "std"):
            wrong[key] = f"{key}: expected a number, or a list of one for each channel, got {values[key]!r}"
        elif kind == "missing":
            wrong[key] = f"{key}: missing"
        elif kind == "unexpected_keyword_argument":
            owner = _SECTIONS[str(section)][str(place[1])] if section else Recipe
            wrong[key] = f"{key}: unknown; the keys here are {', '.join(field.name for field in fields(owner))}"
        elif kind == "union_tag_not_found":
            names = f"one of {', '.join(_SECTIONS[key])}"
            if isinstance(value, dict):
                wrong[key] = f"{key}.name: expected {names}, got {value.get('name')!r}"
            else:
                wrong[key] = f"{key}: expected a table with a name, {names}, got {value!r}"
        else:
            wrong[key] = f"{key}: expected {_TYPES.get(kind, problem['msg'])}, got {value!r}"
    return wrong
