"""Values of MXNet's: arrays, parameters, and what operators are called with."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import mxnet as mx
import numpy as np
from mxnet import gluon
from mxnet.ndarray import NDArray

import spec


def numbers_of(x: NDArray) -> spec.Array:
    """The numbers of an array, in float64."""
    return x.asnumpy().astype(np.float64)


def array_of(x: spec.Array, dtype: Any) -> NDArray:
    """The array, of the kind that MXNet's NumPy mode wants where it is on."""
    y = mx.nd.array(x, dtype=dtype)
    return y.as_np_ndarray() if mx.util.is_np_array() else y


def made_parameters(model: gluon.Block) -> dict[str, gluon.Parameter]:
    """The parameters that have their arrays, by the names of the attributes."""
    return {name: x for name, x in model._collect_params_with_prefix().items() if x._data is not None}


def settings_of(texts: Mapping[str, Any]) -> dict[str, Any]:
    """An operator's settings, which arrive as texts in part; without those that are not set."""
    values = {name: _value(str(text)) for name, text in texts.items()}
    return {name: value for name, value in values.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(re.sub(r"(?<=\d)L\b", "", text))  # Python 2 wrote (3L, 3L)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class Call(NamedTuple):
    """One use of an operator."""

    inputs: Sequence[NDArray]
    settings: Mapping[str, Any]
    y: NDArray  # what it puts out first

    def get(self, name: str, default: Any) -> Any:
        return self.settings.get(name, default)


class Unmoved(NamedTuple):
    """A batch norm whose operator leaves the running mean alone: somebody else may move it."""

    node: int
    mean: NDArray
    before: spec.Array
    batch: spec.Array  # its own mean
