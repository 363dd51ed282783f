"""Weight formats: detect, read, write, run.

A reader returns the arrays under the file's own names; `harness.weights.names` identifies the network. Formats that
need their framework are read in a worker process, so that a hostile file never meets this one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.backends.process import Answer
from harness.backends.registry import NotInstalled
from harness.weights import names
from harness.weights.checkpoint import Checkpoint, config_table, describe, save
from harness.weights.formats import canonical, flax, gluon, pytorch
from harness.weights.formats.found import Found
from spec import Array, Arrays, InvalidInput, is_statistic

TEXTS = "googlenet.json"  # beside an Orbax checkpoint's own files
_SYMBOL, _PARAMS = "-symbol.json", "-0000.params"
_LARGEST_JSON = 2**22  # bytes: a network's graph has 100,000


class Work(Protocol):
    """Runs a task in a backend's process: `harness.backends.process.run_worker` with the interpreters filled in."""

    def __call__(self, backend: str, task: dict[str, Any], arrays: Arrays) -> Answer: ...


@dataclass(frozen=True)
class Format:
    """One format of weights.

    Attributes:
        title: For people.
        suffixes: The first is what a file of ours has; empty for a folder.
        scheme: How our own files name the arrays, see `harness.weights.names`.
        runner: Whose framework runs such a file: a backend, ``onnx``, or ``spec`` for the referee.
        read: The arrays by the file's names.
        write: Canonical parameters into a path where nothing stands yet.
    """

    title: str
    suffixes: tuple[str, ...]
    scheme: str
    runner: str
    read: Callable[[Path, Work], Found]
    write: Callable[[Path, Checkpoint, Work], None]


def answer_of(work: Work, backend: str, path: Path, task: dict[str, Any], arrays: Arrays) -> Answer:
    """What a worker makes of a file.

    Raises:
        InvalidInput: with its reason, when it refuses or dies; `NotInstalled` where the framework is not there.
    """
    answer = work(backend, {"path": str(path.absolute()), **task}, arrays)
    if answer.crash is not None:
        words = answer.crash.splitlines()
        raise InvalidInput(f"{path}: the process of {backend} that worked on it ended ({words[0]}; {words[-1]})")
    if answer.refused is not None:
        raise (NotInstalled if answer.missing else InvalidInput)(answer.refused)
    return answer


def _json_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        InvalidInput: when that is no object, or more than files of weights have beside them.
    """
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise ValueError(f"{size} bytes")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: expected a JSON file of {_LARGEST_JSON} bytes at most ({error})") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}: expected a JSON object, got a {type(value).__name__}; restore a copy")
    return value


def _foreign(weights: Checkpoint, scheme: str) -> dict[str, Array]:
    return names.foreign(weights.params, names.SCHEMES[scheme], weights.config)


def _texts(weights: Checkpoint) -> dict[str, str]:
    return describe(weights.params, weights.config, weights.metadata)


# ------------------------------------------------------------------------------------------------------ safetensors


def _read_safetensors(path: Path, work: Work) -> Found:
    return canonical.read(path)


def _write_safetensors(path: Path, weights: Checkpoint, work: Work) -> None:
    save(path, weights.params, weights.config, weights.metadata)


def _read_folder(path: Path, work: Work) -> Found:
    return canonical.read(path / canonical.WEIGHTS)


def _write_folder(path: Path, weights: Checkpoint, work: Work) -> None:
    canonical.write_folder(path, weights)


# ---------------------------------------------------------------------------------------------------------- PyTorch


def _read_pytorch(path: Path, work: Work) -> Found:
    texts = pytorch.check_file(path)
    return Found(answer_of(work, "pt", path, {"kind": "read"}, {}).arrays, texts)


def _write_pytorch(path: Path, weights: Checkpoint, work: Work) -> None:
    answer_of(work, "pt", path, {"kind": "write", "config": config_table(weights.config)}, weights.params)
    pytorch.add_texts(path, _texts(weights))


# ------------------------------------------------------------------------------------------------------------ MXNet


def _read_gluon(path: Path, work: Work) -> Found:
    found = gluon.read(path)
    if "symbol" in found.texts:
        raise InvalidInput(f"{path}: the parameters of a symbol; name its {_SYMBOL} instead, which says the network")
    return found


def _write_gluon(path: Path, weights: Checkpoint, work: Work) -> None:
    gluon.write(path, _foreign(weights, "gluon"), _texts(weights))


def _read_symbol(path: Path, work: Work) -> Found:
    found = gluon.read(params_of(path))
    graph = _json_object(path)
    if (expected := found.texts.pop("symbol", None)) not in (None, _sha256(path)):
        raise InvalidInput(f"{path}: expected the graph with SHA-256 {expected}, got {_sha256(path)}; restore a copy")
    if not isinstance(graph.get("nodes"), list):
        raise InvalidInput(f"{path}: expected a graph of MXNet, and it has no nodes; restore a copy")
    return found


def _write_symbol(path: Path, weights: Checkpoint, work: Work) -> None:
    answer_of(work, "mx", path, {"kind": "write", "config": config_table(weights.config)}, weights.params)
    # What MXNet calls auxiliary is what nothing trains.
    arrays = {f"{'aux' if is_statistic(name) else 'arg'}:{name}": x for name, x in weights.params.items()}
    gluon.write(params_of(path), arrays, _texts(weights) | {"symbol": _sha256(path)})


def params_of(symbol: Path) -> Path:
    """``net-0000.params`` of ``net-symbol.json``, as MXNet names them.

    Raises:
        InvalidInput: when that is not how the symbol is called.
    """
    if not symbol.name.endswith(_SYMBOL):
        raise InvalidInput(f"{symbol}: expected a name that ends in {_SYMBOL}, as MXNet exports it")
    return symbol.with_name(symbol.name.removesuffix(_SYMBOL) + _PARAMS)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------------- Flax


def _read_flax(path: Path, work: Work) -> Found:
    return flax.read(path)


def _write_flax(path: Path, weights: Checkpoint, work: Work) -> None:
    flax.write(path, _foreign(weights, "nnx"), _texts(weights))


def _read_orbax(path: Path, work: Work) -> Found:
    texts = _json_object(path / TEXTS) if os.path.lexists(path / TEXTS) else {}
    if not all(isinstance(text, str) for text in texts.values()):
        raise InvalidInput(f"{path / TEXTS}: expected a JSON object of texts; restore a copy")
    return Found(answer_of(work, "jax", path, {"kind": "read"}, {}).arrays, texts)


def _write_orbax(path: Path, weights: Checkpoint, work: Work) -> None:
    task = {"kind": "write", "config": config_table(weights.config)}
    answer_of(work, "jax", path, task, _foreign(weights, "nnx"))
    (path / TEXTS).write_text(json.dumps(_texts(weights)))


# ------------------------------------------------------------------------------------------------------------- ONNX


def _read_onnx(path: Path, work: Work) -> Found:
    from harness.weights.formats import onnx_file

    return onnx_file.read(path)


def _write_onnx(path: Path, weights: Checkpoint, work: Work) -> None:
    from harness.weights.formats import onnx_file

    onnx_file.write(path, weights.params, weights.config, weights.metadata)


FORMATS = {
    "safetensors": Format(
        "safetensors, ours", (".safetensors",), "canonical", "spec", _read_safetensors, _write_safetensors
    ),
    "huggingface": Format("a Hugging Face folder", (), "canonical", "spec", _read_folder, _write_folder),
    "pytorch": Format("a PyTorch state dict", (".pt", ".pth"), "canonical", "pt", _read_pytorch, _write_pytorch),
    "gluon": Format("Gluon parameters", (".params",), "gluon", "mx", _read_gluon, _write_gluon),
    "mxnet": Format("an MXNet symbol", (_SYMBOL,), "canonical", "mx", _read_symbol, _write_symbol),
    "flax": Format("Flax msgpack", (".msgpack",), "nnx", "jax", _read_flax, _write_flax),
    "orbax": Format("an Orbax checkpoint", (), "nnx", "jax", _read_orbax, _write_orbax),
    "onnx": Format("an ONNX model", (".onnx",), "canonical", "onnx", _read_onnx, _write_onnx),
}

_SUFFIXES = ", ".join(suffix for form in FORMATS.values() for suffix in form.suffixes)
_ORBAX_FILES = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")
_PICKLE = "a pickle, which could run any program: save its arrays as safetensors, where it was written"
_NOT_WEIGHTS = {  # how files begin that people have under such names
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<!DOCTYPE": "a web page, not the file itself: download that again",
    b"<html": "a web page, not the file itself: download that again",
    b"\x1f\x8b": "compressed by gzip: gunzip it first",
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
    b"\x89HDF": "an HDF5 file (Keras), not one of the formats: save its arrays as safetensors first",
}


def detect(path: Path) -> str:
    """The name of the format of a file or folder: by its content, and only where that leaves it open by its suffix.

    Raises:
        InvalidInput: when there is nothing of that name, or it is none of them.
    """
    try:
        if not path.exists():
            raise InvalidInput(f"{path}: expected weights, and there is no such file or folder; check the path")
        if path.is_dir():
            return _detect_folder(path)
        if not path.is_file():  # to open a pipe would be to wait for it
            raise InvalidInput(f"{path}: expected a file or a folder, got something else; make it a file first")
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from error
    if path.name.endswith(_SYMBOL) and start.lstrip()[:1] == b"{":
        return "mxnet"
    if start[:4] == b"PK\x03\x04" or start.startswith(pytorch.LEGACY):
        return "pytorch"
    for beginning, what in _NOT_WEIGHTS.items():
        if start.lstrip().lower().startswith(beginning.lower()):
            raise InvalidInput(f"{path}: {what}")
    if start[:8] == gluon.LIST.to_bytes(8, "little"):
        return "gluon"
    if start[8:9] == b"{":
        return "safetensors"
    # Protocol buffers and msgpack have no beginning of their own.
    if path.suffix in (".onnx", ".msgpack"):
        return {".onnx": "onnx", ".msgpack": "flax"}[path.suffix]
    if start[:1] == b"\x08" and b"googlenet" in start:
        return "onnx"
    if start[:1] and (0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return "flax"
    for name, form in FORMATS.items():
        if path.name.endswith(form.suffixes) and form.suffixes:
            return name  # damaged, and its reader says how
    raise InvalidInput(f"{path}: none of the formats ({_SUFFIXES}, or a folder); name it with --from")


def _detect_folder(path: Path) -> str:
    if (path / canonical.WEIGHTS).is_file():
        return "huggingface"
    if any((path / name).is_file() for name in _ORBAX_FILES):
        return "orbax"
    raise InvalidInput(
        f"{path}: expected a folder with {canonical.WEIGHTS}, or an Orbax checkpoint; name the file or folder in it"
    )


def format_for(path: Path) -> str:
    """The name of the format that a path to be written asks for by its suffix.

    Raises:
        InvalidInput: when it has none of theirs.
    """
    for name, form in FORMATS.items():
        if form.suffixes and path.name.endswith(form.suffixes):
            return name
    raise InvalidInput(
        f"{path}: expected a name that ends in one of {_SUFFIXES}; or --to huggingface or orbax, for a folder"
    )
