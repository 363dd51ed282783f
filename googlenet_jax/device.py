"""Devices and dtypes of JAX. This file also prepares what XLA reads when it is first used."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import jaxlib

import spec
from harness.backends.registry import Description, check_tf32, uses_gpu


def _choose_emitters(version: str) -> None:
    """Have XLA compile for CPUs by its older emitters, unless the user has set flags of XLA's.

    The programs are as fast and come in a third of the time: docs/performance.md. Of other versions this is not
    known, and XLA ends the process at a flag that it does not know.
    """
    if version.startswith("0.7."):
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


_choose_emitters(jaxlib.__version__)


def select_device(device: str) -> jax.Device:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where JAX finds no GPU.
    """
    gpus = _gpus()
    return gpus[0] if uses_gpu(device, bool(gpus), "JAX") else jax.local_devices(backend="cpu")[0]


def select_dtype(dtype: str) -> jnp.dtype:
    """The dtype of that name, to compute in; tf32 is float32 with `select_precision`.

    Asking for float64 switches it on in this process, as JAX wants it.

    Raises:
        spec.InvalidInput: unless it is float32, tf32, float64 or bfloat16.
    """
    if dtype not in ("float32", "tf32", "float64", "bfloat16"):
        raise spec.InvalidInput(f"dtype: expected float32, tf32, float64 or bfloat16, got {dtype!r}")
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    return jnp.dtype("float32" if dtype == "tf32" else dtype)


def parameter_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of the parameters of a layer that computes in `dtype`: float32 where that is bfloat16."""
    return jnp.dtype(spec.array_dtype(dtype.name))


def select_precision(dtype: str, device: jax.Device) -> jax.lax.Precision | None:
    """What convolutions and products are told, forward and backward: by default a GPU rounds their float32 to TF32.

    None is a CPU's, which rounds nothing.

    Raises:
        spec.InvalidInput: for tf32 on a device that has none.
    """
    if check_tf32(dtype, _capability(device)):
        return jax.lax.Precision.HIGH  # XLA's word for TF32 on GPUs; jax.default_matmul_precision has it as such
    return jax.lax.Precision.HIGHEST if device.platform == "gpu" else None


def _capability(device: jax.Device) -> tuple[int, int] | None:
    """The compute capability of an NVIDIA GPU; None for anything else."""
    major, _, minor = getattr(device, "compute_capability", "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def wait(*results: object) -> None:
    """Return when the results are computed: arrays, models, or whatever else holds arrays."""
    jax.block_until_ready(results)


def peak_memory(device: str = "auto") -> int | None:
    """The most bytes that JAX has held on a GPU; None on the CPU, where it does not count."""
    selected = select_device(device)
    return selected.memory_stats()["peak_bytes_in_use"] if selected.platform == "gpu" else None


def free_memory(device: str = "auto") -> int | None:
    """The bytes that are free on the GPU, of what JAX may have; None for the CPU."""
    selected = select_device(device)
    if selected.platform != "gpu":
        return None
    memory = selected.memory_stats()
    return memory["bytes_limit"] - memory["bytes_in_use"]


def describe(device: str = "auto") -> Description:
    """Version and devices as JAX itself reports them; it does not tell its threads."""
    gpus = _gpus()
    selected = select_device(device)
    return Description(
        framework="JAX",
        version=f"{jax.__version__} (jaxlib {jaxlib.__version__})",
        device=selected.device_kind if selected.platform == "gpu" else "cpu",
        devices=["cpu", *(gpu.device_kind for gpu in gpus)],
        threads=None,
        built_for=gpus[0].client.platform_version.splitlines()[0] if gpus else "CPU only",
    )


def _gpus() -> list[jax.Device]:
    try:
        return jax.local_devices(backend="gpu")
    except RuntimeError:  # JAX's way of saying that there is none
        return []
