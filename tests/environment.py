"""The environment variables of the tests: set before a framework is imported, which reads its own then."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Compiling is most of what JAX does here. Lightly optimized, and by XLA's older emitters, which make four times less
# machine code, in one piece, it takes a third of the time, and computes the same: LLVM's level 0 would compile faster
# still, and compute ten times as long. `googlenet compare` runs with the package's own settings, in test_compare.py.
# Other versions may not have these settings, and XLA ends the process at one that it does not know.
with suppress(PackageNotFoundError):
    if version("jaxlib").startswith("0.7."):
        os.environ.setdefault(
            "XLA_FLAGS",
            "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false "
            "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_extra_options="
            "xla_cpu_optimize_for_size=1,xla_cpu_disable_slp_vectorizer=1,xla_cpu_disable_loop_unrolling=1",
        )
# Each of pytest-xdist's processes has a processor to itself.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Two processes that compute at once must not wait for each other in busy loops.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# glibc's default hands arrays of some megabytes back to the system at once, and gets them anew page by page: a third of
# the tests' processor time. It keeps them up to these numbers of bytes; more would fill the memory.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**26))
# Float32 is compared, so neither NVIDIA's libraries nor JAX may round it to TF32; MXNet has no other switch.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
# What has been compiled once is kept, for other processes and for the next time: most of a test's time in JAX.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(2**30))  # bytes
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
