"""Weight formats: detect, read, write.

A reader returns the arrays under the file's own names; `harness.weights.names` identifies the network. Formats that
need their framework are read in a worker process, so that a hostile file never meets this one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.atomic import StrPath
from harness.backends.process import Answer
from harness.backends.registry import BACKENDS, NotInstalled
from harness.weights import names
from harness.weights.checkpoint import (
    CHECKPOINT,
    MOST_ARRAYS,
    Checkpoint,
    config_table,
    describe,
    json_object,
    read_safetensors,
    save,
)
from harness.weights.formats import flax, gluon, huggingface, keras, npz, others, pytorch
from harness.weights.formats.contents import LARGEST_JSON, Contents, parse_texts
from spec import Array, Arrays, InvalidInput, is_statistic

TEXTS = "googlenet.json"  # our texts in the folder of an Orbax checkpoint
_SYMBOL, _PARAMS = "-symbol.json", "-0000.params"
_LARGEST = 2**32  # bytes; a VGG-11 in float64 with an optimizer's state has 3.2e9


class RunTask(Protocol):
    """Runs a task in a backend's process: `harness.backends.process.run_worker` with the interpreters filled in."""

    def __call__(self, backend: str, task: dict[str, Any], arrays: Arrays) -> Answer: ...


@dataclass(frozen=True)
class Format:
    """One format of weights.

    Attributes:
        title: Shown to users.
        suffixes: The first is the one that we write; empty for a folder.
        scheme: How our own files name the arrays, see `harness.weights.names`.
        runner: Backend that runs the file natively, ``onnx``, or ``spec`` for the referee.
        read: Returns the arrays by the file's names.
        write: Writes canonical parameters to a path where nothing stands yet.
        half: Whether it holds float16.
    """

    title: str
    suffixes: tuple[str, ...]
    scheme: str
    runner: str
    read: Callable[[Path, RunTask], Contents]
    write: Callable[[Path, Checkpoint, RunTask], None]
    half: bool = True


def answer_of(run_task: RunTask, backend: str, path: StrPath, task: dict[str, Any], arrays: Arrays) -> Answer:
    """Run a task on a file in a worker.

    Raises:
        InvalidInput: with the worker's reason, when it refuses or dies; `NotInstalled` where the framework is missing.
    """
    path = Path(path)
    answer = run_task(backend, {"path": str(path.absolute()), **task}, arrays)
    if answer.crash is not None:
        ending, *words = answer.crash.splitlines()
        raise InvalidInput(
            f"{path}: the process of {backend} that worked on it ended ({'; '.join([ending, *words[-1:]])})"
        )
    if answer.refused is not None:
        raise (NotInstalled if answer.missing else InvalidInput)(answer.refused)
    return answer


def _read_huggingface(path: Path, run_task: RunTask) -> Contents:
    _check_regular(path / huggingface.WEIGHTS)
    return Contents(*read_safetensors(path / huggingface.WEIGHTS))


def _write_with(run_task: RunTask, backend: str, path: Path, weights: Checkpoint, arrays: Arrays) -> None:
    answer_of(run_task, backend, path, {"kind": "write", "config": config_table(weights.config)}, arrays)


def _renamed(weights: Checkpoint, scheme: str) -> dict[str, Array]:
    return names.foreign(weights.params, names.SCHEMES[scheme], weights.config)


def _texts(weights: Checkpoint) -> dict[str, str]:
    return describe(weights.params, weights.config, weights.metadata)


def _json_file(path: Path, parse: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    _check_regular(path)
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise ValueError(f"{size} bytes")
        return parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path}: expected a JSON file of {LARGEST_JSON} bytes at most ({error}); restore a copy"
        ) from error


def _read_pytorch(path: Path, run_task: RunTask) -> Contents:
    texts = pytorch.check_file(path)
    remedy = pytorch.PROGRAM if pytorch.is_program(path) else ""
    try:
        return Contents(answer_of(run_task, "pt", path, {"kind": "read"}, {}).arrays, texts, remedy)
    except NotInstalled:
        raise
    except InvalidInput as error:
        raise InvalidInput("; ".join(filter(None, [str(error), remedy]))) from error


def _write_pytorch(path: Path, weights: Checkpoint, run_task: RunTask) -> None:
    _write_with(run_task, "pt", path, weights, weights.params)
    pytorch.add_texts(path, _texts(weights))


def _read_gluon(path: Path, run_task: RunTask) -> Contents:
    contents = gluon.read(path)
    if "symbol" in contents.texts:
        raise InvalidInput(f"{path}: the parameters of a symbol; name its {_SYMBOL} instead, which says the network")
    return contents


def _read_symbol(path: Path, run_task: RunTask) -> Contents:
    _check_regular(params_of(path))
    contents = gluon.read(params_of(path))
    graph = _json_file(path, json_object)
    if (expected := contents.texts.pop("symbol", None)) not in (None, _sha256(path)):
        raise InvalidInput(f"{path}: expected the graph with SHA-256 {expected}, got {_sha256(path)}; restore a copy")
    if not isinstance(graph.get("nodes"), list):
        raise InvalidInput(f"{path}: expected a graph of MXNet, and it has no nodes; restore a copy")
    return contents


def _write_symbol(path: Path, weights: Checkpoint, run_task: RunTask) -> None:
    _write_with(run_task, "mx", path, weights, weights.params)
    # MXNet calls an array auxiliary when nothing trains it.
    arrays = {f"{'aux' if is_statistic(name) else 'arg'}:{name}": x for name, x in weights.params.items()}
    gluon.write(params_of(path), arrays, _texts(weights) | {"symbol": _sha256(path)})


def params_of(symbol: StrPath) -> Path:
    """The parameters beside a symbol, as MXNet names them: ``net-0000.params`` of ``net-symbol.json``.

    Raises:
        InvalidInput: when the symbol has another name.
    """
    symbol = Path(symbol)
    if not symbol.name.endswith(_SYMBOL):
        raise InvalidInput(f"{symbol}: expected a name that ends in {_SYMBOL}, as MXNet exports it")
    return symbol.with_name(symbol.name.removesuffix(_SYMBOL) + _PARAMS)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_orbax(path: Path, run_task: RunTask) -> Contents:
    texts = _json_file(path / TEXTS, parse_texts) if os.path.lexists(path / TEXTS) else {}
    _check_regular(*(entry for entry in path.rglob("*") if not entry.is_dir()))
    return Contents(answer_of(run_task, "jax", path, {"kind": "read"}, {}).arrays, texts)


def _write_orbax(path: Path, weights: Checkpoint, run_task: RunTask) -> None:
    _write_with(run_task, "jax", path, weights, _renamed(weights, "nnx"))
    (path / TEXTS).write_text(json.dumps(_texts(weights)))


def _read_keras(path: Path, run_task: RunTask) -> Contents:
    answer = answer_of(run_task, "keras", path, {"kind": "read"}, {})
    return Contents(answer.arrays, answer.facts["texts"], answer.facts["remedy"])


def _read_onnx(path: Path, run_task: RunTask) -> Contents:
    from harness.weights.formats import onnx_file

    return onnx_file.read(path)


def _write_onnx(path: Path, weights: Checkpoint, run_task: RunTask) -> None:
    from harness.weights.formats import onnx_file

    onnx_file.write(path, weights.params, weights.config, weights.metadata)


FORMATS = {
    "safetensors": Format(
        title="a safetensors file",
        suffixes=(".safetensors",),
        scheme="canonical",
        runner="spec",
        read=lambda path, run_task: Contents(*read_safetensors(path)),
        write=lambda path, weights, run_task: save(path, weights.params, weights.config, weights.metadata),
    ),
    "huggingface": Format(
        title="a Hugging Face folder",
        suffixes=(),
        scheme="canonical",
        runner="spec",
        read=_read_huggingface,
        write=lambda path, weights, run_task: huggingface.write_folder(path, weights),
    ),
    "npz": Format(
        title="arrays of NumPy",
        suffixes=(".npz",),
        scheme="canonical",
        runner="spec",
        read=lambda path, run_task: npz.read(path),
        write=lambda path, weights, run_task: npz.write(path, weights.params, _texts(weights)),
    ),
    "pytorch": Format("a PyTorch state dict", (".pt", ".pth"), "canonical", "pt", _read_pytorch, _write_pytorch),
    "gluon": Format(
        title="Gluon parameters",
        suffixes=(".params",),
        scheme="gluon",
        runner="mx",
        read=_read_gluon,
        write=lambda path, weights, run_task: gluon.write(path, _renamed(weights, "gluon"), _texts(weights)),
    ),
    "mxnet": Format("an MXNet symbol", (_SYMBOL,), "canonical", "mx", _read_symbol, _write_symbol, half=False),
    "flax": Format(
        title="Flax msgpack",
        suffixes=(".msgpack",),
        scheme="nnx",
        runner="jax",
        read=lambda path, run_task: flax.read(path),
        write=lambda path, weights, run_task: flax.write(path, _renamed(weights, "nnx"), _texts(weights)),
    ),
    "orbax": Format("an Orbax checkpoint", (), "nnx", "jax", _read_orbax, _write_orbax),
    "keras": Format(
        title="Keras' arrays",
        suffixes=(".weights.h5",),
        scheme="keras",
        runner="spec",
        read=_read_keras,
        write=lambda path, weights, run_task: keras.write(path, _renamed(weights, "keras"), _texts(weights)),
    ),
    "onnx": Format("an ONNX model", (".onnx",), "canonical", "onnx", _read_onnx, _write_onnx),
}

_SUFFIXES = ", ".join(suffix for form in FORMATS.values() for suffix in form.suffixes)
_ORBAX_FILES = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")


def read(path: StrPath, run_task: RunTask, form: str | None = None) -> tuple[Path, str, Contents]:
    """Read a file or folder of weights, or the checkpoint in a run's folder.

    Returns:
        What was read, its format, which is detected where `form` is None, and its contents.

    Raises:
        InvalidInput: when it is damaged, too large, or none of the formats.
    """
    path = Path(path)
    with suppress(OSError):  # which detection and readers name
        path = _of_run(path)
        _check_regular(*([] if path.is_dir() else [path]))  # the files of a folder are checked by its reader
    form = form or detect(path)
    try:
        contents = FORMATS[form].read(path, run_task)
    except MemoryError as error:
        raise InvalidInput(f"{path}: reading it takes more memory than there is; it may be damaged") from error
    if (number := len(contents.arrays)) > MOST_ARRAYS:
        raise InvalidInput(f"{path}: expected {MOST_ARRAYS:,} arrays at most, as a network has, got {number:,}")
    return path, form, contents


def _of_run(path: Path) -> Path:
    """The checkpoint in the folder of a run, or of one backend's part of it; any other path as it is."""
    if (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    parts = [path / name for name in BACKENDS if (path / name / CHECKPOINT).is_file()]
    if len(parts) > 1:
        raise InvalidInput(
            f"{path}: a run of several backends, each with weights of its own; name one: {', '.join(map(str, parts))}"
        )
    return parts[0] / CHECKPOINT if parts else path


def _check_regular(*paths: Path) -> None:
    """Refuse what would never end: pipes, devices, and more bytes than any network has."""
    for path in paths:
        if path.exists() and not path.is_file():
            what = "folder" if path.is_dir() else "pipe or a device; save what comes from it first"
            raise InvalidInput(f"{path}: expected a file, got a {what}")
    size = sum(path.stat().st_size for path in paths if path.exists())
    if size > _LARGEST:
        raise InvalidInput(
            f"{paths[0]}: expected at most {_LARGEST:,} bytes, as no network here has more, got {size:,} bytes"
        )


def detect(path: StrPath) -> str:
    """The name of the format of a file or folder, by its content and, where that is not enough, by its suffix.

    Raises:
        InvalidInput: when there is nothing of that name, or it has none of the formats.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InvalidInput(f"{path}: expected weights, and there is no such file or folder; check the path")
        if path.is_dir():
            return _detect_folder(path)
        _check_regular(path)
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); check its name and permissions") from error
    if path.name.endswith(_SYMBOL) and start.lstrip()[:1] == b"{":
        return "mxnet"
    if start[:4] == b"PK\x03\x04":
        return _detect_zip(path)
    if start.startswith(pytorch.LEGACY):
        return "pytorch"
    if start.startswith(keras.SIGNATURE):
        return "keras"
    if (what := others.describe(path, start)) is not None:
        raise InvalidInput(f"{path}: {what}")
    if start[:8] == gluon.LIST.to_bytes(8, "little"):
        return "gluon"
    if start[8:9] == b"{":
        return "safetensors"
    # Protocol buffers and msgpack do not begin with a signature.
    by_suffix = _by_suffix(path)
    if by_suffix in ("onnx", "flax"):
        return by_suffix
    if start[:1] == b"\x08" and b"googlenet" in start:
        return "onnx"
    if start[:1] and (0x80 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):
        return "flax"
    if by_suffix is not None:
        return by_suffix  # the file is damaged, and its reader says how
    raise InvalidInput(f"{path}: none of the formats ({_SUFFIXES}, or a folder); name it with --from")


def _detect_zip(path: Path) -> str:
    names = others.zip_names(path)
    if names is None or others.is_of_pytorch(names):
        return "pytorch"  # whose reader says what is damaged
    if names and all(name.endswith(".npy") or name == TEXTS for name in names):
        return "npz"
    if keras.WEIGHTS in names:
        return "keras"
    raise InvalidInput(f"{path}: {others.describe_zip(names)}")


def _detect_folder(path: Path) -> str:
    if (path / huggingface.WEIGHTS).is_file():
        return "huggingface"
    if any((path / name).is_file() for name in _ORBAX_FILES):
        return "orbax"
    raise InvalidInput(
        f"{path}: expected a folder with {huggingface.WEIGHTS}, or an Orbax checkpoint; name the file or folder in it"
    )


def format_for(path: StrPath) -> str:
    """The name of the format to write, by the path's suffix.

    Raises:
        InvalidInput: when no format has it.
    """
    path = Path(path)
    if (name := _by_suffix(path)) is None:
        raise InvalidInput(
            f"{path}: expected a name that ends in one of {_SUFFIXES}; or --to huggingface or orbax, for a folder"
        )
    return name


def _by_suffix(path: Path) -> str | None:
    matching = (name for name, form in FORMATS.items() if form.suffixes and path.name.endswith(form.suffixes))
    return next(matching, None)
