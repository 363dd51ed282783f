"""Networks in files: safetensors with canonical names, a hash of the content, and no way to hold half of one.

A file holds the network's arrays by canonical name, of a run the optimizer's state too (``optimizer/`` before the names
of `spec.state_shapes`), and in its metadata ``format``, ``config`` (JSON: the arguments of `spec.preset`),
``metadata`` (JSON: whatever the writer adds) and ``sha256``, over all of these. Nothing in it is ever executed.
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

from harness.atomic import write_atomically
from spec.arrays import Array, Arrays
from spec.errors import InvalidInput
from spec.network import Config, param_shapes
from spec.params import check_params, check_state
from spec.presets import PRESETS, preset

FORMAT = "googlenet-1"
STATE = "optimizer/"  # before the names of a training's optimizer


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    params: dict[str, Array]  # by canonical name
    config: Config
    metadata: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Array] = field(default_factory=dict)  # of the optimizer; empty where there is none


def save(
    path: Path, params: Arrays, config: Config, metadata: dict[str, Any] | None = None, state: Arrays | None = None
) -> None:
    """Write a checkpoint. Whatever stood there before stays whole until the new file is whole too.

    Args:
        path: ``*.safetensors``.
        params: Arrays by canonical name.
        config: The network.
        metadata: JSON values.
        state: The optimizer's.

    Raises:
        InvalidInput: when the arrays do not fit the network, or the file cannot be written.
    """
    state = state or {}
    _check(config, params, state)
    arrays = {name: _plain(x) for name, x in params.items()} | {STATE + name: _plain(x) for name, x in state.items()}
    try:
        content = to_bytes(arrays, describe(arrays, config, metadata or {}))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error
    except (SafetensorError, ValueError) as error:
        raise InvalidInput(f"{path}: expected arrays of 64 bits at most: {error}") from error
    write_atomically(path, *_in_order(content))


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InvalidInput: when there is none, or it is damaged, or not one of ours.
    """
    arrays, texts = read_safetensors(path)
    try:
        return understand(arrays, texts)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def read_safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of any safetensors file.

    Raises:
        InvalidInput: when there is none, or it is damaged.
    """
    try:
        if not path.is_file():
            raise InvalidInput(f"{path}: expected a checkpoint (a .safetensors file), and there is no such file")
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except InvalidInput:
        raise
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:  # the last three: its dtypes
        said = "".join(c if c.isprintable() else " " for c in str(error))  # it repeats what stands in the file
        raise InvalidInput(
            f"{path}: not a safetensors file, or a truncated one ({said}); restore it from a copy"
        ) from error


def describe(arrays: Arrays, config: Config, metadata: dict[str, Any]) -> dict[str, str]:
    """The texts that stand beside the arrays in a file, of whatever format, and say what they are.

    Args:
        arrays: By canonical name, and the optimizer's after ``optimizer/``.
        config: The network.
        metadata: JSON values.

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
    """What `describe` described, after making sure that nothing of it has changed since.

    Raises:
        InvalidInput: when something has, or these are not such texts.
    """
    texts = dict(texts)
    if texts.get("format") != FORMAT:
        raise InvalidInput(f"expected the format {FORMAT!r} in its metadata, got {texts.get('format')!r}")
    found = texts.pop("sha256", None)
    if (expected := _digest(arrays, texts)) != found:
        raise InvalidInput(f"damaged: its content has SHA-256 {expected}, and says {found}; restore a copy")
    state = {name.removeprefix(STATE): x for name, x in arrays.items() if name.startswith(STATE)}
    params = {name: x for name, x in arrays.items() if not name.startswith(STATE)}
    config = config_of(texts)
    metadata = _json_object(texts, "metadata")
    _check(config, params, state)
    return Checkpoint({name: params[name] for name in param_shapes(config)}, config, metadata, state)


def config_of(texts: dict[str, str]) -> Config:
    """The network that such texts name.

    Raises:
        InvalidInput: when they name none.
    """
    try:
        return preset(**_json_object(texts, "config"))
    except TypeError as error:
        raise InvalidInput(f"config: {error}") from error


def _check(config: Config, params: Arrays, state: Arrays) -> None:
    check_params(config, params)
    check_state(config, tuple({name.split("/")[0]: None for name in state}), state)


def _json_object(texts: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(texts.get(key, ""))
    except (RecursionError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"expected a JSON object as {key!r} in its metadata, got {texts.get(key, '')[:60]!r}")
    return value


def _plain(x: Array) -> Array:
    """The array as files hold it: row by row, little-endian; what has no dimensions keeps none."""
    x = np.asarray(x)
    return np.asarray(x, x.dtype.newbyteorder("<"), order="C")


def _in_order(content: bytes) -> tuple[bytes, memoryview]:
    """The same file with its metadata sorted: safetensors writes them in an order that chance decides."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the arrays
    return len(text).to_bytes(8, "little") + text, memoryview(content)[end:]


def config_table(config: Config) -> dict[str, Any]:
    """The arguments with which `preset` makes this configuration.

    Raises:
        InvalidInput: when there are none, since the configuration was changed by hand.
    """
    own = PRESETS.get(config.preset)
    table: dict[str, Any] = {"name": config.preset, "in_channels": config.in_channels, "aux": config.aux}
    table |= {"num_classes": config.num_classes, "aux_weight": config.aux_weight}
    table["label_smoothing"] = config.label_smoothing
    if own is not None and (config.dropout, config.aux_dropout) != (own.dropout, own.aux_dropout):
        table["dropout"] = config.dropout
    if own is not None and own.batch_norm and config.batch_norm and config.batch_norm != own.batch_norm:
        table["norm_momentum"] = config.batch_norm.momentum
    if own is None or preset(**table) != config:
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
