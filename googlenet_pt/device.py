"""Devices, dtypes and threads of PyTorch."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

import spec
from harness.backends.registry import Description, uses_gpu

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def select_device(device: str) -> torch.device:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where PyTorch finds no GPU.
    """
    return torch.device("cuda" if uses_gpu(device, torch.cuda.is_available(), "PyTorch") else "cpu")


def select_dtype(dtype: str) -> torch.dtype:
    """The dtype of that name, to compute in: with bfloat16 the parameters stay float32.

    Raises:
        spec.InvalidInput: unless it is float32, float64 or bfloat16.
    """
    if dtype not in ("float32", "float64", "bfloat16"):
        raise spec.InvalidInput(f"dtype: expected float32, float64 or bfloat16, got {dtype!r}")
    return getattr(torch, dtype)


def keep_memory() -> None:
    """Have glibc keep what PyTorch frees on the CPU, and hand it out again, where it can be told to.

    Otherwise glibc asks the system for every large tensor anew. Each new page costs a page fault and is filled with
    zeros: 0.2 s of a training step at 96 pixels, batch 128. This holds for the whole process, unless glibc's own
    variables are set. PyTorch keeps a GPU's memory by itself.
    """
    if {"MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"} & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(model: nn.Module, x: torch.Tensor) -> torch.autocast:
    """A context in which a model of dtype bfloat16 computes in that dtype. It changes nothing for other models."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)


@contextmanager
def full_precision() -> Iterator[None]:
    """A context in which float32 means float32: PyTorch lets cuDNN round convolutions to TF32 otherwise."""
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [setting.allow_tf32 for setting in settings]
    try:
        for setting in settings:
            setting.allow_tf32 = False
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.allow_tf32 = value


def wait(*results: object) -> None:
    """Return when the results are computed: a GPU computes while Python goes on, the CPU does not."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(device: str = "auto") -> int | None:
    """The most memory that PyTorch's tensors have taken at once on the GPU, bytes; None for the CPU."""
    selected = select_device(device)
    return torch.cuda.max_memory_allocated(selected) if selected.type == "cuda" else None


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
