"""The three backends by name, imported only when asked for, and what each of them offers."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import spec
from spec import Array, Arrays, InvalidInput

PACKAGES = {"pt": "googlenet_pt", "mx": "googlenet_mx", "jax": "googlenet_jax"}
BACKENDS = tuple(PACKAGES)


class NotInstalled(InvalidInput):
    """A package that is needed is not installed."""


@dataclass
class Description:
    """A backend's framework, as it describes itself in this process."""

    framework: str
    version: str
    device: str  # the selected one
    devices: list[str]  # all that the framework can use here
    threads: int | None  # on the CPU; None where the framework does not say
    built_for: str
    compute_capabilities: list[str] = field(default_factory=list)  # of machine code in the wheel, "8.6"; where known
    problems: list[str] = field(default_factory=list)  # each with its remedy


# A network, an optimizer and an array on a device are the framework's own objects.
Model = Any
Optimizer = Any
Tensor = Any


class Backend(Protocol):
    """The functions of a backend's package. Each has its docstring there; images are (N, C, H, W)."""

    def build(
        self,
        config: spec.Config,
        dtype: str = "float32",
        device: str = "auto",
        seed: int = 0,
        params: Arrays | None = None,
    ) -> Model: ...
    def load_params(self, model: Model, params: Arrays) -> None: ...
    def dump_params(self, model: Model) -> dict[str, Array]: ...

    def predict(self, model: Model, images: Array) -> Array: ...
    def activations(self, model: Model, images: Array) -> dict[str, Array]: ...
    def loss_and_grads(self, model: Model, images: Array, labels: Array) -> tuple[float, dict[str, Array]]: ...

    def make_optimizer(self, model: Model, optimizer: spec.Optimizer) -> Optimizer: ...
    def load_optimizer(self, model: Model, optimizer: Optimizer, state: Arrays) -> None: ...
    def dump_optimizer(self, model: Model, optimizer: Optimizer) -> dict[str, Array]: ...
    def set_rate(self, optimizer: Optimizer, rate: float) -> None: ...
    def train_step(
        self,
        model: Model,
        optimizer: Optimizer,
        images: Array,
        labels: Array,
        masks: Arrays | None = None,
        scale: float = 1.0,
    ) -> spec.Step: ...

    # The same in parts, without checks, for loops that keep the device busy.
    def images_to_device(self, model: Model, images: Array) -> Tensor: ...
    def masks_to_device(self, model: Model, masks: Arrays) -> dict[str, Tensor]: ...
    def to_device(self, model: Model, images: Array, labels: Array) -> tuple[Tensor, Tensor]: ...
    def dataset_to_device(
        self, model: Model, images: Array, labels: Array, table: Array
    ) -> Callable[[Array], tuple[Tensor, Tensor]]: ...
    def update(
        self,
        model: Model,
        optimizer: Optimizer,
        x: Tensor,
        y: Tensor,
        masks: dict[str, Tensor],
        scale: float = 1.0,
    ) -> spec.Step: ...
    def predictor(self, model: Model, x: Tensor) -> Callable[[Tensor], Tensor]: ...
    def wait(self, *results: object) -> None: ...

    def describe(self, device: str = "auto") -> Description: ...
    def free_memory(self, device: str = "auto") -> int | None: ...
    def peak_memory(self, device: str = "auto") -> int | None: ...


def processors() -> int:
    """Processors that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def uses_gpu(device: str, found: bool, framework: str) -> bool:
    """Whether ``auto``, ``cpu`` or ``gpu`` is a GPU, in a framework that has found one or none; ``cuda`` means ``gpu``.

    Raises:
        InvalidInput: for another name, or for a GPU where there is none.
    """
    if device not in ("auto", "cpu", "gpu", "cuda"):
        raise InvalidInput(
            f"device: expected auto, cpu or gpu, got {device!r}; of several GPUs CUDA_VISIBLE_DEVICES chooses one"
        )
    if device in ("gpu", "cuda") and not found:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        among = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible}"
        raise InvalidInput(
            f"device gpu: {framework} finds no GPU here{among}; `googlenet doctor` says why, or take cpu"
        )
    return found and device != "cpu"


def check_tf32(dtype: str, capability: tuple[int, int] | None) -> bool:
    """Whether the dtype is ``tf32``, which a device of that compute capability has; None is a CPU.

    Raises:
        InvalidInput: for ``tf32`` on another device.
    """
    if dtype == "tf32" and (capability is None or capability < (8, 0)):
        found = "a CPU" if capability is None else "one of {}.{}".format(*capability)
        raise InvalidInput(
            f"dtype tf32: expected an NVIDIA GPU of compute capability 8.0 or newer, which rounds to it, got {found}; "
            "take float32"
        )
    return dtype == "tf32"


def check_names(names: list[str], known: Sequence[str] = BACKENDS) -> list[str]:
    """The names, after making sure that each is known (by default a backend's) and none comes twice.

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


def load(name: str) -> Backend:
    """The backend's package, imported now.

    Raises:
        InvalidInput: for an unknown name; `NotInstalled` when its framework is not there.
    """
    check_names([name])
    try:
        return cast(Backend, importlib.import_module(PACKAGES[name]))
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith(("googlenet_", "harness", "spec")):
            raise
        raise NotInstalled(
            f"backend {name} is not installed (no module {error.name!r}): pip install '.[{name}]'"
        ) from error
