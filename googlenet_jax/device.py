"""Devices and dtypes of JAX."""

from __future__ import annotations

from contextlib import AbstractContextManager

import jax
import jax.numpy as jnp
import jaxlib

import spec
from harness.backends.registry import Description, uses_gpu


def select_device(device: str) -> jax.Device:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where JAX finds no GPU.
    """
    gpus = _gpus()
    return gpus[0] if uses_gpu(device, bool(gpus), "JAX") else jax.local_devices(backend="cpu")[0]


def select_dtype(dtype: str) -> jnp.dtype:
    """The dtype of that name, to compute in. Asking for float64 switches it on in this process, as JAX wants it.

    Raises:
        spec.InvalidInput: unless it is float32, float64 or bfloat16.
    """
    if dtype not in ("float32", "float64", "bfloat16"):
        raise spec.InvalidInput(f"dtype: expected float32, float64 or bfloat16, got {dtype!r}")
    if dtype == "float64":
        jax.config.update("jax_enable_x64", True)
    return jnp.dtype(dtype)


def parameter_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of the parameters of a layer that computes in `dtype`: float32 where that is bfloat16."""
    return jnp.dtype(spec.array_dtype(dtype.name))


def full_precision() -> AbstractContextManager:
    """A context in which float32 means float32: on GPUs JAX may round to TF32 otherwise."""
    return jax.default_matmul_precision("highest")


def wait(*results: object) -> None:
    """Return when the results are computed: arrays, models, or whatever else holds arrays."""
    jax.block_until_ready(results)


def peak_memory(device: str = "auto") -> int | None:
    """The most bytes that JAX has held on a GPU; None on the CPU, where it does not count."""
    selected = select_device(device)
    return selected.memory_stats()["peak_bytes_in_use"] if selected.platform == "gpu" else None


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
