"""Where a benchmark ran: code, versions, processor, limits, load, and what of it may have disturbed the numbers."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.backends.registry import processors

_PACKAGES = "numpy torch mxnet mxnet-cu117 jax jaxlib flax optax onnx onnxruntime".split()  # as far as they are here
_VARIABLES = tuple(  # what their names begin with
    "OMP_ KMP_ GOMP_ MKL_ OPENBLAS_ ONEDNN_ DNNL_ MXNET_ XLA_ JAX_ TORCH PYTORCH_ CUDA_ NVIDIA_ MALLOC_".split()
)
_BUSY = 0.25  # of the processors: more load than that before the start is said
_STOLEN = 0.02  # of the time


def allowed() -> list[int]:
    """The processors that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(processors()))


def code() -> dict[str, Any]:
    """The commit of this checkout, and whether its programs differ from it; None where it is no checkout."""
    root = Path(__file__).parents[2]
    commit, changes = (_git(root, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "*.py")))
    return {"commit": commit and commit.strip(), "dirty": None if changes is None else bool(changes.strip())}


def _git(root: Path, *words: str) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def environment(used: Sequence[int]) -> dict[str, Any]:
    """Everything that stays as it is during a benchmark; None for what the system does not tell.

    Args:
        used: The processors that are measured on.
    """
    info = _pairs("/proc/cpuinfo")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_VARIABLES)},
        "processor": info.get("model name") or platform.processor() or None,
        "processors": os.cpu_count(),
        "allowed_processors": allowed(),
        "used_processors": list(used),
        "caches": _caches(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo_off": _read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "virtual": "hypervisor" in (info.get("flags") or "").split(),
        "memory_bytes": _memory("MemTotal"),
        "cgroup": {
            "cpu_max": _read("/sys/fs/cgroup/cpu.max") or _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
            "memory_max": _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        },
    }


def now() -> dict[str, Any]:
    """What changes: time, load, free memory, and the processors' time so far, with what the host took of it."""
    ticks = [int(n) for n in (_pairs("/proc/stat", " ").get("cpu") or "").split()]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "memory_available_bytes": _memory("MemAvailable"),
        "ticks": sum(ticks[:8]) if ticks else None,
        "stolen_ticks": ticks[7] if len(ticks) > 7 else None,
    }


def warnings_before(surroundings: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What may make the numbers worse than they need be, known before the start."""
    found = []
    load, used = before["load_average"], len(surroundings["used_processors"])
    if load is not None and load[0] > _BUSY * used:
        found.append(f"the machine was busy before the start: load average {load[0]:.2f} on {used} processors")
    if surroundings["governor"] not in (None, "performance"):
        found.append(f"the processors' governor is {surroundings['governor']}, not performance: speeds may vary")
    quota = (surroundings["cgroup"]["cpu_max"] or "").split()
    if len(quota) == 2 and quota[0].isdigit() and int(quota[0]) / int(quota[1]) < used:
        share = int(quota[0]) / int(quota[1])
        found.append(f"a control group allows {share:g} processors' time, and {used} are used: --threads {int(share)}")
    return found


def warnings_after(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What happened meanwhile."""
    if before["stolen_ticks"] is None or after["stolen_ticks"] is None:
        return []
    share = (after["stolen_ticks"] - before["stolen_ticks"]) / max(after["ticks"] - before["ticks"], 1)
    return [f"the host took {share:.0%} of the processors' time for others"] if share > _STOLEN else []


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _caches() -> list[str]:
    """``L2 2048K``, as the first processor sees them."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(folder / name) for name in ("level", "type", "size"))
        letter = {"Data": "d", "Instruction": "i"}.get(kind or "", "")
        found.append(f"L{level}{letter} {size}")
    return found


def _memory(name: str) -> int | None:
    text = _pairs("/proc/meminfo").get(name)
    return 1024 * int(text.split()[0]) if text else None


def _pairs(path: str, separator: str = ":") -> dict[str, str]:
    """The lines of a file as names and values; the first of each name."""
    found: dict[str, str] = {}
    for line in (_read(path) or "").splitlines():
        name, _, value = line.partition(separator)
        found.setdefault(name.strip(), value.strip())
    return found


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None
