"""Keras' files: ``.weights.h5``, ``.keras``, and the ``.h5`` of before.

The arrays are read, never the model: its configuration may hold code. A ``.keras`` is an archive of a ``.weights.h5``
and that configuration, of which the classes' names are told where the arrays fit no network.

``.weights.h5`` numbers the layers of a class in order of depth; ``.h5`` has the layers' own names, which go on counting
from model to model of a session. Both are left to `harness.weights.schemes.tensorflow`, the second counted from 0.

Source: keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py of Keras 3.15.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from pathlib import Path
from types import ModuleType

from harness.backends.registry import NotInstalled
from harness.shown import shown
from harness.weights.checkpoint import json_object
from harness.weights.formats.contents import LARGEST_JSON, Contents, parse_texts
from harness.weights.formats.others import ARRAYS
from harness.weights.schemes.tensorflow import numbered
from spec import Array, Arrays, InvalidInput

SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHTS = "model.weights.h5"  # in a .keras
_CONFIG = "config.json"
_TEXTS = "googlenet.json"
_MOST_CLASSES = 12  # in one message
_REMEDY = f"of Keras, its InceptionV3 and InceptionResNetV2 are read: of another network, in Keras, {ARRAYS}"
_COUNTED = re.compile(r"(conv2d|batch_normalization)(?:_(\d+))?")


def write(path: Path, arrays: Arrays, texts: dict[str, str]) -> None:
    """Write a ``.weights.h5`` of arrays by Keras' paths, and our texts, which Keras does not look at.

    Raises:
        NotInstalled: without h5py.
    """
    _hdf5().write(path, arrays, json.dumps(texts).encode(), _TEXTS)


def read(path: Path) -> Contents:
    """Read the arrays of any of these files, and our texts where there are any.

    Raises:
        InvalidInput: when the file is damaged, or holds anything but plain arrays; `NotInstalled` without h5py.
    """
    hdf5 = _hdf5()
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return _contents(hdf5.read(file, size), "")
            with zipfile.ZipFile(file) as archive:
                weights = _entry(archive, WEIGHTS, size)
                classes = _classes(archive)
            return _contents(hdf5.read(io.BytesIO(weights), size), classes)
    except Exception as error:  # h5py and zipfile raise many kinds
        if isinstance(error, MemoryError):
            raise
        raise InvalidInput(
            f"{path}: expected plain arrays in HDF5 as Keras writes them ({shown(error)}); restore a copy"
        ) from error


def _hdf5() -> ModuleType:
    try:
        return importlib.import_module("harness.weights.formats.keras.hdf5")
    except ModuleNotFoundError as error:
        if error.name != "h5py":
            raise
        raise NotInstalled("Keras' files need h5py, which is not installed: pip install '.[keras]'") from error


def _entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if (size := archive.getinfo(name).file_size) > most:
        raise ValueError(f"{name} unpacks to {size:,} bytes, expected {most:,} at most")
    return archive.read(name)


def _contents(arrays: dict[str, Array], classes: str) -> Contents:
    texts = arrays.pop(_TEXTS, None)
    return Contents(renamed(arrays), {} if texts is None else parse_texts(texts.tobytes()), classes + _REMEDY)


def _classes(archive: zipfile.ZipFile) -> str:
    """Which layers the model is made of."""
    config = json_object(_entry(archive, _CONFIG, LARGEST_JSON))
    classes: dict[str, None] = {}
    models = [config]
    while models:
        settings = models.pop().get("config")
        for layer in settings.get("layers", []) if isinstance(settings, dict) else []:
            classes[shown(layer["class_name"])[:60]] = None
            models.append(layer)
    few = ", ".join(list(classes)[:_MOST_CLASSES]) + (" and more" if len(classes) > _MOST_CLASSES else "")
    return f"its layers are {few}, whose code is not run; "


def renamed(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays by the names that tell the network, whatever model it is a layer of."""
    if any(re.search(r"/vars/\d+$", path) for path in arrays):
        return _unique(arrays, {path: _inner(path) for path in arrays})
    whole = "model_weights/" if any(path.startswith("model_weights/") for path in arrays) else ""
    layers: dict[str, dict[str, str]] = {}  # paths of arrays by layer and variable
    names = {path: path for path in arrays}
    for path in arrays:
        if path.startswith(whole) and (parts := re.fullmatch(r"(?:.*/)?([^/]+)/([^/:]+)(?::0)?", path)):
            layers.setdefault(parts[1], {})[parts[2]] = path
    dense = [layer for layer, paths in layers.items() if "kernel" in paths and arrays[paths["kernel"]].ndim == 2]
    own = _counted_from_zero(list(layers)) | ({dense[0]: "predictions"} if len(dense) == 1 else {})
    for layer, paths in layers.items():
        names |= {path: f"{whole}{own.get(layer, layer)}/{variable}" for variable, path in paths.items()}
    return _unique(arrays, names)


def _inner(path: str) -> str:
    """The path in the innermost model: a network may be one of another model's layers."""
    path = re.sub(r"^_layer_checkpoint_dependencies/", "layers/", path)  # Keras 2.12 to 2.15
    return re.sub(r"^(?:layers/[^/]+/)+(?=layers/)", "", path)


def _counted_from_zero(layers: list[str]) -> dict[str, str]:
    """What layers with a number are called where no other model has been made before."""
    numbers: dict[str, list[tuple[int, str]]] = {}
    for layer in layers:
        if parts := _COUNTED.fullmatch(layer):
            numbers.setdefault(parts[1], []).append((int(parts[2] or 0), layer))
    return {
        layer: numbered(kind, i) for kind, members in numbers.items() for i, (_, layer) in enumerate(sorted(members))
    }


def _unique(arrays: dict[str, Array], names: dict[str, str]) -> dict[str, Array]:
    """The arrays by these names; by their own where two would have one."""
    if len(set(names.values())) < len(names):
        return arrays
    return {names[path]: x for path, x in arrays.items()}
