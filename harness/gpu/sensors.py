"""What an NVIDIA GPU says of itself while it is measured: clocks, power, heat, and what slows it down."""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

EVERY = 0.5  # seconds between two readings
# Source: NVML's header, "nvmlClocksEventReasons". An idle GPU, and clocks that somebody has set, are no slowdown.
REASONS = {
    0x04: "the power limit",
    0x08: "hardware: heat, power or voltage",
    0x20: "heat (by software)",
    0x40: "heat (by hardware)",
    0x80: "an external power brake",
}


@dataclass(frozen=True)
class Reading:
    """One moment."""

    clock: int  # MHz, of the streaming multiprocessors
    power: float  # watts
    temperature: int  # degrees Celsius
    reasons: int  # bits of `REASONS`


@dataclass
class Watched:
    """The readings of a part of the run."""

    readings: list[Reading] = field(default_factory=list)

    def as_json(self) -> dict[str, Any] | None:
        """Plain values; None where nothing was read."""
        if not self.readings:
            return None
        clocks = [reading.clock for reading in self.readings]
        bits = 0
        for reading in self.readings:
            bits |= reading.reasons
        return {
            "readings": len(clocks),
            "clock_mhz": {"min": min(clocks), "median": statistics.median(clocks), "max": max(clocks)},
            "power_watts": round(statistics.mean(reading.power for reading in self.readings), 1),
            "temperature_celsius": max(reading.temperature for reading in self.readings),
            "slowed_by": [reason for bit, reason in REASONS.items() if bits & bit],
        }


Read = Callable[[], Reading]


def open_gpu() -> tuple[dict[str, Any], Read] | None:
    """The first GPU that CUDA_VISIBLE_DEVICES names: what stays the same, and a function that reads the rest.

    None without nvidia-ml-py (the extra `gpu`), or where the driver does not answer.
    """
    try:
        import pynvml as nvml
    except ModuleNotFoundError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    try:
        nvml.nvmlInit()
        by_number = nvml.nvmlDeviceGetHandleByIndex
        handle = by_number(int(visible)) if visible.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(visible)
        about = {
            "name": nvml.nvmlDeviceGetName(handle),
            "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(handle).total,
            "power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,
            "clock_limit_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        }
    except nvml.NVMLError:
        return None

    def read() -> Reading:
        return Reading(
            clock=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            power=nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            temperature=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            reasons=nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )

    return about, read


@contextmanager
def watch(read: Read | None) -> Iterator[Watched]:
    """Read the GPU about twice a second, in a thread; nothing without `read`. A reading that fails is left out."""
    watched, ended = Watched(), threading.Event()
    if read is None:
        yield watched
        return

    def loop() -> None:
        while True:
            with suppress(Exception):  # NVML's own, where this GPU does not tell one of the values
                watched.readings.append(read())
            if ended.wait(EVERY):
                return

    thread = threading.Thread(target=loop, name="sensors")
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join()
