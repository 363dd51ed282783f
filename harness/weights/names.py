"""Which name an array has in other people's files, and which network a set of arrays is.

The ways to name them are in `harness.weights.schemes`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

import spec
from harness.shown import shown
from harness.weights.schemes.googlenets import GOOGLENET_SCHEMES
from harness.weights.schemes.inceptions import INCEPTION_SCHEMES
from harness.weights.schemes.scheme import (
    CANONICAL,
    CHANNELS_LAST,
    COUNTER,
    GLUON,
    NNX,
    PLAIN,
    NamesByPreset,
    Scheme,
)
from harness.weights.schemes.tensorflow import TENSORFLOW_SCHEMES
from spec import Array, Arrays, InvalidInput
from spec.network import Shape

# Gluon stores a scale and a shift even where batch norm does not learn them.
_FIXED = {"norm.weight": 1, "norm.bias": 0}

# All orders of the axes that files have, by how many there are.
_ORDERS = {1: ("O",), 2: ("OI", "IO"), 4: ("OIHW", "HWIO", "OHWI")}

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_FEW = 3  # differences of each kind in an error


_SCHEMES = (
    Scheme("canonical", "torch", None, PLAIN, PLAIN, CANONICAL, COUNTER),
    Scheme("gluon", "gluon", None, GLUON, GLUON, CANONICAL, fixed=True),
    Scheme("nnx", "nnx", None, NNX, NNX, CHANNELS_LAST),
    *GOOGLENET_SCHEMES,
    *INCEPTION_SCHEMES,
    *TENSORFLOW_SCHEMES,
)
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in _SCHEMES}


def scheme_of_file(name: str, whole: NamesByPreset) -> Scheme:
    """A scheme of one file's names, for the presets that it may be: names by canonical name, by preset."""
    file_names = [file_name for names in whole.values() for file_name in names.values()]
    if any(file_name.endswith("kernel") for file_name in file_names):
        return Scheme(name, "linen", None, {}, {}, CHANNELS_LAST, heads=False, whole=whole)
    gluon = any(file_name.endswith(("gamma", "_weight")) for file_name in file_names)
    return Scheme(name, "gluon" if gluon else "torch", None, {}, {}, CANONICAL, heads=False, whole=whole)


# --------------------------------------------------------------------------------------------------------- renaming


@lru_cache(maxsize=1024)  # recognizing a file asks for each hundreds of times
def foreign_names(scheme: Scheme, config: spec.Config) -> Mapping[str, str]:
    """The scheme's name for every array of the network, by canonical name, in forward order.

    Raises:
        InvalidInput: when the preset has no such files.
    """
    if config.preset not in scheme.presets:
        known = ", ".join(other.name for other in _SCHEMES if config.preset in other.presets)
        raise InvalidInput(f"preset {config.preset} has no names in scheme {scheme.name}: expected one of {known}")
    if config.aux and not scheme.heads:
        raise InvalidInput(f"the auxiliary heads have no names in scheme {scheme.name}: leave them out with --no-aux")
    if not scheme.names_all_of(config):
        raise InvalidInput(
            f"the scales of batch norm have no names in scheme {scheme.name}, whose networks have none: expected a "
            "network without, as --fold-into makes it"
        )
    if scheme.whole:
        return scheme.whole[config.preset]
    shapes = spec.param_shapes(config)
    return {
        f"{layer.name}.{leaf}": scheme.array(config.preset, layer.name, foreign_leaf)
        for layer in spec.layers(config)
        for leaf, foreign_leaf in (scheme.dense if layer.is_dense else scheme.convolution).items()
        if f"{layer.name}.{leaf}" in shapes
    }


def _fixed(scheme: Scheme, config: spec.Config) -> dict[str, tuple[str, int]]:
    """The scales and shifts that the scheme's files hold although they are not learned, by the file's names.

    For each the canonical name of an array of the same shape, and its one value.
    """
    return {
        scheme.array(config.preset, layer.name, scheme.convolution[leaf]): (f"{layer.name}.norm.running_mean", value)
        for layer in spec.layers(config)
        if scheme.fixed and layer.norm
        for leaf, value in _FIXED.items()
        if leaf.removeprefix("norm.") not in layer.norm.learned
    }


def rename(arrays: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """Views of a file's arrays by canonical name, in canonical layout and forward order. Dtypes stay.

    Raises:
        InvalidInput: when the arrays do not fit the scheme and the network, in one line.
    """
    _check(arrays, scheme, config)
    shapes = spec.param_shapes(config)
    return {
        name: _canonical(_flat(arrays[foreign_name], foreign_name, scheme), scheme.layout[len(shapes[name])]).reshape(
            shapes[name]
        )
        for name, foreign_name in foreign_names(scheme, config).items()
    }


def _flat(x: Array, name: str, scheme: Scheme) -> Array:
    """Old files of Caffe's batch norm have a row of numbers, (1, out), for (out,)."""
    return x[0] if scheme.rows and f"{scheme.rows}." in name and x.ndim == 2 and len(x) == 1 else x


def foreign(params: Arrays, scheme: Scheme, config: spec.Config) -> dict[str, Array]:
    """The inverse of `rename`: views by the scheme's names, in its layout and in forward order.

    After them come new arrays, where the scheme has a scale and a shift that the network does not learn.

    Raises:
        InvalidInput: when the parameters do not fit the network, or its preset has no such files.
    """
    _check(params, SCHEMES["canonical"], config)
    arrays = {
        foreign_name: _turned(params[name], scheme.layout[params[name].ndim])
        for name, foreign_name in foreign_names(scheme, config).items()
    }
    fixed = _fixed(scheme, config).items()
    return arrays | {foreign_name: np.full_like(params[like], value) for foreign_name, (like, value) in fixed}


def _canonical(x: Array, order: str) -> Array:
    """An array with axes in that order as one in the canonical order."""
    return x.transpose([order.index(side) for side in CANONICAL[len(order)]])


def _turned(x: Array, order: str) -> Array:
    """A canonical array with its axes in that order; a dense layer's may become a convolution's of 1x1."""
    x = x.reshape(_with_ones(x.shape, len(order)))
    return x.transpose([CANONICAL[x.ndim].index(side) for side in order])


def _with_ones(shape: tuple[Any, ...], length: int) -> tuple[Any, ...]:
    """The shape with sides of 1 behind it, up to that length."""
    return (*shape, *[1] * (length - len(shape)))


# ------------------------------------------------------------------------------------------------------ recognizing


@dataclass(frozen=True)
class Candidate:
    """One candidate (scheme, network) for a set of arrays, with every mismatch, in the scheme's names."""

    scheme: Scheme
    config: spec.Config
    arrays: Arrays  # the file's
    wanted: int  # how many arrays the network has
    known: set[str]  # their names, and those of what is ignored
    besides: set[str]  # of these, what the scheme's files hold besides the network
    missing: list[str]
    wrong: dict[str, list[str]]  # other mismatches, by kind
    advice: list[str]

    @property
    def distance(self) -> tuple[float, int]:
        """Share of arrays that differ, then how many are unexpected: missing arrays are likelier.

        With a count in place of the share, arrays unlike every network would be nearest to the smallest one.
        """
        unexpected = len(self.arrays) - sum(name in self.arrays for name in self.known)  # a file may have very many
        differences = len(self.missing) + unexpected + sum(map(len, self.wrong.values()))
        return differences / (len(self.arrays) + self.wanted), unexpected

    @property
    def fits(self) -> bool:
        return self.distance == (0, 0)

    def differences(self) -> dict[str, list[str]]:
        """All of them, by kind."""
        unexpected = [name for name in self.arrays if name not in self.known]
        return {"missing": self.missing, "unexpected": unexpected, **self.wrong}

    def lines(self) -> list[str]:
        """Every difference on a line, then the advice."""
        differences = [f"{kind}: {_short(text)}" for kind, texts in self.differences().items() for text in texts]
        return differences + self.advice

    def __str__(self) -> str:
        """All in one line, with a few differences of each kind."""
        few = [f"{kind}: {_few(texts)}" for kind, texts in self.differences().items() if texts]
        return f"scheme {self.scheme.name}, {self.config}: {'; '.join([*few, *self.advice])}"


def accepted(fits: list[Candidate], preset: str | None) -> tuple[Scheme, list[spec.Config]]:
    """The first scheme of the candidates, and all its networks among them; those of the preset where there is one.

    Raises:
        InvalidInput: when none is of that preset.
    """
    chosen = [candidate for candidate in fits if preset in (None, candidate.config.preset)]
    if not chosen:
        others = ", ".join(dict.fromkeys(candidate.config.preset for candidate in fits))
        raise InvalidInput(f"expected arrays of preset {preset}, got ones of {others} (scheme {fits[0].scheme.name})")
    scheme = chosen[0].scheme
    by_preset: dict[str, spec.Config] = {}
    for candidate in chosen:
        if candidate.scheme is scheme:  # with a scale of 1, a network fits with and without one
            by_preset.setdefault(candidate.config.preset, candidate.config)
    configs = list(by_preset.values())
    return scheme, configs if preset else told(configs)[0]


def told(configs: list[spec.Config]) -> tuple[list[spec.Config], str]:
    """Of several Inception v3 with the same arrays the one that something tells, and what; else all, and nothing."""
    scaled = any(config.batch_norm and config.batch_norm.scale for config in configs)
    for preset, sign, words in (
        ("inception-v3-fid", 1008, "1008 classes: FID's network; others of the same arrays have ImageNet's 1000"),
        ("inception-v3-tf", 1001, "1001 classes: TensorFlow's network, whose first class is the background"),
        (
            "inception-v3-tf",
            None,
            "no scale in batch norm: TensorFlow's network; others of the same arrays have one",
        ),
    ):
        for config in configs:
            if config.preset == preset and (config.num_classes == sign if sign else not scaled):
                return [config], words
    return configs, ""


def misfit(arrays: Arrays, parts: Iterable[Arrays], preset: str | None, remedy: str = "") -> InvalidInput:
    """The error for arrays that fit nothing, with the nearest, and with what a user may do."""
    what = "any preset" if preset is None else f"preset {preset}"
    words = [f"these {len(arrays)} arrays do not fit {what}; nearest is {closest(parts, preset)}"]
    return InvalidInput("; ".join([*words, remedy] if remedy else words))


def closest(parts: Iterable[Arrays], preset: str | None = None) -> Candidate:
    """The network, of that preset if any, and the part of a file that differ least; the first of several."""
    every = [
        (_least_distance(arrays, scheme, config), arrays, scheme, config)
        for arrays in parts
        for scheme, config in _networks(arrays)
        if preset in (None, config.preset)
    ]
    seen: list[tuple[tuple[float, int], int, Candidate]] = []
    for i in sorted(range(len(every)), key=lambda i: every[i][0]):
        least, arrays, scheme, config = every[i]
        if seen and (least > min(seen)[0][0] or least == 1):
            break
        candidate = candidate_of(arrays, scheme, _sized(arrays, scheme, config))
        seen.append((candidate.distance, i, candidate))
    return min(seen)[-1]


def _least_distance(arrays: Arrays, scheme: Scheme, config: spec.Config) -> float:
    """At most the candidate's distance, from the missing names alone: most candidates need no closer look.

    1, the largest, where no name is there: such networks are equally far.
    """
    names = foreign_names(scheme, config).values()
    missing = sum(name not in arrays for name in names)
    if missing == len(names):
        return 1.0
    return missing / (len(arrays) + len(names) * (1 + scheme.fixed))


def fitting(arrays: Arrays) -> list[Candidate]:
    """The candidates that fit."""
    named = (
        (scheme, config)
        for scheme, config in _networks(arrays)
        if all(name in arrays for name in foreign_names(scheme, config).values())
    )
    sized = ((scheme, _sized(arrays, scheme, config)) for scheme, config in named)
    return [candidate for scheme, config in sized if (candidate := candidate_of(arrays, scheme, config)).fits]


def _networks(arrays: Arrays) -> Iterator[tuple[Scheme, spec.Config]]:
    """Every scheme and preset, with and without heads; names alone tell most of them apart from the arrays."""
    for scheme in _SCHEMES:
        for preset in scheme.presets:
            for aux in (True, False) if spec.PRESETS[preset].aux and scheme.heads else (False,):
                for norm in _norms(arrays, scheme, preset):
                    yield scheme, replace(spec.preset(preset, aux=aux), batch_norm=norm)


def _norms(arrays: Arrays, scheme: Scheme, preset: str) -> Iterator[spec.BatchNorm | None]:
    """The forms of batch norm to try: the preset's own, and others where the arrays speak for them.

    TensorFlow's Inceptions learn no scale, and other people's files of the same networks have one; some convolutions
    have a bias before batch norm, which needs none.
    """
    own = spec.PRESETS[preset].batch_norm
    if own is not None and not scheme.scales:
        yield replace(own, scale=False)
        return
    yield own
    if own is None or not spec.PRESETS[preset].family.startswith("Inception"):
        return
    first, leaves = spec.layers(spec.PRESETS[preset])[0].name, scheme.convolution
    scaled, biased = (
        leaf in leaves and scheme.array(preset, first, leaves[leaf]) in arrays for leaf in ("norm.weight", "bias")
    )
    scales = [own.scale] if scaled == own.scale and not scheme.fixed else [own.scale, not own.scale]
    biases = [own.after_bias] if biased == own.after_bias or not leaves.get("bias") else [own.after_bias, biased]
    for scale, after_bias in itertools.product(scales, biases):
        if (scale, after_bias) != (own.scale, own.after_bias):
            yield replace(own, scale=scale, after_bias=after_bias)


def _sized(arrays: Arrays, scheme: Scheme, config: spec.Config) -> spec.Config:
    """The network with the channels and classes of the arrays, or its own where the arrays do not tell."""
    foreign_name, layers = foreign_names(scheme, config), spec.layers(config)
    first = layers[0]
    # NiN's last convolutions map classes to classes, so that neither side tells the other.
    last = next(layer for layer in reversed(layers) if layer.in_channels != layer.out_channels)

    def side(layer: spec.Node, *sides: int | None) -> int | None:
        return _open_side(arrays.get(foreign_name[f"{layer.name}.weight"]), (*sides, *layer.weight_shape[2:]))

    sized = spec.preset(
        config.preset,
        aux=config.aux,
        in_channels=side(first, first.out_channels, None),
        num_classes=side(last, None, last.in_channels),
    )
    return replace(sized, batch_norm=config.batch_norm)


def _open_side(x: Array | None, sides: tuple[int | None, ...]) -> int | None:
    """The length of the side that is None in `sides`, in any order of the axes; None where the others do not fit."""
    if x is None or x.ndim not in (len(sides), 4):
        return None
    sides = _with_ones(sides, x.ndim)
    for order in _ORDERS[x.ndim]:
        shape = _canonical(x, order).shape
        length = shape[sides.index(None)]
        if length > 0 and shape == tuple(length if side is None else side for side in sides):
            return length
    return None


def candidate_of(arrays: Arrays, scheme: Scheme, config: spec.Config) -> Candidate:
    """How the arrays differ from a network in a scheme."""
    names, shapes, fixed = foreign_names(scheme, config), spec.param_shapes(config), _fixed(scheme, config)
    wanted = {names[name]: shape for name, shape in shapes.items()}
    wanted |= {name: shapes[like] for name, (like, _) in fixed.items()}
    missing: list[str] = []
    wrong: dict[str, list[str]] = {"wrong shape": [], "wrong type": [], "wrong value": []}
    advice: list[str] = []
    for name, canonical in wanted.items():
        order = scheme.layout[len(canonical)]
        expected = _shape_in(canonical, order)
        x = arrays.get(name)
        if x is None:
            missing.append(f"{name} {expected}")
            continue
        x = _flat(x, name, scheme)
        if x.shape != expected:
            wrong["wrong shape"].append(f"{name}: expected {expected}, got {x.shape}")
            advice += [
                f"shapes look like {other}: expected {order} (O out, I in), transpose them"
                for other in _ORDERS[len(canonical)]
                if x.shape == _shape_in(canonical, other)
            ]
        if x.dtype.name not in _DTYPES:
            wrong["wrong type"].append(f"{name}: expected floating point of 16 to 64 bits, got {x.dtype.name}")
        elif name in fixed and not (x == (value := fixed[name][1])).all():
            wrong["wrong value"].append(f"{name}: expected {value} everywhere, as it is not learned")
    last = spec.layers(config)[-1].name
    if missing and {name for name in wanted if name not in arrays} == {
        foreign_name for name, foreign_name in names.items() if name.startswith(f"{last}.")
    }:
        advice.append("all but its last layer is there: expected weights with their classifier")
    if _has_part_of_the_heads(arrays, scheme, config):
        advice.append("auxiliary heads are there in part: expected both or neither")
    counters = {
        scheme.array(config.preset, layer.name, scheme.counter)
        for layer in spec.layers(config)
        # PyTorch's own batch norm counts batches; it stores the unbiased variance, and no other.
        if scheme.counter and layer.norm and layer.norm.unbiased
    }
    besides: set[str] = set()
    if scheme.besides and len(missing) < len(wanted):  # a file of something else may have very many arrays
        besides = {name for name in arrays if re.fullmatch(scheme.besides, name)}
    known = counters | wanted.keys() | besides
    for second, first in scheme.repeated.items():
        for leaf in scheme.dense.values():
            name, like = f"{second}.{leaf}", f"{first}.{leaf}"
            known.add(name)
            if name in arrays and like in arrays and arrays[name].tobytes() != arrays[like].tobytes():
                wrong["wrong value"].append(f"{name}: expected the numbers of {like}, which is the same layer")
    return Candidate(scheme, config, arrays, len(wanted), known, besides, missing, wrong, list(dict.fromkeys(advice)))


def _shape_in(canonical: Shape, order: str) -> Shape:
    """A canonical shape with its sides in another order."""
    canonical = _with_ones(canonical, len(order))
    return tuple(canonical[CANONICAL[len(order)].index(side)] for side in order)


def _has_part_of_the_heads(arrays: Arrays, scheme: Scheme, config: spec.Config) -> bool:
    """Whether all of the trunk is there, but only a part of the auxiliary heads."""
    if not scheme.heads:
        return False
    whole = foreign_names(scheme, spec.PRESETS[config.preset])
    trunk = foreign_names(scheme, spec.preset(config.preset, aux=False))
    heads = [foreign_name in arrays for name, foreign_name in whole.items() if name not in trunk]
    return any(heads) and not all(heads) and all(foreign_name in arrays for foreign_name in trunk.values())


def _check(arrays: Arrays, scheme: Scheme, config: spec.Config) -> None:
    candidate = candidate_of(arrays, scheme, config)
    if not candidate.fits:
        raise InvalidInput(f"these {len(arrays)} arrays do not fit {candidate}")


def _few(texts: list[str]) -> str:
    """The first few texts, and how many more there are."""
    few = [_short(text) for text in texts[:_FEW]]
    return ", ".join(few) + (f" and {len(texts) - _FEW} more" if len(texts) > _FEW else "")


def _short(text: str) -> str:
    """At most 120 characters: a name from a file can have a million."""
    return shown(text if len(text) <= 120 else text[:117] + "...")
