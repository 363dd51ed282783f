"""Files of weights, by the names that a model of JAX has for its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

import spec
from googlenet_jax.jaxpr.libraries import plain
from harness.backends.process import run_worker
from harness.shown import shown
from harness.weights import formats, names
from harness.weights.convert import understood
from harness.weights.recognition import recognize

_FEW = 3  # arrays named in an error


def stored(path: Path) -> tuple[str, list[spec.Arrays]]:
    """The format of a file, and its arrays under its own names, and if these are understood under ours.

    Ours are the canonical names, and those of our own network in Flax, in its layouts.

    Raises:
        spec.InvalidInput: when it cannot be read.
    """
    _, form, contents = formats.read(path, run_worker)
    own = {plain(name).replace("/", "."): x for name, x in contents.arrays.items() if x.dtype.kind == "f"}
    try:
        if contents.ours:
            weights, _ = understood(contents, formats.FORMATS[form].scheme)
            params, config = weights.params, weights.config
        else:
            network = recognize(contents.arrays)
            config = network.configs[0]
            params = network.params(config)
        return form, [own, params, names.foreign(params, names.SCHEMES["nnx"], config)]
    except spec.InvalidInput:
        return form, [own]


def matched(own: Mapping[str, jax.Array], namings: Sequence[spec.Arrays]) -> dict[str, jax.Array]:
    """The arrays of a file for all of the model's own that hold floats.

    Args:
        own: The model's arrays by their paths.
        namings: The file's by several names; those count of which the model has most.

    Raises:
        spec.InvalidInput: when arrays are missing, left over or of another shape: all of them.
    """
    floats = {name: x for name, x in own.items() if jax.numpy.issubdtype(x.dtype, jax.numpy.floating)}
    arrays = max(namings, key=lambda naming: len(naming.keys() & floats.keys()))
    missing, left_over = sorted(floats.keys() - arrays.keys()), sorted(arrays.keys() - floats.keys())
    misshapen = [
        f"{name} is {arrays[name].shape}, not {x.shape}"
        for name, x in floats.items()
        if name in arrays and not _same_shape(arrays[name].shape, x.shape)
    ]
    problems = [
        f"{len(found)} {what}, {shown(', '.join(found[:_FEW]))}{' among them' * (len(found) > _FEW)}"
        for what, found in (("are missing", missing), ("are left over", left_over), ("have another shape", misshapen))
        if found
    ]
    if problems:
        raise spec.InvalidInput(f"it does not hold the model's own arrays: {'; '.join(problems)}")
    return {name: jax.numpy.asarray(arrays[name].reshape(x.shape), np.float32) for name, x in floats.items()}


def _same_shape(one: spec.Shape, other: spec.Shape) -> bool:
    """But for axes one number long: Equinox's biases have two."""
    return [n for n in one if n != 1] == [n for n in other if n != 1]
