"""Where PyTorch computes: devices, dtypes, threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

import spec
from harness.backend import Description


def select_device(device: str) -> torch.device:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where PyTorch finds no GPU.
    """
    if device not in ("auto", "cpu", "gpu"):
        raise spec.InvalidInput(f"device: expected auto, cpu or gpu, got {device!r}")
    if device == "gpu" and not torch.cuda.is_available():
        raise spec.InvalidInput("device gpu: PyTorch finds no GPU here; `googlenet doctor` says why, or take cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def select_dtype(dtype: str) -> torch.dtype:
    """The dtype of that name.

    Raises:
        spec.InvalidInput: unless it is float32 or float64.
    """
    if dtype not in ("float32", "float64"):
        raise spec.InvalidInput(f"dtype: expected float32 or float64, got {dtype!r}")
    return getattr(torch, dtype)


@contextmanager
def full_precision() -> Iterator[None]:
    """Inside, float32 means float32: PyTorch lets cuDNN convolutions round to TF32 unless told otherwise."""
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [setting.allow_tf32 for setting in settings]
    try:
        for setting in settings:
            setting.allow_tf32 = False
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value


def describe(device: str = "auto") -> Description:
    """Version, devices and threads as PyTorch itself reports them."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    built_for = [arch.removeprefix("sm_") for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    selected = select_device(device)
    return Description(
        framework="PyTorch",
        version=torch.__version__,
        device=torch.cuda.get_device_name(selected) if selected.type == "cuda" else "cpu",
        devices=["cpu", *gpus],
        threads=torch.get_num_threads(),
        built_for=f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only",
        compute_capabilities=[f"{arch.rstrip('af')[:-1]}.{arch.rstrip('af')[-1]}" for arch in built_for],
    )
