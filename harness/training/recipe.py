"""How a network is trained, as data: a recipe is a small TOML file. The folder `recipes` holds ours.

The loss is the mean over a batch of

    CE(logits) + aux_weight · (CE(aux1) + CE(aux2))        CE = -Σ target · log softmax(logits)
    target = (1 - label_smoothing) · [class is the label] + label_smoothing / classes

the optimizers are those of `spec.optimizers`, and step number s of a run of S steps, E to an epoch, has the rate

    rate · schedule.factor(s, E, S)

Every batch counts with the images that it has, the last one of an epoch, which may be smaller, too.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spec.errors import InvalidInput
from spec.init import SCHEMES
from spec.network import Config
from spec.optimizers import SGD, Adam, AdamW, Optimizer
from spec.presets import PRESETS, preset


@dataclass(frozen=True)
class Constant:
    """1."""

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        """What the rate is multiplied by in a step (from 0) of a run of `steps` steps, `per_epoch` to an epoch."""
        return 1.0


@dataclass(frozen=True)
class StepDecay:
    """drop^(number of `epochs` that are over): lower by a step at each."""

    epochs: tuple[float, ...]
    drop: float = 0.1

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        """As `Constant.factor`."""
        return self.drop ** sum(step >= epoch * per_epoch for epoch in self.epochs)


@dataclass(frozen=True)
class Paper:
    """drop^floor(epoch / every): the paper lowers its rate by 4 % every 8 epochs (Szegedy et al. 2015, section 6)."""

    drop: float = 0.96
    every: int = 8  # epochs

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        """As `Constant.factor`."""
        return self.drop ** (step // (per_epoch * self.every))


@dataclass(frozen=True)
class Cosine:
    """(1 + cos(π · step / steps)) / 2: from 1 to nearly 0 (Loshchilov and Hutter 2017, without restarts)."""

    def factor(self, step: int, per_epoch: int, steps: int) -> float:
        """As `Constant.factor`."""
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
        """As `Constant.factor`."""
        peak = self.rise * steps
        if step < peak:
            return 1 + (self.start - 1) * (1 + math.cos(math.pi * step / peak)) / 2
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * (step - peak) / (steps - peak))) / 2


Schedule = Constant | StepDecay | Paper | Cosine | OneCycle
OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": StepDecay,
    "paper": Paper,
    "cosine": Cosine,
    "one-cycle": OneCycle,
}
_NAMED: dict[str, dict[str, type]] = {"optimizer": dict(OPTIMIZERS), "schedule": dict(SCHEDULES)}
_FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """One way to train. Read it with `recipe`; the fields are the keys of the file."""

    preset: str
    size: int  # side of the images in pixels
    batch: int  # images
    epochs: int
    optimizer: Optimizer
    schedule: Schedule = Constant()
    init: str = "xavier"  # one of spec.SCHEMES
    mean: float = 0.0  # of the pixels, 0 to 1: the network sees (pixel - mean) / std
    std: float = 1.0
    label_smoothing: float = 0.0
    aux_weight: float | None = None  # None: the preset's
    dropout: float | None = None  # None: the preset's
    norm_momentum: float | None = None  # share of the batch in batch norm's running statistics; None: the preset's
    aux: bool | None = None  # with auxiliary heads; None: where the preset has them
    source: str = ""  # where it comes from
    published: str = ""  # what was reported there, to stand beside

    def __post_init__(self) -> None:
        """Refuse what cannot be trained; every problem at once."""
        checks = [
            (self.preset in PRESETS, f"preset: expected one of {', '.join(PRESETS)}, got {self.preset!r}"),
            (self.init in SCHEMES, f"init: expected one of {', '.join(SCHEMES)}, got {self.init!r}"),
            (self.size >= 1, f"size: expected at least 1 pixel, got {self.size}"),
            (self.batch >= 1, f"batch: expected at least 1 image, got {self.batch}"),
            (self.epochs >= 1, f"epochs: expected at least 1, got {self.epochs}"),
            (math.isfinite(self.mean), f"mean: expected a number, got {self.mean}"),
            (0 < self.std < math.inf, f"std: expected a number above 0, got {self.std}"),
            *_optimizer_checks(self.optimizer),
            *_schedule_checks(self.schedule),
        ]
        problems = [problem for fine, problem in checks if not fine]
        if not problems:
            try:
                self.config()
            except InvalidInput as error:
                problems.append(str(error))
        if problems:
            raise InvalidInput("\n".join(["recipe:", *(f"  {problem}" for problem in problems)]))

    def config(self, **changed: Any) -> Config:
        """The preset's configuration with the recipe's settings; `changed` are further ones of `spec.preset`."""
        own = {
            name: getattr(self, name) for name in ("aux", "aux_weight", "label_smoothing", "dropout", "norm_momentum")
        }
        return preset(self.preset, **(own | changed))

    def rate(self, step: int, per_epoch: int) -> float:
        """The rate of a step, from 0, with `per_epoch` steps to an epoch."""
        return self.optimizer.rate * self.schedule.factor(step, per_epoch, self.epochs * per_epoch)

    def as_table(self) -> dict[str, Any]:
        """Plain values, as a TOML file has them: `recipe_of` makes the same recipe of it again."""
        table = dataclasses.asdict(self)
        for key, known in _NAMED.items():
            value = getattr(self, key)
            name = next(name for name, kind in known.items() if type(value) is kind)
            table[key] = {"name": name, **dataclasses.asdict(value)}
        return {key: _without_none(value) for key, value in table.items() if value is not None}


def _without_none(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _optimizer_checks(row: Optimizer) -> list[tuple[bool, str]]:
    checks = [(0 <= row.rate < math.inf, f"optimizer.rate: expected a number of at least 0, got {row.rate}")]
    if row.clip_norm is not None:
        checks.append((row.clip_norm > 0, f"optimizer.clip_norm: expected a number above 0, got {row.clip_norm}"))
    if not isinstance(row, Adam):
        checks += [
            (0 <= row.momentum < 1, f"optimizer.momentum: expected 0 to below 1, got {row.momentum}"),
            (not row.nesterov or row.momentum > 0, "optimizer.nesterov: needs a momentum above 0"),
        ]
    else:
        checks += [
            (0 <= row.beta1 < 1, f"optimizer.beta1: expected 0 to below 1, got {row.beta1}"),
            (0 <= row.beta2 < 1, f"optimizer.beta2: expected 0 to below 1, got {row.beta2}"),
            (row.epsilon > 0, f"optimizer.epsilon: expected a number above 0, got {row.epsilon}"),
        ]
    if isinstance(row, SGD | AdamW):
        decay = row.weight_decay
        checks.append((0 <= decay < math.inf, f"optimizer.weight_decay: expected at least 0, got {decay}"))
    return checks


def _schedule_checks(row: Schedule) -> list[tuple[bool, str]]:
    if isinstance(row, StepDecay):
        rising = all(a < b for a, b in zip((0.0, *row.epochs), row.epochs, strict=False))
        return [
            (rising, f"schedule.epochs: expected rising numbers above 0, got {list(row.epochs)}"),
            (row.drop > 0, f"schedule.drop: expected a number above 0, got {row.drop}"),
        ]
    if isinstance(row, Paper):
        return [
            (row.drop > 0, f"schedule.drop: expected a number above 0, got {row.drop}"),
            (row.every >= 1, f"schedule.every: expected at least 1 epoch, got {row.every}"),
        ]
    if isinstance(row, OneCycle):
        return [
            (0 < row.rise < 1, f"schedule.rise: expected a share between 0 and 1, got {row.rise}"),
            (row.start >= 0 <= row.end, f"schedule.start, .end: expected at least 0, got {row.start}, {row.end}"),
        ]
    return []


def recipes() -> tuple[str, ...]:
    """Names of the recipes that come along."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def recipe_path(name: str) -> Path:
    """The file of a recipe that comes along, or the path that was given.

    Raises:
        InvalidInput: when there is neither.
    """
    if name in recipes():
        return _FOLDER / f"{name}.toml"
    with suppress(OSError):  # a name too long for a file, say
        if Path(name).is_file():
            return Path(name)
    raise InvalidInput(f"recipe: expected one of {', '.join(recipes())} or a TOML file, got {name!r}")


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
    problems: list[str] = []
    values = dict(table)
    for key, known in _NAMED.items():
        if key in values:
            values[key] = _row(key, known, values[key], problems)
    fields = _typed(Recipe, values, "", problems)
    try:
        made = Recipe(**fields)
    except InvalidInput as error:
        problems += [line.strip() for line in str(error).splitlines()[1:]]
    if problems:
        raise InvalidInput("\n".join(["recipe:", *(f"  {problem}" for problem in problems)]))
    return made


# What a key counts as that is missing or of the wrong kind, once that has been said.
_STAND_INS: dict[type, dict[str, Any]] = {
    Recipe: {"preset": "bvlc", "size": 224, "batch": 1, "epochs": 1, "optimizer": SGD()},
    StepDecay: {"epochs": (1.0,)},
}


def _row(key: str, known: dict[str, type], given: Any, problems: list[str]) -> Any:
    """The optimizer or schedule that a table describes."""
    if not isinstance(given, dict):
        problems.append(f"{key}: expected a table with a name, one of {', '.join(known)}, got {given!r}")
        given = {"name": next(iter(known))}
    elif not isinstance(given.get("name"), str) or given["name"] not in known:
        problems.append(f"{key}.name: expected one of {', '.join(known)}, got {given.get('name')!r}")
        given = {"name": next(iter(known))}
    kind = known[given["name"]]
    return kind(**_typed(kind, {k: v for k, v in given.items() if k != "name"}, f"{key}.", problems))


def _typed(kind: type, given: dict[str, Any], prefix: str, problems: list[str]) -> dict[str, Any]:
    """The values for a dataclass, converted; what is unknown, missing or of the wrong kind becomes a problem."""
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in given:
        if key not in fields:
            problems.append(f"{prefix}{key}: unknown; the keys here are {', '.join(fields)}")
    values = dict(_STAND_INS.get(kind, {}))
    for key, field in fields.items():
        if key in given:
            fits, value = _convert(given[key], hints[key])
            if fits:
                values[key] = value
            else:
                problems.append(f"{prefix}{key}: expected {_say(hints[key])}, got {given[key]!r}")
        elif field.default is dataclasses.MISSING:
            problems.append(f"{prefix}{key}: missing")
    return values


def _convert(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a TOML value is of that kind, and the value in it: a whole number is a number too, a list a tuple."""
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False, value
        try:
            return True, float(value)
        except OverflowError:  # a whole number of more than 308 digits
            return False, value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        items = [_convert(item, float) for item in value]
        return all(fits for fits, _ in items), tuple(item for _, item in items)
    if typing.get_origin(hint) is types.UnionType:  # float | None, or the rows, which have been built already
        tried = [_convert(value, kind) for kind in typing.get_args(hint) if kind is not type(None)]
        return next((found for found in tried if found[0]), (False, value))
    return isinstance(value, hint), value


def _say(hint: Any) -> str:
    if typing.get_origin(hint) is types.UnionType:
        hint = typing.get_args(hint)[0]  # float | None: leaving it out is how a file says None
    if typing.get_origin(hint) is tuple:
        return "a list of numbers"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(hint, "a table")
