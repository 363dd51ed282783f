"""Every network by name."""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

from spec.ancestors import ANCESTORS
from spec.errors import InvalidInput, did_you_mean
from spec.googlenet import GOOGLENETS
from spec.inception import INCEPTIONS
from spec.network import Config, Residual

PRESETS: dict[str, Config] = {config.preset: config for config in (*GOOGLENETS, *ANCESTORS, *INCEPTIONS)}


def preset(
    name: str,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    aux: bool | None = None,
    dropout: float | None = None,
    aux_weight: float | None = None,
    label_smoothing: float | None = None,
    norm_momentum: float | None = None,
    norm_scale: bool | None = None,
    shortcuts: bool | None = None,
) -> Config:
    """A preset's configuration, with the given settings in place of its own.

    Args:
        name: One of `PRESETS`.
        in_channels: Channels of the images.
        num_classes: Length of the logits.
        aux: False leaves the auxiliary heads out; True is for presets that have them.
        dropout: Fraction dropped, 0 to below 1, before the classifier and in the auxiliary heads alike.
        aux_weight: Weight of each auxiliary loss, at least 0.
        label_smoothing: Share of the loss, 0 to below 1, that asks for all classes alike.
        norm_momentum: Share, above 0 to 1, of the batch's statistics in batch norm's running ones; for presets with
            batch norm. MXNet and Flax call 1 minus this the momentum.
        norm_scale: Whether batch norm has a scale that is learned ("gamma"); for presets with batch norm.
        shortcuts: False drops the residuals' shortcuts; for presets with residuals.

    Raises:
        InvalidInput: for an unknown name or a setting that no network can have.
    """
    if name not in PRESETS:
        families: dict[str, list[str]] = {}
        for known, config in PRESETS.items():
            families.setdefault(config.family.lower(), []).append(known)
        words = {family: ", ".join(members) for family, members in families.items()} | {x: x for x in PRESETS}
        meant = did_you_mean(str(name), words)
        raise InvalidInput(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}{meant}")
    config = PRESETS[name]
    if in_channels is not None:
        config = replace(config, in_channels=_at_least_one("in_channels", in_channels))
    if num_classes is not None:
        config = replace(config, num_classes=_at_least_one("num_classes", num_classes))
    if aux is not None:
        if _true_or_false("aux", aux) and not config.aux:
            having = ", ".join(known.preset for known in PRESETS.values() if known.aux)
            raise InvalidInput(f"preset {name} has no auxiliary heads: leave aux out, or take one of {having}")
        config = replace(config, aux=aux)
    if dropout is not None:
        if not isinstance(dropout, Real) or not 0 <= dropout < 1:
            raise InvalidInput(f"dropout: expected a fraction from 0 to below 1, got {dropout!r}")
        config = replace(config, dropout=float(dropout), aux_dropout=float(dropout))
    if aux_weight is not None:
        if not isinstance(aux_weight, Real) or not 0 <= aux_weight < math.inf:
            raise InvalidInput(f"aux_weight: expected a number of at least 0, got {aux_weight!r}")
        config = replace(config, aux_weight=float(aux_weight))
    if label_smoothing is not None:
        if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing < 1:
            raise InvalidInput(f"label_smoothing: expected a share from 0 to below 1, got {label_smoothing!r}")
        config = replace(config, label_smoothing=float(label_smoothing))
    if norm_momentum is not None:
        if not isinstance(norm_momentum, Real) or not 0 < norm_momentum <= 1:
            raise InvalidInput(f"norm_momentum: expected a share from above 0 to 1, got {norm_momentum!r}")
        config = _with_norm(config, "norm_momentum", momentum=float(norm_momentum))
    if norm_scale is not None:
        config = _with_norm(config, "norm_scale", scale=_true_or_false("norm_scale", norm_scale))
    if shortcuts is not None:
        table, shortcut = config.table, _true_or_false("shortcuts", shortcuts)
        if config.shortcuts is None:
            having = ", ".join(known.preset for known in PRESETS.values() if known.shortcuts is not None)
            raise InvalidInput(f"preset {name} has no residuals: leave shortcuts out, or take one of {having}")
        changed = ((x, replace(y, shortcut=shortcut) if isinstance(y, Residual) else y) for x, y in table)
        config = replace(config, table=tuple(changed))
    return config


def _with_norm(config: Config, setting: str, **changed: Any) -> Config:
    if config.batch_norm is None:
        having = ", ".join(known.preset for known in PRESETS.values() if known.batch_norm)
        raise InvalidInput(f"preset {config.preset} has no batch norm: leave {setting} out, or take one of {having}")
    return replace(config, batch_norm=replace(config.batch_norm, **changed))


def _true_or_false(what: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput(f"{what}: expected True or False, got {value!r}")
    return value


def _at_least_one(what: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InvalidInput(f"{what}: expected a whole number of at least 1, got {value!r}")
    return int(value)
