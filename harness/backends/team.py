"""Several devices that train one model: how they share a batch, and what their processes agree on.

A `Team` builds, trains and predicts on all its devices. Each backend has one in `parallel.py`, with its framework's
engine; the one here is a single device.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Sequence
from typing import Self

import numpy as np

import spec
from harness.backends.registry import PACKAGES, Backend, Model, Optimizer, Tensor
from spec import Array, Arrays

# Variables with the number of processes, where torchrun or several machines started them.
_PROCESSES = {"pt": "WORLD_SIZE", "mx": "DMLC_NUM_WORKER", "jax": "JAX_NUM_PROCESSES"}


class Team:
    """The devices of a run; here a single one.

    Attributes:
        package: The backend.
        rank: Of this process, from 0. The first one alone evaluates, records and saves.
        processes: That train together.
        devices: Of all these processes.
    """

    def __init__(self, package: Backend) -> None:
        self.package = package
        self.rank, self.processes, self.devices = 0, 1, 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the others."""

    def check(self, config: spec.Config, batch: int, last: int, size: int) -> None:
        """Make sure, before training, that the devices can share the batches.

        Args:
            config: The network.
            batch: Images in a batch.
            last: Images in the last batch of an epoch.
            size: Side of the images in pixels.

        Raises:
            spec.InvalidInput: when they cannot.
        """

    def build(self, config: spec.Config, dtype: str, device: str, params: Arrays) -> Model:
        """The network with its parameters on every device."""
        return self.package.build(config, dtype, device, params=params)

    def make_optimizer(self, model: Model, optimizer: spec.Optimizer) -> Optimizer:
        """The framework's optimizer, which updates all devices."""
        return self.package.make_optimizer(model, optimizer)

    def train_step(
        self, model: Model, optimizer: Optimizer, images: Array, labels: Array, masks: Arrays, scale: float = 1.0
    ) -> spec.Step:
        """One step on a batch, shared by the devices; loss and hits are the whole batch's. Checks nothing."""
        return self.update(model, optimizer, *self.package.to_device(model, images, labels), masks, scale)

    def update(
        self, model: Model, optimizer: Optimizer, x: Tensor, y: Tensor, masks: Arrays, scale: float = 1.0
    ) -> spec.Step:
        """`train_step` of a single device, on a batch that it has already."""
        return self.package.update(model, optimizer, x, y, self.package.masks_to_device(model, masks), scale)

    def predict(self, model: Model, images: Array) -> Array:
        """Logits (N, num_classes)."""
        return self.package.predict(model, images)

    def total(self, values: Sequence[float]) -> Sequence[float]:
        """The sums over all processes, each of which must call this; it waits for the last one."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Every process must call this."""
        return bool(self.total([flag])[0])

    def wait(self) -> None:
        """Return when every process has called this."""
        self.total([0.0])

    def same(self, content: str) -> bool:
        """Whether all processes have the same content. Every process must call this."""
        digest = hashlib.sha256(content.encode()).digest()
        numbers = [int.from_bytes(digest[i : i + 2]) for i in range(0, len(digest), 2)]
        totals = self.total([*numbers, *(x * x for x in numbers)])
        sums, squares = totals[: len(numbers)], totals[len(numbers) :]
        # n numbers are equal exactly where n times the sum of their squares is the square of their sum.
        return all(s * s == self.processes * q for s, q in zip(sums, squares, strict=True))


def assemble(package: Backend, backend: str, device: str, devices: int) -> Team:
    """The team of a backend for so many devices of this process or, with PyTorch, of this machine.

    Raises:
        spec.InvalidInput: when there are not so many.
    """
    if devices == 1 and processes(backend) == 1:
        return Team(package)
    team: Team = importlib.import_module(f"{PACKAGES[backend]}.parallel").Team(device, devices)
    return team


def processes(backend: str) -> int:
    """The number of processes that train together, as the environment says."""
    return int(os.environ.get(_PROCESSES[backend]) or 1)


def started_here(backend: str) -> int | None:
    """The number of processes that torchrun started on this machine, one a device; None without torchrun."""
    here = os.environ.get("LOCAL_WORLD_SIZE")
    return int(here) if backend == "pt" and here and processes(backend) > 1 else None


def shares(count: int, devices: int) -> list[tuple[slice, int]]:
    """The share of each device in a batch: its rows, and how many of them count.

    A device without a share computes the first row again, which does not count.

    >>> shares(5, 2)
    [(slice(0, 3, None), 3), (slice(3, 5, None), 2)]
    >>> shares(1, 2)
    [(slice(0, 1, None), 1), (slice(0, 1, None), 0)]
    """
    ends = np.cumsum([count // devices + (i < count % devices) for i in range(devices)])
    rows = [slice(int(end) - count // devices - (i < count % devices), int(end)) for i, end in enumerate(ends)]
    return [(part, part.stop - part.start) if part.stop > part.start else (slice(0, 1), 0) for part in rows]


def check_shares(config: spec.Config, counts: Sequence[int], size: int, devices: int) -> None:
    """Make sure that batch norm can work on each share of such batches by itself.

    Raises:
        spec.InvalidInput: otherwise.
    """
    for count in counts:
        least = min(rows.stop - rows.start for rows, _ in shares(count, devices))
        try:
            spec.check_training_batch(config, (least, config.in_channels, size, size))
        except spec.InvalidInput as error:
            raise spec.InvalidInput(
                f"--devices: shared by {devices} devices, a batch of {count} leaves one with {least}, and each "
                f"normalizes with its own images; {error}"
            ) from error
