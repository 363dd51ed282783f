"""The conditions of a benchmark: code, versions, processor, limits, load, and warnings about disturbances."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from harness.backends.registry import processors

_PACKAGES = (
    "numpy",
    "torch",
    "mxnet",
    "mxnet-cu117",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "onnx",
    "onnxruntime",
    "openvino",
)
_VARIABLES = tuple(  # how the names begin
    "OMP_ KMP_ GOMP_ MKL_ OPENBLAS_ ONEDNN_ DNNL_ MXNET_ XLA_ JAX_ TORCH PYTORCH_ CUDA_ NVIDIA_ MALLOC_".split()
)
_BUSY = 0.25  # share of the processors that other processes take, above which there is a warning
_WATCHED = 1.0  # seconds that they are watched
_STOLEN = 0.02  # share of the processors' time that the host took, above which there is a warning


def allowed() -> list[int]:
    """The processors that this process may use, by number."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(processors()))


def code() -> dict[str, Any]:
    """The commit of this checkout, and whether its programs differ from it; None where it is no checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", "*.py")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*words: str) -> str | None:
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def environment(used: Sequence[int]) -> dict[str, Any]:
    """Everything that stays the same during a benchmark; None for what the system does not tell.

    Args:
        used: The processors that are measured on.
    """
    cpuinfo = _read("/proc/cpuinfo") or ""
    model = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(_VARIABLES)},
        "processor": model.group(1) if model else platform.processor() or None,
        "processors": os.cpu_count(),
        "allowed_processors": allowed(),
        "used_processors": list(used),
        "caches": _caches(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo_off": _read("/sys/devices/system/cpu/intel_pstate/no_turbo"),
        "virtual": re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None,
        "memory_bytes": psutil.virtual_memory().total,
        "cgroup": {
            "cpu_max": _read("/sys/fs/cgroup/cpu.max") or _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
            "memory_max": _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        },
    }


def _versions() -> dict[str, str]:
    """The packages that are installed here."""
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _caches() -> list[str]:
    """``L2 2048K``, as the first processor sees them."""
    caches = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        letter = {"Data": "d", "Instruction": "i"}.get(_read(folder / "type") or "", "")
        caches.append(f"L{_read(folder / 'level')}{letter} {_read(folder / 'size')}")
    return caches


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def now() -> dict[str, Any]:
    """Everything that changes: time, load, free memory, the processors' time so far, and what the host took of it."""
    times = psutil.cpu_times()
    hertz = os.sysconf("SC_CLK_TCK")
    stolen = getattr(times, "steal", None)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": list(psutil.getloadavg()),
        "memory_available_bytes": psutil.virtual_memory().available,
        "ticks": round(sum(times[:8]) * hertz),  # guests' time, which follows, is a part of these
        "stolen_ticks": None if stolen is None else round(stolen * hertz),
    }


def busy_processors(used: Sequence[int]) -> float:
    """How many of these processors other processes keep busy, watched for a second in which this one waits."""
    shares = psutil.cpu_times_percent(interval=_WATCHED, percpu=True)
    return float(sum(1 - (shares[i].idle + getattr(shares[i], "iowait", 0.0)) / 100 for i in used if i < len(shares)))


def warnings_before(surroundings: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """Disturbances that are known before the start."""
    warnings = []
    busy = before["busy_processors"]
    used = len(surroundings["used_processors"])
    if busy > _BUSY * used:
        warnings.append(
            f"the machine is busy: before the start other programs took {busy:.1f} of the {used} processors, and what "
            "is measured beside them says little; wait until they are done"
        )
    if surroundings["governor"] not in (None, "performance"):
        warnings.append(f"the processors' governor is {surroundings['governor']}, not performance: speeds may vary")
    quota = (surroundings["cgroup"]["cpu_max"] or "").split()
    if len(quota) == 2 and quota[0].isdigit():
        share = int(quota[0]) / int(quota[1])
        if share < used:
            advice = f"--threads {int(share)}"
            warnings.append(f"a control group allows {share:g} processors' time, and {used} are used: {advice}")
    return warnings


def warnings_after(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Disturbances that happened meanwhile."""
    if before["stolen_ticks"] is None:
        return []
    share = (after["stolen_ticks"] - before["stolen_ticks"]) / max(after["ticks"] - before["ticks"], 1)
    return [f"the host took {share:.0%} of the processors' time for others"] if share > _STOLEN else []
