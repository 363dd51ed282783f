"""Devices, dtypes and threads of MXNet. This file also prepares what MXNet needs before it is imported."""

from __future__ import annotations

import ctypes
import os
import sysconfig
import warnings
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy

import spec
from harness.backends.registry import Description, processors, uses_gpu
from harness.backends.team import processes


def _has_cuda() -> bool:
    """Whether MXNet's CUDA wheel is installed."""
    try:
        distribution("mxnet-cu117")
    except PackageNotFoundError:
        return False
    return True


def _load_cuda() -> None:
    """Load CUDA 11's libraries where they come as wheels, which MXNet's CUDA wheel would not find by itself."""
    nvidia = Path(sysconfig.get_path("purelib"), "nvidia")
    if nvidia.is_dir():
        _load_all(nvidia.glob("*/lib/lib*.so*"))


def _choose_engine() -> bool:
    """Have every operation computed by the thread that asks for it, unless the user has chosen an engine.

    MXNet's own engine hands it to other threads, whose OpenMP then waits in its sleep: with one device that is 1.1 to
    2.6 times as slow. GPUs need it, and so do several processes, whose key-value store works while they compute.
    OpenMP's threads then wait for work in busy loops, by themselves for milliseconds, which on a busy machine takes
    twenty times as long as computing. A tenth of a millisecond is enough. Returns whether it was chosen.
    """
    if "MXNET_ENGINE_TYPE" in os.environ or _has_cuda() or processes("mx") > 1:
        return False
    os.environ["MXNET_ENGINE_TYPE"] = "NaiveEngine"
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    return True


def _start_engine() -> None:
    """Start MXNet's engine, which reports its name on the standard error if it was chosen."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        mx.nd.waitall()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _load_all(libraries: Iterable[Path]) -> list[Path]:
    """Load what can be loaded, each after those that it depends on; returns those that cannot."""
    waiting = sorted(libraries)
    while waiting:
        still = [library for library in waiting if not _loads(library)]
        if len(still) == len(waiting):
            break
        waiting = still
    return waiting


def _loads(library: Path) -> bool:
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


if _has_cuda():
    _load_cuda()
_chosen = _choose_engine()
# MXNet 1.9.1 reads numpy.bool while it is imported; NumPy 1.24 took that name away.
if "bool" not in vars(numpy):
    numpy.bool = numpy.bool_
# MXNet takes half of the processors unless told how many it may use.
os.environ.setdefault("MXNET_OMP_MAX_THREADS", str(processors()))
# MXNet reports every graph that it fuses, unless told not to.
os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # numpy.mirr and other names that MXNet looks up
    import mxnet as mx
    from mxnet.gluon import Block
if _chosen:
    _start_engine()

# Machine code in the wheel mxnet-cu117 1.9.1, which holds no PTX that a newer GPU could compile.
_BUILT_FOR = ("5.0", "6.0", "7.0", "8.0", "8.6")


def select_device(device: str) -> mx.Context:
    """The device of that name: ``auto``, ``cpu`` or ``gpu``.

    Raises:
        spec.InvalidInput: for another name, or where MXNet finds no GPU.
    """
    return mx.gpu() if uses_gpu(device, bool(mx.context.num_gpus()), "MXNet") else mx.cpu()


def select_dtype(dtype: str) -> str:
    """The dtype of that name.

    Raises:
        spec.InvalidInput: unless it is float32 or float64.
    """
    if dtype == "bfloat16":
        # MXNet's mixed precision takes 1.25 times as long as float32 on a CPU with instructions for bfloat16.
        raise spec.InvalidInput(
            "dtype bfloat16: in MXNet 1.9.1 it is slower than float32; take float32, or the backend pt or jax"
        )
    if dtype == "tf32":
        raise spec.InvalidInput(
            "dtype tf32: MXNet 1.9.1 cannot be told to round, only the whole process by NVIDIA_TF32_OVERRIDE; take "
            "float32, or the backend pt or jax"
        )
    if dtype not in ("float32", "float64"):
        raise spec.InvalidInput(f"dtype: expected float32 or float64, got {dtype!r}")
    return dtype


def wait(*results) -> None:
    """Return when these are computed: arrays, networks, and tuples, lists and dicts of them; None is nothing."""
    for x in results:
        if isinstance(x, mx.nd.NDArray):
            x.wait_to_read()
        elif isinstance(x, Block):
            wait(*[parameter.data() for parameter in x.collect_params().values()])
        elif isinstance(x, (list, tuple)):
            wait(*x)
        elif isinstance(x, dict):
            wait(*x.values())


def peak_memory(device: str = "auto") -> int | None:
    """The most memory that the GPU has given so far, bytes; None for a CPU.

    MXNet counts none of it, and keeps what it was given once: what is taken now is the most that ever was. Of a GPU
    that others use too, theirs is in it.
    """
    selected = select_device(device)
    if selected.device_type != "gpu":
        return None
    free, total = mx.context.gpu_memory_info(selected.device_id)
    return total - free


def free_memory(device: str = "auto") -> int | None:
    """The bytes that are free on the GPU; None for the CPU."""
    selected = select_device(device)
    return mx.context.gpu_memory_info(selected.device_id)[0] if selected.device_type == "gpu" else None


def describe(device: str = "auto") -> Description:
    """Version, devices and threads as MXNet itself reports them."""
    with_cuda = mx.runtime.Features().is_enabled("CUDA")
    gpus = [str(mx.gpu(i)) for i in range(mx.context.num_gpus())]
    problems = []
    if os.environ.get("NVIDIA_TF32_OVERRIDE") != "0" and gpus:
        problems.append("float32 may be rounded to TF32 on this GPU: set NVIDIA_TF32_OVERRIDE=0 before the start")
    selected = select_device(device)
    return Description(
        framework="MXNet",
        version=mx.__version__,
        device=str(selected) if selected.device_type == "gpu" else "cpu",
        devices=["cpu", *gpus],
        threads=_openmp_threads(),
        built_for="CUDA 11.7" if with_cuda else "CPU only",
        compute_capabilities=list(_BUILT_FOR) if with_cuda else [],
        problems=problems,
    )


def _openmp_threads() -> int | None:
    """Threads of the OpenMP runtime that MXNet computes with; None where that cannot be asked."""
    try:
        return ctypes.CDLL(mx.libinfo.find_lib_path()[0]).omp_get_max_threads()
    except (AttributeError, OSError):
        return None
