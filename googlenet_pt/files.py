"""PyTorch's own files: a state dict, read and run the way that its users do; and the tensors of TorchScript."""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spec
from googlenet_pt.build import build
from googlenet_pt.probe import activations

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES += (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_DEEPEST = 8  # dictionaries in one another
# NumPy's scalars and arrays, and a command's options, as training scripts save them beside the tensors.
_SETTINGS = [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
_SETTINGS += ["numpy.dtype", "numpy.ndarray", "argparse.Namespace"]


def write_file(path: Path, arrays: spec.Arrays, config: spec.Config) -> None:
    """Save arrays by the names of a state dict, in their own dtype."""
    state = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    if config.batch_norm and config.batch_norm.unbiased:  # PyTorch's own batch norm, which counts batches
        norms = [name.removesuffix("running_mean") for name in arrays if name.endswith("running_mean")]
        state |= {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
    with path.open("wb") as file:  # given a path, PyTorch would put its name into the file
        torch.save(state, file)


def read_file(path: Path) -> dict[str, spec.Array]:
    """All tensors of a file by their names, below dictionaries by dotted paths: ``state_dict.conv1.weight``.

    Of a TorchScript program these are the parameters and buffers; its code is not even loaded. Whatever else stands
    beside them, as epochs and settings, is left out, and so is what has a number for a name, as an optimizer's state.

    Raises:
        spec.InvalidInput: when it holds no plain tensor or one of another kind, or claims to hold more than it does.
    """
    state = _load(path)
    if not isinstance(state, dict):
        raise spec.InvalidInput(
            f"{path}: expected a state dict (names and tensors), got a {type(state).__name__}; save model.state_dict()"
        )
    leaves = _leaves(state, "", _DEEPEST)
    tensors = {name: x for name, x in leaves if isinstance(x, torch.Tensor)}
    odd = [name for name, x in tensors.items() if not _plain(name, x)]
    if odd or not tensors:
        names = [f"{str(name)[:60]!r}" for name in odd or state]
        raise spec.InvalidInput(
            f"{path}: expected a state dict of plain tensors by name, got something else as {', '.join(names[:5])}; "
            "save model.state_dict()"
        )
    if len(tensors) < sum(isinstance(x, torch.Tensor) for _, x in leaves):
        raise spec.InvalidInput(f"{path}: expected each tensor under a name of its own; save model.state_dict()")
    # A tensor may repeat its numbers with a stride of zero, and so be larger than any file. One may have two names.
    different = {(x.data_ptr(), x.dtype, x.shape, x.stride()): x for x in tensors.values()}
    if (size := sum(math.prod(x.shape) * x.element_size() for x in different.values())) > path.stat().st_size:
        raise spec.InvalidInput(
            f"{path}: expected a state dict of plain tensors, got {size} bytes of them in a smaller file; "
            "save a clone() of each"
        )
    return {name: _numpy(x) for name, x in tensors.items()}


def run_file(
    path: Path, config: spec.Config, dtype: str, images: spec.Array, names: Mapping[str, str] | None = None
) -> dict[str, spec.Array]:
    """Every stage's output when PyTorch itself loads the file; `names` has the file's by our network's."""
    model = build(config, dtype=dtype, device="cpu")
    state = {name: x for name, x in _leaves(_load(path), "", _DEEPEST) if isinstance(x, torch.Tensor)}
    if names is not None:
        state = model.state_dict() | {name: state[file_name] for name, file_name in names.items()}
    model.load_state_dict(state)
    return activations(model, images)


class _Setting:
    """Stands for a value of Python that a checkpoint holds beside its tensors; nothing of it is run or kept."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> _Setting:
        return object.__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


class _Part:
    """Stands for a module of a TorchScript program: its attributes without its code."""

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes


def _load(path: Path) -> Any:
    """What PyTorch reads without running anything of the file's; of a TorchScript program its modules' attributes.

    Raises:
        spec.InvalidInput: when it needs to run something, or is damaged.
    """
    try:
        if _is_program(path):
            return _program(path)
        with torch.serialization.safe_globals([(_Setting, name) for name in _SETTINGS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises of every kind here
        raise spec.InvalidInput(f"{path}: PyTorch refuses it ({_reason(error)}); {_remedy(error)}") from error


def _is_program(path: Path) -> bool:
    """Whether TorchScript wrote the file: it has constants beside its tensors."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _program(path: Path) -> Any:
    """The attributes of a TorchScript program, by module.

    Without its code and constants it is a file as `torch.save` writes it, whose classes stand in the code.
    """
    plain = io.BytesIO()
    classes: set[str] = set()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        for name in archive.namelist():
            _, _, inner = name.partition("/")
            if inner.startswith("data/") or inner in ("data.pkl", "version", "byteorder"):
                copy.writestr(name, archive.read(name))
            if inner == "data.pkl":
                operations = pickletools.genops(archive.read(name))
                classes |= {str(x).replace(" ", ".") for operation, x, _ in operations if operation.name == "GLOBAL"}
    plain.seek(0)
    with torch.serialization.safe_globals([(_Part, name) for name in classes if name.startswith("__torch__.")]):
        program = torch.load(plain, map_location="cpu", weights_only=True)
    return program.attributes if isinstance(program, _Part) else program


def _leaves(tree: dict[Any, Any], prefix: str, deepest: int) -> list[tuple[str, Any]]:
    """What stands in dictionaries under texts, by dotted paths."""
    pairs: list[tuple[str, Any]] = []
    for name, x in tree.items():
        if not isinstance(name, str):
            continue
        if isinstance(x, _Part):
            x = x.attributes
        if isinstance(x, dict):
            pairs += _leaves(x, f"{prefix}{name}.", deepest - 1) if deepest else []
        else:
            pairs.append((f"{prefix}{name}", x))
    return pairs


def _plain(name: str, x: torch.Tensor) -> bool:
    """Whether `_numpy` takes it, and its name can be shown."""
    numbers = x.dtype in _DTYPES and x.device.type == "cpu" and not x.is_neg()
    return name.isprintable() and numbers and x.layout == torch.strided and not x.is_nested


def _reason(error: Exception) -> str:
    """PyTorch's own message in one line, without its advice to trust the file."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    line = (message.splitlines() or [type(error).__name__])[0].partition(" was not an allowed global")[0][:200]
    return "".join(c if c.isprintable() else " " for c in line)


def _remedy(error: Exception) -> str:
    """What helps against it."""
    if "UninitializedParameter" in str(error) or "UninitializedBuffer" in str(error):
        return "its lazy layers have not seen an image: run one batch through the model, then save it again"
    if "Unsupported global" in str(error):
        return (
            "it holds objects of Python, as a whole model does: where it was written, load it with "
            "torch.load(FILE, weights_only=False), and save only its state_dict()"
        )
    return "restore a copy"


def _numpy(x: torch.Tensor) -> spec.Array:
    if x.dtype == torch.bfloat16:
        x = x.float()  # exact: NumPy has no bfloat16
    return x.detach().numpy()
