"""PyTorch's own files: a state dict, read and run the way that its users do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spec
from googlenet_pt.build import build
from googlenet_pt.probe import activations

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_DTYPES += (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def write_file(path: Path, arrays: spec.Arrays, config: spec.Config) -> None:
    """Save canonical arrays, in their own dtype, as the state dict of the network."""
    state = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    for layer in spec.layers(config):
        if layer.norm and layer.norm.unbiased:  # PyTorch's own batch norm, which counts batches
            state[f"{layer.name}.norm.num_batches_tracked"] = torch.tensor(0)
    with path.open("wb") as file:  # given a path, PyTorch would put its name into the file
        torch.save(state, file)


def read_file(path: Path) -> dict[str, spec.Array]:
    """The arrays of a state dict, by its names; one under the key ``state_dict`` or ``model`` is found too.

    Raises:
        spec.InvalidInput: when it holds anything but tensors, or claims to hold more than the file does.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises of every kind here
        raise spec.InvalidInput(f"{path}: PyTorch refuses it ({_reason(error)}); restore a copy") from error
    state = _state_dict(state)
    if not isinstance(state, dict):
        raise spec.InvalidInput(
            f"{path}: expected a state dict (names and tensors), got a {type(state).__name__}; save model.state_dict()"
        )
    if odd := [f"{str(name)[:60]!r}" for name, x in state.items() if not _plain(name, x)]:
        raise spec.InvalidInput(
            f"{path}: expected a state dict of plain tensors by name, got something else as {', '.join(odd[:5])}; "
            "save model.state_dict()"
        )
    # A tensor may repeat its numbers with a stride of zero, and so be larger than any file.
    if (size := sum(math.prod(x.shape) * x.element_size() for x in state.values())) > path.stat().st_size:
        raise spec.InvalidInput(
            f"{path}: expected a state dict of plain tensors, got {size} bytes of them in a smaller file; "
            "save a clone() of each"
        )
    return {name: _numpy(x) for name, x in state.items()}


def run_file(path: Path, config: spec.Config, dtype: str, images: spec.Array) -> dict[str, spec.Array]:
    """Every stage's output when PyTorch itself loads the file."""
    model = build(config, dtype=dtype, device="cpu")
    model.load_state_dict(_state_dict(torch.load(path, map_location="cpu", weights_only=True)))
    return activations(model, images)


def _state_dict(state: Any) -> Any:
    """The entry ``state_dict`` or ``model``, where there is one."""
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    return state


def _plain(name: Any, x: Any) -> bool:
    """Whether it is a tensor that `_numpy` takes, and has a name."""
    if not isinstance(name, str) or not name.isprintable() or not isinstance(x, torch.Tensor):
        return False
    numbers = x.dtype in _DTYPES and x.device.type == "cpu" and not x.is_neg()
    return numbers and x.layout == torch.strided and not x.is_nested


def _reason(error: Exception) -> str:
    """PyTorch's own message in one line, without its advice to trust the file."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    line = (message.splitlines() or [type(error).__name__])[0][:200]
    return "".join(c if c.isprintable() else " " for c in line)


def _numpy(x: torch.Tensor) -> spec.Array:
    if x.dtype == torch.bfloat16:
        x = x.float()  # exact: NumPy has no bfloat16
    return x.detach().numpy()
