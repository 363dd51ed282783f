"""Measures which backends work on this machine, and names the remedy for each problem."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from harness.backends.process import Answer, run_worker
from harness.backends.registry import BACKENDS
from harness.screen import say
from spec import InvalidInput


def examine(device: str, done: Callable[[str], None] = lambda name: None) -> dict[str, Any]:
    """Every backend in a process of its own: version, devices, threads, problems. Plain values.

    Args:
        device: ``auto``, ``cpu`` or ``gpu``: what the backends are asked for.
        done: Called with the name of each backend when it has been examined.

    Raises:
        InvalidInput: when every backend refuses the device.
    """
    gpus = _nvidia_gpus()
    backends = {}
    refusals = []
    for name in BACKENDS:
        answer = run_worker(name, {"kind": "describe", "device": device}, {})
        if answer.refused is not None and not answer.missing:
            refusals.append(answer.refused)
        backends[name] = finding(name, answer, gpus)
        done(name)
    if len(refusals) == len(BACKENDS):
        raise InvalidInput("\n".join(refusals))
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "gpus": gpus,
        "backends": backends,
    }


def finding(name: str, answer: Answer, gpus: list[dict[str, str]]) -> dict[str, Any]:
    """The findings about one backend, on a machine with those GPUs."""
    if answer.refused is not None:
        return {"works": False, "problems": [answer.refused]}
    if answer.crash is not None:
        return {"works": False, "problems": [f"the process died: {answer.crash}"]}
    facts = answer.facts
    problems, unseen, unfit = list(facts["problems"]), [], []
    if facts["busy_threads"] is not None and facts["busy_threads"] < facts["processors"]:
        problems.append(
            f"computes with {facts['busy_threads']} threads on {facts['processors']} processors: check OMP_NUM_THREADS"
        )
    for gpu in gpus:
        which = f"{gpu['name']} (compute capability {gpu['compute_capability']}, driver {gpu['driver']})"
        if facts["devices"] == ["cpu"]:
            unseen.append(f"does not see {which}; built for: {facts['built_for']}; pip install '.[{_EXTRAS[name]}]'")
        elif not _runs_on(gpu["compute_capability"], facts["compute_capabilities"]):
            known = ", ".join(facts["compute_capabilities"])
            remedy = _CONTINUED if name == "mx" else f"install a build of {facts['framework']} for it"
            unfit.append(f"cannot run on {which}: its machine code is for {known}; {remedy}")
    usable = max(len(facts["devices"]) - 1 - len(unfit), 0)
    return {"works": True, **facts, "problems": problems + unseen + unfit, "gpu": _outlook(name, usable)}


_EXTRAS = {"pt": "cuda", "mx": "mx-cuda", "jax": "cuda"}
_CONTINUED = (
    "use --device cpu; MXNet 2.0, which a community goes on with at github.com/smolix/mxnet and which was not tried "
    "here, has wheels for newer GPUs"
)
_FOR = {"mx": " of compute capability 5.0 to 8.9"}  # the machine code in MXNet's last CUDA wheel


def _outlook(name: str, gpus: int) -> str:
    """What would run on GPUs, or what prevents it."""
    if not gpus:
        return (
            f"nothing runs on a GPU here, and tests marked gpu are skipped; with one{_FOR.get(name, '')}, its driver "
            f"and pip install '.[{_EXTRAS[name]}]' every command takes --device gpu"
        )
    several = f", train --devices up to {gpus}" if gpus > 1 else ""
    return f"compare, train, eval, predict, bench and profile run with --device gpu{several}; pytest -m gpu tests that"


def _runs_on(capability: str, built_for: list[str]) -> bool:
    """Machine code runs on GPUs of the same major number and the same or a higher minor one.

    Source: CUDA C++ programming guide, "Binary compatibility".
    """
    major, minor = map(int, capability.split("."))
    codes = [tuple(map(int, code.split("."))) for code in built_for]
    return not codes or any(code[0] == major and code[1] <= minor for code in codes)


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
    say(console, f"Python {findings['python']}, NumPy {findings['numpy']}, {findings['platform']}")
    for gpu in findings["gpus"]:
        say(console, f"{gpu['name']}, compute capability {gpu['compute_capability']}, driver {gpu['driver']}")
    for name, backend in findings["backends"].items():
        if backend["works"]:
            reported = "" if backend["threads"] is None else f"{backend['threads']} threads reported, "
            facts = [
                f"{backend['framework']} {backend['version']}",
                ", ".join(backend["devices"]),
                backend["built_for"],
                f"{reported}{backend['busy_threads']} computing, {backend['processors']} processors",
            ]
            say(console, f"{name}: {'; '.join(facts)}", "yellow" if backend["problems"] else "green")
        else:
            say(console, f"{name}: does not work here", "red")
        for problem in backend["problems"]:
            say(console, f"    {problem}", "yellow")
        if backend["works"]:
            say(console, f"    {backend['gpu']}", "dim")
