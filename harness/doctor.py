"""What works on this machine, measured, and the remedy for what does not."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from harness.backend import BACKENDS
from harness.processes import Answer, run_worker

_BUSY_ENOUGH = 0.6  # of the processors; below that a framework leaves some of them idle


def examine(device: str, done: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Every backend in a process of its own: version, devices, threads, problems. Plain values.

    Args:
        device: ``auto``, ``cpu`` or ``gpu``: what the backends are asked for.
        done: Called with the name of each backend when it has been examined.
    """
    gpus = _nvidia_gpus()
    backends = {}
    for name in BACKENDS:
        backends[name] = _finding(name, run_worker(name, {"kind": "describe", "device": device}, {}), gpus)
        done(name)
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "gpus": gpus,
        "backends": backends,
    }


def _finding(name: str, answer: Answer, gpus: list[dict[str, str]]) -> dict[str, Any]:
    if answer.refused is not None:
        return {"works": False, "problems": [answer.refused]}
    if answer.crash is not None:
        return {"works": False, "problems": [f"the process died: {answer.crash}"]}
    facts = answer.facts
    problems = list(facts["problems"])
    if facts["busy"] < _BUSY_ENOUGH * facts["processors"]:
        problems.append(
            f"keeps {facts['busy']:.1f} of {facts['processors']} processors busy: "
            "check OMP_NUM_THREADS, and what else is running"
        )
    if gpus and facts["devices"] == ["cpu"]:
        remedy = "pip install '.[mx-cuda]'" if name == "mx" else "pip install '.[cuda]'"
        names = ", ".join(f"{gpu['name']} (compute capability {gpu['compute_capability']})" for gpu in gpus)
        problems.append(f"does not see {names}; built for: {facts['built_for']}; {remedy}")
    return {"works": True, **facts, "problems": problems}


def _nvidia_gpus() -> list[dict[str, str]]:
    """Name, compute capability and driver of each GPU, from NVIDIA's own tool; empty where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    keys = ("name", "compute_capability", "driver")
    return [dict(zip(keys, line.split(", "), strict=True)) for line in listed.strip().splitlines()]


def render(findings: dict[str, Any], console: Console) -> None:
    """Print the findings, a backend at a time, each problem with its remedy."""
    console.print(f"Python {findings['python']}, NumPy {findings['numpy']}, {findings['platform']}", highlight=False)
    for gpu in findings["gpus"]:
        console.print(f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver {gpu['driver']}")
    for name, found in findings["backends"].items():
        if found["works"]:
            threads = "" if found["threads"] is None else f"{found['threads']} threads, "
            busy = f"{threads}{found['busy']:.1f} of {found['processors']} processors busy"
            what = (
                f"{found['framework']} {found['version']}; {', '.join(found['devices'])}; {found['built_for']}; {busy}"
            )
            console.print(Text(f"{name}: {what}", style="yellow" if found["problems"] else "green"))
        else:
            console.print(Text(f"{name}: does not work here", style="red"))
        for problem in found["problems"]:
            console.print(Text(f"    {problem}", style="yellow"))
