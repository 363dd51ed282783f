"""Where JAX keeps what it has compiled, so that a second process need not compile it again."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from harness.data import cache_folder

_LARGEST = 2**30  # bytes that the folder may take; JAX drops what was used longest ago


def jax_cache() -> dict[str, str]:
    """Settings for JAX's persistent compilation cache, as environment variables.

    Machine code for one processor can stop another with an illegal instruction, and JAX does not tell processors apart:
    each kind has a folder of its own.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder() / "jax" / _processor()),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(_LARGEST),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


def _processor() -> str:
    """A name for what this processor can do."""
    described = [platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
        described += [line for line in facts if line.startswith(("model name", "flags", "Features"))]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
