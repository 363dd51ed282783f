"""The three backends by name, imported only when asked for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType

from spec import InvalidInput

PACKAGES = {"pt": "googlenet_pt", "mx": "googlenet_mx", "jax": "googlenet_jax"}
BACKENDS = tuple(PACKAGES)


class NotInstalled(InvalidInput):
    """What was asked for needs a package that is not there."""


@dataclass
class Description:
    """What a backend's framework says of itself in the process that asked."""

    framework: str
    version: str
    device: str  # the one that was asked for
    devices: list[str]  # all that the framework can use here
    threads: int | None  # that it computes with on the CPU; None where the framework does not say
    built_for: str
    compute_capabilities: list[str] = field(default_factory=list)  # of machine code in the wheel, "8.6"; where known
    problems: list[str] = field(default_factory=list)  # each with its remedy


def processors() -> int:
    """Processors that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_names(names: list[str], known: Sequence[str] = BACKENDS) -> list[str]:
    """The names, after making sure that each is known, a backend's if nothing else is said, and none comes twice.

    Raises:
        InvalidInput: otherwise.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        got = ", ".join(unknown) or "none"
        raise InvalidInput(f"unknown backend: expected one or more of {', '.join(known)}, got {got}")
    if len(set(names)) < len(names):
        raise InvalidInput(f"backends: expected each one once, got {', '.join(names)}")
    return names


def load(name: str) -> ModuleType:
    """The backend's package, imported now.

    Raises:
        InvalidInput: for an unknown name; `NotInstalled` when its framework is not there.
    """
    check_names([name])
    try:
        return importlib.import_module(PACKAGES[name])
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(("googlenet_", "harness", "spec")):
            raise
        raise NotInstalled(
            f"backend {name} is not installed (no module {error.name!r}): pip install '.[{name}]'"
        ) from error
