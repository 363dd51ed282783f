"""Checkpoints: a network in a safetensors file, with canonical names and a hash of the content.

A file holds the network's arrays by canonical name. A run's file also holds the optimizer's state, under ``optimizer/``
and the names of `spec.state_shapes`. The file's metadata are ``format``, ``config`` (JSON: the arguments of
`spec.preset`), ``metadata`` (JSON: whatever the writer adds) and ``sha256``, over all of these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from harness.atomic import StrPath, write_atomically
from harness.shown import shown
from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.network import Config, param_shapes
from spec.params import check_params, check_state
from spec.presets import PRESETS, preset

FORMAT = "googlenet-1"
CHECKPOINT = "checkpoint.safetensors"  # its name in the folder of a run
MOST_ARRAYS = 10_000  # in a file; a GoogLeNet with an optimizer's state has 1,000
STATE = "optimizer/"  # stands before the names of an optimizer's state
AVERAGE = "average/"  # in that state before the names of the parameters' averages


@dataclass(frozen=True)
class Checkpoint:
    """A network with its parameters."""

    params: dict[str, Array]  # by canonical name
    config: Config
    metadata: dict[str, Any] = field(default_factory=dict)  # JSON values
    state: dict[str, Array] = field(default_factory=dict)  # the optimizer's; empty where there is none


def save(
    path: StrPath, params: Arrays, config: Config, metadata: dict[str, Any] | None = None, state: Arrays | None = None
) -> None:
    """Write a checkpoint to ``*.safetensors``. An older file stays whole until the new one is whole too.

    Raises:
        InvalidInput: when the arrays do not fit the network, or the file cannot be written.
    """
    path = Path(path)
    state = state or {}
    _check(config, params, state)
    arrays = {name: plain(x) for name, x in params.items()} | {STATE + name: plain(x) for name, x in state.items()}
    try:
        content = to_bytes(arrays, describe(arrays, config, metadata or {}))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    except (SafetensorError, ValueError) as error:
        raise InvalidInput(f"{path}: expected arrays of 64 bits at most: {error}") from error
    write_atomically(path, *_sort_metadata(content))


def load(path: StrPath) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InvalidInput: when there is none, or it is damaged, or not one of ours.
    """
    path = Path(path)
    arrays, texts = read_safetensors(path)
    try:
        return understand(arrays, texts)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def read_safetensors(path: StrPath) -> tuple[dict[str, Array], dict[str, str]]:
    """Read the arrays and the metadata of any safetensors file.

    Raises:
        InvalidInput: when there is none, or it is damaged.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise InvalidInput(f"{path}: expected a checkpoint (a .safetensors file), and there is no such file")
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) > MOST_ARRAYS:
                raise InvalidInput(
                    f"{path}: expected {MOST_ARRAYS:,} arrays at most, as a network has, got {len(names):,}"
                )
            halves = [name for name in names if file.get_slice(name).get_dtype() == "BF16"]
            widened = _widened(path, halves)
            arrays = {name: widened[name] if name in widened else file.get_tensor(name) for name in names}
            return arrays, dict(file.metadata() or {})
    except InvalidInput:
        raise
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:  # the last three: its dtypes
        raise InvalidInput(
            f"{path}: not a safetensors file, or a truncated one ({shown(error)}); restore it from a copy"
        ) from error


def _widened(path: Path, names: list[str]) -> dict[str, Array]:
    """Arrays of bfloat16, which NumPy does not have, in float32; the file's header has been checked."""
    arrays: dict[str, Array] = {}
    if not names:
        return arrays
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        for name in names:
            begin, end = header[name]["data_offsets"]
            file.seek(start + begin)
            arrays[name] = of_bfloat16(file.read(end - begin)).reshape(header[name]["shape"])
    return arrays


def of_bfloat16(content: bytes) -> Array:
    """Numbers of bfloat16, (n,), in float32, which holds them exactly."""
    return (np.frombuffer(content, "<u2").astype("<u4") << 16).view("<f4")


def read_metadata(path: StrPath) -> dict[str, Any]:
    """The metadata of a checkpoint, from the file's header alone; empty where it has none, or is no checkpoint."""
    path = Path(path)
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            return json_object((file.metadata() or {}).get("metadata", "{}"))
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError):
        return {}


def holds_training(path: StrPath) -> bool:
    """Whether the file is the checkpoint of a training run, with its position. Reads its header only."""
    return "position" in read_metadata(path)


def describe(arrays: Arrays, config: Config, metadata: dict[str, Any]) -> dict[str, str]:
    """Make the texts that a file of any format holds beside its arrays, an optimizer's state included.

    Raises:
        InvalidInput: when the metadata is not JSON, or no preset makes the configuration.
    """
    texts = {"format": FORMAT, "config": json.dumps(config_table(config))}
    try:
        texts["metadata"] = json.dumps(metadata)
        return texts | {"sha256": _digest(arrays, texts)}
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"expected JSON as metadata: {error}") from error


def understand(arrays: Arrays, texts: dict[str, str]) -> Checkpoint:
    """Make a checkpoint of arrays and the texts of `describe`.

    Raises:
        InvalidInput: when anything has changed since, or these are other texts.
    """
    texts = dict(texts)
    if texts.get("format") != FORMAT:
        raise InvalidInput(f"expected the format {FORMAT!r} in its metadata, got {texts.get('format')!r}")
    stored = texts.pop("sha256", None)
    if (actual := _digest(arrays, texts)) != stored:
        raise InvalidInput(f"damaged: its content has SHA-256 {actual}, and says {stored!r}; restore a copy")
    state = {name.removeprefix(STATE): x for name, x in arrays.items() if name.startswith(STATE)}
    params = {name: x for name, x in arrays.items() if not name.startswith(STATE)}
    config = config_of(texts)
    metadata = _text_as_json(texts, "metadata")
    _check(config, params, state)
    return Checkpoint({name: params[name] for name in param_shapes(config)}, config, metadata, state)


def config_of(texts: dict[str, str]) -> Config:
    """The network that the texts of `describe` name.

    Raises:
        InvalidInput: when they name none.
    """
    try:
        return preset(**_text_as_json(texts, "config"))
    except TypeError as error:
        raise InvalidInput(f"config: {error}") from error


def json_object(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object from a file that nobody has checked.

    Raises:
        ValueError: when it is anything else.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got a {type(value).__name__}")
    return value


def plain(x: Array) -> Array:
    """The array as files hold it: row by row, little-endian. An array without dimensions keeps none."""
    x = np.asarray(x)
    return np.asarray(x, x.dtype.newbyteorder("<"), order="C")


def averaged(params: Arrays, state: Arrays) -> dict[str, Array]:
    """The parameters, with their averages in place of those that an optimizer's state has averages of.

    Running statistics, which are averages themselves, stay as they are.
    """
    return {name: state.get(AVERAGE + name, x) for name, x in params.items()}


def _check(config: Config, params: Arrays, state: Arrays) -> None:
    check_params(config, params)
    check_state(config, tuple({name.split("/")[0]: None for name in state}), state)


def _text_as_json(texts: dict[str, str], key: str) -> dict[str, Any]:
    text = texts.get(key, "")
    try:
        return json_object(text)
    except ValueError as error:
        raise InvalidInput(f"expected a JSON object as {key!r} in its metadata, got {text[:60]!r}") from error


def _sort_metadata(content: bytes) -> tuple[bytes, memoryview]:
    """Sort a file's metadata, which safetensors writes in random order, so that equal content makes equal bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the arrays
    return len(text).to_bytes(8, "little") + text, memoryview(content)[end:]


def config_table(config: Config) -> dict[str, Any]:
    """The arguments with which `preset` makes this configuration.

    Raises:
        InvalidInput: when no arguments make it, because it was changed by hand.
    """
    original = PRESETS.get(config.preset)
    fields = ("in_channels", "aux", "num_classes", "aux_weight", "label_smoothing")
    table: dict[str, Any] = {"name": config.preset} | {name: getattr(config, name) for name in fields}
    if original is not None and (config.dropout, config.aux_dropout) != (original.dropout, original.aux_dropout):
        table["dropout"] = config.dropout
    if original is not None and config.batch_norm and original.batch_norm:
        if config.batch_norm.momentum != original.batch_norm.momentum:
            table["norm_momentum"] = config.batch_norm.momentum
        if config.batch_norm.scale != original.batch_norm.scale:
            table["norm_scale"] = config.batch_norm.scale
    if original is not None and config.shortcuts != original.shortcuts:
        table["shortcuts"] = config.shortcuts
    if original is None or preset(**table) != config:
        raise InvalidInput(f"config: expected one that spec.preset makes, got a changed {config.preset!r}")
    return table


def _digest(arrays: Arrays, texts: dict[str, str]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names, and over the texts."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        x = arrays[name]
        digest.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
        digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)  # bfloat16 has no buffer
    digest.update(json.dumps(texts, sort_keys=True).encode())
    return digest.hexdigest()
