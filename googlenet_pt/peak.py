"""The workloads of `harness.backends.ceilings` in PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from googlenet_pt.device import precision, rounds, select_device, select_dtype, wait
from harness.backends import ceilings
from harness.backends.ceilings import CHANNELS, KERNEL, PIXELS, Workload


def workloads(device: str, dtype: str) -> list[Workload]:
    """The product, the convolution and the copy. A device that is not there and an unknown dtype are refused."""
    on = {"device": select_device(device), "dtype": select_dtype(dtype)}
    tf32 = rounds(dtype, on["device"])
    a = torch.randn(ceilings.SIDE, ceilings.SIDE, **on)
    b = torch.randn(ceilings.SIDE, ceilings.SIDE, **on)
    product = torch.empty_like(a)
    x = torch.randn(ceilings.IMAGES, CHANNELS, PIXELS, PIXELS, **on).to(memory_format=torch.channels_last)
    w = torch.randn(CHANNELS, CHANNELS, KERNEL, KERNEL, **on).to(memory_format=torch.channels_last)
    source = torch.ones(ceilings.BYTES, device=on["device"], dtype=torch.uint8)
    target = torch.empty_like(source)
    return ceilings.workloads(
        product=_waiting(tf32, lambda: torch.matmul(a, b, out=product)),
        convolution=_waiting(tf32, lambda: F.conv2d(x, w, padding=KERNEL // 2)),
        copy=_waiting(tf32, lambda: target.copy_(source)),
    )


def _waiting(tf32: bool, work: Callable[[], object]) -> Callable[[], None]:
    @torch.inference_mode()
    def call() -> None:
        with precision(tf32):
            work()
        wait()

    return call
