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
from harness.backends.registry import Description, check_tf32, uses_gpu

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def select_device(device: str) -> torch.device:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where PyTorch finds no GPU.
    """
    return torch.device("cuda" if uses_gpu(device, torch.cuda.is_available(), "PyTorch") else "cpu")


def select_dtype(dtype: str) -> torch.dtype:
    """The dtype of that name, to compute in: with bfloat16 the parameters stay float32. tf32 is float32 with `rounds`.

    Raises:
        spec.InvalidInput: unless it is float32, tf32, float64 or bfloat16.
    """
    if dtype not in ("float32", "tf32", "float64", "bfloat16"):
        raise spec.InvalidInput(f"dtype: expected float32, tf32, float64 or bfloat16, got {dtype!r}")
    return torch.float32 if dtype == "tf32" else getattr(torch, dtype)


def rounds(dtype: str, device: torch.device) -> bool:
    """Whether convolutions and products are to be rounded to TF32: the argument of `precision`.

    Raises:
        spec.InvalidInput: for tf32 on a device that has none.
    """
    return check_tf32(dtype, torch.cuda.get_device_capability(device) if device.type == "cuda" else None)


def memory_format(device: torch.device, dtype: torch.dtype, tf32: bool) -> torch.memory_format:
    """The memory format in which the network is fast there.

    On a CPU oneDNN takes the weights' format for activations too: in channels_last a training step is 1.2 times as fast
    at 28 pixels, 1.5 times at 96. On an H100 tensor cores want channels_last; without them, in float32, it costs: d2l's
    training step at 96 pixels, batch 128, is 0.83 times as fast (7,049 and 8,455 images/s).
    """
    tensor_cores = tf32 or dtype == torch.bfloat16
    return torch.channels_last if device.type == "cpu" or tensor_cores else torch.contiguous_format


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
    """A context in which a model of dtype bfloat16 computes in that dtype. It changes nothing for other models.

    Nothing is kept from one use of a weight to the next: each is used once, and a CUDA graph cannot have it.
    """
    enabled = model.dtype == torch.bfloat16
    return torch.autocast(x.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)


@contextmanager
def precision(tf32: bool) -> Iterator[None]:
    """A context in which a GPU rounds both convolutions and products of float32 to TF32, or neither.

    By default PyTorch lets it round convolutions only. A backward pass needs the context too. While nothing is on a
    GPU, no setting is touched.
    """
    settings = (torch.backends.cudnn, torch.backends.cuda.matmul) if torch.cuda.is_initialized() else ()
    before = [setting.allow_tf32 for setting in settings]
    try:
        for setting in settings:
            setting.allow_tf32 = tf32
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


def free_memory(device: str = "auto") -> int | None:
    """The bytes that are free on the GPU; None for the CPU."""
    selected = select_device(device)
    return torch.cuda.mem_get_info(selected)[0] if selected.type == "cuda" else None


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
